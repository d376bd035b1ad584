"""ChEES-HMC against reference draws, closed forms and what cannot be sampled."""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import pgm
from pgm.families.hierarchical import Hierarchical
from pgm.inference import ImproperPosterior, InferenceWarning, Posterior, chees, resume
from pgm.inference.hmc.adaptation import halton
from pgm.inference.hmc.chees import Sampler
from pgm.inference.hmc.metric import Metric, estimate, geometric_mean
from pgm.inference.hmc.trajectory import evaluate, leapfrog


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


class Scores(pgm.Model):
    """Linear regression with flat coefficients."""

    def model(self, n: int, x: Tensor) -> None:
        flat = dist.ImproperUniform(constraints.real_vector, (), (x.shape[-1],))
        beta = pyro.sample("beta", flat)
        sigma = pyro.sample("sigma", dist.HalfCauchy(torch.tensor(2.5)))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(x @ beta, sigma))


class Autoregression(pgm.Model):
    def model(self, n: int, x: Tensor) -> None:
        alpha = pyro.sample("alpha", dist.Normal(torch.zeros(()), 10.0))
        beta = pyro.sample("beta", dist.Normal(torch.zeros(x.shape[-1]), 10.0).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfCauchy(torch.tensor(2.5)))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(alpha + x @ beta, sigma))


class Linear(pgm.Model):
    def model(self, n: int, x: Tensor) -> None:
        beta = pyro.sample("beta", dist.Normal(torch.zeros(x.shape[-1]), 10.0).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(torch.tensor(10.0)))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(x @ beta, sigma))


class Mixture(pgm.Model):
    """Two normals with ordered means, labels summed out."""

    def model(self, n: int) -> None:
        base = dist.Normal(torch.zeros(2), 2.0).to_event(1)
        ordered = dist.transforms.OrderedTransform()
        mu = pyro.sample("mu", dist.TransformedDistribution(base, [ordered]))
        sigma = pyro.sample("sigma", dist.HalfNormal(2 * torch.ones(2)).to_event(1))
        theta = pyro.sample("theta", dist.Beta(torch.tensor(5.0), torch.tensor(5.0)))
        with pgm.rows(n):
            second = dist.Bernoulli(1 - theta)
            k = pyro.sample("k", second, infer={"enumerate": "parallel"}).long()
            pyro.sample("y", dist.Normal(mu[k], sigma[k]))


def read(name: str) -> dict[str, Any]:
    if "HOTPLATE_DATA" not in os.environ:
        pytest.skip("HOTPLATE_DATA is not set: posteriordb's reference draws are not at hand.")
    path = Path(os.environ["HOTPLATE_DATA"]) / "posteriordb" / f"{name}.json"
    contents: dict[str, Any] = json.loads(path.read_text())
    return contents


def tensors(name: str) -> dict[str, Any]:
    values = read(f"{name}.data").items()
    return {k: torch.tensor(v, dtype=torch.float64) for k, v in values}


def kidiq(*, interaction: bool) -> tuple[pgm.Model, dict[str, Tensor]]:
    data = tensors("kidiq")
    one, hs, iq = torch.ones_like(data["mom_iq"]), data["mom_hs"], data["mom_iq"]
    columns = [one, hs, iq, hs * iq] if interaction else [one, iq]
    return Scores(), {"x": torch.stack(columns, -1), "y": data["kid_score"]}


def autoregression() -> tuple[pgm.Model, dict[str, Tensor]]:
    data = tensors("arK")
    y, order = data["y"], int(data["K"])
    lags = [y[order - 1 - k : len(y) - 1 - k] for k in range(order)]
    return Autoregression(), {"x": torch.stack(lags, -1), "y": y[order:]}


def linear() -> tuple[pgm.Model, dict[str, Tensor]]:
    data = tensors("sblri")
    return Linear(), {"x": data["X"], "y": data["y"]}


def schools() -> tuple[pgm.Model, dict[str, Tensor]]:
    data = tensors("eight_schools")
    return Hierarchical(), {"y": data["y"], "sigma": data["sigma"]}


POSTERIORS = {
    "arK-arK": autoregression,
    "eight_schools-eight_schools_noncentered": schools,
    "kidiq-kidscore_interaction": lambda: kidiq(interaction=True),
    "kidiq-kidscore_momiq": lambda: kidiq(interaction=False),
    "low_dim_gauss_mix-low_dim_gauss_mix": lambda: (
        Mixture(),
        {"y": tensors("low_dim_gauss_mix")["y"]},
    ),
    "sblri-blr": linear,
}


@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriordb(name: str) -> None:
    """Means within 4 Monte Carlo errors of the published draws, sds within 10 %."""
    model, data = POSTERIORS[name]()
    with unchecked():
        posterior = chees(model, data, draws=400, warmup=200, seed=0, backend="ts")
    table = posterior.summary()
    for parameter, reference in read(f"{name}.ref")["parameters"].items():
        site, _, index = parameter.rstrip("]").partition("[")
        ours = table.loc[f"{site}[{int(index) - 1}]" if index else site]
        error = (ours["mcse_mean"] ** 2 + reference["mcse_mean"] ** 2) ** 0.5
        assert abs(ours["mean"] - reference["mean"]) < 4 * error, parameter
        assert ours["sd"] == pytest.approx(reference["sd"], rel=0.1), parameter
    assert table["r_hat"].max() < 1.01
    assert not posterior.sample_stats["diverging"].any()


class Mean(pgm.Model):
    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 10.0).to_event(1))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu.sum(), 1.0))


SHORT: dict[str, Any] = {"draws": 40, "warmup": 40, "chains": 8, "backend": "graph"}
DATA = {"y": torch.tensor([1.0, 2.0, 3.0])}


