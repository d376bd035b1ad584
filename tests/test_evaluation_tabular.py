"""Tables compared: distances worked out by hand, and classifiers whose best rank is known."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgm import Categorical, Continuous, Count, Schema
from pgm.evaluation import table_distances, train_on_synthetic

SCHEMA = Schema(
    {"dose": Categorical(("low", "high")), "visits": Count(), "weight": Continuous(mean=80, std=10)}
)


def table(dose: Any, visits: Any, weight: Any) -> pd.DataFrame:
    return pd.DataFrame({"dose": dose, "visits": visits, "weight": weight})


def test_distances_are_those_worked_out_by_hand() -> None:
    real = table(["low", "low", "high", "high"], [0, 0, 0, 5], [60.0, 70.0, 80.0, 90.0])
    other = table(["low", "low", "low", "high"], [0, 0, 3, 5], [60.0, 70.0, np.nan, 90.0])
    found = table_distances(real, other, SCHEMA, bins=4)
    assert found.columns == pytest.approx({"dose": 0.25, "visits": 0.25, "weight": 0.25})
    assert found.pairs == pytest.approx(
        {("dose", "visits"): 0.25, ("dose", "weight"): 0.25, ("visits", "weight"): 0.25}
    )
    assert found.mean == pytest.approx(0.25) and found.worst[1] == pytest.approx(0.25)
    assert "of pairs: mean 0.250" in str(found)
    assert table_distances(real, real, SCHEMA).mean == 0.0


def test_a_value_of_many_rows_has_a_cell_of_its_own() -> None:
    schema = Schema({"gain": Count()})
    real = pd.DataFrame({"gain": [0] * 90 + list(range(1, 11))})
    smeared = pd.DataFrame({"gain": [1] * 90 + list(range(1, 11))})
    assert table_distances(real, smeared, schema, bins=5).mean == pytest.approx(0.9)


def test_an_empty_column_and_single_cells_are_compared() -> None:
    schema = SCHEMA.select(["weight"])
    nothing, some = pd.DataFrame({"weight": [np.nan] * 3}), pd.DataFrame({"weight": [1.0] * 3})
    assert table_distances(nothing, some, schema).columns["weight"] == 1.0
    assert table_distances(nothing, nothing, schema).columns["weight"] == 0.0
    assert str(table_distances(some, some, schema)).endswith("largest 0.000")


@pytest.mark.parametrize("classifier", ["boosting", "logistic"])
def test_auroc_is_that_of_the_best_ranking(classifier: Any) -> None:
    """x ~ N(0, 1) and N(1.5, 1): P(x1 > x0) = Phi(1.5 / sqrt 2) = .8556."""
    rng = np.random.default_rng(0)

    def rows(n: int) -> pd.DataFrame:
        dose = rng.choice(["low", "high"], n)
        weight = 80 + 10 * (1.5 * (dose == "high") + rng.normal(size=n))
        weight[rng.uniform(size=n) < 0.01] = np.nan
        return table(dose, rng.integers(0, 4, n), weight)

    found = train_on_synthetic(rows(3000), rows(2000), "dose", SCHEMA, classifier=classifier)
    assert found.auroc == pytest.approx(0.8556, abs=0.035)
    assert found.rows == (3000, 2000) and 0.005 < found.error < 0.012
    assert "tested on 2000 real ones: AUROC 0.8" in str(found)


def test_the_error_is_hanley_and_mcneils() -> None:
    """Their eq. 1 with A = .8, 50 and 50: sqrt((.16 + 49 (.02667 + .07111)) / 2500)."""
    from pgm.evaluation.tabular import _error

    q1, q2 = 0.8 / 1.2 - 0.64, 1.28 / 1.8 - 0.64
    assert _error(0.8, 50, 50) == pytest.approx(((0.16 + 49 * (q1 + q2)) / 2500) ** 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: table_distances(x, x, SCHEMA, bins=0), "bins is 0"),
        (lambda x: table_distances(x, x[["dose"]], SCHEMA), "lacks columns"),
        (lambda x: train_on_synthetic(x, x, "visits", SCHEMA), "is count"),
        (lambda x: train_on_synthetic(x, x, "doses", SCHEMA), "Did you mean 'dose'"),
        (lambda x: train_on_synthetic(x[:2], x, "dose", SCHEMA), "both levels must occur"),
    ],
)
def test_bad_input_is_explained(call: Any, message: str) -> None:
    rows = table(["low", "low", "high", "high"], [0, 0, 0, 5], [60.0, 70.0, 80.0, 90.0])
    with pytest.raises(ValueError, match=message):
        call(rows)
