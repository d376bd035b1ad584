"""What posteriors read off a run of the joint program: its density, its latents, their axes."""

from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import Batch, rows_of
from pgm.enumeration import Factor, sum_product
from pgm.model import ROWS, Model, arguments
from pgm.sites import Run, Site
from pgm.verb import prepare

R = TypeVar("R", bound=Run)


def read(model: Model, data: Any) -> Batch:
    """The data as a batch of the model's.

    Raises:
        TypeError: what came first is no model.
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"A {type(model).__name__} came where a pgm.Model was expected, whose program is "
            "conditioned on the data. Subclass pgm.Model, or wrap an ordinary Pyro function with "
            "pgm.from_pyro."
        )
    return prepare(model, data)


def run_joint(model: Model, batch: Batch, run: R) -> R:
    """Runs the joint program over the rows of `batch` under the handler `run`, and returns it."""
    with run:
        model.model(rows_of(batch), **arguments(model, "model", batch))
    return run


def log_rows(run: Run, n: int) -> Float[Tensor, " n"]:
    """The terms of every row, enumerated sites summed out, in nats."""
    sites = [site for site in run.sites.values() if site.rows and not site.deterministic]
    return sum_product([Factor(torch.zeros(n)), *(site.factor() for site in sites)], run.variables)


def log_shared(run: Run) -> Float[Tensor, ""]:
    """The terms of the sites outside `rows`, in nats."""
    sites = [site for site in run.sites.values() if not (site.rows or site.deterministic)]
    return sum((site.log_prob().sum() for site in sites), start=torch.zeros(()))


def log_likelihood(run: Run, n: int) -> Float[Tensor, " n"]:
    """log p(x | z) of every row: its data given the latents, enumerated sites summed out, in nats.

    It is log p(x, z) - log p(z) over the sites of the row, which is right also where a continuous
    latent of the row depends on an enumerated one.
    """
    sites = [site for site in run.sites.values() if site.rows and not site.deterministic]
    data = [site.factor() for site in sites if site.observed]
    if not run.variables:
        return sum_product([*data, Factor(torch.zeros(n))], {})
    latent = [Factor(site.log_prob(), site.plates) for site in sites if not site.observed]
    without = sum_product([*latent, Factor(torch.zeros(n))], run.variables)
    return log_rows(run, n) - without


def latents(run: Run) -> dict[str, Site]:
    """The sites that a posterior speaks of: continuous latents, and what is computed from them."""
    return {
        name: site
        for name, site in run.sites.items()
        if site.deterministic or not (site.observed or site.enumerated is not None)
    }


def axes(site: Site) -> tuple[str, ...]:
    """The names of the axes of a site's value; that of the rows is "rows"."""
    names = [f"{site.name}_dim_{i}" for i in range(site.value.dim())]
    at = max(site.value.dim() - site.fn.event_dim - 1, 0)
    if site.rows and names and site.value.shape[at] == site.fn.batch_shape[-1]:
        names[at] = ROWS
    return tuple(names)
