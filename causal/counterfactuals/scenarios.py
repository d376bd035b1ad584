"""Counterfactuals: what would have been in the very rows that were seen, had something else been.

Abduction, action, prediction (Pearl 2009, Causality, thm. 7.1.7): what was not seen is completed
given what was (`abduction`), each site's noise is pulled out of its value, the interventions
replace mechanisms, and the program is run again on the same noise (`worlds`). It works on any
program, an `SCM` or not, and nothing is ever drawn afresh in silence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from causal.counterfactuals import gaussian
from causal.counterfactuals.abduction import Method, abduct
from causal.counterfactuals.answers import Comparison, Counterfactual
from causal.counterfactuals.conditioning import evidence_rows
from causal.counterfactuals.couplings import bounds
from causal.counterfactuals.evidence import Abduction, levels_of
from causal.counterfactuals.walks import downstream, is_walked
from causal.counterfactuals.worlds import (
    Coupling,
    Units,
    World,
    coupling_of,
    is_open,
    predict,
    spread,
    value_of,
)
from causal.interventions.actions import is_shift, words
from causal.interventions.handler import INTERVENED, Intervened, do, unwrap
from causal.interventions.sites import asking
from causal.mechanisms import Mechanism
from causal.scm import check_trained
from causal.structural import Structural
from pgm import Model
from pgm.batch import Batch, repeat, rows_of
from pgm.model import arguments
from pgm.sites import Run
from pgm.verb import prepare

_do = do  # `counterfactual` has an argument of that name


def counterfactual(
    model: Model,
    evidence: Any,
    *,
    do: Mapping[Any, Any],
    particles: int = 200,
    coupling: Coupling = None,
    method: Method = "auto",
    seed: int | None = None,
) -> Counterfactual:
    """The rows of the evidence as they would have been under an intervention.

    Where all sites were seen and are continuous the answer is exact, and one particle is enough. A
    linear-Gaussian SCM has an exact law whatever was seen. Else particles are drawn, by the first
    rung that applies: see `causal.counterfactuals.abduction`.

    A discrete site downstream of what was done leaves its noise open: its particles are draws from
    p(noise | evidence) under the named coupling. Data cannot tell couplings apart; the answer says
    so, and prints the bounds that hold under every coupling.

    Args:
        model: any model of all sites; latent ones may have a guide.
        evidence: rows in any form, or one value by site, in the user's words where the model has a
            schema; what is missing, cells or whole sites, is drawn given the rest.
        do: interventions by site or arrow, as in `causal.do`. A Distribution is drawn from afresh:
            its randomness is the policy's own. A shift or another mechanism keeps the noise.
        particles: draws a row, where the evidence leaves something open.
        coupling: of discrete sites that have it (see `pgm.noise.couplings`), one name or a name by
            site; by default each site's first.
        method: a rung, instead of the first that applies.
        seed: of the draws.

    Returns:
        All sites under the intervention, how the noise of each was found, and what is not known.

    Raises:
        ValueError: clamped cells; evidence of density zero; a site whose distribution is of another
            kind under the intervention; a rung that does not apply.
        NoNoiseForm: a distribution without a noise form.

    Warns:
        RuntimeWarning: weights of the particles that are too uneven to trust.

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
    answers = compare(
        model,
        evidence,
        do=[do],
        particles=particles,
        coupling=coupling,
        method=method,
        seed=seed,
    )
    return answers.answers[0]


