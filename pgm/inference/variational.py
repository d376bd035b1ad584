"""The variational posterior: draws from a fitted guide, weighed against the joint density.

The weights log p(z, x) - log q(z | x) say how far the guide is from the posterior: where the Pareto
shape k-hat of their tail is above 0.7, its answers are not to be trusted (Yao, Vehtari, Simpson &
Gelman 2018; Vehtari et al. 2024).
"""

import time
import warnings
from typing import Any

import torch
from torch import Tensor

from pgm.batch import Batch, rows_of
from pgm.inference.posterior import InferenceWarning, Posterior
from pgm.inference.precision import double
from pgm.inference.runs import axes, latents, log_rows, log_shared, read, terms
from pgm.model import Model
from pgm.randomness import seeded
from pgm.sites import Run, Site
from pgm.verb import Unsupported
from pgm.weights import run_programs


def variational(
    model: Model, data: Any, *, draws: int = 1000, seed: int | None = None
) -> Posterior:
    """Draws from the guide of a model that was fitted to the data (`pgm.fit` comes first).

    Args:
        model: a model with a guide; it is not changed.
        data: all rows, in any form.
        draws: independent draws of all latents.
        seed: of the draws.

    Returns:
        The draws, in one chain. The statistic `log_weight` is log p(z, x) - log q(z | x) of each:
        of all latents, where some are shared, shape (1, draws); otherwise by row, shape
        (1, draws, n).

    Raises:
        Unsupported: the model has no guide, or one without some latent.
        ValueError: fewer than 4 draws.

    Warns:
        InferenceWarning: k-hat is above 0.7.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> posterior = variational(PPCA(3, 1), torch.zeros(2, 3), draws=50, seed=0)
        >>> posterior.draws["z"].shape, posterior.dims["z"]
        (torch.Size([1, 50, 2, 1]), ('rows', 'z_dim_1'))
    """
    start = time.perf_counter()
    batch = read(model, data)
    _check(model, draws)
    with double(model, batch) as (precise, rows), torch.no_grad(), seeded(seed):
        drawn = [_draw(precise, rows) for _ in range(draws)]
    sites, _ = drawn[0]
    posterior = Posterior(
        draws={
            name: torch.stack([values[name].value for values, _ in drawn]).unsqueeze(0)
            for name in sites
        },
        sample_stats={"log_weight": torch.stack([weight for _, weight in drawn]).unsqueeze(0)},
        model=model,
        batch=batch,
        seconds=time.perf_counter() - start,
        method="variational",
        dims={name: axes(site) for name, site in sites.items()},
    )
    for problem in posterior.problems():
        warnings.warn(problem, InferenceWarning, stacklevel=2)
    return posterior


def _draw(model: Model, batch: Batch) -> tuple[dict[str, Site], Tensor]:
    """One draw of the latents, and its log weight: by row, or of all if some are shared."""
    n = rows_of(batch)
    guide, joint = run_programs(model, batch)
    _check_guide(model, joint)
    p, q = terms(joint), list(guide.sites.values())
    rows = log_rows(p, n) - log_rows(q, n)
    shared = any(not site.rows for site in q)
    weight = rows.sum() + log_shared(p) - log_shared(q) if shared else rows
    return latents(joint), weight


def _check_guide(model: Model, joint: Run) -> None:
    open_sites = [site.name for site in joint.sites.values() if site.left_out]
    if open_sites:
        raise Unsupported(
            f"The guide of {type(model).__name__} has no {', '.join(map(repr, open_sites))}, and "
            "the data have none either: its draws would be the prior's. Pass it in the data, "
            "sample it in the guide, or use pgm.inference.mcmc, which takes it for a latent."
        )


def _check(model: Model, draws: int) -> None:
    if not model.latent:
        raise Unsupported(
            f"{type(model).__name__} has no guide, so that there is no variational posterior. "
            "Write one, `guide(self, n, ...)`, and fit it; or use pgm.inference.mcmc, which needs "
            "none."
        )
    if draws < 4:
        raise ValueError(f"draws is {draws}; quantiles and diagnostics take 4 or more.")
