"""Private-PGM: exact where there is no noise, optimal where there is; and what is drawn from it.

The closed forms: a tree distribution is the product of its pair marginals over its separators
(Chow & Liu 1968), and the least squares on the simplex are a projection (Duchi, Shalev-Shwartz,
Singer & Chandra 2008, Fig. 1).
"""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pgm import Categorical, Count
from pgm.inference.exact import Factor, marginals
from privacy.synthesis.cells import Cells
from privacy.synthesis.curator import Measurement
from privacy.synthesis.estimation import estimate, number_of_rows
from privacy.synthesis.generation import conditionals, spread, systematic
from privacy.synthesis.merging import Merging, merge, merged

TREE = {("a", "b"): (2, 3), ("b", "c"): (3, 4), ("b", "d"): (3, 2), ("d", "e"): (2, 3)}
LEVELS = {"a": 2, "b": 3, "c": 4, "d": 2, "e": 3}


def measurement(scope: tuple[str, ...], counts: Any, std: float = 1e-3) -> Measurement:
    counts = torch.as_tensor(counts).double()
    return Measurement(scope, counts, torch.full_like(counts, std))


def tree(seed: int = 0) -> list[Factor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Factor(s, torch.randn(k, generator=generator).double()) for s, k in TREE.items()
    ]  # fmt: skip


def joint(factors: Any) -> Tensor:
    return marginals(factors, [tuple(LEVELS)])[tuple(LEVELS)][0]


def test_without_noise_a_tree_is_recovered_exactly() -> None:
    true, n = tree(), 5000.0
    exact = marginals(true, [*LEVELS, *TREE])
    seen = [measurement((v,), n * exact[v][0]) for v in LEVELS]
    seen += [measurement(pair, n * exact[pair][0]) for pair in TREE]
    found = estimate(seen, rows=n, steps=250, tolerance=0.0)
    assert torch.allclose(joint(found.factors), joint(true), atol=1e-5)
    assert torch.allclose(found.counts(("a", "e")), n * joint(true).sum((1, 2, 3)), atol=0.05)


def test_a_loop_is_explained_too_and_by_the_distribution_of_largest_entropy() -> None:
    """Pair marginals of a uniform law on a + b + c even: every pair is uniform, so is the field."""
    pairs = [("a", "b"), ("b", "c"), ("a", "c")]
    seen = [measurement((v,), [50.0, 50.0]) for v in "abc"]
    seen += [measurement(pair, torch.full((2, 2), 25.0)) for pair in pairs]
    found = estimate(seen, rows=100.0)
    p = marginals(found.factors, [("a", "b", "c")])[("a", "b", "c")][0]
    assert torch.allclose(p, torch.full((2, 2, 2), 1 / 8).double(), atol=1e-6)
    rng = np.random.default_rng(0)
    true = torch.from_numpy(rng.dirichlet(np.ones(8)).reshape(2, 2, 2))
    seen = [measurement((v,), 100 * true.sum([i for i in range(3) if i != k]))
            for k, v in enumerate("abc")]  # fmt: skip
    seen += [measurement(pair, 100 * true.sum(k)) for k, pair in ((2, ("a", "b")), (0, ("b", "c")))]
    seen += [measurement(("a", "c"), 100 * true.sum(1))]
    found = estimate(seen, rows=100.0, steps=500, tolerance=0.0)
    for m in seen:
        assert torch.allclose(found.counts(m.scope), m.counts, atol=0.01)


