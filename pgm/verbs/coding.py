"""Encoding rows into latent codes, and decoding codes into rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pyro.distributions import Independent, MaskedDistribution
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Categorical, OneHotCategorical

from pgm.batch import Batch, check_rows, repeat, rows_of
from pgm.model import Model, arguments
from pgm.sites import Run, Site
from pgm.verb import Unsupported, needs_guide, prepare, verb
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
        The latent sites of the rows by name, shape (n, ...), or (draws, n, ...).

    Raises:
        ValueError: draws below 1.
        Unsupported: all latents are shared by the rows.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> encode(PPCA(3, 2), torch.zeros(4, 3))["z"].shape
        torch.Size([4, 2])
    """
    if draws is None:
        return _codes(model, batch, _Means())
    if draws < 1:
        raise ValueError(f"draws is {draws}; pass 1 or more, or None for the means of the guide.")
    run, n = Run(), rows_of(batch)
    codes = _codes(model, repeat(batch, draws), run)
    if any(site.shared for site in run.sites.values()):
        each = [codes if draws == 1 else _codes(model, batch, Run()) for _ in range(draws)]
        return Batch({name: torch.stack([code[name] for code in each]) for name in codes})
    return Batch({name: code.reshape(draws, n, *code.shape[1:]) for name, code in codes.items()})


@verb(needs=needs_guide)
def decode(model: Model, z: Any, *, context: Any = None, seed: int | None = None) -> Batch:
    """The rows that codes stand for: the mean of every observed site given the latents.

    Args:
        model: a model with latents by row.
        z: the latent sites by name, rows first; a bare tensor means the site "z". Latents that are
            left out are drawn.
        context: the data that the program is conditional on, rows as in `z`.
        seed: of those draws.

    Returns:
        The observed sites, rows first: their means, or the most probable category, given one
        another in the order of the program.

    Raises:
        ValueError: a name that is no latent site of the rows, codes of another shape, or none.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> decode(PPCA(3, 2), torch.zeros(4, 2))["x"].shape
        torch.Size([4, 3])
    """
    codes = dict(z) if isinstance(z, Mapping) else {"z": z}
    codes = {name: _like(model, value) for name, value in codes.items()}
    if not codes:
        raise ValueError('No code came. Pass a tensor, or a dict of latent sites {"z": ...}.')
    check_rows(codes)
    n = rows_of(codes)
    drawn = draw(model, n, context=context)
    observed = observed_sites(model, drawn, n, context)
    latents = {s.name: s for s in drawn.sites.values() if s.rows and s.name not in observed}
    values = {name: _native(model, latents, name, code, n) for name, code in codes.items()}
    shared = {s.name: s.value for s in drawn.sites.values() if s.shared}
    means = _Means({**shared, **values}, only=observed)
    given = prepare(model, context) if context is not None else Batch()
    with means:
        model.model(n, **arguments(model, "model", given))
    return Batch({name: means.sites[name].rows_first for name in observed})


def centre(fn: Any) -> Tensor:
    """The mean of a distribution, the most probable of its categories, or else a draw."""
    if isinstance(fn, Independent | MaskedDistribution):
        return centre(fn.base_dist)
    if isinstance(fn, Categorical | OneHotCategorical):
        best = fn.probs.argmax(-1)
        whole = isinstance(fn, Categorical)
        return best if whole else nn.functional.one_hot(best, fn.probs.shape[-1]).to(fn.probs)
    try:
        mean = fn.mean
    except (NotImplementedError, AttributeError):
        return torch.as_tensor(fn.sample())
    return mean if bool(mean.isfinite().all()) else torch.as_tensor(fn.sample())


class _Means(Run):
    """Runs a program with its sites, or `only` some of them, at their means unless given."""

    def __init__(
        self, values: Mapping[str, Tensor] | None = None, *, only: Iterable[str] | None = None
    ) -> None:
        super().__init__(values)
        self.only = only

    def _pyro_sample(self, msg: Any) -> None:
        wanted = self.only is None or msg["name"] in self.only
        if wanted and not site_is_subsample(msg) and not msg["is_observed"]:
            msg["value"], msg["done"] = centre(msg["fn"]), True
        else:
            super()._pyro_sample(msg)


def _codes(model: Model, batch: Batch, run: Run) -> Batch:
    """The latents of the rows under a run of the guide, rows first."""
    with run:
        model.guide(rows_of(batch), **arguments(model, "guide", batch))
    codes = {
        name: site.rows_first
        for name, site in run.sites.items()
        if site.rows and not site.observed and not site.infer.get("is_auxiliary")
    }
    if not codes:
        raise Unsupported(
            f"{type(model).__name__} cannot encode: its latents ({', '.join(run.sites)}) are "
            "shared by all rows, and no row has a code of its own. Use pgm.inference.variational "
            "for their posterior."
        )
    return Batch(codes)


def _native(model: Model, latents: Mapping[str, Site], name: str, code: Tensor, n: int) -> Tensor:
    """A code in the shape that the program draws it in: rows are the last of the plates."""
    if name not in latents:
        raise ValueError(
            f"{type(model).__name__} has no latent site {name!r} of the rows; its latent sites "
            f"are {', '.join(latents) or 'none'}."
        )
    expected = latents[name].rows_first.shape
    if code.shape != expected:
        raise ValueError(
            f"The code for {name!r} has shape {tuple(code.shape)}, but n = {n} rows of it have "
            f"shape {tuple(expected)}."
        )
    site = latents[name]
    return code.movedim(0, -1 - site.fn.event_dim) if site.plates else code


def _like(model: Model, value: Any) -> Tensor:
    tensor = torch.as_tensor(value)
    dtype = model.dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.to(model.device, dtype)
