"""The record of a training run: steps, the losses, and how it prints and plots."""

from dataclasses import dataclass, field
from typing import Any

from pgm.model import Model


@dataclass(frozen=True)
class Step:
    """What one update did.

    Attributes:
        step: updates so far, from 1.
        epoch: passes over the data so far, from 0.
        loss: mean loss of the minibatch, in nats a row, before the update.
        validation: mean loss of the held-out rows, in nats a row, where it was computed.
        metrics: figures of the update rule, such as the learning rate or the epsilon spent.
    """

    step: int
    epoch: int
    loss: float
    validation: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """The record of a training run; the model it trained is changed in place.

    Attributes:
        model: the trained model.
        steps: every update, in order.
        seconds: how long it took.
        best: the step whose weights were kept (the last one without held-out rows).
        how: what was said of compiled steps; empty where none were asked for.
    """

    model: Model
    steps: tuple[Step, ...]
    seconds: float
    best: int
    how: str = field(default="", kw_only=True)

    @property
    def loss(self) -> float:
        """Mean loss over the last tenth of the updates, in nats a row."""
        tail = self.steps[-max(1, len(self.steps) // 10) :]
        return sum(step.loss for step in tail) / len(tail)

    @property
    def validation(self) -> float | None:
        """The lowest held-out loss, in nats a row."""
        held = [step.validation for step in self.steps if step.validation is not None]
        return min(held, default=None)

    def __str__(self) -> str:
        held = "" if self.validation is None else f", held out {self.validation:.3f}"
        return (
            f"{type(self.model).__name__}: {len(self.steps)} steps in {self.seconds:.1f} s, "
            f"loss {self.loss:.3f}{held} nats a row, weights of step {self.best}"
            + (f", {self.how}" if self.how else "")
        )

    def plot(self, ax: Any = None) -> Any:
        """Draws the loss by step; returns the matplotlib axes."""
        import matplotlib.pyplot as plt

        ax = ax or plt.subplots()[1]
        ax.plot([s.step for s in self.steps], [s.loss for s in self.steps], lw=0.8, label="loss")
        held = [(s.step, s.validation) for s in self.steps if s.validation is not None]
        if held:
            ax.plot(*zip(*held, strict=True), label="held out")
        ax.set(xlabel="step", ylabel="nats a row")
        ax.legend(frameon=False)
        return ax
