"""The model run again at every draw of a posterior: its likelihood by row, and data replicated."""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import Batch, rows_of
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.runs import axes, log_likelihood, run_joint
from pgm.model import Model
from pgm.randomness import seeded
from pgm.sites import Run
from pgm.verb import Unsupported

T = TypeVar("T")


def pointwise(posterior: Posterior) -> Float[Tensor, "chains draws n"]:
    """log p(x_i | latents) of every row at every draw, in nats; missing cells are left out.

    Discrete latents that are marked for enumeration are summed out. Observed sites outside `rows`
    belong to no row and are not in it.

    Raises:
        Unsupported: a row's likelihood needs the value of a missing cell, and has none of its own.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> from pgm.inference import variational
        >>> pointwise(variational(PPCA(3, 1), torch.zeros(2, 3), draws=50, seed=0)).shape
        torch.Size([1, 50, 2])
    """
    n = rows_of(posterior.batch)

    def likelihood(model: Model, batch: Batch, latents: dict[str, Tensor]) -> Tensor:
        run = Run(latents, observed=batch, enumerate_sites=True)
        return log_likelihood(run_joint(model, batch, run), n)

    with seeded(0):
        values = _replay(posterior, likelihood)
        (again,) = _replay(posterior, likelihood, first=1)
    if not torch.equal(values[0], again):
        raise Unsupported(
            "The likelihood of the rows depends on the values of their missing cells, so that it "
            "has no value of its own at a draw. Drop those rows, or complete them first with "
            "pgm.impute."
        )
    return torch.stack(values).reshape(*posterior.size, n)


def predictive(
    posterior: Posterior, *, seed: int | None = None
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Data replicated at every draw: the observed sites of the batch, drawn given the latents.

    Latents of a row are those of the draw; enumerated latents are drawn anew.

    Args:
        posterior: the draws.
        seed: of the replications.

    Returns:
        Each observed site, shape (chains, draws, n, ...), and the names of its axes.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> from pgm.inference import variational
        >>> posterior = variational(PPCA(3, 1), torch.zeros(2, 3), draws=50, seed=0)
        >>> {name: value.shape for name, value in predictive(posterior, seed=0)[0].items()}
        {'x': torch.Size([1, 50, 2, 3])}
    """
    observed = [name for name in posterior.batch if name not in posterior.model.context]

    def replicate(model: Model, batch: Batch, latents: dict[str, Tensor]) -> Run:
        return run_joint(model, batch, Run(latents))

    with seeded(seed):
        runs = _replay(posterior, replicate)
    sites = {name: site for name, site in runs[0].sites.items() if name in observed}
    stacked = {name: torch.stack([r.sites[name].value for r in runs]) for name in sites}
    values = {name: v.reshape(*posterior.size, *v.shape[1:]) for name, v in stacked.items()}
    return values, {name: axes(site) for name, site in sites.items()}


def _replay(
    posterior: Posterior,
    run: Callable[[Model, Batch, dict[str, Tensor]], T],
    *,
    first: int | None = None,
) -> list[T]:
    """What `run` makes of the model, the data and the latents of each draw, chain after chain."""
    flat = {name: value.flatten(0, 1)[:first] for name, value in posterior.draws.items()}
    draws = [dict(zip(flat, values, strict=True)) for values in zip(*flat.values(), strict=True)]
    with double(posterior.model, posterior.batch) as (model, batch), torch.no_grad():
        return [run(model, batch, latents) for latents in draws]
