"""The rungs of the ladder: each completes rows by draws of what was not seen, or does not apply.

*Linear-Gaussian* conditioning and the *enumeration* of discrete sites are exact. *Importance*
resamples draws from the program, or from a *guide*, in proportion to p(x, z) / q(z | x) (Rubin
1987); k-hat tells how far the weights can be trusted (Vehtari et al. 2024). *NUTS* runs chains over
the unseen sites of rows with the same sites unseen.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from causal.counterfactuals import gaussian
from causal.counterfactuals.evidence import Abduction, Enumerated, Rung, is_finite, without
from pgm import Model, log_weight
from pgm.batch import SEEN, Batch, rows_of, take
from pgm.randomness import fresh_seed

GAUGED = 200
"""Rows whose k-hat is computed, those with the fewest effective particles."""
MOST_SUMMED = 20
"""Unseen discrete sites that are summed out, at most."""
SHORTEST = 300
"""Draws a chain, at least."""

Rule = Callable[[Model, Batch, Abduction, int], Abduction | None]


_ROUNDING = 1e-3
"""Differences of log weights that may be of float32 sums alone, and that change no draw."""


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
    if start.proposed or len(start.unseen) > MOST_SUMMED:
        return None
    if not all(is_finite(start.sites[name]) for name in start.unseen):
        return None
    return _resampled(model, batch, replace(start, rung="enumeration"), particles)


def _weighted(model: Model, batch: Batch, start: Abduction, particles: int) -> Abduction:
    """Draws in proportion to their weights; what is discrete is still summed out."""
    rung: Rung = "guide" if start.proposed else "importance"
    return _resampled(model, batch, replace(start, rung=rung), particles)


def _resampled(model: Model, batch: Batch, start: Abduction, particles: int) -> Abduction:
    """Draws the unseen sites by their weights p(x, z) / q(z | x)."""
    discrete = [name for name in start.unseen if is_finite(start.sites[name])]
    summed = [name for name in discrete if name not in start.proposed][:MOST_SUMMED]
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
    """k-hat of the rows with the fewest effective particles, NaN for the others.

    Where evidence tells draws apart by no more than rounding, as that of roots alone, there is no
    tail either.
    """
    from pgm.inference import pareto_k

    k = torch.full_like(ess, torch.nan)
    if len(log_w) >= 25:  # fewer have no tail to fit
        worst = ess.argsort()[:GAUGED]
        even = log_w.max(0).values - log_w.min(0).values < _ROUNDING
        k[worst] = pareto_k(log_w[:, worst]).to(k)
        k[even] = torch.nan
    return k


def run_chains(model: Model, batch: Batch, start: Abduction, particles: int) -> Abduction:
    """NUTS over the unseen sites, for rows with the same sites unseen at a time."""
    from pgm.inference import mcmc

    n, chains = rows_of(batch), 2
    values = {name: torch.empty(0) for name in start.unseen}
    r_hat = 1.0
    for index, unseen in _patterns(batch, start.unseen):
        part = without(take(batch, index), unseen)
        part = Batch({key: x for key, x in part.items() if not key.endswith(SEEN)})
        draws = max(-(-particles // chains), SHORTEST)
        with torch.enable_grad():
            options: dict[str, Any] = {"draws": draws, "chains": chains, "backend": "ts"}
            found = mcmc(model, part, seed=fresh_seed(), **options)
        kept = torch.linspace(0, chains * draws - 1, particles).round().long()
        table = found.summary()
        r_hat = max(r_hat, float(table["r_hat"].max()))
        for name in start.unseen:
            site = start.sites[name]
            if not len(values[name]):
                shape = (particles, n, *site.value.shape[1:])
                known = batch.get(name, site.value.new_zeros(shape[1:])).to(site.value)
                values[name] = known.expand(shape).clone()
            if name in unseen:
                drawn = found.draws[name].flatten(0, 1).cpu()[kept]
                values[name][:, index] = drawn.to(site.value)
    flat = {name: v.flatten(0, 1) for name, v in values.items()}
    return replace(start, rung="NUTS", draws=(flat,), particles=particles, r_hat=r_hat)


def _patterns(batch: Batch, unseen: tuple[str, ...]) -> list[tuple[Tensor, list[str]]]:
    """The rows by which sites they lack."""
    n, device = rows_of(batch), next(iter(batch.values())).device
    lacks = torch.stack(
        [
            ~batch[name + SEEN].reshape(n, -1).all(1)
            if name + SEEN in batch
            else torch.full((n,), name not in batch, device=device)
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


RULES: dict[str, Rule] = {
    "inversion": _nothing,
    "linear-Gaussian": _conditioned,
    "enumeration": _enumerated,
    "importance": _weighted,
    "guide": _weighted,
    "NUTS": run_chains,
}
