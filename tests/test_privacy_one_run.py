"""The audit by one run: its theorem holds for the worst mechanisms known, and is near for many.

Known answers: randomised response, whose epsilon is known by construction, and the bound of
Steinke, Nasr & Jagielski (2023, thm 5.2) worked out by hand for two coins.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import pgm
from pgm.batch import Batch
from pgm.families.kde import KDE
from privacy.auditing import audit_guesses, audit_run, epsilon_of_guesses, p_value
from privacy.auditing.one_run import coins

DELTA = 1e-5


@given(
    m=st.integers(2, 60), epsilon=st.floats(0.0, 4.0), delta=st.floats(1e-6, 0.05), data=st.data()
)
def test_the_theorem_covers_the_worst_mechanisms_known(
    m: int, epsilon: float, delta: float, data: Any
) -> None:
    """Coin by coin, the truth with probability delta; or with probability delta, all of them."""
    v = data.draw(st.integers(0, m))
    q = 1 / (1 + math.exp(-epsilon))
    bound = p_value(v, epsilon, guesses=m, canaries=m, delta=delta)
    by_coin = stats.binom.sf(v - 1, m, delta + (1 - delta) * q)
    at_once = delta + (1 - delta) * stats.binom.sf(v - 1, m, q)
    assert max(by_coin, at_once) <= bound + 1e-12
    assert p_value(v, epsilon, guesses=m, canaries=m, delta=1e-12) >= stats.binom.sf(v - 1, m, q)


def test_the_bound_of_the_theorem_by_hand() -> None:
    """m = r = 2, v = 2, epsilon 0: f = 1/4, 3/4, 1; the largest slope is (3/4 - 1/4) / 1."""
    assert p_value(2, 0.0, guesses=2, canaries=2, delta=0.01) == pytest.approx(0.25 + 0.04 * 0.5)


def responses(epsilon: float, m: int, seed: int) -> tuple[Tensor, Tensor]:
    """Randomised response to m coins."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.rand(m, generator=generator) < 0.5
    lies = torch.rand(m, generator=generator) < 1 / (1 + math.exp(epsilon))
    return (inside ^ lies).float(), inside


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_is_exceeded_no_oftener_than_the_confidence_says(
    epsilon: float,
) -> None:
    found = [
        audit_guesses(*responses(epsilon, 200, seed), delta=1e-6, confidence=0.8).lower
        for seed in range(100)
    ]
    assert sum(lower > epsilon for lower in found) <= 20
    assert max(found) > 0.8 * epsilon


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 4.0])
def test_with_many_canaries_the_bound_is_near_the_truth(epsilon: float) -> None:
    scores, inside = responses(epsilon, 50_000, 0)
    found = audit_guesses(scores, inside, delta=1e-8, claim=epsilon, guesses=[50_000])
    assert 0.96 * epsilon < found.lower < epsilon
    assert not found.broken


def test_abstaining_finds_the_few_that_are_exposed() -> None:
    """One canary in twenty is published; all guesses together hide it."""
    inside = coins(2000, 0)
    with pgm.seeded(1):
        exposed, noise = torch.rand(2000) < 0.05, torch.randn(2000)
    scores = torch.where(exposed, 10.0 * (2.0 * inside - 1.0), noise)
    every = audit_guesses(scores, inside, delta=DELTA, guesses=[2000])
    few = audit_guesses(scores, inside, delta=DELTA)
    assert every.lower < 0.2 and few.lower > 2.0
    assert few.guesses < 100 <= few.canaries


def test_scores_that_are_all_equal_prove_nothing() -> None:
    inside = torch.arange(1000) < 500
    assert audit_guesses(torch.zeros(1000), inside, delta=DELTA, guesses=[100]).lower < 0.5


def test_the_bound_falls_with_delta_and_rises_with_what_was_right() -> None:
    def bound(right: int, delta: float) -> float:
        return epsilon_of_guesses(right, guesses=500, canaries=500, delta=delta)

    assert bound(400, 1e-2) < bound(400, 1e-4) < bound(450, 1e-4) < bound(500, 1e-4)
    assert bound(240, 1e-4) == 0.0


def test_a_recipe_that_keeps_its_rows_is_found_by_one_run() -> None:
    def keeps(rows: Batch, seed: int) -> pgm.Model:
        return KDE(rows["x"], bandwidth=0.1)

    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    found = audit_run(keeps, x[:200], data=x[200:], delta=DELTA, claim=2.0)
    assert found.broken and found.right == found.guesses > 10
    assert "guesses right about 200 canaries, in one run" in str(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: audit_guesses(torch.zeros(5), torch.ones(5) > 0, delta=DELTA), "5 canaries came"),
        (
            lambda: audit_guesses(torch.zeros(50), coins(50, 0), delta=DELTA, guesses=[51]),
            "51 guesses about 50 canaries",
        ),
        (
            lambda: audit_guesses(torch.full((50,), math.nan), coins(50, 0), delta=DELTA),
            "has no rank",
        ),
    ],
)
def test_what_cannot_be_audited_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert len(str(caught.value)) > 60
