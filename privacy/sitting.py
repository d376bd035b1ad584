"""A private run that is driven from outside, lot by lot, and the module by which it is.

The run is a `privacy.PrivateTraining`; whoever drives it draws a lot, has the module look at the
rows, calls `backward()` on what it gives, and makes the step. Each of these is held against the lot
that was drawn, which a step takes as a whole, once, or not at all.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pgm.batch import Batch, rows_of
from pgm.model import Model
from pgm.objectives import objective
from pgm.verb import prepare
from privacy.batches import HandedLots, PoissonLots
from privacy.fit import PrivateTraining
from privacy.report import PrivacyReport


class Sitting:
    """A private run that is driven from outside: lot, losses, backward pass, step.

    Args:
        run: the run.
        mean: whether the loop takes the mean of the losses; else their sum.

    Attributes:
        fresh: whether the lot was drawn in the loop that goes on.
    """

    def __init__(self, run: PrivateTraining, *, mean: bool) -> None:
        assert isinstance(run.source, PoissonLots)
        self.run, self.mean = run, mean
        self.lots = run.source = HandedLots(run.source)
        self.steps: Iterator[Any] = iter(run)
        self.seen, self.asked, self.largest, self.again = 0, False, 0, False

    @staticmethod
    def all_rows(model: Model, loader: DataLoader[Any]) -> Batch:
        """The whole data set as a batch."""
        dataset: Any = loader.dataset
        return prepare(model, unpack(loader.collate_fn([dataset[i] for i in range(len(dataset))])))

    def draw(self) -> list[int]:
        """The rows of the next lot; in a new loop, first those of the lot that still waits.

        Raises:
            ValueError: no step was made on the last one, or all steps are made.
        """
        if self.again and self.lots.index is not None:
            self.again = False
            return [int(i) for i in self.lots.index]
        self.lots.refuse_skipping()
        if self.run.step >= self.run.total:
            raise ValueError(
                f"All {self.run.total} steps are made for which the noise was calibrated; another "
                "would exceed target_epsilon. Plan more epochs beforehand."
            )
        self.seen, self.asked, self.again = 0, False, False
        self.lots.draw()
        assert self.lots.index is not None
        return [int(i) for i in self.lots.index]

    def begin(self) -> None:
        """A new loop begins: no lot is left out, so the one that waits is shown again, whole."""
        self.seen, self.asked, self.again = 0, False, True

    def losses(self, batch: Batch) -> Tensor:
        """One number a row, whose backward pass says that the step on these rows is wanted.

        They are NaN, as the losses of the rows are covered by no epsilon.

        Raises:
            ValueError: the rows are not those of the lot that waits.
        """
        n, start = rows_of(batch), self.seen
        waits = {k: v[start : start + n] for k, v in self.lots.waiting.items()}
        if not waits or not _equal(waits, batch):
            raise ValueError(
                "The rows are not those of the lot that was drawn, as they came from the loader. "
                "Other rows, or rows that were changed on the way, are not what is accounted: pass "
                "on what the loader gives, once, and put transformations into the model. For "
                "losses of other rows call module.eval() first."
            )
        found = torch.full((n,), torch.nan, requires_grad=True)
        found.register_hook(lambda g: self._wanted(g, start))
        return found

    def _wanted(self, g: Tensor, start: int) -> None:
        n = len(g)
        expected = torch.full_like(g, 1 / max(n, 1) if self.mean else 1.0)
        if not torch.allclose(g, expected):
            raise ValueError(
                f"The {'mean' if self.mean else 'sum'} of the losses was announced as "
                "loss_reduction=, and another function of them is differentiated. Rows with "
                "weights of their own belong into the objective, which is clipped."
            )
        if start != self.seen:
            raise ValueError(
                "backward() came twice for the same rows: they would count twice, and the noise "
                "covers one. Call it once a lot, and average over draws with multiplicity=."
            )
        self.seen, self.asked, self.largest = start + n, True, max(self.largest, n)

    def step(self) -> None:
        """The noisy step on the lot that waits.

        Raises:
            ValueError: part of it was not shown.
        """
        index = self.lots.index
        if index is None or not self.asked or self.seen != len(index):
            raise ValueError(
                "step() came before the losses of the whole lot were differentiated: loop over the "
                "loader, and for every lot call module(...), backward() and step(), each once."
            )
        if self.largest < len(index) or self.run.by_row.physical:
            self.run.by_row.physical = max(1, self.largest)
        next(self.steps)
        if self.run.step >= self.run.total:
            next(self.steps, None)  # the run ends: averages taken, note written


class PrivateModule(Model):
    """The model as a private loop sees it.

    Args:
        model: the model, trained in place.
        sitting: the run behind it.
    """

    def __init__(self, model: Model, sitting: Sitting) -> None:
        super().__init__()
        self._module = model
        self._sitting = sitting

    def __getattr__(self, name: str) -> Any:
        """What it does not have itself is the model's, as with Opacus' modules."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "_module":
                raise
            return getattr(self._module, name)

    def forward(self, batch: Any) -> Tensor:
        """The losses by row, shape (n,): NaN, with a backward pass; in evaluation mode numbers."""
        run = self._sitting.run
        rows = prepare(self._module, unpack(batch))
        if self.training and torch.is_grad_enabled():
            return self._sitting.losses(rows)
        with torch.no_grad():
            return run.objective(self._module, rows, size=run.source.size)

    def model(self, n: int) -> None:
        """Has none of its own."""
        raise TypeError(
            "This is the module of a private training loop. Its model is trained in place: ask the "
            "model itself (module._module) whatever you want to know."
        )

    @property
    def report(self) -> PrivacyReport:
        """The terms of the steps made so far."""
        return self._sitting.run.report

    def reveal(self) -> tuple[float, ...]:
        """The mean loss of every lot in nats a row, not covered by epsilon; the report says so."""
        return self._sitting.run.hidden.reveal()


@objective.register(PrivateModule)
def _losses(model: PrivateModule, batch: Batch, *, size: int | None = None) -> Tensor:
    declared = model._sitting.run.source.size
    if size not in (None, declared):
        raise ValueError(
            f"size is {size}, and {declared} rows are declared: a row's share of the shared terms "
            "follows from those. Leave size= out, or declare rows=."
        )
    found: Tensor = model(batch)
    return found


def unpack(item: Any) -> Any:
    """A collated item as data: a tensor or mapping as it is, of one alone the tensor.

    Raises:
        TypeError: several tensors without names.
    """
    if isinstance(item, Tensor | Mapping):
        return item
    if isinstance(item, tuple | list) and len(item) == 1:
        return item[0]
    raise TypeError(
        "The items of the data set are tuples, and which part is which site cannot be guessed. Let "
        'the data set give dicts, such as {"x": image, "label": label}.'
    )


def _equal(waits: Mapping[str, Tensor], came: Batch) -> bool:
    return waits.keys() == came.keys() and all(
        v.shape == came[k].shape
        and torch.equal(torch.nan_to_num(v), torch.nan_to_num(came[k].to(v)))
        for k, v in waits.items()
    )
