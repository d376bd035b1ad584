"""The weight of layers: of all acyclic graphs whose nodes fall into given layers, causes first.

It is prod_i D_i(S, R), D_i being the sum of the scores of node i's parent sets that lie within the
layers before it, S, and meet the last of those, R (Kuipers & Moffa 2017, eq. 8). Sets of nodes are
bits of whole numbers here, as chains move by one step at a time.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

Layers = tuple[int, ...]
"""Disjoint sets of nodes as bits, causes first."""

_REMEMBERED = 2_000_000
"""Weights that are kept for when a chain comes back to them."""


class Weights:
    """log D_i(S, R) of nodes, from the table of families; remembered, as moves come back."""

    def __init__(self, sets: Int[Tensor, "n m"], scores: Float[Tensor, "n m"]) -> None:
        self.sets, self.scores = sets.numpy(), scores.numpy()
        self._known: dict[tuple[int, int, int], float] = {}
        self._layers: dict[tuple[int, int, int], float] = {}

    def weigh(self, node: int, placed: int, last: int) -> float:
        """log D_i(S, R); with nothing placed, the score of no parents."""
        key = node, placed, last
        if key not in self._known:
            logs = self.scores[node][self.fitting(node, placed, last)]
            top = float(logs.max()) if len(logs) else -math.inf
            total = -math.inf
            if top > -math.inf:
                total = top + math.log(float(np.exp(logs - top).sum()))
            if len(self._known) + len(self._layers) > _REMEMBERED:
                self._known.clear()
                self._layers.clear()
            self._known[key] = total
        return self._known[key]

    def fitting(self, node: int, placed: int, last: int) -> Any:
        """Which parent sets lie within S and meet R."""
        sets = self.sets[node]
        fits = (sets & ~placed) == 0
        return fits & ((sets & last) != 0) if last else fits

    def total(self, layers: Layers) -> float:
        """The logarithmic weight of all graphs with these layers."""
        placed = last = 0
        weight = 0.0
        for layer in layers:
            key = layer, placed, last
            own = self._layers.get(key)
            if own is None:
                own = sum(self.weigh(node, placed, last) for node in nodes_of(layer))
                self._layers[key] = own
            weight += own
            placed, last = placed | layer, layer
        return weight


def nodes_of(layer: int) -> list[int]:
    """The members of a set of bits.

    Example:
        >>> nodes_of(5)
        [0, 2]
    """
    found = []
    while layer:
        low = layer & -layer
        found.append(low.bit_length() - 1)
        layer ^= low
    return found
