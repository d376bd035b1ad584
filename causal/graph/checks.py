"""What is refused of a graph: cycles, names that are no strings, nodes that are not there."""

from collections.abc import Iterable

import networkx as nx

from pgm.schema.columns import listing, suggestion


def check_acyclic(graph: nx.DiGraph) -> None:
    """Refuses a graph in which something causes itself.

    Raises:
        ValueError: with the cycle.

    Example:
        >>> check_acyclic(nx.DiGraph([("A", "B"), ("B", "A")]))
        Traceback (most recent call last):
        ValueError: The graph has a cycle, A -> B -> A: a node cannot cause itself at one moment...
    """
    try:
        cycle = [a for a, _ in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        return
    raise ValueError(
        f"The graph has a cycle, {' -> '.join(map(str, [*cycle, cycle[0]]))}: a node cannot cause "
        "itself at one moment, and no order of the mechanisms exists. Turn or drop an arrow; for "
        "feedback over time give every moment nodes of its own (A1 -> B1 -> A2)."
    )


def check_nodes(graph: nx.DiGraph, names: Iterable[str], *, what: str = "Node") -> None:
    """Refuses names that are no nodes of the graph.

    Args:
        graph: the graph.
        names: what should be nodes.
        what: what the names stand for, for the message.

    Raises:
        ValueError: with the nodes, and the one that was perhaps meant.

    Example:
        >>> from causal.graph import parse
        >>> check_nodes(parse("dose -> recovery"), ["dosis"])
        Traceback (most recent call last):
        ValueError: Node 'dosis' is not in the graph. Did you mean 'dose'? Its nodes are...
    """
    for name in names:
        if name not in graph:
            raise ValueError(
                f"{what} {name!r} is not in the graph.{suggestion(name, graph)} Its nodes are: "
                f"{listing([str(node) for node in graph])}."
            )


def check_graph(graph: nx.DiGraph) -> None:
    """Refuses what is no causal graph: no node, names that are no strings, cycles.

    Raises:
        TypeError: a node that is no string.
        ValueError: no node, or a cycle.
    """
    if not len(graph):
        raise ValueError('The graph has no node. Write its arrows, as in "A -> B -> C; A -> C".')
    for node in graph:
        if not isinstance(node, str) or not node.strip():
            raise TypeError(
                f"Node {node!r} is a {type(node).__name__}; nodes are columns of a table and sites "
                "of a program, so their names are strings. Use nx.relabel_nodes(graph, str)."
            )
    check_acyclic(graph)
