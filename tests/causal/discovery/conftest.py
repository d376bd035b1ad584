"""All acyclic graphs over a few nodes, enumerated: what exact sums are held against."""

import functools
import itertools
from dataclasses import dataclass

import networkx as nx
import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Enumerated:
    """Every acyclic graph: its parent sets, arrows, ancestors, causal orders and score."""

    sets: Tensor
    scores: Tensor
    parents: Tensor
    edges: Tensor
    ancestors: Tensor
    orders: Tensor
    weights: Tensor

    def probability(self, prior: str) -> Tensor:
        """Of every graph."""
        log = self.weights + (self.orders.log() if prior == "order" else 0.0)
        return (log - log.logsumexp(0)).exp()

    def total(self, prior: str) -> float:
        """log of the sum over graphs."""
        log = self.weights + (self.orders.log() if prior == "order" else 0.0)
        return float(log.logsumexp(0))


def enumerate_graphs(n: int, scores: Tensor) -> Enumerated:
    """Graphs over n nodes; scores in the order of rising parent sets, (n, 2^(n-1))."""
    sets = torch.tensor([[u for u in range(1 << n) if not u >> i & 1] for i in range(n)])
    column = [{int(u): k for k, u in enumerate(row)} for row in sets]
    found = []
    for parents in itertools.product(*sets.tolist()):
        graph = nx.DiGraph()
        graph.add_nodes_from(range(n))
        graph.add_edges_from((j, i) for i in range(n) for j in range(n) if parents[i] >> j & 1)
        if not nx.is_directed_acyclic_graph(graph):
            continue
        weight = sum(float(scores[i, column[i][parents[i]]]) for i in range(n))
        reach = nx.transitive_closure(graph)
        orders = sum(1 for _ in nx.all_topological_sorts(graph))
        found.append((parents, matrix(graph, n), matrix(reach, n), orders, weight))
    parts = [torch.tensor(part, dtype=torch.float64) for part in zip(*found, strict=True)]
    parents, edges, ancestors, orders, weights = parts
    return Enumerated(sets, scores, parents.long(), edges, ancestors, orders, weights)


def matrix(graph: nx.DiGraph, n: int) -> list[list[float]]:
    return [[float(graph.has_edge(i, j)) for j in range(n)] for i in range(n)]


def random_scores(n: int, seed: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(n, 1 << (n - 1), generator=generator, dtype=torch.float64)


@pytest.fixture(params=[(2, 0), (3, 1), (4, 2), (4, 3)], ids=lambda p: f"{p[0]} nodes, seed {p[1]}")
def graphs(request: pytest.FixtureRequest) -> Enumerated:
    """Two to four nodes."""
    return known(*request.param)


@functools.cache
def known(n: int, seed: int) -> Enumerated:
    return enumerate_graphs(n, random_scores(n, seed))


@pytest.fixture
def three() -> Enumerated:
    """Three nodes, for what is slow."""
    return enumerate_graphs(3, random_scores(3, 5))
