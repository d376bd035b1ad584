"""Laplace, Pathfinder, tempering and exact normals, against closed forms and reference draws."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import jaxtyping
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import MultivariateNormal

import pgm
from pgm.data import load
from pgm.families.hierarchical import Hierarchical
from pgm.families.regression import Regression
from pgm.inference import (
    InferenceWarning,
    NoMode,
    Posterior,
    evidence,
    laplace,
    pareto_k,
    pathfinder,
    resample,
    sgld,
    tempering,
)
from pgm.inference.approximate.quadratic import exact_normal
from pgm.inference.approximate.tempering import systematic
from pgm.inference.choice import choose


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """For thousands of gradients: checking shapes in each would double the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InferenceWarning)
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


class Conjugate(pgm.Model):
    """Linear regression with known noise: everything is normal."""

    def model(self, n: int, x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[-1]), 3.0).to_event(1))
        b = pyro.sample("b", dist.Normal(torch.zeros(()), 5.0))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(x @ w + b, 0.7))


def rows() -> dict[str, Tensor]:
    noise = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    x = noise[:, :2]
    return {"x": x, "y": x @ torch.tensor([1.0, -2.0]) + 0.5 + 0.7 * noise[:, 2]}


def law(data: dict[str, Tensor]) -> tuple[MultivariateNormal, float]:
    """Bishop 2006, eqs 3.49 to 3.51, and the evidence as a normal of y."""
    X = torch.cat([data["x"], torch.ones(len(data["x"]), 1)], 1).double()
    prior = torch.tensor([3.0, 3.0, 5.0], dtype=torch.float64).square().diag()
    y = data["y"].double()
    precision = prior.inverse() + X.T @ X / 0.49
    mean = torch.linalg.solve(precision, X.T @ y / 0.49)
    marginal = X @ prior @ X.T + 0.49 * torch.eye(len(y), dtype=torch.float64)
    log_p = MultivariateNormal(torch.zeros(len(y), dtype=torch.float64), marginal).log_prob(y)
    return MultivariateNormal(mean, precision_matrix=precision), float(log_p)


def together(posterior: Posterior) -> Tensor:
    w, b = posterior.draws["w"].flatten(0, 1), posterior.draws["b"].flatten()
    return torch.cat([w, b[:, None]], 1)


def test_a_conjugate_regression_is_found_exactly() -> None:
    data = rows()
    posterior = pgm.posterior(Conjugate(), data, seed=0)
    assert posterior.method == "exact"
    assert "quadratic" in posterior.how
    assert posterior.how in str(posterior)
    found, (truth, _) = together(posterior), law(data)
    error = truth.variance.sqrt() / len(found) ** 0.5
    assert ((found.mean(0) - truth.mean).abs() < 4.5 * error).all()
    torch.testing.assert_close(found.T.cov(), truth.covariance_matrix, rtol=0.2, atol=0.003)


def test_laplace_of_a_normal_has_one_weight_the_evidence() -> None:
    data = rows()
    posterior = laplace(Conjugate(), data, draws=200, seed=0, backend="graph")
    truth, log_p = law(data)
    found = evidence(posterior)
    assert found.value == pytest.approx(log_p, abs=1e-6)
    assert found.error < 1e-6
    assert float(posterior.sample_stats["log_weight"].std()) < 1e-6
    error = truth.variance.sqrt() / 200**0.5
    assert ((together(posterior).mean(0) - truth.mean).abs() < 4.5 * error).all()


def test_a_diagonal_laplace_is_narrower_and_its_weights_make_up_for_it() -> None:
    data = rows()
    data["x"][:, 1] = data["x"][:, 0] + 0.3 * data["x"][:, 1]  # correlated weights
    truth, log_p = law(data)
    with unchecked():
        posterior = laplace(
            Conjugate(), data, structure="diagonal", draws=8000, seed=0, backend="graph"
        )
    sd = together(posterior).std(0)
    by_hand = truth.precision_matrix.diagonal().rsqrt()
    torch.testing.assert_close(sd, by_hand, rtol=0.05, atol=0.0)
    assert float(pareto_k(posterior)) > 0.3
    assert evidence(posterior).value == pytest.approx(log_p, abs=1.0)


