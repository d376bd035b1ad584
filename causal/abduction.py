"""Abduction: what was not seen in a row, given what was, by the first rung that is exact.

The rungs, from exact to approximate: *inversion*, where every site was seen; *linear-Gaussian*
conditioning; *enumeration* of unseen discrete sites; *importance* resampling of draws from the
program in proportion to the density of what was seen (Rubin 1987), or *guide*, of draws from the
guide; and *NUTS* over the unseen sites. The noise of a site follows from its value and its
parents', so that a draw of the unseen sites is a draw of the noise.
"""

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from pyro.poutine.messenger import Messenger
from torch import Tensor

from causal import gaussian
from causal.actions import sites_of
from causal.interventions import INTERVENED
from causal.outcomes import categories
from causal.scm import SCM
from pgm import Model, log_weight
from pgm.batch import SEEN, Batch, rows_of, take
from pgm.handlers import Handled
from pgm.model import arguments
from pgm.randomness import fresh_seed
from pgm.schema.columns import listing
from pgm.sites import Run, Site
from pgm.weights import check_keys

Rung = Literal["inversion", "linear-Gaussian", "enumeration", "importance", "guide", "NUTS"]
Method = Literal["auto", Rung]

_FEW = 10
"""Effective particles below which an answer is warned about."""
_HEAVY = 0.7
"""k-hat above which weights cannot be trusted (Vehtari et al. 2024)."""
_GAUGED = 200
"""Rows whose k-hat is computed, those with the fewest effective particles."""
_SITES = 20
"""Unseen discrete sites that are summed out, at most."""
_NUTS = 64
"""Open cells up to which chains are run without being asked for."""
_CHAIN = 300
"""Draws a chain, at least."""


@dataclass(frozen=True, eq=False)
class Abduction:
    """Rows completed by draws of what was not seen.

    Attributes:
        rung: how they were drawn.
        unseen: the sites that were not seen, or not in every row.
        proposed: those of them that the guide proposes.
        n: rows of the evidence.
        sites: all sites of one run of the program on the evidence.
        batch: the evidence without the unseen sites, n rows.
        draws: values of the unseen sites, one dict a run of the program; row i of copy k is row
            k n + i.
        particles: draws a row.
        ess: effective number of particles behind each row, where draws were weighted.
        k: Pareto's k-hat of the weights of each row, where it was computed, else NaN.
        noise: mean and covariance of the noise in a linear-Gaussian model.
        r_hat: the largest R-hat of the chains.
    """

    rung: Rung
    unseen: tuple[str, ...]
    proposed: tuple[str, ...]
    n: int
    sites: Mapping[str, Site]
    batch: Batch
    draws: tuple[Mapping[str, Tensor], ...] = field(default=({},))
    particles: int = 1
    ess: Float[Tensor, " n"] | None = None
    k: Float[Tensor, " n"] | None = None
    noise: tuple[Tensor, Tensor] | None = None
    r_hat: float | None = None

    @property
    def copies(self) -> int:
        """How many times each row stands in one run of the program."""
        return self.particles // len(self.draws)


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
    batch = Batch({k: x.to(sites[k].value.dtype) if k in sites else x for k, x in batch.items()})
    proposed = _proposed(model, batch) if model.latent else []
    unseen = [n for n, s in sites.items() if _is_open(s) and (n not in batch or n + SEEN in batch)]
    n, seen = rows_of(batch), without(batch, unseen)
    start = Abduction("inversion", tuple(unseen), tuple(proposed), n, sites, seen)
    if not unseen:
        return start
    for rung in _rungs(model, start) if method == "auto" else (method,):
        found = _RULES[rung](model, batch, start, particles)
        if found is not None:
            return _trusted(model, batch, found, particles, method)
    raise ValueError(_refusal(model, start, method))


def factual(
    model: Model, batch: Mapping[str, Tensor], latents: Mapping[str, Tensor]
) -> dict[str, Site]:
    """The sites of the program, run on the evidence and on draws of what was not seen."""
    with Run(latents, observed=batch) as run:
        model.model(rows_of(batch or latents), **arguments(model, "model", batch))
    check_keys(model, Batch(batch), run)
    return run.sites


def _sites(model: Model, batch: Batch) -> Mapping[str, Site]:
    """The sites, by a run of the program unless nothing new could be learned from one."""
    known = sites_of(model, 2) if isinstance(model, SCM) else None
    sound = known is not None and all(
        name in known
        and x.shape[1:] == known[name].fn.event_shape
        and x.dtype == known[name].value.dtype
        for name, x in batch.items()
        if not name.endswith(SEEN)
    )
    return known if known is not None and sound else factual(model, batch, {})


