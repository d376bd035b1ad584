"""The kernel: log p(x, z) - log q(z | x) of every row, for one draw of z from the guide.

Each program is run once, by one handler that gives the sites their values and keeps their terms by
row; nothing is summed over rows, so that bounds, importance weights, imputation, anomaly scores and
per-row gradients are all read off the same numbers (Burda et al. 2016, eq. 8, with one weight a
row). The terms of sites outside `rows` are kept apart. Discrete latents marked
`infer={"enumerate": "parallel"}` are summed out; missing cells are drawn from the model itself, so
that their density and their proposal cancel.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from jaxtyping import Float
from pyro.distributions import Delta
from torch import Tensor

from pgm.batch import SEEN, Batch, repeat, rows_of
from pgm.enumeration import Factor, draw_variables, sum_product
from pgm.model import Model, arguments
from pgm.sites import MAX_PLATES, Run, Site
from pgm.verb import Unsupported


@dataclass(frozen=True, eq=False)
class LogWeight:
    """Log importance weights in nats, by row, the terms of the shared sites apart.

    Attributes:
        rows: log p(x, z) - log q(z | x) of each row, shape (n,) or (particles, n).
        shared: the same for the sites outside `rows`, shape () or (particles,).
        score_rows: log q of those draws that have no reparameterised gradient, by row.
        score_shared: the same for the shared sites.
        values: what every site took, by name, rows first (or particles, rows).
        shared_sites: the names of the latent sites outside `rows`.
    """

    rows: Float[Tensor, "*particles n"]
    shared: Float[Tensor, "*particles"]
    score_rows: Float[Tensor, "*particles n"]
    score_shared: Float[Tensor, "*particles"]
    values: dict[str, Tensor]
    shared_sites: tuple[str, ...] = ()


def log_weight(
    model: Model,
    batch: Batch,
    *,
    particles: int | None = None,
    enumerated: Literal["sum", "draw"] = "sum",
    shared: Mapping[str, Tensor] | None = None,
) -> LogWeight:
    """Draws the latents from the guide once and weighs them; differentiable.

    The expectation of exp(rows) over draws is p(x) of each row (given the shared sites), so the
    mean of `rows` is the evidence lower bound.

    Args:
        model: any model.
        batch: observed sites and context, rows first (see `pgm.batch.as_batch`).
        particles: with K, every row is drawn K times: all shapes get a leading axis K. The rows of
            one particle share one draw of the shared sites.
        enumerated: the values reported for enumerated sites, and for what depends on them: all at
            once along their dimensions, or drawn from their posterior. The weights are the same.
        shared: values for the sites outside `rows`, instead of draws.

    Raises:
        ValueError: a key of the batch that is neither a site, context nor asked for by the guide;
            data or draws of another shape than their site's; particles below 1.
        Unsupported: a cell is missing from a site whose joint density cannot leave it out; with
            `particles`, a guide whose draws have no density by row.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> model, x = PPCA(3, 1), Batch(x=torch.zeros(2, 3))
        >>> log_weight(model, x, particles=4).rows.shape
        torch.Size([4, 2])
    """
    if particles is None:
        return _weigh(model, batch, *run_programs(model, batch, shared=shared), enumerated)
    if particles < 1:
        raise ValueError(f"particles is {particles}; every row is drawn once or more.")
    repeated = repeat(batch, particles)
    guide, joint = run_programs(model, repeated, shared=shared)
    check_proposals(guide, joint)
    if shared is not None or not any(site.shared for site in joint.sites.values()):
        weight = _weigh(model, repeated, guide, joint, enumerated)
        n, sites = rows_of(repeated), joint.sites.items()
        whole = [name for name, site in sites if _is_by_row(site, enumerated, n)]
        return _unfold(weight, particles, rows_of(batch), whole)
    return _stack([log_weight(model, batch, enumerated=enumerated) for _ in range(particles)])


def weigh_latents(
    model: Model,
    batch: Batch,
    latents: Mapping[str, Tensor],
    *,
    enumerated: Literal["sum", "draw"] = "sum",
) -> LogWeight:
    """As `log_weight`, at latents that are given and not proposed: log p(x, z) of every row.

    Args:
        model: any model.
        batch: observed sites and context.
        latents: values of all continuous latents.
        enumerated: as in `log_weight`.
    """
    return _weigh(model, batch, *run_programs(model, batch, latents), enumerated)


def run_programs(
    model: Model,
    batch: Batch,
    latents: Mapping[str, Tensor] | None = None,
    *,
    shared: Mapping[str, Tensor] | None = None,
) -> tuple[Run, Run]:
    """Runs the guide (unless `latents` are given), then the model on its draws and the batch.

    Args:
        model: any model.
        batch: observed sites and context.
        latents: draws of all latents, instead of the guide's.
        shared: values for sites outside `rows`, instead of the guide's or the model's draws.

    Returns:
        The run of the guide and the run of the model.
    """
    n = rows_of(batch)
    guide = Run(shared)
    if latents is None and model.latent:
        with guide:
            model.guide(n, **arguments(model, "guide", batch))
    draws = latents if latents is not None else {k: s.value for k, s in guide.sites.items()}
    joint = Run({**(shared or {}), **draws}, observed=batch, enumerate_sites=True)
    with joint:
        model.model(n, **arguments(model, "model", batch))
    check_keys(model, batch, joint)
    _check_guide(guide, joint)
    return guide, joint


def _weigh(
    model: Model, batch: Batch, guide: Run, joint: Run, enumerated: Literal["sum", "draw"]
) -> LogWeight:
    n = rows_of(batch)
    proposals, sites = list(guide.sites.values()), list(joint.sites.values())
    counted = [site for site in sites if not site.left_out]
    factors = [site.factor() for site in counted if site.rows]
    zero = factors[0].log_value.new_zeros(()) if factors else _zero(model)
    log_p = sum_product(factors, joint.variables) if joint.variables else _by_row(factors, zero)
    log_q = _by_row([site.factor() for site in proposals if site.rows], zero)
    shared = _total([s.log_prob() for s in counted if not s.rows], zero)
    shared_q = _total([s.log_prob() for s in proposals if not s.rows], zero)
    drawn = proposals + joint.upstream if torch.is_grad_enabled() else []  # else of no use
    scores = [(site, site.score()) for site in drawn]
    by_row = [Factor(s, site.plates) for site, s in scores if s is not None and site.rows]
    apart = [s for site, s in scores if s is not None and not site.rows]
    return LogWeight(
        (log_p - log_q).expand(n),
        shared - shared_q,
        _by_row(by_row, zero).expand(n),
        _total(apart, zero),
        _values(model, batch, joint, factors, enumerated),
        tuple(site.name for site in sites if site.shared),
    )


def _values(
    model: Model,
    batch: Batch,
    joint: Run,
    factors: list[Factor],
    enumerated: Literal["sum", "draw"],
) -> dict[str, Tensor]:
    """The values of all sites, with the rows first; those drawn at one index a row.

    What is computed from sites is computed anew from those that were drawn: its dimensions do not
    say which of them belong to its event.
    """
    sites = joint.sites
    if enumerated == "draw" and joint.variables:
        drawn = draw_variables(factors, joint.variables)
        chosen = {k: _chosen(s, drawn) for k, s in sites.items() if not s.deterministic}
        if len(chosen) < len(sites):
            with Run(chosen) as run:
                model.model(rows_of(batch), **arguments(model, "model", batch))
            chosen |= {k: run.sites[k].value for k, s in sites.items() if s.deterministic}
        sites = {k: replace(s, value=chosen[k]) for k, s in sites.items()}
    return {k: s.rows_first if s.rows else s.value for k, s in sites.items()}


def _chosen(site: Site, drawn: dict[int, Tensor]) -> Tensor:
    """A site's value at the drawn indices."""
    value, event_dim = site.value, site.fn.event_dim
    for dim, index in drawn.items():
        if value.dim() - event_dim >= -dim:
            value = value[(None,) * (index.dim() + event_dim - value.dim())]
            along = index.reshape(index.shape + (1,) * event_dim)
            if value.shape[dim - event_dim] == 1:
                along = torch.zeros_like(along)
            value = torch.take_along_dim(value, along, dim - event_dim)
    if not site.rows:
        return value
    batch_dims = -min(site.plates, default=-1)
    return value.reshape(value.shape[value.dim() - event_dim - batch_dims :])


