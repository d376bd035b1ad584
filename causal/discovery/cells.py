"""The rows that a graph is sought for: every column levels, or every column numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Shaped
from torch import Tensor

from pgm.schema.columns import listing

if TYPE_CHECKING:
    import pandas

Unseen = Literal["refuse", "keep"]
Kinds = Literal["levels", "numbers"]
_MOST = 62
"""Nodes whose sets are bits of one integer."""


@dataclass(frozen=True, eq=False)
class Cells:
    """A complete table.

    Attributes:
        names: of the n columns, which are the nodes.
        x: codes of levels, int64, or numbers, float64; shape (rows, n).
        labels: the levels of every column; empty for numbers.
    """

    names: tuple[str, ...]
    x: Shaped[Tensor, "rows n"]
    labels: tuple[tuple[Any, ...], ...]

    @property
    def levels(self) -> tuple[int, ...]:
        """How many levels every column has."""
        return tuple(map(len, self.labels))

    @property
    def batch(self) -> dict[str, Tensor]:
        """The columns by name."""
        return dict(zip(self.names, self.x.unbind(1), strict=True))


def read_cells(
    data: Any, *, kinds: Kinds | None = None, names: Sequence[str] | None = None, unseen: Unseen
) -> Cells:
    """Reads a table.

    Args:
        data: a pandas frame; a mapping from names to tensors, int64 codes or floats; or one tensor
            (rows, n).
        kinds: what the columns hold; None tells it by their types.
        names: the columns of a tensor.
        unseen: what to do with a level that is declared and that no row shows.

    Raises:
        ValueError: missing cells, constant columns, levels that no row shows, both kinds of
            columns, or names that do not fit.

    Example:
        >>> a, b = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])
        >>> read_cells({"a": a, "b": b}, unseen="refuse").labels
        ((0, 1, 2), (0, 1))
    """
    if type(data).__module__.partition(".")[0] == "pandas":
        cells = _read_frame(data, kinds, unseen)
    else:
        columns = _columns(data, names)
        _check_alike(columns)
        kinds = kinds or _kinds({n: not x.is_floating_point() for n, x in columns.items()})
        cells = _read_tensors(columns, kinds, unseen)
    _check_names(cells)
    _check_varied(cells)
    return cells


def _read_frame(frame: "pandas.DataFrame", kinds: Kinds | None, unseen: Unseen) -> Cells:
    import pandas as pd

    from causal.assess.dependence import is_levels

    if twice := sorted({str(name) for name in frame.columns[frame.columns.duplicated()]}):
        raise ValueError(
            f"The frame has several columns called {listing(twice)}; a node has one name. Rename "
            "or drop them."
        )
    if holes := [str(name) for name in frame if frame[name].isna().any()]:
        raise ValueError(_holes(holes))
    if kinds is None:
        whole = [n for n in frame if pd.api.types.is_integer_dtype(frame[n])]
        if whole:
            raise ValueError(
                f"Whole numbers came in {listing(list(map(str, whole)))}, which may be levels or "
                "numbers, and the answer depends on it. Make levels of them "
                "(frame.astype('category')), make numbers (frame.astype(float)), or say which "
                "score is meant: score=BDeu() takes them for levels, score=BGe() for numbers."
            )
        kinds = _kinds({str(name): is_levels(frame[name]) for name in frame})
    names = tuple(map(str, frame))
    if kinds == "numbers":
        if words := [str(n) for n in frame if is_levels(frame[n])]:
            raise ValueError(f"{listing(words)} holds levels, and the score is of numbers.")
        return Cells(names, torch.tensor(frame.to_numpy(dtype="float64")), ())
    if parts := [n for n in frame if pd.api.types.is_float_dtype(frame[n]) and _broken(frame[n])]:
        raise ValueError(
            f"{listing(list(map(str, parts)))} holds numbers with fractions, and the score is of "
            "levels: every row would be a level of its own. Make levels of them (pandas.qcut), or "
            "use score=BGe()."
        )
    codes, labels = [], []
    for name in frame:
        column = pd.Categorical(frame[name])
        never = [level for level in column.categories if level not in set(column)]
        if unseen == "refuse" and never:
            raise ValueError(
                f"Column {name!r} declares the levels {listing(list(map(str, never)))}, which no "
                "row shows. They count in the prior and change the answer. Take them out with "
                f"frame[{name!r}].cat.remove_unused_categories(), or say unseen='keep' if they "
                "can occur."
            )
        codes.append(torch.tensor(column.codes.astype("int64")))
        labels.append(tuple(_plain(level) for level in column.categories.tolist()))
    return Cells(names, torch.stack(codes, 1), tuple(labels))


def _plain(level: Any) -> Any:
    """A level by which a column can be described; intervals and dates by their text."""
    return level if isinstance(level, str | bool | int | float) else str(level)


def _broken(column: Any) -> bool:
    return bool((column % 1 != 0).any())


def _columns(data: Any, names: Sequence[str] | None) -> dict[str, Tensor]:
    if isinstance(data, Tensor):
        if data.dim() != 2:
            raise ValueError(f"The tensor has shape {tuple(data.shape)}; rows and columns it has.")
        names = [f"X{i}" for i in range(data.shape[1])] if names is None else list(names)
        if len(names) != data.shape[1]:
            raise ValueError(f"{len(names)} names came for {data.shape[1]} columns.")
        return dict(zip(names, data.unbind(1), strict=True))
    if isinstance(data, Mapping) and data:
        return {str(name): torch.as_tensor(x) for name, x in data.items()}
    raise TypeError(
        f"A {type(data).__name__} came. Pass a pandas frame, a mapping from names to tensors, or a "
        "tensor (rows, columns) with names=."
    )


def _check_alike(columns: Mapping[str, Tensor]) -> None:
    shapes = {name: tuple(x.shape) for name, x in columns.items()}
    if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 1:
        raise ValueError(f"Columns have one number a row, and all as many rows; {shapes} came.")


def _read_tensors(columns: Mapping[str, Tensor], kinds: Kinds, unseen: Unseen) -> Cells:
    names = tuple(columns)
    if holes := [n for n, x in columns.items() if x.is_floating_point() and bool(x.isnan().any())]:
        raise ValueError(_holes(holes))
    x = torch.stack([column.detach().cpu() for column in columns.values()], 1)
    if kinds == "numbers":
        return Cells(names, x.double(), ())
    codes = x.long()
    if bool((codes != x).any()) or bool((codes < 0).any()):
        raise ValueError("Codes of levels are 0, 1, 2, ...; negative numbers or fractions came.")
    labels = tuple(tuple(range(int(c.max()) + 1)) for c in codes.unbind(1))
    for name, column, declared in zip(names, codes.unbind(1), labels, strict=True):
        never = sorted(set(declared).difference(column.unique().tolist()))
        if unseen == "refuse" and never:
            raise ValueError(
                f"Column {name!r} has codes up to {declared[-1]}, and no row shows "
                f"{listing(list(map(str, never)))}. They would count in the prior and change the "
                "answer. Number the levels anew, or say unseen='keep' if they can occur."
            )
    return Cells(names, codes, labels)


def _kinds(levels: Mapping[str, bool]) -> Kinds:
    if len(set(levels.values())) > 1:
        some = listing([name for name, yes in levels.items() if not yes])
        raise ValueError(
            f"{some} holds numbers and the other columns levels; no score here takes both. Make "
            "levels of the numbers, for instance with pandas.qcut(x, 3, labels=[...])."
        )
    return "levels" if all(levels.values()) else "numbers"


def _holes(names: Sequence[str]) -> str:
    return (
        f"Cells of {listing(list(names))} are missing. The score of a graph is of complete rows: "
        "drop the others (frame.dropna()) if cells are missing at random, or fill them in several "
        "times (pgm.impute) and compare the answers."
    )


def _check_names(cells: Cells) -> None:
    n = len(cells.names)
    if len(set(cells.names)) < n:
        raise ValueError(f"Columns have the same name: {listing(list(cells.names))}.")
    if n < 2 or n > _MOST:
        raise ValueError(
            f"{n} columns came; graphs are sought for 2 to {_MOST}."
            + (" Choose those that the question is about." if n > _MOST else "")
        )


def _check_varied(cells: Cells) -> None:
    constant = [n for n, x in cells.batch.items() if len(x) == 0 or bool((x == x[0]).all())]
    if constant:
        raise ValueError(
            f"{listing(constant)} is constant: such a column tells nothing of what causes it and "
            "what it causes, and any arrow at it would be the prior's. Take it out."
        )
