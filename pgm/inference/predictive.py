"""The model run again at every draw of a posterior: its likelihood by row, and data replicated."""

from collections.abc import Callable
from typing import TypeVar

import pyro
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from pgm.batch import Batch, rows_of
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.runs import axes, log_likelihood, log_shared, run_joint, terms
from pgm.model import ROWS, Model
from pgm.randomness import seeded
from pgm.sites import Run
from pgm.verb import Unsupported
from pgm.weights import weigh_latents

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
        (once,), (again,) = (_replay(posterior, likelihood, first=1) for _ in range(2))
    if not torch.equal(once, again):
        raise Unsupported(
            "The likelihood of the rows depends on the values of their missing cells, so that it "
            "has no value of its own at a draw. Drop those rows, or complete them first with "
            "pgm.impute."
        )
    return _at_every_draw(posterior, likelihood).reshape(*posterior.size, n)


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


def draw_enumerated(
    posterior: Posterior, *, seed: int | None = None
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """The latents that were summed out, drawn from their posterior at every draw of the others.

    Args:
        posterior: the draws.
        seed: of those of the enumerated latents.

    Returns:
        Each enumerated site, shape (chains, draws, n), and the names of its axes; none where the
        model has none.
    """
    run = first_run(posterior)
    names = [name for name, site in run.sites.items() if site.enumerated is not None]
    if not names:
        return {}, {}

    def redraw(model: Model, batch: Batch, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        known = {k: v for k, v in latents.items() if not run.sites[k].deterministic}
        return weigh_latents(model, batch, known, enumerated="draw").values

    with seeded(seed):
        drawn = _replay(posterior, redraw)
    stacked = {name: torch.stack([values[name] for values in drawn]) for name in names}
    values = {name: v.reshape(*posterior.size, *v.shape[1:]) for name, v in stacked.items()}
    return values, {name: (ROWS,) for name, v in values.items() if v.dim() == 3}


def prior_predictive(
    posterior: Posterior, draws: int, *, seed: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Latents drawn from their priors, data drawn given them, and the names of their axes.

    Args:
        posterior: whose model, context and number of rows are taken.
        draws: how many.
        seed: of them.

    Raises:
        Unsupported: a prior that is improper, and so cannot be drawn from.
    """
    batch = posterior.batch
    with double(posterior.model, batch) as (model, rows), torch.no_grad(), seeded(seed):
        try:
            runs = [run_joint(model, rows, Run()) for _ in range(draws)]
        except NotImplementedError as error:
            raise Unsupported(
                f"A prior of {type(model).__name__} is improper, and nothing can be drawn from it. "
                "Ask for the groups without prior=, or give the site a proper prior."
            ) from error
    first = runs[0].sites
    data = [k for k in batch if k in first and k not in posterior.model.context]
    wanted = [k for k in first if k in posterior.draws or k in data]
    values = {k: torch.stack([run.sites[k].value for run in runs])[None] for k in wanted}
    dims = {k: axes(first[k]) for k in wanted}
    return (
        {k: v for k, v in values.items() if k not in data},
        {k: values[k] for k in data if k in values},
        dims,
    )


def first_run(posterior: Posterior) -> Run:
    """The joint program on the data and the latents of the first draw."""

    def observe(model: Model, batch: Batch, latents: dict[str, Tensor]) -> Run:
        return run_joint(model, batch, Run(latents, observed=batch, enumerate_sites=True))

    with seeded(0):
        return _replay(posterior, observe, first=1)[0]


def log_prior(posterior: Posterior) -> Float[Tensor, "chains draws"]:
    """log p of the latents outside `rows` at every draw, in nats."""

    def density(model: Model, batch: Batch, latents: dict[str, Tensor]) -> Tensor:
        run = run_joint(model, batch, Run(latents, observed=batch, enumerate_sites=True))
        return log_shared(site for site in terms(run) if not site.observed)

    return _at_every_draw(posterior, density).reshape(posterior.size)


def _at_every_draw(
    posterior: Posterior, of: Callable[[Model, Batch, dict[str, Tensor]], Tensor]
) -> Float[Tensor, "draws ..."]:
    """A density at all draws, chain after chain: all at once where the program can be vmapped.

    What comes out is held against the program itself at the first draws and the last.
    """
    flat = {name: value.flatten(0, 1) for name, value in posterior.draws.items()}
    draws = len(next(iter(flat.values())))
    with double(posterior.model, posterior.batch) as (model, batch), torch.no_grad(), seeded(0):

        def at(i: int) -> Tensor:
            return of(model, batch, {name: value[i] for name, value in flat.items()})

        ends = {i: at(i) for i in (0, draws // 2, draws - 1)}
        try:
            with pyro.validation_enabled(False):
                together = vmap(lambda z: of(model, batch, z), chunk_size=_CHUNK)(flat)
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            return torch.stack([at(i) for i in range(draws)])
        alike = all(torch.allclose(together[i], one, equal_nan=True) for i, one in ends.items())
        return together if alike else torch.stack([at(i) for i in range(draws)])


_CHUNK = 500
"""Draws whose densities are computed at once."""


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
