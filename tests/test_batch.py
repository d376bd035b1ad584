"""Batches: what comes in is checked once, nothing of the user's is changed, rows stay together."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgm.batch import Batch, as_batch, cells, chunks, move, repeat, rows_of, split, take

NAN = float("nan")


def test_a_bare_tensor_is_x() -> None:
    x = torch.randn(3, 2)
    batch = as_batch(x)
    assert list(batch) == ["x"]
    assert torch.equal(batch["x"], x)


@pytest.mark.parametrize(
    "data", [[[1.0, 2.0]], np.array([[1.0, 2.0]]), {"x": [[1.0, 2.0]]}, torch.tensor([[1.0, 2.0]])]
)
def test_lists_arrays_and_mappings_are_read(data: Any) -> None:
    assert as_batch(data)["x"].tolist() == [[1.0, 2.0]]


def test_nan_becomes_a_mask_and_a_zero() -> None:
    came = torch.tensor([[1.0, NAN], [NAN, 4.0]])
    before = came.clone()
    batch = as_batch(came)
    assert batch["x"].tolist() == [[1.0, 0.0], [0.0, 4.0]]
    assert batch["x_seen"].tolist() == [[True, False], [False, True]]
    assert torch.equal(came, before) or torch.equal(came.isnan(), before.isnan())
    assert came.isnan().sum() == 2


def test_complete_floats_and_integers_have_no_mask() -> None:
    assert set(as_batch({"x": torch.ones(2, 2), "k": torch.tensor([0, 1])})) == {"x", "k"}


@pytest.mark.parametrize("keys", [("x", "x_seen"), ("x_seen", "x")])
def test_a_mask_and_nan_together_hide_both(keys: tuple[str, str]) -> None:
    """The order of the keys must not decide whether a NaN counts as a seen zero."""
    data = {"x": torch.tensor([[1.0, NAN, 3.0]]), "x_seen": torch.tensor([[False, True, True]])}
    batch = as_batch({key: data[key] for key in keys})
    assert batch["x_seen"].tolist() == [[False, False, True]]
    assert batch["x"].tolist() == [[0.0, 0.0, 3.0]]


def test_what_a_mask_hides_is_gone_whatever_it_was() -> None:
    data = {"x": torch.tensor([[7.0, torch.inf]]), "x_seen": torch.tensor([[True, False]])}
    assert as_batch(data)["x"].tolist() == [[7.0, 0.0]]
    labels = as_batch({"k": torch.tensor([3, 4]), "k_seen": torch.tensor([True, False])})
    assert labels["k"].tolist() == [3, 0]


def test_a_key_that_ends_like_a_mask_but_masks_nothing_is_data() -> None:
    batch = as_batch({"first_seen": torch.tensor([3.0, NAN])})
    assert batch["first_seen_seen"].tolist() == [True, False]


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 3), torch.ones(2, dtype=torch.bool), torch.ones(2, 3, dtype=torch.long)]
)
def test_a_mask_of_another_shape_or_dtype_is_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"'x_seen'.*boolean"):
        as_batch({"x": torch.zeros(2, 3), "x_seen": mask})


def test_a_masked_array_keeps_its_mask() -> None:
    """NumPy hands torch the hidden numbers as if they were seen."""
    came = np.ma.masked_array([[1.0, 999.0]], mask=[[False, True]])
    batch = as_batch(came)
    assert batch["x"].tolist() == [[1.0, 0.0]]
    assert batch["x_seen"].tolist() == [[True, False]]
    levels = as_batch({"k": np.ma.masked_array([2, 999], mask=[False, True])})
    assert levels["k"].tolist() == [2, 0]
    assert levels["k_seen"].tolist() == [True, False]


def test_a_read_only_array_is_read_without_a_warning() -> None:
    x = np.ones((2, 2))
    x.setflags(write=False)
    assert torch.equal(as_batch(x)["x"], torch.ones(2, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (torch.zeros(0, 3), ValueError, "no rows"),
        ({}, ValueError, "empty"),
        (torch.tensor(1.0), ValueError, "single number"),
        ({"x": torch.zeros(2), "y": torch.zeros(3)}, ValueError, r"'x': 2, 'y': 3"),
        (torch.tensor([1.0, torch.inf, -torch.inf]), ValueError, "2 infinite values"),
        (torch.zeros(2, dtype=torch.complex64), TypeError, "complex64"),
        (torch.zeros(2, 2).to_sparse(), TypeError, "sparse"),
        ({"y": ["a", "b"]}, TypeError, "'y'"),
        ({"y": None}, TypeError, "NoneType"),
        (np.array([None, 1.0]), TypeError, "no tensor"),
    ],
)
def test_bad_data_are_refused_by_name(data: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        as_batch(data)


def test_a_frame_without_a_schema_is_refused() -> None:
    pd = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match=r"pgm\.Schema\.infer"):
        as_batch(pd.DataFrame({"age": [1.0]}))


def test_a_batch_is_not_read_again() -> None:
    batch = Batch(x=torch.zeros(2))
    assert as_batch(batch) is batch


@given(n=st.integers(1, 7), times=st.integers(1, 4))
def test_repeated_rows_come_copy_by_copy(n: int, times: int) -> None:
    batch = Batch(x=torch.arange(2.0 * n).reshape(n, 2), k=torch.arange(n))
    again = repeat(batch, times)
    assert rows_of(again) == n * times
    for copy in range(times):
        part = take(again, slice(copy * n, (copy + 1) * n))
        assert all(torch.equal(part[key], batch[key]) for key in batch)


@given(n=st.integers(1, 20), size=st.integers(1, 25))
def test_chunks_put_together_are_the_batch(n: int, size: int) -> None:
    batch = Batch(x=torch.randn(n, 2), k=torch.arange(n))
    pieces = list(chunks(batch, size))
    assert all(rows_of(piece) <= size for piece in pieces)
    assert all(torch.equal(torch.cat([p[key] for p in pieces]), batch[key]) for key in batch)


@given(n=st.integers(2, 40), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_a_split_is_a_partition_that_keeps_rows_whole(n: int, fraction: float, seed: int) -> None:
    k = torch.arange(n)
    kept, held = split(Batch(k=k, x=2.0 * k), fraction, seed=seed)
    assert sorted([*kept["k"].tolist(), *held["k"].tolist()]) == k.tolist()
    assert 1 <= rows_of(held) < n
    assert abs(rows_of(held) - fraction * n) <= 1
    assert all(torch.equal(part["x"], 2.0 * part["k"]) for part in (kept, held))
    again, _ = split(Batch(k=k), fraction, seed=seed)
    assert torch.equal(again["k"], kept["k"])


@pytest.mark.parametrize(("n", "fraction"), [(1, 0.5), (5, 0.0), (5, 1.0), (5, -0.1), (5, NAN)])
def test_an_impossible_split_is_refused(n: int, fraction: float) -> None:
    with pytest.raises(ValueError, match="Cannot hold out"):
        split(Batch(x=torch.zeros(n)), fraction, seed=0)


def test_moving_changes_the_dtype_of_floats_alone() -> None:
    batch = Batch(x=torch.zeros(2), k=torch.arange(2), seen=torch.ones(2, dtype=torch.bool))
    moved = move(batch, device=torch.device("cpu"), dtype=torch.float64)
    assert {k: v.dtype for k, v in moved.items()} == {
        "x": torch.float64,
        "k": torch.int64,
        "seen": torch.bool,
    }


def test_cells_refuses_what_a_rule_would_ignore() -> None:
    batch = as_batch({"x": torch.tensor([[1.0, NAN]]), "y": torch.zeros(1)})
    with pytest.raises(ValueError, match="'y'"):
        cells(batch, "x", (2,))
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(3,\)"):
        cells(batch, "x", (3,), others=("y",))
    x, seen = cells(batch, "x", (2,), others=("y",))
    assert x.tolist() == [[1.0, 0.0]]
    assert seen is not None
    assert seen.tolist() == [[True, False]]


def test_it_prints_its_shapes() -> None:
    assert str(as_batch(torch.zeros(2, 3))) == "Batch(x (2, 3))"


def test_cells_that_are_finite_but_whose_sum_is_not_are_kept() -> None:
    x = torch.tensor([3e38, 3e38, -1.0])
    assert as_batch(x)["x"].tolist() == x.tolist()
    with pytest.raises(ValueError, match="1 infinite"):
        as_batch(torch.tensor([3e38, 3e38, float("inf")]))
    assert as_batch(torch.tensor([float("inf"), -float("inf"), NAN])[2:])["x_seen"].tolist() == [
        False
    ]
