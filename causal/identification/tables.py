"""Tables of probabilities with named axes: of data, of a model, and the answers of estimands.

A cell may be undefined, NaN: P(y | x) where x has probability zero. An undefined factor times an
exact zero is zero, as what cannot happen adds nothing; otherwise it makes the product undefined.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from causal.structural import Structural
from pgm.schema.columns import listing, suggestion

if TYPE_CHECKING:
    import pandas

Label = Any
"""A value of a discrete variable, as the user wrote it."""

_LARGEST = 2**24
"""Cells of a table beyond which it is refused."""


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers over the values of discrete variables.

    Args:
        values: one axis a variable.
        levels: by variable, in the order of the axes, its values in their order.
        title: what the numbers are.
        rows: how many rows they were counted from; None for a model.

    Raises:
        ValueError: axes that do not fit the levels.

    Example:
        >>> table = Table(torch.tensor([[0.1, 0.2], [0.3, 0.4]]), {"X": (0, 1), "Y": ("no", "yes")})
        >>> table.at(X=1, Y="yes"), table.at(X=1).values
        (0.4, tensor([0.3000, 0.4000], dtype=torch.float64))
    """

    values: Float[Tensor, "..."]
    levels: Mapping[str, tuple[Label, ...]]
    title: str = "P"
    rows: int | None = field(default=None)

    def __post_init__(self) -> None:
        levels = {name: tuple(values) for name, values in self.levels.items()}
        shape = tuple(len(values) for values in levels.values())
        if tuple(self.values.shape) != shape:
            raise ValueError(
                f"The values have shape {tuple(self.values.shape)}, but the levels of "
                f"{listing(list(levels))} make {shape}. One axis a variable, in their order."
            )
        object.__setattr__(self, "values", self.values.double())
        object.__setattr__(self, "levels", levels)

    @property
    def axes(self) -> tuple[str, ...]:
        """The variables in the order of the axes."""
        return tuple(self.levels)

    def at(self, **labels: Label) -> Any:
        """The numbers where some variables have these values: a float, or a smaller table.

        Raises:
            ValueError: no such variable, or no such value.
        """
        index = tuple(
            self.position(name, labels[name]) if name in labels else slice(None)
            for name in self.axes
        )
        for name in labels:
            self.position(name, labels[name])
        left = {name: v for name, v in self.levels.items() if name not in labels}
        cells = self.values[index]
        return Table(cells, left, self.title, self.rows) if left else float(cells)

    def position(self, name: str, label: Label) -> int:
        """The index of a value along the axis of a variable.

        Raises:
            ValueError: no such variable, or no such value.
        """
        if name not in self.levels:
            raise ValueError(
                f"{name!r} is no variable of this table.{suggestion(name, self.levels)} It is over "
                f"{listing(list(self.axes))}."
            )
        if label not in self.levels[name]:
            raise ValueError(
                f"{name!r} has no value {label!r}. Its values are "
                f"{', '.join(map(repr, self.levels[name]))}."
            )
        return self.levels[name].index(label)

    def marginal(self, names: Iterable[str]) -> "Table":
        """The sum over all other variables, the axes in the order of `names`.

        Raises:
            ValueError: no such variable.
        """
        names = list(names)
        for name in names:
            self.position(name, self.levels.get(name, (None,))[0])
        summed = [i for i, name in enumerate(self.axes) if name not in names]
        left = [name for name in self.axes if name in names]
        cells = self.values.sum(summed) if summed else self.values
        cells = cells.permute([left.index(name) for name in names])
        return Table(cells, {name: self.levels[name] for name in names}, self.title, self.rows)

    def frame(self) -> "pandas.DataFrame":
        """One row a cell: the values of the variables, and the number under the title."""
        import pandas as pd

        index = pd.MultiIndex.from_product(list(self.levels.values()), names=list(self.axes))
        return pd.DataFrame({self.title: self.values.flatten().numpy()}, index=index).reset_index()

    def __str__(self) -> str:
        rows = [list(self.axes)] + [
            [str(self.levels[name][i]) for name, i in zip(self.axes, cell.tolist(), strict=True)]
            for cell in configurations(self.values.shape)
        ]
        wide = [max(len(row[j]) for row in rows) for j in range(len(self.axes))]
        numbers = ["", *(f"{x:.4g}" for x in self.values.flatten().tolist())]
        lines = [
            "  ".join([*(c.ljust(w) for c, w in zip(row, wide, strict=True)), number]).rstrip()
            for row, number in zip(rows, numbers, strict=True)
        ]
        return "\n".join([self.title, *(f"  {line}" for line in lines)])


def tabulate(data: Any, names: Sequence[str] | None = None) -> Table:
    """The relative frequencies of rows of discrete values.

    Args:
        data: a pandas frame, or tensors, arrays or lists by name, rows first. A categorical column
            has the levels that it declares; any other the values that occur, in order.
        names: the columns that are counted; None means all.

    Raises:
        ValueError: a column that is not there, that has missing cells, or so many values that it
            cannot be discrete; no rows; too many cells.

    Example:
        >>> print(tabulate({"X": [0, 0, 1, 1], "Y": ["a", "b", "b", "b"]}))
        P
          X  Y
          0  a  0.25
          0  b  0.25
          1  a  0
          1  b  0.5
    """
    import pandas as pd

    frame = data if isinstance(data, pd.DataFrame) else pd.DataFrame(_columns(data))
    names = list(frame.columns) if names is None else list(names)
    if not len(frame):
        raise ValueError("The data have no rows: no frequency is defined. Pass at least one row.")
    coded = {name: _codes(frame, name) for name in names}
    sizes = [len(levels) for _, levels in coded.values()]
    check_size(dict(zip(names, sizes, strict=True)))
    cell = torch.zeros(len(frame), dtype=torch.long)
    for codes, levels in coded.values():
        cell = cell * len(levels) + codes
    counts = torch.bincount(cell, minlength=math.prod(sizes)).double().reshape(sizes)
    labels = {name: levels for name, (_, levels) in coded.items()}
    return Table(counts / len(frame), labels, rows=len(frame))


