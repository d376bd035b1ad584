"""How well a model predicts rows that it did not see: PSIS-LOO, and models compared by it.

    elpd_i = log p(y_i | y_-i) ~ log sum_s w_is p(y_i | theta_s),  w_is ~ r_s / p(y_i | theta_s)

with Pareto-smoothed weights (Vehtari, Gelman & Gabry 2017, eq. 10; Vehtari et al. 2024), and r = 1
for draws from the posterior, p / q for those of an approximation (Magnusson, Andersen, Jonasson &
Vehtari 2019). Where the k-hat of a row is above 0.7 that row is too influential for its weights,
and the number is not to be trusted. Models are weighed by stacking (Yao, Vehtari, Simpson & Gelman
2018, eq. 4).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import SEEN
from pgm.inference.approximate.weighed import log_weight_by_row
from pgm.inference.diagnostics import K_HAT, smooth
from pgm.inference.posterior import Posterior
from pgm.inference.predictive import first_run, pointwise

if TYPE_CHECKING:
    import pandas

_FEW = 4.0
"""A difference in elpd below which models are not told apart (Sivula et al. 2020)."""


@dataclass(frozen=True, eq=False)
class Loo:
    """Leave-one-out predictive density, in nats.

    Attributes:
        rows: log p(y_i | y_-i) of each row, shape (n,).
        within: log p(y_i | y) of each row, which was seen.
        k: the Pareto k-hat of each row's weights.
    """

    rows: Float[Tensor, " n"]
    within: Float[Tensor, " n"]
    k: Float[Tensor, " n"]

    @property
    def elpd(self) -> float:
        """The sum over rows."""
        return float(self.rows.sum())

    @property
    def error(self) -> float:
        """Its standard error, by the spread of the rows."""
        return float((len(self.rows) * self.rows.var()).sqrt())

    @property
    def p(self) -> float:
        """The effective number of parameters: what having seen the rows gains."""
        return float((self.within - self.rows).sum())

    @property
    def bad(self) -> int:
        """Rows whose k-hat is above 0.7."""
        return int((self.k > K_HAT).sum())

    def __str__(self) -> str:
        lines = [
            f"elpd_loo {self.elpd:.1f} +- {self.error:.1f} nats over {len(self.rows)} rows; "
            f"effective parameters {self.p:.1f}; largest k-hat {float(self.k.max()):.2f}"
        ]
        if self.bad:
            lines.append(
                f"  * k-hat is above {K_HAT} in {self.bad} rows: without them the posterior is "
                "another one, and the number may be far off. Leave those rows out in earnest "
                "(k-fold), look at what they are, or use a model that expects them."
            )
        return "\n".join(lines)


def loo(posterior: Posterior) -> Loo:
    """Pareto-smoothed importance-sampling leave-one-out of a posterior.

    The likelihood of a row is given all latents of a draw, those of its own row included: where
    rows have latents of their own, k-hats are often too large, and the model without them (summed
    or integrated out) is the one to ask.

    Args:
        posterior: draws of any method; those of an approximation count by their weights.

    Raises:
        Unsupported: the likelihood of a row needs the value of a missing cell.
        ValueError: fewer than 100 draws, whose tails have no shape.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> from pgm.inference import variational
        >>> x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
        >>> loo(variational(PPCA(3, 1), x, draws=200, seed=0)).rows.shape
        torch.Size([4])
    """
    log_lik = pointwise(posterior).flatten(0, 1).T
    draws = log_lik.shape[1]
    if draws < 100:
        raise ValueError(f"{draws} draws came; the tail of the weights takes 100 or more.")
    log_w, k = left_out(posterior, log_lik)
    within, _ = smooth(log_weight_by_row(posterior))
    return Loo((log_w + log_lik).logsumexp(-1), (within + log_lik).logsumexp(-1), k)


def left_out(
    posterior: Posterior, log_lik: Float[Tensor, "n draws"]
) -> tuple[Float[Tensor, "n draws"], Float[Tensor, " n"]]:
    """Log weights of the draws, of each row those without it, and their k-hat."""
    return smooth(log_weight_by_row(posterior) - log_lik)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Models by how well they predict rows they did not see; prints its table.

    Attributes:
        loo: by name, the best first.
        weights: of stacking; they add up to one.
    """

    loo: Mapping[str, Loo]
    weights: Mapping[str, float]

    def frame(self) -> "pandas.DataFrame":
        """A row a model: elpd, its error, p, the difference to the best and its error, weight."""
        import pandas as pd

        best = next(iter(self.loo.values()))
        rows = {}
        for name, each in self.loo.items():
            apart = best.rows - each.rows
            rows[name] = {
                "elpd": each.elpd,
                "error": each.error,
                "p": each.p,
                "difference": float(apart.sum()),
                "difference_error": float((len(apart) * apart.var()).sqrt()),
                "weight": self.weights[name],
                "bad_rows": each.bad,
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def __str__(self) -> str:
        table = self.frame()
        lines = [table.round(2).to_string()]
        for name, row in table.iloc[1:].iterrows():
            if row["difference"] < max(_FEW, 2 * row["difference_error"]):
                lines.append(
                    f"  * {name} is not told apart from {table.index[0]}: a difference of "
                    f"{row['difference']:.1f} +- {row['difference_error']:.1f} nats."
                )
        bad = [f"{name} ({each.bad})" for name, each in self.loo.items() if each.bad]
        if bad:
            lines.append(
                f"  * rows with k-hat above {K_HAT}: {', '.join(bad)}; see loo(posterior)."
            )
        return "\n".join(lines)


def compare(posteriors: Mapping[str, Posterior]) -> Ranking:
    """Ranks models of the same rows by their leave-one-out predictive density.

    Args:
        posteriors: by name, of any models and methods.

    Raises:
        ValueError: fewer than two, or models of other data: another number of rows, other sites or
            values, missing cells elsewhere, or a density beside a probability.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> from pgm.inference import variational
        >>> x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        >>> made = {k: variational(PPCA(3, k), x, draws=200, seed=0) for k in (1, 2)}
        >>> table = compare({f"{k} factors": p for k, p in made.items()})
        >>> round(sum(table.weights.values()), 6)
        1.0
    """
    _check_alike(posteriors)
    found = {name: loo(posterior) for name, posterior in posteriors.items()}
    order = sorted(found, key=lambda name: -found[name].elpd)
    w = stacking(torch.stack([found[name].rows for name in order], 1))
    weights = dict(zip(order, w.tolist(), strict=True))
    return Ranking({name: found[name] for name in order}, weights)


def stacking(log_p: Float[Tensor, "n models"], *, steps: int = 2000) -> Float[Tensor, " models"]:
    """The weights w of the simplex that maximise sum_i log sum_k w_k p_ik.

    The score is concave, and expectation maximisation of mixture weights climbs it.

    Args:
        log_p: predictive log densities of rows that were left out.
        steps: of the ascent.

    Example:
        >>> stacking(torch.tensor([[-1.0, -5.0], [-1.0, -5.0]])).round(decimals=3)
        tensor([1., 0.])
    """
    log_w = torch.full_like(log_p[0], -float(log_p.shape[1])).log_softmax(0)
    for _ in range(steps):
        log_w = (log_w + log_p).log_softmax(1).logsumexp(0).log_softmax(0)
    return log_w.exp()


def _check_alike(posteriors: Mapping[str, Posterior]) -> None:
    if len(posteriors) < 2:
        raise ValueError(f"{len(posteriors)} models came; a comparison takes two or more.")
    data = {name: _data(posterior) for name, posterior in posteriors.items()}
    (first, one), *others = data.items()
    for name, other in others:
        same = one.keys() == other.keys() and all(
            one[k][0].shape == other[k][0].shape
            and torch.equal(one[k][0].double(), other[k][0].double())
            and one[k][1] == other[k][1]
            for k in one
        )
        if not same:
            raise ValueError(
                f"{first} and {name} are not of the same data: "
                f"{_words(one)} against {_words(other)}. Densities of other rows, cells or units, "
                "and densities beside probabilities, cannot be compared: fit both models to the "
                "same values of the same sites."
            )


def _data(posterior: Posterior) -> dict[str, tuple[Tensor, bool]]:
    """The observed values of each site with their masks, and whether they have probabilities."""
    seen = {k: x for k, x in posterior.batch.items() if k not in posterior.model.context}
    sites = first_run(posterior).sites
    return {
        k: (x, k in sites and bool(sites[k].fn.support.is_discrete))
        for k, x in seen.items()
        if k in sites or k.endswith(SEEN)
    }


def _words(data: Mapping[str, tuple[Tensor, bool]]) -> str:
    kinds = ("density", "probabilities")
    return ", ".join(f"{k} {tuple(x.shape)} ({kinds[d]})" for k, (x, d) in data.items())
