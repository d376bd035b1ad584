"""The state of ChEES-HMC, its warm-up, and its draws.

One number of leapfrog steps serves all chains, so that they move as one batch: the trajectory of
iteration i takes the time h_i T, h the Halton sequence (Hoffman, Radul & Sountsov 2021, Alg. 1).
"""

import math
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import torch

from pgm.inference.hmc.adaptation import (
    StepSize,
    TrajectoryLength,
    first_step_size,
    halton,
    harmonic_mean,
)
from pgm.inference.hmc.metric import Metric, estimate
from pgm.inference.hmc.trajectory import Density, Move, State, move

FIRST_TIME = 1.5
"""A trajectory length to begin with: a quarter of the period of a standard normal."""


@dataclass(frozen=True, eq=False)
class Draw:
    """What one transition of all chains gave.

    Attributes:
        move: the transition.
        steps: its leapfrog steps.
    """

    move: Move
    steps: int


class Sampler:
    """Chains that move together.

    Args:
        density: of all chains at once.
        state: where they start.
        metric: by which steps are scaled.
        generator: of velocities and acceptances.
        target_accept: the harmonic mean of the acceptances that the step size is tuned to.
        max_steps: leapfrog steps of a trajectory, at most.
        dense: whether the metric has correlations; None where there are draws enough for them.

    Attributes:
        state: where they are.
        metric: by which steps are scaled.
        step_size: in scaled coordinates.
        time: the longest trajectory T, in scaled coordinates.
        iteration: transitions so far.
    """

    def __init__(
        self,
        density: Density,
        state: State,
        metric: Metric,
        *,
        generator: torch.Generator,
        target_accept: float,
        max_steps: int,
        dense: bool | None,
    ) -> None:
        self.density, self.state, self.metric = density, state, metric
        self.generator, self.max_steps = generator, max_steps
        self.target_accept, self.dense = target_accept, dense
        self.step_size = first_step_size(density, state, metric)
        self.time = FIRST_TIME
        self.iteration = 0

    def copy(self) -> "Sampler":
        """The same chains at the same place, which move on by themselves."""
        other = copy(self)
        other.generator = torch.Generator()
        other.generator.set_state(self.generator.get_state())
        return other

    def warm_up(self, iterations: int) -> Iterator[Draw]:
        """Adapts for so many iterations; step size and T are then their averages.

        Scales are renewed at the ends of windows that double in length; the last quarter leaves
        them alone, and tunes step size and T to them.
        """
        step_size = StepSize(self.step_size, self.target_accept)
        length, seen = TrajectoryLength(self.time), list[State]()
        renewals = windows(iterations)
        for i in range(iterations):
            self.step_size, self.time = step_size.value, length.value
            before = self.state
            draw = self.step()
            acceptance = draw.move.acceptance
            step_size.update(harmonic_mean(acceptance))
            taken = draw.steps * self.step_size
            longest = self.step_size * self.max_steps
            length.update(before, draw.move, self.metric, taken, longest)
            seen.append(self.state)
            if i + 1 in renewals:
                u, gradient = (torch.cat([getattr(s, k) for s in seen]) for k in ("u", "gradient"))
                self.metric, seen = estimate(u, gradient, dense=self.dense), []
                step_size.restart(first_step_size(self.density, self.state, self.metric))
            yield draw
        self.step_size, self.time = step_size.mean, length.mean

    def step(self) -> Draw:
        """One transition of all chains."""
        self.iteration += 1
        time = halton(self.iteration) * self.time
        steps = max(1, min(math.ceil(time / self.step_size), self.max_steps))
        moved = move(self.density, self.state, self.metric, self.step_size, steps, self.generator)
        self.state = moved.state
        return Draw(moved, steps)


def windows(iterations: int) -> list[int]:
    """The iterations of a warm-up after which the scales are renewed.

    Example:
        >>> windows(200)
        [20, 40, 150]
    """
    last = round(0.75 * iterations)
    ends, end = [], max(10, iterations // 10)
    while 2 * end <= last:
        ends.append(end)
        end *= 2
    return [*ends[:-1], ends[-1], last] if ends else [last]
