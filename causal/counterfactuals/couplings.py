"""Bounds on counterfactuals of discrete sites, over all couplings of their outcomes.

A site that was i with probability p_i, and would be j with probability q_j, leaves open which
outcomes go with which: any r with 0 <= r_j <= q_j / p_i and sum_j r_j = 1 is P(would be j | was i)
under some coupling (Frechet 1951), and r = e_i where nothing that the site listens to has changed:
its parents, or in a program without a graph its distribution. Noises of sites are independent, so
that each site chooses its r given the values of those before it; the extremes of an expectation
follow by backward induction, each step a greedy filling of the caps. A bound is sharp where no two
configurations must share one site's choice, else it is an outer one.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from causal.counterfactuals.evidence import levels_of
from causal.counterfactuals.worlds import Units, run, spread
from causal.interventions.actions import is_shift
from causal.interventions.handler import Intervened
from causal.outcomes import categories, frequencies, is_binary, unwrapped
from causal.structural import Structural
from pgm.batch import repeat, rows_of
from pgm.sites import Site

MOST = 2**21
"""Configurations times rows above which no bounds are computed."""

Range = tuple[Float[Tensor, "rows k"], Float[Tensor, "rows k"]]
"""Lower and upper bounds, of the mean (k = 1) or of the probability of each level."""


def bounds(
    units: Units, acted: Intervened, fresh: set[str], names: Sequence[str]
) -> dict[str, Range] | None:
    """The range of every site's expectation over the couplings of the sites `names`.

    Args:
        units: the rows as they were.
        acted: the model under the intervention.
        fresh: the sites that were set, or follow a law of the intervention's own.
        names: the discrete sites whose couplings are left open, in the order in which the program
            draws them under the intervention.

    Returns:
        By site, lower and upper bounds for every row; None if there are too many configurations,
        sites with infinitely many levels, or shifted ones.
    """
    before = units.sites
    if any(is_shift(acted.values.get(name)) for name in names):
        return None
    rows = rows_of(units.batch or units.latents)
    levels = [categories(before[name].fn) for name in names]
    if not all(levels) or math.prod(levels) * rows > MOST:
        return None
    grid = torch.cartesian_prod(*map(torch.arange, levels)).reshape(-1, len(names))
    given = {
        name: grid[:, i].repeat_interleave(rows).to(before[name].value)
        for i, name in enumerate(names)
    }
    size = len(grid)
    many = Units(
        spread(units.model, size, before),
        repeat(units.batch, size),
        repeat(units.latents, size),
        units.coupling,
    )
    after = run(many, spread(acted, size, before), fresh, given)
    shape = (*levels, rows)
    caps = [
        _caps(before[name], after[name], shape, i, _unchanged(acted, name, before, after, shape))
        for i, name in enumerate(names)
    ]
    scalars = {k: s for k, s in after.items() if s.rows and not s.fn.event_shape}
    targets = {name: _target(site, size * rows) for name, site in scalars.items()}
    return {name: _range(x.reshape(*shape, -1), caps) for name, x in targets.items()}


def _target(site: Site, rows: int) -> Float[Tensor, "rows k"]:
    """What is averaged: the value, or whether it is each level."""
    k = levels_of(site)
    x = site.value.expand(rows)
    return frequencies(x, k) if k else x[:, None].to(torch.get_default_dtype())


def _caps(
    before: Site,
    after: Site,
    shape: tuple[int, ...],
    place: int,
    unchanged: Tensor | None,
) -> Float[Tensor, "*configurations rows k"]:
    """The most that may go to each level from the one that was seen, min(1, q_j / p_i)."""
    k, rows = shape[place], shape[-1]
    p = _probs(before, rows)
    q = _probs(after, math.prod(shape)).reshape(*shape, k)
    for _ in range(place, len(shape) - 1):  # nothing depends on what comes later
        q = q.select(place, 0)
        unchanged = None if unchanged is None else unchanged.select(place, 0)
    same = (q - p).abs().amax(-1) < 1e-6 if unchanged is None else unchanged
    seen = frequencies(before.value.expand(rows), k).to(p)
    cap = (q / (p * seen).sum(-1, keepdim=True)).clamp(max=1.0)
    return torch.where(same[..., None], seen, cap)


def _unchanged(
    acted: Intervened,
    name: str,
    before: Mapping[str, Site],
    after: Mapping[str, Site],
    shape: tuple[int, ...],
) -> Bool[Tensor, "*configurations rows"] | None:
    """Where a node hears the same from the same parents; None in a program without a graph."""
    if not isinstance(acted.base, Structural):
        return None
    same = torch.ones(shape, dtype=torch.bool, device=acted.device)
    if name in acted.mechanisms or any(name in t[1:] for t in acted.values if isinstance(t, tuple)):
        return ~same
    for parent in acted.base.parents(name):
        was, now = before[parent].value, after[parent].value
        close = torch.isclose(
            now.double().reshape(*shape, -1), was.double().reshape(shape[-1], -1), rtol=1e-5
        )
        same = same & close.all(-1)
    return same


def _range(
    target: Float[Tensor, "*configurations rows k"],
    caps: Sequence[Tensor],
) -> Range:
    """The extremes of the expectation, the last site first."""
    low, high = -target, target
    for cap in reversed(caps):
        low, high = (_fill(x.movedim(cap.dim() - 2, -1), cap[..., None, :]) for x in (low, high))
    return -low, high


def _fill(
    value: Float[Tensor, "*configurations rows k j"], cap: Float[Tensor, "*configurations rows 1 j"]
) -> Float[Tensor, "*configurations rows k"]:
    """max sum_j r_j value_j over 0 <= r <= cap, sum r = 1: the largest values are filled first."""
    best, order = value.sort(-1, descending=True)
    most = cap.expand(value.shape).gather(-1, order)
    left = 1 - (most.cumsum(-1) - most)
    return (torch.minimum(most, left.clamp(min=0)) * best).sum(-1)


def _probs(site: Site, rows: int) -> Float[Tensor, "rows k"]:
    fn = unwrapped(site.fn)
    p: Tensor = fn.probs
    p = torch.stack([1 - p, p], -1) if is_binary(fn) else p
    return p.expand(rows, p.shape[-1])
