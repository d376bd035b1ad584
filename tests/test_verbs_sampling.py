"""Samples follow the joint program; shared latents come from what was learned."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import pgm
from pgm.batch import Batch, as_batch
from pgm.verbs.sampling import draw


def toy(**programs: Any) -> pgm.Model:
    return type("Toy", (pgm.Model,), programs)()


def chain(self: pgm.Model, n: int) -> None:
    """z ~ N(0, 1) latent, x ~ N(z, 1), k ~ Bernoulli(x > 0), twice = 2 x."""
    with pgm.rows(n):
        z = pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))
        x = pyro.sample("x", dist.Normal(z, 1.0))
        pyro.sample("k", dist.Bernoulli((x > 0).float()))
        pyro.deterministic("twice", 2 * x)
        pyro.sample("c", dist.Categorical(torch.ones(n, 3)), infer={"enumerate": "parallel"})


def propose(self: pgm.Model, n: int, x: Tensor) -> None:
    with pgm.rows(n):
        pyro.sample("z", dist.Normal(x + 50.0, 1.0))


def test_samples_are_the_observed_sites_of_the_joint() -> None:
    rows = pgm.sample(toy(model=chain, guide=propose), 4000, seed=0)
    assert list(rows) == ["x", "k"]
    assert stats.kstest(rows["x"].numpy() / 2**0.5, "norm").pvalue > 1e-4
    assert torch.equal(rows["k"], (rows["x"] > 0).float())


def test_without_a_guide_every_site_of_a_row_that_is_not_enumerated_is_observed() -> None:
    assert list(pgm.sample(toy(model=chain), 2, seed=0)) == ["z", "x", "k"]


def shared(self: pgm.Model, n: int) -> None:
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
    with pgm.rows(n):
        pyro.sample("x", dist.Normal(theta, 0.1))


def learned(self: pgm.Model, n: int) -> None:
    pyro.sample("theta", dist.Normal(7.0, 0.5))


def test_shared_latents_come_from_the_guide_once_for_all_rows() -> None:
    model = toy(model=shared, guide=learned)
    x = torch.stack([pgm.sample(model, 50, seed=seed)["x"] for seed in range(200)])
    means = x.mean(1)
    assert abs(float(means.mean()) - 7) < 4 * 0.5 / 200**0.5
    assert float(means.std()) == pytest.approx(0.5, rel=0.2)
    assert float(x.std(1).mean()) == pytest.approx(0.1, rel=0.05)


def test_shared_latents_without_a_guide_come_from_their_prior() -> None:
    means = [float(pgm.sample(toy(model=shared), 5, seed=s)["x"].mean()) for s in range(200)]
    assert stats.kstest(means, "norm").pvalue > 1e-4


def test_given_latents_stay_as_they_are() -> None:
    model = toy(model=shared, guide=learned)
    run = draw(model, 3, latents={"theta": torch.tensor(-2.0)})
    assert run.sites["theta"].value == -2.0
    assert (run.sites["x"].value + 2).abs().max() < 1


def regression(self: pgm.Model, n: int, c: Tensor) -> None:
    with pgm.rows(n):
        pyro.sample("y", dist.Normal(3 * c, 0.01))


def test_each_row_is_drawn_given_its_own_context() -> None:
    c = torch.tensor([-1.0, 0.0, 5.0])
    y = pgm.sample(toy(model=regression), 3, context={"c": c}, seed=0)["y"]
    assert torch.allclose(y, 3 * c, atol=0.1)


@pytest.mark.parametrize(
    ("n", "context", "words"),
    [
        (0, {"c": torch.zeros(1)}, "n is 0"),
        (-2, None, "n is -2"),
        (3, None, "takes 'c'"),
        (3, {"d": torch.zeros(3)}, "'c'"),
        (3, {"c": torch.zeros(2)}, r"'c': 2.*n = 3"),
        (3, {"c": torch.zeros(3), "d": torch.zeros(3)}, "'d'.*not context"),
        (3, {"c": torch.zeros(3), "y": torch.zeros(3)}, "'y'.*not context"),
        (3, {"c": torch.tensor([1.0, float("nan"), 1.0])}, "'c' are missing"),
        (3, {"c": torch.tensor([1.0, torch.inf, 1.0])}, "infinite"),
    ],
)
def test_bad_requests_are_refused(n: int, context: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pgm.sample(toy(model=regression), n, context=context)


def test_context_that_only_the_guide_takes_is_let_through() -> None:
    def guide(self: pgm.Model, n: int, covariate: Tensor | None = None) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))

    rows = pgm.sample(
        toy(model=chain, guide=guide), 2, context={"covariate": torch.zeros(2)}, seed=0
    )
    assert set(rows) == {"x", "k"}


def test_samples_are_plain_and_of_the_dtype_of_the_model() -> None:
    class Normal(pgm.Model):
        def __init__(self) -> None:
            super().__init__()
            self.mu = torch.nn.Parameter(torch.zeros(2))

        def model(self, n: int) -> None:
            with pgm.rows(n):
                pyro.sample("x", dist.Normal(self.mu, 1.0).to_event(1))

    x = pgm.sample(Normal().double(), 1, seed=0)["x"]
    assert (x.shape, x.dtype, x.requires_grad) == ((1, 2), torch.float64, False)


def test_samples_can_be_asked_about_at_once() -> None:
    model = toy(model=chain, guide=propose)
    rows = pgm.sample(model, 3, seed=0)
    assert isinstance(rows, Batch)
    assert pgm.log_prob(model, rows, particles=5, seed=0).value.shape == (3,)
    assert as_batch(dict(rows)).keys() == rows.keys()
