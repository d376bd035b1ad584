"""Private statistics: as much noise as their row needs, counted, and never measured by the cells.

The laws are those of the definitions: one row changes the exact answers by the stated sensitivity
at most, the noise is that of the ledger's entry, and the exponential mechanism's probabilities of
two neighbours differ by a factor e^epsilon at most (McSherry & Talwar 2007, Thm 6).
"""

import math
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import nn

import pgm
import privacy
from pgm import Categorical, Continuous, Count, Schema
from privacy.mechanisms import Spending

SCHEMA = Schema(
    {
        "age": Continuous(lower=0, upper=120),
        "weight": Continuous(lower=20, upper=300),
        "visits": Count(upper=5),
        "drug": Categorical(("A", "B", "C")),
    }
)
GOOD: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-5}


def table(n: int = 2000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.normal(50, 15, n).clip(0, 120),
            "weight": np.where(rng.uniform(size=n) < 0.1, np.nan, rng.normal(80, 12, n)),
            "visits": rng.integers(0, 6, n),
            "drug": rng.choice(["A", "B"], n, p=[0.8, 0.2]),
        }
    )


def test_statistics_are_near_the_truth_and_in_the_ledger() -> None:
    frame, ledger = table(), privacy.Ledger()
    pure: dict[str, Any] = {"epsilon": 1.0, "ledger": ledger, "seed": 3}
    terms = pure | {"delta": 1e-5}
    assert privacy.count(frame, **terms) == pytest.approx(2000, abs=30)
    drugs = privacy.histogram(frame, SCHEMA, "drug", **terms)
    assert drugs["A"] == pytest.approx((frame.drug == "A").sum(), abs=30)
    assert list(drugs.index) == ["A", "B", "C"] and abs(drugs["C"]) < 30
    visits = privacy.histogram(frame, SCHEMA, "visits", noise="laplace", **pure)
    assert np.abs(visits.to_numpy() - frame.visits.value_counts().sort_index()).max() < 20
    ages = privacy.histogram(frame, SCHEMA, "age", bins=12, **terms)
    assert len(ages) == 12 and ages.index[1] == 10.0 and ages.sum() == pytest.approx(2000, abs=90)
    found = privacy.moments(frame, SCHEMA, **terms)
    assert found["age"].mean == pytest.approx(frame.age.mean(), abs=1.5)
    assert found["weight"].std == pytest.approx(frame.weight.std(), abs=4.0)
    assert found["weight"].count == pytest.approx(frame.weight.notna().sum(), abs=40)
    quartiles = privacy.quantiles(frame, SCHEMA, "weight", **pure)
    assert quartiles == pytest.approx(list(frame.weight.quantile([0.25, 0.5, 0.75])), abs=2.0)
    assert privacy.categories(frame, "drug", **terms).levels == ("A", "B")
    names = [release.mechanism for release in ledger.releases]
    assert names == [
        "Gaussian", "Gaussian", "Laplace", "Gaussian", "Gaussian", "exponential", "Laplace"
    ]  # fmt: skip
    assert 3.0 < ledger.epsilon(2e-5) < 7.0 and ledger.epsilon(1e-5) == math.inf


def test_a_deviation_that_drowns_in_noise_is_not_made_small() -> None:
    """A standard deviation of 1 between bounds 2e4 apart: scaling by less than it would explode."""
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(500.0, 1.0, 300)})
    schema = Schema({"x": Continuous(lower=-1e4, upper=1e4)})
    for seed in range(20):
        ledger = privacy.Ledger()
        found = privacy.moments(frame, schema, ledger=ledger, seed=seed, **GOOD)["x"]
        assert 300 < found.std < 3000
        assert abs(found.mean - 500) < 5 * found.error


