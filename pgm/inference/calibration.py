"""Simulation-based calibration: does a method, on a model's own data, find what made them?

Latents are drawn from the prior, data from the latents, and the posterior given the data is drawn
by the method under test. Over many simulations the rank of what made the data among L thinned draws
is uniform on 0, ..., L (Talts, Betancourt, Simpson, Vehtari & Gelman 2018, thm. 1). Ranks at both
ends say that the posterior is too narrow, in the middle too wide, on one side biased.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pgm.batch import SEEN, Batch, rows_of
from pgm.inference.diagnostics import labels
from pgm.inference.mcmc import mcmc
from pgm.inference.posterior import Posterior
from pgm.inference.predictive import pointwise
from pgm.inference.runs import latents, read, run_joint
from pgm.model import ROWS, Model
from pgm.randomness import seeded
from pgm.sites import Run

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

Infer = Callable[[Model, Batch, int], Posterior]
"""A method under test: a model, data and a seed give a posterior."""

SIGNIFICANT = 1e-3
"""p-value, over all quantities together, below which ranks are not taken for uniform."""
LIKELIHOOD = "log likelihood"
"""The quantity that hangs on all latents and on the data at once (Modrák et al. 2023)."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of what made the data among the draws of the posterior; prints its verdict.

    Attributes:
        ranks: by quantity, shape (simulations,), each in 0, ..., draws.
        draws: thinned draws that each was ranked among.
        bins: of the chi-square test.
    """

    ranks: Mapping[str, Int[Tensor, " simulations"]]
    draws: int
    bins: int

    def frame(self) -> "pandas.DataFrame":
        """A row a quantity: chi-square, its p-value, mean and spread of the ranks in [0, 1].

        A mean other than .5 is a bias of the posterior, towards large values where it is below. A
        spread above 1, in units of the uniform's, is a posterior that is too narrow.
        """
        import pandas as pd
        from scipy import stats

        rows = {}
        for name, ranks in self.ranks.items():
            counts = self._counts(ranks)
            test = stats.chisquare(counts.numpy())
            u = (ranks + 0.5) / (self.draws + 1)
            rows[name] = {
                "chi_square": float(test.statistic),
                "p": float(test.pvalue),
                "mean": float(u.mean()),
                "spread": float(u.std() * 12**0.5),
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def problems(self) -> tuple[str, ...]:
        """What is not calibrated, in words; the level is shared by all quantities (Bonferroni)."""
        return tuple(self._problems())

    @property
    def calibrated(self) -> bool:
        """Whether nothing speaks against uniform ranks."""
        return not self.problems()

    def plot(self, name: str | None = None, ax: "Axes | None" = None) -> "Axes":
        """The histogram of one quantity's ranks, with the range of 99 % of uniform ones."""
        import matplotlib.pyplot as plt
        from scipy import stats

        name = next(iter(self.ranks)) if name is None else name
        ax = plt.subplots()[1] if ax is None else ax
        counts = self._counts(self.ranks[name])
        low, high = stats.binom.interval(0.99, int(counts.sum()), 1 / self.bins)
        middle = [(i + 0.5) / self.bins for i in range(self.bins)]
        ax.bar(middle, counts.tolist(), width=0.9 / self.bins)
        ax.axhspan(low, high, alpha=0.2, color="gray", label="99 % of uniform ranks")
        ax.set(xlabel=f"rank of {name}", ylabel="simulations")
        ax.legend()
        return ax

    def __str__(self) -> str:
        n = len(next(iter(self.ranks.values())))
        head = f"Calibration: {n} simulations, ranks among {self.draws} draws, {self.bins} bins"
        said = [f"  * {problem}" for problem in self.problems()]
        return "\n".join(
            [head, self.frame().round(3).to_string(), *(said or ["  no sign against"])]
        )

    def _counts(self, ranks: Tensor) -> Tensor:
        width = (self.draws + 1) // self.bins
        return torch.bincount(ranks.div(width, rounding_mode="floor"), minlength=self.bins)

    def _problems(self) -> Iterator[str]:
        table = self.frame()
        for name, row in table[table["p"] < SIGNIFICANT / len(table)].iterrows():
            bias, spread = abs(row["mean"] - 0.5) * 12**0.5, row["spread"]
            if bias > max(abs(spread - 1), 0.05):
                side = "large" if row["mean"] < 0.5 else "small"
                what, todo = f"biased towards {side} values", "longer chains or training"
            elif spread > 1.05:
                what, todo = "too narrow", "a richer guide, longer warm-up or smaller steps"
            elif spread < 0.95:
                what, todo = "too wide", "longer training, or draws that are less correlated"
            else:
                what, todo = "of another shape", "a richer guide or more draws"
            yield (
                f"The posterior of {name} is {what} (chi-square {row['chi_square']:.0f}, "
                f"p = {row['p']:.1g}): its intervals do not hold what they promise. Try {todo}."
            )


