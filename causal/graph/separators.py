"""All the sets that separate: the algorithmic framework of van der Zander, Liskiewicz & Textor.

B. van der Zander, M. Liskiewicz, J. Textor (2019), Separators and adjustment sets in causal graphs:
complete criteria and an algorithmic framework, Artificial Intelligence 270. Sets Z with
include <= Z <= within that separate x and y: one is found in linear time, and the minimal ones are
the minimal vertex cuts of the moral graph of the ancestors of x, y and include.
"""

import itertools
from collections.abc import Iterator

import networkx as nx

from causal.graph.latent import observed
from causal.graph.separation import disjoint
from causal.graph.structure import Nodes, ancestors, node_set

X, Y = -2, -1
"""The two ends in the graph of cuts; the other nodes are places in the order of the graph."""


def find_separator(
    graph: nx.DiGraph, x: Nodes, y: Nodes, *, include: Nodes = (), within: Nodes | None = None
) -> tuple[str, ...] | None:
    """A set that separates x and y, or None where there is none (theorem 2 of the paper).

    Args:
        graph: the graph.
        x: one node or several.
        y: one node or several.
        include: nodes that the set must have.
        within: the nodes that it may have; None means all observed ones.

    Raises:
        ValueError: no such node, or sets that are not disjoint.

    Example:
        >>> from causal.graph import parse
        >>> find_separator(parse("X -> A -> Y; X -> B -> Y; C"), "X", "Y")
        ('A', 'B')
        >>> find_separator(parse("X -> A -> Y; X <-> Y"), "X", "Y") is None
        True
    """
    x, y, i, r = _sets(graph, x, y, include, within)
    z = (ancestors(graph, x | y | i) & r) | i
    return _ordered(graph, z) if nx.is_d_separator(graph, x, y, z) else None


def separators(
    graph: nx.DiGraph, x: Nodes, y: Nodes, *, include: Nodes = (), within: Nodes | None = None
) -> Iterator[tuple[str, ...]]:
    """Every set that separates x and y, one after the other; there may be 2^n.

    The arguments and errors are those of `find_separator`.

    Example:
        >>> from causal.graph import parse
        >>> list(separators(parse("X -> A -> Y; C"), "X", "Y"))
        [('A', 'C'), ('A',)]
    """
    x, y, i, r = _sets(graph, x, y, include, within)
    todo = [(i, r | i)]
    while todo:
        i, r = todo.pop()
        if find_separator(graph, x, y, include=i, within=r) is None:
            continue
        free = _ordered(graph, r - i)
        if not free:
            yield _ordered(graph, i)
        else:
            todo += [(i, r - {free[0]}), (i | {free[0]}, r)]


def minimal_separators(
    graph: nx.DiGraph, x: Nodes, y: Nodes, *, include: Nodes = (), within: Nodes | None = None
) -> list[tuple[str, ...]]:
    """The sets that separate x and y and of which no node, `include` apart, can be left out.

    The arguments and errors are those of `find_separator`. The list is sorted by size; it can be
    exponentially long, but each set takes polynomial time.

    Example:
        >>> from causal.graph import parse
        >>> minimal_separators(parse("X -> A -> B -> Y; C -> {X A}"), "X", "Y")
        [('A',), ('B',)]
    """
    x, y, i, r = _sets(graph, x, y, include, within)
    nodes = list(graph)
    cuts = _cuts(_moral(graph, x, y, i, r))
    found = {_ordered(graph, i | {nodes[k] for k in cut}) for cut in cuts}
    place = {node: k for k, node in enumerate(graph)}
    return sorted(found, key=lambda z: (len(z), [place[v] for v in z]))


def minimum_separator(
    graph: nx.DiGraph, x: Nodes, y: Nodes, *, include: Nodes = (), within: Nodes | None = None
) -> tuple[str, ...] | None:
    """A smallest set that separates x and y, by maximum flow; None where there is none.

    The arguments and errors are those of `find_separator`.

    Example:
        >>> from causal.graph import parse
        >>> minimum_separator(parse("X -> {A B} -> C; C -> Y"), "X", "Y")
        ('C',)
    """
    x, y, i, r = _sets(graph, x, y, include, within)
    moral = _moral(graph, x, y, i, r)
    if moral.has_edge(X, Y):
        return None
    nodes = list(graph)
    cut = nx.minimum_node_cut(moral, X, Y) if nx.has_path(moral, X, Y) else set()
    return _ordered(graph, i | {nodes[k] for k in cut})


