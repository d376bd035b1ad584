"""Rare cells are counted together: what drowns in the noise of one column has none to give to two.

A cell whose noisy count is below three standard deviations is merged (McKenna, Miklau & Sheldon
2021): rare levels with each other, rare cells of numbers with their neighbours. All of it is
computed from noisy counts, and spends nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from pgm.schema import Categorical
from privacy.synthesis.cells import Cells
from privacy.synthesis.curator import Measurement

DEVIATIONS = 3.0


@dataclass(frozen=True, eq=False)
class Merging:
    """Which cells of a column are counted together.

    Attributes:
        group: of each cell.
        share: of each cell in its group; the shares of a group add up to 1.
    """

    group: Int64[np.ndarray, " cells"]
    share: Float64[np.ndarray, " cells"]

    @property
    def groups(self) -> int:
        """How many there are."""
        return int(self.group.max()) + 1


def merge(column: Cells, measured: Measurement) -> Merging:
    """Merges the rare cells of a column."""
    counts = measured.counts.numpy()
    rare = counts < DEVIATIONS * measured.std.numpy()
    levels = isinstance(column.kind, Categorical)
    group = _levels(rare) if levels else _neighbours(rare, last_apart=column.missing)
    positive = np.maximum(counts, 0.0)
    total = np.bincount(group, positive)[group]
    size = np.bincount(group)[group]
    share = np.where(total > 0, positive / np.where(total > 0, total, 1.0), 1.0 / size)
    return Merging(group.astype(np.int64), share)


def merged(measured: Measurement, merging: Merging) -> Measurement:
    """The measurement of a column with cells counted together, and the noise that it then has."""
    group, zeros = torch.from_numpy(merging.group), torch.zeros(merging.groups).double()
    counts = zeros.index_add(0, group, measured.counts)
    variance = zeros.index_add(0, group, measured.std.square())
    return Measurement(measured.scope, counts, variance.sqrt())


def _levels(rare: Any) -> Any:
    """All rare levels in one group, the last; a single one stays by itself."""
    if rare.sum() < 2:
        return np.arange(len(rare))
    common = np.cumsum(~rare) - 1
    return np.where(rare, (~rare).sum(), common)


def _neighbours(rare: Any, *, last_apart: bool) -> Any:
    """Runs of rare cells, two or more, are a group each; the last cell may be no neighbour."""
    begins = np.ones(len(rare), dtype=bool)
    begins[1:] = ~(rare[1:] & rare[:-1])
    if last_apart:
        begins[-1] = True
    return np.cumsum(begins) - 1