def short(model: pgm.Model | None = None, **options: Any) -> Posterior:
    with unchecked():
        return chees(model or Mean(), DATA, **(SHORT | {"seed": 0} | options))


def test_the_same_seed_draws_the_same_and_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    one, two, other = short(), short(), short(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.draws["mu"], two.draws["mu"])
    assert not torch.equal(one.draws["mu"], other.draws["mu"])


def test_resumed_draws_are_those_of_one_longer_run() -> None:
    with unchecked():
        resumed = resume(short(draws=15), draws=25)
    whole = short()
    torch.testing.assert_close(resumed.draws["mu"], whole.draws["mu"], rtol=1e-9, atol=1e-9)
    assert all(v.shape == (8, 40) for v in resumed.sample_stats.values())
    with pytest.raises(pgm.Unsupported, match="keep no sampler"):
        resume(mcmc_like(whole))


def mcmc_like(posterior: Posterior) -> Posterior:
    return Posterior(
        posterior.draws, {}, posterior.model, posterior.batch, seconds=0.0, method="nuts"
    )


def test_an_interruption_keeps_the_draws_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    step, warmed = Sampler.step, SHORT["warmup"]

    def interrupted(self: Sampler) -> Any:
        if self.iteration == warmed + 10:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Sampler, "step", interrupted)
    posterior = short()
    assert posterior.size == (8, 10)
    assert "Interrupted after 10 of 40" in posterior.remarks[0]
    monkeypatch.setattr(Sampler, "step", step)
    with unchecked():
        whole = resume(posterior, draws=30)
    torch.testing.assert_close(whole.draws["mu"], short().draws["mu"], rtol=1e-9, atol=1e-9)


def test_a_line_along_which_nothing_changes_is_improper() -> None:
    class Twice(pgm.Model):
        def model(self, n: int) -> None:
            flat = dist.ImproperUniform(constraints.real, (), ())
            a, b = pyro.sample("a", flat), pyro.sample("b", flat)
            pyro.sample("c", dist.Normal(torch.zeros(()), 1.0))
            with pgm.rows(n):
                pyro.sample("y", dist.Normal(a + b, 1.0))

    with pytest.raises(ImproperPosterior, match="line through 'a' and 'b'"):
        short(Twice())


def test_a_program_that_cannot_be_replayed_is_run_and_told() -> None:
    class Branching(pgm.Model):
        def model(self, n: int) -> None:
            mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
            with pgm.rows(n):
                pyro.sample("y", dist.Normal(mu, 1.0 if mu > 0 else 2.0))

    posterior = short(Branching(), draws=4, warmup=20, chains=4)
    assert "instead of replayed" in posterior.remarks[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"chains": 2}, "chains is 2"), ({"target_accept": 1.0}, "strictly"), ({"draws": 1}, "draws")],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chees(Mean(), DATA, **(SHORT | options))


def covariance(d: int = 5) -> Tensor:
    A = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return A @ A.T + 0.1 * torch.eye(d, dtype=torch.float64)


def test_the_metric_of_a_normal_is_its_covariance_once_draws_span_the_space() -> None:
    Sigma = covariance()
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(30, 5, dtype=torch.float64, generator=generator)
    X = (noise @ torch.linalg.cholesky(Sigma).T).T.cov()
    G = Sigma.inverse() @ X @ Sigma.inverse()
    torch.testing.assert_close(geometric_mean(X, G), Sigma, rtol=1e-6, atol=1e-6)


def test_directions_near_the_diagonal_are_left_to_it() -> None:
    noise = torch.randn(400, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert estimate(noise, -noise, dense=True).covariance is None
    u = noise.clone()
    u[:, 1] += 5 * u[:, 0]
    found = estimate(u, -u @ u.T.cov().inverse(), dense=True)
    assert found.covariance is not None
    torch.testing.assert_close(found.covariance, u.T.cov(), rtol=0.05, atol=0.15)


def test_a_geometric_mean_solves_its_equation() -> None:
    X, G = covariance(), covariance().inverse() + torch.eye(5, dtype=torch.float64)
    Sigma = geometric_mean(X, G)
    torch.testing.assert_close(Sigma @ G @ Sigma, X, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dense", [False, True])
def test_a_trajectory_can_be_run_backwards_and_keeps_its_energy(*, dense: bool) -> None:
    Sigma = covariance()
    precision = Sigma.inverse()

    def density(u: Tensor) -> tuple[Tensor, Tensor]:
        return -0.5 * ((u @ precision) * u).sum(1), -u @ precision

    noise = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u = 2 * noise.flip(0)
    metric = estimate(noise @ torch.linalg.cholesky(Sigma).T, noise, dense=dense)
    start, p = evaluate(density, u), metric.momentum(noise)
    torch.testing.assert_close(metric.velocity(p), noise)
    end, q = leapfrog(density, start, p, metric, 1e-3, 200)
    energy = start.log_p - 0.5 * noise.square().sum(1)
    torch.testing.assert_close(
        end.log_p - 0.5 * metric.velocity(q).square().sum(1), energy, rtol=1e-5, atol=1e-5
    )
    back, r = leapfrog(density, end, -q, metric, 1e-3, 200)
    torch.testing.assert_close(back.u, u)
    torch.testing.assert_close(-r, p)


def test_a_diagonal_metric_is_the_sd_of_a_normal() -> None:
    sd = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)
    noise = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found: Metric = estimate(noise * sd, -noise / sd, dense=False)
    torch.testing.assert_close(found.scale, sd)


def test_jitter_fills_the_unit_interval() -> None:
    first = sorted(halton(i) for i in range(1, 32))
    assert first == [i / 32 for i in range(1, 32)]
