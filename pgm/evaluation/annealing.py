"""Annealed importance sampling: the constant Z of a density that is known up to that constant.

Particles start at a density f_0 whose Z_0 is known and walk through f_beta to f_1, each step by a
Markov transition that leaves f_beta invariant. Their weights w = prod_k f_{beta_k}(x_k) /
f_{beta_{k-1}}(x_k) have expectation Z / Z_0 (Neal 2001, eq. 11). The logarithm of their mean is
therefore too small in expectation, and far too small where the walk misses a mode: a log density
normalised by it is an estimate, never a bound.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from pgm.verbs.density import Kind, log_mean


@dataclass(frozen=True)
class LogPartition:
    """log Z of an unnormalised density.

    Attributes:
        value: nats.
        error: Monte Carlo standard error, zero where it is exact.
        kind: "exact" or "estimate".
        ess: effective number of particles, out of `particles`; infinite where it is exact. Near 1
            the error itself cannot be trusted: take more temperatures.
        particles: how many were drawn; none where it is exact.
    """

    value: float
    error: float
    kind: Kind
    ess: float = math.inf
    particles: int = 0

    def __str__(self) -> str:
        drawn = f", {self.ess:.1f} of {self.particles} particles effective" * (self.particles > 0)
        return f"log Z = {self.value:.3f} ± {self.error:.3f} nats ({self.kind}{drawn})"


def anneal(
    x: Shaped[Tensor, "particles *shape"],
    log_f: Callable[[Tensor, float], Tensor],
    transition: Callable[[Tensor, float], Tensor],
    *,
    log_z0: float,
    temperatures: int = 1000,
) -> LogPartition:
    """log Z of f_1, by a walk from f_0 over equally spaced beta.

    Args:
        x: independent draws from f_0, the particles first.
        log_f: log f_beta(x) in nats by particle, of (x, beta).
        transition: moves x, given (x, beta), and leaves f_beta invariant.
        log_z0: log Z of f_0.
        temperatures: steps from beta = 0 to beta = 1; the error falls with their number as well as
            with that of the particles.

    Raises:
        ValueError: fewer than two particles, which have no standard error, or no temperature.

    Example:
        From N(0, 1) to exp(-x^2 / (2 0.5^2)), whose log Z is log(0.5 sqrt(2 pi)) = 0.2258:

        >>> def precision(beta):
        ...     return 1 + 3 * beta
        >>> x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
        >>> found = anneal(
        ...     x,
        ...     log_f=lambda x, beta: -precision(beta) * x.square() / 2,
        ...     transition=lambda x, beta: torch.randn_like(x) / precision(beta) ** 0.5,
        ...     log_z0=math.log(2 * math.pi) / 2,
        ...     temperatures=50,
        ... )
        >>> abs(found.value - 0.2258) < 3 * found.error < 0.02
        True
    """
    if len(x) < 2 or temperatures < 1:
        raise ValueError(
            f"{len(x)} particles and {temperatures} temperatures came; a standard error takes two "
            "particles, and the walk one temperature."
        )
    log_w = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for k in range(1, temperatures + 1):
        beta, before = k / temperatures, (k - 1) / temperatures
        log_w = log_w + (log_f(x, beta).double() - log_f(x, before).double())
        x = transition(x, beta)
    value, error = log_mean(log_w[:, None])
    share = log_w.softmax(0)
    ess = float(1 / share.square().sum())
    return LogPartition(log_z0 + float(value), float(error), "estimate", ess, len(x))
