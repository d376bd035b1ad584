"""All that can be said of a posterior at once, in words: what is wrong, and what to try."""

from collections.abc import Iterator
from dataclasses import dataclass

from pgm.inference.checks import predictive_check
from pgm.inference.comparison import loo
from pgm.inference.diagnostics import K_HAT
from pgm.inference.posterior import Posterior
from pgm.inference.reparameterisation import NonCentred, funnels
from pgm.inference.sensitivity import sensitivity
from pgm.verb import Unsupported

_SEPARATE = 3.0
"""Distance of chain means in within-chain standard deviations at which they hold other modes."""
_ALIKE = 0.5
"""Distance, in units of the same, at which sorted chain means are alike: labels were switched."""


@dataclass(frozen=True)
class Diagnosis:
    """What speaks against a posterior; prints it.

    Attributes:
        sampling: reasons not to trust the draws.
        model: reasons to doubt the model, the draws being what they may.
        unknown: what could not be looked at, and why.
    """

    sampling: tuple[str, ...]
    model: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether nothing speaks against it."""
        return not (self.sampling or self.model)

    def __str__(self) -> str:
        parts: dict[str, tuple[str, ...]] = {
            "The draws": self.sampling or ("no sign that they are not those of the posterior",),
            "The model": self.model or ("no sign against it in these data",),
            "Not looked at": self.unknown,
        }
        told = {title: said for title, said in parts.items() if said}
        return "\n".join(
            "\n".join([f"{title}:", *(f"  * {each}" for each in said)])
            for title, said in told.items()
        )


def diagnose(posterior: Posterior, *, seed: int = 0) -> Diagnosis:
    """Looks at draws, influence of rows, replicated data and priors, and says what to try.

    Args:
        posterior: draws of any method.
        seed: of the replicated data.

    Example:
        >>> import torch
        >>> from pgm.families.factor import PPCA
        >>> from pgm.inference import variational
        >>> x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        >>> found = diagnose(variational(PPCA(3, 1), x, draws=200, seed=0))
        >>> found.unknown[0].partition(":")[0]
        'prior sensitivity'
    """
    sampling = [*posterior.problems(), *_switched(posterior), *_funnel(posterior)]
    model: list[str] = []
    unknown: list[str] = []
    looks = {
        "influence of rows": lambda: _influence(posterior),
        "replicated data": lambda: predictive_check(posterior, seed=seed).problems(),
        "prior sensitivity": lambda: sensitivity(posterior).problems(),
    }
    for name, look in looks.items():
        try:
            model += look()
        except (Unsupported, ValueError) as why:
            unknown.append(f"{name}: {why}")
    return Diagnosis(tuple(sampling), tuple(model), tuple(unknown))


def _influence(posterior: Posterior) -> tuple[str, ...]:
    found = loo(posterior)
    if not found.bad:
        return ()
    rows = (found.k > K_HAT).nonzero().flatten()[:5].tolist()
    return (
        f"{found.bad} rows (such as {rows}) are so influential that leaving one out would change "
        f"the posterior (k-hat above {K_HAT}): outliers, rows with latents of their own, or a "
        "model too thin in its tails. Look at them, and try a distribution with heavier tails.",
    )


def _switched(posterior: Posterior) -> Iterator[str]:
    """Chains in modes that are the same but for the order of a site's elements."""
    if posterior.size[0] < 2:
        return
    for name, value in posterior.draws.items():
        if value.dim() != 3 or value.shape[2] < 2:
            continue
        mean, sd = value.mean(1), value.std(1).mean(0).clamp(min=1e-12)
        apart = ((mean[:, None] - mean[None]).abs() / sd).max()
        ordered = mean.sort(-1).values
        sorted_apart = ((ordered[:, None] - ordered[None]).abs() / sd.mean()).max()
        if apart > _SEPARATE and sorted_apart < _ALIKE * apart:
            yield (
                f"The chains hold {name} in different orders: the components of a mixture have "
                "no names, and each chain gave them its own (label switching). R-hat and means of "
                "single elements mean nothing here. Order the elements in the model "
                "(a transform to ordered vectors), give them priors that differ, or ask for what "
                "does not depend on labels, such as the predictive density."
            )


def _funnel(posterior: Posterior) -> Iterator[str]:
    """Divergences, few draws of a scale: the sites that could be non-centred."""
    stats = posterior.sample_stats
    diverging = "diverging" in stats and bool(stats["diverging"].any())
    slow = any("E-BFMI" in problem for problem in posterior.problems())
    if isinstance(posterior.model, NonCentred) or not (diverging or slow):
        return
    found = funnels(posterior.model, posterior.batch)
    if found:
        yield (
            f"{', '.join(found)} hang on a scale that is itself sampled, which makes a funnel "
            "where it is small: try pgm.inference.reparameterise(model), which writes them as "
            "standard noise."
        )
