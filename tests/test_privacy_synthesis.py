"""Synthetic tables: what is spent is what the ledger says, and nothing else knows of the rows.

That each mechanism is what its theorem speaks of is in test_privacy_curator.py.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pgm
import privacy
from pgm import Categorical, Continuous, Count, Schema
from pgm.evaluation import table_distances
from privacy.synthesis import tables as tables_module
from privacy.synthesis.curator import Curator, Measurement
from privacy.synthesis.plan import Plan

SCHEMA = Schema(
    {
        "age": Count(upper=99),
        "weight": Continuous(lower=20, upper=180, mean=80, std=10),
        "drug": Categorical(("A", "B", "C")),
        "better": Categorical((False, True)),
    }
)
GOOD: dict[str, Any] = {"schema": SCHEMA, "epsilon": 1.0, "delta": 1e-6, "missing": ["weight"]}


def table(n: int = 3000, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    drug = rng.choice(["A", "B", "C"], n, p=[0.5, 0.3, 0.2])
    weight = (60 + 20 * (drug == "B") + rng.normal(0, 8, n)).clip(20, 180)
    return pd.DataFrame(
        {
            "better": rng.uniform(size=n) < np.where(drug == "A", 0.8, 0.2),
            "age": np.where(rng.uniform(size=n) < 0.3, 0, rng.integers(1, 100, n)),
            "weight": np.where(rng.uniform(size=n) < 0.1, np.nan, weight),
            "drug": drug,
        }
    )


def test_a_table_is_like_the_rows_and_in_the_users_words() -> None:
    frame = table()
    before = frame.copy()
    made = privacy.synthesize(frame, seed=0, bins=8, **GOOD)
    pd.testing.assert_frame_equal(frame, before)
    assert list(made.frame) == list(SCHEMA.columns)
    assert abs(len(made.frame) - 3000) < 100 and 0.98 <= made.report.epsilon <= 1.0
    assert made.frame["age"].dtype == np.int64 and made.frame["better"].dtype == bool
    SCHEMA.encode(made.frame)
    found = table_distances(frame, made.frame, SCHEMA, bins=5)
    assert max(found.columns.values()) < 0.1 and found.mean < 0.12
    better = made.frame.groupby("drug")["better"].mean()
    assert better["A"] == pytest.approx(0.8, abs=0.1) and better["B"] == pytest.approx(0.2, abs=0.1)
    assert (made.frame["age"] == 0).mean() == pytest.approx(0.3, abs=0.05)
    assert made.frame["weight"].isna().mean() == pytest.approx(0.1, abs=0.04)
    assert "drug x better" in str(made) and "epsilon 1.00" in str(made)
    assert made.plot("age").get_xlabel() == "age"


def test_with_much_epsilon_the_marginals_are_those_of_the_rows() -> None:
    frame = table()
    made = privacy.synthesize(frame, seed=0, bins=4, pairs=3, **(GOOD | {"epsilon": 1e4}))
    found = table_distances(frame, made.frame, SCHEMA, bins=2)
    assert len(made.frame) == 3000 and ("drug", "better") in made.report.pairs
    assert found.columns["drug"] < 0.001 and found.pairs["drug", "better"] < 0.002
    assert (made.frame["age"] == 0).sum() == pytest.approx((frame["age"] == 0).sum(), abs=2)
    assert made.frame["weight"].isna().sum() == pytest.approx(frame["weight"].isna().sum(), abs=2)


def test_the_model_samples_and_carries_the_note() -> None:
    made = privacy.synthesize(table(500), seed=0, n=10, pairs=2, edges={"age": 3}, bins=2, **GOOD)
    drawn = pgm.sample(made.model, 2000, seed=1)
    assert made.model.schema is not None
    words = made.model.schema.decode(drawn)
    assert set(words["age"]) <= {"0 to 32", "33 to 65", "66 to 99"}
    assert "missing" in set(words["weight"])
    assert len(made.frame) == 10
    assert made.model.note is not None and "(1.00, 1e-06)-differential privacy" in made.model.note
    again = privacy.synthesize(made.model, n=100, seed=0)
    assert again.report == made.model.note and len(again.frame) == 100


def test_rows_of_a_privately_trained_model_are_post_processing() -> None:
    from pgm.families.factor import PPCA

    frame = table(400)[["age", "weight"]].dropna()
    schema = Schema({"age": Count(upper=99), "weight": Continuous(20, 180, 70, 10)}, site="x")
    model = PPCA(2, 1)
    with pytest.raises(ValueError, match="no note of a private fit"):
        privacy.synthesize(model, n=5)
    ledger = privacy.Ledger()
    privacy.fit(
        model, frame, epsilon=3.0, delta=1e-5, steps=5, seed=0, schema=schema, ledger=ledger
    )
    made = privacy.synthesize(model, n=500, seed=0)
    assert len(ledger.releases) == 1 and made.report == model.note
    schema.encode(made.frame)
    assert made.frame["weight"].between(20, 180).all()
    with pytest.raises(ValueError, match="epsilon= came"):
        privacy.synthesize(model, n=5, epsilon=1.0)
    with pytest.raises(ValueError, match="n= is missing"):
        privacy.synthesize(model)


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[float]]]:
    """The noise with which each mechanism was used."""
    seen: dict[str, list[float]] = {"cuts": [], "measure": [], "choose": []}
    for name, key in (("cuts", "epsilon"), ("measure", "sigma"), ("choose", "epsilon")):
        original = getattr(Curator, name)

        def spy(
            self: Curator, *args: Any, name: str = name, key: str = key,
            original: Any = original, **options: Any,
        ) -> Any:  # fmt: skip
            seen[name] += [options[key]] * options.get("depth", 1)
            return original(self, *args, **options)

        monkeypatch.setattr(Curator, name, spy)
    yield seen


def test_what_is_used_is_what_is_in_the_ledger(uses: dict[str, list[float]]) -> None:
    ledger = privacy.Ledger()
    made = privacy.synthesize(table(), seed=0, ledger=ledger, bins=4, pairs=3, **GOOD)
    cut, columns, choice, pair = ledger.releases
    assert cut.promise is not None and choice.promise == cut.promise
    assert uses["cuts"] == [cut.promise[0]] * cut.steps and cut.steps == 2 * 2
    assert uses["choose"] == [cut.promise[0]] * choice.steps
    expected = [columns.noise_multiplier] * columns.steps + [pair.noise_multiplier] * pair.steps
    assert uses["measure"] == expected and (columns.steps, pair.steps) == (4, 3)
    assert (cut.clip, columns.clip, choice.clip, pair.clip) == (0.5, 1.0, 1.0, 1.0)
    assert made.report.releases == ledger.releases == made.report.together
    assert 0.98 <= ledger.epsilon(1e-6) <= 1.0
    by_hand = privacy.compose(
        [
            (columns.noise_multiplier, 1.0, 4),
            (pair.noise_multiplier, 1.0, 3),
            privacy.Approximate(cut.promise[0], times=7),
        ],
        delta=1e-6,
    )
    assert made.report.epsilon == pytest.approx(by_hand, rel=1e-6)


def test_the_rows_are_seen_by_the_curator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the answers about one table, another table, longer and other, gives the same result."""
    options = GOOD | {"seed": 3, "bins": 2, "pairs": 1}
    here, other = table(), table(3500, seed=1).assign(drug="C", better=True, age=7)
    first = privacy.synthesize(here, **options)
    assert not first.frame.equals(privacy.synthesize(other, **options).frame)

    def answering(frame: pd.DataFrame, *args: Any, **given: Any) -> Curator:
        return Curator(here, *args, **given)

    monkeypatch.setattr(tables_module, "Curator", answering)
    second = privacy.synthesize(other, **options)
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert str(first.report) == str(second.report)


