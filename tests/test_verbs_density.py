"""log_prob against closed forms: values, calibrated errors, honest kinds."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pgm
from pgm.batch import Batch, as_batch
from pgm.verbs import density
from pgm.verbs.density import LogProb, log_mean

NAN = float("nan")
X = torch.tensor([-1.0, 0.0, 2.0])


class Linear(pgm.Model):
    """z ~ N(0, 1), x ~ N(1.5 z, 0.5^2), with a rough guide."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))
            pyro.sample("x", dist.Normal(1.5 * z, 0.5))

    def guide(self, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(0.5 * x, 0.6))


EVIDENCE = dist.Normal(0.0, 2.5**0.5).log_prob(X)


def toy(**programs: Any) -> pgm.Model:
    return type("Toy", (pgm.Model,), programs)()


def test_the_value_is_the_evidence() -> None:
    found = pgm.log_prob(Linear(), X, particles=20_000, seed=0)
    assert found.kind == "bound"
    assert ((found.value - EVIDENCE).abs() < 4 * found.error).all()
    assert (found.error < 0.02).all()


def test_the_error_is_the_spread_of_the_value() -> None:
    """z-scores over 200 seeds have mean 0 and variance 1 (bias and skewness are O(1/K))."""
    many = X.repeat(200)
    found = pgm.log_prob(Linear(), many, particles=2000, seed=0)
    z = (found.value - EVIDENCE.repeat(200)) / found.error
    assert abs(float(z.mean())) < 0.25
    assert 0.85 < float(z.std()) < 1.15


def test_the_error_falls_with_the_root_of_the_particles() -> None:
    few, many = (pgm.log_prob(Linear(), X.repeat(50), particles=k, seed=0) for k in (500, 8000))
    assert float(few.error.mean() / many.error.mean()) == pytest.approx(4.0, rel=0.1)


def test_a_constant_weight_has_no_error_and_one_draw_an_unknown_one() -> None:
    value, error = log_mean(torch.full((4, 1), -3.0))
    assert (value.item(), error.item()) == (-3.0, 0.0)
    assert log_mean(torch.zeros(1, 1))[1].isnan().all()


def test_log_mean_is_the_delta_method() -> None:
    """se(log w) = sd(w) / (mean(w) sqrt(K)); 1 and 3 have mean 2 and sd sqrt(2)."""
    value, error = log_mean(torch.tensor([[1.0], [3.0]]).log() + 500.0)
    assert value.item() == pytest.approx(math.log(2) + 500)
    assert error.item() == pytest.approx(math.sqrt(2) / (2 * math.sqrt(2)), rel=1e-4)


def observed(self: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        a = pyro.sample("a", dist.Normal(torch.zeros(n), 1.0))
        b = pyro.sample("b", dist.Normal(a, 1.0))
        pyro.sample("c", dist.Normal(b, 1.0))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"a": [1.0], "b": [1.0], "c": [1.0]}, "exact"),
        ({"a": [1.0], "b": [1.0]}, "exact"),
        ({"a": [1.0], "b": [NAN]}, "exact"),
        ({"b": [1.0]}, "bound"),
        ({"a": [NAN], "b": [1.0]}, "bound"),
        ({"a": [1.0], "c": [1.0]}, "bound"),
    ],
)
def test_the_kind_says_whether_anything_was_drawn_that_matters(data: Any, kind: str) -> None:
    found = pgm.log_prob(toy(model=observed), as_batch(data), seed=0)
    assert found.kind == kind
    assert bool((found.error == 0).all()) == (kind == "exact")


