"""The updates of Adam and of gradient descent as functions of tensors, to be part of a record.

They change torch's own state in place, so that an optimiser goes on from a recorded step as from
one of its own, and its checkpoints are the same.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

State = list[list[Tensor]]
"""For each parameter, the tensors that its update remembers."""


class AdamUpdate:
    """Kingma & Ba (2015), Algorithm 1; with AdamW the decay of Loshchilov & Hutter (2019), Alg. 2.

    Args:
        optimiser: of the parameters, all in one group; it has made a step.
    """

    sensitive = True  # where a gradient is rounding alone, so is the sign of a whole step

    def __init__(self, optimiser: Optimizer) -> None:
        (group,) = optimiser.param_groups
        self.betas, self.eps, self.decay = group["betas"], group["eps"], group["weight_decay"]
        self.decoupled = isinstance(optimiser, AdamW) or group.get("decoupled_weight_decay", False)

    def remembered(self, optimiser: Optimizer, parameters: Sequence[Tensor]) -> State:
        """The two moments of each parameter."""
        states = [optimiser.state[p] for p in parameters]
        return [[state["exp_avg"], state["exp_avg_sq"]] for state in states]

    def counters(self, optimiser: Optimizer, parameters: Sequence[Tensor]) -> list[Tensor]:
        """The counts of updates, one a parameter."""
        return [optimiser.state[p]["step"] for p in parameters]

    def __call__(
        self, p: Tensor, g: Tensor, state: Sequence[Tensor], rate: Tensor, t: Tensor
    ) -> list[Tensor]:
        """The parameter and its moments after update t."""
        (b1, b2), (m, v) = self.betas, state
        if self.decay and self.decoupled:
            p = p * (1 - rate * self.decay)
        elif self.decay:
            g = g + self.decay * p
        m = m + (1 - b1) * (g - m)
        v = b2 * v + (1 - b2) * g * g
        step = (rate / (1 - b1**t)).to(p.dtype)
        root = (1 - b2**t).sqrt().to(p.dtype)
        return [p - step * m / (v.sqrt() / root + self.eps), m, v]


class DescentUpdate:
    """Gradient descent, with momentum if asked for (Sutskever et al. 2013, eqs 1 to 4)."""

    sensitive = False

    def __init__(self, optimiser: Optimizer) -> None:
        (group,) = optimiser.param_groups
        self.momentum, self.damping = group["momentum"], group["dampening"]
        self.nesterov, self.decay = group["nesterov"], group["weight_decay"]

    def remembered(self, optimiser: Optimizer, parameters: Sequence[Tensor]) -> State:
        """The velocity of each parameter, if there is momentum."""
        if not self.momentum:
            return [[] for _ in parameters]
        return [[optimiser.state[p]["momentum_buffer"]] for p in parameters]

    def counters(self, optimiser: Optimizer, parameters: Sequence[Tensor]) -> list[Tensor]:
        """None: nothing depends on the count."""
        return []

    def __call__(
        self, p: Tensor, g: Tensor, state: Sequence[Tensor], rate: Tensor, t: Tensor
    ) -> list[Tensor]:
        """The parameter and its velocity."""
        if self.decay:
            g = g + self.decay * p
        if not self.momentum:
            return [p - rate.to(p.dtype) * g]
        velocity = self.momentum * state[0] + (1 - self.damping) * g
        g = g + self.momentum * velocity if self.nesterov else velocity
        return [p - rate.to(p.dtype) * g, velocity]


Update = AdamUpdate | DescentUpdate


def update_of(optimiser: Optimizer) -> Update | None:
    """The optimiser's update as a function of tensors; None where it is not known here."""
    if len(optimiser.param_groups) != 1 or any(map(optimiser.param_groups[0].get, _UNKNOWN)):
        return None
    if type(optimiser) in (Adam, AdamW):
        return AdamUpdate(optimiser)
    return DescentUpdate(optimiser) if type(optimiser) is SGD else None


_UNKNOWN = ("amsgrad", "maximize", "capturable", "differentiable")


def clipped(gradients: Sequence[Tensor], largest: float) -> list[Tensor]:
    """The gradients, shortened to a norm (Pascanu, Mikolov & Bengio 2013, Algorithm 1)."""
    norm = torch.stack([g.norm() for g in gradients]).norm()
    return [g * (largest / (norm + 1e-6)).clamp(max=1.0) for g in gradients]


def rate_of(optimiser: Optimizer) -> Any:
    """The step size now."""
    return optimiser.param_groups[0]["lr"]
