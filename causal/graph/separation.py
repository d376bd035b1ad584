"""What a graph says is independent: d-separation, and on graphs with latents m-separation.

x and y are separated by `given` if every path between them is blocked: by a chain or fork in
`given`, or by a collider of which neither itself nor a descendant is in `given` (Pearl 2009, def.
1.2.3). Where a bidirected edge is a latent node, the same words define m-separation (Richardson
2003).
"""

import itertools
from collections.abc import Iterator, Sequence

import networkx as nx

from causal.graph.latent import ends
from causal.graph.structure import Nodes, ancestors, node_set


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
    return nx.is_d_separator(graph, *disjoint(graph, x, y, given))


def open_path(graph: nx.DiGraph, x: Nodes, y: Nodes, given: Nodes = ()) -> list[str] | None:
    """A shortest path between x and y that `given` leaves open; None where all are blocked.

    On it every collider is an ancestor of a given node or is one, and no other node is given. A
    shortest walk of this kind repeats no node.

    Args:
        graph: the graph.
        x: one node or several.
        y: one node or several.
        given: what is conditioned on.

    Raises:
        ValueError: no such node, or one in two of the three sets.

    Example:
        >>> from causal.graph import parse
        >>> graph = parse("A -> {X C}; B -> {C Y}; X -> Y")
        >>> open_path(graph, "A", "B"), open_path(graph, "A", "B", "C")
        (None, ['A', 'C', 'B'])
    """
    x, y, z = disjoint(graph, x, y, given)
    above = ancestors(graph, z)
    start = [(v, False) for v in graph if v in x]
    came: dict[tuple[str, bool], tuple[str, bool] | None] = dict.fromkeys(start)
    todo = list(start)
    for state in todo:  # breadth first: `todo` grows behind
        if state[0] in y:
            return _traced(came, state)
        for new in _onward(graph, state, first=state[0] in x, z=z, above=above):
            if new not in came and new[0] not in x:
                came[new] = state
                todo.append(new)
    return None


def connected(graph: nx.DiGraph, x: Nodes, given: Nodes = ()) -> set[str]:
    """The nodes that are not separated from x by what is given, in linear time.

    Raises:
        ValueError: no such node, or one in both sets.

    Example:
        >>> from causal.graph import parse
        >>> sorted(connected(parse("A -> {X C}; B -> {C Y}; X -> Y"), "X", given="Y"))
        ['A', 'B', 'C']
    """
    x, _, z = disjoint(graph, x, (), given)
    above = ancestors(graph, z)
    found = {(v, False) for v in x}
    todo = list(found)
    for state in todo:
        for new in _onward(graph, state, first=state[0] in x, z=z, above=above):
            if new not in found and new[0] not in x:
                found.add(new)
                todo.append(new)
    return {v for v, _ in found} - x - z


def show_path(graph: nx.DiGraph, path: Sequence[str]) -> str:
    """A path with its arrows; the latent node of a bidirected edge is written as <->.

    Example:
        >>> from causal.graph import parse
        >>> graph = parse("Z -> X -> Y; X <-> Y")
        >>> show_path(graph, ["Z", "X", "U(X,Y)", "Y"])
        'Z -> X <-> Y'
    """
    text, inner = path[0], {v for v in path[1:-1] if ends(graph, v)}
    for a, b in itertools.pairwise(path):
        if b not in inner:
            arrow = "->" if graph.has_edge(a, b) else "<-"
            text += f" {'<->' if a in inner else arrow} {b}"
    return text


def disjoint(
    graph: nx.DiGraph, x: Nodes, y: Nodes, given: Nodes
) -> tuple[set[str], set[str], set[str]]:
    """The three sets, refused where a node is in two of them or in none of the graph's.

    Raises:
        ValueError: no such node, or one in two of the three sets.
    """
    x, y, z = (node_set(graph, nodes) for nodes in (x, y, given))
    if twice := sorted((x & y) | (x & z) | (y & z)):
        raise ValueError(
            f"Node {twice[0]!r} stands in two of the sets that are compared, which are disjoint: "
            "name each node once."
        )
    return x, y, z


def _onward(
    graph: nx.DiGraph, state: tuple[str, bool], *, first: bool, z: set[str], above: set[str]
) -> Iterator[tuple[str, bool]]:
    """Where an open path goes on: a state is a node, and whether an arrow into it was taken."""
    node, into = state
    if first or node not in z:
        yield from ((child, True) for child in graph.succ[node])
    if first or (not into and node not in z) or (into and node in above):
        yield from ((parent, False) for parent in graph.pred[node])


def _traced(
    came: dict[tuple[str, bool], tuple[str, bool] | None], state: tuple[str, bool]
) -> list[str]:
    path, step = list[str](), came[state]
    path.append(state[0])
    while step is not None:
        path.append(step[0])
        step = came[step]
    return path[::-1]