def _zero(model: Model) -> Tensor:
    return torch.zeros((), device=model.device, dtype=model.dtype)


def _by_row(factors: list[Factor], zero: Tensor) -> Tensor:
    """The sum of the factors over everything but the rows."""
    total = zero
    for log_value, _ in factors:
        inner = log_value.dim() > 1
        total = total + (log_value.flatten(0, -2).sum(0) if inner else log_value)
    return total


def _total(log_probs: list[Tensor], zero: Tensor) -> Tensor:
    return sum((log_prob.sum() for log_prob in log_probs), start=zero)


def _is_by_row(site: Site, enumerated: Literal["sum", "draw"], n: int) -> bool:
    """Whether a site's value has one entry a row, and not all values along a dimension."""
    if site.deterministic:
        return site.rows and site.value.shape[:1] == (n,)
    dims = site.value.dim() - site.fn.event_dim
    return site.rows and dims > 0 and (dims <= MAX_PLATES or enumerated == "draw")


def _unfold(weight: LogWeight, particles: int, n: int, whole: list[str]) -> LogWeight:
    """Rows that were repeated as (particles, n); `whole` are the values that have one a row."""

    def unfold(value: Tensor) -> Tensor:
        return value.reshape(particles, n, *value.shape[1:])

    return LogWeight(
        unfold(weight.rows),
        weight.shared.expand(particles),
        unfold(weight.score_rows),
        weight.score_shared.expand(particles),
        {name: unfold(v) if name in whole else v for name, v in weight.values.items()},
        weight.shared_sites,
    )


