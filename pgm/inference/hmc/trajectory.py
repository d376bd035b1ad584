"""Leapfrog trajectories of many chains at once, and the Metropolis step at their ends.

    H(u, p) = -log pi(u) + p^T Sigma p / 2,   du/dt = Sigma p,   dp/dt = grad log pi(u)

with Sigma the metric, an inverse mass (Neal 2011, sec. 5.4).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pgm.inference.hmc.metric import Metric

Density = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From points (chains, d) to their log densities and gradients."""

MAX_ENERGY_ERROR = 1000.0
"""A trajectory that errs by more nats has diverged (as in Stan)."""


@dataclass(frozen=True, eq=False)
class State:
    """Where the chains are.

    Attributes:
        u: their points.
        log_p: the log density there, in nats.
        gradient: its gradient.
    """

    u: Float[Tensor, "chains d"]
    log_p: Float[Tensor, " chains"]
    gradient: Float[Tensor, "chains d"]


@dataclass(frozen=True, eq=False)
class Move:
    """One transition of all chains.

    Attributes:
        state: where they are afterwards.
        proposal: the ends of the trajectories.
        velocity: there, in the coordinates of the metric.
        acceptance: the probability of going there.
        energy: H at the start of the trajectory.
        diverging: whether H went astray on the way.
    """

    state: State
    proposal: State
    velocity: Float[Tensor, "chains d"]
    acceptance: Float[Tensor, " chains"]
    energy: Float[Tensor, " chains"]
    diverging: Bool[Tensor, " chains"]


def evaluate(density: Density, u: Float[Tensor, "chains d"]) -> State:
    """The state at points."""
    return State(u, *density(u))


def leapfrog(
    density: Density,
    state: State,
    p: Float[Tensor, "chains d"],
    metric: Metric,
    step_size: float,
    steps: int,
) -> tuple[State, Tensor]:
    """The end of a trajectory of so many steps, and the momentum there."""
    u, log_p, gradient = state.u, state.log_p, state.gradient
    drift = metric.drift(step_size)
    p = p.add(gradient, alpha=0.5 * step_size)
    for i in range(steps):
        u = u.addcmul(drift, p) if drift.dim() == 1 else u.addmm(p, drift)
        log_p, gradient = density(u)
        p = p.add(gradient, alpha=0.5 * step_size if i == steps - 1 else step_size)
    return State(u, log_p, gradient), p


def move(
    density: Density,
    state: State,
    metric: Metric,
    step_size: float,
    steps: int,
    generator: torch.Generator,
) -> Move:
    """Draws momenta, follows the trajectories, and accepts their ends or stays."""
    noise = torch.randn(state.u.shape, generator=generator, dtype=state.u.dtype)
    energy = 0.5 * noise.square().sum(1) - state.log_p
    proposal, p = leapfrog(density, state, metric.momentum(noise), metric, step_size, steps)
    velocity = metric.velocity(p)
    error = 0.5 * velocity.square().sum(1) - proposal.log_p - energy
    error = torch.where(error.isfinite(), error, torch.inf)
    acceptance = error.neg().clamp(max=0.0).exp()
    uniform = torch.rand(acceptance.shape, generator=generator, dtype=acceptance.dtype)
    return Move(
        choose(uniform < acceptance, proposal, state),
        proposal,
        velocity,
        acceptance,
        energy,
        error > MAX_ENERGY_ERROR,
    )


def choose(where: Bool[Tensor, " chains"], one: State, other: State) -> State:
    """`one` for the chains marked in `where`, `other` for the rest."""
    wide = where.unsqueeze(1)
    return State(
        torch.where(wide, one.u, other.u),
        torch.where(where, one.log_p, other.log_p),
        torch.where(wide, one.gradient, other.gradient),
    )
