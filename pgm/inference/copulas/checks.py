"""What is asked of the columns of a copula and of their rows before anything is estimated."""

from collections.abc import Sequence
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import as_batch
from pgm.inference.copulas.marginals import Law
from pgm.schema import Continuous, Schema
from pgm.schema.columns import listing

_FEW, _TIES = 10, 0.1
"""The fewest rows, and the largest share of them that may hold one value."""

_DISCRETE = (
    "A copula of discrete columns is not unique (Sklar 1959; Genest & Neslehova 2007), and its "
    "likelihood is a sum over the corners of a box; noise that makes them continuous would weaken "
    "their dependence. Use a GaussianNetwork for levels and numbers, a mixture, or leave the "
    "column out."
)


def check_columns(
    features: int,
    law: str,
    lower: Sequence[float | None] | None,
    upper: Sequence[float | None] | None,
    points: Tensor | None,
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """The bounds as tensors, infinite where there is none.

    Raises:
        ValueError: see `GaussianCopula`.
    """
    if features < 2:
        raise ValueError(f"features is {features}; a copula ties two columns or more.")
    if law not in get_args(Law):
        raise ValueError(
            f"There are no marginals {law!r}; there are {listing([*map(repr, get_args(Law))])}."
        )
    a, b = _bounds("lower", lower, features), _bounds("upper", upper, features)
    if bool((a >= b).any()):
        j = int((a >= b).nonzero()[0])
        raise ValueError(f"Column {j} has bounds {a[j]:g} and {b[j]:g}; lower lies below upper.")
    if (law == "kernel") != (points is not None):
        raise ValueError(
            f"marginals={law!r} came {'without' if points is None else 'with'} points: kernels, "
            "and only they, stand on rows. Use GaussianCopula.from_data(x), which passes them."
        )
    if points is not None:
        wanted = points.dim() == 2 and points.shape[1] == features and points.is_floating_point()
        if not wanted or not bool(((points > a) & (points < b) & points.isfinite()).all()):
            raise ValueError(
                f"points of shape {tuple(points.shape)} must be finite rows of {features} numbers "
                "within the bounds: a kernel stands at a place of the support."
            )
    return a, b


def read(
    data: Any, schema: Schema | None
) -> tuple[Float[Tensor, "n d"], Schema | None, Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Rows with NaN where cells are missing, how a frame was read, and the bounds it declares.

    Raises:
        ValueError: columns that are no numbers with a density, or rows of another shape.
    """
    if type(data).__module__.partition(".")[0] == "pandas":
        schema = schema or Schema.infer(data)
        discrete = [n for n, kind in schema.columns.items() if not isinstance(kind, Continuous)]
        if discrete:
            raise ValueError(f"Columns {listing(discrete)} are levels or counts. {_DISCRETE}")
        schema = Schema(schema.columns, site="x")
        data = schema.encode(data)
    batch = as_batch(data)
    if set(batch) - {"x", "x_seen"} or "x" not in batch or batch["x"].dim() != 2:
        raise ValueError(
            f"A copula is estimated from rows of numbers at 'x', shape (n, d), but {batch} came."
        )
    x = batch["x"] if batch["x"].is_floating_point() else batch["x"].to(torch.get_default_dtype())
    x = x if "x_seen" not in batch else x.masked_fill(~batch["x_seen"], torch.nan)
    a, b = torch.full_like(x[0], -torch.inf), torch.full_like(x[0], torch.inf)
    for j, (name, kind) in enumerate(schema.columns.items() if schema else ()):
        assert isinstance(kind, Continuous)
        a[j] = a[j] if kind.lower is None else kind.code(name, kind.lower)
        b[j] = b[j] if kind.upper is None else kind.code(name, kind.upper)
    return x, schema, a, b


def check_rows(
    x: Float[Tensor, "n d"],
    a: Float[Tensor, " d"],
    b: Float[Tensor, " d"],
    schema: Schema | None,
) -> None:
    """Refuses too few rows, constant and discrete columns, cells on a bound, and pairs unseen."""
    names = [f"column {j}" for j in range(x.shape[1])] if schema is None else list(schema.columns)
    for name, column, low, high in zip(names, x.T, a, b, strict=True):
        column = column[~column.isnan()]
        if len(column) < _FEW:
            raise ValueError(
                f"{len(column)} cells of {name} were seen; a marginal law and a correlation take "
                f"{_FEW} or more."
            )
        value, count = column.unique(return_counts=True)
        if len(value) == 1:
            raise ValueError(f"{name} is constant: it depends on nothing. Leave it out.")
        most = int(count.argmax())
        if count[most] > max(5, _TIES * len(column)):
            raise ValueError(
                f"{name} holds {value[most]:g} in {count[most]} of {len(column)} rows, as discrete "
                f"columns do. {_DISCRETE}"
            )
        if bool(((column <= low) | (column >= high)).any()):
            raise ValueError(
                f"{name} reaches its bounds [{low:g}, {high:g}], where a continuous law has no "
                "mass: if a cell can be just there, the column is partly discrete. Widen the "
                "bound, or leave those rows out."
            )
    seen = (~x.isnan()).to(x)
    both = seen.T @ seen
    if bool((both < _FEW).any()):
        i, j = (both < _FEW).nonzero()[0].tolist()
        raise ValueError(
            f"{names[i]} and {names[j]} were seen in the same row {int(both[i, j])} times: too few "
            "to tell of their dependence, which the other columns leave open. Leave one of them "
            f"out, or get {_FEW} rows with both."
        )


def filled(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Missing cells of each column replaced by quantiles of its seen ones, for its kernels."""
    columns = []
    for column in x.T:
        known = column[~column.isnan()]
        hole = column.isnan()
        p = (torch.arange(int(hole.sum())) + 0.5) / max(1, int(hole.sum()))
        more = torch.quantile(known, p.to(known)) if bool(hole.any()) else known[:0]
        columns.append(torch.cat([known, more]))
    return torch.stack(columns, -1)


def _bounds(name: str, given: Sequence[float | None] | None, features: int) -> Tensor:
    none = -torch.inf if name == "lower" else torch.inf
    values = [none] * features if given is None else [none if v is None else v for v in given]
    if len(values) != features or any(v != v for v in values):
        raise ValueError(
            f"{name} is {given!r}; it is one number, or None, for each of {features} columns."
        )
    return torch.tensor(values, dtype=torch.get_default_dtype())
