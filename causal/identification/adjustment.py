"""Sets to adjust for: p(y | do(x)) = sum_z p(y | x, z) p(z).

The adjustment criterion is complete: a set satisfies it if and only if the formula holds for every
distribution of the graph (Shpitser, VanderWeele & Robins 2010; Perkovic, Textor, Kalisch & Maathuis
2018, Complete graphical characterization and construction of adjustment sets, def. 4.1). It says
that no node of the set lies on a proper causal path from x to y, x apart, or descends from one that
does; and that the set blocks every other proper path. Pearl's back-door criterion (2009, def.
3.3.1) is the special case in which no node of the set descends from x.

The sets are found as van der Zander, Liskiewicz & Textor (2019, theorem 6) do: as the separators
in the proper back-door graph, from which the first arrows of the causal paths are taken.
"""

from typing import Literal

import networkx as nx

from causal.graph import (
    GraphLike,
    Nodes,
    ancestors,
    cut_incoming,
    cut_outgoing,
    descendants,
    latents,
    minimal_separators,
    minimum_separator,
    observed,
    separators,
)
from causal.graph.structure import node_set
from causal.identification.criterion import Criterion, blame, question


def adjustment_sets(
    graph: GraphLike,
    treatment: Nodes,
    outcome: Nodes,
    *,
    kind: Literal["minimal", "minimum", "all"] = "minimal",
) -> list[tuple[str, ...]]:
    """The sets of observed nodes that are valid to adjust for; none where there is none.

    Args:
        graph: in any form that `as_graph` reads.
        treatment: one node or several, set together.
        outcome: one node or several.
        kind: "minimal" sets, of which no node can be left out; one of the smallest, "minimum"; or
            "all", of which there may be 2^n.

    Raises:
        ValueError: no such node, or a latent one.

    Example:
        >>> adjustment_sets("C -> {X M}; X -> M -> Y; D -> {X Y}", "X", "Y")
        [('C', 'D')]
        >>> adjustment_sets("A -> {X B}; B -> Y; X -> Y", "X", "Y")
        [('A',), ('B',)]
        >>> adjustment_sets("X -> Y; X <-> Y", "X", "Y")
        []
    """
    graph, x, y = question(graph, treatment, outcome)
    back, within = proper_back_door(graph, x, y), adjustable(graph, x, y)
    if kind == "minimum":
        smallest = minimum_separator(back, x, y, within=within)
        return [] if smallest is None else [smallest]
    if kind == "minimal":
        return minimal_separators(back, x, y, within=within)
    place = {v: i for i, v in enumerate(graph)}
    found = separators(back, x, y, within=within)
    return sorted(found, key=lambda z: (len(z), [place[v] for v in z]))


def is_adjustment_set(
    graph: GraphLike, treatment: Nodes, outcome: Nodes, given: Nodes = ()
) -> Criterion:
    """Whether it is valid to adjust for a set, by the adjustment criterion.

    Args:
        graph: in any form that `as_graph` reads.
        treatment: one node or several, set together.
        outcome: one node or several.
        given: the set.

    Returns:
        An answer that is true where the set is valid, and says why where it is not.

    Raises:
        ValueError: no such node, a latent treatment or outcome, or sets that are not disjoint.

    Example:
        >>> bool(is_adjustment_set("Z -> X -> Y; Z -> Y", "X", "Y", "Z"))
        True
        >>> print(is_adjustment_set("Z -> X -> Y; Z -> Y", "X", "Y"))
        adjustment criterion: fails, since the non-causal path X <- Z -> Y is open
        >>> print(is_adjustment_set("X -> M -> Y; M -> S", "X", "Y", "S"))
        adjustment criterion: fails, since S is an effect of M, on a causal path from X to Y
    """
    name = "adjustment criterion"
    graph, x, y = question(graph, treatment, outcome)
    z = _set(graph, x | y, given)
    if hidden := _latent(graph, z):
        return Criterion(name, False, f"{hidden} is latent and cannot be adjusted for")
    between = causal_nodes(graph, x, y)
    for node in (v for v in graph if v in z):
        if node in between:
            return Criterion(name, False, f"{node} is on a causal path {_from_to(graph, x, y)}")
        if above := [v for v in graph if v in between & ancestors(graph, node)]:
            reason = f"{node} is an effect of {above[0]}, on a causal path {_from_to(graph, x, y)}"
            return Criterion(name, False, reason)
    return blame(name, proper_back_door(graph, x, y), x, y, z, "non-causal path")


