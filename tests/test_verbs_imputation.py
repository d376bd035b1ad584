"""Imputations against the conditional distributions they are draws from."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import pgm
from pgm.batch import Batch, as_batch
from pgm.verbs import imputation
from pgm.verbs.imputation import Imputation

NAN = float("nan")
LOADING, NOISE = torch.tensor([1.0, 2.0]), 0.5


def toy(**programs: Any) -> pgm.Model:
    return type("Toy", (pgm.Model,), programs)()


def linear(self: pgm.Model, n: int) -> None:
    """x = z (1, 2) + noise: given x_1, x_2 is normal."""
    with pgm.rows(n):
        z = pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))
        pyro.sample("x", dist.Normal(z[:, None] * LOADING, NOISE).to_event(1))


def rough(self: pgm.Model, n: int, x: Tensor, x_seen: Tensor) -> None:
    with pgm.rows(n):
        seen = (x * x_seen * LOADING).sum(-1) / (x_seen * LOADING**2).sum(-1).clamp(min=1)
        pyro.sample("z", dist.Normal(0.8 * seen, 0.7))


X = torch.tensor([[1.0, NAN], [NAN, -2.0], [0.5, 1.5]])


def conditional(x: float, seen: int) -> tuple[float, float]:
    """Mean and standard deviation of the other cell (Bishop 2006, eqs 2.81 and 2.82)."""
    S = torch.outer(LOADING, LOADING) + NOISE**2 * torch.eye(2)
    other = 1 - seen
    mean = S[other, seen] / S[seen, seen] * x
    variance = S[other, other] - S[other, seen] ** 2 / S[seen, seen]
    return float(mean), float(variance.sqrt())


@pytest.mark.parametrize("guided", ["guide", "prior"])
def test_missing_cells_follow_their_conditional_distribution(guided: str) -> None:
    """Mean, variance and shape (Kolmogorov-Smirnov) of independent completions."""
    model = toy(model=linear, guide=rough) if guided == "guide" else toy(model=linear)
    many = X.repeat(1500, 1)
    done = pgm.impute(model, many, draws=1, particles=300, seed=0).draws["x"][0]
    for row, seen in ((0, 0), (1, 1)):
        mean, sd = conditional(float(X[row, seen]), seen)
        drawn = done[row::3, 1 - seen]
        assert abs(float(drawn.mean()) - mean) < 4 * sd / 1500**0.5
        assert abs(float(drawn.std()) / sd - 1) < 0.1
        assert stats.kstest(((drawn - mean) / sd).numpy(), "norm").pvalue > 1e-4


def test_seen_cells_come_back_and_nothing_of_the_users_is_changed() -> None:
    came = X.clone()
    done = pgm.impute(toy(model=linear, guide=rough), came, draws=7, seed=0)
    x = done.draws["x"]
    assert x.shape == (7, 3, 2)
    seen = ~X.isnan()
    assert torch.equal(x[:, seen], X[seen].expand(7, -1))
    assert x.isfinite().all()
    assert torch.equal(came.isnan(), X.isnan())
    assert len(done) == 7
    assert torch.equal(done[2]["x"], x[2])
    assert torch.allclose(done.mean()["x"], x.mean(0))


def test_ess_counts_the_particles_behind_a_row() -> None:
    """All of them under the posterior, and few where the guide is far from it."""

    def exact(self: pgm.Model, n: int, x: Tensor, x_seen: Tensor) -> None:
        with pgm.rows(n):
            precision = 1 + (x_seen * LOADING**2).sum(-1) / NOISE**2
            mean = (x_seen * x * LOADING).sum(-1) / NOISE**2 / precision
            pyro.sample("z", dist.Normal(mean, precision**-0.5))

    def far(self: pgm.Model, n: int, x: Tensor, x_seen: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(torch.full((n,), 4.0), 0.5))

    ess = pgm.impute(toy(model=linear, guide=exact), X, particles=100, seed=0).ess
    assert torch.allclose(ess, torch.tensor(100.0), rtol=1e-3)
    assert (pgm.impute(toy(model=linear, guide=far), X, particles=100, seed=0).ess < 20).all()


def mixture(self: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        k = pyro.sample("k", dist.Bernoulli(0.25), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(torch.stack([3 * k, -3 * k], -1), 1.0).to_event(1))


def test_an_enumerated_mixture_is_drawn_by_its_posterior() -> None:
    """p(k = 1 | x_1 = 1.5 - log(3) / 3) = 1/2: the other cell is N(0, 1) or N(-3, 1)."""
    x = torch.tensor([[1.5 + torch.tensor(3.0).log() / 3, NAN]]).repeat(4000, 1)
    done = pgm.impute(toy(model=mixture), x, draws=1, particles=20, seed=0)
    drawn = done.draws["x"][0, :, 1]
    assert abs(float(drawn.mean()) + 1.5) < 4 * (1 + 2.25) ** 0.5 / 4000**0.5
    assert abs(float(drawn.var()) - 3.25) < 0.3


def test_missing_labels_of_an_enumerated_site_are_completed() -> None:
    k, x = torch.tensor([1.0, NAN, NAN]), torch.tensor([[0.0, 0.0], [3.0, -3.0], [0.0, 0.0]])
    done = pgm.impute(toy(model=mixture), {"k": k.repeat(500), "x": x.repeat(500, 1)}, seed=0)
    labels = done.draws["k"].reshape(5, 500, 3)
    assert (labels[..., 0] == 1).all()
    log_odds = torch.tensor([9.0, -9.0]) - torch.tensor(3.0).log()
    for row, p in zip((1, 2), log_odds.sigmoid(), strict=True):
        count = int(labels[0, :, row].sum())
        assert stats.binomtest(count, 500, float(p)).pvalue > 1e-4


def test_a_missing_parent_follows_its_child() -> None:
    """a ~ N(0, 1), b ~ N(a, 1), b = 2: a | b ~ N(1, 1/2)."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            a = pyro.sample("a", dist.Normal(torch.zeros(n), 1.0))
            pyro.sample("b", dist.Normal(a, 1.0))

    data = {"a": torch.full((2000,), NAN), "b": torch.full((2000,), 2.0)}
    a = pgm.impute(toy(model=model), data, draws=1, particles=200, seed=0).draws["a"][0]
    assert stats.kstest((a - 1).numpy() * 2**0.5, "norm").pvalue > 1e-4


