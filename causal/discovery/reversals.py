"""A move between graphs: an arrow is turned round, and both its ends choose their parents anew.

Grzegorczyk & Husmeier (2008, Machine Learning 71, sec. 3), who show that single arrows alone leave
a chain in one hollow. A graph is drawn given its layers, walks, and hands its new layers back:
whatever leaves the distribution of graphs as it is leaves that of layers as it is.
"""

import math
import random

import numpy as np

from causal.discovery.layered import Layers, Weights, nodes_of

Parents = list[int]
"""The parents of every node, as bits."""


def walked(weights: Weights, layers: Layers, n: int, dice: random.Random) -> Layers:
    """Layers after a walk of n turns."""
    parents = _drawn(weights, layers, n, dice)
    for _ in range(n):
        parents = _turned(weights, parents, dice)
    return layers_of(parents)


def layers_of(parents: Parents) -> Layers:
    """The layers of a graph: each time, the nodes all of whose parents have been placed.

    Example:
        >>> layers_of([0, 0b001, 0b001, 0b010])
        (1, 6, 8)
    """
    found, placed = list[int](), 0
    while placed.bit_count() < len(parents):
        layer = sum(
            1 << i for i, above in enumerate(parents) if not above & ~placed and not placed >> i & 1
        )
        found.append(layer)
        placed |= layer
    return tuple(found)


def _turned(weights: Weights, parents: Parents, dice: random.Random) -> Parents:
    """One arrow i -> j turned round, or the graph as it was (eq. 15 for the acceptance)."""
    edges = sum(above.bit_count() for above in parents)
    if not edges:
        return parents
    i, j = dice.choice([(i, j) for j, above in enumerate(parents) for i in nodes_of(above)])
    bare = _with(_with(parents, i, 0), j, 0)
    free_i, free_j = ~descendants(bare, i), ~descendants(bare, j)
    to, back = weights.weigh(i, free_i, 1 << j), weights.weigh(j, free_j, 1 << i)
    if to == -math.inf:
        return parents
    half = _with(bare, i, draw(weights, i, free_i, 1 << j, dice))
    free = ~descendants(half, j)
    to += weights.weigh(j, free, 0)
    if to == -math.inf:
        return parents
    new = _with(half, j, draw(weights, j, free, 0, dice))
    back += weights.weigh(i, ~descendants(_with(bare, j, parents[j]), i), 0)
    ratio = math.log(edges) - math.log(sum(above.bit_count() for above in new))
    return new if math.log(dice.random() + 1e-300) < to - back + ratio else parents


def descendants(parents: Parents, node: int) -> int:
    """The node and all that it is a cause of, as bits.

    Example:
        >>> descendants([0, 0b001, 0b010, 0], 0)
        7
    """
    found = todo = 1 << node
    while todo:
        todo = sum(1 << i for i, above in enumerate(parents) if above & todo and not found >> i & 1)
        found |= todo
    return found


def draw(weights: Weights, node: int, within: int, last: int, dice: random.Random) -> int:
    """A parent set within some nodes, that meets others where there are some, by its score."""
    fits = np.flatnonzero(weights.fitting(node, within, last))
    logs = weights.scores[node][fits]
    below = np.cumsum(np.exp(logs - logs.max()))
    chosen = min(int(np.searchsorted(below, dice.random() * below[-1])), len(fits) - 1)
    return int(weights.sets[node][fits[chosen]])


def _drawn(weights: Weights, layers: Layers, n: int, dice: random.Random) -> Parents:
    """The parents of every node, drawn given the layers."""
    parents, placed, last = [0] * n, 0, 0
    for layer in layers:
        for node in nodes_of(layer):
            parents[node] = draw(weights, node, placed, last, dice)
        placed, last = placed | layer, layer
    return parents


def _with(parents: Parents, node: int, above: int) -> Parents:
    """The graph with other parents of one node."""
    new = list(parents)
    new[node] = above
    return new
