"""Abduction: what was not seen in a row, given what was, by the first rung that applies.

The rungs, from exact to approximate: *inversion*, where every site was seen; *linear-Gaussian*
conditioning; *enumeration* of unseen discrete sites; *importance* resampling of draws from the
program in proportion to the density of what was seen, or *guide*, of draws from the guide; and
*NUTS* over the unseen sites (see `rungs`). The noise of a site follows from its value and its
parents', so that a draw of the unseen sites is a draw of the noise.
"""

import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from causal.counterfactuals.evidence import (
    Abduction,
    Rung,
    factual,
    is_finite,
    is_open,
    levels_of,
    without,
)
from causal.counterfactuals.rungs import RULES, run_chains
from causal.interventions.actions import dtype_of
from causal.interventions.sites import sites_of
from causal.structural import Structural
from pgm import Model
from pgm.batch import SEEN, Batch, rows_of, take
from pgm.model import arguments
from pgm.schema.columns import listing
from pgm.sites import Run, Site

Method = Literal["auto", Rung]

_FEW = 10
"""Effective particles below which an answer is warned about."""
_HEAVY = 0.7
"""k-hat above which weights cannot be trusted (Vehtari et al. 2024)."""
_OPEN = 16
"""Open cells up to which chains are run without being asked for."""


_PATIENCE = 120.0
"""Seconds that chains may take without being asked for."""
_RUNS = 10_000
"""Gradients of two chains, warm-up and draws, at some eight a draw."""


def abduct(model: Model, batch: Batch, *, particles: int, method: Method = "auto") -> Abduction:
    """Completes the rows of a batch; draws come from torch's global generator.

    Args:
        model: any model, perhaps intervened on when the evidence came about.
        batch: what was seen; a site may be missing in some rows or in all.
        particles: draws a row, where something was not seen.
        method: a rung; by default the first that applies.

    Raises:
        ValueError: the evidence is impossible under the model, or the rung does not apply.

    Warns:
        RuntimeWarning: few effective particles or a heavy tail of weights, whose answer cannot be
            trusted.
    """
    _check(batch, method)
    sites = _sites(model, batch)
    _check_sites(sites)
    batch = Batch({k: x.to(_dtype(sites[k])) if k in sites else x for k, x in batch.items()})
    proposed = _proposed(model, batch) if model.latent else []
    unseen = [n for n, s in sites.items() if is_open(s) and (n not in batch or n + SEEN in batch)]
    n, seen = rows_of(batch), without(batch, unseen)
    start = Abduction("inversion", tuple(unseen), tuple(proposed), n, sites, seen)
    if not unseen:
        return start
    for rung in _rungs(model, start) if method == "auto" else (method,):
        found = RULES[rung](model, batch, start, particles)
        if found is not None:
            return _trusted(model, batch, found, particles, method)
    raise ValueError(_refusal(model, start, method))


def _sites(model: Model, batch: Batch) -> Mapping[str, Site]:
    """The sites, by a run of the program unless nothing new could be learned from one."""
    known = sites_of(model, 2) if isinstance(model, Structural) and model.walked else None
    sound = known is not None and all(
        name in known
        and x.shape[1:] == known[name].fn.event_shape
        and x.dtype == known[name].value.dtype
        for name, x in batch.items()
        if not name.endswith(SEEN)
    )
    return known if known is not None and sound else factual(model, batch, {})


def _dtype(site: Site) -> torch.dtype:
    """The dtype of the values of a site: whole numbers are numbers, where they are no levels."""
    kept = levels_of(site) or site.value.is_floating_point()
    return site.value.dtype if kept else dtype_of(site.fn)


def _rungs(model: Model, start: Abduction) -> tuple[Rung, ...]:
    """The rungs to try, the exact ones first."""
    return ("linear-Gaussian", "enumeration", "guide" if start.proposed else "importance")


