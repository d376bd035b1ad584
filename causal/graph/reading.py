"""One function that reads a causal graph in whatever form it comes."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import networkx as nx

from causal.graph.checks import check_graph
from causal.graph.structure import Nodes, node_set
from causal.graph.text import parse

GraphLike: TypeAlias = "nx.Graph | str | Mapping[str, Sequence[str]] | Sequence[tuple[str, str]]"


def as_graph(graph: GraphLike, *, latent: Nodes = ()) -> nx.DiGraph:
    """A checked copy of a causal graph, in whatever form it came.

    Args:
        graph: a DiGraph, a text for `parse`, children by node, or a list of arrows.
        latent: nodes that are not observed, besides those that the graph itself marks.

    Returns:
        A new DiGraph with the same nodes and arrows, in the same order; nodes that are not observed
        carry the attribute `latent=True`.

    Raises:
        TypeError: a graph without directions, or nodes that are no strings.
        ValueError: a cycle, a loop, or no node at all.

    Example:
        >>> from causal.graph import latents, order
        >>> graph = as_graph({"A": ["B", "C"], "B": ["C"]}, latent=["A"])
        >>> order(graph), latents(graph)
        (('A', 'B', 'C'), ['A'])
    """
    copy = parse(graph) if isinstance(graph, str) else _copied(graph)
    check_graph(copy)
    for node in node_set(copy, latent):
        copy.nodes[node]["latent"] = True
    return copy


def _copied(graph: GraphLike) -> nx.DiGraph:
    if isinstance(graph, nx.Graph) and (not graph.is_directed() or graph.is_multigraph()):
        raise TypeError(
            f"A {type(graph).__name__} came. A causal graph is a networkx.DiGraph: each arrow has "
            "a direction, and two nodes share at most one arrow in each."
        )
    copy: nx.DiGraph[str] = nx.DiGraph()
    if isinstance(graph, nx.DiGraph):
        for node, marks in graph.nodes.items():
            copy.add_node(node, **{"latent": True} if marks.get("latent") else {})
        copy.add_edges_from(graph.edges)
    elif isinstance(graph, Mapping):
        copy.add_nodes_from(graph)
        copy.add_edges_from((a, b) for a, children in graph.items() for b in children)
    elif not isinstance(graph, nx.Graph | str):
        copy.add_edges_from(graph)
    return copy
