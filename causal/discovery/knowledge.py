"""What is known of a graph beforehand: arrows that cannot be, that must be, and tiers.

What is forbidden has score -inf, and takes no further part in any sum.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import torch
from jaxtyping import Bool
from torch import Tensor

from causal.discovery.families import Families
from causal.graph.checks import check_acyclic
from pgm.schema.columns import listing, suggestion

Arrows = Iterable[Sequence[str]] | nx.DiGraph


@dataclass(frozen=True)
class Knowledge:
    """What is known beforehand.

    Args:
        forbidden: arrows (cause, effect) that are not there.
        required: arrows that are there.
        tiers: groups of nodes in the order of time; nothing causes what stands in an earlier one,
            and nodes in none are free.
    """

    forbidden: Arrows = ()
    required: Arrows = ()
    tiers: Sequence[Iterable[str]] = ()


def constrain(families: Families, knowledge: Knowledge) -> Families:
    """The tables with what is known; conditions are left as they are.

    Raises:
        ValueError: an unknown node; arrows that are both forbidden and required; required arrows in
            a cycle; more of them into a node than it may have parents.

    Example:
        >>> from causal.discovery.families import Families
        >>> sets, none = torch.tensor([[0, 2], [0, 1]]), torch.zeros(2, 0)
        >>> free = Families(("a", "b"), sets, torch.zeros(2, 2), (), none.long(), none)
        >>> constrain(free, Knowledge(tiers=[["a"], ["b"]])).scores
        tensor([[0., -inf],
                [0., 0.]])
    """
    names = families.names
    banned, needed = allowed(names, knowledge)
    weights = 1 << torch.arange(len(names))
    no = (banned.T * weights).sum(1)[:, None]
    yes = (needed.T * weights).sum(1)[:, None]
    kept = ((families.sets & no) == 0) & ((families.sets & yes) == yes)
    if lost := [v for v, some in zip(names, kept.any(1).tolist(), strict=True) if not some]:
        raise ValueError(
            f"{listing(lost)} has more required parents than max_parents allows. Raise it."
        )
    return replace(families, scores=families.scores.masked_fill(~kept, -torch.inf))


def allowed(
    names: Sequence[str], knowledge: Knowledge
) -> tuple[Bool[Tensor, "n n"], Bool[Tensor, "n n"]]:
    """The arrows that are forbidden, and those that are required; the row is the cause."""
    banned, needed = _matrix(names, knowledge.forbidden), _matrix(names, knowledge.required)
    tier = torch.full((len(names),), -1)
    for level, group in enumerate(knowledge.tiers):
        for name in [group] if isinstance(group, str) else group:
            i = _index(names, name)
            if tier[i] >= 0:
                raise ValueError(f"{name!r} stands in two tiers.")
            tier[i] = level
    both = (tier[:, None] >= 0) & (tier[None] >= 0)
    banned |= both & (tier[:, None] > tier[None])
    if bool((banned & needed).any()):
        i, j = (banned & needed).nonzero()[0].tolist()
        raise ValueError(
            f"{names[i]} -> {names[j]} is required, and forbidden by name or by its tiers."
        )
    graph: nx.DiGraph[str] = nx.DiGraph([(names[i], names[j]) for i, j in needed.nonzero()])
    check_acyclic(graph)
    return banned, needed


def _matrix(names: Sequence[str], arrows: Any) -> Bool[Tensor, "n n"]:
    found = torch.zeros(len(names), len(names), dtype=torch.bool)
    if isinstance(arrows, str):
        raise ValueError(f"{arrows!r} is text; arrows are pairs: [(cause, effect), ...].")
    for arrow in arrows.edges if isinstance(arrows, nx.Graph) else arrows:
        if isinstance(arrow, str) or len(arrow) != 2:
            raise ValueError(f"{arrow!r} is no arrow; write (cause, effect).")
        found[_index(names, arrow[0]), _index(names, arrow[1])] = True
    return found


def _index(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise ValueError(
            f"{name!r} is no node.{suggestion(name, names)} The nodes are {listing(list(names))}."
        )
    return list(names).index(name)