def test_a_rare_parent_that_no_particle_drew_is_not_called_exact() -> None:
    """a = 1 once in 10^4 rows, and x = 30 comes from it alone; equal weights prove nothing."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            a = pyro.sample("a", dist.Bernoulli(torch.full((n,), 1e-4)))
            pyro.sample("x", dist.Normal(30 * a, 1.0))

    found = pgm.log_prob(toy(model=model), {"x": torch.tensor([30.0])}, particles=50, seed=0)
    assert found.kind == "bound"


def test_sites_left_out_are_marginalised() -> None:
    found = pgm.log_prob(toy(model=observed), {"c": X}, particles=20_000, seed=0)
    exact = dist.Normal(0.0, 3**0.5).log_prob(X)
    assert ((found.value - exact).abs() < 4 * found.error).all()


def test_enumerated_latents_are_exact() -> None:
    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            k = pyro.sample("k", dist.Bernoulli(0.25), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(k, 1.0))

    found = pgm.log_prob(toy(model=model), X)
    parts = torch.stack([dist.Normal(k, 1.0).log_prob(X) for k in (0.0, 1.0)])
    exact = (parts + torch.tensor([[0.75], [0.25]]).log()).logsumexp(0)
    assert found.kind == "exact"
    assert torch.allclose(found.value, exact)


def test_shared_latents_give_the_predictive_density_under_the_guide() -> None:
    def model(self: pgm.Model, n: int) -> None:
        theta = pyro.sample("theta", dist.Normal(0.0, 10.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(theta, 1.0))

    def guide(self: pgm.Model, n: int) -> None:
        pyro.sample("theta", dist.Normal(0.5, 0.7))

    found = pgm.log_prob(toy(model=model, guide=guide), X, particles=1000, seed=0)
    exact = dist.Normal(0.5, (1 + 0.49) ** 0.5).log_prob(X)
    assert ((found.value - exact).abs() < 4 * found.error).all()


def test_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    x, plain = torch.randn(50), toy(model=observed)
    batch = Batch(a=x, b=x, c=x)
    exact = pgm.log_prob(plain, batch).value
    monkeypatch.setattr(density, "_AT_ONCE", 7)
    assert torch.equal(pgm.log_prob(plain, batch).value, exact)
    monkeypatch.setattr(density, "_AT_ONCE", 256)
    found = pgm.log_prob(Linear(), X.repeat(20), particles=500, seed=0)
    assert found.value.shape == found.error.shape == (60,)
    assert ((found.value - EVIDENCE.repeat(20)).abs() < 5 * found.error).all()


def test_one_row_and_no_gradient() -> None:
    class Normal(pgm.Model):
        def __init__(self) -> None:
            super().__init__()
            self.mu = nn.Parameter(torch.tensor(0.0))

        def model(self, n: int) -> None:
            with pgm.rows(n):
                pyro.sample("x", dist.Normal(self.mu, 1.0))

    found = pgm.log_prob(Normal().double(), torch.tensor([0.0]))
    assert found.value.dtype == torch.float64
    assert not found.value.requires_grad
    assert found.mean == (pytest.approx(-0.5 * math.log(2 * math.pi)), 0.0)


def test_a_point_guide_has_no_weights() -> None:
    """log p(x, z*) is no density of x, and may lie above log p(x)."""

    def guide(self: pgm.Model, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Delta(0.5 * x))

    point = toy(model=Linear.model, guide=guide)
    with pytest.raises(pgm.Unsupported, match=r"'z'.*point.*[Uu]se"):
        pgm.log_prob(point, X)
    with pytest.raises(pgm.Unsupported, match=r"'z'.*point"):
        pgm.impute(point, X)
    assert pgm.objective(point, X).shape == (3,)


def test_a_guide_that_draws_all_rows_at_once_has_no_weight_by_row() -> None:

    def guide(self: pgm.Model, n: int, x: Tensor) -> None:
        """As pyro.infer.autoguide.AutoMultivariateNormal does."""
        every = dist.Normal(0.5 * x, 0.6).to_event(1)
        z = pyro.sample("_auto_latent", every, infer={"is_auxiliary": True})
        with pgm.rows(n):
            pyro.sample("z", dist.Delta(z))

    with pytest.raises(pgm.Unsupported, match=r"_auto_latent.*AutoNormal"):
        pgm.log_prob(toy(model=Linear.model, guide=guide), X)


@pytest.mark.parametrize("particles", [0, -1])
def test_no_particles_are_refused(particles: int) -> None:
    with pytest.raises(ValueError, match=f"particles is {particles}"):
        pgm.log_prob(Linear(), X, particles=particles)


def test_it_prints_and_sums_up() -> None:
    found = LogProb(torch.tensor([-1.0, -3.0]), torch.tensor([0.3, 0.3]), "bound")
    assert found.mean == (-2.0, pytest.approx(math.hypot(1.0, 0.3)))
    assert found.bits(2) == pytest.approx(2 / (2 * math.log(2)))
    assert str(found) == "log p = -2.000 ± 1.044 nats a row (bound, 2 rows)"


def test_surprise_is_minus_the_log_density() -> None:
    plain = toy(model=observed)
    batch = Batch(a=X, b=X, c=X)
    assert torch.equal(pgm.surprise(plain, batch), -pgm.log_prob(plain, batch).value)
    order = pgm.surprise(plain, {"a": torch.tensor([0.0, 1.0, 5.0])}).argsort()
    assert order.tolist() == [0, 1, 2]