def is_back_door_set(
    graph: GraphLike, treatment: Nodes, outcome: Nodes, given: Nodes = ()
) -> Criterion:
    """Whether a set satisfies the back-door criterion of each treatment and outcome.

    No node of it is caused by a treatment, and it blocks every path from a treatment to an outcome
    that begins with an arrow into the treatment (Pearl 2009, def. 3.3.1). A set that fails may yet
    be valid: `is_adjustment_set` is the exact answer.

    Args:
        graph: in any form that `as_graph` reads.
        treatment: one node or several.
        outcome: one node or several.
        given: the set.

    Raises:
        ValueError: no such node, a latent treatment or outcome, or sets that are not disjoint.

    Example:
        >>> graph = "A -> {X C}; B -> {C Y}; X -> Y"
        >>> bool(is_back_door_set(graph, "X", "Y"))
        True
        >>> print(is_back_door_set(graph, "X", "Y", "C"))
        back-door criterion: fails, since the back-door path X <- A -> C <- B -> Y is open given C
    """
    name = "back-door criterion"
    graph, x, y = question(graph, treatment, outcome)
    z = _set(graph, x | y, given)
    if hidden := _latent(graph, z):
        return Criterion(name, False, f"{hidden} is latent and cannot be adjusted for")
    for cause in (v for v in graph if v in x):
        if below := [v for v in graph if v in z & descendants(graph, cause)]:
            return Criterion(name, False, f"{below[0]} is caused by {cause}")
        cut = cut_outgoing(graph, cause)
        for effect in (v for v in graph if v in y):
            found = blame(name, cut, cause, effect, z, "back-door path")
            if not found:
                return found
    return Criterion(name, True)


def causal_nodes(graph: nx.DiGraph, x: set[str], y: set[str]) -> set[str]:
    """The nodes on proper causal paths from x to y, x apart: paths that leave x at once."""
    below = descendants(cut_incoming(graph, x), x) - x
    return below & ancestors(cut_outgoing(graph, x), y)


def proper_back_door(graph: nx.DiGraph, x: set[str], y: set[str]) -> nx.DiGraph:
    """The graph without the first arrows of the proper causal paths from x to y."""
    between = causal_nodes(graph, x, y)
    cut: nx.DiGraph[str] = nx.DiGraph()
    cut.add_nodes_from(graph.nodes.items())
    cut.add_edges_from((a, b) for a, b in graph.edges if not (a in x and b in between))
    return cut


def adjustable(graph: nx.DiGraph, x: set[str], y: set[str]) -> set[str]:
    """The observed nodes that are not forbidden: neither on a causal path nor after one."""
    return set(observed(graph)) - descendants(graph, causal_nodes(graph, x, y)) - x - y


def _set(graph: nx.DiGraph, question: set[str], given: Nodes) -> set[str]:
    z = node_set(graph, given)
    if twice := sorted(z & question):
        raise ValueError(
            f"Node {twice[0]!r} is in the set to adjust for, and is itself a treatment or an "
            "outcome. Leave it out."
        )
    return z


def _latent(graph: nx.DiGraph, z: set[str]) -> str | None:
    return next((v for v in latents(graph) if v in z), None)


def _from_to(graph: nx.DiGraph, x: set[str], y: set[str]) -> str:
    causes, effects = ([v for v in graph if v in nodes] for nodes in (x, y))
    return f"from {', '.join(causes)} to {', '.join(effects)}"