def _stack(weights: list[LogWeight]) -> LogWeight:
    tensors = [f.name for f in fields(LogWeight) if f.name not in ("values", "shared_sites")]
    stacked = {name: torch.stack([getattr(w, name) for w in weights]) for name in tensors}
    values = {name: torch.stack([w.values[name] for w in weights]) for name in weights[0].values}
    return LogWeight(**stacked, values=values, shared_sites=weights[0].shared_sites)


def check_keys(model: Model, batch: Batch, joint: Run) -> None:
    """Every key of a batch has a meaning, or the data would be ignored in silence."""
    known = {*model.context, *model.wants, *joint.sites}
    known |= {name + SEEN for name in known if name in batch}
    unknown = [k for k in batch if k not in known]
    if unknown:
        raise ValueError(
            f"The batch has {', '.join(map(repr, unknown))}, which {type(model).__name__} does not "
            f"know: its sites are {', '.join(joint.sites)}"
            + (f", its context {', '.join(model.context)}" if model.context else "")
            + ". Rename the key, or leave it out."
        )


def _check_guide(guide: Run, joint: Run) -> None:
    """Every proposal is weighed against a site of the model that belongs to as many rows."""
    for name, site in guide.sites.items():
        if site.observed or site.infer.get("is_auxiliary"):
            continue
        if name not in joint.sites:
            raise ValueError(
                f"The guide samples {name!r}, which the model does not have (it has "
                f"{', '.join(joint.sites)}): its density would be subtracted from nothing. Rename "
                "it or remove it."
            )
        if site.rows != joint.sites[name].rows:
            where = ("inside", "outside") if site.rows else ("outside", "inside")
            raise ValueError(
                f"Site {name!r} stands {where[0]} `rows` in the guide, but {where[1]} in the "
                "model, so that no row has a weight of its own. Put it in the same place in both."
            )


def check_proposals(guide: Run, joint: Run) -> None:
    """Weights by row need a proposal with a density by row.

    Raises:
        Unsupported: the guide draws all rows at once, or proposes a single point.
    """
    auxiliary = [site for site in guide.sites.values() if site.infer.get("is_auxiliary")]
    rows = [site for site in guide.sites.values() if site.rows and not site.observed]
    for site in auxiliary:
        if not site.rows and rows:
            raise Unsupported(
                f"The guide draws the latents of all rows at once (site {site.name!r}), so that no "
                "row has a weight of its own. Use a guide by row, such as AutoNormal or one that "
                "looks at the row (a VAE's), or pgm.inference.variational for all rows together."
            )
    for site in rows:
        point = isinstance(site.fn, Delta) and not isinstance(joint.sites[site.name].fn, Delta)
        if point and not auxiliary and site.value.is_floating_point():
            raise Unsupported(
                f"The guide proposes a single point for site {site.name!r}: a point has no density "
                "to weigh p(x, z) by, and p(x, z) is no density of x. Use a guide with a spread, "
                "such as AutoNormal; with a point, pgm.objective is the loss of the MAP estimate."
            )
