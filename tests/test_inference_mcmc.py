"""NUTS against posteriors that are known: closed forms, quadrature, published reference draws."""

import contextlib
import itertools
import json
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

import pgm
from pgm.data import load
from pgm.families.hierarchical import Hierarchical
from pgm.inference import InferenceWarning, Posterior, mcmc, resume
from pgm.inference.hmc.chain import Chain, Options
from pgm.inference.hmc.tree import Transition
from pgm.tracing import Backend


class KnownNoise(pgm.Model):
    """Linear regression with the residual sd known: its posterior is normal (Bishop 2006, 3.53)."""

    def __init__(self, noise: float = 0.5) -> None:
        super().__init__()
        self.noise = noise
        self.unused = torch.nn.Parameter(torch.ones(1))

    def model(self, n: int, x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[-1]), 2.0).to_event(1))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(x @ w, self.noise))


def regression_data(n: int = 25) -> dict[str, Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(n, generator=torch.Generator().manual_seed(2))
    return {"x": x, "y": x @ torch.tensor([1.0, -0.5]) + 0.5 * noise}


@pytest.fixture(scope="module")
def known_noise() -> Posterior:
    with unchecked(), few_draws():
        return mcmc(KnownNoise(), regression_data(), draws=400, warmup=150, chains=2, seed=0)


@pytest.fixture(scope="module")
def schools() -> Posterior:
    data, options = dict(load("eight_schools").tensors), {"chains": 2, "target_accept": 0.9}
    with unchecked(), few_draws():
        return mcmc(Hierarchical(), data, draws=400, warmup=200, seed=0, **options)


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """For chains of thousands of gradients: checking shapes in each would double the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@contextlib.contextmanager
def few_draws() -> Iterator[None]:
    """For draws that may be told to be few; the tests say what must hold for them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)
        yield


def test_a_conjugate_posterior_is_found(known_noise: Posterior) -> None:
    data = {name: value.double() for name, value in regression_data().items()}
    precision = torch.eye(2) / 2.0**2 + data["x"].T @ data["x"] / 0.5**2
    covariance = precision.inverse()
    mean = covariance @ data["x"].T @ data["y"] / 0.5**2
    table = known_noise.summary()
    w = known_noise.draws["w"].flatten(0, 1)
    assert ((w.mean(0) - mean).abs() < 4 * torch.tensor(table["mcse_mean"].to_numpy())).all()
    assert torch.allclose(w.std(0), covariance.diag().sqrt(), rtol=0.1)
    assert torch.corrcoef(w.T)[0, 1] == pytest.approx(
        float(covariance[0, 1] / covariance.diag().prod().sqrt()), abs=0.1
    )
    assert table["r_hat"].max() < 1.02


def exact_schools() -> dict[str, tuple[float, float]]:
    """Means and sds by quadrature over tau; given tau all is normal (Gelman et al. 2013, 5.4)."""
    data = {name: value.double() for name, value in load("eight_schools").tensors.items()}
    y, variance = data["y"], data["sigma"].square()
    log_tau = torch.linspace(-12, 7, 20001, dtype=torch.float64)[:, None]
    tau = log_tau.exp()
    weight = 1 / (variance + tau.square())
    v_mu = 1 / (weight.sum(1) + 1 / 25)
    mu = v_mu * (weight * y).sum(1)
    marginal = 0.5 * (weight.log().sum(1) + v_mu.log() - (weight * y.square()).sum(1))
    log_p = marginal + 0.5 * mu.square() / v_mu - (1 + (tau / 5).square()).log()[:, 0]
    p = (log_p + log_tau[:, 0]).softmax(0)
    shrink = tau.square() * weight
    theta = shrink * y + (1 - shrink) * mu[:, None]
    v_theta = shrink * variance + (1 - shrink).square() * v_mu[:, None]
    moments = {"mu": (mu, v_mu), "tau": (tau[:, 0], torch.zeros_like(p))}
    moments |= {f"theta[{j}]": (theta[:, j], v_theta[:, j]) for j in range(8)}
    return {
        name: (float(p @ m), float((p @ (v + m.square()) - (p @ m).square()).sqrt()))
        for name, (m, v) in moments.items()
    }


def test_eight_schools_agree_with_quadrature(schools: Posterior) -> None:
    table = schools.summary()
    for name, (mean, sd) in exact_schools().items():
        assert abs(table["mean"][name] - mean) < 4 * table["mcse_mean"][name], name
        assert table["sd"][name] == pytest.approx(sd, rel=0.15), name
    assert table["r_hat"].max() < 1.02
    assert not schools.sample_stats["reached_max_treedepth"].any()


