"""Batches: dicts of tensors with the rows first, checked once where the data enter.

A key that is a parameter of a model's program is context, any other key is an observed site, and
`x_seen` (boolean, the shape of `x`) says which cells of `x` were seen. NaN in a float tensor means
missing: it becomes such a mask here. Whatever stands in an unseen cell becomes a zero.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgm.schema import Schema

SEEN = "_seen"
"""The ending of a mask's key."""


class Batch(dict[str, Tensor]):
    """A checked dict of tensors, rows first."""

    def __repr__(self) -> str:
        cells = ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.items())
        return f"Batch({cells})"


def as_batch(data: Any, *, schema: Schema | None = None) -> Batch:
    """Turns what a user has into a checked batch; nothing of the user's is changed.

    Args:
        data: a tensor or array (meaning `{"x": data}`), a mapping of them, or a pandas frame.
        schema: how a frame is read; a frame without one is refused.

    Raises:
        TypeError: data of another kind, or tensors of a dtype that no density is defined on.
        ValueError: no rows, rows that differ in number, infinite values, a mask that is not boolean
            or of another shape than its data, or a frame without schema.

    Example:
        >>> as_batch(torch.tensor([[1.0, float("nan")]]))
        Batch(x (1, 2), x_seen (1, 2))
    """
    if isinstance(data, Batch):
        return data
    if type(data).__module__.partition(".")[0] == "pandas":
        data = _read(data, schema)
    if not isinstance(data, Mapping):
        data = {"x": data}
    tensors = {str(name): _tensor(str(name), value) for name, value in data.items()}
    check_rows(tensors)
    hidden = {str(k): _hidden(v) for k, v in data.items() if isinstance(v, np.ma.MaskedArray)}
    batch = Batch()
    for name, value in tensors.items():
        if name.endswith(SEEN) and name.removesuffix(SEEN) in tensors:
            continue
        if (
            name + SEEN not in tensors
            and name not in hidden
            and (not value.is_floating_point() or is_finite(value))
        ):
            batch[name] = value
            continue
        batch.update(_fill(name, value, _seen(name, value, tensors, hidden)))
    return batch


def check_rows(tensors: Mapping[str, Tensor]) -> None:
    """Tensors that hold the same rows.

    Raises:
        ValueError: no tensor, no rows, or different numbers of them.
    """
    if not tensors:
        raise ValueError("The batch is empty: no tensor came. Pass at least one observed site.")
    lengths = {name: len(value) for name, value in tensors.items()}
    if 0 in lengths.values():
        raise ValueError(f"The data have no rows: {lengths}. A model needs at least one row.")
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"Tensors of different numbers of rows came: {lengths}. The first axis of every tensor "
            "counts the rows, and row i of each belongs to the same example."
        )


def is_finite(x: Tensor) -> bool:
    """Whether all cells of a floating-point tensor are finite; their sum tells at once if it is."""
    return math.isfinite(x.detach().sum().item()) or bool(torch.isfinite(x).all())


def rows_of(batch: Mapping[str, Tensor]) -> int:
    """The number of rows of a batch."""
    return next(iter(batch.values())).shape[0]


def take(batch: Mapping[str, Tensor], index: Tensor | slice) -> Batch:
    """The rows of `batch` at `index`."""
    return Batch({name: value[index] for name, value in batch.items()})


def repeat(batch: Mapping[str, Tensor], times: int) -> Batch:
    """The rows of `batch`, all of them `times` times over (row i of copy k is row k n + i)."""
    if times == 1:
        return Batch(batch)
    return Batch({k: v.repeat(times, *[1] * (v.dim() - 1)) for k, v in batch.items()})


def move(batch: Mapping[str, Tensor], *, device: torch.device, dtype: torch.dtype) -> Batch:
    """The batch on a device; its floating-point tensors in `dtype`."""

    def moved(x: Tensor) -> Tensor:
        wanted = dtype if x.is_floating_point() else x.dtype
        there = x.dtype == wanted and x.device == device
        return x if there else x.to(device, wanted)

    return Batch({name: moved(x) for name, x in batch.items()})