def calibrate(
    model: Model,
    data: Any,
    *,
    infer: Infer | None = None,
    simulations: int = 200,
    draws: int = 99,
    bins: int = 20,
    seed: int = 0,
    progress: bool | None = None,
) -> Calibration:
    """Checks a method on data that a model makes itself.

    Args:
        model: any model whose shared latents have proper priors; it is not changed.
        data: which sites are data, how many rows, and the context; values of sites are not used.
        infer: the method; NUTS with two chains by default. `refitted` tests a guide.
        simulations: how many data sets.
        draws: of each posterior, thinned evenly to this number; one less than a multiple of `bins`.
        bins: of the test.
        seed: of everything.
        progress: whether a bar is shown; by default where the output is a terminal.

    Returns:
        The ranks of every element of the shared latents, of those of the first row, and of the log
        likelihood.

    Raises:
        ValueError: bins that do not divide draws + 1, fewer simulations than five a bin, cells that
            are missing, or a posterior with fewer draws.

    Example:
        >>> from pgm.families.regression import Regression
        >>> import pgm, warnings
        >>> found = calibrate(  # too short to be calibrated
        ...     Regression(1), {"x": torch.randn(5, 1), "y": torch.zeros(5)},
        ...     infer=refitted(draws=20, steps=5), simulations=20, draws=9, bins=2,
        ... )
        >>> list(found.ranks)
        ['weights[0]', 'intercept', 'noise', 'log likelihood']
    """
    from tqdm import tqdm

    batch = read(model, data)
    _check(batch, simulations, draws, bins)
    infer = _nuts if infer is None else infer
    sites = [name for name in batch if name not in model.context]
    ranks: dict[str, list[int]] = {}
    bar = tqdm(range(simulations), disable=None if progress is None else not progress, leave=False)
    for i in bar:
        of_truth, of_method, of_ties = _seeds(seed, i)
        truth, made = _simulated(model, batch, sites, seed=of_truth)
        posterior = infer(model, made, of_method)
        generator = torch.Generator().manual_seed(of_ties)
        for name, rank in _ranks(posterior, truth, draws, generator):
            ranks.setdefault(name, []).append(rank)
    return Calibration({k: torch.tensor(v) for k, v in ranks.items()}, draws, bins)


