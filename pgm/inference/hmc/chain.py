"""One chain of the No-U-Turn Sampler: where it is, what it learned, and its next draw.

Windows that double in length renew the metric, and dual averaging tunes the step size (Hoffman &
Gelman 2014, Alg. 6; Stan's reference manual, "HMC algorithm parameters").
"""

from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pgm.inference.hmc.adaptation import StepSize, first_step_size
from pgm.inference.hmc.metric import Metric, estimate
from pgm.inference.hmc.sampler import windows
from pgm.inference.hmc.trajectory import Density, evaluate
from pgm.inference.hmc.tree import Scale, Transition, Vector, transition

_FEWEST = 10
"""Draws whose variances are worth a metric."""


@dataclass(frozen=True)
class Options:
    """What a chain is asked for.

    Attributes:
        target_accept: the acceptance that the step size is tuned to.
        max_tree_depth: doublings of a trajectory, at most.
        dense: whether the metric has correlations.
    """

    target_accept: float = 0.8
    max_tree_depth: int = 10
    dense: bool = False


class Chain:
    """A chain.

    Args:
        density: of points, of which one comes at a time, and its gradient.
        u: where it starts.
        generator: of momenta, directions and choices.
        options: what it is asked for.

    Attributes:
        u: where it is.
        log_p: the log density there, in nats.
        gradient: its gradient.
        metric: by which steps are scaled.
        step_size: in scaled coordinates.
    """

    def __init__(
        self, density: Density, u: Tensor, generator: np.random.Generator, options: Options
    ) -> None:
        self.density, self.generator, self.options = density, generator, options
        self.u = u.numpy()
        self.log_p, self.gradient = self._at(self.u)
        self._rescale(Metric(torch.ones_like(u)))
        self.step_size = self._first_step_size()

    def copy(self) -> "Chain":
        """The same chain at the same place, which moves on by itself."""
        other = copy(self)
        other.generator = deepcopy(self.generator)
        return other

    def warm_up(self, iterations: int) -> Iterator[Transition]:
        """Adapts step size and metric for so many transitions."""
        step_size, renewals = (
            StepSize(self.step_size, self.options.target_accept),
            windows(iterations),
        )
        seen: list[tuple[Vector, Vector]] = []
        for i in range(iterations):
            self.step_size = step_size.value
            made = self.step()
            step_size.update(made.acceptance)
            seen.append((self.u, self.gradient))
            if i + 1 in renewals and len(seen) >= _FEWEST:
                u, gradient = (torch.from_numpy(np.stack(part)) for part in zip(*seen, strict=True))
                self._rescale(estimate(u, gradient, dense=self.options.dense))
                step_size.restart(self._first_step_size())
                seen = []
            yield made
        self.step_size = step_size.mean

    def step(self) -> Transition:
        """One transition."""
        made = transition(
            self._at,
            self.u,
            self.log_p,
            self.gradient,
            self._scale,
            self.step_size,
            self.options.max_tree_depth,
            self.generator,
        )
        self.u, self.log_p, self.gradient = made.point.u, made.point.log_p, made.point.gradient
        return made

    def _at(self, u: Vector) -> tuple[float, Vector]:
        log_p, gradient = self.density(torch.from_numpy(u)[None])
        return log_p.item(), gradient[0].numpy()

    def _rescale(self, metric: Metric) -> None:
        self.metric = metric
        if metric.covariance is None or metric.root_inverse is None:
            scale = metric.scale.numpy()
            self._scale = Scale(scale**2, 1 / scale)
        else:
            self._scale = Scale(metric.covariance.numpy(), metric.root_inverse.numpy())

    def _first_step_size(self) -> float:
        state = evaluate(self.density, torch.from_numpy(self.u)[None])
        return first_step_size(self.density, state, self.metric)
