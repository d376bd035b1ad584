"""What the chains learn together while they warm up: step size and trajectory length.

step size           dual averaging of log eps towards a mean acceptance (Nesterov 2009; Hoffman
                    & Gelman 2014, sec. 3.2), the harmonic mean over the chains
trajectory length   stochastic ascent of ChEES, the expected change of the squared distance
                    from the mean, E[(|x' - E x'|^2 - |x - E x|^2)^2] / 4, in log T by Adam
                    (Hoffman, Radul & Sountsov 2021, sec. 3 and Alg. 1)
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.inference.hmc.metric import Metric
from pgm.inference.hmc.trajectory import Density, Move, State, move


class StepSize:
    """Dual averaging of the step size.

    Args:
        value: the first step size.
        target: the acceptance that it is tuned to.
    """

    def __init__(self, value: float, target: float) -> None:
        self.target = target
        self.restart(value)

    def restart(self, value: float) -> None:
        """Forgets what acceptances were, and goes on from `value`."""
        self.log_value, self._centre = math.log(value), math.log(2 * value)
        self._mean, self._error, self._count = math.log(value), 0.0, 0

    @property
    def value(self) -> float:
        """To be used now."""
        return math.exp(self.log_value)

    @property
    def mean(self) -> float:
        """The average over the iterations, to be used after them."""
        return math.exp(self._mean)

    def update(self, acceptance: float) -> None:
        """Learns from the mean acceptance of one transition."""
        self._count += 1
        n, gamma, delay, kappa = self._count, 0.05, 10, 0.75
        self._error += (self.target - acceptance - self._error) / (n + delay)
        self.log_value = self._centre - math.sqrt(n) / gamma * self._error
        weight = n**-kappa
        self._mean = weight * self.log_value + (1 - weight) * self._mean


class TrajectoryLength:
    """The integration time T, in units of the scaled coordinates.

    Args:
        value: the first.
        rate: of Adam, in log T.
    """

    def __init__(self, value: float, *, rate: float = 0.05) -> None:
        self._log_value = self._mean = math.log(value)
        self._rate, self._square, self._count = rate, 0.0, 0

    @property
    def value(self) -> float:
        """To be used now."""
        return math.exp(self._log_value)

    @property
    def mean(self) -> float:
        """The average over the iterations, the late ones above all."""
        return math.exp(self._mean)

    def update(
        self, before: State, after: Move, metric: Metric, time: float, largest: float
    ) -> None:
        """Learns from a transition whose trajectories took `time`, a fraction of T.

        Hoffman et al. (2021), eq. 12: the gradient is weighted by the acceptance, and the mean over
        the chains stands for the expectation.
        """
        x, end = metric.whiten(before.u), metric.whiten(after.proposal.u)
        weight = after.acceptance / after.acceptance.sum().clamp(min=1e-300)
        end = torch.where(after.acceptance.unsqueeze(1) > 0, end, 0.0)
        x, end = x - x.mean(0), end - weight @ end
        change = end.square().sum(1) - x.square().sum(1)
        slope = time * change * (end * after.velocity.nan_to_num()).sum(1)
        gradient = float(weight @ slope.nan_to_num(0.0, 0.0, 0.0))
        self._count += 1
        self._square = 0.95 * self._square + 0.05 * gradient**2
        size = math.sqrt(self._square / (1 - 0.95**self._count))
        if size > 0:
            self._log_value += self._rate * gradient / size
        self._log_value = min(self._log_value, math.log(largest))
        weight_of_now = self._count**-0.5
        self._mean += weight_of_now * (self._log_value - self._mean)


def harmonic_mean(acceptance: Float[Tensor, " chains"]) -> float:
    """Close to the smallest: one chain that is stuck counts (Hoffman et al. 2021, sec. 4)."""
    return float(1 / acceptance.clamp(min=1e-10).reciprocal().mean())


def first_step_size(density: Density, state: State, metric: Metric) -> float:
    """A step whose single leapfrog is accepted half the time (Hoffman & Gelman 2014, Alg. 4)."""
    step = 1.0
    generator = torch.Generator().manual_seed(0)
    up: bool | None = None
    for _ in range(60):
        accepted = float(move(density, state, metric, step, 1, generator).acceptance.mean()) > 0.5
        if up is None:
            up = accepted
        if accepted != up:
            break
        step *= 2.0 if up else 0.5
    return step


def halton(i: int, base: int = 2) -> float:
    """The i-th number of the van der Corput sequence, i = 1, 2, ...: 1/2, 1/4, 3/4, 1/8, ...

    Example:
        >>> [halton(i) for i in (1, 2, 3, 4)]
        [0.5, 0.25, 0.75, 0.125]
    """
    value, part = 0.0, 1.0
    while i:
        part /= base
        i, digit = divmod(i, base)
        value += part * digit
    return value