def split(batch: Batch, fraction: float, *, seed: int) -> tuple[Batch, Batch]:
    """Splits the rows at random: (1 - fraction, fraction), at least one row each.

    Raises:
        ValueError: a fraction outside (0, 1), or a batch of a single row.
    """
    n = rows_of(batch)
    if not 0 < fraction < 1 or n < 2:
        raise ValueError(
            f"Cannot hold out a fraction {fraction} of {n} rows: it takes a fraction strictly "
            "between 0 and 1, and two rows or more. Pass the held-out rows themselves instead."
        )
    held = min(max(1, round(fraction * n)), n - 1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return take(batch, order[held:]), take(batch, order[:held])


def chunks(batch: Batch, size: int) -> Iterator[Batch]:
    """Consecutive pieces of at most `size` rows."""
    for start in range(0, rows_of(batch), size):
        yield take(batch, slice(start, start + size))


def cells(
    batch: Mapping[str, Tensor], name: str, shape: tuple[int, ...], *, others: Iterable[str] = ()
) -> tuple[Tensor, Tensor | None]:
    """The values of one site, and which of them were seen, for a rule that reads no other site.

    Args:
        batch: the rows.
        name: the site.
        shape: of one row of it.
        others: further keys that the rule reads.

    Returns:
        Values, shape (n, *shape), and the mask of the seen cells, None where all were seen.

    Raises:
        ValueError: the site is absent or of another shape, or the batch has a key that the rule
            would ignore.

    Example:
        >>> cells(as_batch(torch.tensor([[1.0, float("nan")]])), "x", (2,))[1]
        tensor([[ True, False]])
    """
    known = {key + ending for key in (name, *others) for ending in ("", SEEN)}
    if name not in batch or not known.issuperset(batch):
        raise ValueError(
            f"The batch has {', '.join(map(repr, batch))}, but what is asked for here is answered "
            f"from {', '.join(map(repr, (name, *others)))}. Rename the keys, or leave out those "
            "that are not meant."
        )
    if tuple(batch[name].shape[1:]) != shape:
        raise ValueError(
            f"Data for {name!r} have shape {tuple(batch[name].shape)}, but the model's rows have "
            f"shape {shape}. Reshape the data to (n, {', '.join(map(str, shape))}), or build the "
            "model for the shape that came."
        )
    return batch[name], batch.get(name + SEEN)


def _read(frame: Any, schema: Schema | None) -> Mapping[str, Tensor]:
    if schema is None:
        raise ValueError(
            "A data frame came, but the model has no schema to read it with: the levels, counts "
            "and bounds of its columns are part of the model. Set `model.schema = "
            "pgm.Schema.infer(frame)`, pass `schema=` to `pgm.fit`, or, of numbers alone and where "
            "no model is there yet, pass a tensor: torch.tensor(frame.to_numpy())."
        )
    return schema.encode(frame, all_missing="keep")


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        value = value.copy()
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"Data for {name!r} are a {type(value).__name__} that is no tensor ({error}). Pass a "
            "tensor, an array, a dict of them, or a pandas frame with a schema."
        ) from error
    if tensor.layout != torch.strided:
        raise TypeError(
            f"Data for {name!r} are a sparse tensor, whose cells have no density one by one. Pass "
            "them dense, with .to_dense()."
        )
    if tensor.is_complex() or tensor.is_quantized:
        raise TypeError(
            f"Data for {name!r} have dtype {tensor.dtype}, on which no density here is defined. "
            "Pass real floating-point, integer or boolean tensors."
        )
    if tensor.dim() == 0:
        raise ValueError(f"Data for {name!r} are a single number; rows come first: shape (n, ...).")
    return tensor


def _hidden(array: np.ma.MaskedArray) -> Tensor:
    return torch.from_numpy(np.ma.getmaskarray(array).copy())


def _seen(
    name: str, value: Tensor, tensors: Mapping[str, Tensor], hidden: Mapping[str, Tensor]
) -> Tensor | None:
    """Which cells were seen, by NaN, by a masked array and by a mask; None for all of them."""
    seen = ~torch.isnan(value) if value.is_floating_point() else None
    seen = None if seen is not None and bool(seen.all()) else seen
    given = [] if seen is None else [seen]
    given += [~hidden[name]] if name in hidden else []
    if (mask := tensors.get(name + SEEN)) is not None:
        if mask.dtype != torch.bool or mask.shape != value.shape:
            raise ValueError(
                f"{name + SEEN!r} has dtype {mask.dtype} and shape {tuple(mask.shape)}; it says "
                f"which cells of {name!r} were seen and must be boolean, of shape "
                f"{tuple(value.shape)}. Write mask.bool(), expanded to the shape of the data."
            )
        given.append(mask)
    return torch.stack(given).all(0) if given else None


def _fill(name: str, value: Tensor, seen: Tensor | None) -> dict[str, Tensor]:
    """The tensor with zeros in its unseen cells, and the mask."""
    if seen is not None:
        value = value.masked_fill(~seen, 0)
    bad = torch.isinf(value).sum() if value.is_floating_point() else 0
    if bad:
        raise ValueError(
            f"Data for {name!r} hold {int(bad)} infinite values, whose density is zero or "
            "undefined. Clip them, or mark them as missing with NaN."
        )
    return {name: value} if seen is None else {name: value, name + SEEN: seen}
