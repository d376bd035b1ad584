"""Does the fitted model make data like those it was given? Posterior predictive checks and LOO-PIT.

A check compares a statistic T of the data with that of data replicated at every draw, p = P(T(rep)
>= T(y) | y) (Gelman, Meng & Stern 1996). The probability integral transform of each row under what
the others predict, P(y_i' <= y_i | y_-i), is uniform for a calibrated model (Gelfand, Dey & Chang
1992; Gabry et al. 2019, sec. 4); levels and counts are randomised between their two ends.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import SEEN
from pgm.inference.approximate.weighed import evened
from pgm.inference.comparison import left_out
from pgm.inference.posterior import Posterior
from pgm.inference.predictive import first_run, pointwise, predictive
from pgm.model import ROWS
from pgm.randomness import seeded

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

Statistic = Callable[[Tensor], Tensor]
"""Of the rows of one site, shape (n, ...), to one number."""

EXTREME = 0.01
"""A p-value this near to 0 or 1 says that the model does not make such data."""

STATISTICS: dict[str, Statistic] = {
    "mean": lambda x: x.mean(),
    "sd": lambda x: x.std(),
    "least": lambda x: x.min(),
    "largest": lambda x: x.max(),
}


@dataclass(frozen=True, eq=False)
class PredictiveCheck:
    """Statistics of the data beside those of replicated data; prints its table.

    Attributes:
        observed: T(y), by site and statistic.
        replicated: T(rep) at every draw, shape (draws,).
    """

    observed: Mapping[str, float]
    replicated: Mapping[str, Float[Tensor, " draws"]]

    @property
    def p(self) -> dict[str, float]:
        """P(T(rep) >= T(y)), ties counted half."""
        return {
            name: float((x > self.observed[name]).double().mean())
            + 0.5 * float((x == self.observed[name]).double().mean())
            for name, x in self.replicated.items()
        }

    def frame(self) -> "pandas.DataFrame":
        """A row a statistic: observed, mean and sd of the replications, p."""
        import pandas as pd

        rows = {
            name: {
                "observed": self.observed[name],
                "replicated": float(x.double().mean()),
                "sd": float(x.double().std()),
                "p": self.p[name],
            }
            for name, x in self.replicated.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def problems(self) -> tuple[str, ...]:
        """The statistics that the model does not reproduce."""
        return tuple(
            f"The {name} of the data is {self.observed[name]:.3g}, which "
            f"{'few' if p < 0.5 else 'nearly all'} replicated data sets reach (p = {p:.3f}): the "
            "model does not make such data. Look for what it leaves out (heavier tails, another "
            "spread, more zeros, groups)."
            for name, p in self.p.items()
            if min(p, 1 - p) < EXTREME
        )

    def __str__(self) -> str:
        said = [f"  * {problem}" for problem in self.problems()]
        return "\n".join([self.frame().round(3).to_string(), *said])


def predictive_check(
    posterior: Posterior,
    *,
    statistics: Mapping[str, Statistic] | None = None,
    seed: int | None = None,
) -> PredictiveCheck:
    """Compares statistics of the data with those of data replicated at every draw.

    A check uses the data twice, so that p-values crowd towards 1/2: one near 0 or 1 speaks against
    a model, one near 1/2 says little for it.

    Args:
        posterior: draws of any method; those of an approximation are chosen anew by their weights.
        statistics: by name, of the rows of a site; by default mean, sd, least and largest value.
        seed: of the replications.

    Raises:
        ValueError: cells of the data are missing, in which replications have values.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> from pgm.inference import variational
        >>> x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        >>> found = predictive_check(variational(PPCA(3, 1), x, draws=50, seed=0), seed=0)
        >>> list(found.observed)
        ['mean of x', 'sd of x', 'least of x', 'largest of x']
    """
    posterior = evened(posterior, seed=seed)
    replicated, _ = predictive(posterior, seed=seed)
    _check_whole(posterior, list(replicated))
    observed, found = {}, {}
    for site, values in replicated.items():
        y = posterior.batch[site].double()
        for name, statistic in (statistics or STATISTICS).items():
            observed[f"{name} of {site}"] = float(statistic(y))
            each = [statistic(x.double()) for x in values.flatten(0, 1)]
            found[f"{name} of {site}"] = torch.stack(each)
    return PredictiveCheck(observed, found)


@dataclass(frozen=True, eq=False)
class LooPit:
    """The probability integral transform of each row under what the others predict.

    Attributes:
        values: by site, in [0, 1], shape (n,).
    """

    values: Mapping[str, Float[Tensor, " n"]]

    @property
    def p(self) -> dict[str, float]:
        """The p-value of a Kolmogorov-Smirnov test that they are uniform, by site."""
        from scipy import stats

        return {k: float(stats.kstest(u.numpy(), "uniform").pvalue) for k, u in self.values.items()}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Their empirical distribution beside the uniform one, with its 99 % band."""
        import matplotlib.pyplot as plt
        from scipy import stats

        ax = plt.subplots()[1] if ax is None else ax
        for name, u in self.values.items():
            n = len(u)
            grid = (torch.arange(1, n + 1) / n).numpy()
            ax.step(u.sort().values.numpy(), grid, where="post", label=name)
            low, high = stats.binom.interval(0.99, n, grid)
            ax.fill_between(grid, low / n, high / n, alpha=0.2, color="gray")
        ax.plot([0, 1], [0, 1], color="black", linewidth=0.5)
        ax.set(xlabel="LOO-PIT", ylabel="share of rows below")
        ax.legend()
        return ax

    def __str__(self) -> str:
        said = (f"{name}: p = {p:.3f} of uniform LOO-PIT" for name, p in self.p.items())
        return "\n".join(said)


