"""What posteriors read off a run of the joint program: its density, its latents, their axes."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import Batch, rows_of
from pgm.enumeration import Factor, sum_product
from pgm.model import Model, arguments
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


def terms(run: Run) -> list[Site]:
    """The sites of a joint whose density counts: not those computed, or drawn and left out."""
    return [site for site in run.sites.values() if not (site.deterministic or site.left_out)]


def log_rows(sites: Iterable[Site], n: int) -> Float[Tensor, " n"]:
    """The terms of every row, enumerated sites summed out, in nats."""
    inside = [site for site in sites if site.rows]
    variables = {s.enumerated: s.plates for s in inside if s.enumerated is not None}
    if variables:
        return sum_product([Factor(torch.zeros(n)), *(s.factor() for s in inside)], variables)
    total = torch.zeros(n)
    for site in inside:
        log_p = site.log_prob()
        total = total + (log_p.flatten(0, -2).sum(0) if log_p.dim() > 1 else log_p)
    return total


def log_shared(sites: Iterable[Site]) -> Float[Tensor, ""]:
    """The terms of the sites outside `rows`, in nats."""
    return sum((s.log_prob().sum() for s in sites if not s.rows), start=torch.zeros(()))


def log_likelihood(run: Run, n: int) -> Float[Tensor, " n"]:
    """log p(x | z) of every row: its data given the latents, enumerated sites summed out, in nats.

    It is log p(x, z) - log p(z) over the sites of the row, which is right also where a continuous
    latent of the row depends on an enumerated one.
    """
    sites = terms(run)
    if not run.variables:
        return log_rows([site for site in sites if site.observed], n)
    latent = [replace(site, clamp=None) for site in sites if not site.observed]
    return log_rows(sites, n) - log_rows(latent, n)


def latents(run: Run) -> dict[str, Site]:
    """The sites that a posterior speaks of: continuous latents, and what is computed from them."""
    return {
        name: site
        for name, site in run.sites.items()
        if site.deterministic or not (site.observed or site.enumerated is not None)
    }


def axes(site: Site) -> tuple[str, ...]:
    """The names of the axes of a site's value: those of its plates, "rows" among them, or numbers.

    What is computed in plates has them in front, and says nothing of what belongs to its event.
    """
    value, plates = site.value, site.plate_names
    names = [f"{site.name}_dim_{i}" for i in range(value.dim())]
    batch = -min(plates, default=0) if site.deterministic else value.dim() - site.fn.event_dim
    for dim, plate in plates.items():
        at = batch + dim
        if 0 <= at < value.dim() and value.shape[at] == site.fn.batch_shape[dim]:
            names[at] = plate
    return tuple(names)
