"""Imputation: several completions of rows with missing cells, as draws from their posterior.

Sampling importance resampling (Rubin 1987; for deep latent variable models Mattei & Frellsen 2019,
MIWAE): K particles of the latents come from the guide, missing cells from the model given the
latents, and particles are drawn anew in proportion to p(x_seen, z) / q(z | x). Shared latents are
drawn once a completion, for all its rows: that spread between completions is what Rubin's rules
add to the error of an estimate.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import SEEN, Batch, chunks, repeat, rows_of, take
from pgm.model import Model
from pgm.verb import verb
from pgm.weights import LogWeight, check_proposals, log_weight, run_programs

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
        """The mean of the completions, shape (n, ...); of levels, the most frequent."""
        return Batch(
            {
                k: v.mean(0) if v.is_floating_point() else v.mode(0).values
                for k, v in self.draws.items()
            }
        )

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
        ValueError: draws or particles below 1, or a row that the model says is impossible.
        Unsupported: a site's joint density cannot leave single cells out, or a guide whose draws
            have no density by row.

    Example:
        >>> from pgm.families.kde import KDE
        >>> two = KDE(torch.tensor([[0.0, 0.0], [9.0, 9.0]]), bandwidth=0.1)
        >>> done = impute(two, torch.tensor([[9.0, float("nan")]]), draws=3, seed=0)
        >>> done.draws["x"][:, 0, 1].round()
        tensor([9., 9., 9.])
    """
    for name, count in {"draws": draws, "particles": particles}.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; a row is completed from 1 or more.")
    guide, joint = run_programs(model, take(batch, slice(0, 2)))
    check_proposals(guide, joint)
    shared = any(site.shared for site in joint.sites.values())
    sizes = [1] * draws if shared else [draws]
    completed, ess = zip(*[_complete(model, batch, size, particles) for size in sizes], strict=True)
    whole = {name: torch.cat([c[name] for c in completed]) for name in completed[0]}
    return Imputation(Batch(whole), torch.stack(ess).mean(0))


def _complete(model: Model, batch: Batch, draws: int, particles: int) -> tuple[Batch, Tensor]:
    """Completions of all rows, piece by piece, under one draw of the shared latents."""
    shared, pieces, done = None, [], 0
    for piece in chunks(batch, max(1, _AT_ONCE // particles)):
        repeated = repeat(piece, particles)
        weight = log_weight(model, repeated, enumerated="draw", shared=shared)
        shared = {name: weight.values[name] for name in weight.shared_sites}
        pieces.append(_resample(weight, piece, draws, particles, done))
        done += rows_of(piece)
    completed, ess = zip(*pieces, strict=True)
    whole = {name: torch.cat([c[name] for c in completed], 1) for name in completed[0]}
    return Batch(whole), torch.cat(ess)


def _resample(
    weight: LogWeight, batch: Batch, draws: int, particles: int, start: int
) -> tuple[Batch, Tensor]:
    n = rows_of(batch)
    log_w = weight.rows.reshape(particles, n)
    bad = (~log_w.amax(0).isfinite()).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"Row {start + int(bad[0])} has density zero under all {particles} particles, or a "
            "density that is not finite, so that nothing can be drawn given it. Look at the values "
            "of that row, and at pgm.log_prob; hide the cells that the model calls impossible."
        )
    w = torch.softmax(log_w, 0)
    chosen = torch.multinomial(w.T, draws, replacement=True).T
    row = torch.arange(n, device=w.device)
    sites = [k for k in batch if k in weight.values and not k.endswith(SEEN)]
    values = {k: weight.values[k].reshape(particles, n, *weight.values[k].shape[1:]) for k in sites}
    return Batch({k: v[chosen, row] for k, v in values.items()}), 1 / w.square().sum(0)
