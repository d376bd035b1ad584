"""Draws depend on the seed alone, and the global state is the caller's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pgm.randomness import Stream, fresh_seed, seeded

Seeds = st.integers(0, 2**63 - 1)


def two() -> Tensor:
    return torch.randn(2)


@given(Seeds)
def test_the_same_seed_gives_the_same_draws_whatever_came_before(seed: int) -> None:
    with seeded(seed):
        first = two()
    two()
    with seeded(seed):
        assert torch.equal(two(), first)


def test_a_seed_gives_torchs_own_draws() -> None:
    with seeded(7):
        ours = two()
    torch.manual_seed(7)
    assert torch.equal(ours, two())


def test_different_seeds_give_different_draws() -> None:
    draws = set()
    for seed in range(20):
        with seeded(seed):
            draws.add(float(two()[0]))
    assert len(draws) == 20


def test_the_global_state_is_restored_also_after_an_error() -> None:
    before = torch.get_rng_state()
    with seeded(0):
        two()
    Stream(3)
    with pytest.raises(RuntimeError, match="inside"), seeded(0):
        two()
        raise RuntimeError("inside")
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_the_global_state_moves_on() -> None:
    torch.manual_seed(0)
    plain = [two(), two()]
    torch.manual_seed(0)
    with seeded(None):
        first = two()
    assert torch.equal(first, plain[0])
    assert torch.equal(two(), plain[1])


def test_blocks_nest() -> None:
    with seeded(1):
        plain = [two(), two()]
    with seeded(1):
        first = two()
        with seeded(2):
            two()
        assert torch.equal(two(), plain[1])
    assert torch.equal(first, plain[0])


@given(seed=Seeds, cuts=st.lists(st.integers(0, 3), max_size=4))
def test_a_stream_goes_on_where_it_stopped(seed: int, cuts: list[int]) -> None:
    """However the draws are cut into blocks, and whatever is drawn in between."""
    with seeded(seed):
        whole = torch.cat([two() for _ in range(sum(cuts))] or [torch.zeros(0)])
    stream, parts = Stream(seed), [torch.zeros(0)]
    for cut in cuts:
        two()
        with stream.running():
            parts += [two() for _ in range(cut)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_stream_is_taken_up_from_its_state() -> None:
    stream = Stream(5)
    with stream.running():
        two()
    saved = [part.clone() for part in stream.state]
    with stream.running():
        expected = two()
    again = Stream(0)
    again.state = saved
    with again.running():
        assert torch.equal(two(), expected)


def test_two_streams_do_not_disturb_each_other() -> None:
    a, b = Stream(1), Stream(1)
    with a.running():
        first = two()
    with b.running():
        assert torch.equal(two(), first)
    with a.running():
        second = two()
    with b.running():
        assert torch.equal(two(), second)


def test_a_fresh_seed_comes_from_the_global_state() -> None:
    torch.manual_seed(0)
    first = [fresh_seed() for _ in range(3)]
    torch.manual_seed(0)
    assert [fresh_seed() for _ in range(3)] == first
    assert len(set(first)) == 3
