"""Lots by Poisson sampling: every row is in every lot with probability q, independently.

The accountants' theorems are about this sampling and no other (Abadi et al. 2016, sec. 3.1); lots
of a fixed size in shuffled order, the usual minibatches, spend more than they would say. A lot may
be empty, and is a step all the same.
"""

import hashlib
import itertools
import os
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from pgm.batch import Batch, move, rows_of, take
from pgm.model import Model


class PoissonLots:
    """Poisson-sampled lots of rows in memory; a source for pgm's training loop.

    What the loop and the loss see is declared, never counted: `size` is the public number of rows.

    Args:
        model: for whose device and dtype the lots are.
        batch: the rows.
        rate: q, the probability with which a row is in a lot.
        rows: the declared number of rows, at least as many as came.
        seed: of the sampling; whoever knows it can tell which rows were in which lot.
        secure: whether rows are chosen by the system's entropy, whatever the seed.

    Attributes:
        size: the declared number of rows.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> lots = PoissonLots(PPCA(1, 1), Batch(x=torch.zeros(9, 1)), rate=0.2, rows=10, seed=0)
        >>> len(lots), [rows_of(lot) for lot in lots.epoch(0)]
        (5, [3, 4, 2, 2, 2])
    """

    def __init__(
        self,
        model: Model,
        batch: Batch,
        *,
        rate: float,
        rows: int,
        seed: int,
        secure: bool = False,
    ) -> None:
        self.model, self.batch, self.rate, self.seed = model, batch, rate, seed
        self.size, self.secure = rows, secure

    def __len__(self) -> int:
        """Lots in an epoch: as many as look at each row once, on average."""
        return max(1, round(1 / self.rate))

    def epoch(self, k: int, *, skip: int = 0) -> Iterator[Batch]:
        """The lots of epoch k, without the first `skip`; no two epochs share random numbers."""
        return map(self.at, self.chosen(k, skip=skip))

    def chosen(self, k: int, *, skip: int = 0) -> Iterator[Tensor]:
        """Which rows are in the lots of epoch k."""
        generator = np.random.default_rng(derive(self.seed, f"lots of epoch {k}"))
        for step in range(len(self)):
            inside = self._uniform(generator) < self.rate
            if step >= skip:
                yield torch.from_numpy(inside.nonzero()[0])

    def at(self, index: Int[Tensor, " m"]) -> Batch:
        """These rows, where the model is."""
        device = next(iter(self.batch.values())).device
        lot = take(self.batch, index.to(device))
        return move(lot, device=self.model.device, dtype=self.model.dtype)

    def _uniform(self, generator: np.random.Generator) -> Float64[np.ndarray, " n"]:
        """A number from [0, 1) for every row."""
        n = rows_of(self.batch)
        if not self.secure:
            return generator.random(n)
        return (np.frombuffer(os.urandom(8 * n), dtype=np.uint64) >> np.uint64(11)) / 2.0**53


class HandedLots(PoissonLots):
    """Poisson lots that are shown to the caller before the step that uses them.

    Args:
        lots: where they come from.

    Attributes:
        index: the rows of the lot that waits; None if none does.
    """

    def __init__(self, lots: PoissonLots) -> None:
        super().__init__(
            lots.model,
            lots.batch,
            rate=lots.rate,
            rows=lots.size,
            seed=lots.seed,
            secure=lots.secure,
        )
        self._stream = (index for k in itertools.count() for index in self.chosen(k))
        self.index: Tensor | None = None
        self.waiting = Batch()

    def draw(self) -> Batch:
        """The next lot, which then waits."""
        self.index = next(self._stream)
        self.waiting = self.at(self.index)
        return self.waiting

    def drop(self) -> None:
        """The lot that waits is not used."""
        self.index, self.waiting = None, Batch()

    def handed(self, given: list[Tensor]) -> bool:
        """Whether these tensors are those of the lot that waits."""
        known = {id(value) for value in self.waiting.values()}
        return bool(given) and all(id(value) in known for value in given)

    def refuse_skipping(self) -> None:
        """Raises if the last lot was not used: choosing among lots is no Poisson sampling.

        Raises:
            ValueError: a lot waits.
        """
        if self.waiting:
            raise ValueError(
                "A lot was drawn and no step was made on it. Leaving lots out, say the empty ones, "
                "changes the sampling that the accounting rests on: make a step on every lot "
                "(with DPSVI: pass each lot to step())."
            )

    def epoch(self, k: int, *, skip: int = 0) -> Iterator[Batch]:
        """The lots that wait, each once."""
        while self.waiting:
            lot = self.waiting
            self.drop()
            yield lot


def derive(seed: int, purpose: str) -> int:
    """A seed for one purpose: the streams of two purposes share nothing."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % (2**63 - 1)
