"""What a graph says is independent: d-separation, and on graphs with latents m-separation.

x and y are separated by `given` if every path between them is blocked: by a chain or fork in
`given`, or by a collider of which neither itself nor a descendant is in `given` (Pearl 2009, def.
1.2.3). Where a bidirected edge is a latent node, the same words define m-separation (Richardson
2003).
"""

import networkx as nx

from causal.graph.structure import Nodes, node_set


def separated(graph: nx.DiGraph, x: Nodes, y: Nodes, given: Nodes = ()) -> bool:
    """Whether the graph says that x and y are independent given some nodes.

    Args:
        graph: the graph.
        x: one node or several.
        y: one node or several.
        given: what is conditioned on.

    Raises:
        ValueError: no such node, or one in two of the three sets.

    Example:
        >>> from causal.graph import parse
        >>> graph = parse("X -> Z -> Y; X <-> Y")
        >>> separated(graph, "X", "Y", given="Z"), separated(graph, "X", "Y", ["Z", "U(X,Y)"])
        (False, True)
    """
    x, y, z = (node_set(graph, nodes) for nodes in (x, y, given))
    if twice := sorted((x & y) | (x & z) | (y & z)):
        raise ValueError(
            f"Node {twice[0]!r} stands in two of x, y and given. Separation is between disjoint "
            "sets: name each node once."
        )
    return nx.is_d_separator(graph, x, y, z)