def _trusted(
    model: Model, batch: Batch, found: Abduction, particles: int, method: Method
) -> Abduction:
    """Climbs to NUTS in the rows whose weights have a heavy tail, if they are few; else warns."""
    if found.ess is None or found.k is None:
        return found
    heavy, few = found.k > _HEAVY, found.ess < _FEW - 1e-3
    rows = (heavy | few).nonzero().flatten()
    if not len(rows):
        return found
    open_ = [found.sites[name] for name in found.unseen]
    smooth = all(s.rows and not is_finite(s) and s.value.is_floating_point() for s in open_)
    small = len(rows) * len(found.unseen) <= _OPEN
    if method == "auto" and found.rung == "importance" and smooth and small:
        part = take(batch, rows)
        if _seconds(model, part) < _PATIENCE:
            return _climbed(model, part, found, rows, particles)
    warnings.warn(
        f"In {len(rows)} of {found.n} rows the weights of the draws are too uneven to trust: fewer "
        f"than {_FEW} particles carry the weight in {int(few.sum())} (least "
        f"{float(found.ess.min()):.1f}), and k-hat is above {_HEAVY} in {int(heavy.sum())}. The "
        "proposal misses the posterior there, and the spread of the answer is too small. Take more "
        'particles=, train the guide longer, or use method="NUTS".',
        RuntimeWarning,
        stacklevel=5,
    )
    return found


def _climbed(
    model: Model, batch: Batch, found: Abduction, rows: Tensor, particles: int
) -> Abduction:
    """Draws by chains in place of those of some rows, which are the `batch`."""
    assert found.ess is not None
    assert found.k is not None
    part = replace(found, ess=None, k=None, n=len(rows))
    chains = run_chains(model, batch, part, particles)
    if len(rows) == found.n:
        return chains
    draws = {
        name: x.unflatten(0, (particles, found.n)).clone() for name, x in found.draws[0].items()
    }
    for name, x in chains.draws[0].items():
        draws[name][:, rows] = x.unflatten(0, (particles, len(rows)))
    ess, k = found.ess.clone(), found.k.clone()
    ess[rows], k[rows] = float(particles), torch.nan
    flat = {name: x.flatten(0, 1) for name, x in draws.items()}
    return replace(found, draws=(flat,), ess=ess, k=k, r_hat=chains.r_hat)


def _seconds(model: Model, batch: Batch) -> float:
    """About how long chains would take: a gradient costs three runs, and a draw many of those."""
    start = time.perf_counter()
    factual(model, batch, {})
    return 3 * _RUNS * (time.perf_counter() - start)


def _refusal(model: Model, start: Abduction, method: Method) -> str:
    open_ = listing([repr(name) for name in start.unseen])
    return (
        f"method={method!r} does not apply to {type(model).__name__} with {open_} unseen: "
        "inversion needs every site, linear-Gaussian an SCM of LinearGaussian mechanisms under "
        'interventions by value, enumeration discrete sites alone. Leave method="auto".'
    )


def _proposed(model: Model, batch: Batch) -> list[str]:
    """The latent sites that the guide proposes."""
    with Run() as guide:
        model.guide(rows_of(batch), **arguments(model, "guide", batch))
    return [name for name, site in guide.sites.items() if is_open(site) and name not in batch]


def _check(batch: Batch, method: Method) -> None:
    if method not in get_args(Method) and method not in get_args(Rung):
        raise ValueError(
            f"method is {method!r}; the rungs are {listing(list(get_args(Rung)))}, and 'auto' "
            "takes the first that applies."
        )
    if "clamped" in batch and bool(batch["clamped"].any()):
        raise ValueError(
            "Some cells of the evidence were clamped by an experiment: their values say nothing of "
            "the noise of their mechanism, so that there is nothing to abduct. Ask about rows in "
            "which nothing was clamped, or of causal.do(model, ...) about those in which it was."
        )


def _check_sites(sites: Mapping[str, Site]) -> None:
    for name, site in sites.items():
        if site.plates:
            raise ValueError(
                f"Site {name!r} stands in a plate inside the rows, whose noise is not followed "
                "yet. Give it that dimension with .to_event(1) instead of the plate."
            )
