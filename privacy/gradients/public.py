"""The public terms of a loss: found, checked for taint, and differentiated on made-up rows.

A term is public if no row enters it (`pgm.objectives.public`). That is claimed by whoever wrote the
loss, so it is checked: with the same noise, the terms and their gradients must be the same numbers
whatever stands in the rows. In use they are computed on made-up rows alone; a false claim could
make them wrong, but never let them tell of the data.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pgm.batch import SEEN, Batch, rows_of, take
from pgm.model import Model
from pgm.objectives import Objective, parted
from pgm.randomness import seeded
from privacy.draws import LotDraws


class Split:
    """The two parts of a loss by row.

    Args:
        model: the model.
        objective: the loss by row.
        size: the declared number of rows.

    Attributes:
        reached: the trainable parameters that the rows' part reaches; the others are public.
        tainted: why the terms that are marked as public are not; None if they are.
    """

    def __init__(self, model: Model, objective: Objective, size: int) -> None:
        self.model, self.objective, self.size = model, objective, size
        self.reached: list[str] = []
        self.tainted: str | None = None
        self._made_up = Batch()

    def rows(self, model: Model, batch: Batch) -> Tensor:
        """The rows' part of the loss, shape (n,)."""
        with parted():
            return self.objective(model, batch, size=self.size)

    def found(self, made_up: Batch) -> bool:
        """Whether there are public terms with a gradient, and no row enters them."""
        total = self._total(made_up)
        if not total.requires_grad:
            return False
        self._made_up, self.tainted = made_up, self._taint(made_up)
        self.reached = _reached(self.model, self.rows(self.model, made_up).sum())
        return self.tainted is None

    def gradients(self, n: int) -> dict[str, Tensor]:
        """The gradients of the public terms, on `n` made-up rows, by parameter."""
        rows = take(self._made_up, torch.arange(n) % rows_of(self._made_up))
        with torch.enable_grad():
            return _gradients(self.model, self._total(rows))

    def _total(self, batch: Batch) -> Tensor:
        with parted() as terms:
            self.objective(self.model, batch, size=self.size)
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def _taint(self, made_up: Batch) -> str | None:
        expected = self._outcome(made_up)
        for other in _others(made_up):
            try:
                found = self._outcome(other)
            except (RuntimeError, ValueError, IndexError):
                continue  # no rows for this program
            for name, value in expected.items():
                if not torch.equal(value.nan_to_num(), found[name].nan_to_num()):
                    return "their value" if not name else f"their gradient of {name!r}"
        return None

    def _outcome(self, batch: Batch) -> dict[str, Tensor]:
        """Value and gradients, with noise that does not depend on what stands in the rows."""
        with seeded(1), LotDraws(rows_of(batch), {}):
            total = self._total(batch)
        return {"": total.detach(), **_gradients(self.model, total)}


def _others(rows: Batch) -> Iterator[Batch]:
    """Other rows of the same shapes."""
    yield Batch({name: x.roll(1, 0) for name, x in rows.items()})
    yield Batch({k: x if k.endswith(SEEN) else torch.zeros_like(x) for k, x in rows.items()})
    floating = {k: x for k, x in rows.items() if x.is_floating_point()}
    for value in (7.0, torch.nan):
        yield Batch(rows | {name: torch.full_like(x, value) for name, x in floating.items()})


def _reached(model: Model, loss: Tensor) -> list[str]:
    if not loss.requires_grad:
        return []
    return list(_gradients(model, loss))


def _gradients(model: Model, loss: Tensor) -> dict[str, Tensor]:
    """By parameter, of those that the loss reaches."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    wanted = list(parameters.values())
    found: Sequence[Tensor | None] = torch.autograd.grad(loss, wanted, allow_unused=True)
    return {k: g.detach() for k, g in zip(parameters, found, strict=True) if g is not None}
