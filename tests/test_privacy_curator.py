"""The curator of a synthetic table: its three mechanisms are what their theorems speak of.

One row changes a marginal by 1 and a distance by 1 at most; the exponential mechanism draws y with
probability proportional to exp(epsilon u(y) / 2 S) (McSherry & Talwar 2007), so that neighbours
differ by a factor e^epsilon at most.
"""

import math
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from pgm import Categorical, Continuous, Count, Schema
from privacy.synthesis import curator as curator_module
from privacy.synthesis.cells import Cells, domain
from privacy.synthesis.curator import CUT, Curator, exponential_cut

SCHEMA = Schema(
    {
        "age": Count(upper=99),
        "weight": Continuous(lower=20, upper=180, mean=80, std=10),
        "drug": Categorical(("A", "B", "C")),
        "better": Categorical((False, True)),
    }
)


def table(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(0, 100, n),
            "weight": np.where(rng.uniform(size=n) < 0.1, np.nan, rng.uniform(20, 180, n)),
            "drug": rng.choice(["A", "B", "C"], n, p=[0.5, 0.3, 0.2]),
            "better": rng.uniform(size=n) < 0.4,
        }
    )


def curator(frame: pd.DataFrame, uses: int = 10**6, **cells: Cells) -> Curator:
    columns = cells or domain(SCHEMA, bins=4, edges={"age": 4, "weight": 4}, missing=["weight"])
    made = Curator(
        frame,
        columns,
        generator=np.random.default_rng(0),
        uses=dict.fromkeys(("cut", "measure", "choose"), uses),
    )
    if all(column.cuts is not None for column in columns.values()):
        made.code(columns)
    return made


def test_the_noise_of_a_marginal_is_gaussian_of_the_stated_scale() -> None:
    visits = Cells("visits", Count(upper=3999), tuple(float(k) for k in range(1, 4000)))
    asked = curator(pd.DataFrame({"visits": [0] * 10}), visits=visits)
    noisy = asked.measure(("visits",), sigma=7.0)
    exact = np.zeros(4000)
    exact[0] = 10
    assert stats.kstest((noisy.counts.numpy() - exact) / 7.0, "norm").pvalue > 1e-4
    assert (noisy.std == 7.0).all()


def test_a_choice_follows_the_closed_form() -> None:
    asked, pairs = curator(table(40)), list(combinations(SCHEMA.columns, 2))
    known = {
        pair: torch.from_numpy(asked._marginal(pair)) + 0.1 * k for k, pair in enumerate(pairs)
    }
    less = {pair: 0.5 * k for k, pair in enumerate(pairs)}
    utility = [
        np.abs(asked._marginal(pair) - known[pair].numpy()).sum() - less[pair] for pair in pairs
    ]
    p = special.softmax(0.8 * np.array(utility) / 2)
    drawn = [asked.choose(known, less, epsilon=0.8) for _ in range(3000)]
    counts = [drawn.count(pair) for pair in pairs]
    assert p.min() > 0.01 and stats.chisquare(counts, 3000 * p).pvalue > 1e-4


@pytest.mark.parametrize("numbers", ["whole", "real"])
def test_a_cut_follows_the_closed_form(numbers: str) -> None:
    whole = numbers == "whole"
    x, a, b, epsilon = np.array([2.0, 2.0, 3.0, 7.0, 7.0, 8.0]), 0.0, 10.0, 0.6
    rng = np.random.default_rng(0)
    drawn = np.array([exponential_cut(x, a, b, epsilon, rng, whole=whole) for _ in range(4000)])
    if whole:
        y = np.arange(1.0, 11.0)
    else:
        y, drawn = np.arange(0.25, 10, 0.5), np.floor(2 * drawn) / 2 + 0.25
    below = (x[None] < y[:, None]).sum(1)
    p = special.softmax(-epsilon * np.abs(below - 3) / (2 * CUT))
    counts = [(drawn == value).sum() for value in y]
    assert sum(counts) == 4000 and stats.chisquare(counts, 4000 * p).pvalue > 1e-4


ROW = st.fixed_dictionaries(
    {
        "age": st.integers(0, 99),
        "weight": st.one_of(st.floats(20, 180), st.just(math.nan)),
        "drug": st.sampled_from(["A", "B", "C"]),
        "better": st.booleans(),
    }
)