def without(batch: Batch, names: list[str]) -> Batch:
    """The batch without some sites and their masks."""
    gone = {key for name in names for key in (name, name + SEEN)}
    return Batch({key: x for key, x in batch.items() if key not in gone})


class Enumerated(Handled):
    """A model in which some discrete sites are summed out.

    Args:
        base: the model.
        names: the sites.
    """

    def __init__(self, base: Model, names: list[str]) -> None:
        super().__init__(base)
        self.names = names

    def handler(self, program: str) -> AbstractContextManager[Any]:
        """Marks the sites for enumeration."""
        return _Marked(self.names)


class _Marked(Messenger):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["infer"] = msg["infer"] | {"enumerate": "parallel"}


def _rungs(model: Model, start: Abduction) -> tuple[Rung, ...]:
    """The rungs to try, the exact ones first."""
    return ("linear-Gaussian", "enumeration", "guide" if start.proposed else "importance")


def _nothing(model: Model, batch: Batch, start: Abduction, particles: int) -> None:
    """Inversion does not apply: something was not seen."""


def _conditioned(model: Model, batch: Batch, start: Abduction, particles: int) -> Abduction | None:
    """Exact draws from a linear-Gaussian model, and the law of its noise."""
    system = gaussian.system(model)
    if system is None:
        return None
    n = rows_of(batch)
    zero = torch.zeros(n)
    x = torch.stack([batch.get(node, zero).double().cpu() for node in system.nodes], 1)
    seen = torch.stack(
        [batch.get(node + SEEN, torch.full((n,), node in batch)).cpu() for node in system.nodes],
        1,
    )
    mean, covariance = gaussian.posterior(system, x, seen)
    drawn = torch.where(seen, x, system.solve(gaussian.draw(mean, covariance, particles)))
    values = {
        node: drawn[..., i].flatten().to(start.sites[node].value)
        for i, node in enumerate(system.nodes)
        if node in start.unseen
    }
    return replace(
        start,
        rung="linear-Gaussian",
        draws=(values,),
        particles=particles,
        noise=(mean, covariance),
    )


def _enumerated(model: Model, batch: Batch, start: Abduction, particles: int) -> Abduction | None:
    """Exact draws where all that was not seen is discrete."""
    if start.proposed or len(start.unseen) > _SITES:
        return None
    if not all(_finite(start.sites[name]) for name in start.unseen):
        return None
    return _resampled(model, batch, replace(start, rung="enumeration"), particles)


def _weighted(model: Model, batch: Batch, start: Abduction, particles: int) -> Abduction:
    """Draws in proportion to their weights; what is discrete is still summed out."""
    rung: Rung = "guide" if start.proposed else "importance"
    return _resampled(model, batch, replace(start, rung=rung), particles)


def _resampled(model: Model, batch: Batch, start: Abduction, particles: int) -> Abduction:
    """Draws the unseen sites by their weights p(x, z) / q(z | x)."""
    discrete = [name for name in start.unseen if _finite(start.sites[name])]
    summed = [name for name in discrete if name not in start.proposed][:_SITES]
    marked = Enumerated(model, summed) if summed else model
    weight = log_weight(marked, batch, particles=particles, enumerated="draw")
    log_w = weight.rows + weight.shared[:, None]
    if weight.shared_sites:  # all rows of a particle share one draw, and so one weight
        log_w = (weight.rows.sum(1) + weight.shared)[:, None]
    if not bool(torch.isfinite(log_w.max(0).values).all()):
        raise ValueError(
            "The evidence has density zero under the model for every draw of what was not seen: "
            "it cannot have come from this model. Check the rows, or train the model and its "
            "guide longer."
        )
    w = torch.softmax(log_w, 0)
    chosen: Int[Tensor, "particles columns"] = torch.multinomial(w.T, particles, replacement=True).T
    if start.rung == "enumeration":  # all weights are alike, and each draw is kept
        chosen = torch.arange(particles, device=w.device)[:, None].expand_as(chosen)
    values = {name: weight.values[name] for name in start.unseen}
    n = rows_of(batch)
    if weight.shared_sites:
        draws = tuple({m: v[k] for m, v in values.items()} for k in chosen[:, 0].tolist())
    else:
        i = torch.arange(n, device=w.device)
        draws = ({name: v[chosen, i].flatten(0, 1) for name, v in values.items()},)
    found = replace(start, draws=draws, particles=particles)
    if start.rung == "enumeration":
        return found
    ess = 1 / w.square().sum(0)
    return replace(found, ess=ess.expand(n), k=_tails(log_w, ess).expand(n))


