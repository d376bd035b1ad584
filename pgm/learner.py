"""One update of a model's parameters: objective, gradient, clipping, optimiser, averages.

The training loop knows only `update`, `averaged` and the state to save; private training supplies
another learner to the same loop.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pgm.batch import Batch
from pgm.model import Model
from pgm.objectives import Objective

Schedule = Callable[[Optimizer], LRScheduler] | str
"""'constant', 'cosine', or a maker of a torch scheduler."""
MakeOptimiser = Callable[..., Optimizer]


@runtime_checkable
class Learner(Protocol):
    """What the loop asks of an update rule."""

    def update(self, batch: Batch) -> float:
        """Changes the parameters once; returns the mean loss of the batch in nats."""

    def averaged(self) -> Model:
        """The model to evaluate and to keep: the averaged one if averages are kept."""

    def metrics(self) -> dict[str, float]:
        """Figures of the last update, by name."""

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact resumption needs besides the model's parameters."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the state up again."""


class GradientLearner:
    """Gradient descent on the mean of the rows' losses.

    Args:
        model: whose trainable parameters are updated, in place.
        objective: the loss by row.
        size: the number N of rows of the whole data.
        learning_rate: the optimiser's step size.
        optimiser: makes the optimiser from parameters and `lr=`.
        schedule: "constant", "cosine" (to zero over `steps`), or a maker of a torch scheduler.
        steps: updates in all, for the schedule.
        clip: the largest norm of the gradient; None for no clipping.
        ema: decay of the exponential moving average of the parameters; None for none.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        *,
        size: int,
        learning_rate: float,
        steps: int,
        optimiser: MakeOptimiser | None = None,
        schedule: Schedule = "constant",
        clip: float | None = None,
        ema: float | None = None,
    ) -> None:
        self.model, self.objective, self.size, self.clip = model, objective, size, clip
        self.parameters = trainable(model)
        self.optimiser = make_optimiser(self.parameters, learning_rate, optimiser)
        self.schedule = make_schedule(self.optimiser, schedule, steps)
        self.average = average(model, ema)

    def update(self, batch: Batch) -> float:
        """One step; returns the mean loss in nats.

        A loss that is not finite leaves the parameters as they were.
        """
        value = self.descend(batch)
        if value - value != 0.0:
            return value
        if self.schedule is not None:
            self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return value

    def descend(self, batch: Batch) -> float:
        """The step without what follows it: schedule and averages."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.objective(self.model, batch, size=self.size).mean()
        value = loss.item()
        if value - value != 0.0:
            return value
        loss.backward()
        self.follow()
        return value

    def follow(self) -> None:
        """Moves the parameters along the gradients that they hold."""
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimiser.step()

    def averaged(self) -> Model:
        """The averaged model, or the model itself."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def metrics(self) -> dict[str, float]:
        """The learning rate."""
        return {"learning_rate": float(self.optimiser.param_groups[0]["lr"])}

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, schedule and averages."""
        state: dict[str, Any] = {"optimiser": self.optimiser.state_dict()}
        if self.schedule is not None:
            state["schedule"] = self.schedule.state_dict()
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes optimiser, schedule and averages up again."""
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def trainable(model: Model) -> list[nn.Parameter]:
    """The parameters that training changes.

    Raises:
        ValueError: there are none.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(
            f"{type(model).__name__} has no trainable parameter, so there is nothing to fit: ask "
            "it questions right away, or hold what should be learned in layers or nn.Parameters."
        )
    return parameters


def make_optimiser(
    parameters: Iterable[Tensor], learning_rate: float, make: MakeOptimiser | None
) -> Optimizer:
    """Adam (fused: one kernel for all tensors) unless another one is asked for."""
    if make is not None:
        return make(parameters, lr=learning_rate)
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)


def average(model: Model, ema: float | None) -> AveragedModel | None:
    """torch's averaged copy of the model, with an exponential moving average."""
    if ema is None:
        return None
    if not 0 < ema < 1:
        raise ValueError(f"ema is {ema}; the decay of a moving average lies between 0 and 1.")
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema))


def make_schedule(optimiser: Optimizer, schedule: Schedule, steps: int) -> LRScheduler | None:
    """The torch scheduler that is meant; None for a constant rate."""
    if schedule == "constant":
        return None
    if schedule == "cosine":
        return CosineAnnealingLR(optimiser, T_max=steps)
    if isinstance(schedule, str):
        raise ValueError(
            f"There is no schedule {schedule!r}: use 'constant', 'cosine', or a function that "
            "makes a torch LRScheduler of an optimiser."
        )
    return schedule(optimiser)
