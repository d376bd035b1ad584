"""Who causes whom: parents, orders, ancestors, and the graph with arrows cut or nodes left out."""

from collections.abc import Iterable
from typing import TypeAlias

import networkx as nx

from causal.graph.checks import check_acyclic, check_nodes

Nodes: TypeAlias = str | Iterable[str]
"""One node or several."""


def node_set(graph: nx.DiGraph, nodes: Nodes) -> set[str]:
    """The nodes as a set, one name standing for itself; names that are no nodes are refused."""
    names = [nodes] if isinstance(nodes, str) else list(nodes)
    check_nodes(graph, names)
    return set(names)


def parents(graph: nx.DiGraph, node: str) -> list[str]:
    """The direct causes of a node, latent ones too, in the order of the graph's nodes.

    Raises:
        ValueError: no such node.

    Example:
        >>> from causal.graph import parse
        >>> parents(parse("A -> B; C -> {A B}"), "B")
        ['A', 'C']
    """
    check_nodes(graph, [node])
    return [other for other in graph if graph.has_edge(other, node)]


def order(graph: nx.DiGraph) -> tuple[str, ...]:
    """The nodes with every cause before its effects; ties as they stand in the graph.

    Raises:
        ValueError: the graph has a cycle.

    Example:
        >>> from causal.graph import parse
        >>> order(parse("B -> C; A -> B"))
        ('A', 'B', 'C')
    """
    check_acyclic(graph)
    place = {node: i for i, node in enumerate(graph)}
    return tuple(nx.lexicographical_topological_sort(graph, key=place.__getitem__))


def adjacency(graph: nx.DiGraph) -> dict[str, list[str]]:
    """The children of every node, in plain lists: `as_graph` reads it back, with `latents` apart.

    Example:
        >>> from causal.graph import parse
        >>> adjacency(parse("A -> {B C}"))
        {'A': ['B', 'C'], 'B': [], 'C': []}
    """
    return {node: [other for other in graph if graph.has_edge(node, other)] for node in graph}


def ancestors(graph: nx.DiGraph, nodes: Nodes) -> set[str]:
    """The nodes and all their causes, direct or not, latent ones too.

    Raises:
        ValueError: no such node.

    Example:
        >>> from causal.graph import parse
        >>> sorted(ancestors(parse("A -> B -> C; D -> C; E"), "B"))
        ['A', 'B']
    """
    return _reached(graph.pred, node_set(graph, nodes))


def descendants(graph: nx.DiGraph, nodes: Nodes) -> set[str]:
    """The nodes and all that they cause, directly or not, latent ones too.

    Raises:
        ValueError: no such node.

    Example:
        >>> from causal.graph import parse
        >>> sorted(descendants(parse("A -> B -> C; D -> C; E"), ["B", "D"]))
        ['B', 'C', 'D']
    """
    return _reached(graph.succ, node_set(graph, nodes))


def cut_incoming(graph: nx.DiGraph, nodes: Nodes) -> nx.DiGraph:
    """The graph without the arrows into some nodes, as an intervention on them leaves it.

    The arrows from their latent causes go too, and with them their bidirected edges. Pearl (2009,
    sec. 3.4) writes G with a bar over X.

    Raises:
        ValueError: no such node.

    Example:
        >>> from causal.graph import bidirected, parse
        >>> cut = cut_incoming(parse("A -> X -> Y; X <-> Y"), "X")
        >>> cut.has_edge("A", "X"), cut.has_edge("X", "Y"), bidirected(cut)
        (False, True, [])
    """
    cut = node_set(graph, nodes)
    return _rebuilt(graph, graph, ((a, b) for a, b in graph.edges if b not in cut))


def cut_outgoing(graph: nx.DiGraph, nodes: Nodes) -> nx.DiGraph:
    """The graph without the arrows out of some nodes: G with a bar under X (Pearl 2009, sec. 3.4).

    Raises:
        ValueError: no such node.

    Example:
        >>> from causal.graph import bidirected, parse
        >>> cut = cut_outgoing(parse("A -> X -> Y; X <-> Y"), "X")
        >>> cut.has_edge("A", "X"), cut.has_edge("X", "Y"), bidirected(cut)
        (True, False, [('X', 'Y')])
    """
    cut = node_set(graph, nodes)
    return _rebuilt(graph, graph, ((a, b) for a, b in graph.edges if a not in cut))


def subgraph(graph: nx.DiGraph, nodes: Nodes) -> nx.DiGraph:
    """The graph over some nodes alone, with the arrows and bidirected edges between them.

    It is the subgraph of the projection: latent nodes stay where an arrow or a bidirected edge
    between two of the nodes goes through them, or where they are named themselves.

    Raises:
        ValueError: no such node.

    Example:
        >>> from causal.graph import parse
        >>> list(subgraph(parse("A -> B -> C; A <-> C; A <-> B"), ["A", "C"]))
        ['A', 'C', 'U(A,C)']
    """
    named = node_set(graph, nodes)
    kept = {v for v in graph if v in named or graph.nodes[v].get("latent")}
    while idle := {v for v in kept - named if _is_idle(graph, v, kept)}:
        kept -= idle
    return _rebuilt(graph, [v for v in graph if v in kept], graph.edges)


def _is_idle(graph: nx.DiGraph, node: str, kept: set[str]) -> bool:
    """Whether a latent node joins nothing: it has no child, or only one and no cause."""
    children = len(kept.intersection(graph.succ[node]))
    return children == 0 or (children == 1 and not kept.intersection(graph.pred[node]))


def _rebuilt(
    graph: nx.DiGraph, nodes: Iterable[str], edges: Iterable[tuple[str, str]]
) -> nx.DiGraph:
    """A new graph with these nodes of a graph, latent as they were, and the edges among them."""
    new: nx.DiGraph[str] = nx.DiGraph()
    new.add_nodes_from((v, {"latent": True} if graph.nodes[v].get("latent") else {}) for v in nodes)
    new.add_edges_from((a, b) for a, b in edges if a in new and b in new)
    return new


def _reached(neighbours: nx.classes.coreviews.AdjacencyView, start: set[str]) -> set[str]:
    found, todo = set(start), list(start)
    while todo:
        new = [v for v in neighbours[todo.pop()] if v not in found]
        found.update(new)
        todo += new
    return found
