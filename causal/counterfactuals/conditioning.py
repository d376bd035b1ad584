"""Conditioning: all sites given evidence, in the world of a model, which may be under `do`.

p(x | do(a), e): the evidence is seen in the world in which a was done, before or after it, so that
evidence downstream of the intervention is taken as such (Pearl 2009, Causality, sec. 1.4). It is
found by the rungs of `abduction`, exactly where the model allows it. What would have been in rows
that were seen without the intervention is another question: `causal.counterfactual`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from causal.counterfactuals import gaussian
from causal.counterfactuals.abduction import Method, abduct
from causal.counterfactuals.answers import Conditional
from causal.counterfactuals.evidence import Abduction, Enumerated, levels_of
from causal.counterfactuals.worlds import Units, value_of
from causal.interventions.actions import encode, words
from causal.interventions.handler import INTERVENED, unwrap
from causal.interventions.sites import asking
from causal.outcomes import categories
from causal.scm import check_trained
from causal.structural import Structural
from pgm import Model, log_weight
from pgm.batch import SEEN, Batch, repeat
from pgm.verb import prepare


def condition(
    model: Model,
    evidence: Any,
    *,
    particles: int = 1000,
    method: Method = "auto",
    seed: int | None = None,
) -> Conditional:
    """All sites of a model given evidence.

    Args:
        model: any model; `causal.do(model, ...)` for the world of an intervention.
        evidence: rows in any form, or one value by site, in the user's words where the model has
            a schema: `{"E": 3.0}`. What is left out, or missing, is drawn.
        particles: draws a row.
        method: a rung, instead of the first that applies: see `causal.counterfactuals.abduction`.
        seed: of the draws.

    Returns:
        Draws of all sites, (particles, n), and their exact law in a linear-Gaussian model.

    Raises:
        ValueError: a site that the model does not have, or evidence of density zero.

    Warns:
        RuntimeWarning: weights of the particles that are too uneven to trust.

    Example:
        >>> from causal import SCM, LinearGaussian, do
        >>> scm = SCM("A -> B -> C", B=LinearGaussian({"A": 1.0}), C=LinearGaussian({"B": 1.0}))
        >>> condition(do(scm, A=2.0), {"C": 4.0}).mean()["B"]
        tensor([3.])
    """
    batch = prepare(model, evidence_rows(model, evidence))
    base, done = unwrap(model)
    if isinstance(base, Structural):
        check_trained(base, set(base.nodes) - set(done))
    with asking(model, seed):
        found = abduct(model, batch, particles=particles, method=method)
        rows = Batch(repeat(found.batch, found.copies))
        units = [Units(model, rows, z, None) for z in found.draws]
        sites = units[0].sites
        draws = {
            name: torch.cat([value_of(each.sites[name], found.copies, found.n) for each in units])
            for name in sites
        }
        known = _probabilities(model, batch, found) if found.rung == "enumeration" else {}
    system = gaussian.system(model) if found.noise is not None else None
    how = {name: f"drawn: {found.rung}" if name in found.unseen else "seen" for name in sites}
    how |= {name: "computed from the others" for name, s in sites.items() if s.deterministic}
    how |= {k: "set by do" for k, s in sites.items() if s.infer.get(INTERVENED) == "value"}
    return Conditional(
        draws=Batch(draws),
        how=how,
        do=words(base.schema, done),
        levels={name: levels_of(site) for name, site in sites.items()},
        rung=found.rung,
        ess=found.ess,
        k=found.k,
        r_hat=found.r_hat,
        law=None if system is None else gaussian.law(system, *found.noise),  # type: ignore[misc]
        schema=model.schema,
        note=model.note,
        shared=frozenset(name for name, site in sites.items() if not site.rows),
        probabilities=known,
    )


def _probabilities(model: Model, batch: Batch, found: Abduction) -> dict[str, Float[Tensor, "n k"]]:
    """P(site = j | evidence) = p(j, evidence) / p(evidence) of every site that was summed out."""

    def log_p(rows: Batch) -> Float[Tensor, " n"]:
        return log_weight(Enumerated(model, list(found.unseen)), rows).rows

    evidence, known = log_p(batch), {}
    for name in found.unseen:
        site = found.sites[name]
        seen = batch.get(name + SEEN, torch.zeros_like(evidence, dtype=torch.bool))
        x = batch.get(name, torch.zeros_like(evidence)).to(site.value)
        rows = Batch({key: v for key, v in batch.items() if key != name + SEEN})
        levels = torch.arange(categories(site.fn)).to(site.value)
        joint = [log_p(Batch(rows | {name: torch.where(seen, x, j)})) for j in levels]
        odds = (torch.stack(joint, -1) - evidence[:, None]).exp()
        known[name] = torch.where(seen[:, None], (x[:, None] == levels).to(odds), odds)
    return known


def evidence_rows(model: Model, evidence: Any) -> Any:
    """Evidence of single values as one row; of a frame, the columns that it has."""
    if type(evidence).__module__.partition(".")[0] == "pandas":
        return _columns(model, evidence)
    if isinstance(evidence, Batch) or not isinstance(evidence, Mapping):
        return evidence
    return {
        name: x if isinstance(x, Tensor) and x.dim() else _row(model, name, x)
        for name, x in evidence.items()
    }


def _columns(model: Model, frame: Any) -> Any:
    """A frame that lacks columns of the schema, read by the schema of those that it has."""
    if model.schema is None or model.schema.site is not None:
        return frame
    names = list(getattr(frame, "columns", ()))
    known = [name for name in model.schema.columns if name in names]
    if not known or set(known) != set(names):
        return frame
    return model.schema.select(known).encode(frame, all_missing="keep")


def _row(model: Model, name: str, value: Any) -> Any:
    if isinstance(value, bool | int | float | str) or (
        isinstance(value, Tensor) and not value.dim()
    ):
        said = encode(model, name, value)
        assert isinstance(said, Tensor)
        return said[None]
    return value
