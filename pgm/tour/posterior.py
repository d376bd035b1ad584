"""Chapter: the posterior of a hierarchical model, eight schools (Rubin 1981)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

import pgm.data
from pgm.families.hierarchical import Hierarchical
from pgm.inference import Posterior, mcmc
from pgm.plots import ACCENT, INK
from pgm.report import Chapter, Note, Picture, Table, code, picture
from pgm.tour import scaled

if TYPE_CHECKING:
    import pandas


def chapters(effort: float) -> Iterator[Chapter]:
    """Eight schools by NUTS, with ArviZ's summary."""
    posterior, summary = eight_schools(**scaled(eight_schools, effort))
    warnings = [Note(problem) for problem in posterior.problems()]
    yield Chapter(
        "Eight schools",
        "The posterior of a hierarchical model by NUTS: eight coaching programmes that borrow "
        "strength from one another, with ArviZ's diagnostics.",
        code(eight_schools),
        [_shrinkage(posterior), _table(summary), *warnings],
    )


def eight_schools(draws: int = 500, warmup: int = 500) -> "tuple[Posterior, pandas.DataFrame]":
    """Draws from the posterior given the effects and their standard errors."""
    schools = pgm.data.load("eight_schools").tensors
    posterior = mcmc(
        Hierarchical(), schools, draws=draws, warmup=warmup, chains=2, target_accept=0.95, seed=0
    )
    summary = posterior.summary()
    return posterior, summary


def _table(frame: "pandas.DataFrame") -> Table:
    frame = frame[~frame.index.str.startswith("eta")]
    forms = dict.fromkeys(("mean", "sd", "q05", "q95", "mcse_mean"), ".2f")
    forms |= {"ess_bulk": ".0f", "ess_tail": ".0f", "r_hat": ".3f"}
    rows = [
        [str(name), *(format(line[column], form) for column, form in forms.items())]
        for name, line in frame.iterrows()
    ]
    header = ["", "mean", "sd", "5 %", "95 %", "error", "ess bulk", "ess tail", "R-hat"]
    caption = "Effects in points of the test. The error is the Monte Carlo error of the mean."
    return Table(header, rows, caption)


def _shrinkage(posterior: Posterior) -> Picture:
    """Measured effects beside posterior ones."""
    y, sigma = posterior.batch["y"], posterior.batch["sigma"]
    theta = posterior.draws["theta"].flatten(0, 1)
    low, high = theta.quantile(0.05, 0), theta.quantile(0.95, 0)
    figure, ax = plt.subplots(figsize=(6.4, 2.6))
    for i, school in enumerate("ABCDEFGH"):
        spread = 1.645 * float(sigma[i])
        ax.plot([float(y[i]) - spread, float(y[i]) + spread], [-i + 0.14] * 2, color="#b8bfc6")
        ax.plot(float(y[i]), -i + 0.14, "o", color="#b8bfc6", ms=4)
        ax.plot([float(low[i]), float(high[i])], [-i - 0.14] * 2, color=ACCENT)
        ax.plot(float(theta[:, i].mean()), -i - 0.14, "o", color=ACCENT, ms=4)
        ax.text(-33, -i, school, va="center", ha="right", color=INK, fontsize=8)
    ax.axvline(float(posterior.draws["mu"].mean()), color=INK, lw=0.8, ls=":")
    ax.set(xlim=(-32, 61), yticks=[], xlabel="effect of coaching, points")
    ax.spines[["left", "right", "top"]].set_visible(False)
    return picture(
        figure,
        "The effect of coaching in each school: as measured (grey) and given all schools "
        "(orange), with 90 % intervals; the dotted line is the posterior mean of mu.",
    )
