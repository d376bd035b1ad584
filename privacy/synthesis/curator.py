"""The curator: the one object that sees the rows, and answers with noise alone.

- `cuts` halves the numbers of a column, and the halves again (Kaplan, Schnapp & Stemmer 2022). A
  cut is chosen by the exponential mechanism with utility -|#{x < cut} - m/2| among the m numbers of
  its part. A row added changes #{x < cut} by 0 or 1 and m/2 by 1/2: the sensitivity is 1/2. It is
  in one part of each depth, so that all cuts of a depth count once (parallel composition).
- `measure` adds Gaussian noise to a marginal, the counts of all cells of one or more columns
  together. A row added changes one count by 1: the sensitivity is 1 in the 2-norm.
- `choose` picks a marginal by the exponential mechanism; its utility is the distance in the 1-norm
  from what is already known, less a constant. A row added changes it by 1 at most.

What is used was entered in the ledger before; one use more than was entered is an error.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgm.inference.exact.factors import Scope
from pgm.schema import Count
from privacy.synthesis.cells import Cells

if TYPE_CHECKING:
    import pandas

CUT, DISTANCE, MARGINAL = 0.5, 1.0, 1.0
"""The sensitivities of the three."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """A marginal with noise.

    Attributes:
        scope: the columns.
        counts: noisy, shape (cells of each column).
        std: of the noise in each count, the same shape.
    """

    scope: Scope
    counts: Tensor
    std: Tensor


class Curator:
    """Holds the rows of a table.

    Args:
        frame: the table.
        cells: its columns; their cuts may be open still.
        generator: of the noise; secret.
        uses: how often the mechanisms may be used: "cut", "measure" and "choose".

    Raises:
        ValueError: a value that the schema does not know.
    """

    def __init__(
        self,
        frame: "pandas.DataFrame",
        cells: Mapping[str, Cells],
        *,
        generator: np.random.Generator,
        uses: Mapping[str, int],
    ) -> None:
        self._numbers = {name: column.numbers(frame[name]) for name, column in cells.items()}
        self._codes: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self._generator, self._left = generator, dict(uses)

    def cuts(self, column: Cells, *, depth: int, epsilon: float) -> tuple[float, ...]:
        """Cuts of a column of numbers into 2**depth cells with about as many rows in each.

        Zero and the upper bound of a count, where many rows may be, have cells of their own.

        Args:
            column: whose bounds are known.
            depth: how often it is halved; a use for each.
            epsilon: of each use.
        """
        self._use("cut", depth)
        x = np.sort(self._numbers[column.name])
        lower, upper = column.bounds
        whole = isinstance(column.kind, Count)
        found: list[float] = []
        if whole:
            found, lower, upper = [1.0, upper], 1.0, upper - 1
        parts = [(lower, upper, x[(x >= lower) & (x <= upper)])]
        for _ in range(depth):
            halves = []
            for a, b, inside in parts:
                if b <= a:
                    continue
                cut = exponential_cut(inside, a, b, epsilon, self._generator, whole=whole)
                found.append(cut)
                halves.append((a, cut - whole, inside[inside < cut]))
                halves.append((cut, b, inside[inside >= cut]))
            parts = halves
        return tuple(sorted(set(found)))

    def code(self, cells: Mapping[str, Cells], merged: Mapping[str, Any] | None = None) -> None:
        """Says which cells are counted from now on.

        Args:
            cells: the columns, all cut.
            merged: by column the new number of each cell, where cells are counted together.
        """
        for name, column in cells.items():
            codes, numbers = column.encode(self._numbers[name]), np.arange(column.size)
            numbers = numbers if merged is None else merged[name]
            self._codes[name], self._sizes[name] = numbers[codes], int(numbers.max()) + 1

    def measure(self, scope: Scope, *, sigma: float) -> Measurement:
        """A marginal with Gaussian noise of standard deviation sigma in each count."""
        self._use("measure", 1)
        counts = self._marginal(scope)
        noise = self._generator.normal(0.0, sigma * MARGINAL, counts.shape)
        return Measurement(
            scope, torch.from_numpy(counts + noise), torch.full(counts.shape, sigma).double()
        )

    def choose(
        self, known: Mapping[Scope, Tensor], less: Mapping[Scope, float], *, epsilon: float
    ) -> Scope:
        """A marginal that is far from what is known of it.

        Args:
            known: counts of each candidate, computed without the rows.
            less: what is subtracted from the distance of each.
            epsilon: of the choice.
        """
        self._use("choose", 1)
        candidates = list(known)
        far = [np.abs(self._marginal(s) - known[s].numpy()).sum() - less[s] for s in candidates]
        weights = epsilon * np.array(far) / (2 * DISTANCE)
        return candidates[exponential(weights, self._generator)]

    def _marginal(self, scope: Scope) -> Any:
        """The exact counts, as float64; for the mechanisms above alone."""
        shape = tuple(self._sizes[name] for name in scope)
        cell = np.ravel_multi_index([self._codes[name] for name in scope], shape)
        return np.bincount(cell, minlength=math.prod(shape)).reshape(shape).astype(np.float64)

    def _use(self, mechanism: str, times: int) -> None:
        self._left[mechanism] -= times
        if self._left[mechanism] < 0:
            raise RuntimeError(
                f"{mechanism!r} is used more often than the ledger says: a bug of this library."
            )


def exponential(weights: Any, generator: np.random.Generator) -> int:
    """k with probability proportional to exp(weights[k]), by Gumbel's maximum."""
    return int(np.argmax(weights + generator.gumbel(size=len(weights))))


def exponential_cut(
    x: Any, a: float, b: float, epsilon: float, generator: np.random.Generator, *, whole: bool
) -> float:
    """A cut near the median of sorted numbers between a and b; of counts a whole number above a.

    Between two neighbouring numbers the utility is constant, and the width counts.
    """
    edges = np.concatenate([[a], x, [b]])
    width = np.diff(edges)
    with np.errstate(divide="ignore"):
        utility = -np.abs(np.arange(len(width)) - len(x) / 2)
        k = exponential(epsilon * utility / (2 * CUT) + np.log(width), generator)
    inside = generator.uniform()
    return float(edges[k] + (1 + np.floor(inside * width[k]) if whole else inside * width[k]))
