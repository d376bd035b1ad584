"""How the columns of a table are cut into cells: a finite domain that no row was asked for.

Levels and bounds come from the `Schema`. A column of numbers is cut between its bounds, at edges
that are declared or that were found privately; then zero and the upper bound of a count, at which
many rows may be, have cells of their own. A missing cell is a level like any other where the column
is declared to have some.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from pgm.schema import Categorical, Continuous, Count, Schema
from pgm.schema.columns import Column, listing
from privacy.counts import bounds_of

if TYPE_CHECKING:
    import pandas

Codes = Int64[np.ndarray, " n"]
MISSING = "missing"
Edges = Mapping[str, int | Sequence[float]]
"""By column the inner edges of its cells, or the number of equal cells between its bounds."""


@dataclass(frozen=True)
class Cells:
    """The cells of one column.

    Attributes:
        name: of the column.
        kind: its kind in the schema.
        cuts: of a column of numbers, where one cell ends and the next begins: x belongs to the
            cell behind the last cut that is not above it. None where they are yet to be found.
        missing: whether missing cells are a level, the last one.

    Example:
        >>> age = Cells("age", Count(upper=99), (18, 65))
        >>> age.labels
        ('0 to 17', '18 to 64', '65 to 99')
    """

    name: str
    kind: Column
    cuts: tuple[float, ...] | None = ()
    missing: bool = False

    @property
    def labels(self) -> tuple[Any, ...]:
        """The names of the cells."""
        if isinstance(self.kind, Categorical):
            names: tuple[Any, ...] = tuple(self.kind.levels)
        else:
            ends = self._ends()
            names = tuple(self._label(a, b) for a, b in pairwise(ends))
        return (*names, MISSING) if self.missing else names

    @property
    def size(self) -> int:
        """How many cells there are."""
        inner = len(self.kind.levels) if isinstance(self.kind, Categorical) else len(self._ends())
        return inner - (not isinstance(self.kind, Categorical)) + self.missing

    def numbers(self, column: "pandas.Series") -> Any:
        """The column as float64, NaN where missing: codes of levels, or numbers in its own unit.

        Raises:
            ValueError: an unknown level, a number beyond the bounds, or a missing cell in a column
                that is not declared to have any.
        """
        kind = self.kind
        plain = replace(kind, mean=0.0, std=1.0) if isinstance(kind, Continuous) else kind
        x = plain.encode(self.name, column)
        if np.isnan(x).any() and not self.missing:
            raise ValueError(
                f'Column "{self.name}" has missing cells. Whether it may have any is public, and '
                f'must be said beforehand: missing=["{self.name}"], or fill them in first.'
            )
        return x

    def encode(self, x: Any) -> Codes:
        """The cell of each of the `numbers`."""
        hidden = np.isnan(x)
        codes = (
            x if isinstance(self.kind, Categorical) else np.searchsorted(self._cuts(), x, "right")
        )
        return np.where(hidden, self.size - 1, np.where(hidden, 0, codes)).astype(np.int64)

    def decode(self, codes: Codes, generator: np.random.Generator) -> "pandas.Series":
        """Values in the user's words: inside a cell of numbers they are drawn uniformly."""
        hidden = codes == self.size - 1 if self.missing else np.zeros(len(codes), dtype=bool)
        kind = self.kind
        if isinstance(kind, Categorical):
            return kind.decode(self.name, np.where(hidden, np.nan, codes.astype(np.float64)))
        ends = np.array(self._ends(), dtype=np.float64)
        at = np.where(hidden, 0, codes)
        x = ends[at] + generator.uniform(size=len(codes)) * (ends[at + 1] - ends[at])
        x = np.where(hidden, np.nan, np.floor(x) if isinstance(kind, Count) else x)
        plain = replace(kind, mean=0.0, std=1.0) if isinstance(kind, Continuous) else kind
        return plain.decode(self.name, x)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest number there may be."""
        return _bounds(self.kind)

    def _cuts(self) -> tuple[float, ...]:
        assert self.cuts is not None
        return self.cuts

    def _ends(self) -> tuple[float, ...]:
        """The lower end of every cell, then the upper end of the last, which is behind a count."""
        lower, upper = _bounds(self.kind)
        return (lower, *self._cuts(), upper + isinstance(self.kind, Count))

    def _label(self, a: float, b: float) -> str:
        if not isinstance(self.kind, Count):
            return f"[{a:g}, {b:g})"
        return f"{a:g}" if b - a == 1 else f"{a:g} to {b - 1:g}"


def domain(
    schema: Schema, *, bins: int, edges: Edges | None, missing: Sequence[str]
) -> dict[str, Cells]:
    """The cells of every column of a schema; `cuts` is None where they are to be found privately.

    Raises:
        ValueError: a column of numbers without bounds, edges that are no edges, or names that are
            no columns.
    """
    edges = {} if edges is None else edges
    for what, names in (("edges", list(edges)), ("missing", list(missing))):
        if unknown := [name for name in names if name not in schema.columns]:
            raise ValueError(
                f"{what} names {listing(unknown)}, but the schema's columns are "
                f"{listing(list(schema.columns))}."
            )
    if bins < 2:
        raise ValueError(f"bins is {bins}; a column of numbers is cut into 2 cells or more.")
    return {
        name: Cells(name, kind, _declared(schema, name, edges, bins), name in missing)
        for name, kind in schema.columns.items()
    }


def _declared(schema: Schema, name: str, edges: Edges, bins: int) -> tuple[float, ...] | None:
    """The cuts that are public; None where there are none."""
    kind = schema.columns[name]
    if isinstance(kind, Categorical):
        if name in edges:
            raise ValueError(f'edges are for columns of numbers, and "{name}" has levels.')
        return ()
    lower, upper = bounds_of(schema, name)
    if name not in edges:
        few = isinstance(kind, Count) and upper < bins
        return tuple(float(k) for k in range(1, int(upper) + 1)) if few else None
    given = edges[name]
    cuts = np.linspace(lower, upper, given + 1)[1:-1] if isinstance(given, int) else given
    cuts = [float(cut) for cut in cuts]
    if isinstance(kind, Count):
        cuts = sorted({float(np.ceil(cut)) for cut in cuts} - {lower})
    if any(not lower < cut <= upper for cut in cuts) or cuts != sorted(set(cuts)):
        raise ValueError(
            f'The edges of "{name}" are {listing([f"{cut:g}" for cut in cuts])}: they rise, '
            f"and lie between its bounds {lower:g} and {upper:g}, which are edges already."
        )
    return tuple(cuts)


def _bounds(kind: Column) -> tuple[float, float]:
    assert isinstance(kind, Continuous | Count) and kind.upper is not None
    lower = kind.lower if isinstance(kind, Continuous) else 0.0
    assert lower is not None
    return float(lower), float(kind.upper)
