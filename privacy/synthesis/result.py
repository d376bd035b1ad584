"""What a synthesis gives back: a table in the user's words, the model behind it, and its terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pgm.model import Model
from privacy.accounting import ACCOUNTANTS, Accountant, compose
from privacy.batches import derive
from privacy.ledger import UNIT, Release, merged, rounded_up
from privacy.report import ADJACENCY
from privacy.synthesis.cells import Cells
from privacy.synthesis.generation import Tables, systematic

if TYPE_CHECKING:
    import pandas

NOT_COVERED = (
    "error messages and running times",
    "whatever was read off the same rows without being in the ledger: levels, bounds, edges, which "
    "columns have missing cells, the choice of options by looking at other tables",
    "several rows about one person, who is protected only as far as group privacy goes",
    "the seed: noise comes from a pseudo-random generator in double precision, and whoever knows "
    "or guesses the seed can subtract it",
)


@dataclass(frozen=True)
class SynthesisReport:
    """The terms of a synthetic table.

    Attributes:
        releases: the mechanisms, with their noise and the number of uses.
        asked: the epsilon that was asked for; None for what was left of a budget.
        delta: the probability outside the guarantee.
        accountant: by which the budget was kept.
        pairs: the marginals of two columns that were chosen and measured.
        rows: the number of rows as it was estimated from noisy counts.
        domain: the number of cells of every column, all public but for those of cut columns.
        cut: the columns whose cells were found privately.
        seeded: whether the seed was given by the caller.
        together: all releases in the ledger, these included.
        seal: of the ledger's file; empty for a ledger in memory.
    """

    releases: tuple[Release, ...]
    asked: float | None
    delta: float
    accountant: Accountant
    pairs: tuple[tuple[str, ...], ...]
    rows: float
    domain: Mapping[str, int]
    cut: tuple[str, ...]
    seeded: bool
    together: tuple[Release, ...] = ()
    seal: str = ""

    @property
    def epsilon(self) -> float:
        """What the table spent, by the accountant that kept the budget."""
        return self.by(self.accountant)

    def by(self, accountant: Accountant) -> float:
        """What the table spent, by an accountant."""
        return compose(merged(self.releases), delta=self.delta, accountant=accountant)

    def __str__(self) -> str:
        each = ", ".join(f"{a} {rounded_up(self.by(a))}" for a in ACCOUNTANTS)
        asked = "what was left of the budget" if self.asked is None else f"{self.asked:g}"
        lines = {
            "guarantee": f"({rounded_up(self.epsilon)}, {self.delta:g})-differential privacy by "
            f"{self.accountant} ({each}); asked for {asked}",
            "unit": UNIT,
            "adjacency": ADJACENCY,
            "mechanisms": "; ".join(map(_mechanism, self.releases)),
            "measured": f"{len(self.domain)} columns and {len(self.pairs)} pairs: "
            + ", ".join(" x ".join(pair) for pair in self.pairs),
            "public": "levels, bounds and declared edges; which columns may have missing cells; "
            "the numbers of cuts and pairs; nothing was read off the rows",
            "cells": ", ".join(f"{name} {k}" for name, k in self.domain.items())
            + (f"; cut privately: {', '.join(self.cut)}" if self.cut else ""),
            "rows": f"{self.rows:.0f}, estimated from the noisy counts",
            "seed": "given by the caller: keep it secret"
            if self.seeded
            else "from the system's entropy",
            "ledger": self._ledger(),
            "post-processing": "table, model and whatever is computed from them spend nothing more",
            "not covered": "; ".join(NOT_COVERED),
        }
        width = max(map(len, lines))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())

    def _ledger(self) -> str:
        """All releases about the rows together."""
        spent = compose(merged(self.together), delta=self.delta, accountant=self.accountant)
        where = f"; file sealed {self.seal}" if self.seal else ""
        count = len(self.together)
        return f"{count} releases about these rows, together epsilon {rounded_up(spent)}{where}"


@dataclass(frozen=True, eq=False)
class Synthetic:
    """A synthetic table, and where it comes from.

    Attributes:
        frame: the table, in the words of the schema.
        model: the distribution that it was drawn from; of a frame a Bayesian network over the cells
            of its columns, whose arrows mean no causes.
        report: the terms of the guarantee: those of the synthesis, or the note of a trained model.
        cells: how the columns were cut; empty for a trained model.
    """

    frame: "pandas.DataFrame"
    model: Model
    report: SynthesisReport | str
    cells: Mapping[str, Cells] = field(default_factory=dict, repr=False)

    def plot(self, column: str, ax: Any = None) -> Any:
        """Draws how often each cell of a column occurs; returns the matplotlib axes."""
        import matplotlib.pyplot as plt

        ax = ax or plt.subplots()[1]
        if column in self.cells:
            cells = self.cells[column]
            codes = cells.encode(cells.numbers(self.frame[column]))
            share = np.bincount(codes, minlength=cells.size) / len(codes)
            ax.bar(range(cells.size), share)
            ax.set_xticks(range(cells.size), [str(label) for label in cells.labels], rotation=90)
        else:
            shares = self.frame[column].value_counts(normalize=True).sort_index()
            ax.bar(shares.index.astype(str), shares)
        ax.set(xlabel=column, ylabel="share of rows", ylim=(0, None))
        return ax

    def __str__(self) -> str:
        n, d = self.frame.shape
        return f"{n} synthetic rows of {d} columns\n{self.report}"


def table(tables: Tables, cells: Mapping[str, Cells], n: int, *, seed: int) -> "pandas.DataFrame":
    """n rows in the user's words, drawn with as little chance as can be."""
    import pandas as pd

    generator = np.random.default_rng(derive(seed, "rows"))
    drawn = systematic(tables, n, generator)
    return pd.DataFrame(
        {name: column.decode(drawn[name], generator) for name, column in cells.items()}
    )


def _mechanism(release: Release) -> str:
    """One line of the report."""
    what = release.what.removeprefix("synthetic table: ")
    times = f"{release.steps} {what}"
    if release.promise is not None:
        return (
            f"{times} by the exponential mechanism, epsilon {release.promise[0]:.4g} each, "
            f"sensitivity {release.clip:g}"
        )
    return (
        f"{times} with Gaussian noise of {release.noise_multiplier:.4g} x {release.clip:g} in each "
        "count"
    )
