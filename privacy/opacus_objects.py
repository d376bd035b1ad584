"""Opacus' optimiser and loader, driving a run of this package (`privacy.sitting`).

`BatchMemoryManager` cuts the lots of the loader into pieces and tells the optimiser to skip the
step on all but the last; here nothing at all happens on those, and the last makes the step on the
whole lot, computed in pieces of that size. A loop that is left between pieces has spent nothing,
and the next one begins with the same lot: which lots count is not for a loop to choose.
"""

from collections.abc import Iterator
from typing import Any

import torch
from opacus.data_loader import DPDataLoader, wrap_collate_with_empty
from opacus.optimizers import DPOptimizer
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from privacy.sitting import Sitting


class DrivenOptimiser(DPOptimizer):
    """Opacus' optimiser, whose step is that of the run.

    Args:
        optimizer: the torch optimiser, whose options may be changed, as schedulers do.
        sitting: the run.
    """

    def __init__(self, optimizer: Optimizer, sitting: Sitting) -> None:
        release = sitting.run.release
        super().__init__(
            optimizer,
            noise_multiplier=release.noise_multiplier,
            max_grad_norm=release.clip,
            expected_batch_size=release.rate * release.rows,
        )
        self.sitting = sitting

    def step(self, closure: Any = None) -> None:
        """The noisy step on the lot; for a piece of it, as `BatchMemoryManager` cuts, nothing yet.

        Raises:
            ValueError: a gradient that is not by row, or a lot that was not shown as a whole.
        """
        if closure is not None:
            with torch.enable_grad():
                closure()
        for p in self.params:
            if p.grad is not None and bool(p.grad.count_nonzero()):
                raise ValueError(
                    "A gradient reached the parameters past the clipping, from a loss of its own "
                    "or a regulariser beside the module's losses. Put it into the objective, mark "
                    "it pgm.objectives.public if no row enters it, and call zero_grad()."
                )
        if self._check_skip_next_step():
            self._is_last_step_skipped = True
            return
        self._is_last_step_skipped = False
        self.sitting.step()

    def forget(self) -> None:
        """A new loop begins: no piece of an earlier one is left."""
        self._step_skip_queue.clear()
        self._is_last_step_skipped = False


class PoissonLoader(DPDataLoader):
    """Opacus' loader, over the lots of the run.

    Args:
        loader: whose data set and collation are used.
        sitting: the run.
        optimiser: told when a loop begins.
    """

    def __init__(
        self, loader: DataLoader[Any], sitting: Sitting, optimiser: DrivenOptimiser
    ) -> None:
        self.sample_rate, self.distributed = sitting.run.release.rate, False
        collate = wrap_collate_with_empty(collate_fn=loader.collate_fn)
        dataset: Dataset[Any] = loader.dataset
        collate([dataset[0]])  # an empty lot has its shapes
        DataLoader.__init__(
            self, dataset, batch_sampler=_Lots(sitting, optimiser), collate_fn=collate
        )


class _Lots(Sampler[list[int]]):
    """The rows of lot after lot; each is drawn when the step on the one before was made."""

    def __init__(self, sitting: Sitting, optimiser: DrivenOptimiser) -> None:
        self.sitting, self.optimiser = sitting, optimiser

    def __len__(self) -> int:
        return len(self.sitting.lots)

    def __iter__(self) -> Iterator[list[int]]:
        self.sitting.begin()
        self.optimiser.forget()
        for _ in range(len(self)):
            yield self.sitting.draw()
        self.sitting.lots.refuse_skipping()