def as_table(data: Any, names: Sequence[str]) -> Table:
    """The joint distribution of some variables: of a table, a discrete model, or of rows.

    Raises:
        ValueError: a variable that is not there, or one that is not discrete; a table that does not
            sum to one.

    Example:
        >>> as_table({"X": [0, 1, 1, 1], "Y": [0, 0, 1, 1]}, ["Y"]).values
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    from causal.identification.networks import Network, as_network

    if isinstance(data, Structural):
        data = as_network(data)
    if isinstance(data, Network):
        data = data.joint()
    if not isinstance(data, Table):
        return tabulate(data, names)
    total = float(data.values.sum())
    if not abs(total - 1.0) < 1e-5 or bool((data.values < 0).any()):
        raise ValueError(
            f"The table is no distribution: its cells sum to {total:g}, the least is "
            f"{float(data.values.min()):g}. Cells are >= 0 and sum to 1; divide counts by their "
            "sum, in double precision."
        )
    return data.marginal(names)


def check_size(sizes: Mapping[str, int]) -> None:
    """Refuses a table that would not fit.

    Raises:
        ValueError: more than 2^24 cells.
    """
    if math.prod(sizes.values()) > _LARGEST:
        raise ValueError(
            f"A table over {listing(list(sizes))} has {math.prod(sizes.values()):,} cells, more "
            "than rows could fill. Merge levels, or leave out what the question does not need."
        )


def multiply_tables(tables: Sequence[Table]) -> Table:
    """The product over the union of the axes; undefined times zero is zero."""
    levels: dict[str, tuple[Label, ...]] = {}
    for table in tables:
        levels |= table.levels
    check_size({name: len(values) for name, values in levels.items()})
    product = torch.ones([len(values) for values in levels.values()], dtype=torch.float64)
    zero = torch.zeros_like(product, dtype=torch.bool)
    for table in tables:
        cells = spread(table, levels)
        product, zero = product * cells, zero | (cells == 0)
    return Table(product.masked_fill(zero, 0.0), levels)


def divide_tables(numerator: Table, denominator: Table) -> Table:
    """The ratio over the union of the axes; undefined where the denominator is zero."""
    levels = {**numerator.levels, **denominator.levels}
    above, below = spread(numerator, levels), spread(denominator, levels)
    shape = [len(values) for values in levels.values()]
    return Table((above / below.masked_fill(below == 0, math.nan)).expand(shape), levels)


def configurations(sizes: Sequence[int]) -> Int[Tensor, "cells axes"]:
    """The indices of all cells of a table, the last axis fastest.

    Example:
        >>> configurations([2, 2]).tolist(), configurations([]).shape
        ([[0, 0], [0, 1], [1, 0], [1, 1]], torch.Size([1, 0]))
    """
    return torch.nonzero(torch.ones(list(sizes)))


def spread(table: Table, levels: Mapping[str, tuple[Label, ...]]) -> Float[Tensor, "..."]:
    """The numbers of a table with axes in the order of `levels`, of size one where it has none."""
    held = [name for name in levels if name in table.levels]
    cells = table.values.permute([table.axes.index(name) for name in held])
    return cells.reshape([len(levels[n]) if n in table.levels else 1 for n in levels])


def _columns(data: Any) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise TypeError(
            f"A {type(data).__name__} came. Pass a table of probabilities (causal.Table), a pandas "
            "frame or columns by name, or a discrete SCM."
        )
    columns = {}
    for name, column in data.items():
        if isinstance(column, Tensor):
            if column.dim() != 1:
                raise ValueError(
                    f"Column {name!r} has shape {tuple(column.shape)}. A column of discrete values "
                    "has one value a row."
                )
            column = column.cpu().numpy()
        columns[str(name)] = column
    return columns


def _codes(frame: "pandas.DataFrame", name: str) -> tuple[Tensor, tuple[Label, ...]]:
    """The values of a column as 0 .. k-1, and the values."""
    import pandas as pd

    if name not in frame.columns:
        columns = [str(c) for c in frame.columns]
        raise ValueError(
            f"The data have no column {name!r}.{suggestion(name, columns)} Their columns are "
            f"{listing(columns)}."
        )
    column = frame[name]
    if holes := int(column.isna().sum()):
        raise ValueError(
            f"Column {name!r} has {holes} missing cells. Frequencies of the other rows would be "
            "biased unless cells are missing at random: impute them, or drop the rows on purpose."
        )
    values = pd.Categorical(column)
    if not isinstance(column.dtype, pd.CategoricalDtype) and len(values.categories) > 50:
        raise ValueError(
            f"Column {name!r} has {len(values.categories)} different values: it is no discrete "
            "variable, and relative frequencies say nothing. Bin it, or fit a model (an SCM, or "
            "the estimator that the estimand's strategy names)."
        )
    levels = tuple(v.item() if callable(getattr(v, "item", None)) else v for v in values.categories)
    return torch.as_tensor(values.codes.copy(), dtype=torch.long), levels
