"""Sequential Monte Carlo from an approximation to the posterior, and the evidence on the way.

    pi_t(u) ~ q(u)^(1 - t) p(u, x)^t,   t = 0 ... 1,   log p(x) = sum over steps of log mean w

with q the mixture of Pathfinder's normals, so that improper priors are no obstacle. Particles are
weighed from one temperature to the next, which is chosen so that the effective number of them
falls to half (Del Moral, Doucet & Jasra 2006; Jasra et al. 2011), chosen anew by systematic
resampling, and moved by Hamiltonian trajectories (Neal 2001 is the same without resampling).
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.inference.approximate.lowrank import LowRankNormal
from pgm.inference.approximate.paths import find_paths
from pgm.inference.constrain import constrain
from pgm.inference.hmc.metric import estimate
from pgm.inference.hmc.trajectory import State, evaluate, move
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.progress import warn
from pgm.inference.runs import read
from pgm.inference.starts import uniform
from pgm.inference.traced import Density
from pgm.inference.unconstrained import log_joint
from pgm.model import Model
from pgm.randomness import fresh_seed, seeded
from pgm.tracing import Backend

_KEPT = 0.5
"""Share of effective particles at which the next temperature is set."""
_MOST = 200
"""Temperatures, at most."""
_TARGET = 0.8
"""Acceptance that the step size is led to."""


@dataclass(frozen=True, eq=False)
class Tempered:
    """A posterior with its evidence.

    Attributes:
        posterior: the particles at the end, with equal weights, in one chain.
        log_evidence: log p(x), in nats.
        temperatures: those that were gone through.
    """

    posterior: Posterior
    log_evidence: float
    temperatures: tuple[float, ...]

    def __str__(self) -> str:
        return (
            f"log evidence {self.log_evidence:.3f} nats over {len(self.temperatures)} "
            f"temperatures\n{self.posterior}"
        )


def tempering(
    model: Model,
    data: Any,
    *,
    particles: int = 512,
    moves: int = 5,
    seed: int | None = None,
    backend: Backend | None = None,
) -> Tempered:
    """Particles from the posterior of all latents, and log p(x).

    The standard error of the evidence is that of runs with other seeds.

    Args:
        model: any model with continuous latents; it is not changed.
        data: all rows, in any form.
        particles: how many.
        moves: trajectories of each at a temperature.
        seed: of everything.
        backend: what replays the density; by default the fastest that runs here.

    Raises:
        ValueError: fewer than 32 particles or no move, or as in `chees`.
        BadStart: no start with a finite density.
        Unsupported: as in `chees`.

    Example:
        >>> import pyro
        >>> from pgm import rows
        >>> class Mean(Model):
        ...     def model(self, n):
        ...         mu = pyro.sample("mu", pyro.distributions.Normal(torch.tensor(0.0), 10.0))
        ...         with rows(n):
        ...             pyro.sample("y", pyro.distributions.Normal(mu, 1.0))
        >>> data = {"y": torch.tensor([1.0, 2.0, 3.0])}
        >>> round(tempering(Mean(), data, seed=0, backend="graph").log_evidence, 1)
        -6.6
    """
    if particles < 32 or moves < 1:
        raise ValueError(
            f"particles is {particles} and moves {moves}: it takes 32 particles, each moved at "
            "every temperature."
        )
    began = time.perf_counter()
    batch = read(model, data)
    base = fresh_seed() if seed is None else seed
    with double(model, batch) as (precise, rows), seeded(base):
        density = Density(log_joint(precise, rows), backend=backend or "auto")
        generator = torch.Generator().manual_seed(base)
        state, log_q, bridge = _start(density, particles, generator)
        log_evidence, temperatures = 0.0, [0.0]
        while temperatures[-1] < 1 and len(temperatures) < _MOST:
            log_ratio = (state.log_p - log_q).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
            t = _next(log_ratio, temperatures[-1])
            log_w = (t - temperatures[-1]) * log_ratio
            log_evidence += float(log_w.logsumexp(0)) - math.log(particles)
            chosen = systematic(log_w.softmax(0), generator)
            temperatures.append(t)
            state, log_q = bridge.moved(state.u[chosen], t, moves, generator)
        values, dims = constrain(density.density, state.u[None])
    posterior = Posterior(
        values, {}, model, batch, time.perf_counter() - began, "smc", dims, _remarks(temperatures)
    )
    return Tempered(warn(posterior), log_evidence, tuple(temperatures))


class _Bridge:
    """The law between q and p at a temperature, and moves that leave it as it is."""

    def __init__(self, density: Density, normal: LowRankNormal) -> None:
        self.density, self.normal, self.step_size = density, normal, 0.5

    def log_q(self, u: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        """The log density of the mixture, and its gradient."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            log_q = self.normal.mixture_log_prob(u)
            (gradient,) = torch.autograd.grad(log_q.sum(), u)
        return log_q.detach(), gradient

    def moved(
        self, u: Float[Tensor, "n d"], t: float, moves: int, generator: torch.Generator
    ) -> tuple[State, Tensor]:
        """The particles after some trajectories at temperature t; the state is that of p."""

        def tempered(u: Tensor) -> tuple[Tensor, Tensor]:
            (log_p, dp), (log_q, dq) = self.density(u), self.log_q(u)
            return t * log_p + (1 - t) * log_q, t * dp + (1 - t) * dq

        state = evaluate(tempered, u)
        metric = estimate(state.u, state.gradient, dense=False)
        for _ in range(moves):
            turn = 0.5 + float(torch.rand((), generator=generator))
            steps = max(1, min(64, round(turn / self.step_size)))
            made = move(tempered, state, metric, self.step_size, steps, generator)
            state = made.state
            off = float(made.acceptance.mean()) - _TARGET
            self.step_size = min(2.0, max(1e-4, self.step_size * math.exp(off)))
        return evaluate(self.density, state.u), self.log_q(state.u)[0]


