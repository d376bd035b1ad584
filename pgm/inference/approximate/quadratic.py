"""Posteriors that are normal, found exactly: conjugate regressions and linear-Gaussian models.

Where the log joint of the unconstrained latents is a quadratic, its posterior is N(u*, A^-1), with
A minus its Hessian and u* the mode (Bishop 2006, eqs 3.49 to 3.51). Whether it is one is tried at
points far apart, to rounding, and needs no list of models.
"""

import time
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.inference.approximate.laplace import hessian
from pgm.inference.constrain import constrain
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.runs import read
from pgm.inference.unconstrained import LogJoint, log_joint
from pgm.model import Model
from pgm.randomness import fresh_seed, seeded
from pgm.verb import Unsupported

_POINTS = 4
_ROUNDING = 1e-9
MOST = 500
"""Coordinates whose Hessian is taken, at most."""

Normal = tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]
"""A mean and the Cholesky factor of a precision."""


def exact_normal(
    model: Model, data: Any, *, draws: int = 1000, seed: int | None = None
) -> Posterior:
    """Independent draws from a posterior that is normal.

    Args:
        model: any model whose log joint is a quadratic of its unconstrained latents.
        data: all rows, in any form.
        draws: independent draws, in one chain.
        seed: of the draws.

    Raises:
        Unsupported: the posterior is not normal.

    Example:
        >>> import pyro
        >>> from pgm import rows
        >>> class Mean(Model):
        ...     def model(self, n):
        ...         mu = pyro.sample("mu", pyro.distributions.Normal(torch.tensor(0.0), 10.0))
        ...         with rows(n):
        ...             pyro.sample("y", pyro.distributions.Normal(mu, 1.0))
        >>> exact_normal(Mean(), {"y": torch.tensor([1.0, 2.0, 3.0])}, seed=0)
        Posterior of Mean (exact): 1 chain of 1000 draws of mu
    """
    began = time.perf_counter()
    batch = read(model, data)
    base = fresh_seed() if seed is None else seed
    with double(model, batch) as (precise, rows), seeded(base):
        density = log_joint(precise, rows)
        found = normal_law(density)
        if found is None:
            raise Unsupported(
                f"The posterior of {type(model).__name__} is not normal: its log density is no "
                "quadratic of the unconstrained latents. Use pgm.posterior, which chooses."
            )
        mean, root = found
        noise = torch.randn(draws, len(mean), dtype=torch.float64)
        u = mean + torch.linalg.solve_triangular(root.T, noise.T, upper=True).T
        values, dims = constrain(density, u[None])
    return Posterior(values, {}, model, batch, time.perf_counter() - began, "exact", dims)


def normal_law(density: LogJoint) -> Normal | None:
    """The mean and root precision of the posterior, if its log density is a quadratic."""
    u = density.start()
    if len(u) > MOST:
        return None
    try:
        A = -hessian(density, u)
    except (RuntimeError, NotImplementedError):
        return None
    root, failed = torch.linalg.cholesky_ex(A)
    if int(failed):
        return None
    mean = u + torch.cholesky_solve(_gradient(density, u)[:, None], root)[:, 0]
    top = float(density(mean))
    spread = torch.randn(_POINTS, len(u), dtype=torch.float64)
    far = torch.linalg.solve_triangular(root.T, (3 * spread).T, upper=True).T
    for step in far:
        expected = top - 0.5 * float(step @ A @ step)
        found = float(density(mean + step))
        if not abs(found - expected) <= _ROUNDING * (abs(top) + abs(expected) + 1):
            return None
    return mean, root


def _gradient(density: LogJoint, u: Tensor) -> Tensor:
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(density(u), u)
    return gradient.detach()
