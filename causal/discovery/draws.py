"""Independent draws from the posterior of graphs, and the graph of the highest score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from causal.discovery.layers import draw_layers, draw_parents
from causal.discovery.orders import best_order, forward, parent_sums
from causal.discovery.subsets import bits, members


@dataclass(frozen=True, eq=False)
class GraphDraws:
    """Graphs drawn from a posterior.

    Attributes:
        names: of the n nodes.
        parents: the parents of every node in every draw, as bits.
        how: from which posterior, and how.

    Example:
        >>> draws = GraphDraws(("a", "b"), torch.tensor([[0, 1]]), "by hand")
        >>> [list(graph.edges) for graph in draws]
        [[('a', 'b')]]
    """

    names: tuple[str, ...]
    parents: Int[Tensor, "draws n"]
    how: str

    def __len__(self) -> int:
        return len(self.parents)

    def __iter__(self) -> Iterator["nx.DiGraph[str]"]:
        for row in self.adjacency:
            yield as_digraph(self.names, row)

    @property
    def adjacency(self) -> Bool[Tensor, "draws n n"]:
        """Which arrows are there; the row is the cause."""
        return bits(self.parents, len(self.names)).mT

    @property
    def ancestors(self) -> Bool[Tensor, "draws n n"]:
        """Whether the row is an ancestor of the column, by squaring."""
        reach = self.adjacency.float()
        for _ in range(len(self.names).bit_length()):
            reach = ((reach + reach @ reach) > 0).float()
        return reach > 0

    def distinct(self) -> tuple["GraphDraws", Float[Tensor, " k"]]:
        """The graphs that differ, most frequent first, and the share of each."""
        rows, counts = self.parents.unique(dim=0, return_counts=True)
        order = torch.argsort(counts, descending=True, stable=True)
        return (
            GraphDraws(self.names, rows[order], self.how),
            counts[order].double() / len(self.parents),
        )

    def __str__(self) -> str:
        graphs, shares = self.distinct()
        return (
            f"{len(self)} graphs over {len(self.names)} nodes, {len(graphs)} of them different; "
            f"the most frequent is {float(shares[0]):.1%} of all\n  {self.how}"
        )


def draw_by_order(
    sets: Int[Tensor, "n m"], scores: Float[Tensor, "n m"], draws: int, generator: torch.Generator
) -> Int[Tensor, "draws n"]:
    """Independent draws under the order-modular prior: an order, then parents given the order."""
    sums = parent_sums(sets, scores)
    total, n = forward(sums), len(sets)
    left = torch.full((draws,), (1 << n) - 1)
    before = torch.zeros(draws, n, dtype=torch.long)
    for _ in range(n):
        nodes = members(left, n)
        rest = left[:, None] - (1 << nodes)
        logits = sums[nodes, rest] + total[rest]
        probs = (logits - logits.logsumexp(1, keepdim=True)).exp()
        chosen = torch.multinomial(probs, 1, generator=generator)
        node, left = nodes.gather(1, chosen)[:, 0], rest.gather(1, chosen)[:, 0]
        before[torch.arange(draws), node] = left
    return draw_parents(sets, scores, before, torch.zeros_like(before), generator)


def draw_uniform(
    sets: Int[Tensor, "n m"], scores: Float[Tensor, "n m"], draws: int, generator: torch.Generator
) -> Int[Tensor, "draws n"]:
    """Independent draws under the uniform prior: layers, then parents given the layers."""
    before, last = draw_layers(parent_sums(sets, scores), draws, generator)
    return draw_parents(sets, scores, before, last, generator)


def best_graph(sets: Int[Tensor, "n m"], scores: Float[Tensor, "n m"]) -> Int[Tensor, " n"]:
    """The parents of every node in the graph of the highest score, as bits.

    Exact, by dynamic programming over subsets (Silander & Myllymaki 2006, UAI).
    """
    placed, found = 0, torch.zeros(len(sets), dtype=torch.long)
    for node in best_order(parent_sums(sets, scores, largest=True)):
        fits = (sets[node] & ~placed) == 0
        found[node] = sets[node][fits][scores[node][fits].argmax()]
        placed |= 1 << node
    return found


def as_digraph(names: Sequence[str], matrix: Any) -> "nx.DiGraph[str]":
    """A graph from a matrix; the row is the cause."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from((names[i], names[j]) for i, j in matrix.nonzero().tolist())
    return graph
