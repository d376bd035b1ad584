"""Worlds: the rows as they were, and as they would be under an intervention, on the same noise.

Abduction, action, prediction (Pearl 2009, Causality, thm. 7.1.7), through the noise form x =
push(dist, u) of every site. A model with mechanisms of its own is walked node by node, and only
downstream of what was done (see `walks`); any other program is run twice by a handler.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent

from causal.counterfactuals.walks import Voice, downstream, is_walked, walk
from causal.interventions.actions import Action, Target
from causal.interventions.arrows import changes
from causal.interventions.handler import INTERVENED, Intervened, unwrap
from causal.mechanisms import LinearGaussian, Mechanism
from causal.shifts import Shifted
from causal.structural import Structural, listen
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


class Units:
    """Complete rows and the noise of their sites, each pulled once, when it is first needed.

    Args:
        model: the model as it was when the rows came about.
        batch: what was seen.
        latents: draws of what was not.
        coupling: of discrete sites.
        sites: those of a run on these rows, if there was one.
    """

    def __init__(
        self,
        model: Model,
        batch: Mapping[str, Tensor],
        latents: Mapping[str, Tensor],
        coupling: Coupling,
        sites: Mapping[str, Site] | None = None,
    ) -> None:
        self.model, self.coupling = model, coupling
        self.batch, self.latents = batch, latents
        self._sites = sites
        self._noise: dict[str, Any] = {}

    @functools.cached_property
    def sites(self) -> Mapping[str, Site]:
        """The sites of the program as they were."""
        if self._sites is not None:
            return self._sites
        with Run(self.latents, observed=self.batch) as run:
            self.model.model(rows_of(self.batch or self.latents), **self.context(self.model))
        return run.sites

    @functools.cached_property
    def values(self) -> dict[str, Tensor]:
        """The value of every node of an SCM; what was set need not stand in the evidence."""
        known = {**self.batch, **self.latents}
        nodes = unwrap(self.model)[0].graph.nodes
        return {node: known[node] if node in known else self.sites[node].value for node in nodes}

    def context(self, model: Model) -> dict[str, Any]:
        """The context of a program."""
        return arguments(model, "model", self.batch)

    def noise(self, name: str) -> Any:
        """The noise of a site of a program."""
        if name not in self._noise:
            site = self.sites[name]
            chosen = coupling_of(name, site.fn, self.coupling)
            with naming(name):
                self._noise[name] = forms.pull(site.fn, site.value, coupling=chosen)
        return self._noise[name]

    def carry(self, node: str, now: Voice, old: Voice) -> Tensor:
        """The value that a node's noise makes of what it hears now; the nodes of an SCM."""
        chosen = None
        if old[0].levels > 1 or self.coupling is not None:
            chosen = coupling_of(node, old[0].dist(old[1]), self.coupling)
        if now[0] is old[0] and isinstance(now[0], LinearGaussian) and now[0].plain:
            return now[0].carry(now[1], old[1], self.values[node])
        if node not in self._noise:
            with naming(node):
                self._noise[node] = old[0].pull(old[1], self.values[node], coupling=chosen)
        if now[0] is not old[0]:
            _check_kind(node, now[0].dist(now[1]), old[0].dist(old[1]))
        return now[0].push(now[1], self._noise[node], coupling=chosen)


def predict(units: Units, acted: Intervened, fresh: set[str]) -> World:
    """The rows under an intervention.

    Args:
        units: the rows as they were.
        acted: the model under the intervention.
        fresh: the sites that were set, or follow a law of the intervention's own.
    """
    base, before = unwrap(units.model)
    if is_walked(base) and all(isinstance(v, Tensor | Mechanism) for v in before.values()):
        return _predict(base, before, units, acted)
    return World({name: site.value for name, site in run(units, acted, fresh).items()})


def run(
    units: Units,
    acted: Intervened,
    fresh: set[str],
    given: Mapping[str, Tensor] | None = None,
) -> dict[str, Site]:
    """The sites of any program under an intervention, on the noise of the rows.

    Args:
        units: as in `predict`.
        acted: as in `predict`.
        fresh: as in `predict`.
        given: values that some sites take in the other world, whatever their noise.
    """
    rows = rows_of(units.batch or units.latents)
    before = units.sites  # run now, and not inside the handler
    with _Prediction(units, before, fresh, given or {}) as after:
        acted.model(rows, **units.context(acted))
    return after.sites


class _Prediction(Run):
    """Runs a program on given noise instead of new draws.

    Args:
        units: the rows as they were.
        before: their sites.
        fresh: sites whose draws are the intervention's own.
        given: values that sites take, whatever their noise.
    """

    def __init__(
        self,
        units: Units,
        before: Mapping[str, Site],
        fresh: set[str],
        given: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.units, self.before, self.fresh, self.given = units, before, fresh, given

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
        before = self.before.get(name)
        _check_kind(name, fn, before.fn if before is not None and is_random(before) else None)
        chosen = coupling_of(name, fn, self.units.coupling)
        msg["value"] = forms.push(fn, self.units.noise(name), coupling=chosen)


def _predict(
    base: Structural, before: Mapping[Target, Action], units: Units, acted: Intervened
) -> World:
    """The nodes of a structural model: what is not downstream stays as it was."""
    values = units.values
    new = [t for t, v in acted.values.items() if before.get(t) is not v]
    touched = downstream(acted, new)
    was = units.model.mechanisms if isinstance(units.model, Intervened) else {}
    then = changes(before)

    def carry(node: str, now: Voice) -> Tensor:
        mechanism = was.get(node) or base.mechanism(node)
        return units.carry(node, now, (mechanism, listen(node, mechanism.inputs, values, then)))

    made = walk(base, acted.values, like=values.__getitem__, natural=carry, touched=touched)
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


@contextmanager
def naming(site: str) -> Iterator[None]:
    """Errors of a noise form name the site whose noise it is."""
    try:
        yield
    except (forms.NoNoiseForm, ValueError) as error:
        raise type(error)(f"Site {site!r}: {error}") from error


def value_of(site: Site, times: int, n: int, x: Tensor | None = None) -> Tensor:
    """The values of a site, shape (times, n, ...), or (times, ...) outside the rows."""
    x = site.value if x is None else x
    if not site.rows:
        return x.expand(times, *x.shape)
    if times == 1 and len(x) == n:
        return x[None]
    return x.expand(times * n, *x.shape[1:]).unflatten(0, (times, n))


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
