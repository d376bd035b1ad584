"""Graphs in GML, the dialect that networkx and DoWhy read: `graph [ directed 1 node [ ... ] ]`."""

import re

import networkx as nx

from causal.graph.checks import check_graph
from causal.graph.latent import copied

HEAD = re.compile(
    r"(?:\s*#[^\n]*\n)*(?:\s*\w+\s+(?:\"[^\"]*\"|\d+))*\s*graph\s*\[(?!\s*latent\s*\])"
)


def from_gml(text: str) -> nx.DiGraph:
    """Reads a graph from GML; nodes with `observed "no"` (DoWhy's) or `latent 1` are latent.

    Raises:
        ValueError: text that is no GML, or a graph without `directed 1`.

    Example:
        >>> from causal.graph import to_text
        >>> to_text(from_gml('''graph [ directed 1 node [ id "X" label "X" ]
        ... node [ id 1 label "U" observed "no" ] edge [ source 1 target "X" ] ]'''))
        'X; U [latent]; U -> X'
    """
    try:
        read = nx.parse_gml(text)
    except nx.NetworkXError as problem:
        raise ValueError(
            f"The GML text cannot be read: {problem}. It is a list of nodes and edges: graph [ "
            'directed 1 node [ id 0 label "A" ] node [ id 1 label "B" ] edge [ source 0 target 1 '
            "] ]."
        ) from problem
    if not read.is_directed():
        raise ValueError(
            "The GML text is of an undirected graph, and an arrow has a direction. Write 'directed "
            "1' after 'graph [' if each edge's source is a cause of its target."
        )
    graph = copied(read)
    check_graph(graph)
    return graph


def to_gml(graph: nx.DiGraph) -> str:
    """The graph in GML, which DoWhy and `from_gml` read; a bidirected edge is its latent node.

    Example:
        >>> from causal.graph import parse
        >>> text = to_gml(parse("X -> Y; X <-> Y"))
        >>> text.count("observed"), len(nx.parse_gml(text))
        (3, 3)
    """
    marked: nx.DiGraph[str] = nx.DiGraph()
    for node in graph:
        marked.add_node(node, observed="no" if graph.nodes[node].get("latent") else "yes")
    marked.add_edges_from(graph.edges)
    return "\n".join(nx.generate_gml(marked))
