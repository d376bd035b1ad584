"""Leapfrog trajectories of many chains at once, and the Metropolis step at their ends.

    H(u, v) = -log p(u) + |v|^2 / 2,   du/dt = s v,   dv/dt = s grad log p(u)

with a scale s for each coordinate, which is a diagonal mass 1 / s^2 (Neal 2011, sec. 5.4.2).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

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
        velocity: there.
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
    density: Density, state: State, v: Tensor, step: Float[Tensor, " d"], steps: int
) -> tuple[State, Tensor]:
    """The end of a trajectory of so many steps, of size `step` in each coordinate (step size s)."""
    u, log_p, gradient = state.u, state.log_p, state.gradient
    v = torch.addcmul(v, step, gradient, value=0.5)
    for i in range(steps):
        u = torch.addcmul(u, step, v)
        log_p, gradient = density(u)
        v = torch.addcmul(v, step, gradient, value=0.5 if i == steps - 1 else 1.0)
    return State(u, log_p, gradient), v


def move(
    density: Density,
    state: State,
    step: Float[Tensor, " d"],
    steps: int,
    generator: torch.Generator,
) -> Move:
    """Draws velocities, follows the trajectories and accepts their ends or stays."""
    v = torch.randn(state.u.shape, generator=generator, dtype=state.u.dtype)
    energy = 0.5 * v.square().sum(1) - state.log_p
    proposal, velocity = leapfrog(density, state, v, step, steps)
    error = 0.5 * velocity.square().sum(1) - proposal.log_p - energy
    error = torch.where(error.isfinite(), error, torch.inf)
    acceptance = error.neg().clamp(max=0.0).exp()
    uniform = torch.rand(acceptance.shape, generator=generator, dtype=acceptance.dtype)
    accepted = uniform < acceptance
    return Move(
        choose(accepted, proposal, state),
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
