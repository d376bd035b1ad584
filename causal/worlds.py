"""Worlds: the rows as they were, and as they would be under an intervention, on the same noise.

Abduction, action, prediction (Pearl 2009, Causality, thm. 7.1.7), through the noise form x =
push(dist, u) of every site. A model with mechanisms of its own is walked node by node, and only
downstream of what was done; any other program is run twice by a handler.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution, Independent

from causal.actions import Action, Target, fill, is_shift, policy, shifted
from causal.arrows import changes
from causal.graph import descendants, order
from causal.interventions import INTERVENED, Intervened, unwrap
from causal.mechanisms import Mechanism
from causal.scm import SCM
from causal.shifts import Shifted
from causal.structural import listen, rewired
from pgm import Model
from pgm import noise as forms
from pgm.batch import rows_of
from pgm.model import arguments
from pgm.sites import Run, Site

M = TypeVar("M", bound=Model)

Coupling = str | Mapping[str, str] | None
"""The coupling of discrete sites: one name, or a name by site."""


@dataclass(frozen=True, eq=False)
class World:
    """The sites under an intervention.

    Attributes:
        values: by site, shape (rows, ...), or the site's own outside the rows.
        untouched: the sites that nothing that was done can reach.
    """

    values: Mapping[str, Tensor]
    untouched: frozenset[str] = frozenset()


def predict(
    model: Model,
    acted: Intervened,
    batch: Mapping[str, Tensor],
    latents: Mapping[str, Tensor],
    fresh: set[str],
    coupling: Coupling,
) -> World:
    """The rows under an intervention.

    Args:
        model: the model as it was when the evidence came about.
        acted: the model under the intervention.
        batch: what was seen.
        latents: draws of what was not.
        fresh: the sites that were set, or follow a law of the intervention's own.
        coupling: of discrete sites.
    """
    if isinstance(unwrap(model)[0], SCM):
        return _walk(model, acted, {**batch, **latents}, coupling)
    return World(
        {k: s.value for k, s in run(model, acted, batch, latents, fresh, coupling).items()}
    )


def run(
    model: Model,
    acted: Intervened,
    batch: Mapping[str, Tensor],
    latents: Mapping[str, Tensor],
    fresh: set[str],
    coupling: Coupling,
    given: Mapping[str, Tensor] | None = None,
) -> dict[str, Site]:
    """The sites of any program under an intervention, on the noise of the factual run.

    Args:
        model: as in `predict`.
        acted: as in `predict`.
        batch: as in `predict`.
        latents: as in `predict`.
        fresh: as in `predict`.
        coupling: as in `predict`.
        given: values that some sites take in the other world, whatever their noise.
    """
    n = rows_of(batch or latents)
    with Run(latents, observed=batch) as before:
        model.model(n, **arguments(model, "model", batch))
    noise = {
        name: forms.pull(site.fn, site.value, coupling=coupling_of(name, site.fn, coupling))
        for name, site in before.sites.items()
        if is_random(site) and name not in fresh and name not in (given or {})
    }
    with _Prediction(noise, before.sites, fresh, coupling, given or {}) as after:
        acted.model(n, **arguments(acted, "model", batch))
    return after.sites


class _Prediction(Run):
    """Runs a program on given noise instead of new draws.

    Args:
        noise: by site.
        factual: the sites of the run from which the noise was pulled.
        fresh: sites whose draws are the intervention's own.
        coupling: as the noise was pulled with.
        given: values that sites take, whatever their noise.
    """

    def __init__(
        self,
        noise: Mapping[str, Any],
        factual: Mapping[str, Site],
        fresh: set[str],
        coupling: Coupling,
        given: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.noise, self.factual, self.fresh = noise, factual, fresh
        self.coupling, self.given = coupling, given

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
        msg["done"] = True
        if name in self.given:
            msg["value"] = self.given[name]
            return
        _check_kind(name, fn, self.factual[name].fn if name in self.noise else None)
        chosen = coupling_of(name, fn, self.coupling)
        msg["value"] = forms.push(fn, self.noise[name], coupling=chosen)


def _walk(
    model: Model, acted: Intervened, values: Mapping[str, Tensor], coupling: Coupling
) -> World:
    """The nodes of an SCM under an intervention: what is not downstream stays as it was."""
    base, before = unwrap(model)
    assert isinstance(base, SCM)
    new = {t: v for t, v in acted.values.items() if before.get(t) is not v}
    graph = rewired(base.graph, acted.mechanisms)
    touched = descendants(graph, [t if isinstance(t, str) else t[1] for t in new])
    was = unwrap_mechanisms(model)
    heard_before, heard_now = changes(before), changes(acted.values)
    made: dict[str, Tensor] = {}
    for node in order(graph):
        if node not in touched:
            made[node] = values[node]
            continue
        mechanism = acted.mechanisms.get(node) or base.mechanism(node)
        parents = listen(node, mechanism.inputs, made, heard_now)
        action = acted.values.get(node)
        if action is None or isinstance(action, Mechanism) or is_shift(action):
            old = was.get(node) or base.mechanism(node)
            heard = listen(node, old.inputs, values, heard_before)
            made[node] = _carry(node, (old, heard), (mechanism, parents), values[node], coupling)
            if callable(action) and is_shift(action):
                law = shifted(node, action, mechanism.dist(parents), parents)
                made[node] = law.change(made[node])
        else:
            made[node] = _act(node, action, mechanism.dist(parents), parents, values[node])
    return World(made, frozenset(base.nodes) - touched)


def spread(acted: M, times: int, sites: Mapping[str, Site]) -> M | Intervened:
    """The intervention for rows that are all there `times` times over, its values by row too."""
    if times == 1 or not isinstance(acted, Intervened):
        return acted

    def repeated(target: Target, value: Action) -> Action:
        name = target[0] if isinstance(target, tuple) else target
        if not isinstance(value, Tensor) or value.dim() == sites[name].fn.event_dim:
            return value
        return value.repeat(times, *[1] * (value.dim() - 1)) if len(value) > 1 else value

    return Intervened(acted.base, {t: repeated(t, v) for t, v in acted.values.items()})


Voice = tuple[Mechanism, Mapping[str, Tensor]]
"""A mechanism and what it hears."""


def _carry(node: str, old: Voice, new: Voice, x: Tensor, coupling: Coupling) -> Tensor:
    """The value of a node on the noise of its factual value."""
    chosen = None
    if new[0] is not old[0]:
        before, after = old[0].dist(old[1]), new[0].dist(new[1])
        _check_kind(node, after, before)
    if old[0].levels > 1 or coupling is not None:
        chosen = coupling_of(node, old[0].dist(old[1]), coupling)
    u = old[0].pull(old[1], x, coupling=chosen)
    return new[0].push(new[1], u, coupling=chosen)


def _act(node: str, action: Action, fn: Any, parents: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """What a value, a law or a policy makes of a node."""
    said: Any = action
    if callable(action) and not isinstance(action, Distribution):
        said = policy(node, action, parents)
    if isinstance(said, Distribution):
        return said.expand(like.shape[: like.dim() - len(said.event_shape)]).sample()
    return fill(node, said, fn.expand(like.shape[: like.dim() - len(fn.event_shape)]))


def unwrap_mechanisms(model: Model) -> Mapping[str, Mechanism]:
    """The mechanisms that interventions have put into a model."""
    return model.mechanisms if isinstance(model, Intervened) else {}


def is_random(site: Site) -> bool:
    """Whether a site has a noise in its world."""
    return not site.deterministic and site.infer.get(INTERVENED) != "value"


def is_open(site: Site) -> bool:
    """Whether the value of a site leaves its noise open."""
    return is_random(site) and bool(forms.couplings(site.fn))


def coupling_of(name: str, fn: Any, asked: Coupling) -> str | None:
    """The coupling asked for, where the distribution has it, else its first one, if any."""
    known = forms.couplings(fn)
    wanted = asked.get(name) if isinstance(asked, Mapping) else asked
    return wanted if wanted in known else next(iter(known), None)


def kind(fn: Any) -> type:
    """The class of a distribution inside its wrappers."""
    while isinstance(fn, MaskedDistribution | ExpandedDistribution | Independent | Shifted):
        fn = fn.base_dist
    return type(fn)


def _check_kind(name: str, fn: Any, before: Any) -> None:
    """A noise of one kind of distribution says nothing of another's."""
    if before is None or kind(fn) is not kind(before):
        raise ValueError(
            f"Under the intervention site {name!r} is a {kind(fn).__name__}, but in the "
            f"evidence it was {'absent' if before is None else 'a ' + kind(before).__name__}: "
            "the noise of the one says nothing of the other, and a fresh draw would be no "
            "counterfactual. Write the program with one distribution at each site."
        )
