"""Whether computing a loss leaves something of the rows in the model.

Told by other rows: on the same state and with the same draws a constant, a count of calls, or what
follows from the parameters is the same whatever stands in the rows, and however many they are.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from pgm.batch import SEEN, Batch, rows_of, take
from pgm.model import Model
from pgm.randomness import seeded
from privacy.draws import LotDraws
from privacy.gradients.routes import as_computed
from privacy.kept import Kept
from privacy.synthetic import synthetic_rows

HARM = "It is released with the model when that is pickled, and no noise covers it."
REMEDY = (
    "Compute from parameters and the row alone, and hold what is learned in an nn.Parameter; to "
    "look at the rows, do it outside of the fit."
)


def left_by_rows(
    model: nn.Module, losses: Callable[[Batch], Any], rows: Batch
) -> tuple[set[str], set[str]]:
    """The attributes in which computing losses leaves something of the rows, and others it sets.

    Args:
        model: left as it was.
        losses: of a batch.
        rows: three, made up.
    """
    start = Kept.of(model, copies=True)
    first = _outcome(model, losses, rows, start)
    found, written = set[str](), start.written(first)
    for other in _others(rows):
        try:
            found |= first.changed(_outcome(model, losses, other, start))
        except (RuntimeError, ValueError, IndexError):
            continue  # no rows for this program
    return found, written - found


def _outcome(
    model: nn.Module, losses: Callable[[Batch], Any], rows: Batch, start: Kept, *, seed: int = 1
) -> Kept:
    """What is kept after computing losses; then the model is as it was at the start."""
    try:
        with seeded(seed), torch.no_grad(), as_computed(), LotDraws(rows_of(rows), {}):
            losses(rows)
        return Kept.of(model, copies=True)
    finally:
        start.restore()


def _others(rows: Batch) -> Iterator[Batch]:
    """Other rows of the same number, and fewer of them."""
    for i in (0, rows_of(rows) - 1):
        yield take(rows, torch.full((rows_of(rows),), i))
    yield Batch({k: -x if x.is_floating_point() else x for k, x in rows.items()})
    whole = {k: ~x if x.dtype == torch.bool else x + 1 for k, x in rows.items()}
    for name in (k for k, x in rows.items() if not x.is_floating_point() and not k.endswith(SEEN)):
        yield Batch({**rows, name: whole[name]})
    yield take(rows, slice(rows_of(rows) - 1))


class Watch:
    """Stops a private step whose loss left something of the rows in the model.

    Args:
        model: the model.
        losses: of a batch.
    """

    def __init__(self, model: Model, losses: Callable[[Batch], Any]) -> None:
        self.model, self.losses = model, losses
        self._free = set[str]()

    def kept(self) -> Kept:
        """Before a step."""
        return Kept.of(self.model)

    def refuse(self, before: Kept, like: Batch) -> None:
        """Raises if a change since then is none that made-up rows make too, or leaves other values.

        A count of calls may differ from what they leave, being a single number; and so may draws.

        Raises:
            RuntimeError: the model holds something of the rows.
        """
        changed = before.changed(self.kept())
        if not changed:
            return
        made_up = synthetic_rows(self.model, like, 3)
        if changed - self._free:
            self._free |= left_by_rows(self.model, self.losses, made_up)[1]
        now = Kept.of(self.model, copies=True)
        outcomes = [_outcome(self.model, self.losses, made_up, now, seed=k) for k in (1, 2)]
        held = now.held(outcomes[0]) - outcomes[0].changed(outcomes[1])
        for name in sorted(changed - self._free | changed & held):
            raise RuntimeError(
                f"Attribute {name!r} of {type(self.model).__name__} changed while the loss of a "
                f"private step was computed, and holds what the rows left in it. {HARM} Discard "
                f"this model. {REMEDY}"
            )
