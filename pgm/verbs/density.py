"""Log densities of rows, with their kind and their standard error.

The generic answer is the importance-weighted estimate log 1/K sum_k w_k with w_k = p(x, z_k) /
q(z_k | x) (Burda, Grosse & Salakhutdinov 2016), whose expectation is a lower bound of log p(x); its
standard error is that of the mean weight by the delta method. Where nothing is left to draw it is
exact.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import Batch, chunks, rows_of, take
from pgm.model import Model
from pgm.verb import verb
from pgm.weights import log_weight, run_programs

Kind = Literal["exact", "bound", "estimate", "unnormalised", "none"]
"""What a log density is: exact; a lower bound in expectation; normalised by an estimated constant;
without its constant; or none. Numbers of different kinds are never compared in silence."""

_AT_ONCE = 2**16


@dataclass(frozen=True, eq=False)
class LogProb:
    """Log densities by row.

    Attributes:
        value: nats, shape (n,).
        error: Monte Carlo standard error of each value, zero where it is exact, shape (n,).
        kind: what the values are.
    """

    value: Float[Tensor, " n"]
    error: Float[Tensor, " n"]
    kind: Kind

    @property
    def mean(self) -> tuple[float, float]:
        """The mean over rows and its standard error (rows as a sample), in nats."""
        n = len(self.value)
        spread = float(self.value.std()) / math.sqrt(n) if n > 1 else 0.0
        return float(self.value.mean()), math.hypot(spread, float(self.error.mean()))

    def bits(self, dimensions: int) -> float:
        """The mean negative log density in bits a dimension."""
        return -self.mean[0] / (dimensions * math.log(2))

    def __str__(self) -> str:
        mean, error = self.mean
        return f"log p = {mean:.3f} ± {error:.3f} nats a row ({self.kind}, {len(self.value)} rows)"


@verb()
def log_prob(
    model: Model, batch: Batch, *, particles: int = 100, seed: int | None = None
) -> LogProb:
    """The log density of every row, in nats, with its standard error and its kind.

    Sites that the batch leaves out are marginalised; missing cells are left out of the density.
    With shared latents it is the log predictive density under the guide.

    Args:
        model: any model with a density.
        batch: the rows.
        particles: draws of the latents of each row, where there are any to draw.
        seed: of those draws.

    Returns:
        Values, standard errors, and their kind: exact where nothing was drawn that a later site of
        the program may depend on, whatever the weights look like.

    Raises:
        ValueError: particles below 1, or data that the model does not know.
        Unsupported: a guide whose draws have no density by row.

    Example:
        >>> from pgm.families.kde import KDE
        >>> print(log_prob(KDE(torch.tensor([[0.0]]), bandwidth=1.0), torch.zeros(1, 1)))
        log p = -0.919 ± 0.000 nats a row (exact, 1 rows)
    """
    if particles < 1:
        raise ValueError(f"particles is {particles}; the estimate is a mean over 1 or more.")
    guide, joint = run_programs(model, take(batch, slice(0, 2)))
    if not guide.sites and not joint.upstream:
        value = torch.cat([log_weight(model, piece).rows for piece in chunks(batch, _AT_ONCE)])
        return LogProb(value, torch.zeros_like(value), "exact")
    at_once = max(1, _AT_ONCE // 16)
    pieces = [_importance(model, piece, particles) for piece in chunks(batch, at_once)]
    value, error = (torch.cat(part) for part in zip(*pieces, strict=True))
    return LogProb(value, error, "bound")


def _importance(model: Model, batch: Batch, particles: int) -> tuple[Tensor, Tensor]:
    """log mean w and its standard error, the particles in pieces that fit memory."""
    most = max(1, min(particles, _AT_ONCE // rows_of(batch)))
    sizes = [most] * (particles // most) + ([particles % most] if particles % most else [])
    log_w = torch.cat([log_weight(model, batch, particles=k).rows for k in sizes])
    return log_mean(log_w)


def log_mean(
    log_w: Float[Tensor, "particles n"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """log of the mean weight, and its standard error by the delta method.

    Example:
        >>> value, error = log_mean(torch.zeros(4, 1))
        >>> float(value), float(error)
        (0.0, 0.0)
    """
    k = len(log_w)
    value = log_w.logsumexp(0) - math.log(k)
    if k == 1:
        return value, torch.full_like(value, torch.nan)
    relative = (log_w - value).exp()
    return value, relative.std(0) / math.sqrt(k)