def near_separator(
    graph: nx.DiGraph, x: Nodes, y: Nodes, *, within: Nodes | None = None
) -> tuple[str, ...] | None:
    """The minimal separator nearest x: every path from x to another one passes through it.

    The arguments and errors are those of `find_separator`.

    Example:
        >>> from causal.graph import parse
        >>> near_separator(parse("X -> A -> B -> Y; C -> {X A}"), "Y", "X")
        ('B',)
    """
    x, y, _, r = _sets(graph, x, y, (), within)
    moral, nodes = _moral(graph, x, y, set(), r), list(graph)
    border = _border(moral, {X})
    if Y in border:
        return None
    cut = _border(moral, _component(moral, Y, border))
    return _ordered(graph, {nodes[k] for k in cut})


def neighbours(
    graph: nx.DiGraph, x: Nodes, y: Nodes, *, within: Nodes | None = None
) -> tuple[str, ...]:
    """The neighbours of x in the graph whose vertex cuts are the separators, y apart.

    The arguments and errors are those of `find_separator`.
    """
    x, y, _, r = _sets(graph, x, y, (), within)
    moral, nodes = _moral(graph, x, y, set(), r), list(graph)
    return _ordered(graph, {nodes[k] for k in _border(moral, {X}) - {Y}})


def _sets(
    graph: nx.DiGraph, x: Nodes, y: Nodes, include: Nodes, within: Nodes | None
) -> tuple[set[str], set[str], set[str], set[str]]:
    x, y, i = disjoint(graph, x, y, include)
    r = node_set(graph, observed(graph) if within is None else within) - x - y
    if outside := sorted(i - r):
        raise ValueError(
            f"Node {outside[0]!r} is to be included, but is not one of those that the set may "
            "have: it is latent, or not in `within`."
        )
    return x, y, i, r


def _ordered(graph: nx.DiGraph, nodes: set[str]) -> tuple[str, ...]:
    return tuple(v for v in graph if v in nodes)


def _moral(
    graph: nx.DiGraph, x: set[str], y: set[str], include: set[str], within: set[str]
) -> "nx.Graph[int]":
    """The moral graph of the ancestors, given `include`: the separators are its vertex cuts.

    x and y become one node each, and nodes that no set may have are bridged over.
    """
    place = {v: k for k, v in enumerate(graph)} | dict.fromkeys(x, X) | dict.fromkeys(y, Y)
    kin = graph.subgraph(ancestors(graph, x | y | include))
    married = nx.moral_graph(kin)
    married.remove_nodes_from(include)
    moral: nx.Graph[int] = nx.Graph()
    moral.add_nodes_from([X, Y])
    moral.add_nodes_from(sorted(place[v] for v in married))
    moral.add_edges_from((place[a], place[b]) for a, b in married.edges if place[a] != place[b])
    for k in [place[v] for v in graph if v in married and v not in within | x | y]:
        around = list(moral[k])
        moral.remove_node(k)
        moral.add_edges_from(itertools.combinations(around, 2))
    return moral


def _cuts(moral: "nx.Graph[int]") -> Iterator[set[int]]:
    """The minimal vertex cuts between X and Y.

    Of all cuts whose side of X holds a connected set C there is one with the smallest side: the
    border of Y's component beyond the neighbours of C. It is enlarged by a node of its border, or
    that node stays in the border; every minimal cut is met once (Takata 2010).
    """
    todo: list[tuple[set[int], set[int]]] = [({X}, set())]
    while todo:
        side, fixed = todo.pop()
        border = _border(moral, side)
        if Y in border or not (fixed <= border):
            continue
        cut = _border(moral, _component(moral, Y, side | border))
        side = _component(moral, X, cut)
        if fixed & side:
            continue
        free = sorted(cut - fixed)
        if not free:
            yield cut
        else:
            todo += [(side | {free[0]}, fixed), (side, fixed | {free[0]})]


def _border(moral: "nx.Graph[int]", nodes: set[int]) -> set[int]:
    return {other for node in nodes for other in moral[node]} - nodes


def _component(moral: "nx.Graph[int]", start: int, without: set[int]) -> set[int]:
    found, todo = {start}, [start]
    while todo:
        new = set(moral[todo.pop()]) - found - without
        found |= new
        todo += new
    return found
