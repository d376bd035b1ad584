"""Lots by Poisson sampling: every row is in every lot with probability q, independently.

The accountants' theorems are about this sampling and no other (Abadi et al. 2016, sec. 3.1); lots
of a fixed size in shuffled order, the usual minibatches, spend more than they would say. A lot may
be empty, and is a step all the same.
"""

import hashlib
import os
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float64

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
        generator = np.random.default_rng(derive(self.seed, f"lots of epoch {k}"))
        device = next(iter(self.batch.values())).device
        for step in range(len(self)):
            chosen = self._uniform(generator) < self.rate
            if step >= skip:
                lot = take(self.batch, torch.from_numpy(chosen.nonzero()[0]).to(device))
                yield move(lot, device=self.model.device, dtype=self.model.dtype)

    def _uniform(self, generator: np.random.Generator) -> Float64[np.ndarray, " n"]:
        """A number from [0, 1) for every row."""
        n = rows_of(self.batch)
        if not self.secure:
            return generator.random(n)
        return (np.frombuffer(os.urandom(8 * n), dtype=np.uint64) >> np.uint64(11)) / 2.0**53


def derive(seed: int, purpose: str) -> int:
    """A seed for one purpose: the streams of two purposes share nothing."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % (2**63 - 1)