def _seeds(seed: int, i: int) -> list[int]:
    """Of truth, method and ties: a draw whose noise is the truth's would lie where that lies."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
    return torch.randint(2**31 - 1, (3,), generator=generator).tolist()


def refitted(*, draws: int = 400, **options: Any) -> Infer:
    """The method that fits a fresh copy of the model's guide to each data set.

    Args:
        draws: of the fitted guide, independent ones.
        **options: of `pgm.fit`.
    """

    def infer(model: Model, batch: Batch, seed: int) -> Posterior:
        import copy
        import warnings

        from pgm.inference.posterior import InferenceWarning
        from pgm.inference.variational import variational
        from pgm.loop import fit

        mine = copy.deepcopy(model)
        fit(mine, batch, seed=seed, progress=False, **{"batch_size": rows_of(batch), **options})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InferenceWarning)
            return variational(mine, batch, draws=draws, seed=seed)

    return infer


def _nuts(model: Model, batch: Batch, seed: int) -> Posterior:
    import warnings

    from pgm.inference.posterior import InferenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)  # the ranks are what is judged
        options: dict[str, Any] = {"draws": 500, "warmup": 500, "chains": 2, "backend": "ts"}
        return mcmc(model, batch, seed=seed, progress=False, **options)


def _simulated(model: Model, batch: Batch, sites: list[str], *, seed: int) -> tuple[Run, Batch]:
    """One run of the joint program, and the data that it made."""
    with torch.no_grad(), seeded(seed):
        run = run_joint(model, batch, Run())
    made = {name: run.sites[name].value.detach().clone() for name in sites}
    context = {name: x for name, x in batch.items() if name not in sites}
    return run, Batch({**context, **made})


def _ranks(
    posterior: Posterior, truth: Run, draws: int, generator: torch.Generator
) -> Iterator[tuple[str, int]]:
    """Of every element among draws that are spread evenly over all chains.

    Among equals, as those of a computed count are, the truth has a place by chance.
    """
    total = posterior.size[0] * posterior.size[1]
    if total < draws:
        raise ValueError(f"The posterior has {total} draws, and ranks are among {draws}.")
    kept = torch.linspace(0, total - 1, draws).round().long()
    known = {k: s.value for k, s in latents(truth).items() if k in posterior.draws}
    for name, value in known.items():
        at = posterior.draws[name].flatten(0, 1)[kept]
        dims = posterior.dims.get(name, ())
        if ROWS in dims:  # rows are alike: the first speaks for all
            axis = dims.index(ROWS)
            at, value = at.select(axis + 1, 0), value.select(axis, 0)
        rank = _rank(at.reshape(len(at), -1), value.to(at).flatten(), generator)
        yield from zip(labels(name, value.shape), map(int, rank), strict=True)
    likelihoods = _likelihoods(posterior, known, kept)
    yield LIKELIHOOD, int(_rank(likelihoods[:-1, None], likelihoods[-1:], generator))


def _rank(
    at: Float[Tensor, "draws k"], truth: Float[Tensor, " k"], generator: torch.Generator
) -> Int[Tensor, " k"]:
    below, ties = (at < truth).sum(0), (at == truth).sum(0)
    share = torch.rand(ties.shape, generator=generator, dtype=torch.float64)
    return below + (share * (ties + 1)).floor().long()


def _likelihoods(
    posterior: Posterior, truth: Mapping[str, Tensor], kept: Tensor
) -> Float[Tensor, " draws"]:
    """Of the draws and, last, of the truth, which is put among them as if it were one."""
    flat = {
        name: torch.cat([value.flatten(0, 1)[kept], truth[name][None].to(value)])[None]
        for name, value in posterior.draws.items()
    }
    stand_in = Posterior(flat, {}, posterior.model, posterior.batch, 0.0, posterior.method)
    return pointwise(stand_in)[0].sum(-1)


def _check(batch: Batch, simulations: int, draws: int, bins: int) -> None:
    if (draws + 1) % bins:
        raise ValueError(
            f"bins is {bins} and draws {draws}: ranks run over {draws + 1} places, 0 .. {draws}, "
            f"which {bins} equal bins cannot hold. Use one draw less than a multiple of {bins}."
        )
    if simulations < 5 * bins:
        raise ValueError(
            f"{simulations} simulations in {bins} bins are fewer than five a bin, too few for a "
            f"chi-square test. Run {5 * bins} or more."
        )
    if any(name.endswith(SEEN) for name in batch):
        raise ValueError("Cells of the data are missing; calibration makes whole rows. Drop them.")