def test_laplace_of_some_sites_holds_the_others_at_the_mode() -> None:
    data = rows()
    posterior = laplace(Conjugate(), data, sites=["w"], draws=300, seed=0, backend="graph")
    truth, _ = law(data)
    assert float(posterior.draws["b"].std()) == pytest.approx(0.0, abs=1e-9)
    assert float(posterior.draws["b"][0, 0]) == pytest.approx(float(truth.mean[2]), abs=1e-4)
    conditional = truth.precision_matrix[:2, :2].inverse()
    torch.testing.assert_close(posterior.draws["w"][0].T.cov(), conditional, rtol=0.35, atol=0.002)
    with pytest.raises(ValueError, match="b were held at one value"):
        evidence(posterior)
    with pytest.raises(ValueError, match="latents of Conjugate are w, b"):
        laplace(Conjugate(), data, sites=["v"], backend="graph")


def test_a_mode_at_the_bound_is_no_mode() -> None:
    class Centred(pgm.Model):
        def model(self, n: int) -> None:
            tau = pyro.sample("tau", dist.HalfNormal(torch.tensor(1.0)))
            with pgm.rows(n):
                theta = pyro.sample("theta", dist.Normal(torch.zeros(()), tau))
                pyro.sample("y", dist.Normal(theta, 1.0))

    with unchecked(), pytest.raises(NoMode, match="mode at a bound"):
        laplace(Centred(), {"y": torch.zeros(3)}, seed=0, backend="graph")


@pytest.mark.parametrize("s", [0.4, 0.8])
def test_k_hat_of_a_narrow_normal_is_one_minus_its_variance(s: float) -> None:
    """Vehtari et al. 2024: p / q of N(0, 1) and N(0, s) has a tail of shape 1 - s^2."""
    g = torch.Generator().manual_seed(0)
    z = s * torch.randn(20_000, generator=g, dtype=torch.float64)
    log_w = -0.5 * z.square() + 0.5 * (z / s).square()
    assert float(pareto_k(log_w)) == pytest.approx(1 - s**2, abs=0.12)


def test_pathfinder_weighed_anew_is_the_posterior() -> None:
    data = rows()
    truth, log_p = law(data)
    with unchecked():
        posterior = pathfinder(Conjugate(), data, draws=4000, seed=0, backend="graph")
    assert evidence(posterior).value == pytest.approx(log_p, abs=0.02)
    found = together(resample(posterior, draws=4000, seed=0))
    error = truth.variance.sqrt() / 2000**0.5
    assert ((found.mean(0) - truth.mean).abs() < 4.5 * error).all()
    torch.testing.assert_close(found.std(0), truth.variance.sqrt(), rtol=0.08, atol=0.0)


def test_tempering_finds_evidence_and_posterior() -> None:
    data = rows()
    truth, log_p = law(data)
    with unchecked():
        found = tempering(Conjugate(), data, particles=256, seed=0, backend="graph")
    assert found.log_evidence == pytest.approx(log_p, abs=0.1)
    assert found.temperatures[-1] == 1.0
    draws = together(found.posterior)
    error = truth.variance.sqrt() / 128**0.5
    assert ((draws.mean(0) - truth.mean).abs() < 4.5 * error).all()
    assert "log evidence" in str(found)


class Bimodal(pgm.Model):
    """A mean that is known up to its sign."""

    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 3.0))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu.square(), 1.0))


def test_tempering_keeps_both_modes_and_their_evidence() -> None:
    y = torch.full((5,), 4.0)
    grid = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    log_p = dist.Normal(0.0, 3.0).log_prob(grid)
    log_p = log_p + dist.Normal(grid.square()[:, None], 1.0).log_prob(y.double()).sum(1)
    by_hand = float(log_p.logsumexp(0) + (grid[1] - grid[0]).log())
    with unchecked():
        found = tempering(Bimodal(), {"y": y}, particles=256, seed=1, backend="graph")
    assert found.log_evidence == pytest.approx(by_hand, abs=0.15)
    assert 0.3 < float((found.posterior.draws["mu"] > 0).double().mean()) < 0.7


def test_eight_schools_by_approximations() -> None:
    """Means of posteriordb's reference draws: mu 4.41, tau 3.60 (sd 3.32, 3.16)."""
    schools = dict(load("eight_schools").tensors)
    with unchecked():
        smc = tempering(Hierarchical(), schools, particles=512, seed=0, backend="graph").posterior
    assert float(smc.draws["mu"].mean()) == pytest.approx(4.41, abs=0.7)
    assert float(smc.draws["tau"].mean()) == pytest.approx(3.60, abs=0.8)


