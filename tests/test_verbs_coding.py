"""Codes and what they stand for: means, modes and draws, rows first whatever the plates."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pgm
from pgm.batch import Batch
from pgm.verbs.coding import centre

X = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def toy(**programs: Any) -> pgm.Model:
    return type("Toy", (pgm.Model,), programs)()


def deep(self: pgm.Model, n: int) -> None:
    """w -> z -> x, one w a row, two z."""
    with pgm.rows(n):
        w = pyro.sample("w", dist.Normal(torch.zeros(n), 1.0))
        z = pyro.sample("z", dist.Normal(w[:, None].expand(n, 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(10 * z, 0.1).to_event(1))


def deep_guide(self: pgm.Model, n: int, x: Tensor) -> None:
    with pgm.rows(n):
        z = pyro.sample("z", dist.Normal(x / 10, 0.5).to_event(1))
        pyro.sample("w", dist.Normal(z.mean(-1), 1.0))


DEEP = toy(model=deep, guide=deep_guide)


def test_codes_are_the_means_of_the_guide_one_given_another() -> None:
    codes = pgm.encode(DEEP, X)
    assert torch.allclose(codes["z"], X / 10)
    assert torch.allclose(codes["w"], X.mean(-1) / 10)


def test_draws_of_codes_spread_around_the_means() -> None:
    codes = pgm.encode(DEEP, X, draws=4000, seed=0)
    assert codes["z"].shape == (4000, 3, 2)
    assert codes["w"].shape == (4000, 3)
    assert torch.allclose(codes["z"].mean(0), X / 10, atol=0.05)
    assert torch.allclose(codes["z"].std(0), torch.tensor(0.5), atol=0.05)
    assert torch.allclose(codes["w"].std(0), torch.tensor((1 + 0.25 / 2) ** 0.5), atol=0.06)


def test_decoding_a_code_gives_the_mean_of_its_row() -> None:
    z = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    assert torch.allclose(pgm.decode(DEEP, z)["x"], 10 * z)
    assert torch.allclose(pgm.decode(DEEP, {"z": z, "w": torch.zeros(2)})["x"], 10 * z)


def test_latents_left_out_are_drawn_given_the_others() -> None:
    w = torch.full((3000,), 4.0)
    x = pgm.decode(DEEP, {"w": w}, seed=0)["x"]
    assert torch.allclose(x.mean(0), torch.full((2,), 40.0), atol=1.0)
    assert torch.allclose(x.std(0), torch.full((2,), 10.0), atol=1.0)


def test_coding_and_decoding_meet() -> None:
    assert torch.allclose(pgm.decode(DEEP, pgm.encode(DEEP, X))["x"], X, atol=1e-5)


def plated(self: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        with pyro.plate("parts", 2, dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, n, 4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1).T, 1.0).to_event(1))


def plated_guide(self: pgm.Model, n: int, x: Tensor) -> None:
    with pgm.rows(n), pyro.plate("parts", 2, dim=-2):
        pyro.sample("z", dist.Normal((x.T[..., None] / 4).expand(2, n, 4), 0.1).to_event(1))


def test_codes_in_a_plate_have_their_rows_first_too() -> None:
    model = toy(model=plated, guide=plated_guide)
    codes = pgm.encode(model, X)
    assert codes["z"].shape == (3, 2, 4)
    assert torch.allclose(codes["z"].sum(-1), X)
    draws = pgm.encode(model, X, draws=50, seed=0)["z"]
    assert draws.shape == (50, 3, 2, 4)
    assert torch.allclose(draws.sum(-1).mean(0), X, atol=0.2)
    assert torch.allclose(pgm.decode(model, codes)["x"], X)
    path = pgm.interpolate(model, X[:1], X[1:2], steps=3, path="linear")["x"]
    assert torch.allclose(path, torch.stack([X[0], (X[0] + X[1]) / 2, X[1]]), atol=1e-5)


def observed_chain(self: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        z = pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))
        a = pyro.sample("a", dist.Normal(z, 5.0))
        pyro.sample("b", dist.Normal(2 * a, 5.0))


def one(self: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))


def test_an_observed_site_is_centred_on_the_centre_of_its_observed_parent() -> None:
    """b given a, both decoded: not b given some a that was drawn and thrown away."""
    rows = pgm.decode(toy(model=observed_chain, guide=one), torch.tensor([3.0]))
    assert (float(rows["a"]), float(rows["b"])) == (3.0, 6.0)


def test_shared_latents_differ_between_draws_of_codes() -> None:
    def model(self: pgm.Model, n: int) -> None:
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(theta.expand(n), 1.0))
            pyro.sample("x", dist.Normal(z[:, None], 1.0).expand([n, 2]).to_event(1))

    def guide(self: pgm.Model, n: int) -> None:
        theta = pyro.sample("theta", dist.Normal(3.0, 2.0))
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(theta.expand(n), 0.01))

    z = pgm.encode(toy(model=model, guide=guide), X, draws=200, seed=0)["z"]
    assert z.shape == (200, 3)
    assert float(z.std(0).mean()) == pytest.approx(2.0, rel=0.2)
    assert float(z.std(1).mean()) < 0.05
    assert list(pgm.encode(toy(model=model, guide=guide), X)) == ["z"]


def test_what_is_no_latent_of_the_model_is_no_code() -> None:
    def guide(self: pgm.Model, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(x / 10, 0.5).to_event(1))
            pyro.deterministic("norm", z.norm(dim=-1))
            pyro.sample("noise", dist.Normal(torch.zeros(n), 1.0), infer={"is_auxiliary": True})
            pyro.sample("w", dist.Normal(z.mean(-1), 1.0))

    model = toy(model=deep, guide=guide)
    assert list(pgm.encode(model, X)) == ["z", "w"]
    assert pgm.interpolate(model, X[:1], X[1:2], steps=2)["x"].shape == (2, 2)


def test_a_model_whose_latents_are_all_shared_has_no_codes() -> None:
    def guide(self: pgm.Model, n: int) -> None:
        pyro.sample("theta", dist.Normal(0.0, 1.0))

    with pytest.raises(pgm.Unsupported, match=r"shared.*[Uu]se"):
        pgm.encode(toy(model=lambda self, n: None, guide=guide), X)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (dist.Normal(torch.tensor([1.0]), 1.0), [1.0]),
        (dist.Bernoulli(torch.tensor([0.3])), [0.3]),
        (dist.Categorical(torch.tensor([[0.2, 0.7, 0.1]])), [1]),
        (
            dist.Categorical(torch.tensor([[[0.2, 0.7, 0.1], [0.6, 0.2, 0.2]]])).to_event(1),
            [[1, 0]],
        ),
        (dist.OneHotCategorical(torch.tensor([[0.2, 0.7, 0.1]])), [[0.0, 1.0, 0.0]]),
        (dist.Categorical(torch.tensor([[0.3, 0.4, 0.3]] * 20)).mask(False), [1] * 20),
        (dist.Poisson(torch.tensor([2.5])), [2.5]),
        (dist.Delta(torch.tensor([4.0])), [4.0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_centre_is_the_mean_or_the_most_probable_level(fn: Any, expected: Any) -> None:
    found = centre(fn)
    assert found.dtype == fn.sample().dtype
    assert torch.allclose(found, torch.tensor(expected))


@pytest.mark.parametrize("fn", [dist.Cauchy(torch.zeros(2), 1.0), dist.StudentT(torch.ones(2))])
def test_without_a_mean_the_centre_is_a_draw(fn: Any) -> None:
    found = centre(fn)
    assert found.shape == (2,)
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("z", "words"),
    [
        ({}, "No code"),
        ({"y": torch.zeros(2)}, r"no latent site 'y'.*w, z"),
        ({"x": torch.zeros(2, 2)}, r"no latent site 'x'"),
        (torch.zeros(2, 3), r"'z' has shape \(2, 3\).*\(2, 2\)"),
        (torch.zeros(2), r"'z' has shape \(2,\)"),
        ({"w": torch.zeros(2, 1)}, r"'w' has shape \(2, 1\).*\(2,\)"),
        ({"w": torch.zeros(2), "z": torch.zeros(3, 2)}, "'w': 2, 'z': 3"),
        (torch.zeros(0, 2), "no rows"),
    ],
)
def test_codes_that_do_not_fit_are_refused(z: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pgm.decode(DEEP, z)


@pytest.mark.parametrize("draws", [0, -1])
def test_no_draws_are_refused(draws: int) -> None:
    with pytest.raises(ValueError, match=f"draws is {draws}"):
        pgm.encode(DEEP, X, draws=draws)


def test_a_model_without_a_guide_has_no_codes() -> None:
    for question in (lambda m: pgm.encode(m, X), lambda m: pgm.decode(m, X)):
        with pytest.raises(pgm.Unsupported, match=r"no guide.*PPCA"):
            question(toy(model=deep))


def test_context_reaches_the_decoder() -> None:
    def model(self: pgm.Model, n: int, c: Tensor) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))
            pyro.sample("x", dist.Normal(z + c, 1.0))

    c = torch.tensor([5.0, 6.0])
    found = pgm.decode(toy(model=model, guide=one), torch.tensor([1.0, 2.0]), context={"c": c})
    assert torch.equal(found["x"], torch.tensor([6.0, 8.0]))


def test_codes_keep_the_precision_of_the_model() -> None:
    class Linear(pgm.Model):
        def __init__(self) -> None:
            super().__init__()
            self.loading = torch.nn.Parameter(torch.ones(2))

        def model(self, n: int) -> None:
            with pgm.rows(n):
                z = pyro.sample("z", dist.Normal(self.loading.new_zeros(n), 1.0))
                pyro.sample("x", dist.Normal(z[:, None] * self.loading, 1.0).to_event(1))

        guide = one

    assert pgm.decode(Linear().double(), torch.zeros(2))["x"].dtype == torch.float64
    assert isinstance(pgm.decode(Linear(), [0.0, 1.0]), Batch)
