"""Nodes that are not observed: the ADMG over the observed ones, and its districts.

The latent projection of a graph on some nodes (Verma & Pearl 1990, Equivalence and synthesis of
causal models, sec. 2): X -> Y where a directed path from X to Y runs through left-out nodes alone;
X <-> Y where a left-out node has directed paths to X and to Y through left-out nodes alone.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import networkx as nx

from causal.graph.structure import Nodes, node_set

_WORDS = dict.fromkeys(("true", "yes", "1", "1.0"), True) | dict.fromkeys(
    ("false", "no", "0", "0.0"), False
)


def observed(graph: nx.DiGraph) -> list[str]:
    """The nodes that are observed, in the order of the graph.

    Example:
        >>> from causal.graph import parse
        >>> observed(parse("U [latent]; U -> {X Y}; X -> Y"))
        ['X', 'Y']
    """
    return [node for node in graph if not graph.nodes[node].get("latent")]


def latents(graph: nx.DiGraph) -> list[str]:
    """The nodes that are not observed, in the order of the graph.

    Example:
        >>> from causal.graph import parse
        >>> latents(parse("U [latent]; U -> {X Y}; X -> Y; X <-> Y"))
        ['U', 'U(X,Y)']
    """
    return [node for node in graph if graph.nodes[node].get("latent")]


def bidirected(graph: nx.DiGraph) -> list[tuple[str, str]]:
    """The pairs of observed nodes with a latent common cause: the edges <-> of the projection.

    Example:
        >>> from causal.graph import parse
        >>> bidirected(parse("U [latent]; U -> {X Y Z}; X -> Y"))
        [('X', 'Y'), ('X', 'Z'), ('Y', 'Z')]
    """
    return _bidirected(graph, observed(graph))


def project(graph: nx.DiGraph, keep: Nodes | None = None) -> nx.DiGraph:
    """The latent projection: a graph over fewer observed nodes that says the same of them.

    It has the same ancestors, the same separations and the same identified effects among them.

    Args:
        graph: the graph.
        keep: the observed nodes that stay; None means all of them.

    Returns:
        A new graph over `keep`, in the graph's order, and the nodes U(X,Y) of bidirected edges.

    Raises:
        ValueError: a node of `keep` that is not there or is not observed.

    Example:
        >>> from causal.graph import parse, to_text
        >>> to_text(project(parse("A -> {B C}; B -> D; C -> D"), keep=["B", "C", "D"]))
        'B; C; D; B -> D; C -> D; B <-> C'
    """
    kept = node_set(graph, observed(graph) if keep is None else keep)
    if hidden := [v for v in latents(graph) if v in kept]:
        raise ValueError(
            f"Node {hidden[0]!r} of keep is latent. A projection is over observed nodes: leave it "
            "out of keep, or read the graph again without marking it latent."
        )
    nodes = [node for node in graph if node in kept]
    new: nx.DiGraph[str] = nx.DiGraph()
    new.add_nodes_from(nodes)
    for a in nodes:
        new.add_edges_from((a, b) for b in _seen_children(graph, a, nodes))
    add_bidirected(new, _bidirected(graph, nodes))
    return new


def districts(graph: nx.DiGraph) -> list[list[str]]:
    """The observed nodes, parted into sets that bidirected edges connect.

    Tian & Pearl (2002) call them c-components: the joint density is a product over them.

    Example:
        >>> from causal.graph import parse
        >>> districts(parse("X -> Z -> Y; X <-> Y"))
        [['X', 'Y'], ['Z']]
    """
    nodes = observed(graph)
    joined: nx.Graph[str] = nx.Graph(bidirected(graph))
    joined.add_nodes_from(nodes)
    place = {node: i for i, node in enumerate(nodes)}
    parts = [sorted(part, key=place.__getitem__) for part in nx.connected_components(joined)]
    return sorted(parts, key=lambda part: place[part[0]])


def add_bidirected(graph: nx.DiGraph, pairs: Iterable[tuple[str, str]]) -> None:
    """Adds the latent nodes of bidirected edges to a graph that is being built.

    Raises:
        ValueError: a pair of a node with itself.
    """
    place = {node: i for i, node in enumerate(graph)}
    for i, j in sorted({(place[a], place[b]) for a, b in pairs}, key=sorted):
        if i == j:
            node = list(place)[i]
            raise ValueError(
                f"{node} <-> {node} joins a node with itself. An unseen cause of one node alone is "
                "its noise, which every node has; write X <-> Y for a common cause of two."
            )
        first, second = (list(place)[k] for k in sorted((i, j)))
        name = _latent_name(graph, first, second)
        graph.add_node(name, latent=True)
        graph.add_edges_from([(name, first), (name, second)])


def ends(graph: nx.DiGraph, node: str) -> tuple[str, str] | None:
    """X and Y, if a node is the latent one of X <-> Y, by its children and its name U(X,Y)."""
    pair = [v for v in graph if graph.has_edge(node, v)]
    if _is_bidirected(graph, node, pair) and node == f"U({pair[0]},{pair[1]})":
        return pair[0], pair[1]
    return None


def bidirected_nodes(graph: nx.DiGraph) -> dict[str, tuple[str, str]]:
    """The latent nodes that X <-> Y would make again at the same place, with X and Y.

    They are the last nodes of the graph, in the order of their edges; others are written out.
    """
    found: dict[str, tuple[str, str]] = {}
    for node in reversed(list(graph)):
        pair = ends(graph, node)
        if pair is None:
            break
        found[node] = pair
    place = {node: i for i, node in enumerate(graph)}
    ends_of = dict(reversed(found.items()))
    keys = [[place[v] for v in pair] for pair in ends_of.values()]
    while keys and (keys != sorted(keys) or any(v in ends_of for e in ends_of.values() for v in e)):
        ends_of.pop(next(iter(ends_of)))
        keys = keys[1:]
    return ends_of


def is_latent(node: object, marks: Mapping[str, Any]) -> bool:
    """Whether a node's attributes, as libraries write them, say that it is not observed.

    Raises:
        ValueError: an attribute that says neither yes nor no.

    Example:
        >>> is_latent("U", {"observed": "no"}), is_latent("X", {"observed": "yes", "label": "x"})
        (True, False)
    """
    found = False
    for key, yes in (("latent", True), ("hidden", True), ("unobserved", True), ("observed", False)):
        if key in marks:
            word = str(marks[key]).strip().lower()
            if word not in _WORDS:
                raise ValueError(
                    f"Node {node!r} has the attribute {key}={marks[key]!r}, which says neither yes "
                    "nor no; whether a node is observed decides what can be known. Write "
                    f"{key}=True or {key}=False."
                )
            found |= _WORDS[word] is yes
    return found


def copied(graph: nx.Graph) -> nx.DiGraph:
    """A new graph with the nodes and arrows of a DiGraph, latent nodes marked in our way.

    Raises:
        TypeError: a graph without directions, or with several edges between two nodes.
    """
    if not graph.is_directed() or graph.is_multigraph():
        raise TypeError(
            f"A {type(graph).__name__} came. A causal graph is a networkx.DiGraph: each arrow has "
            "a direction, and two nodes share at most one arrow in each."
        )
    hidden = set(getattr(graph, "latents", ()))  # pgmpy's DAG keeps them apart
    new: nx.DiGraph[str] = nx.DiGraph()
    for node, marks in graph.nodes.items():
        latent = node in hidden or is_latent(node, marks)
        new.add_node(node, **{"latent": True} if latent else {})
    new.add_edges_from(graph.edges)
    return new


def _latent_name(graph: nx.DiGraph, first: str, second: str) -> str:
    """U(X,Y), with primes where another node has that name."""
    name = f"U({first},{second})"
    while name in graph and not _is_bidirected(graph, name, [first, second]):
        name += "'"
    return name


def _is_bidirected(graph: nx.DiGraph, node: str, ends: list[str]) -> bool:
    return (
        bool(graph.nodes[node].get("latent"))
        and len(ends) == 2
        and not graph.pred[node]
        and set(graph.succ[node]) == set(ends)
    )


def _bidirected(graph: nx.DiGraph, nodes: list[str]) -> list[tuple[str, str]]:
    """Pairs of nodes that a left-out node causes through left-out nodes alone."""
    kept, found = set(nodes), set[tuple[str, str]]()
    for node in graph:
        if node not in kept:
            found.update(itertools.combinations(_seen_children(graph, node, nodes), 2))
    return [pair for pair in itertools.combinations(nodes, 2) if pair in found]


def _seen_children(graph: nx.DiGraph, node: str, nodes: list[str]) -> list[str]:
    """The nodes that directed paths reach from a node through left-out nodes alone."""
    kept, found, todo = set(nodes), set[str](), [node]
    while todo:
        new = [v for v in graph.succ[todo.pop()] if v not in found]
        found.update(new)
        todo += [v for v in new if v not in kept]
    return [v for v in nodes if v in found]
