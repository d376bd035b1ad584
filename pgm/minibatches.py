"""Where minibatches come from: memory, a torch Dataset, or a DataLoader, in a seeded order.

The order of epoch k depends on the seed and k alone, so that a resumed run can skip to where it
stopped. A Dataset or DataLoader may be larger than memory: only one minibatch is held at a time.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sized
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pgm.batch import Batch, move, rows_of
from pgm.model import Model
from pgm.randomness import seeded
from pgm.verb import prepare


@runtime_checkable
class Source(Protocol):
    """Minibatches by epoch."""

    size: int

    def __len__(self) -> int:
        """Minibatches an epoch."""

    def epoch(self, k: int, *, skip: int = 0) -> Iterator[Batch]:
        """The minibatches of epoch k, without the first `skip`."""


def source(
    model: Model, data: Any, *, batch_size: int, seed: int, size: int | None = None
) -> Source:
    """The minibatches of `data`, in whatever form it came.

    Args:
        model: whose schema, device and dtype the rows are read for.
        data: a batch in any form, a Dataset whose items are rows, or a DataLoader of batches.
        batch_size: rows a minibatch; a DataLoader has its own.
        seed: of the order.
        size: the number of rows of the whole data, where it has no length.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; a minibatch has at least one row.")
    if isinstance(data, DataLoader):
        return Loaded(model, data, seed=seed, size=size)
    if isinstance(data, Dataset):
        shuffle = not isinstance(data, IterableDataset)
        loader: DataLoader[Any] = DataLoader(data, batch_size=batch_size, shuffle=shuffle)
        return Loaded(model, loader, seed=seed, size=size)
    return Memory(model, prepare(model, data), batch_size=batch_size, seed=seed, size=size)


class Memory:
    """Shuffled minibatches of a batch that is in memory."""

    def __init__(
        self, model: Model, batch: Batch, *, batch_size: int, seed: int, size: int | None = None
    ) -> None:
        self.batch, self.batch_size, self.seed = batch, batch_size, seed
        self.size = size or rows_of(batch)
        self.device, self.dtype = model.device, model.dtype

    def __len__(self) -> int:
        return -(-rows_of(self.batch) // self.batch_size)

    @functools.cached_property
    def _whole(self) -> Batch:
        return move(self.batch, device=self.device, dtype=self.dtype)

    def epoch(self, k: int, *, skip: int = 0) -> Iterator[Batch]:
        """The minibatches of epoch k, without the first `skip`.

        Where one minibatch is all rows there is no order to draw.
        """
        if self.batch_size >= rows_of(self.batch):
            if not skip:
                yield self._whole
            return
        generator = torch.Generator().manual_seed(_seed(self.seed, k))
        order = torch.randperm(rows_of(self.batch), generator=generator)
        for index in order.split(self.batch_size)[skip:]:
            rows = index.to(next(iter(self.batch.values())).device)
            chosen = Batch({k: v.index_select(0, rows) for k, v in self.batch.items()})
            yield move(chosen, device=self.device, dtype=self.dtype)


class Loaded:
    """The minibatches of a DataLoader, each checked as it comes."""

    def __init__(
        self, model: Model, loader: DataLoader[Any], *, seed: int, size: int | None
    ) -> None:
        self.model, self.loader, self.seed = model, loader, seed
        if size is None and not isinstance(loader.dataset, Sized):
            raise ValueError(
                "The data set has no length, so the share of the shared terms in a row is unknown. "
                "Pass size=, the number of rows of the whole data."
            )
        self.size = size if size is not None else len(loader.dataset)  # type: ignore[arg-type]

    def __len__(self) -> int:
        try:
            return len(self.loader)
        except TypeError:
            return max(1, -(-self.size // (self.loader.batch_size or 1)))

    def epoch(self, k: int, *, skip: int = 0) -> Iterator[Batch]:
        """The minibatches of epoch k, without the first `skip`."""
        with seeded(_seed(self.seed, k)):
            items = iter(self.loader)
            first = list(itertools.islice(items, 1))
        for item in itertools.islice(itertools.chain(first, items), skip, None):
            yield prepare(self.model, _unpack(item))


def _unpack(item: Any) -> Any:
    """A collated item as data: a tensor or mapping as it is, a 1-tuple as its tensor."""
    if isinstance(item, torch.Tensor | Mapping):
        return item
    if isinstance(item, tuple | list) and len(item) == 1:
        return item[0]
    raise TypeError(
        f"A data set's item is a {type(item).__name__}; which of its parts is which site cannot be "
        'guessed. Let the data set give dicts, such as {"x": image, "label": label}.'
    )


def _seed(seed: int, k: int) -> int:
    return (seed * 1_000_003 + k) % (2**63 - 1)
