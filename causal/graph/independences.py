"""What of a graph can be tested: the conditional independences that it implies.

Inequality and nested (Verma) constraints, which latent nodes also imply (Verma & Pearl 1990), are
not among them.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import networkx as nx

from causal.graph.latent import latents, observed
from causal.graph.separators import minimal_separators, minimum_separator
from causal.graph.structure import order, parents


@dataclass(frozen=True)
class Independence:
    """The nodes x are independent of the nodes y given others; all in the order of the graph.

    Example:
        >>> Independence(("X",), ("Y",), ("A", "B"))
        X _||_ Y | A, B
    """

    x: tuple[str, ...]
    y: tuple[str, ...]
    given: tuple[str, ...] = ()

    def __repr__(self) -> str:
        x, y, z = (", ".join(nodes) for nodes in (self.x, self.y, self.given))
        return f"{x} _||_ {y}" + (f" | {z}" if z else "")


def basis(graph: nx.DiGraph) -> list[Independence]:
    """The independences of which all others follow: each node, of what stands before its parents.

    In the order of causes each node is independent of its other predecessors given its parents,
    and every d-separation of the graph follows by the semi-graphoid axioms (Verma & Pearl 1990,
    Causal networks: semantics and expressiveness; Pearl 2009, theorem 1.2.6).

    Args:
        graph: a graph without latent nodes.

    Raises:
        ValueError: a latent node; then independences alone are no basis.

    Example:
        >>> from causal.graph import parse
        >>> basis(parse("A -> B -> C -> D; A -> C"))
        [D _||_ A, B | C]
    """
    if hidden := latents(graph):
        raise ValueError(
            f"Node {hidden[0]!r} is latent. Of the observed nodes of such a graph no list of one "
            "independence a node says all: use independences(graph), one for each pair of nodes."
        )
    found, before = list[Independence](), list[str]()
    for node in order(graph):
        above = parents(graph, node)
        if rest := [v for v in graph if v in before and v not in above]:
            found.append(Independence((node,), tuple(rest), tuple(above)))
        before.append(node)
    return found


def independences(
    graph: nx.DiGraph, *, kind: Literal["minimum", "minimal"] = "minimum"
) -> list[Independence]:
    """The independences between two observed nodes that the graph implies.

    Each pair that some set of observed nodes separates is there, and so no pair that an arrow or a
    bidirected edge joins. On graphs with latents these are m-separations.

    Args:
        graph: the graph.
        kind: "minimum" gives one smallest set for each pair, "minimal" every set of which no node
            can be left out.

    Example:
        >>> from causal.graph import parse
        >>> independences(parse("X -> A -> B -> Y; X <-> B"))
        [X _||_ Y | B, A _||_ Y | B]
        >>> independences(parse("X -> A -> B -> Y"), kind="minimal")[1:3]
        [X _||_ Y | A, X _||_ Y | B]
    """
    found = list[Independence]()
    for a, b in itertools.combinations(observed(graph), 2):
        if kind == "minimal":
            sets = minimal_separators(graph, a, b)
        else:
            smallest = minimum_separator(graph, a, b)
            sets = [] if smallest is None else [smallest]
        found += [Independence((a,), (b,), z) for z in sets]
    return found
