"""Encoding rows into latent codes, and decoding codes into rows."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Categorical, OneHotCategorical

from pgm.batch import Batch, repeat, rows_of
from pgm.model import Model, arguments
from pgm.sites import Run
from pgm.verb import needs_guide, verb
from pgm.verbs.sampling import draw, observed_sites


@verb(needs=needs_guide)
def encode(
    model: Model, batch: Batch, *, draws: int | None = None, seed: int | None = None
) -> Batch:
    """The latent code of every row.

    Args:
        model: a model with latents by row.
        batch: the rows.
        draws: None for the means of the guide, given one another in the order of its program;
            otherwise how many draws from it.
        seed: of the draws.

    Returns:
        The latent sites by name, shape (n, ...), or (draws, n, ...).

    Example:
        >>> from pgm.families.factor import PPCA
        >>> encode(PPCA(3, 2), torch.zeros(4, 3))["z"].shape
        torch.Size([4, 2])
    """
    n = rows_of(batch)
    if draws is None:
        means = _Means()
        with means:
            model.guide(n, **arguments(model, "guide", batch))
        return _rows(means)
    repeated = repeat(batch, draws)
    with Run() as run:
        model.guide(n * draws, **arguments(model, "guide", repeated))
    return Batch({k: v.reshape(draws, n, *v.shape[1:]) for k, v in _rows(run).items()})


@verb(needs=needs_guide)
def decode(model: Model, z: Any, *, context: Any = None, seed: int | None = None) -> Batch:
    """The rows that codes stand for: the mean of every observed site given the latents.

    Args:
        model: a model with latents by row.
        z: the latent sites by name; a bare tensor means the site "z". Latents that are left out
            are drawn.
        context: the data that the program is conditional on, rows as in `z`.
        seed: of those draws.

    Returns:
        The observed sites, rows first: their means, or the most probable category.

    Raises:
        ValueError: a name that is no latent site, or none at all.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> decode(PPCA(3, 2), torch.zeros(4, 2))["x"].shape
        torch.Size([4, 3])
    """
    codes = dict(z) if isinstance(z, Mapping) else {"z": z}
    codes = {name: _like(model, value) for name, value in codes.items()}
    if not codes:
        raise ValueError('No code came. Pass a tensor, or a dict of latent sites {"z": ...}.')
    n = rows_of(codes)
    run = draw(model, n, context=context, latents=codes)
    observed = observed_sites(model, run, n, context)
    unknown = [name for name in codes if name not in run.sites or name in observed]
    if unknown:
        latents = [name for name in run.sites if name not in observed]
        raise ValueError(
            f"{type(model).__name__} has no latent site {', '.join(map(repr, unknown))}; its "
            f"latent sites are {', '.join(latents)}."
        )
    return Batch({name: centre(run.sites[name].fn) for name in observed})


def centre(fn: Any) -> Tensor:
    """The mean of a distribution, the most probable of its categories, or else a draw."""
    if isinstance(fn, Categorical | OneHotCategorical):
        best = fn.probs.argmax(-1)
        whole = isinstance(fn, Categorical)
        return best if whole else nn.functional.one_hot(best, fn.probs.shape[-1]).to(fn.probs)
    try:
        mean = fn.mean
    except (NotImplementedError, AttributeError):
        return torch.as_tensor(fn.sample())
    return torch.as_tensor(fn.sample()) if bool(torch.isnan(mean).any()) else mean


class _Means(Run):
    """Runs a guide with every latent site at its mean."""

    def _pyro_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg):
            msg["value"], msg["done"] = centre(msg["fn"]), True


def _rows(run: Run) -> Batch:
    return Batch({name: site.value for name, site in run.sites.items() if site.rows})


def _like(model: Model, value: Any) -> Tensor:
    tensor = torch.as_tensor(value)
    dtype = model.dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.to(model.device, dtype)
