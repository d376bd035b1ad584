"""Paths between rows: laws of the great circle, endpoints, context."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import pgm
from pgm.verbs.interpolation import slerp

points = st.floats(0, 1)
seeds = st.integers(0, 1000)


def pair(seed: int, n: int = 3, d: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return draw[0], draw[1]


@given(seeds)
def test_the_ends_of_the_circle_are_the_codes(seed: int) -> None:
    a, b = pair(seed)
    assert torch.allclose(slerp(a, b, torch.tensor(0.0)), a)
    assert torch.allclose(slerp(a, b, torch.tensor(1.0)), b)


@given(seed=seeds, t=points)
def test_codes_of_one_norm_keep_it(seed: int, t: float) -> None:
    a, b = (2 * torch.nn.functional.normalize(code, dim=-1) for code in pair(seed))
    norm = slerp(a, b, torch.tensor(t, dtype=torch.float64)).norm(dim=-1)
    assert torch.allclose(norm, torch.full_like(norm, 2.0))


@given(seed=seeds, t=points)
def test_the_angle_grows_evenly(seed: int, t: float) -> None:
    """Shoemake 1985: constant angular speed."""
    a, b = (torch.nn.functional.normalize(code, dim=-1) for code in pair(seed))
    omega = torch.arccos((a * b).sum(-1))
    at = slerp(a, b, torch.tensor(t, dtype=torch.float64))
    angle = torch.atan2((at - (at * a).sum(-1, keepdim=True) * a).norm(dim=-1), (at * a).sum(-1))
    assert torch.allclose(angle, t * omega, atol=1e-6)


@given(seed=seeds, t=points)
def test_a_path_walked_backwards_is_the_same(seed: int, t: float) -> None:
    a, b = pair(seed)
    there, back = (torch.tensor(s, dtype=torch.float64) for s in (t, 1 - t))
    assert torch.allclose(slerp(a, b, there), slerp(b, a, back))


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, 0.0])
def test_parallel_codes_and_zero_are_joined_without_nan(factor: float) -> None:
    a, _ = pair(0)
    for t in (0.0, 0.3, 1.0):
        at = slerp(a, factor * a, torch.tensor(t, dtype=torch.float64))
        assert at.isfinite().all()
        if factor > 0:
            assert torch.allclose(at, (1 - t + t * factor) * a)
    assert torch.equal(slerp(0 * a, 0 * a, torch.tensor(0.5)), 0 * a)


class Linear(pgm.Model):
    """z of two cells, x = (z, c): every code decodes to itself."""

    def model(self, n: int, c: Tensor | None = None) -> None:
        c = torch.zeros(n, 1) if c is None else c[:, None]
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(torch.zeros(n, 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.cat([z, c], -1), 1.0).to_event(1))

    def guide(self, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))


A, B = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])


def test_a_path_has_its_ends_at_the_rows() -> None:
    path = pgm.interpolate(Linear(), A, B, steps=3)["x"]
    assert path.shape == (3, 3)
    assert torch.allclose(path[0], A[0])
    assert torch.allclose(path[1, :2], torch.tensor([0.5**0.5, 0.5**0.5]))
    assert torch.allclose(path[2], B[0])


def test_a_linear_path_is_straight() -> None:
    path = pgm.interpolate(Linear(), A, B, steps=5, path="linear")["x"]
    t = torch.linspace(0, 1, 5)[:, None]
    assert torch.allclose(path, (1 - t) * A + t * B)


def test_several_rows_have_a_path_each() -> None:
    a, b = torch.cat([A, B, A]), torch.cat([B, A, 2 * A])
    path = pgm.interpolate(Linear(), a, b, steps=4)["x"]
    assert path.shape == (4, 3, 3)
    assert torch.allclose(path[0], a)
    assert torch.allclose(path[3], b)
    alone = pgm.interpolate(Linear(), a[1:2], b[1:2], steps=4)["x"]
    assert torch.allclose(path[:, 1], alone)


def test_context_goes_from_the_one_rows_to_the_others() -> None:
    """Each end is decoded under its own context, and what lies between under a mean of both."""
    a, b = {"x": A, "c": torch.tensor([2.0])}, {"x": B, "c": torch.tensor([4.0])}
    path = pgm.interpolate(Linear(), a, b, steps=3)["x"]
    assert torch.allclose(path[:, 2], torch.tensor([2.0, 3.0, 4.0]))
    labels = [
        x | {"c": c} for x, c in (({"x": A}, torch.tensor([2])), ({"x": B}, torch.tensor([4])))
    ]
    path = pgm.interpolate(Linear(), *labels, steps=4)["x"]
    assert torch.allclose(path[:, 2], torch.tensor([2.0, 2.0, 4.0, 4.0]))


def test_discrete_codes_change_half_way() -> None:
    class Switch(pgm.Model):
        def model(self, n: int) -> None:
            with pgm.rows(n):
                k = pyro.sample("k", dist.Categorical(torch.ones(n, 3)))
                pyro.sample("x", dist.Normal(k.float(), 0.1))

        def guide(self, n: int, x: Tensor) -> None:
            with pgm.rows(n):
                pyro.sample("k", dist.Categorical(logits=-((x[:, None] - torch.arange(3)) ** 2)))

    path = pgm.interpolate(Switch(), torch.tensor([0.1]), torch.tensor([2.2]), steps=4)["x"]
    assert path.tolist() == [0.0, 0.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("a", "b", "options", "words"),
    [
        (A, B, {"steps": 1}, "steps is 1"),
        (A, torch.cat([B, B]), {}, "1 rows and b 2"),
        (A, B, {"path": "sphere"}, r"'sphere'.*'spherical'.*'linear'"),
        ({"x": A, "c": torch.ones(1)}, {"x": B}, {}, r"'c'"),
        (torch.zeros(0, 3), torch.zeros(0, 3), {}, "no rows"),
    ],
)
def test_bad_requests_are_refused(a: Any, b: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pgm.interpolate(Linear(), a, b, **options)