@settings(max_examples=30)
@given(st.lists(ROW, min_size=1, max_size=6), ROW)
def test_a_row_changes_a_marginal_and_a_distance_by_one(
    rows: list[dict[str, Any]], added: dict[str, Any]
) -> None:
    here, there = curator(pd.DataFrame(rows)), curator(pd.DataFrame([*rows, added]))
    scopes = [(name,) for name in SCHEMA.columns] + list(combinations(SCHEMA.columns, 2))
    for scope in scopes:
        a, b = here._marginal(scope), there._marginal(scope)
        assert np.linalg.norm(a - b) == 1.0 and a.sum() == len(rows)
        known = np.full(a.shape, 0.7)
        assert abs(np.abs(a - known).sum() - np.abs(b - known).sum()) <= 1 + 1e-12


@settings(max_examples=40)
@given(st.lists(st.integers(0, 30), max_size=8), st.integers(0, 30), st.sampled_from("wr"))
def test_cuts_of_neighbours_are_e_to_the_epsilon_alike(
    cells: list[int], added: int, numbers: str
) -> None:
    whole = numbers == "w"
    epsilon, y = 0.7, np.linspace(0.01, 29.99, 301) if not whole else np.arange(1.0, 31.0)

    def log_density(values: list[int]) -> Any:
        seen: list[Any] = []

        def capture(weights: Any, generator: Any) -> int:
            seen.append(weights)
            return 0

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(curator_module, "exponential", capture)
            x = np.sort(np.array(values, dtype=float))
            exponential_cut(x, 0.0, 30.0, epsilon, np.random.default_rng(0), whole=whole)
        edges = np.concatenate([[0.0], x, [30.0]])
        with np.errstate(divide="ignore", invalid="ignore"):
            each = seen[0] - special.logsumexp(seen[0]) - np.log(np.diff(edges))
        return each[np.searchsorted(x, y, side="left")]

    apart = log_density(cells) - log_density([*cells, added])
    assert np.abs(apart).max() <= epsilon + 1e-9


@settings(max_examples=30)
@given(st.lists(st.integers(0, 99), max_size=12), st.integers(0, 99), st.integers(0, 2**16))
def test_a_row_is_in_one_part_of_each_depth(ages: list[int], added: int, seed: int) -> None:
    """So that all cuts of a depth, disjoint as their parts are, count once."""

    def parts(values: list[int]) -> list[tuple[float, float, list[float]]]:
        seen = []
        where = np.random.default_rng(seed)

        def cut(x: Any, a: float, b: float, *_: Any, whole: bool) -> float:
            seen.append((a, b, list(x)))
            return float(where.integers(int(a) + 1, int(b) + 1))

        age = Cells("age", Count(upper=99), None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(curator_module, "exponential_cut", cut)
            asked = curator(pd.DataFrame({"age": np.array(values, dtype=float)}), age=age)
            asked.cuts(age, depth=3, epsilon=1.0)
        return seen

    here, there = parts(ages), parts([*ages, added])
    assert [part[:2] for part in here] == [part[:2] for part in there]
    changed = [k for k, (a, b) in enumerate(zip(here, there, strict=True)) if a != b]
    assert len(changed) <= 3
    for k, other in combinations(changed, 2):
        inner, outer = here[other][:2], here[k][:2]
        assert outer[0] <= inner[0] and inner[1] <= outer[1]  # one inside the other: other depths


def test_zero_and_the_upper_bound_of_a_count_have_cells_of_their_own() -> None:
    age = Cells("age", Count(upper=99), None)
    rows = pd.DataFrame({"age": [0] * 30 + [20] * 10 + [50] * 20 + [99] * 40})
    cuts = curator(rows, age=age).cuts(age, depth=2, epsilon=50.0)
    labels = Cells("age", Count(upper=99), cuts).labels
    assert labels[0] == "0" and labels[-1] == "99" and 4 <= len(labels) <= 6
    few = Cells("few", Count(upper=2), None)
    found = curator(pd.DataFrame({"few": [0, 1, 2]}), few=few).cuts(few, depth=1, epsilon=1.0)
    assert found == (1.0, 2.0)


def test_more_uses_than_planned_are_an_error() -> None:
    asked = curator(table(20), uses=1)
    asked.measure(("drug",), sigma=1.0)
    with pytest.raises(RuntimeError, match="'measure' is used more often"):
        asked.measure(("drug",), sigma=1.0)