def compare(
    model: Model,
    evidence: Any,
    *,
    do: Sequence[Mapping[Any, Any]] | Mapping[str, Mapping[Any, Any]],
    particles: int = 200,
    coupling: Coupling = None,
    method: Method = "auto",
    seed: int | None = None,
) -> Comparison:
    """The rows of the evidence under several interventions, on one abduction of their noise.

    All scenarios share the noise, draw by draw, so that their differences are those of the same
    units. k scenarios cost k + 1 passes.

    Args:
        model: as in `counterfactual`.
        evidence: as in `counterfactual`.
        do: the interventions of each scenario, perhaps by a name.
        particles: as in `counterfactual`.
        coupling: as in `counterfactual`.
        method: as in `counterfactual`.
        seed: as in `counterfactual`.

    Returns:
        One counterfactual a scenario.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> scm = SCM("x -> y", y=LinearGaussian({"x": 2.0}))
        >>> seen = {"x": torch.tensor([1.0]), "y": torch.tensor([3.0])}
        >>> compare(scm, seen, do={"none": {"x": 0.0}, "much": {"x": 5.0}}).stack("y").flatten()
        tensor([ 1., 11.])
    """
    if particles < 1:
        raise ValueError(f"particles is {particles}; at least one draw a row is needed.")
    labels = list(do) if isinstance(do, Mapping) else list(range(len(do)))
    wanted = list(do.values()) if isinstance(do, Mapping) else list(do)
    if not wanted:
        raise ValueError("No scenario came: pass at least one intervention, do=[{'A': 1}].")
    _check_noise(model, wanted)
    batch = prepare(model, evidence_rows(model, evidence))
    with asking(model, seed):
        acted = [_do(model, each) for each in wanted]
        found = abduct(model, batch, particles=particles, method=method)
        _check_trained(model, acted, found)
        scenarios = [
            _Scenario(model, a, w, found, batch) for a, w in zip(acted, wanted, strict=True)
        ]
        if found.particles == 1 and any(s.random for s in scenarios):
            found = replace(found, particles=particles)
        times = found.copies
        copied, as_it_was = Batch(repeat(found.batch, times)), spread(model, times, found.sites)
        known = None if found.unseen or times > 1 or is_walked(model) else found.sites
        units = [Units(as_it_was, copied, z, coupling, known) for z in found.draws]
        answers = [scenario.answer(found, units) for scenario in scenarios]
    return Comparison(tuple(answers), tuple(labels))


