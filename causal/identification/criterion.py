"""Criterion: whether a set meets a graphical criterion, and in words why it does not."""

from collections.abc import Iterable
from dataclasses import dataclass

import networkx as nx

from causal.graph import GraphLike, Nodes, as_graph, descendants, open_path, show_path
from causal.graph.structure import node_set


@dataclass(frozen=True)
class Criterion:
    """Whether a criterion holds; it is true where it does.

    Args:
        name: the criterion.
        holds: whether it is met.
        reason: why it is not, in words.
        path: the open path to blame, where there is one, from node to node.

    Example:
        >>> met = Criterion("back-door criterion", False, "B is caused by X")
        >>> print(met)
        back-door criterion: fails, since B is caused by X
        >>> bool(met)
        False
    """

    name: str
    holds: bool
    reason: str = ""
    path: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        return f"{self.name}: " + ("holds" if self.holds else f"fails, since {self.reason}")


def question(
    graph: GraphLike, treatment: Nodes, outcome: Nodes
) -> tuple[nx.DiGraph, set[str], set[str]]:
    """The graph, and the treatments and outcomes as sets, which are disjoint and observed.

    Raises:
        ValueError: no such node, none at all, one that is both, or one that is latent.
    """
    graph = as_graph(graph)
    x, y = node_set(graph, treatment), node_set(graph, outcome)
    if not x or not y:
        raise ValueError("An effect is of at least one treatment on at least one outcome.")
    if both := sorted(x & y):
        raise ValueError(f"Node {both[0]!r} is both treatment and outcome; they are different.")
    if hidden := sorted(v for v in x | y if graph.nodes[v].get("latent")):
        raise ValueError(
            f"Node {hidden[0]!r} is latent, so that the data say nothing of it. Ask for the effect "
            "of an observed node on an observed one."
        )
    return graph, x, y


def blame(name: str, graph: nx.DiGraph, x: Nodes, y: Nodes, given: Nodes, what: str) -> Criterion:
    """The criterion, which fails if a path between x and y is open; `what` kind of path it is.

    Example:
        >>> from causal.graph import parse
        >>> print(blame("test", parse("A -> {X C}; B -> {C Y}"), "X", "Y", "C", "back-door path"))
        test: fails, since the back-door path X <- A -> C <- B -> Y is open given C
    """
    path = open_path(graph, x, y, given)
    if path is None:
        return Criterion(name, True)
    z = node_set(graph, given)
    known = f" given {enumerated(v for v in graph if v in z)}" if z else ""
    reason = f"the {what} {show_path(graph, path)} is open{known}{_by_descent(graph, path, z)}"
    return Criterion(name, False, reason, tuple(path))


def enumerated(nodes: Iterable[str]) -> str:
    """Names as a sentence lists them: A, B and C."""
    *most, last = nodes
    return f"{', '.join(most)} and {last}" if most else last


def _by_descent(graph: nx.DiGraph, path: list[str], z: set[str]) -> str:
    """Of which collider on the path only a descendant is given, if of any."""
    for a, b, c in zip(path, path[1:], path[2:], strict=False):
        if graph.has_edge(a, b) and graph.has_edge(c, b) and b not in z:
            below = min(descendants(graph, b) & z)
            return f" ({below} is an effect of the collider {b})"
    return ""