def projection(y: Any) -> Any:
    """On the simplex (Duchi et al. 2008, Fig. 1)."""
    u = np.sort(y)[::-1]
    below = (np.cumsum(u) - 1) / np.arange(1, len(y) + 1)
    return np.maximum(y - below[u > below][-1], 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_noisy_counts_are_projected_where_they_are_no_counts(seed: int) -> None:
    y = np.random.default_rng(seed).normal(10.0, 20.0, 12)
    found = estimate([measurement(("a",), y, 5.0)], rows=100.0, steps=3000, tolerance=1e-12)
    assert found.counts(("a",)).numpy() == pytest.approx(100 * projection(y / 100), abs=0.05)


def test_measurements_count_by_their_precision() -> None:
    """Two columns, the second within the first: the counts of a are weighted means of the two."""
    one, pair = measurement(("a",), [60.0, 40.0], 1.0), torch.tensor([[35.0, 5.0], [15.0, 45.0]])
    two = Measurement(("a", "b"), pair.double(), torch.full((2, 2), 2.0).double())
    b = measurement(("b",), [50.0, 50.0], 1e3)
    found = estimate([one, b, two], rows=100.0, steps=3000, tolerance=1e-14)
    assert found.counts(("a",))[0].item() == pytest.approx(
        (60 / 1 + 40 / 8) / (1 + 1 / 8), abs=0.01
    )


def test_the_number_of_rows_is_the_weighted_mean_of_the_sums() -> None:
    seen = [measurement(("a",), [30.0, 60.0], 1.0), measurement(("b",), [50.0] * 3, 2.0)]
    assert number_of_rows(seen) == pytest.approx((90 / 2 + 150 / 12) / (1 / 2 + 1 / 12))
    assert number_of_rows([measurement(("a",), [-5.0, 1.0])]) == 1.0


def test_rare_cells_are_merged_and_keep_their_sum_and_noise() -> None:
    levels = Cells("drug", Categorical(("a", "b", "c", "d")))
    noisy = measurement(("drug",), [500.0, 4.0, 300.0, 12.0], 10.0)
    found = merge(levels, noisy)
    assert list(found.group) == [0, 2, 1, 2]
    assert found.share == pytest.approx([1.0, 0.25, 1.0, 0.75])
    together = merged(noisy, found)
    assert together.counts.tolist() == [500.0, 300.0, 16.0]
    assert together.std.numpy() == pytest.approx([10.0, 10.0, 10.0 * 2**0.5])
    lone = merge(levels, measurement(("drug",), [500.0, 4.0, 300.0, 112.0], 10.0))
    assert list(lone.group) == [0, 1, 2, 3]
    none = merge(levels, measurement(("drug",), [-3.0, -4.0, 300.0, 112.0], 10.0))
    assert none.share[:2] == pytest.approx([0.5, 0.5])


def test_rare_numbers_are_merged_with_neighbours_alone() -> None:
    counts = [500.0, 4.0, 5.0, 300.0, 2.0, 1.0, 1.0]
    visits = Cells("visits", Count(upper=5), (1.0, 2.0, 3.0, 4.0, 5.0), missing=True)
    found = merge(visits, measurement(("visits",), counts, 10.0))
    assert list(found.group) == [0, 1, 1, 2, 3, 3, 4]


def test_conditional_tables_are_the_field() -> None:
    factors = [
        *tree(1),
        Factor(("a", "e"), torch.randn(2, 3, generator=torch.Generator()).double()),
    ]
    tables = conditionals(factors)
    seen: set[str] = set()
    p = torch.ones(()).double()
    for name, (parents, table) in tables.items():
        assert seen.issuperset(parents)
        seen.add(name)
        assert torch.allclose(table.sum(-1), torch.ones(()).double())
        scope = (*parents, name)
        order = sorted(range(len(scope)), key=lambda i: list(LEVELS).index(scope[i]))
        shape = [LEVELS[v] if v in scope else 1 for v in LEVELS]
        p = p * table.permute(order).reshape(shape)
    assert torch.allclose(p, joint(factors))


def test_spread_tables_give_every_cell_its_share() -> None:
    group, share = np.array([0, 1, 1]), np.array([1.0, 0.25, 0.75])
    mergings = {"a": Merging(group, share), "b": Merging(np.arange(2), np.ones(2))}
    tables = {
        "a": ((), torch.tensor([0.4, 0.6]).double()),
        "b": (("a",), torch.tensor([[0.1, 0.9], [0.8, 0.2]]).double()),
    }
    found = spread(tables, mergings)
    assert found["a"][1].tolist() == pytest.approx([0.4, 0.15, 0.45])
    assert found["b"][1][1].tolist() == found["b"][1][2].tolist() == pytest.approx([0.8, 0.2])


def test_a_table_has_the_expected_counts_up_to_one_and_is_drawn_without_bias() -> None:
    tables = {
        "a": ((), torch.tensor([0.3, 0.7]).double()),
        "b": (("a",), torch.tensor([[0.25, 0.35, 0.4], [0.0, 0.5, 0.5]]).double()),
    }
    drawn = systematic(tables, 1001, np.random.default_rng(0))
    assert abs((drawn["a"] == 0).sum() - 300.3) < 1
    for a, b in product(range(2), range(3)):
        m = (drawn["a"] == a).sum()
        expected = m * tables["b"][1][a, b].item()
        assert abs(((drawn["a"] == a) & (drawn["b"] == b)).sum() - expected) <= 1
    few = [systematic(tables, 2, np.random.default_rng(seed)) for seed in range(2000)]
    first = np.array([[rows["a"][0], rows["b"][0]] for rows in few])
    share = np.array([((first == (a, b)).all(1)).mean() for a, b in product(range(2), range(3))])
    assert share == pytest.approx([0.075, 0.105, 0.12, 0.0, 0.35, 0.35], abs=0.035)
