"""Schema: decode inverts encode on any frame."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgm.schema import Categorical, Column, Continuous, Count, Schema

reals = st.floats(-1000, 1000, width=32)
words = st.text(min_size=1, max_size=4)


KINDS: dict[str, tuple[st.SearchStrategy[object], Column, list[object]]] = {
    "continuous": (reals, Continuous(), ["float64", "Float64", "object"]),
    "count": (st.integers(0, 2**24 - 1), Count(), ["Int64", "object"]),
    "string": (st.sampled_from("cab"), Categorical(("a", "b", "c")), ["string", "object"]),
    "boolean": (st.booleans(), Categorical((False, True)), ["boolean", "object"]),
    "category": (
        st.sampled_from("cab"),
        Categorical(("b", "a", "c"), ordered=True),
        [pd.CategoricalDtype(["b", "a", "c"], ordered=True)],
    ),
}
Table = tuple[pd.DataFrame, dict[str, Column]]


@st.composite
def tables(draw: st.DrawFn, *, complete: bool = False) -> Table:
    """A frame of mixed columns in any of their dtypes, and the kind of each."""
    rows = draw(st.integers(1, 6))
    names = draw(st.lists(words, min_size=1, max_size=5, unique=True))
    chosen = {name: KINDS[draw(st.sampled_from(sorted(KINDS)))] for name in names}
    columns = {}
    for name, (cells, _, dtypes) in chosen.items():
        cell = cells if complete else st.none() | cells
        values = draw(st.lists(cell, min_size=rows, max_size=rows))
        columns[name] = pd.Series(values, dtype=draw(st.sampled_from(dtypes)))
    return pd.DataFrame(columns), {name: kind for name, (_, kind, _) in chosen.items()}


def cells_of(frame: pd.DataFrame) -> dict[str, list[object]]:
    """The cells as Python objects, None where missing."""
    return {str(name): [None if pd.isna(cell) else cell for cell in frame[name]] for name in frame}


@given(tables())
def test_decode_inverts_encode(table: Table) -> None:
    frame, schema = table[0], Schema(table[1])
    before = frame.copy(deep=True)
    batch = schema.encode(frame, all_missing="keep")
    assert cells_of(schema.decode(batch)) == cells_of(frame)
    pd.testing.assert_frame_equal(frame, before)


@given(tables(complete=True))
def test_complete_frames_keep_their_dtypes_and_code_by_code(
    table: Table,
) -> None:
    frame, schema = table[0], Schema(table[1])
    frame = schema.decode(schema.encode(frame))
    batch = schema.encode(frame)
    pd.testing.assert_frame_equal(schema.decode(batch), frame)
    for name, x in batch.items():
        categorical = isinstance(schema.columns[name], Categorical)
        assert x.dtype == (torch.int64 if categorical else torch.float32)
        for cell, code in zip(frame[name], x, strict=True):
            assert schema.code(name, cell) == code.item()
            assert schema.label(name, code) == cell


@given(tables())
def test_schemas_survive_json(table: Table) -> None:
    schema = Schema(table[1])
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


@given(
    st.lists(st.tuples(reals, st.integers(0, 99)), min_size=2, max_size=6),
    st.floats(-10, 10),
    st.floats(0.01, 100),
)
def test_a_matrix_holds_standardised_columns_side_by_side(
    rows: list[tuple[float, int]], mean: float, std: float
) -> None:
    frame = pd.DataFrame(rows, columns=["a", "b"])
    schema = Schema({"a": Continuous(mean=mean, std=std), "b": Count()}, site="x")
    batch = schema.encode(frame[["b", "a"]], dtype=torch.float64)
    expected = torch.tensor(rows, dtype=torch.float64)
    expected[:, 0] = (expected[:, 0] - mean) / std
    torch.testing.assert_close(batch["x"], expected)
    pd.testing.assert_frame_equal(schema.decode(batch), frame, check_dtype=False)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3), st.floats(0, 1))
def test_what_was_within_bounds_stays_within_bounds(
    lower: float, width: float, where: float
) -> None:
    upper = lower + width
    schema = Schema({"x": Continuous(lower=lower, upper=upper, mean=lower + width / 3, std=width)})
    frame = pd.DataFrame({"x": [lower, upper, min(upper, lower + where * width)]})
    decoded = schema.decode(schema.encode(frame))
    schema.encode(decoded)
    assert np.abs(decoded["x"] - frame["x"]).max() <= 1e-6 * width + 1e-9


def test_inference_goes_by_dtype() -> None:
    frame = pd.DataFrame(
        {
            "real": [0.5, None, 1.5],
            "visits": [0, 3, 1],
            "change": [-1, 0, 2],
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "some": pd.Series([1, None, 2.5], dtype=object),
            "word": ["b", "a", None],
            "flag": [True, False, True],
            "maybe": pd.array([True, None, False], dtype="boolean"),
            "dose": pd.Categorical(["low", None, "low"], categories=["low", "high"], ordered=True),
        }
    )
    schema = Schema.infer(frame)
    assert schema == Schema(
        {
            "real": Continuous(),
            "visits": Count(),
            "change": Continuous(),
            "nullable": Count(),
            "some": Continuous(),
            "word": Categorical(("a", "b")),
            "flag": Categorical((False, True)),
            "maybe": Categorical((False, True)),
            "dose": Categorical(("low", "high"), ordered=True),
        }
    )
    decoded = schema.decode(schema.encode(frame))
    assert cells_of(decoded) == cells_of(frame)
    assert decoded["dose"].dtype == frame["dose"].dtype
    assert decoded["nullable"].dtype == "Int64"
    assert decoded["maybe"].dtype == "boolean"
    assert decoded["word"].dtype == frame["word"].dtype


def test_standardised_columns_have_mean_0_and_std_1() -> None:
    frame = pd.DataFrame({"t": [1.7e9, 1.7e9 + 60, None, 1.7e9 + 180], "k": [1, 2, 3, 9]})
    schema = Schema.infer(frame, standardise=True)
    batch = schema.encode(frame)
    t = batch["t"][~batch["t"].isnan()]
    torch.testing.assert_close(t, torch.tensor([-80.0, -20.0, 100.0]) / math.sqrt(5600))
    assert batch["k"].tolist() == [1, 2, 3, 9]


def test_missing_codes_are_nan_and_the_dtype_is_mine() -> None:
    schema = Schema({"a": Categorical(("x", "y")), "b": Continuous()})
    frame = pd.DataFrame({"a": ["y", None], "b": [0.1, 0.2]})
    batch = schema.encode(frame, dtype=torch.float64)
    assert batch["a"][0] == 1
    assert batch["a"].isnan().tolist() == [False, True]
    assert {x.dtype for x in batch.values()} == {torch.float64}
    assert schema.decode(batch)["b"].tolist() == [0.1, 0.2]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("levels", "dtype"), [((3, 1), "int64"), ((0.5, 1), "float64")])
def test_levels_may_be_numbers(levels: tuple[float, ...], dtype: str, *, missing: bool) -> None:
    schema = Schema({"code": Categorical(levels)})
    frame = pd.DataFrame({"code": [*levels, *([None] if missing else [])]})
    decoded = schema.decode(schema.encode(frame))
    assert cells_of(decoded) == cells_of(frame)
    assert decoded["code"].dtype == ("Int64" if missing and dtype == "int64" else dtype)


def test_fewer_sites_decode_to_fewer_columns_in_the_schemas_order() -> None:
    schema = Schema({"a": Count(), "b": Continuous(mean=1, std=2), "c": Categorical(("x", "y"))})
    decoded = schema.decode({"c": torch.tensor([1]), "a": torch.tensor([3.0])})
    pd.testing.assert_frame_equal(decoded, pd.DataFrame({"a": [3], "c": ["y"]}))
    part = schema.select(["c", "a"])
    assert list(part.encode(decoded)) == list(part.columns) == ["c", "a"]


def test_gradients_and_precision_do_not_disturb_decoding() -> None:
    x = torch.tensor([0.5], requires_grad=True)
    assert Schema({"x": Continuous(mean=1, std=2)}).decode({"x": x})["x"].tolist() == [2.0]


def test_nearest_counts_are_rounded_within_bounds() -> None:
    schema = Schema({"k": Count(upper=4)})
    batch = {"k": torch.tensor([-0.7, 1.6, 9.0, math.nan])}
    assert cells_of(schema.decode(batch, counts="nearest")) == {"k": [0, 2, 4, None]}


def test_a_schema_prints_as_a_table() -> None:
    schema = Schema({"age": Continuous(lower=0), "visits": Count(upper=9)}, site="x")
    assert str(schema).splitlines() == [
        "column  kind        values",
        "age     continuous  [0, inf)",
        "visits  count       0, 1, 2, ..., 9",
        'all in one matrix (n, 2) at site "x"',
    ]
    assert eval(repr(schema)) == schema


def test_the_order_of_columns_is_part_of_a_schema() -> None:
    kinds = {"a": Count(), "b": Count()}
    assert Schema(kinds) == Schema(dict(kinds))
    assert Schema(kinds) != Schema(dict(reversed(kinds.items())))
    assert Schema(kinds) != Schema(kinds, site="x")
