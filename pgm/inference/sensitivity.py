"""Prior and likelihood sensitivity: how far the posterior moves when either is given more weight.

The prior or the likelihood is raised to the power a around 1, by Pareto-smoothed importance weights
p(theta)^(a - 1), without a new fit; the distance is the square root of the cumulative
Jensen-Shannon divergence, normalised (Kallioinen, Paananen, Bürkner & Vehtari 2024, sec. 2 and 3).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.inference.approximate.weighed import evened
from pgm.inference.diagnostics import smooth
from pgm.inference.posterior import Posterior
from pgm.inference.predictive import log_prior, pointwise

if TYPE_CHECKING:
    import pandas

SENSITIVE = 0.05
"""Above this a posterior moves noticeably (Kallioinen et al. 2024, sec. 3.3)."""
_POWER = 1.25


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How far each latent moves with the prior and with the likelihood; prints its table.

    Attributes:
        prior: by element, the gradient of the distance at power 1.
        likelihood: the same for the likelihood.
    """

    prior: dict[str, float]
    likelihood: dict[str, float]

    def frame(self) -> "pandas.DataFrame":
        """A row an element: prior, likelihood and what both together say."""
        import pandas as pd

        rows = {
            name: {"prior": p, "likelihood": self.likelihood[name], "verdict": self._verdict(name)}
            for name, p in self.prior.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def problems(self) -> tuple[str, ...]:
        """The elements whose prior deserves another look."""
        return tuple(f"{name}: {said}" for name in self.prior if (said := self._verdict(name)))

    def __str__(self) -> str:
        return self.frame().to_string(float_format="{:.3f}".format)

    def _verdict(self, name: str) -> str:
        prior, likelihood = self.prior[name] > SENSITIVE, self.likelihood[name] > SENSITIVE
        if prior and likelihood:
            return "prior and data may be in conflict: both move it"
        return "the prior speaks louder than the data" if prior else ""


def sensitivity(posterior: Posterior) -> Sensitivity:
    """How sensitive the latents outside `rows` are to their prior and to the data.

    The prior is that of all latents outside `rows` together; latents of rows belong to the model of
    the data and are held as they were drawn.

    Args:
        posterior: draws of any method; those of an approximation are chosen anew by their weights.

    Raises:
        ValueError: no latent outside `rows`, or fewer than 100 draws.

    Example:
        >>> from pgm.families.regression import Regression
        >>> from pgm.inference import variational
        >>> import warnings; warnings.simplefilter("ignore")
        >>> data = {"x": torch.ones(3, 1), "y": torch.zeros(3)}
        >>> sorted(sensitivity(variational(Regression(1), data, draws=200, seed=0)).prior)
        ['intercept', 'noise', 'weights[0]']
    """
    from pgm.inference.diagnostics import labelled

    posterior = evened(posterior, seed=0)
    shared = {k: v for k, v in posterior.draws.items() if "rows" not in posterior.dims.get(k, ())}
    if not shared:
        raise ValueError(
            f"All latents of {type(posterior.model).__name__} belong to rows: there is no prior of "
            "shared latents to weigh."
        )
    draws = posterior.size[0] * posterior.size[1]
    if draws < 100:
        raise ValueError(f"{draws} draws came; weights take 100 or more to be smoothed.")
    terms = log_prior(posterior).flatten(), pointwise(posterior).sum(-1).flatten()
    weights = [[_powered(term, a) for a in (1 / _POWER, _POWER)] for term in terms]
    found: list[dict[str, float]] = []
    for pair in weights:
        found.append(
            {
                name: sum(float(distance(x, w)) for w in pair)
                / (2 * torch.tensor(_POWER).log2().item())
                for name, x in labelled(shared)
            }
        )
    return Sensitivity(*found)


def distance(x: Float[Tensor, " draws"], w: Float[Tensor, " draws"]) -> Float[Tensor, ""]:
    """The cumulative Jensen-Shannon distance of draws from the same draws under weights, in [0, 1].

    It is taken from both ends, of x and of -x, and the larger one counts.

    Args:
        x: draws.
        w: their weights, which add up to one.

    Example:
        >>> x = torch.arange(4.0)
        >>> float(distance(x, torch.full((4,), 0.25)))
        0.0
    """
    return torch.maximum(_one_sided(x, w), _one_sided(-x, w))


def _one_sided(x: Tensor, w: Tensor) -> Tensor:
    x, order = x.double().sort()
    p = torch.arange(1, len(x) + 1, dtype=x.dtype) / len(x)
    q = w.double()[order].cumsum(0)
    p, q, width = p[:-1], q[:-1], x.diff()
    m = (p + q) / 2
    both = torch.xlogy(p, p / m) + torch.xlogy(q, q / m)
    bound = ((p + q) * width).sum() * torch.tensor(2.0).log()
    if not bool(bound > 0):
        return torch.zeros((), dtype=x.dtype)
    return ((both * width).sum() / bound).clamp(min=0).sqrt()


def _powered(term: Tensor, power: float) -> Tensor:
    log_w, _ = smooth((power - 1) * term)
    return log_w.exp()