def test_eight_schools_agree_with_the_reference_draws(schools: Posterior) -> None:
    if "HOTPLATE_DATA" not in os.environ:
        pytest.skip("HOTPLATE_DATA is not set: posteriordb's reference draws are not at hand.")
    name = "eight_schools-eight_schools_noncentered.ref.json"
    path = Path(os.environ["HOTPLATE_DATA"]) / "posteriordb" / name
    table = schools.summary()
    for name, reference in json.loads(path.read_text())["parameters"].items():
        ours = table.loc[f"theta[{int(name[6:-1]) - 1}]" if "[" in name else name]
        error = (ours["mcse_mean"] ** 2 + reference["mcse_mean"] ** 2) ** 0.5
        assert abs(ours["mean"] - reference["mean"]) < 4 * error, name
        assert ours["sd"] == pytest.approx(reference["sd"], rel=0.15), name


def test_statistics_say_what_each_draw_did(schools: Posterior) -> None:
    stats = schools.sample_stats
    assert {name: value.shape for name, value in stats.items()} == dict.fromkeys(
        stats, torch.Size([2, 400])
    )
    potential = -stats["lp"]
    assert (stats["energy"][:, 1:] >= potential[:, :-1]).all(), "kinetic energy is not negative"
    assert ((stats["acceptance_rate"] >= 0) & (stats["acceptance_rate"] <= 1 + 1e-9)).all()
    assert float(stats["acceptance_rate"].mean()) > 0.85, "the step size is tuned to 0.9"
    assert (2 ** stats["tree_depth"] > stats["n_steps"]).all() and (stats["n_steps"] >= 1).all()
    kinetic = stats["energy"][:, 1:] - potential[:, :-1]
    assert float(kinetic.mean()) == pytest.approx(10 / 2, rel=0.15), "chi-square of 10 latents / 2"


class Narrow(pgm.Model):
    """A normal of correlation -.99 and of other scales."""

    root = torch.tensor([[1.0, 0.0], [-9.9, 1.4]], dtype=torch.float64)

    def model(self, n: int) -> None:
        pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), scale_tril=self.root))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(torch.zeros(()), 1.0))


def test_a_dense_metric_takes_few_steps_along_a_ridge() -> None:
    steps = []
    for dense in (False, True):
        with unchecked(), few_draws():
            options: dict[str, Any] = {"draws": 500, "warmup": 300, "chains": 2, "seed": 0}
            found = mcmc(Narrow(), {"y": torch.zeros(1)}, dense_mass=dense, **options)
        stats = found.sample_stats
        steps.append(float(stats["n_steps"].double().mean()))
        kinetic = stats["energy"][:, 1:] + stats["lp"][:, :-1]
        assert float(kinetic.mean()) == pytest.approx(1.0, abs=4 / 1000**0.5), "chi-square of 2 / 2"
        assert float(stats["acceptance_rate"].mean()) == pytest.approx(0.87, abs=0.08)
    z = found.draws["z"].flatten(0, 1)
    torch.testing.assert_close(z.T.cov(), Narrow.root @ Narrow.root.T, rtol=0.25, atol=0.0)
    assert steps[0] > 3 * steps[1]


def test_the_step_size_after_the_warm_up_is_an_average() -> None:
    """The last ones of dual averaging are still far apart; their averages are not."""

    def density(u: Tensor) -> tuple[Tensor, Tensor]:
        return -0.5 * u.square().sum(1), -u

    last, after = [], []
    for seed in range(12):
        start = torch.zeros(5, dtype=torch.float64)
        chain = Chain(density, start, np.random.default_rng(seed), Options())
        for _ in chain.warm_up(150):
            last_step = chain.step_size
        last.append(math.log(last_step))
        after.append(math.log(chain.step_size))
    assert np.std(after) < 0.6 * np.std(last)


SHORT = {"draws": 20, "warmup": 20}