def _tails(log_w: Float[Tensor, "particles n"], ess: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """k-hat of the rows with the fewest effective particles, NaN for the others."""
    from pgm.inference import pareto_k

    k = torch.full_like(ess, torch.nan)
    if len(log_w) >= 25:  # fewer have no tail to fit
        worst = ess.argsort()[:_GAUGED]
        k[worst] = pareto_k(log_w[:, worst]).to(k)
    return k


def _sampled(model: Model, batch: Batch, start: Abduction, particles: int) -> Abduction:
    """NUTS over the unseen sites, for rows with the same sites unseen at a time."""
    from pgm.inference import mcmc

    n, chains = rows_of(batch), 2
    values = {name: torch.empty(0) for name in start.unseen}
    r_hat = 1.0
    for index, unseen in _patterns(batch, start.unseen):
        part = without(take(batch, index), unseen)
        part = Batch({key: x for key, x in part.items() if not key.endswith(SEEN)})
        draws = max(-(-particles // chains), _CHAIN)
        with torch.enable_grad():
            found = mcmc(model, part, draws=draws, chains=chains, seed=fresh_seed())
        kept = torch.linspace(0, chains * draws - 1, particles).round().long()
        table = found.summary()
        r_hat = max(r_hat, float(table["r_hat"].max()))
        for name in start.unseen:
            site = start.sites[name]
            if not len(values[name]):
                shape = (particles, n, *site.value.shape[1:])
                known = batch.get(name, torch.zeros(shape[1:])).to(site.value)
                values[name] = known.expand(shape).clone()
            if name in unseen:
                drawn = found.draws[name].flatten(0, 1)[kept]
                values[name][:, index] = drawn.to(site.value)
    flat = {name: v.flatten(0, 1) for name, v in values.items()}
    return replace(start, rung="NUTS", draws=(flat,), particles=particles, r_hat=r_hat)


def _patterns(batch: Batch, unseen: tuple[str, ...]) -> list[tuple[Tensor, list[str]]]:
    """The rows by which sites they lack."""
    n = rows_of(batch)
    lacks = torch.stack(
        [
            ~batch[name + SEEN].reshape(n, -1).all(1)
            if name + SEEN in batch
            else torch.full((n,), name not in batch)
            for name in unseen
        ],
        1,
    )
    patterns, which = torch.unique(lacks, dim=0, return_inverse=True)
    return [
        (
            (which == k).nonzero().flatten(),
            [m for m, gone in zip(unseen, p.tolist(), strict=True) if gone],
        )
        for k, p in enumerate(patterns)
    ]


_RULES: dict[str, Any] = {
    "inversion": _nothing,
    "linear-Gaussian": _conditioned,
    "enumeration": _enumerated,
    "importance": _weighted,
    "guide": _weighted,
    "NUTS": _sampled,
}


def _trusted(
    model: Model, batch: Batch, found: Abduction, particles: int, method: Method
) -> Abduction:
    """Climbs to NUTS where the weights have a heavy tail and few sites are open; else warns."""
    if found.ess is None or found.k is None:
        return found
    heavy = int((found.k > _HEAVY).sum())
    few = int((found.ess < _FEW).sum())
    if not heavy and not few:
        return found
    size = rows_of(batch) * len(found.unseen)
    open_ = [found.sites[name] for name in found.unseen]
    smooth = all(s.rows and not _finite(s) and s.value.is_floating_point() for s in open_)
    if method == "auto" and found.rung == "importance" and smooth and size <= _NUTS:
        return _sampled(model, batch, replace(found, ess=None, k=None), particles)
    warnings.warn(
        f"In {max(few, heavy)} of {rows_of(batch)} rows the weights of the draws are too uneven to "
        f"trust: fewer than {_FEW} particles carry the weight in {few} (least "
        f"{float(found.ess.min()):.1f}), and k-hat is above {_HEAVY} in {heavy}. The proposal "
        "misses the posterior there, and the spread of the answer is too small. Take more "
        'particles=, train the guide longer, or use method="NUTS".',
        RuntimeWarning,
        stacklevel=5,
    )
    return found


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
    return [name for name, site in guide.sites.items() if _is_open(site) and name not in batch]


def _is_open(site: Site) -> bool:
    """Whether a site is random, and so has a noise."""
    return not site.deterministic and site.infer.get(INTERVENED) != "value"


def _finite(site: Site) -> bool:
    return categories(site.fn) > 0 and site.rows and not site.plates


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
