"""Counterfactuals: what would have been in the very rows that were seen, had something else been.

Abduction, action, prediction (Pearl 2009, Causality, thm. 7.1.7), through the noise form
x = push(dist, u) of every site: the program is run on the evidence and each site's noise pulled out
of it; the interventions replace mechanisms; the program is run again on the same noise. It works on
any program, an `SCM` or not. Latent sites come from the guide, resampled in proportion to their
weights p(x, z) / q(z | x) (Rubin 1987); nothing is ever drawn afresh in silence.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent

from causal.actions import Action, asking, show
from causal.answers import Counterfactual
from causal.interventions import INTERVENED, Intervened, do
from causal.outcomes import categories
from pgm import Model, log_weight
from pgm import noise as forms
from pgm.batch import SEEN, Batch, repeat, rows_of
from pgm.model import arguments
from pgm.sites import Run, Site
from pgm.verb import prepare
from pgm.weights import check_keys

_FEW = 10
"""Effective particles below which an answer is warned about."""

_do = do  # `counterfactual` has an argument of that name


def counterfactual(
    model: Model,
    evidence: Any,
    *,
    do: Mapping[str, Any],
    particles: int = 200,
    coupling: str | None = None,
    seed: int | None = None,
) -> Counterfactual:
    """The rows of the evidence as they would have been under an intervention.

    Where all sites were seen and are continuous the answer is exact, and one particle is enough.
    A discrete site leaves its noise open: its particles are draws from p(noise | evidence) under
    the named coupling. Data cannot tell couplings apart, and the answer says so.

    Args:
        model: any model of all sites; latent ones have a guide.
        evidence: complete rows in any form, with every site that has no guide.
        do: interventions by site, as in `causal.do`. A Distribution is drawn from afresh: its
            randomness is the policy's own.
        particles: draws a row, where the noise is not fixed by the evidence.
        coupling: of discrete sites that have it (see `pgm.noise.couplings`); by default each
            site's first.
        seed: of the draws.

    Returns:
        All sites under the intervention, and how the noise of each was found.

    Raises:
        ValueError: a site neither in the evidence nor proposed by a guide; missing or clamped
            cells; evidence of density zero; a site whose distribution is of another kind under the
            intervention.
        NoNoiseForm: a distribution without a noise form.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> scm = SCM("x -> y", y=LinearGaussian({"x": 2.0}))
        >>> seen = {"x": torch.tensor([1.0]), "y": torch.tensor([3.0])}
        >>> print(counterfactual(scm, seen, do={"x": 0.0}))
        Counterfactual under do(x=0): 1 row, exact
          x  set by do
          y  exact inversion
        >>> counterfactual(scm, seen, do={"x": 0.0}).draws["y"]
        tensor([[1.]])
    """
    if particles < 1:
        raise ValueError(f"particles is {particles}; at least one draw a row is needed.")
    acted = _do(model, do)
    batch = prepare(model, evidence)
    _check_evidence(batch)
    with asking(acted, seed):
        sites = _factual(model, batch, {})
        proposed = _proposed(model, batch)
        _check_known(model, sites, proposed)
        laws = _laws(acted, batch, do)
        left = [site for name, site in sites.items() if name not in do]
        random = proposed or laws or any(_open(site) for site in left)
        copies = particles if random else 1
        latents, ess = _resample(model, batch, proposed, copies)
        times = copies // len(latents)
        pair = (_repeated(model, times, sites), _repeated(acted, times, sites))
        worlds = [_world(*pair, repeat(batch, times), z, set(do), coupling) for z in latents]
    n = rows_of(batch)
    values = [{name: _value(site, times, n) for name, site in w.sites.items()} for w in worlds]
    return Counterfactual(
        Batch({name: torch.cat([v[name] for v in values]) for name in values[0]}),
        {name: _how(name, site, do, laws, proposed, coupling) for name, site in sites.items()},
        {name: show(model.schema, name, acted.values[name]) for name in do},
        {name: categories(site.fn) for name, site in sites.items()},
        ess,
        model.schema,
        model.note,
    )


class _Prediction(Run):
    """Runs a program on given noise instead of new draws.

    Args:
        noise: by site.
        factual: the sites of the run from which the noise was pulled.
        fresh: sites whose draws are the intervention's own.
        coupling: as the noise was pulled with.
    """

    def __init__(
        self,
        noise: Mapping[str, Any],
        factual: Mapping[str, Site],
        fresh: set[str],
        coupling: str | None,
    ) -> None:
        super().__init__()
        self.noise, self.factual, self.fresh, self.coupling = noise, factual, fresh, coupling

    def _pyro_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        if site_is_subsample(msg) or msg["done"] or name in self.fresh:
            return
        if msg["infer"].get("_deterministic"):
            return
        if msg["is_observed"]:
            raise ValueError(
                f"Site {name!r} has obs= inside the program, so that it keeps its value whatever "
                "is done. Bring the program in with pgm.from_pyro, and pass the data as evidence."
            )
        if name not in self.noise or _kind(fn) is not _kind(self.factual[name].fn):
            before = self.factual[name].fn if name in self.noise else None
            raise ValueError(
                f"Under the intervention site {name!r} is a {_kind(fn).__name__}, but in the "
                f"evidence it was {'absent' if before is None else 'a ' + _kind(before).__name__}: "
                "the noise of the one says nothing of the other, and a fresh draw would be no "
                "counterfactual. Write the program with one distribution at each site."
            )
        msg["value"] = forms.push(fn, self.noise[name], coupling=_coupling(fn, self.coupling))
        msg["done"] = True


def _world(
    model: Model,
    acted: Model,
    batch: Batch,
    latents: Mapping[str, Tensor],
    fresh: set[str],
    coupling: str | None,
) -> Run:
    """Abduction on the evidence and the latents, then prediction under the intervention."""
    sites = _factual(model, batch, latents)
    noise = {
        name: forms.pull(site.fn, site.value, coupling=_coupling(site.fn, coupling))
        for name, site in sites.items()
        if _random(site) and name not in fresh
    }
    world = _Prediction(noise, sites, fresh, coupling)
    with world:
        acted.model(rows_of(batch), **arguments(acted, "model", batch))
    return world


def _factual(model: Model, batch: Batch, latents: Mapping[str, Tensor]) -> dict[str, Site]:
    """The sites of the program, run on the evidence and on latents."""
    with Run(latents, observed=batch) as run:
        model.model(rows_of(batch), **arguments(model, "model", batch))
    check_keys(model, batch, run)
    return run.sites


def _laws(acted: Intervened, batch: Batch, done: Mapping[str, Any]) -> list[str]:
    """The sites that follow a law of the intervention, directly or as a function of parents."""
    with Run() as run:
        acted.model(rows_of(batch), **arguments(acted, "model", batch))
    laws = [name for name, site in run.sites.items() if site.infer.get(INTERVENED) == "law"]
    return [name for name in laws if name in done]


def _proposed(model: Model, batch: Batch) -> list[str]:
    """The latent sites that the guide proposes."""
    with Run() as guide:
        model.guide(rows_of(batch), **arguments(model, "guide", batch))
    return [name for name, site in guide.sites.items() if _random(site) and name not in batch]


def _resample(
    model: Model, batch: Batch, proposed: list[str], particles: int
) -> tuple[list[dict[str, Tensor]], Float[Tensor, " n"] | None]:
    """Draws of the latents given the evidence, as inputs to one or more runs of the program."""
    if not proposed:
        return [{}], None
    weight = log_weight(model, batch, particles=particles)
    log_w = weight.rows + weight.shared[:, None]
    if weight.shared_sites:  # all rows of a particle share one draw, and so one weight
        log_w = (weight.rows.sum(1) + weight.shared)[:, None]
    if not bool(torch.isfinite(log_w.max(0).values).all()):
        raise ValueError(
            "The evidence has density zero under the model for every draw of its guide: it cannot "
            "have come from this model. Check the rows, or train the model and its guide longer."
        )
    w = torch.softmax(log_w, 0)
    chosen: Int[Tensor, "particles columns"] = torch.multinomial(w.T, particles, replacement=True).T
    ess = (1 / w.square().sum(0)).expand(rows_of(batch))
    _warn(ess)
    values = {name: weight.values[name] for name in proposed}
    if weight.shared_sites:
        return [{name: v[k] for name, v in values.items()} for k in chosen[:, 0].tolist()], ess
    n = torch.arange(rows_of(batch), device=w.device)
    return [{name: v[chosen, n].flatten(0, 1) for name, v in values.items()}], ess


def _warn(ess: Float[Tensor, " n"]) -> None:
    few = int((ess < _FEW).sum())
    if few:
        warnings.warn(
            f"In {few} of {len(ess)} rows fewer than {_FEW} particles carry the weight (least "
            f"{float(ess.min()):.1f}): the guide misses the posterior there, and the spread of the "
            "answer is too small. Take more particles=, or train the guide longer.",
            RuntimeWarning,
            stacklevel=4,
        )


def _check_evidence(batch: Batch) -> None:
    holes = [name.removesuffix(SEEN) for name in batch if name.endswith(SEEN)]
    if holes:
        raise ValueError(
            f"Cells of {', '.join(map(repr, holes))} are missing: the noise of a site that was not "
            "seen is not fixed by the rest of its row, and is not guessed here. Leave out these "
            "rows, or complete them several times with pgm.impute and average the answers."
        )
    if "clamped" in batch and bool(batch["clamped"].any()):
        raise ValueError(
            "Some cells of the evidence were clamped by an experiment: their values say nothing of "
            "the noise of their mechanism, so that there is nothing to abduct. Ask about rows in "
            "which nothing was clamped."
        )


def _check_known(model: Model, sites: Mapping[str, Site], proposed: list[str]) -> None:
    """Refuses a site whose noise nothing tells of."""
    for name, site in sites.items():
        if site.plates:
            raise ValueError(
                f"Site {name!r} stands in a plate inside the rows, whose noise is not followed "
                "yet. Give it that dimension with .to_event(1) instead of the plate."
            )
        if site.drawn is None or name in proposed:
            continue
        raise ValueError(
            f"Site {name!r} of {type(model).__name__} is neither in the evidence nor proposed by "
            "the guide, so that nothing is known of its noise; a fresh draw would be that of "
            f"another row. Pass {name!r} in the evidence, or write a guide that samples it"
            + (", for it is summed out otherwise." if "enumerate" in site.infer else ".")
        )


def _repeated(model: Model, times: int, sites: Mapping[str, Site]) -> Model:
    """The model for rows that are all there `times` times over: its values by row as well."""
    if not isinstance(model, Intervened) or times == 1:
        return model

    def repeated(name: str, value: Action) -> Action:
        if not isinstance(value, Tensor) or value.dim() == sites[name].fn.event_dim:
            return value
        return value.repeat(times, *[1] * (value.dim() - 1)) if len(value) > 1 else value

    return Intervened(model.base, {name: repeated(name, v) for name, v in model.values.items()})


def _random(site: Site) -> bool:
    return not site.deterministic and site.infer.get(INTERVENED) != "value"


def _open(site: Site) -> bool:
    """Whether the value of a site leaves its noise open."""
    return _random(site) and bool(forms.couplings(site.fn))


def _coupling(fn: Any, asked: str | None) -> str | None:
    """The coupling asked for, where the distribution has it, else its first one, if any."""
    known = forms.couplings(fn)
    return asked if asked in known else next(iter(known), None)


def _kind(fn: Any) -> type:
    """The class of a distribution inside its wrappers."""
    while isinstance(fn, MaskedDistribution | ExpandedDistribution | Independent):
        fn = fn.base_dist
    return type(fn)


def _value(site: Site, particles: int, n: int) -> Tensor:
    """The values of a site, shape (particles, n, ...), or (particles, ...) outside the rows."""
    if not site.rows:
        return site.value.expand(particles, *site.value.shape)
    return site.value.expand(particles * n, *site.value.shape[1:]).unflatten(0, (particles, n))


def _how(
    name: str,
    site: Site,
    do: Mapping[str, Any],
    laws: list[str],
    proposed: list[str],
    coupling: str | None,
) -> str:
    """How a site got its value in the other world."""
    if name in laws:
        return "drawn from the law that do gives it"
    if name in do or site.infer.get(INTERVENED) == "value":
        return "set by do"
    if site.deterministic:
        return "computed from the others"
    ways = ["guide with resampling"] if name in proposed else []
    if _open(site):
        ways.append(f"{_coupling(site.fn, coupling)} coupling, not identified")
    return "; ".join(ways) or "exact inversion"