def test_a_private_schema_serves_a_private_fit_under_one_budget() -> None:
    class Normal(pgm.Model):
        def __init__(self) -> None:
            super().__init__()
            self.mu = nn.Parameter(torch.zeros(()))

        def model(self, n: int) -> None:
            with pgm.rows(n):
                pyro.sample("age", dist.Normal(self.mu, 1.0))

    frame, schema = table()[["age"]], SCHEMA.select(["age"])
    budget = privacy.Budget(3.0, 1e-5)
    own = privacy.standardise(frame, schema, epsilon=0.5, budget=budget)
    age = own.columns["age"]
    assert isinstance(age, Continuous) and (age.lower, age.upper) == (0, 120)
    assert age.mean == pytest.approx(50, abs=3) and age.std == pytest.approx(15, abs=3)
    assert schema.columns["age"] == Continuous(lower=0, upper=120)  # the caller's is as it was
    run = privacy.fit(Normal(), frame, schema=own, budget=budget, steps=30, learning_rate=0.1)
    assert [r.what for r in run.ledger.releases] == ["moments of age", "fit of Normal"]
    assert 0.98 * 3.0 <= budget.spent <= 3.0
    assert abs(run.model.mu.item()) < 0.6
    assert "2 releases about these rows (moments of age, fit of Normal)" in str(run.report)
    with pytest.raises(privacy.BudgetExceeded, match="histogram of age would bring"):
        privacy.histogram(frame, own, "age", epsilon=1.0, budget=budget)
    assert len(budget.ledger.releases) == 2


class Captured(Exception):
    """The exact answers and what the noise was to be measured by."""


def exact(statistic: Any, frame: pd.DataFrame, *arguments: Any, **options: Any) -> Any:
    def capture(self: Spending, *answers: Any, **measured: Any) -> None:
        raise Captured(answers, measured)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("gaussian", "laplace", "exponential"):
            patch.setattr(Spending, name, capture)
        with pytest.raises(Captured) as caught:
            statistic(frame, *arguments, ledger=privacy.Ledger(), **options)
    return caught.value.args


ROW = st.fixed_dictionaries(
    {
        "age": st.one_of(st.floats(-1e9, 1e9), st.just(math.nan)),
        "weight": st.one_of(st.floats(0, 400), st.just(math.nan)),
        "visits": st.integers(0, 50),
        "drug": st.sampled_from(["A", "B", "C"]),
    }
)


@settings(max_examples=30)
@given(st.lists(ROW, min_size=1, max_size=6), ROW)
def test_one_row_changes_the_answers_by_the_sensitivity_at_most(
    rows: list[dict[str, Any]], added: dict[str, Any]
) -> None:
    here, there = pd.DataFrame(rows), pd.DataFrame([*rows, added])
    statistics: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
        (privacy.count, (), {}),
        (privacy.histogram, (SCHEMA, "drug"), {}),
        (privacy.histogram, (SCHEMA, "age"), {}),
        (privacy.histogram, (SCHEMA, "visits"), {"noise": "laplace"}),
        (privacy.moments, (SCHEMA,), {}),
        (privacy.moments, (SCHEMA, ["visits"]), {}),
    ]
    for statistic, arguments, options in statistics:
        ((a,), measured), ((b,), _) = (
            exact(statistic, frame, *arguments, **GOOD, **options) for frame in (here, there)
        )
        assert a.shape == b.shape
        order = 1 if "noise" in options else 2
        assert np.linalg.norm(b - a, ord=order) <= measured["sensitivity"] * (1 + 1e-12)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 120), max_size=8), st.floats(0, 120), st.sampled_from([0.1, 0.5, 1.0]))
def test_quantiles_of_neighbours_are_e_to_the_epsilon_alike(
    cells: list[float], added: float, p: float
) -> None:
    epsilon, y = 0.7, np.linspace(0.01, 119.99, 301)
    schema = SCHEMA.select(["age"])

    def log_density(ages: list[float]) -> Any:
        frame = pd.DataFrame({"age": np.array(ages, dtype=float)})
        ((utility,), (log_size,)), measured = exact(
            privacy.quantiles, frame, schema, "age", [p], epsilon=epsilon
        )
        score = epsilon * utility / (2 * measured["sensitivity"])
        inner = np.searchsorted(np.sort(ages), y) if ages else np.zeros(len(y), dtype=int)
        return score[inner] - special.logsumexp(score + log_size)

    apart = log_density(cells) - log_density([*cells, added])
    assert np.abs(apart).max() <= epsilon + 1e-9


