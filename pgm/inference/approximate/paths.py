"""Pathfinder: normals along the paths of a quasi-Newton climb, the best of each by its ELBO.

Many paths climb log p by L-BFGS at once; at each point of a path, the inverse Hessian that L-BFGS
keeps gives a normal, and the one with the greatest evidence lower bound is the path's (Zhang,
Carpenter, Gelman & Vehtari 2022, Alg. 1 and 2).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.inference.approximate.lowrank import InverseHessian, LowRankNormal
from pgm.inference.hmc.trajectory import Density, State, choose, evaluate

MEMORY = 6
_ARMIJO = 1e-4


@dataclass(frozen=True, eq=False)
class Paths:
    """The outcome of the climbs.

    Attributes:
        normal: the best normal of each path.
        elbo: its evidence lower bound, in nats.
        top: the last point of each path.
        u: draws from the normals.
        log_p: the log density at the draws.
        gradient: its gradient there.
    """

    normal: LowRankNormal
    elbo: Float[Tensor, " paths"]
    top: State
    u: Float[Tensor, "draws paths d"]
    log_p: Float[Tensor, "draws paths"]
    gradient: Float[Tensor, "draws paths d"]

    def log_weight(self) -> Float[Tensor, "draws paths"]:
        """log p - log q of every draw, q the mixture of all paths' normals (Owen 2013, sec. 9.11).

        A path that found a lesser mode is weighed down by it, and two paths that found the same
        normal do not count twice.
        """
        return self.log_p - self.normal.mixture_log_prob(self.u.flatten(0, 1)).view_as(self.log_p)


def find_paths(
    density: Density,
    u: Float[Tensor, "paths d"],
    *,
    draws: int,
    generator: torch.Generator,
    steps: int = 200,
    trials: int = 4,
) -> Paths:
    """Climbs from the points `u` and keeps the best normal of each path.

    Args:
        density: the log density of as many points as there are paths, and its gradient.
        u: where the paths start; their densities are finite.
        draws: from each of the best normals.
        generator: of the draws.
        steps: of a climb, at most.
        trials: draws that estimate the ELBO of one normal.
    """
    best, elbo, top = None, torch.full((len(u),), -torch.inf, dtype=u.dtype), None
    for state, hessian in climb(density, u, steps=steps):
        normal, top = hessian.normal(state.u, state.gradient), state
        drawn = normal.draw(trials, generator)
        values = torch.stack([density(points.nan_to_num())[0] for points in drawn])
        bound = (values - normal.log_prob(drawn)).mean(0)
        bound = bound.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        better = bound > elbo
        best = normal if best is None else normal.where(better, best)
        elbo = torch.where(better, bound, elbo)
    assert best is not None and top is not None
    best = _sound(best, elbo, top)
    u = best.draw(draws, generator)
    found = [density(points) for points in u]
    log_p, gradient = (torch.stack(parts) for parts in zip(*found, strict=True))
    return Paths(best, elbo, top, u, log_p.nan_to_num(-torch.inf, -torch.inf, -torch.inf), gradient)


def _sound(normal: LowRankNormal, elbo: Tensor, top: State) -> LowRankNormal:
    """A path without one usable normal gets a narrow one at its end."""
    d, r = normal.basis.shape[1:]
    eye = torch.eye(d, r, dtype=top.u.dtype).expand_as(normal.basis)
    square = torch.eye(r, dtype=top.u.dtype).expand_as(normal.factor)
    narrow = LowRankNormal(top.u, torch.full_like(top.u, 1e-4), eye, square)
    return normal.where(elbo.isfinite(), narrow)


def climb(
    density: Density, u: Float[Tensor, "paths d"], *, steps: int, tolerance: float = 1e-3
) -> Iterator[tuple[State, InverseHessian]]:
    """L-BFGS with backtracking along all paths at once; ends where none gains `tolerance` nats."""
    state = evaluate(density, u)
    hessian = InverseHessian.start(len(u), u.shape[1], MEMORY)
    direction = state.gradient / state.gradient.norm(dim=1, keepdim=True).clamp(min=1.0)
    yield state, hessian
    for _ in range(steps):
        before, state = state, _search(density, state, direction)
        gain = state.log_p - before.log_p
        hessian = hessian.update(state.u - before.u, before.gradient - state.gradient)
        direction = hessian.times(state.gradient)
        uphill = (direction * state.gradient).sum(1, keepdim=True) > 0
        plain = state.gradient / state.gradient.norm(dim=1, keepdim=True).clamp(min=1.0)
        direction = torch.where(uphill & direction.isfinite(), direction, plain)
        yield state, hessian
        if bool((gain <= tolerance).all()):
            return


def _search(density: Density, state: State, direction: Tensor) -> State:
    """Halves the moves until each gains enough (Armijo); a path that finds none stays."""
    slope = (direction * state.gradient).sum(1)
    size = torch.ones_like(slope)
    found, done = state, torch.zeros_like(slope, dtype=torch.bool)
    for _ in range(30):
        trial = evaluate(
            density, torch.where(done[:, None], found.u, state.u + size[:, None] * direction)
        )
        gains = trial.log_p >= state.log_p + _ARMIJO * size * slope
        good = gains & trial.log_p.isfinite() & trial.gradient.isfinite().all(1)
        found = choose(good & ~done, trial, found)
        done = done | good
        if bool(done.all()):
            break
        size = torch.where(done, size, 0.5 * size)
    return found
