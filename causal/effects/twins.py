"""Two worlds of a structural model on one noise, as one network of copies of its nodes.

The twin network (Balke & Pearl 1994): a node has one copy in each world, and a single one where
nothing that was done can tell its copies apart. In the second world a node, or what an arrow
carries, may take the value that it has in the first: such nested counterfactuals, Y(x, M(x')),
are direct, indirect and path-specific effects (Pearl 2001; Avin, Shpitser & Pearl 2005).
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias

from torch import Tensor
from torch.distributions import Distribution

from causal.interventions.actions import Target, is_shift
from causal.mechanisms import Mechanism
from causal.scm import SCM
from causal.structural import Structural, ordered


class Before(Enum):
    """What a node, or an arrow, of the second world is given: its value in the first."""

    BEFORE = "as in the first world"


BEFORE = Before.BEFORE
World: TypeAlias = Mapping[Target, Any]
"""Interventions by site or arrow, in the model's numbers; in a second world perhaps BEFORE."""

Copy: TypeAlias = tuple[Target, int]
"""A node in a world, or what an arrow carries there."""


class Twins:
    """The copies of the nodes of a model in two worlds, and what they hear.

    Args:
        scm: the model before all interventions.
        first: what is done in the first world; nothing, where that is the world as it was.
        second: what is done in the second.

    Example:
        >>> import torch
        >>> twins = Twins(SCM("z -> {x y}; x -> y"), {}, {"x": torch.tensor(1.0)})
        >>> twins.copy("z", 1), twins.copy("y", 1)
        (('z', 0), ('y', 1))
    """

    def __init__(self, scm: Structural, first: World, second: World) -> None:
        self.scm, self.worlds = scm, (first, second)
        self.copy = functools.cache(self._copy)

    def action(self, copy: Copy) -> Any:
        """What makes a copy: an intervention, or None for the node's own mechanism."""
        return self.worlds[copy[1]].get(copy[0])

    def heard(self, node: str, world: int) -> dict[str, Copy]:
        """The copies that a node hears in a world, by parent."""
        action = self.worlds[world].get(node)
        if isinstance(action, Mechanism):
            inputs = list(action.inputs)
        elif isinstance(self.scm, SCM):
            inputs = list(self.scm.mechanism(node).inputs)
        else:
            inputs = self.scm.parents(node)
        return {p: self.copy((p, node), world) for p in inputs}

    def parents(self, copy: Copy) -> list[Copy]:
        """The copies that a copy hears."""
        node, world = copy
        action = self.action(copy)
        if isinstance(node, tuple) or isinstance(action, Tensor | Distribution):
            return []
        return list(self.heard(node, world).values())

    def upstream(self, copies: Iterable[Copy]) -> list[Copy]:
        """The copies and all that they hear, causes first, both copies of a node in a row."""
        found, todo = set[Copy](), list(copies)
        while todo:
            copy = todo.pop()
            if copy not in found:
                found.add(copy)
                todo += self.parents(copy)
        place = {node: i for i, node in enumerate(ordered(self.scm.graph))}

        def key(copy: Copy) -> tuple[Any, ...]:  # what an arrow carries comes before all nodes
            target, world = copy
            return (-1, str(target), world) if isinstance(target, tuple) else (place[target], world)

        return sorted(found, key=key)

    def doubled(self, copies: Sequence[Copy]) -> list[str]:
        """The nodes of which two copies with one noise are among some copies."""
        own = [c for c in copies if isinstance(c[0], str) and self._has_noise(c)]
        return [c[0] for c in own if c[1] == 0 and (c[0], 1) in own]  # type: ignore[misc]

    @property
    def plain(self) -> bool:
        """Whether no mechanism was exchanged, so that nodes are ordered as in the graph."""
        actions = [v for world in self.worlds for v in world.values()]
        return not any(isinstance(v, Mechanism) for v in actions)

    def _has_noise(self, copy: Copy) -> bool:
        """Whether a copy has the noise of its node: it is left alone, shifted or rewired."""
        action = self.action(copy)
        if isinstance(action, Tensor | Distribution):
            return False
        return action is None or isinstance(action, Mechanism) or is_shift(action)

    def _copy(self, target: Target, world: int) -> Copy:
        """The copy of a target in a world; that of the first where both are the same."""
        action = self.worlds[world].get(target)
        node = target[0] if isinstance(target, tuple) else target
        if action is BEFORE:
            return self.copy(node, 0)
        if isinstance(target, tuple) and action is None:
            return self.copy(node, world)
        if world == 1 and self._alike(target, action):
            return target, 0
        return target, world

    def _alike(self, target: Target, action: Any) -> bool:
        before = self.worlds[0].get(target)
        if isinstance(action, Tensor) and isinstance(before, Tensor):
            return action.shape == before.shape and bool((action == before).all())
        if action is before and isinstance(action, Distribution):
            return True
        if action is not None or before is not None or isinstance(target, tuple):
            return False
        return self.heard(target, 0) == self.heard(target, 1)
