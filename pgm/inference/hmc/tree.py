"""One transition of the No-U-Turn Sampler: a trajectory doubled until it turns back.

    H(u, p) = -log pi(u) + p^T Sigma p / 2,   v = Sigma p,   rho = the sum of p over a stretch

A stretch of a trajectory from a to b turns where v_a . rho <= 0 or v_b . rho <= 0 (Betancourt 2017,
"A conceptual introduction to Hamiltonian Monte Carlo", app. A.4). Points are drawn by their weights
exp(-H), inside a half evenly and from the old half to the new one with a bias away from the start
(A.3); doubling is Hoffman & Gelman's (2014, Alg. 3). One chain's arithmetic is on few numbers, for
which numpy is quicker than torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pgm.inference.hmc.trajectory import MAX_ENERGY_ERROR

Vector = Float[np.ndarray, " d"]
Density = Callable[[Vector], tuple[float, Vector]]
"""From a point to its log density and the gradient."""


class Point(NamedTuple):
    """A point of a trajectory: position, log density, gradient, momentum, velocity and H."""

    u: Vector
    log_p: float
    gradient: Vector
    p: Vector
    v: Vector
    energy: float


class Stretch(NamedTuple):
    """A part of a trajectory: its ends by time, one of its points, and what joining takes.

    `log_weight` is that of all its points together; `rho` is the sum of their momenta.
    """

    left: Point
    right: Point
    sample: Point
    log_weight: float
    rho: Vector


class Scale(NamedTuple):
    """The metric in numpy: Sigma, and the matrix by which noise becomes a momentum.

    Both are vectors where the metric is diagonal.
    """

    covariance: Float[np.ndarray, "*d d"]
    root_inverse: Float[np.ndarray, "*d d"]

    def momentum(self, noise: Vector) -> Vector:
        """p ~ N(0, Sigma^-1), of standard normal noise."""
        a = self.root_inverse
        return a * noise if a.ndim == 1 else a @ noise

    def velocity(self, p: Vector) -> Vector:
        """Sigma p."""
        a = self.covariance
        return a * p if a.ndim == 1 else a @ p


@dataclass(frozen=True)
class Transition:
    """Where a transition went.

    Attributes:
        point: the draw.
        energy: H at the start.
        acceptance: the mean of min(1, exp(H_0 - H)) over the trajectory.
        steps: leapfrog steps.
        depth: doublings.
        diverging: whether H went astray.
        cut_short: whether it ended at the largest depth.
    """

    point: Point
    energy: float
    acceptance: float
    steps: int
    depth: int
    diverging: bool
    cut_short: bool


def transition(
    density: Density,
    u: Vector,
    log_p: float,
    gradient: Vector,
    scale: Scale,
    step_size: float,
    max_depth: int,
    generator: np.random.Generator,
) -> Transition:
    """The next draw after `u`, whose log density and gradient are known."""
    p = scale.momentum(generator.standard_normal(len(u)))
    v = scale.velocity(p)
    start = Point(u, log_p, gradient, p, v, 0.5 * float(p @ v) - log_p)
    grower = Grower(density, scale, step_size, start.energy, generator)
    whole, depth, turned = Stretch(start, start, start, 0.0, p), 0, False
    new: Stretch | None = None
    while depth < max_depth and not turned:
        forward = bool(generator.random() < 0.5)
        new = grower.grow(whole.right if forward else whole.left, depth, forward=forward)
        if new is None:
            break
        depth += 1
        moves = math.log(1 - generator.random()) < new.log_weight - whole.log_weight
        sample = new.sample if moves else whole.sample
        halves = (whole, new) if forward else (new, whole)
        turned = turns(*halves)
        whole = join(*halves, sample)
    return Transition(
        whole.sample,
        start.energy,
        grower.acceptance / grower.steps,
        grower.steps,
        depth if new is not None else depth + 1,
        grower.diverging,
        new is not None and not turned,
    )


class Grower:
    """Builds stretches of a trajectory, and counts what they cost."""

    def __init__(
        self,
        density: Density,
        scale: Scale,
        step_size: float,
        energy: float,
        generator: np.random.Generator,
    ) -> None:
        self.density, self.scale, self.step_size = density, scale, step_size
        self.energy, self.generator = energy, generator
        self.acceptance, self.steps, self.diverging = 0.0, 0, False

    def grow(self, end: Point, depth: int, *, forward: bool) -> Stretch | None:
        """The 2^depth points that follow `end`; None where they turn or diverge inside."""
        if depth == 0:
            return self._step(end, self.step_size if forward else -self.step_size)
        near = self.grow(end, depth - 1, forward=forward)
        if near is None:
            return None
        far = self.grow(near.right if forward else near.left, depth - 1, forward=forward)
        if far is None:
            return None
        halves = (near, far) if forward else (far, near)
        if turns(*halves):
            return None
        odds = far.log_weight - np.logaddexp(near.log_weight, far.log_weight)
        moves = math.log(1 - self.generator.random()) < odds
        return join(*halves, far.sample if moves else near.sample)

    def _step(self, start: Point, step_size: float) -> Stretch | None:
        """One leapfrog step."""
        half = start.p + 0.5 * step_size * start.gradient
        u = start.u + step_size * self.scale.velocity(half)
        log_p, gradient = self.density(u)
        p = half + 0.5 * step_size * gradient
        v = self.scale.velocity(p)
        energy = 0.5 * float(p @ v) - log_p
        error = energy - self.energy
        self.steps += 1
        if not -math.inf < error <= MAX_ENERGY_ERROR:  # NaN too
            self.diverging = True
            return None
        self.acceptance += math.exp(min(0.0, -error))
        point = Point(u, log_p, gradient, p, v, energy)
        return Stretch(point, point, point, -error, p)


def join(left: Stretch, right: Stretch, sample: Point) -> Stretch:
    """Two neighbours as one stretch."""
    log_weight = float(np.logaddexp(left.log_weight, right.log_weight))
    return Stretch(left.left, right.right, sample, log_weight, left.rho + right.rho)


def turns(left: Stretch, right: Stretch) -> bool:
    """Whether two neighbours turn back when they are joined, or where they meet.

    The seam is looked at too, as Stan does: a half whose momenta cancel would hide a turn.
    """
    return (
        _turns(left.left, right.right, left.rho + right.rho)
        or _turns(left.left, right.left, left.rho + right.left.p)
        or _turns(left.right, right.right, right.rho + left.right.p)
    )


def _turns(a: Point, b: Point, rho: Vector) -> bool:
    return not (a.v @ rho > 0 and b.v @ rho > 0)
