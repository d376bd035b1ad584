"""Response types: the canonical partition of what is unseen in one district.

However many values the unseen causes of a discrete node have, all that matters is which function
of its observed parents they make it follow: one of k^m for k levels and m configurations of the
parents (Balke & Pearl 1994; Pearl 2009, sec. 8.2.2). A district's unseen causes are thus a
distribution q over one function a node, and what is observed of it is linear in q (Sachs, Jonzon,
Gabriel & Sjolander 2022; Duarte et al. 2023).
"""

import math
from collections.abc import Mapping, Sequence

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor

from causal.graph import latents, parents
from causal.identification.tables import Label, Table

Levels = Mapping[str, tuple[Label, ...]]

_MOST = 2**18
"""Response types beyond which the linear program is refused."""


class Responses:
    """The response types of the nodes of a district.

    Args:
        graph: the causal graph.
        district: its nodes.
        levels: of the nodes and of their observed parents.

    Raises:
        ValueError: too many types.
    """

    def __init__(self, graph: nx.DiGraph, district: Sequence[str], levels: Levels) -> None:
        unseen = set(latents(graph))
        self.district, self.levels = tuple(district), levels
        self.inputs = {v: [p for p in parents(graph, v) if p not in unseen] for v in district}
        self.counts = {v: self._count(v) for v in district}
        if self.number > _MOST:
            raise ValueError(
                f"The district {', '.join(district)} has {_words(self.number)} "
                f"response types ({self._sizes()}), more than a linear program is run for "
                f"({_MOST:,}). Merge levels, or leave out parents that matter little: the bounds "
                "stay valid where the graph without them is right."
            )

    @property
    def number(self) -> int:
        """How many types there are."""
        return math.prod(self.counts.values())

    def follow(self, node: str) -> Table:
        """1 where a type of the node, given its parents, makes it have a value; else 0."""
        names = self.inputs[node]
        k = len(self.levels[node])
        shape = [len(self.levels[p]) for p in names]
        m = math.prod(shape)
        types = torch.arange(self.counts[node])
        digits = torch.stack([types // k ** (m - 1 - i) % k for i in range(m)], 1)  # (types, m)
        cells = torch.nn.functional.one_hot(digits, k).double()
        levels = {_type(node): tuple(range(len(types)))} | {p: self.levels[p] for p in names}
        return Table(cells.reshape(len(types), *shape, k), {**levels, node: self.levels[node]})

    def linear(self, tables: Sequence[Table], axes: Sequence[str]) -> Float[Tensor, "cells types"]:
        """The product of tables, summed over all but `axes` and the types; a column a type."""
        tables = [*tables, *map(self._all, self.district)]
        number: dict[str, int] = {}
        for name in (name for table in tables for name in table.axes):
            number.setdefault(name, len(number))
        operands = [x for t in tables for x in (t.values, [number[name] for name in t.axes])]
        kept = [number[name] for name in axes] + [number[_type(v)] for v in self.district]
        return torch.einsum(*operands, kept).reshape(-1, self.number)

    def _all(self, node: str) -> Table:
        count = self.counts[node]
        return Table(torch.ones(count), {_type(node): tuple(range(count))})

    def _count(self, node: str) -> int:
        configurations = math.prod(len(self.levels[p]) for p in self.inputs[node])
        return len(self.levels[node]) ** configurations

    def _sizes(self) -> str:
        return ", ".join(f"{v}: {_words(count)}" for v, count in self.counts.items())


def _type(node: str) -> str:
    """The axis of a node's response type; no node can be called so."""
    return f"type of {node}\n"


def _words(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"about 10^{math.log10(number):.0f}"