@pytest.mark.filterwarnings("ignore::pgm.inference.InferenceWarning")
def test_the_seed_alone_decides_and_nothing_of_the_users_changes() -> None:
    model, data = KnownNoise(), regression_data(4)
    state, weights = torch.get_rng_state(), model.unused.detach().clone()
    two = mcmc(model, data, chains=2, seed=3, **SHORT).draws["w"]
    again = mcmc(model, data, chains=2, seed=3, **SHORT).draws["w"]
    one = mcmc(model, data, chains=1, seed=3, **SHORT).draws["w"]
    other = mcmc(model, data, chains=1, seed=4, **SHORT).draws["w"]
    assert torch.equal(two, again) and torch.equal(two[:1], one)
    assert not torch.equal(one, other) and not torch.equal(two[0], two[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert two.dtype == torch.float64 and torch.get_default_dtype() == torch.float32
    assert model.training and model.unused.requires_grad and torch.equal(model.unused, weights)
    assert model.unused.dtype == torch.float32 and data["y"].dtype == torch.float32


class Priors(pgm.Model):
    """Priors on the weights of a layer, a tensor that no buffer holds, and computed sites."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = PyroModule[nn.Linear](2, 1, bias=False)
        self.layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
        self.rotation = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])

    def model(self, n: int, x: Tensor) -> None:
        mean = self.layer(x @ self.rotation).squeeze(-1)
        with pgm.rows(n):
            pyro.deterministic("double", 2 * mean)
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.deterministic("minus", -z)
            pyro.sample("y", dist.Normal(mean, 1.0))


@pytest.mark.parametrize("left_out", [False, True])
def test_programs_of_all_kinds_give_draws_with_named_axes(*, left_out: bool) -> None:
    data = {"x": torch.ones(5, 2)} | ({} if left_out else {"y": torch.ones(5)})
    with few_draws():
        posterior = mcmc(Priors(), data, draws=5, warmup=5, chains=2, seed=0)
    w, z = posterior.draws["layer.weight"], posterior.draws["z"]
    assert w.shape == (2, 5, 1, 2) and z.shape == (2, 5, 5, 3)
    mean = (w @ torch.tensor([-1.0, 1.0], dtype=w.dtype))[..., 0, None].expand(2, 5, 5)
    assert torch.allclose(posterior.draws["double"], 2 * mean)
    assert torch.equal(posterior.draws["minus"], -z)
    assert posterior.dims["double"] == ("rows",)
    assert posterior.dims["minus"] == ("rows", "minus_dim_1")
    assert ("y" in posterior.draws) is left_out


class Funnel(pgm.Model):
    """Neal's funnel: its neck is too narrow for any one step size."""

    def model(self, n: int) -> None:
        v = pyro.sample("v", dist.Normal(0.0, 3.0))
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(0.0, (v / 2).exp()).expand([9]).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 100.0))


def test_divergences_are_kept_and_told() -> None:
    """Steps that are tuned to be too large for any neck."""
    with unchecked(), pytest.warns(InferenceWarning) as told:
        funnel = mcmc(
            Funnel(), torch.zeros(1), draws=60, warmup=60, chains=1, seed=0, target_accept=0.3
        )
    divergent = int(funnel.sample_stats["diverging"].sum())
    assert divergent > 0
    messages = [str(warning.message) for warning in told]
    assert any(m.startswith(f"{divergent} of 60 draws diverged") for m in messages)
    assert "non-centred" in str(funnel)


@pytest.mark.filterwarnings("ignore::pgm.inference.InferenceWarning")
@pytest.mark.parametrize("backend", ["eager", "ts"])
def test_resumed_draws_are_those_of_one_longer_run_bit_for_bit(backend: Backend) -> None:
    options = {"warmup": 30, "chains": 2, "seed": 5, "backend": backend}
    whole = mcmc(KnownNoise(), regression_data(4), draws=20, **options)
    short = mcmc(KnownNoise(), regression_data(4), draws=8, **options)
    for _ in range(2):  # resuming leaves what was resumed as it is
        resumed = resume(short, draws=12)
        assert torch.equal(resumed.draws["w"], whole.draws["w"])
        for name, values in whole.sample_stats.items():
            assert torch.equal(resumed.sample_stats[name], values), name


@pytest.mark.filterwarnings("ignore::pgm.inference.InferenceWarning")
def test_an_interruption_keeps_whole_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Chain.step
    run: dict[str, Any] = {"draws": 20, "warmup": 20, "chains": 3, "seed": 3}
    whole = mcmc(KnownNoise(), regression_data(4), **run)

    def interrupted_at(at: int) -> Posterior:
        steps = itertools.count(1)

        def interrupted(self: Chain) -> Transition:
            if next(steps) == at:
                raise KeyboardInterrupt
            return step(self)

        monkeypatch.setattr(Chain, "step", interrupted)
        return mcmc(KnownNoise(), regression_data(4), **run)

    for at, (chains, draws) in {30: (1, 9), 70: (1, 20), 119: (2, 20)}.items():
        found = interrupted_at(at)
        assert found.size == (chains, draws) and "Interrupted" in found.remarks[0]
        assert torch.equal(found.draws["w"], whole.draws["w"][:chains, :draws])
    with pytest.raises(KeyboardInterrupt):
        interrupted_at(10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws is 0"),
        ({"warmup": 0}, "warmup is 0"),
        ({"chains": 0}, "chains is 0"),
        ({"target_accept": 1.0}, "strictly between 0 and 1"),
        ({"max_tree_depth": 0}, "max_tree_depth is 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mcmc(KnownNoise(), regression_data(), **options)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError):
        mcmc(torch.nn.Linear(1, 1), torch.zeros(2))