class _Scenario:
    """One intervention on the rows of the evidence.

    Args:
        model: the model as it was.
        acted: the model under the intervention.
        wanted: the intervention as it was asked for.
        found: the abduction.
        batch: the evidence.
    """

    def __init__(
        self,
        model: Model,
        acted: Intervened,
        wanted: Mapping[Any, Any],
        found: Abduction,
        batch: Batch,
    ) -> None:
        self.model, self.acted, self.wanted = model, acted, wanted
        done = {t: acted.values[t] for t in wanted if isinstance(t, str)}
        kept = {t for t, v in done.items() if isinstance(v, Mechanism) or is_shift(v)}
        self.fresh = set(done) - kept
        self.laws = _laws(acted, batch, {t: done[t] for t in self.fresh})
        touched = _touched(acted, wanted)
        random = [n for n, s in found.sites.items() if is_open(s) and n not in self.fresh]
        self.open = [n for n in random if touched is None or n in touched]

    @property
    def random(self) -> bool:
        """Whether the evidence, once complete, leaves something open."""
        return bool(self.open or self.laws)

    def answer(self, found: Abduction, units: Sequence[Units]) -> Counterfactual:
        """The rows under the intervention."""
        acted = spread(self.acted, found.copies, found.sites)
        worlds = [predict(each, acted, self.fresh) for each in units]
        parts = [
            {
                name: value_of(found.sites[name], found.copies, found.n, x)
                for name, x in world.values.items()
                if name in found.sites
            }
            for world in worlds
        ]
        names = list(parts[0])
        schema = self.model.schema
        return Counterfactual(
            draws=Batch(parts[0] if len(parts) == 1 else _joined(parts)),
            how={name: self._how(name, found, worlds[0], units[0].coupling) for name in names},
            do=words(schema, {t: self.acted.values[t] for t in self.wanted}),
            levels={name: levels_of(found.sites[name]) for name in names},
            rung=found.rung,
            ess=found.ess,
            k=found.k,
            r_hat=found.r_hat,
            law=self._law(found),
            bounds=self._bounds(acted, found, units, list(worlds[0].values)),
            schema=schema,
            note=self.model.note,
            shared=frozenset(name for name in names if not found.sites[name].rows),
        )

    def _law(self, found: Abduction) -> gaussian.Normals | None:
        """The exact law of a linear-Gaussian world."""
        world = gaussian.system(self.acted) if found.noise is not None else None
        return None if world is None else gaussian.law(world, *found.noise)  # type: ignore[misc]

    def _bounds(
        self, acted: Intervened, found: Abduction, units: Sequence[Units], order: list[str]
    ) -> dict[str, tuple[Tensor, Tensor]] | None:
        """Bounds over all couplings, of every site that they reach, averaged over particles."""
        if not self.open or self.laws:
            return None
        names = sorted(self.open, key=order.index)
        if not found.unseen:  # all copies of a row are alike
            alike = Units(self.model, found.batch, {}, units[0].coupling)
            return bounds(alike, self.acted, self.fresh, names)
        known = [bounds(each, acted, self.fresh, names) for each in units]
        ranges = [r for r in known if r is not None]
        if len(ranges) < len(known):
            return None

        def mean(name: str, end: int) -> Tensor:
            return torch.cat([r[name][end].unflatten(0, (-1, found.n)) for r in ranges]).mean(0)

        return {name: (mean(name, 0), mean(name, 1)) for name in ranges[0]}

    def _how(self, name: str, found: Abduction, world: World, coupling: Coupling) -> str:
        """How a site got its value in the other world."""
        site = found.sites[name]
        if name in self.laws:
            return "drawn from the law that do gives it"
        if name in self.fresh or (
            site.infer.get(INTERVENED) == "value" and name not in self.wanted
        ):
            return "set by do"
        if site.deterministic:
            return "computed from the others"
        ways = [f"not seen: {_RUNGS[found.rung]}"] if name in found.unseen else []
        if name in world.untouched:
            return "; ".join([*ways, "not downstream of do"] if ways else ["as it was seen"])
        if is_open(site):
            ways.append(f"{coupling_of(name, site.fn, coupling)} coupling, not identified")
        return "; ".join(ways) or "exact inversion"


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The particles of all runs."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _check_noise(model: Model, wanted: Sequence[Mapping[Any, Any]]) -> None:
    """A shift or another mechanism keeps the noise of a site, which its own mechanism must show."""
    _, before = unwrap(model)
    for target, value in (pair for each in wanted for pair in each.items()):
        was = before.get(target)
        own = was is None or isinstance(was, Mechanism) or is_shift(was)
        if (
            isinstance(target, str)
            and not own
            and (isinstance(value, Mechanism) or is_shift(value))
        ):
            raise ValueError(
                f"Site {target!r} was set, or followed a law or policy, when the evidence came "
                "about: its own mechanism did not make its value, and its own noise, which a shift "
                "or another mechanism would keep, is not known. Set it to a value, or give it a "
                "Distribution, whose draws are new."
            )


def _check_trained(model: Model, acted: Sequence[Intervened], found: Abduction) -> None:
    """The mechanisms downstream are needed, and all where something was not seen."""
    base, _ = unwrap(model)
    if not isinstance(base, Structural) or not base.walked:
        return
    if found.unseen:
        check_trained(base)
        return
    for each in acted:
        own = {t for t, v in each.values.items() if not (callable(v) and is_shift(v))}
        check_trained(base, downstream(each, each.values) - own)


_RUNGS = {
    "linear-Gaussian": "linear-Gaussian conditioning",
    "enumeration": "enumeration",
    "importance": "importance resampling",
    "guide": "guide with resampling",
    "NUTS": "NUTS",
}


def _touched(acted: Intervened, wanted: Mapping[Any, Any]) -> set[str] | None:
    """What an intervention can reach; None for a program without a graph."""
    if not isinstance(acted.base, Structural):
        return None
    return downstream(acted, wanted)


def _laws(acted: Intervened, batch: Batch, done: Mapping[str, Any]) -> list[str]:
    """The sites that follow a law of the intervention, directly or as a function of parents."""
    if all(isinstance(v, Tensor) for v in done.values()):
        return []
    if all(isinstance(v, Tensor | Distribution) for v in done.values()):
        return [t for t, v in done.items() if isinstance(v, Distribution)]
    with Run() as run:
        acted.model(rows_of(batch), **arguments(acted, "model", batch))
    laws = [name for name, site in run.sites.items() if site.infer.get(INTERVENED) == "law"]
    return [name for name in laws if name in done]
