"""Exact sums over graphs, held against all graphs of up to four nodes, one by one (to 1e-12)."""

import math

import pytest
import torch

from causal.discovery import dags, orders
from causal.discovery.draws import best_graph, draw_by_order, draw_uniform
from causal.discovery.families import Families
from causal.discovery.layers import completions, ternary
from causal.discovery.reversals import descendants, layers_of
from causal.discovery.subsets import (
    bits,
    log_difference,
    products,
    signed_logsumexp,
    subsets,
    sum_above,
    sum_below,
)

ACYCLIC = {1: 1, 2: 3, 3: 25, 4: 543, 5: 29281, 6: 3781503}
"""Numbers of acyclic graphs over labelled nodes (Robinson 1973; OEIS A003024)."""


def close(ours, theirs) -> None:
    assert torch.allclose(
        torch.as_tensor(ours, dtype=torch.float64),
        theirs + torch.zeros(()).double(),
        rtol=0,
        atol=1e-12,
    )


def families(graphs) -> Families:
    n = len(graphs.sets)
    none = torch.zeros(n, 0)
    return Families(tuple(map(str, range(n))), graphs.sets, graphs.scores, (), none.long(), none)


def test_edges_and_evidence_under_the_order_modular_prior(graphs) -> None:
    found, total = orders.parent_sets(graphs.sets, graphs.scores)
    expected = torch.einsum("g,gij->ij", graphs.probability("order"), graphs.edges)
    close(families(graphs).edges(found), expected)
    close(total, graphs.total("order"))


def test_edges_ancestors_and_evidence_under_the_uniform_prior(graphs) -> None:
    found, ancestors, total = dags.parent_sets(graphs.sets, graphs.scores)
    p = graphs.probability("uniform")
    close(families(graphs).edges(found), torch.einsum("g,gij->ij", p, graphs.edges))
    close(ancestors, torch.einsum("g,gij->ij", p, graphs.ancestors))
    close(total, graphs.total("uniform"))


def test_layers_weigh_what_signed_sums_weigh(graphs) -> None:
    sums = orders.parent_sums(graphs.sets, graphs.scores)
    n, weights = len(sums), completions(sums)
    first = subsets(torch.arange(n)[None])[0, 1:]
    logs = products(sums[:, 0])[1:] + weights[2 * ternary(n)[first]]
    close(logs.logsumexp(0), graphs.total("uniform"))


def test_the_best_graph_has_the_highest_score(graphs) -> None:
    best = graphs.parents[graphs.weights.argmax()]
    assert torch.equal(best_graph(graphs.sets, graphs.scores), best)


@pytest.mark.parametrize("n", sorted(ACYCLIC))
def test_graphs_without_data_are_counted(n: int) -> None:
    sets = torch.tensor([[u for u in range(1 << n) if not u >> i & 1] for i in range(n)])
    sums = orders.parent_sums(sets, torch.zeros(sets.shape, dtype=torch.float64))
    assert math.exp(float(dags.weigh(sums)[-1])) == pytest.approx(ACYCLIC[n], rel=1e-12)


@pytest.mark.parametrize(("prior", "draw"), [("uniform", draw_uniform), ("order", draw_by_order)])
def test_draws_have_the_probabilities_of_the_graphs(graphs, prior, draw) -> None:
    """Chi-square of all graphs that are expected ten times or more."""
    scores, draws = graphs.scores / 3, 20_000
    log = graphs.weights / 3 + (graphs.orders.log() if prior == "order" else 0.0)
    expected = draws * (log - log.logsumexp(0)).exp()
    drawn = draw(graphs.sets, scores, draws, torch.Generator().manual_seed(0))
    place = {tuple(p): k for k, p in enumerate(graphs.parents.tolist())}
    counts = torch.zeros(len(expected), dtype=torch.float64)
    for row in drawn.tolist():
        counts[place[tuple(row)]] += 1
    often = expected >= 10
    statistic = float(((counts - expected)[often].square() / expected[often]).sum())
    degrees = int(often.sum())
    assert abs(statistic - degrees) < 4 * math.sqrt(2 * degrees) + 2


def test_impossible_parents_are_left_out(graphs) -> None:
    """Node 0 has no parents: -inf is a score like any other."""
    scores = graphs.scores.clone()
    scores[0, 1:] = -torch.inf
    kept = graphs.parents[:, 0] == 0
    p = (graphs.weights[kept] - graphs.weights[kept].logsumexp(0)).exp()
    found, ancestors, total = dags.parent_sets(graphs.sets, scores)
    close(families(graphs).edges(found), torch.einsum("g,gij->ij", p, graphs.edges[kept]))
    close(ancestors[:, 0], torch.zeros(len(ancestors), dtype=torch.float64))
    close(total, graphs.weights[kept].logsumexp(0))


def test_lost_digits_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    sets, scores = torch.tensor([[0, 2], [0, 1]]), torch.zeros(2, 2, dtype=torch.float64)
    plain = dags.weigh
    monkeypatch.setattr(dags, "weigh", lambda sums: plain(sums) + torch.tensor([0, 1e-3, 0, 0]))
    with pytest.raises(ArithmeticError, match="lost their digits"):
        dags.parent_sets(sets, scores)


def test_sums_over_subsets() -> None:
    values = torch.randn(16, dtype=torch.float64)
    for s in range(16):
        below = [u for u in range(16) if u & ~s == 0]
        above = [u for u in range(16) if s & ~u == 0]
        close(sum_below(values)[s], values[below].logsumexp(0))
        close(sum_above(values)[s], values[above].logsumexp(0))
        close(sum_below(values, join=torch.maximum)[s], values[below].max())


def test_differences_and_signed_sums_keep_infinities() -> None:
    low = torch.tensor(-torch.inf, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    assert log_difference(low, low) == low and log_difference(zero, zero) == low
    assert log_difference(zero, low) == 0
    assert signed_logsumexp(torch.stack([low, low]), torch.ones(2).double()) == low


def test_layers_and_descendants_of_a_graph() -> None:
    parents = [0, 0b1, 0b1, 0b110, 0]
    assert layers_of(parents) == (0b10001, 0b00110, 0b01000)
    assert bits(torch.tensor(descendants(parents, 1)), 5).tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]
