"""The front door: p(y | do(x)) = sum_m p(m | x) sum_x' p(y | x', m) p(x').

A set of mediators satisfies the front-door criterion (Pearl 1995; 2009, def. 3.3.3) if

    1. it intercepts all directed paths from x to y,
    2. no back-door path from x to it is open, and
    3. x blocks every back-door path from it to y.

What 2 and 3 allow is closed under unions, so that there is one largest set; a front-door set exists
if and only if that one meets 1 (Jeong, Tian & Bareinboim 2022, Finding and listing front-door
adjustment sets).
"""

import itertools
from collections.abc import Iterator
from typing import Literal

import networkx as nx

from causal.graph import GraphLike, Nodes, connected, cut_outgoing, latents, observed
from causal.graph.structure import node_set
from causal.identification.criterion import Criterion, blame, question

_NAME = "front-door criterion"


def front_door_sets(
    graph: GraphLike,
    treatment: Nodes,
    outcome: Nodes,
    *,
    kind: Literal["minimal", "one", "all"] = "minimal",
) -> list[tuple[str, ...]]:
    """The sets of observed mediators that satisfy the front-door criterion; none if there is none.

    Args:
        graph: in any form that `as_graph` reads.
        treatment: one node or several, set together.
        outcome: one node or several.
        kind: "minimal" sets, no part of which is a front-door set; "one" of these, which takes
            polynomial time; or "all" sets. A large graph may have exponentially many.

    Raises:
        ValueError: no such node, or a latent one.

    Example:
        >>> front_door_sets("X -> M -> Y; X <-> Y", "X", "Y")
        [('M',)]
        >>> front_door_sets("X -> A -> B -> Y; X <-> Y", "X", "Y", kind="all")
        [('A',), ('B',), ('A', 'B')]
    """
    graph, x, y = question(graph, treatment, outcome)
    if kind == "all":
        found = list(_all(graph, x, y))
    else:
        found = list(itertools.islice(_minimal(graph, x, y), 1 if kind == "one" else None))
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


def _all(graph: nx.DiGraph, x: set[str], y: set[str]) -> Iterator[set[str]]:
    todo = [(set[str](), set(observed(graph)) - x - y)]
    while todo:
        include, within = todo.pop()
        largest = _largest(graph, x, y, within)
        if largest is None or not include <= largest:
            continue
        free = sorted(largest - include)
        if not free:
            yield include
        else:
            todo += [(include, largest - {free[0]}), (include | {free[0]}, largest)]


def _minimal(graph: nx.DiGraph, x: set[str], y: set[str]) -> Iterator[set[str]]:
    """Every other minimal set lacks a node of the one that was found: one branch for each."""
    todo = [(set[str](), set(observed(graph)) - x - y)]
    while todo:
        include, within = todo.pop()
        m = _reduced(graph, x, y, include, within)
        if m is None:
            continue
        if all(_largest(graph, x, y, m - {v}) is None for v in include):
            yield m
        kept = set(include)
        for v in sorted(m - include):
            todo.append((set(kept), within - {v}))
            kept.add(v)


def _reduced(
    graph: nx.DiGraph, x: set[str], y: set[str], include: set[str], within: set[str]
) -> set[str] | None:
    """A front-door set with `include` of which no further node can be left out."""
    m = _largest(graph, x, y, within)
    if m is None or not include <= m:
        return None
    for v in sorted(m - include):
        smaller = _largest(graph, x, y, m - {v})
        if smaller is not None and include <= smaller:
            m = smaller
    return m


def _largest(graph: nx.DiGraph, x: set[str], y: set[str], within: set[str]) -> set[str] | None:
    """The largest front-door set in `within`, or None where there is none.

    A node that 3 excludes with the most other nodes beside it, it excludes with fewer.
    """
    m = within - connected(cut_outgoing(graph, x), x)
    while barred := m & connected(cut_outgoing(graph, m), y, x):
        m = m - barred
    return m if _missed(graph, x, y, m) is None else None


def _missed(graph: nx.DiGraph, x: set[str], y: set[str], m: set[str]) -> list[str] | None:
    """A directed path from x to y that meets no node of m."""
    rest = graph.subgraph(v for v in graph if v not in m)
    for a in (v for v in graph if v in x):
        for b in (v for v in graph if v in y):
            if nx.has_path(rest, a, b):
                return list(nx.shortest_path(rest, a, b))
    return None