def _start(
    density: Density, particles: int, generator: torch.Generator
) -> tuple[State, Tensor, _Bridge]:
    """Draws from the mixture of normals of as many climbs as there are particles in a tenth."""
    u = uniform(density.density, density, particles, generator)
    paths = find_paths(density, u, draws=1, generator=generator, trials=1)
    keep = slice(None, None, max(1, particles // 32))  # a mixture of 32 is quick to evaluate
    normal = LowRankNormal(
        *(part[keep] for part in (paths.normal.mean, paths.normal.alpha)),
        *(part[keep] for part in (paths.normal.basis, paths.normal.factor)),
    )
    k = torch.randint(len(normal.mean), (particles,), generator=generator)
    drawn = normal.draw(particles, generator)[torch.arange(particles), k]
    bridge = _Bridge(density, normal)
    return evaluate(density, drawn), bridge.log_q(drawn)[0], bridge


def _next(log_ratio: Float[Tensor, " n"], t: float) -> float:
    """The next temperature: as far as half of the particles stay effective."""

    def share(step: float) -> float:
        log_w = step * log_ratio
        return float((2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()) / len(log_w)

    if share(1 - t) >= _KEPT:
        return 1.0
    low, high = 0.0, 1 - t
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if share(middle) >= _KEPT else (low, middle)
    return t + max(low, 1e-6)


def systematic(w: Float[Tensor, " n"], generator: torch.Generator) -> Tensor:
    """Indices drawn by weights with one uniform number (Carpenter, Clifford & Fearnhead 1999).

    Example:
        >>> systematic(torch.tensor([0.5, 0.0, 0.5, 0.0]), torch.Generator().manual_seed(0))
        tensor([0, 0, 2, 2])
    """
    n = len(w)
    at = (torch.rand((), generator=generator) + torch.arange(n)) / n
    return torch.searchsorted(w.cumsum(0).to(at.dtype).contiguous(), at).clamp(max=n - 1)


def _remarks(temperatures: list[float]) -> tuple[str, ...]:
    if temperatures[-1] >= 1:
        return ()
    return (
        f"After {len(temperatures)} temperatures only {temperatures[-1]:.3g} was reached: these "
        "are no draws from the posterior. Raise particles and moves.",
    )
