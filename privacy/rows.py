"""Rows in any form as batches, and batches one below the other."""

from typing import Any

import torch

from pgm.batch import SEEN, Batch, as_batch
from pgm.schema import Schema


def as_rows(data: Any, schema: Schema | None = None) -> Batch:
    """The rows as a batch."""
    return data if isinstance(data, Batch) else as_batch(data, schema=schema)


def together(first: Batch, second: Batch) -> Batch:
    """The rows of both, those of `second` below; what only one calls missing, the other has seen.

    Raises:
        ValueError: columns of other names or shapes.

    Example:
        >>> together(Batch(x=torch.zeros(2, 1)), Batch(x=torch.ones(1, 1)))["x"].shape
        torch.Size([3, 1])
    """
    first, second = _with_masks(first, second), _with_masks(second, first)
    if first.keys() != second.keys():
        raise ValueError(
            f"Rows of {', '.join(sorted(first))} and of {', '.join(sorted(second))} came; canaries "
            "have the columns of the data they hide among."
        )
    for name in first:
        if first[name].shape[1:] != second[name].shape[1:]:
            raise ValueError(
                f"{name!r} has rows of shape {tuple(first[name].shape[1:])} and of "
                f"{tuple(second[name].shape[1:])}; canaries have the shape of the data."
            )
    return Batch({name: torch.cat([x, second[name].to(x)]) for name, x in first.items()})


def _with_masks(batch: Batch, other: Batch) -> Batch:
    masks = {
        name: torch.ones(len(next(iter(batch.values()))), *other[name].shape[1:], dtype=torch.bool)
        for name in other
        if name.endswith(SEEN) and name not in batch and name.removesuffix(SEEN) in batch
    }
    return Batch({**batch, **masks})