def loo_pit(posterior: Posterior, *, seed: int | None = None) -> LooPit:
    """LOO-PIT of every observed site with one number a row.

    Args:
        posterior: draws of any method; those of an approximation count by their weights.
        seed: of the replications and of the randomisation of levels and counts.

    Raises:
        ValueError: no site with one number a row, or missing cells.

    Example:
        >>> from pgm.families.hierarchical import Hierarchical
        >>> from pgm.inference import variational
        >>> from pgm.data import load
        >>> import warnings; warnings.simplefilter("ignore")
        >>> posterior = variational(Hierarchical(), load("eight_schools").tensors, draws=200)
        >>> loo_pit(posterior, seed=0).values["y"].shape
        torch.Size([8])
    """
    replicated, dims = predictive(posterior, seed=seed)
    single = {name: x for name, x in replicated.items() if dims[name] == (ROWS,)}
    if not single:
        raise ValueError(
            f"No observed site of {type(posterior.model).__name__} has one number a row, and "
            "vectors have no order. Check their parts by predictive_check(statistics=...)."
        )
    _check_whole(posterior, list(single))
    log_w, _ = left_out(posterior, pointwise(posterior).flatten(0, 1).T)
    w, sites = log_w.exp(), first_run(posterior).sites
    found = {}
    with seeded(seed):
        for name, x in single.items():
            y, drawn = posterior.batch[name].double(), x.flatten(0, 1).T.double()
            below = (w * (drawn < y[:, None])).sum(-1)
            ties = (w * (drawn == y[:, None])).sum(-1)
            share = torch.rand(len(y)) if sites[name].fn.support.is_discrete else 0.5
            found[name] = (below + share * ties).clamp(0, 1).cpu()
    return LooPit(found)


def _check_whole(posterior: Posterior, sites: list[str]) -> None:
    holes = [name for name in sites if name + SEEN in posterior.batch]
    if holes:
        raise ValueError(
            f"Cells of {', '.join(holes)} are missing, and replications have values there: their "
            "statistics could not be compared. Fit the rows that are whole, or complete the data "
            "with pgm.impute first."
        )
