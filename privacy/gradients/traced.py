"""Clipped sums that are recorded once and replayed: for models whose steps are almost all Python.

Losses, gradients by row (or the factors of the ghost route), norms, clipping and sum become one
list of torch calls or one compiled loop (`privacy.gradients.frames`); so do the public gradients.
Noise, accounting and update are as without it. Where a record cannot be made or trusted, the route
itself computes, and says why.
"""

import math
import warnings
from typing import Any

from torch import Tensor

from pgm.batch import Batch, chunks, rows_of
from pgm.model import Model
from pgm.traced import Compile, TraceWarning, choose
from pgm.tracing import Backend, Untraceable
from privacy.draws import Tables
from privacy.gradients.frames import Frame, Shared
from privacy.gradients.per_row import NUMBERS_AT_ONCE, PerRow
from privacy.gradients.routes import as_computed
from privacy.gradients.rows import ClippedSum, Layers, added

REPAID = 6_000
"""Steps after which a record has repaid its compilation. On one of two cores a mixture, a small VAE
and a flow took 3400 to 4900."""
_SMALL = 2**16
"""Parameters up to which records are worth while: above, a step is arithmetic, and no Python."""
_MULTIPLE = 8


def rows_by(compile: Compile, model: Model, *, steps: int, lot: float, **options: Any) -> PerRow:
    """Gradients by row, replayed where that is asked for, or repays.

    Args:
        compile: as in `pgm.fit`.
        model: as in `PerRow`.
        steps: the number of steps to come.
        lot: the declared number of rows in a lot, on average.
        **options: as in `PerRow`.

    Raises:
        ValueError: there is no such back end.
    """
    device = model.device
    backend = choose(compile, steps=steps, device=device, repaid=REPAID)
    large = sum(p.numel() for p in model.parameters() if p.requires_grad) > _SMALL
    if backend == "eager" or (compile == "auto" and large):
        return PerRow(model, **options)
    return TracedRows(model, backend=backend, lot=lot, told=compile != "auto", **options)


class TracedRows(PerRow):
    """Gradients by row whose clipped sums are replayed.

    Args:
        model: as in `PerRow`.
        backend: what replays a record.
        lot: the declared number of rows in a lot, on average.
        told: whether a fall-back to the route itself is warned of.
        **options: as in `PerRow`.

    Attributes:
        why: why nothing is replayed; None if it is.
        seconds: what recording, compiling and checking took so far.
    """

    def __init__(
        self, model: Model, *, backend: Backend, lot: float, told: bool, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.backend, self.lot, self.told = backend, lot, told
        self.why: str | None = None
        self.seconds = 0.0
        self._frames: dict[Any, Frame] = {}
        self._shared: dict[int, Shared] = {}

    def clipped(
        self, batch: Batch, clip: float | Layers, *, tables: Tables | None = None
    ) -> ClippedSum:
        """The clipped sum over the rows of `batch`; replayed unless `tables` are given."""
        self.settle(batch)
        if tables is not None or self.why or rows_of(batch) == 0:
            return super().clipped(batch, clip, tables=tables)
        with as_computed():
            frame = self._frame(batch, clip)
            if frame is not None:
                return added(frame(piece, clip) for piece in chunks(batch, frame.size))
        return super().clipped(batch, clip)

    def public_gradients(self, n: int) -> dict[str, Tensor]:
        """The gradients of the public terms, replayed."""
        if not self.public or self.why:
            return super().public_gradients(n)
        with as_computed():
            try:
                if n not in self._shared:
                    self._shared[n] = Shared(self, self.backend, n)
                    self.seconds += self._shared[n].trace.seconds
                return self._shared[n]()
            except (Untraceable, ImportError) as reason:
                self._fall_back(str(reason))
        return super().public_gradients(n)

    def __str__(self) -> str:
        if self.why:
            return f"{self.route}, not compiled: {self.why}"
        return f"{self.route}, compiled ({self.backend})" if self._frames else self.route

    def _frame(self, batch: Batch, clip: float | Layers) -> "Frame | None":
        """The record for such rows and such a bound; None where there is none to be trusted."""
        shapes = tuple((k, x.shape[1:], x.dtype) for k, x in batch.items())
        size = self._size()
        key = (shapes, size, clip if isinstance(clip, Layers) else None, self.model.training)
        try:
            if key not in self._frames:
                self._frames[key] = Frame(self, self.backend, batch, clip, size)
                self.seconds += self._frames[key].trace.seconds
                self.replayed = True
            self._frames[key].verify()
        except (Untraceable, ImportError) as reason:  # another torch has other entry points
            self._fall_back(str(reason))
            return None
        return self._frames[key]

    def _size(self) -> int:
        """Room for nearly every lot; no more than fit into memory, or are there."""
        room = math.ceil((self.lot + 3 * self.lot**0.5) / _MULTIPLE) * _MULTIPLE
        numbers = sum(p.numel() for p in self.parameters.values())
        most = NUMBERS_AT_ONCE // numbers if self._ghost is None else room
        return max(1, min(room, self.size, most, self.physical or room))

    def _fall_back(self, why: str) -> None:
        late = any(frame.steps > 1 for frame in self._frames.values())
        self.why, self.replayed = why, False
        self._frames.clear()
        self._shared.clear()
        if self.told or late:
            warnings.warn(
                f"The clipped sums of {type(self.model).__name__} are not replayed, but computed "
                f"by their route: {why}.",
                TraceWarning,
                stacklevel=2,
            )
