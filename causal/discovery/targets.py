"""What experiments did to every row: nodes that were set for certain, and conditions.

A node that was set has lost its own mechanism in that row, so that the row does not count for it
(perfect interventions; Cooper & Yoo 1999). Where it is not known what an experiment acted upon, its
condition is a node without parents that may be a parent of any other: the posterior of those edges
tells the targets (uncertain interventions; Eaton & Murphy 2007, sec. 3).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from causal.discovery.cells import Cells
from pgm.schema.columns import listing, suggestion


def read_clamped(clamped: Any, names: Sequence[str], rows: int) -> Bool[Tensor, "rows n"]:
    """Which node was set in which row.

    Args:
        clamped: None; booleans (rows, n), as in `SCM`; a frame or mapping of booleans by node; or
            for each row a node, several, or None.
        names: the nodes.
        rows: how many rows there are.

    Raises:
        ValueError: another shape, no such node, or a node that was set in every row.

    Example:
        >>> read_clamped(["b", None], ["a", "b"], 2)
        tensor([[False,  True],
                [False, False]])
    """
    if clamped is None:
        return torch.zeros(rows, len(names), dtype=torch.bool)
    found = _read(clamped, names, rows)
    if found.shape != (rows, len(names)):
        raise ValueError(
            f"clamped has shape {tuple(found.shape)} for {rows} rows and {len(names)} nodes. It "
            "says of every row and node whether an experiment set it."
        )
    if always := [n for n, every in zip(names, found.all(0).tolist(), strict=True) if every]:
        raise ValueError(
            f"{listing(always)} was set in every row, so that no row shows what causes it. Add "
            "rows in which it was left alone, or forbid all arrows into it and leave it unclamped."
        )
    return found


def read_conditions(conditions: Any, rows: int) -> tuple[tuple[str, ...], Bool[Tensor, "rows c"]]:
    """The names of conditions, and which row was under which.

    Args:
        conditions: None; a frame or mapping of booleans by condition; or one label a row, None
            where nothing was done.
        rows: how many rows there are.
    """
    if conditions is None:
        return (), torch.zeros(rows, 0, dtype=torch.bool)
    if _is_table(conditions):
        columns = {str(name): _booleans(conditions[name]) for name in conditions}
    else:
        labels = [None if _nothing(v) else str(v) for v in conditions]
        kinds = dict.fromkeys(v for v in labels if v is not None)
        columns = {k: torch.tensor([v == k for v in labels]) for k in kinds}
    if not columns or any(len(c) != rows for c in columns.values()):
        raise ValueError(f"conditions tell of another number of rows than the {rows} of the data.")
    if idle := [n for n, c in columns.items() if bool(c.all()) or not bool(c.any())]:
        raise ValueError(
            f"All rows, or none, are under {listing(idle)}: nothing is compared. Leave the rows in "
            "which nothing was done unlabelled (None)."
        )
    return tuple(columns), torch.stack(list(columns.values()), 1)


def check_apart(
    cells: Cells,
    clamped: Bool[Tensor, "rows n"],
    conditions: tuple[Sequence[str], Bool[Tensor, "rows c"]],
) -> None:
    """Refuses targets that are scored on their own rows: as nodes, or as conditions besides.

    Raises:
        ValueError: a node that tells which rows were set, or a condition that says once more what
            `clamped` says.
    """
    for j in clamped.any(0).nonzero()[:, 0].tolist():
        own = clamped[:, j]
        for i, name in enumerate(cells.names):
            if cells.labels and i != j and _tells(cells.x[:, i], clamped, own):
                raise ValueError(
                    f"Column {name!r} has values of its own in exactly the rows in which nodes "
                    f"were set, {cells.names[j]!r} among them: it is the record of the experiment, "
                    "and would be scored on its own rows as if it were a node. Take it out of the "
                    f"data, or name it: clamped={name!r}."
                )
        for name, column in zip(conditions[0], conditions[1].T, strict=True):
            if torch.equal(column, own):
                raise ValueError(
                    f"Condition {name!r} is exactly where {cells.names[j]!r} was set: the same "
                    "experiment would count as known, and as unknown. Leave one of them out."
                )


def take_column(data: Any, clamped: Any) -> tuple[Any, Any]:
    """The data without what says which nodes were set, and what it says.

    That is the column that `clamped` names, or `clamped` in a batch, as `SCM` takes it.
    """
    if isinstance(data, Mapping) and "clamped" in data:
        if clamped is not None:
            raise ValueError("clamped came twice: beside the data, and in it. Pass one of them.")
        return {name: x for name, x in data.items() if name != "clamped"}, data["clamped"]
    if not isinstance(clamped, str):
        return data, clamped
    if clamped not in data:
        raise ValueError(
            f"clamped={clamped!r} is no column.{suggestion(clamped, list(map(str, data)))} Name "
            "the column that says which node was set in a row, or pass it for every row."
        )
    return data[[name for name in data if name != clamped]], list(data[clamped])


def _tells(column: Tensor, clamped: Tensor, own: Tensor) -> bool:
    """Whether a column has one value where a node was set, which it has nowhere else."""
    inside = column[own]
    alone = not bool((column[~own] == inside[0]).any())
    return bool((inside == inside[0]).all()) and alone and bool((clamped.sum(1) <= 1).all())


def _read(clamped: Any, names: Sequence[str], rows: int) -> Tensor:
    if _is_table(clamped):
        _check_named([str(name) for name in clamped], names)
        found = torch.zeros(rows, len(names), dtype=torch.bool)
        for name in clamped:
            told = _booleans(clamped[name])
            if len(told) != rows:
                raise ValueError(
                    f"clamped says of {len(told)} rows whether {str(name)!r} was set, and the data "
                    f"have {rows}. Say it of every row, in their order."
                )
            found[:, list(names).index(str(name))] = told
        return found
    if isinstance(clamped, Tensor) or type(clamped).__module__.partition(".")[0] == "numpy":
        array = torch.as_tensor(clamped)
        if array.dtype == torch.bool:
            return array
    per_row = [_targets(v) for v in clamped]
    _check_named({name for row in per_row for name in row}, names)
    return torch.tensor([[name in row for name in names] for row in per_row])


def _targets(value: Any) -> tuple[str, ...]:
    if _nothing(value):
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable):
        return tuple(map(str, value))
    raise ValueError(
        f"{value!r} names no node. clamped is boolean (rows, nodes), or gives for each row the "
        "name of the node that was set, several names, or None."
    )


def _check_named(found: Iterable[str], names: Sequence[str]) -> None:
    for name in sorted(found):
        if name not in names:
            raise ValueError(
                f"clamped names {name!r}, which is no node.{suggestion(name, names)} The nodes "
                f"are {listing(list(names))}."
            )


def _is_table(value: Any) -> bool:
    frame = type(value).__name__ == "DataFrame"
    return frame or isinstance(value, Mapping)


def _booleans(column: Any) -> Tensor:
    return torch.tensor([bool(v) for v in column])


def _nothing(value: Any) -> bool:
    return value is None or value == "" or value != value