def test_shared_latents_are_drawn_once_a_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over the missing rows varies between completions as theta does (Rubin 1987, ch. 4).

    A theta drawn anew for every row would average out, and pooled errors would be too small.
    """

    def model(self: pgm.Model, n: int) -> None:
        theta = pyro.sample("theta", dist.Normal(0.0, 3.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(theta, 1.0))

    def guide(self: pgm.Model, n: int) -> None:
        pyro.sample("theta", dist.Normal(5.0, 2.0))

    monkeypatch.setattr(imputation, "_AT_ONCE", 50)
    for programs in ({"model": model, "guide": guide}, {"model": model}):
        done = pgm.impute(toy(**programs), torch.full((20,), NAN), draws=150, particles=5, seed=0)
        means = done.draws["x"].mean(1)
        centre, spread = (5.0, 2.0) if "guide" in programs else (0.0, 3.0)
        sd = (spread**2 + 1 / 20) ** 0.5
        assert abs(float(means.mean()) - centre) < 4 * sd / 150**0.5
        assert float(means.std()) == pytest.approx(sd, rel=0.25)


def test_context_and_sites_left_out_are_not_completed() -> None:
    def model(self: pgm.Model, n: int, c: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(c, 1e-3))
            pyro.sample("y", dist.Normal(c, 1.0))

    done = pgm.impute(toy(model=model), {"x": torch.tensor([NAN]), "c": torch.tensor([7.0])})
    assert list(done.draws) == ["x"]
    assert torch.allclose(done.draws["x"], torch.tensor(7.0), atol=0.01)


def test_chunks_complete_their_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imputation, "_AT_ONCE", 2 * 50)
    x = torch.stack([torch.linspace(-3, 3, 9), torch.full((9,), NAN)], -1)
    done = pgm.impute(toy(model=linear, guide=rough), x, draws=3, particles=50, seed=0)
    assert torch.equal(done.draws["x"][..., 0], x[:, 0].expand(3, 9))
    assert done.ess.shape == (9,)
    assert torch.corrcoef(torch.stack([x[:, 0], done.mean()["x"][:, 1]]))[0, 1] > 0.9


def test_the_mean_of_levels_is_the_most_frequent() -> None:
    """An average of codes of categories would be a number of no level."""
    drawn = Imputation(Batch(k=torch.tensor([[0, 2], [0, 1], [2, 2]])), torch.ones(2))
    assert drawn.mean()["k"].tolist() == [0, 2]


def test_the_mean_keeps_its_precision() -> None:
    x = torch.tensor([[1.0], [1.0 + 1e-12]], dtype=torch.float64)
    assert Imputation(Batch(x=x), torch.ones(1)).mean()["x"].dtype == torch.float64


def test_a_row_that_is_impossible_is_named() -> None:
    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Uniform(0.0, 1.0).expand([n]))
            pyro.sample(
                "x", dist.Uniform(z[:, None].expand(n, 2), 2.0, validate_args=False).to_event(1)
            )

    with pyro.validation_enabled(False), pytest.raises(ValueError, match=r"Row 1.*density zero"):
        pgm.impute(toy(model=model), torch.tensor([[1.5, NAN], [9.0, NAN]]), seed=0)


@pytest.mark.parametrize("options", [{"draws": 0}, {"particles": 0}, {"particles": -5}])
def test_no_draws_and_no_particles_are_refused(options: dict[str, int]) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        pgm.impute(toy(model=linear, guide=rough), X, **options)


def test_it_prints_the_effective_particles() -> None:
    done = pgm.impute(toy(model=linear, guide=rough), as_batch(X), draws=2, seed=0)
    assert str(done).startswith("2 completions of 3 rows of x; effective particles: median ")
