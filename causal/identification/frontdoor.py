"""The front door: p(y | do(x)) = sum_m p(m | x) sum_x' p(y | x', m) p(x').

A set of mediators satisfies the front-door criterion (Pearl 1995; 2009, def. 3.3.3) if

    1. it intercepts all directed paths from x to y,
    2. no back-door path from x to it is open, and
    3. x blocks every back-door path from it to y.

What 2 and 3 allow is closed under unions, so that there is one largest set; a front-door set exists
if and only if that one meets 1 (Jeong, Tian & Bareinboim 2022, Finding and listing front-door
adjustment sets).
"""

from typing import Literal

import networkx as nx

from causal.graph import GraphLike, Nodes, cut_outgoing, latents, observed, separated
from causal.graph.structure import node_set
from causal.identification.criterion import Criterion, blame, question

_NAME = "front-door criterion"


def front_door_sets(
    graph: GraphLike,
    treatment: Nodes,
    outcome: Nodes,
    *,
    kind: Literal["minimal", "all"] = "minimal",
) -> list[tuple[str, ...]]:
    """The sets of observed mediators that satisfy the front-door criterion; none if there is none.

    Args:
        graph: in any form that `as_graph` reads.
        treatment: one node or several, set together.
        outcome: one node or several.
        kind: "minimal" sets, no part of which is a front-door set, or "all" of them.

    Raises:
        ValueError: no such node, or a latent one.

    Example:
        >>> front_door_sets("X -> M -> Y; X <-> Y", "X", "Y")
        [('M',)]
        >>> front_door_sets("X -> A -> B -> Y; X <-> Y", "X", "Y", kind="all")
        [('A',), ('B',), ('A', 'B')]
    """
    graph, x, y = question(graph, treatment, outcome)
    found, todo = list[set[str]](), [(set[str](), set(observed(graph)) - x - y)]
    while todo:
        include, within = todo.pop()
        largest = _largest(graph, x, y, within)
        if not include <= largest or not _intercepts(graph, x, y, largest):
            continue
        free = sorted(largest - include)
        done = kind == "minimal" and is_front_door_set(graph, x, y, include)
        if done or not free:
            found.append(include)
        else:
            todo += [(include, largest - {free[0]}), (include | {free[0]}, largest)]
    if kind == "minimal":
        found = [z for z in found if not any(other < z for other in found)]
    place = {v: i for i, v in enumerate(graph)}
    ordered = [tuple(v for v in graph if v in z) for z in found]
    return sorted(ordered, key=lambda z: (len(z), [place[v] for v in z]))


def is_front_door_set(
    graph: GraphLike, treatment: Nodes, outcome: Nodes, mediators: Nodes
) -> Criterion:
    """Whether a set of mediators satisfies the front-door criterion.

    Args:
        graph: in any form that `as_graph` reads.
        treatment: one node or several, set together.
        outcome: one node or several.
        mediators: the set.

    Returns:
        An answer that is true where the set satisfies it, and says why where it does not.

    Raises:
        ValueError: no such node, a latent treatment or outcome, or sets that are not disjoint.

    Example:
        >>> bool(is_front_door_set("X -> M -> Y; X <-> Y", "X", "Y", "M"))
        True
        >>> print(is_front_door_set("X -> M -> Y; X <-> Y; X <-> M", "X", "Y", "M"))
        front-door criterion: fails, since the back-door path X <-> M is open
        >>> print(is_front_door_set("X -> M -> Y; X -> Y", "X", "Y", "M"))
        front-door criterion: fails, since the directed path X -> Y misses M
    """
    graph, x, y = question(graph, treatment, outcome)
    m = node_set(graph, mediators)
    if twice := sorted(m & (x | y)):
        raise ValueError(f"Node {twice[0]!r} is a mediator and itself treatment or outcome.")
    if hidden := [v for v in latents(graph) if v in m]:
        return Criterion(_NAME, False, f"{hidden[0]} is latent and cannot be used")
    if missed := _missed(graph, x, y, m):
        names = ", ".join(v for v in graph if v in m) or "the empty set"
        reason = f"the directed path {' -> '.join(missed)} misses {names}"
        return Criterion(_NAME, False, reason, tuple(missed))
    if not m:
        return Criterion(_NAME, True)
    found = blame(_NAME, cut_outgoing(graph, x), x, m, (), "back-door path")
    return found and blame(_NAME, cut_outgoing(graph, m), m, y, x, "back-door path")


def _largest(graph: nx.DiGraph, x: set[str], y: set[str], within: set[str]) -> set[str]:
    """The largest part of `within` that meets 2 and 3.

    A node that 3 excludes with the most other nodes beside it, it excludes with fewer.
    """
    cut = cut_outgoing(graph, x)
    kept = {v for v in within if separated(cut, x, v)}
    while True:
        cut = cut_outgoing(graph, kept)
        fit = {v for v in kept if separated(cut, v, y, x)}
        if fit == kept:
            return kept
        kept = fit


def _intercepts(graph: nx.DiGraph, x: set[str], y: set[str], m: set[str]) -> bool:
    return _missed(graph, x, y, m) is None


def _missed(graph: nx.DiGraph, x: set[str], y: set[str], m: set[str]) -> list[str] | None:
    """A directed path from x to y that meets no node of m."""
    rest = graph.subgraph(v for v in graph if v not in m)
    for a in (v for v in graph if v in x):
        for b in (v for v in graph if v in y):
            if nx.has_path(rest, a, b):
                return list(nx.shortest_path(rest, a, b))
    return None
