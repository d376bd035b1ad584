"""Schema: what is no table, or not the declared one, is refused with advice."""

import math

import pandas as pd
import pytest
import torch

from pgm.schema import Categorical, Continuous, Count, Schema

WARD = Schema({"age": Continuous(lower=0, upper=120), "dose": Categorical(("low", "high"))})
VISITS = Schema({**WARD.columns, "visits": Count()})
GOOD = {"age": [30.0, None], "dose": ["low", "high"]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"age": [], "dose": []}, "0 rows"),
        ({"age": [1.0]}, r"lacks columns of the schema: dose\."),
        (GOOD | {"Wight": [1, 2]}, "does not know: Wight"),
        ({"Age": [1.0], "dose": ["low"]}, "lacks .*: age. Did you mean 'Age'"),
        (GOOD | {"age": [1, math.inf]}, '"age" holds 1 infinite values .* row 1'),
        (GOOD | {"age": [None, None]}, "without a single value: age"),
        (GOOD | {"age": [float("nan")] * 2, "dose": [None, None]}, "value: age, dose"),
        (GOOD | {"dose": ["low", "hihg"]}, "no level 'hihg'.*'low', 'high'.*mean 'high'"),
        (GOOD | {"age": [3.0, -1.0]}, r"in \[0, 120\] by its schema but holds -1 .*row 1"),
        (GOOD | {"age": [121.0, 3.0]}, "holds 121"),
    ],
)
def test_bad_frames_are_refused(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WARD.encode(pd.DataFrame(columns))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["30", "40"], "holds string cells, such as '30'"),
        ([True, False], "holds boolean cells"),
        (pd.to_datetime(["2020-01-01", None]), "holds datetime"),
        ([1.0, "n/a"], "holds mixed"),
    ],
)
def test_numbers_must_be_numbers(cells: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Schema({"x": Continuous()}).encode(pd.DataFrame({"x": cells}))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([1, -2], "holds -2 .*row 1"),
        ([1.5, 2], "holds 1.5"),
        ([1, 10], r"in \[0, 9\]"),
        ([math.inf, 1], "infinite"),
    ],
)
def test_counts_must_be_counts(cells: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schema({"k": Count(upper=9)}).encode(pd.DataFrame({"k": cells}))


def test_numbers_too_large_for_the_dtype_are_refused() -> None:
    frame = pd.DataFrame({"k": [2**24 + 1]})
    with pytest.raises(ValueError, match=r'"k" reaches .* dtype=torch.float64'):
        Schema({"k": Count()}).encode(frame)
    assert Schema({"k": Count()}).encode(frame, dtype=torch.float64)["k"].item() == 2**24 + 1
    with pytest.raises(ValueError, match="reaches 1e\\+39"):
        Schema({"x": Continuous()}).encode(pd.DataFrame({"x": [1e39]}))
    with pytest.raises(TypeError, match="floating-point"):
        Schema({"k": Count()}).encode(frame, dtype=torch.int64)


@pytest.mark.parametrize("table", [[1, 2], {"age": [1.0]}, torch.zeros(2), pd.Series([1.0])])
def test_only_frames_are_tables(table: object) -> None:
    for question in (WARD.encode, Schema.infer):
        with pytest.raises(TypeError, match="DataFrame"):
            question(table)


def test_names_are_strings_and_unique() -> None:
    twice = pd.DataFrame([[1.0, 2.0]], columns=["age", "age"])
    for question in (WARD.encode, Schema.infer):
        with pytest.raises(ValueError, match="more than once: age"):
            question(twice)
    with pytest.raises(TypeError, match=r"rename\(columns=str\)"):
        Schema.infer(pd.DataFrame([[1.0, 2.0]]))


@pytest.mark.parametrize(
    ("cells", "error", "message"),
    [
        ([None, None], ValueError, "without a single value: c"),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), TypeError, "of type Timestamp"),
        ([1.0, "a"], TypeError, "alone or among others"),
        ([{}, {}], TypeError, "holds {} of type dict"),
        ([math.inf, 1.0], ValueError, "infinite"),
        (pd.Categorical(pd.to_datetime(["2020-01-01"] * 2)), TypeError, "of type Timestamp"),
        ([1.7e9, 1.7e9 + 1], ValueError, "standardise=True"),
    ],
)
def test_inference_refuses_what_it_cannot_name(
    cells: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Schema.infer(pd.DataFrame({"c": cells}))


def test_constant_columns_cannot_be_standardised() -> None:
    with pytest.raises(ValueError, match=r'"c" is constant \(2\)'):
        Schema.infer(pd.DataFrame({"c": [2.0, 2.0, None]}), standardise=True)


def test_kinds_are_checked_when_declared() -> None:
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="std"):
            Continuous(std=bad)
    with pytest.raises(ValueError, match="lower must be below upper"):
        Continuous(lower=2, upper=2)
    with pytest.raises(ValueError, match="twice: 'a'"):
        Categorical(("a", "b", "a"))
    with pytest.raises(ValueError, match="at least one level"):
        Categorical(())
    with pytest.raises(ValueError, match="NaN is among the levels"):
        Categorical((1.0, math.nan))
    with pytest.raises(TypeError, match="letter by letter"):
        Categorical("low")
    with pytest.raises(ValueError, match="whole number"):
        Count(upper=0)
    with pytest.raises(ValueError, match="at least one column"):
        Schema({})
    with pytest.raises(ValueError, match=r'site "x" .*categorical: c\.'):
        Schema({"c": Categorical(("a", "b")), "d": Count()}, site="x")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Age", 3, "Did you mean 'age'"),
        ("dose", "medium", "no level 'medium'"),
        ("dose", 1, "no level 1"),
        ("age", 200, r"in \[0, 120\]"),
        ("age", math.nan, "finite number"),
    ],
)
def test_values_without_a_code_are_refused(column: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WARD.code(column, value)


def test_text_is_no_number_and_nan_no_level() -> None:
    with pytest.raises(TypeError, match="'3' of type str"):
        WARD.code("age", "3")
    with pytest.raises(ValueError, match="no label"):
        WARD.label("dose", math.nan)
    with pytest.raises(ValueError, match=r"coded 0 \.\. 1, but the batch holds 2"):
        WARD.label("dose", 2)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "holds nothing"),
        ({"Dose": torch.tensor([1])}, "Did you mean 'dose'"),
        ({"dose": torch.tensor([2])}, "holds 2"),
        ({"dose": torch.tensor([0.5])}, "holds 0.5"),
        ({"dose": torch.tensor([-1])}, "holds -1"),
        ({"visits": torch.tensor([-1.0])}, "a count .* holds -1"),
        ({"visits": torch.tensor([math.inf])}, "a count .* holds inf"),
        ({"age": torch.zeros(2, 3)}, r"shape \(2, 3\)"),
        ({"age": torch.zeros(2), "dose": torch.tensor([1])}, "same n"),
    ],
)
def test_batches_that_are_no_table_are_refused(
    batch: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        VISITS.decode(batch)


def test_only_tensors_decode() -> None:
    with pytest.raises(TypeError, match=r"[tT]ensor"):
        WARD.decode({"age": [1.0]})  # type: ignore[dict-item]


def test_fractions_decode_to_counts_only_when_asked() -> None:
    schema = Schema({"a": Continuous(), "k": Count()}, site="x")
    with pytest.raises(ValueError, match='counts="nearest"'):
        schema.decode({"x": torch.tensor([[0.5, 2.7]])})
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        schema.decode({"x": torch.zeros(3)})
    assert schema.decode({"x": torch.tensor([[0.5, 2.7]])}, counts="nearest")["k"].tolist() == [3]


def test_a_mistyped_choice_is_no_choice() -> None:
    with pytest.raises((ValueError, TypeError), match="all_missing"):
        WARD.encode(pd.DataFrame(GOOD), all_missing="drop")  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError), match="counts"):
        WARD.decode({"age": torch.zeros(1)}, counts="round")  # type: ignore[arg-type]
