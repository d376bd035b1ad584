"""Walks: the nodes of a structural model one by one, under an intervention and without Pyro.

What a handler does to a program, `walk` does to mechanisms: a node is set, follows a law, a policy
or a shift, or is what its mechanism, perhaps another one, makes of what it hears.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

import networkx as nx
from torch import Tensor
from torch.distributions import Distribution

from causal.graph import descendants, latents
from causal.interventions.actions import Action, Target, fill, is_shift, policy, shifted
from causal.interventions.arrows import changes
from causal.interventions.handler import Intervened
from causal.interventions.sites import sites_of
from causal.mechanisms import Mechanism
from causal.scm import SCM
from causal.structural import Structural, listen, ordered, rewired
from pgm import Model, sample
from pgm.batch import Batch

Voice = tuple[Mechanism, Mapping[str, Tensor]]
"""A mechanism and what it hears."""


def is_walked(model: Model) -> TypeGuard[Structural]:
    """Whether a model has mechanisms that say all of it."""
    return isinstance(model, Structural) and model.walked


def walk(
    base: Structural,
    values: Mapping[Target, Action],
    *,
    like: Callable[[str], Tensor],
    natural: Callable[[str, Voice], Tensor],
    touched: set[str] | None = None,
) -> dict[str, Tensor]:
    """The value of every node under interventions, causes first.

    Args:
        base: the model without them.
        values: the interventions, as `causal.do` keeps them.
        like: a tensor of the shape and dtype of a node's values; its values, if untouched.
        natural: what a mechanism makes of what it hears, where nothing sets the node.
        touched: the nodes that the interventions can reach; all by default.
    """
    swapped = {k: v for k, v in values.items() if isinstance(k, str) and isinstance(v, Mechanism)}
    arrows, made = changes(values), dict[str, Tensor]()
    for node in ordered(rewired(base.graph, swapped)):
        action = values.get(node)
        if touched is not None and node not in touched:
            made[node] = like(node)
            continue
        if isinstance(action, Tensor) and not action.dim():
            made[node] = action.to(like(node)).expand(like(node).shape)
            continue
        mechanism = swapped.get(node) or base.mechanism(node)
        hears = listen(node, mechanism.inputs, made, arrows)
        if action is None or isinstance(action, Mechanism) or is_shift(action):
            made[node] = natural(node, (mechanism, hears))
        else:
            made[node] = _act(node, action, mechanism.dist(hears), hears, like(node))
        if callable(action) and is_shift(action):
            made[node] = shifted(node, action, mechanism.dist(hears), hears).change(made[node])
    return made


def downstream(acted: Intervened, targets: Iterable[Target]) -> set[str]:
    """What interventions on sites and arrows can reach."""
    assert isinstance(acted.base, Structural)
    graph = rewired(acted.base.graph, acted.mechanisms)
    roots = frozenset(t if isinstance(t, str) else t[1] for t in targets)
    return _reached(graph, roots) if nx.is_frozen(graph) else descendants(graph, roots)


_reached = functools.lru_cache(maxsize=1024)(descendants)
"""In a frozen graph, which cannot change, descendants are found once."""


def _act(node: str, action: Action, fn: Any, parents: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """What a value, a law or a policy makes of a node."""
    said: Any = action
    if callable(action) and not isinstance(action, Distribution):
        said = policy(node, action, fn, parents)
    if isinstance(said, Distribution):
        return said.expand(like.shape[: like.dim() - len(said.event_shape)]).sample()
    return fill(node, said, fn.expand(like.shape[: like.dim() - len(fn.event_shape)]))


@sample.register(SCM)
def _sample(model: SCM, n: int, *, context: Any = None) -> Batch:
    """Draws by the mechanisms alone."""
    return sample.generic(model, n, context=context) if context else _drawn(model, {}, n)


@sample.register(Intervened, needs=lambda model: sample.refusal(model.base))
def _sample_intervened(model: Intervened, n: int, *, context: Any = None) -> Batch:
    if context or not isinstance(model.base, SCM):
        return sample.generic(model, n, context=context)
    return _drawn(model.base, model.values, n)


def _drawn(base: SCM, values: Mapping[Target, Action], n: int) -> Batch:
    """The observed nodes of n new rows."""
    if n < 1:
        raise ValueError(f"n is {n}; at least one row is drawn.")
    sites = sites_of(base, 2)
    assert sites is not None

    def like(node: str) -> Tensor:
        return sites[node].value[:1].expand(n, *sites[node].value.shape[1:])

    made = walk(base, values, like=like, natural=lambda _, voice: voice[0].draw(voice[1], n))
    hidden = set(latents(base.graph))
    return Batch({node: x for node, x in made.items() if node not in hidden})