def test_the_curator_shows_the_rows_through_its_mechanisms_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With answers that do not depend on the rows, neither does anything else."""

    def measure(self: Curator, scope: Any, *, sigma: float) -> Measurement:
        shape = tuple(self._sizes[name] for name in scope)
        counts = 100 * np.random.default_rng(len(scope)).uniform(1, 2, shape)
        return Measurement(scope, torch.from_numpy(counts), torch.full(shape, sigma).double())

    monkeypatch.setattr(Curator, "cuts", lambda *_, **__: (40.0, 60.0))
    monkeypatch.setattr(Curator, "measure", measure)
    monkeypatch.setattr(Curator, "choose", lambda self, known, *_, **__: min(known))
    options = GOOD | {"seed": 0, "pairs": 1}
    one, two = (privacy.synthesize(table(n, seed=n), **options) for n in (300, 400))
    pd.testing.assert_frame_equal(one.frame, two.frame)
    assert str(one) == str(two)


def test_a_budget_is_kept_and_refuses_before_anything_is_computed(
    uses: dict[str, list[float]],
) -> None:
    frame, budget = table(), privacy.Budget(1.0, 1e-6)
    options = {"schema": SCHEMA, "missing": ["weight"], "budget": budget, "bins": 4}
    privacy.count(frame, epsilon=0.3, budget=budget)
    privacy.synthesize(frame, pairs=2, **options)
    assert 0.97 <= budget.spent <= 1.0 and len(budget.ledger.releases) == 5
    before, used = budget.ledger.releases, [len(each) for each in uses.values()]
    with pytest.raises(privacy.BudgetExceeded, match="too little for any table"):
        privacy.synthesize(frame, **options)
    with pytest.raises(privacy.BudgetExceeded, match=r"would bring the releases to epsilon 1\."):
        privacy.synthesize(frame, epsilon=0.5, **options)
    assert budget.ledger.releases == before and used == [len(each) for each in uses.values()]


def test_seeds_repeat_and_are_not_used_twice_in_one_ledger() -> None:
    options: dict[str, Any] = GOOD | {"pairs": 1, "edges": {"age": 4, "weight": 4}}
    state, ledger = torch.get_rng_state(), privacy.Ledger()
    one = privacy.synthesize(table(200), seed=5, ledger=ledger, **options)
    two = privacy.synthesize(table(200), seed=5, **options)
    pd.testing.assert_frame_equal(one.frame, two.frame)
    with pytest.raises(ValueError, match="the same noise a second time"):
        privacy.synthesize(table(200), seed=5, ledger=ledger, **options)
    assert len(ledger.releases) == 3 and torch.equal(state, torch.get_rng_state())
    assert "given by the caller" in str(one.report)


def test_one_column_has_no_pairs() -> None:
    made = privacy.synthesize(
        table()[["drug"]], schema=SCHEMA.select(["drug"]), epsilon=1.0, delta=1e-6, seed=0
    )
    assert [release.what for release in made.report.releases] == ["synthetic table: columns"]
    assert (made.frame["drug"] == "A").mean() == pytest.approx(0.5, abs=0.05)


def test_a_plan_spends_its_shares() -> None:
    plan = Plan(columns=4, pairs=3, cuts=5, scale=2.0)
    rho = [4 / (2 * plan.sigma_columns**2), 3 / (2 * plan.sigma_pairs**2)]
    rho.append(8 * plan.epsilon_choice**2 / 2)
    assert np.array(rho) * 2 * 2.0**2 == pytest.approx([0.2, 0.6, 0.2])


OPEN = Schema({**SCHEMA.columns, "weight": Continuous(lower=0)})
LEVELS = Schema({**SCHEMA.columns, "drug": Categorical(("A", "B"))})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schema": None}, "schema= is missing"),
        ({"schema": OPEN}, 'Column "weight" has no bounds'),
        ({"schema": LEVELS}, "no level 'C'"),
        ({"schema": Schema({**SCHEMA.columns, "age": Count(upper=50)})}, "bounds are promises"),
        ({"schema": SCHEMA.select(["age", "drug"])}, "does not know"),
        ({"epsilon": 0.0}, "epsilon is 0"),
        ({"epsilon": None}, "epsilon= is missing"),
        ({"epsilon": math.inf}, "epsilon is inf"),
        ({"delta": None}, "delta= is missing"),
        ({"delta": 1.0}, "delta is 1"),
        ({"delta": 1 / 300}, "for 300 rows"),
        ({"missing": []}, 'Column "weight" has missing cells'),
        ({"missing": ["weight", "wait"]}, "missing names wait"),
        ({"edges": {"drug": 3}}, "has levels"),
        ({"edges": {"age": [50, 20], "weight": [50, 20]}}, "they rise"),
        ({"edges": {"weight": [200.0]}}, "between its bounds"),
        ({"bins": 5}, "halved"),
        ({"pairs": 7}, "there are 0 to 6 pairs"),
        ({"n": 0}, "n is 0"),
    ],
)
def test_bad_input_computes_nothing_and_spends_nothing(
    uses: dict[str, list[float]], options: dict[str, Any], message: str
) -> None:
    ledger = privacy.Ledger()
    with pytest.raises(ValueError, match=message):
        privacy.synthesize(table(300), ledger=ledger, **(GOOD | options))
    assert ledger.releases == () and not any(uses.values())


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match="one name"):
        privacy.synthesize(table(300), **(GOOD | {"missing": "weight"}))
    rows: Any = torch.zeros(3, 2)
    with pytest.raises(TypeError, match="DataFrame is needed"):
        privacy.synthesize(rows, **GOOD)