def test_the_noise_is_that_of_the_ledger() -> None:
    frame = pd.DataFrame({"visits": [0] * 10})
    schema = Schema({"visits": Count(upper=3999)})
    ledger = privacy.Ledger()
    gauss = privacy.histogram(frame, schema, "visits", ledger=ledger, seed=0, **GOOD)[1:]
    sigma = ledger.releases[0].noise_multiplier
    assert 0.98 <= ledger.releases[0].epsilon() <= 1.0
    assert stats.kstest(gauss / sigma, "norm").pvalue > 1e-4
    terms: dict[str, Any] = {"noise": "laplace", "epsilon": 0.5, "ledger": ledger, "seed": 1}
    laplace = privacy.histogram(frame, schema, "visits", **terms)[1:]
    assert stats.kstest(laplace * 0.5, "laplace").pvalue > 1e-4
    assert ledger.releases[1].promise == (0.5, 0.0)
    assert ledger.releases[1].epsilon() == pytest.approx(0.5)


def test_a_lone_level_comes_out_with_probability_delta() -> None:
    frame, delta = pd.DataFrame({"drug": ["A"] * 100 + ["mine"]}), 0.1
    out = sum(
        "mine" in privacy.categories(
            frame, "drug", epsilon=2.0, delta=delta, ledger=privacy.Ledger(), seed=seed
        ).levels
        for seed in range(400)
    )  # fmt: skip
    assert stats.binomtest(out, 400, delta).pvalue > 1e-4
    with pytest.raises(ValueError, match="common enough"):
        privacy.categories(frame[-1:], "drug", ledger=privacy.Ledger(), seed=0, **GOOD)


def test_seeds_repeat_and_are_not_used_twice_in_one_ledger() -> None:
    frame, ledger = table(50), privacy.Ledger()
    one = privacy.count(frame, ledger=ledger, seed=5, **GOOD)
    assert one == privacy.count(frame, ledger=privacy.Ledger(), seed=5, **GOOD)
    assert privacy.count(frame, ledger=ledger, **GOOD) != one
    with pytest.raises(ValueError, match="the same noise a second time"):
        privacy.count(frame, ledger=ledger, seed=5, **GOOD)
    assert len(ledger.releases) == 2


OPEN = Schema({"age": Continuous(lower=0), "visits": Count(), "drug": Categorical(("A", "B"))})


@pytest.mark.parametrize(
    ("statistic", "arguments", "options", "message"),
    [
        (privacy.count, (), {"ledger": None}, "nowhere to count it"),
        (privacy.count, (), {"epsilon": 0.0}, "epsilon is 0"),
        (privacy.count, (), {"delta": None}, "delta= is missing"),
        (privacy.count, (), {"delta": 1.0}, "delta is 1"),
        (privacy.moments, (OPEN,), {}, 'Column "age" has no bounds'),
        (privacy.standardise, (OPEN,), {}, 'Column "age" has no bounds'),
        (privacy.histogram, (OPEN, "visits"), {}, 'Column "visits" has no bounds'),
        (privacy.histogram, (SCHEMA, "age"), {"bins": 0}, "bins is 0"),
        (privacy.histogram, (SCHEMA, "agee"), {}, "Did you mean 'age'"),
        (privacy.histogram, (OPEN, "drug"), {}, "no level 'C'"),
        (privacy.moments, (SCHEMA, ["drug"]), {}, "is categorical"),
        (privacy.standardise, (SCHEMA, ["visits"]), {}, "is a count column"),
        (privacy.quantiles, (OPEN, "age"), {"delta": ...}, 'Column "age" has no bounds'),
        (privacy.quantiles, (SCHEMA, "age", [1.5]), {"delta": ...}, "between 0 and 1"),
        (privacy.categories, ("drug",), {"delta": None}, "delta= is missing"),
    ],
)
def test_bad_input_spends_nothing(
    statistic: Any, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    frame, ledger = table(30).assign(drug="C"), privacy.Ledger()
    given = {k: v for k, v in (GOOD | {"ledger": ledger} | options).items() if v is not ...}
    with pytest.raises(ValueError, match=message):
        statistic(frame, *arguments, **given)
    assert ledger.releases == ()
