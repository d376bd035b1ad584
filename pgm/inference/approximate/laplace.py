"""Laplace's approximation: a normal at the mode, whose precision is minus the Hessian there.

    q(u) = N(u*, A^-1),   A = -grad^2 log p(u*, x),
    log p(x) ~ log p(u*, x) + d/2 log 2 pi - 1/2 log det A

over the unconstrained latents (Tierney & Kadane 1986; MacKay 1992; Murphy 2022, sec. 7.4.3).
"""

import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.inference.approximate.paths import climb
from pgm.inference.approximate.weighed import weighed
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.runs import read
from pgm.inference.starts import uniform
from pgm.inference.traced import Density
from pgm.inference.unconstrained import LogJoint, log_joint
from pgm.model import Model
from pgm.randomness import fresh_seed, seeded
from pgm.tracing import Backend

Structure = Literal["full", "diagonal"]

_STARTS = 8
_STEPS = 500


class NoMode(ValueError):
    """The climb ended where the density does not fall off in all directions."""


def laplace(
    model: Model,
    data: Any,
    *,
    structure: Structure = "full",
    sites: Sequence[str] | None = None,
    draws: int = 1000,
    seed: int | None = None,
    backend: Backend | None = None,
) -> Posterior:
    """Draws from a normal at the mode of the posterior, weighed against the joint density.

    Args:
        model: any model with continuous latents; it is not changed.
        data: all rows, in any form.
        structure: "full", or "diagonal", which takes the diagonal of the precision alone.
        sites: the latents that are spread, the others held at the mode, such as the weights of a
            network's last layer (Daxberger et al. 2021, sec. 3); by default all. The weights are
            then those of the joint density with the others at the mode, and there is no evidence.
        draws: independent draws.
        seed: of starts and draws.
        backend: what replays the density; by default the fastest that runs here.

    Returns:
        The draws, in one chain, with the statistic `log_weight`: see `pareto_k`, `resample` and
        `evidence`.

    Raises:
        NoMode: the Hessian is not negative definite at the end of the climb.
        ValueError: unknown sites, or as in `chees`.
        BadStart: no start with a finite density.
        Unsupported: as in `chees`.

    Warns:
        InferenceWarning: k-hat is above 0.7.

    Example:
        >>> import pyro
        >>> from pgm import rows
        >>> class Mean(Model):
        ...     def model(self, n):
        ...         mu = pyro.sample("mu", pyro.distributions.Normal(torch.tensor(0.0), 10.0))
        ...         with rows(n):
        ...             pyro.sample("y", pyro.distributions.Normal(mu, 1.0))
        >>> data = {"y": torch.tensor([1.0, 2.0, 3.0])}
        >>> found = laplace(Mean(), data, seed=0, backend="graph")
        >>> from pgm.inference import evidence
        >>> print(evidence(found))  # the posterior is normal, so that all weights are alike
        log evidence -6.630 +- 0.000 nats (k-hat 0.00)
    """
    began = time.perf_counter()
    batch = read(model, data)
    base = fresh_seed() if seed is None else seed
    with double(model, batch) as (precise, rows), seeded(base):
        density = Density(log_joint(precise, rows), backend=backend or "auto")
        generator = torch.Generator().manual_seed(base)
        mode = find_mode(density, generator)
        A = -hessian(density.density, mode)
        free = _free(density.density, sites)
        root = _root(density.density, A[free][:, free], free, structure)
        noise = torch.randn(draws, len(root), generator=generator, dtype=torch.float64)
        u = mode.repeat(draws, 1)
        u[:, free] += torch.linalg.solve_triangular(root.T, noise.T, upper=True).T
        log_q = -0.5 * noise.square().sum(1) + root.diagonal().log().sum()
        log_p = evaluated(density, u)
        log_weight = log_p - log_q + 0.5 * noise.shape[1] * math.log(2 * math.pi)
        held = tuple(k for k in density.density.shapes if sites is not None and k not in sites)
        return weighed(
            model, batch, density.density, u, log_weight, method="laplace", began=began, held=held
        )


def find_mode(density: Density, generator: torch.Generator) -> Float[Tensor, " d"]:
    """The highest point that climbs from several starts come to."""
    u = uniform(density.density, density, _STARTS, generator)
    *_, (state, _) = climb(density, u, steps=_STEPS, tolerance=1e-10)
    return state.u[int(state.log_p.argmax())]


def hessian(density: LogJoint, u: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
    """The second derivatives of the log density."""
    with torch.enable_grad():
        found: Any = torch.autograd.functional.hessian(density, u)
    return 0.5 * (found + found.T)


def evaluated(density: Density, u: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """The log density at many points, so many at a time as the climbs had."""
    parts = []
    for part in u.split(_STARTS):
        padded = torch.cat([part, part[:1].expand(_STARTS - len(part), -1)])
        parts.append(density(padded)[0][: len(part)])
    return torch.cat(parts)


def _free(density: LogJoint, sites: Sequence[str] | None) -> Tensor:
    """The coordinates that are spread."""
    wanted = list(density.shapes) if sites is None else list(sites)
    unknown = [name for name in wanted if name not in density.shapes]
    if unknown or not wanted:
        raise ValueError(
            f"sites is {wanted}; the latents of {type(density.model).__name__} are "
            f"{', '.join(density.shapes)}. Name one or more of them."
        )
    chosen = [
        torch.full((shape.numel(),), name in wanted) for name, shape in density.shapes.items()
    ]
    return torch.cat(chosen).nonzero().flatten()


def _root(density: LogJoint, A: Tensor, free: Tensor, structure: Structure) -> Tensor:
    """The Cholesky factor of the precision."""
    if structure not in ("full", "diagonal"):
        raise ValueError(f"structure is {structure!r}; it is 'full' or 'diagonal'.")
    A = torch.diag(A.diagonal()) if structure == "diagonal" else A
    root, failed = torch.linalg.cholesky_ex(A)
    if int(failed) or not bool(root.isfinite().all()):
        names = [name for name, shape in density.shapes.items() for _ in range(shape.numel())]
        values, vectors = torch.linalg.eigh(A.nan_to_num())
        at = names[int(free[int(vectors[:, 0].abs().argmax())])]
        raise NoMode(
            f"At the highest point that was found the density of {type(density.model).__name__} "
            f"does not fall off in every direction (the least precision is {float(values[0]):.3g}, "
            f"mostly along {at!r}): the posterior is improper, or has its mode at a bound, as a "
            "scale has at zero. Give that site a prior that keeps it away, or use a sampler."
        )
    return root
