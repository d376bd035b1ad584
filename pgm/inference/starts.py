"""Where chains start: draws from normals along quasi-Newton paths, weighed against each other.

Uniform starts leave chains in lesser modes and far from the typical set. Every chain climbs by a
path of Pathfinder's (Zhang, Carpenter, Gelman & Vehtari 2022, sec. 4), and the chains start at
draws that were chosen by their importance weights, each at most once.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.inference.approximate.paths import Paths, find_paths
from pgm.inference.hmc.metric import Metric, estimate
from pgm.inference.hmc.trajectory import Density, State
from pgm.inference.unconstrained import RADIUS, BadStart, LogJoint

_TRIES = 100
_DRAWS = 10


def uniform(
    log_joint: LogJoint, density: Density, chains: int, generator: torch.Generator
) -> Float[Tensor, "chains d"]:
    """Points of finite density, uniform in (-2, 2).

    Raises:
        BadStart: none was found; the message names the site.
        Unsupported: the density is itself random.
    """
    log_joint.start()
    d = sum(shape.numel() for shape in log_joint.shapes.values())
    u, good = _points(chains, d, generator), torch.zeros(chains, dtype=torch.bool)
    for _ in range(_TRIES):
        log_p, gradient = density(u)
        good = log_p.isfinite() & gradient.isfinite().all(1)
        if bool(good.all()):
            return u
        u = torch.where(good[:, None], u, _points(chains, d, generator))
    if not bool(good.any()):
        raise BadStart(
            f"None of {chains} points drawn uniformly from (-{RADIUS:g}, {RADIUS:g}), {_TRIES} "
            "times over, has a finite density and gradient, though one point had. Bound scales "
            "away from zero, or standardise the data."
        )
    (at,) = good.nonzero(as_tuple=True)
    return u[at[torch.arange(chains) % len(at)]]


def _points(chains: int, d: int, generator: torch.Generator) -> Tensor:
    unit = torch.rand(chains, d, dtype=torch.float64, generator=generator)
    return RADIUS * (2 * unit - 1)


def from_paths(
    density: Density, u: Float[Tensor, "chains d"], generator: torch.Generator
) -> tuple[State, Metric, Paths]:
    """States for the chains, a metric for all of them, and the paths they come from."""
    paths = find_paths(density, u, draws=_DRAWS, generator=generator, trials=2)
    log_weight = paths.log_weight().flatten()
    exponential = torch.empty_like(log_weight).exponential_(generator=generator)
    order = (log_weight - exponential.log()).argsort(descending=True)
    parts: Any = paths.u.flatten(0, 1), paths.log_p.flatten(), paths.gradient.flatten(0, 1)
    points, log_p, gradient = (part[order] for part in parts)
    usable = log_p.isfinite() & gradient.isfinite().all(1)
    points, log_p, gradient = points[usable], log_p[usable], gradient[usable]
    chains = len(u)
    if len(points) < chains:
        return paths.top, Metric(torch.ones(u.shape[1], dtype=u.dtype)), paths
    state = State(points[:chains], log_p[:chains], gradient[:chains])
    half = slice(max(chains, len(points) // 2))
    return state, estimate(points[half], gradient[half]), paths
