"""Imputation: several completions of rows with missing cells, as draws from their posterior.

Sampling importance resampling (Rubin 1987; for deep latent variable models Mattei & Frellsen 2019,
MIWAE): K particles of the latents come from the guide, missing cells from the model given the
latents, and particles are drawn anew in proportion to p(x_seen, z) / q(z | x).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import SEEN, Batch, chunks, rows_of
from pgm.model import Model
from pgm.verb import verb
from pgm.weights import log_weight

_AT_ONCE = 2**15


@dataclass(frozen=True, eq=False)
class Imputation:
    """Completed rows.

    Attributes:
        draws: every observed site of the batch, completed, shape (draws, n, ...); cells that were
            seen are as they came.
        ess: effective number of particles behind the draws of each row, shape (n,); near 1 the
            guide misses the posterior and the draws understate the spread.
    """

    draws: Batch
    ess: Float[Tensor, " n"]

    def mean(self) -> Batch:
        """The mean of the completions, shape (n, ...)."""
        return Batch({k: v.to(torch.get_default_dtype()).mean(0) for k, v in self.draws.items()})

    def __getitem__(self, i: int) -> Batch:
        """Completion i, rows first."""
        return Batch({name: value[i] for name, value in self.draws.items()})

    def __len__(self) -> int:
        return len(next(iter(self.draws.values())))

    def __str__(self) -> str:
        names = ", ".join(self.draws)
        return (
            f"{len(self)} completions of {len(self.ess)} rows of {names}; effective particles: "
            f"median {float(self.ess.median()):.1f}, least {float(self.ess.min()):.1f}"
        )


@verb()
def impute(
    model: Model, batch: Batch, *, draws: int = 5, particles: int = 200, seed: int | None = None
) -> Imputation:
    """Completes missing cells, several times over, by draws given the cells that were seen.

    Args:
        model: a model with a factorised likelihood, or a family with its own rule.
        batch: the rows, with NaN (or masks) where cells are missing. Observed sites that the batch
            leaves out altogether are not filled in.
        draws: completions.
        particles: K, draws of the latents for each row.
        seed: of the draws.

    Returns:
        The completions, and how many particles stand behind them.

    Raises:
        Unsupported: a site's joint density cannot leave single cells out.

    Example:
        >>> from pgm.families.kde import KDE
        >>> two = KDE(torch.tensor([[0.0, 0.0], [9.0, 9.0]]), bandwidth=0.1)
        >>> done = impute(two, torch.tensor([[9.0, float("nan")]]), draws=3, seed=0)
        >>> done.draws["x"][:, 0, 1].round()
        tensor([9., 9., 9.])
    """
    at_once = max(1, _AT_ONCE // particles)
    pieces = [_resample(model, piece, draws, particles) for piece in chunks(batch, at_once)]
    completed, ess = zip(*pieces, strict=True)
    return Imputation(
        Batch({name: torch.cat([c[name] for c in completed], 1) for name in completed[0]}),
        torch.cat(ess),
    )


def _resample(model: Model, batch: Batch, draws: int, particles: int) -> tuple[Batch, Tensor]:
    weight = log_weight(model, batch, particles=particles, enumerated="draw")
    w = torch.softmax(weight.rows, 0)
    chosen = torch.multinomial(w.T, draws, replacement=True).T
    n = torch.arange(rows_of(batch), device=w.device)
    sites = [k for k in batch if k in weight.values and not k.endswith(SEEN)]
    completed = Batch({name: weight.values[name][chosen, n] for name in sites})
    return completed, 1 / w.square().sum(0)
