"""Pairwise fields: their score, their conditionals, and Gibbs sampling, a colour at a time.

p(x) ∝ exp(sum_i u_i(x_i) + beta sum_ij w_ij(x_i, x_j)). Given its neighbours a node is independent
of all others (Geman & Geman 1984), so that nodes of one colour, no two of them neighbours, are
drawn together (chromatic sampler; Gonzalez et al. 2011). Chains run side by side.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pgm.inference.exact.order import Plan, make_plan

Edges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Colour:
    """Nodes of one colour, and the edges into them.

    Attributes:
        nodes: shape (c,).
        edge: the number of every edge that ends in one of them, shape (m,).
        place: which of the nodes it ends in, shape (m,).
        neighbour: the node at its other end, shape (m,).
        first: whether the node is the edge's first end, shape (m,).
    """

    nodes: Tensor
    edge: Tensor
    place: Tensor
    neighbour: Tensor
    first: Tensor


@torch.no_grad()
def gibbs(
    x: Int[Tensor, "chains d"],
    unary: Float[Tensor, "d K"],
    pair: Float[Tensor, "e K K"],
    edges: Edges,
    sweeps: int,
    *,
    beta: float = 1.0,
    clamp: tuple[Bool[Tensor, "chains d"], Int[Tensor, "chains d"]] | None = None,
) -> Int[Tensor, "chains d"]:
    """Sweeps over all nodes, which leave p(x) as it is.

    Args:
        x: where the chains start, codes 0 .. K-1; it is not changed.
        unary: u_i.
        pair: w_ij by edge, its first end along the first axis.
        edges: pairs of nodes.
        sweeps: how many.
        beta: inverse temperature of the pairs.
        clamp: (seen, values), the cells to hold fixed.

    Example:
        >>> pair = torch.tensor([[[9.0, 0.0], [0.0, 9.0]]])
        >>> x = gibbs(torch.zeros(4, 2, dtype=torch.long), torch.zeros(2, 2), pair, ((0, 1),), 5)
        >>> bool((x[:, 0] == x[:, 1]).all())
        True
    """
    x = x.clone()
    for _ in range(sweeps):
        for colour in colours(x.shape[1], edges):
            logits = unary[colour.nodes].expand(len(x), -1, -1)
            if len(colour.edge):
                w = pair[colour.edge]
                w = torch.where(colour.first[:, None, None], w.mT, w)
                heard = w[torch.arange(len(w)), x[:, colour.neighbour]]
                logits = logits.index_add(1, colour.place, heard, alpha=beta)
            noise = torch.empty_like(logits).exponential_().log()
            x[:, colour.nodes] = (logits - noise).argmax(-1)
            if clamp is not None:
                x = torch.where(*clamp, x)
    return x


def lattice(*sides: int, periodic: bool = False) -> list[tuple[int, int]]:
    """The edges between neighbours of a grid of any dimension, nodes counted along the last side.

    Example:
        >>> lattice(2, 2)
        [(0, 1), (0, 2), (1, 3), (2, 3)]
    """
    strides = [math.prod(sides[axis + 1 :]) for axis in range(len(sides))]
    found = set[tuple[int, int]]()
    for place in itertools.product(*(range(side) for side in sides)):
        i = sum(p * s for p, s in zip(place, strides, strict=True))
        for axis, side in enumerate(sides):
            if place[axis] + 1 < side or (periodic and side > 2):
                there = (place[axis] + 1) % side
                j = i + (there - place[axis]) * strides[axis]
                found.add((min(i, j), max(i, j)))
    return sorted(found)


def check_edges(nodes: int, edges: Sequence[Sequence[int]]) -> Edges:
    """The edges as pairs of whole numbers.

    Raises:
        ValueError: one that does not join two of the nodes, or stands there twice.
    """
    found = tuple((int(i), int(j)) for i, j in edges)
    for i, j in found:
        if not (0 <= i < nodes and 0 <= j < nodes) or i == j:
            raise ValueError(f"({i}, {j}) is no edge between two of the nodes 0 .. {nodes - 1}.")
    if len({frozenset(edge) for edge in found}) < len(found):
        raise ValueError("An edge stands there twice: the potentials of a pair are one table.")
    return found


@functools.lru_cache(maxsize=64)
def elimination(nodes: int, edges: Edges, states: int) -> Plan:
    """What summing over all states of a field takes.

    Example:
        >>> print(elimination(100, tuple(lattice(10, 10)), 2))
        100 variables to sum, 64,414 cells a row, the largest clique 16,384
    """
    scopes = [(str(i),) for i in range(nodes)] + [(str(i), str(j)) for i, j in edges]
    levels = tuple((str(i), states) for i in range(nodes))
    return make_plan(tuple(scopes), (None,) * len(scopes), levels)


def pair_score(
    code: Int[Tensor, "*n d"],
    unary: Float[Tensor, "d K"],
    pair: Float[Tensor, "e K K"],
    edges: Edges,
) -> Float[Tensor, "*n"]:
    """sum_i u_i(x_i) + sum_ij w_ij(x_i, x_j) by row."""
    i, j = _ends(edges)
    own = unary[torch.arange(len(unary)), code].sum(-1)
    return own + pair[torch.arange(len(i)), code[..., i], code[..., j]].sum(-1)


def conditionals(
    code: Int[Tensor, "*n d"],
    unary: Float[Tensor, "d K"],
    pair: Float[Tensor, "e K K"],
    edges: Edges,
) -> Float[Tensor, "*n d K"]:
    """log p(x_i | neighbours) of every node, up to a constant."""
    i, j = _ends(edges)
    e = torch.arange(len(i))
    logits = unary.expand(*code.shape, -1).index_add(-2, i, pair.mT[e, code[..., j]])
    return logits.index_add(-2, j, pair[e, code[..., i]])


def _ends(edges: Edges) -> tuple[Tensor, Tensor]:
    i, j = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    return i, j


@functools.lru_cache(maxsize=32)
def colours(d: int, edges: Edges) -> tuple[Colour, ...]:
    """The nodes by colour, greedily (Welsh & Powell 1967).

    Example:
        >>> [colour.nodes.tolist() for colour in colours(3, ((0, 1), (1, 2)))]
        [[1], [0, 2]]
    """
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(d))
    graph.add_edges_from(edges)
    colour_of = nx.greedy_color(graph, strategy="largest_first")
    found = []
    for colour in sorted(set(colour_of.values())):
        nodes = [i for i in range(d) if colour_of[i] == colour]
        into = [(e, i, j, True) for e, (i, j) in enumerate(edges) if colour_of[i] == colour]
        into += [(e, j, i, False) for e, (i, j) in enumerate(edges) if colour_of[j] == colour]
        place = [nodes.index(i) for _, i, _, _ in into]
        found.append(
            Colour(
                torch.tensor(nodes),
                torch.tensor([e for e, *_ in into], dtype=torch.long),
                torch.tensor(place, dtype=torch.long),
                torch.tensor([j for _, _, j, _ in into], dtype=torch.long),
                torch.tensor([first for *_, first in into], dtype=torch.bool),
            )
        )
    return tuple(found)