def test_systematic_resampling_takes_each_its_share() -> None:
    w = torch.tensor([0.25, 0.05, 0.6, 0.1], dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    counts = torch.stack([torch.bincount(systematic(w, g), minlength=4) for _ in range(400)])
    assert ((counts - 4 * w).abs() < 1).all()
    torch.testing.assert_close(counts.double().mean(0), 4 * w, rtol=0, atol=0.08)


def test_what_is_chosen_and_why() -> None:
    data = rows()
    batch = pgm.as_batch(data)
    method, why = choose(Regression(2), batch, seed=0)
    assert (method, "replayed" in why) == ("chees", True)

    class Branching(pgm.Model):
        def model(self, n: int) -> None:
            mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
            with pgm.rows(n):
                pyro.sample("y", dist.Normal(mu, 1.0 if mu > 0 else 2.0))

    method, why = choose(Branching(), pgm.as_batch({"y": torch.zeros(3)}), seed=0)
    assert method == "nuts"
    assert "cannot be replayed" in why


def test_questions_that_have_no_answer() -> None:
    data = rows()
    with unchecked(), pytest.raises(ValueError, match="method is 'gibbs'"):
        pgm.posterior(Conjugate(), data, method="gibbs")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chooses by itself"):
        pgm.posterior(Conjugate(), data, draws=10)
    with pytest.raises(pgm.Unsupported, match="not normal"):
        exact_normal(Regression(2), data)
    exact = exact_normal(Conjugate(), data, draws=20, seed=0)
    for ask in (evidence, resample):
        with pytest.raises(ValueError, match="no weight of all latents"):
            ask(exact)
    with pytest.raises(ValueError, match="each path takes"):
        pathfinder(Conjugate(), data, draws=3, paths=4)
    with pytest.raises(ValueError, match="32 particles"):
        tempering(Conjugate(), data, particles=3)


@pytest.mark.parametrize("method", ["laplace", "pathfinder"])
def test_same_seed_same_draws(method: Any) -> None:
    data, options = rows(), {"draws": 40, "backend": "graph"}
    before = torch.get_rng_state()
    with unchecked():
        one, two, other = (
            pgm.posterior(Conjugate(), data, method=method, seed=s, **options) for s in (0, 0, 1)
        )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.draws["w"], two.draws["w"])
    assert not torch.equal(one.draws["w"], other.draws["w"])


def test_langevin_steps_on_minibatches_have_the_spread_of_the_posterior() -> None:
    """Without its control variate the sds came out twice too large."""
    noise = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0))
    x = noise[:, :2]
    data = {"x": x, "y": x @ torch.tensor([1.0, -2.0]) + 0.5 + 0.7 * noise[:, 2]}
    truth, _ = law(data)
    with unchecked():
        found = together(sgld(Conjugate(), data, steps=4000, batch_size=100, thin=1, seed=0))
    sd = truth.variance.sqrt()
    assert ((found.mean(0) - truth.mean).abs() < 0.5 * sd).all()
    torch.testing.assert_close(found.std(0), sd, rtol=0.25, atol=0.0)


def test_latents_of_rows_have_no_place_in_minibatches() -> None:
    schools = dict(load("eight_schools").tensors)
    with pytest.raises(pgm.Unsupported, match="eta belong to rows"):
        sgld(Hierarchical(), schools, steps=10)
    with pytest.raises(ValueError, match="warm-up leaves"):
        sgld(Conjugate(), rows(), steps=10, warmup=10)


def test_an_extra_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nutpie", None)
    with pytest.raises(ImportError, match=r"hotplate\[nutpie\]"):
        pgm.posterior(Conjugate(), rows(), method="nutpie")


def test_nutpie_agrees_with_the_closed_form() -> None:
    pytest.importorskip("nutpie", reason="an optional extra: hotplate[nutpie]")
    data = rows()
    truth, _ = law(data)
    with unchecked():
        found = together(pgm.posterior(Conjugate(), data, method="nutpie", seed=0))
    assert ((found.mean(0) - truth.mean).abs() < 0.1 * truth.variance.sqrt()).all()
    torch.testing.assert_close(found.std(0), truth.variance.sqrt(), rtol=0.1, atol=0.0)
