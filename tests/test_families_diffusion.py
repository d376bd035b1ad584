"""Denoising diffusion against closed forms: Gaussian data, whose best denoiser is known."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.func import functional_call, grad, vmap

import pgm
from pgm.batch import Batch, repeat
from pgm.evaluation import mmd
from pgm.families.diffusion import Diffusion, _schedule, example
from pgm.randomness import seeded

RHO = 0.8


class Correlated(Diffusion):
    """Two standard normal features of correlation RHO: E[eps | x_t] is linear, and put in."""

    def predict_noise(self, x_t: Tensor, t: Tensor | int) -> Tensor:
        covariance = torch.tensor([[1.0, RHO], [RHO, 1.0]])
        alpha2, sigma = self.alpha[t] ** 2, self.sigma[t]
        total = alpha2 * covariance + sigma**2 * torch.eye(2)
        return sigma * x_t @ torch.linalg.inv(total)


def trained(steps: int = 6, features: int = 2, **options: tuple[float, float]) -> Diffusion:
    """A model with arbitrary weights, none of them at its initial value."""
    model = Diffusion(features, steps=steps, hidden=(16,), **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def standard(x: Tensor) -> Tensor:
    return Normal(0.0, 1.0).log_prob(x).sum(-1)


def test_the_schedule_is_the_posterior_of_the_noising() -> None:
    """q(x_s | x_t, x) by conditioning the joint Gaussian of (x_s, x_t) given x."""
    table = _schedule(5, (-3.0, 4.0))
    log_snr = (table["alpha"] ** 2 / table["sigma"] ** 2).log()[1:]
    assert torch.allclose(log_snr, torch.linspace(4.0, -3.0, 5, dtype=torch.float64))
    for t in range(1, 6):
        alpha_s, alpha_t = table["alpha"][t - 1], table["alpha"][t]
        var_s, var_t = table["sigma"][t - 1] ** 2, table["sigma"][t] ** 2
        slope = alpha_t / alpha_s * var_s / var_t
        assert torch.isclose(table["keep"][t], slope)
        assert torch.isclose(table["pull"][t], alpha_s - slope * alpha_t)
        assert torch.isclose(table["floor"][t], var_s - slope**2 * var_t)


def test_the_noising_arrives_where_it_should() -> None:
    model, variance = Diffusion(1, steps=7), torch.zeros(())
    mean = torch.ones(1)
    for t in range(1, 8):
        ratio = model.alpha[t] / model.alpha[t - 1]
        mean, std = model.forward_step(mean, t)
        variance = ratio**2 * variance + std**2
        assert torch.allclose(mean, model.alpha[t])
        assert torch.allclose(variance, model.sigma[t] ** 2)


@pytest.mark.parametrize("steps", [2, 9])
def test_an_untrained_model_is_exactly_the_standard_normal(steps: int) -> None:
    model = Diffusion(3, steps=steps, log_snr=(-2.0, 3.0)).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    found = pgm.log_prob(model, x, particles=2, seed=0)
    assert torch.allclose(found.value, standard(x), atol=1e-5)
    assert found.kind == "bound"


def test_location_and_scale_give_independent_gaussians() -> None:
    model = Diffusion(2, steps=20, log_snr=(-14.0, 6.0))
    mean, scale = torch.tensor([0.5, -1.0]), torch.tensor([0.3, 2.0])
    with torch.no_grad():
        model.location.copy_(mean)
        model.log_scale.copy_(scale.log())
    x = mean + scale * torch.randn(5, 2)
    found = pgm.log_prob(model, x, particles=50, seed=0)
    assert torch.allclose(found.value, Normal(mean, scale).log_prob(x).sum(-1), atol=0.01)


def test_one_timestep_estimates_the_bound_of_the_chain_row_by_row() -> None:
    model = trained(log_snr=(-3.0, 4.0))
    x, n = torch.tensor([[0.3, -1.0], [2.0, 0.5]]), 100000
    with torch.no_grad(), seeded(0):
        one = pgm.objective(model, repeat(Batch(x=x), n)).reshape(n, 2)
        chain = -pgm.log_weight(model, Batch(x=x), particles=n).rows
    for a, b in zip(one.T, chain.T, strict=True):
        error = math.hypot(float(a.std()), float(b.std())) / math.sqrt(n)
        assert error < 0.04
        assert float(a.mean() - b.mean()) == pytest.approx(0.0, abs=4 * error)


def test_one_row_alone_draws_its_timestep_from_all() -> None:
    model, x = trained(), torch.tensor([[0.3, -1.0]])
    alone = vmap(lambda x: pgm.objective(model, Batch(x=x)), randomness="different")
    with torch.no_grad(), seeded(0):
        one = alone(x.expand(20000, 1, 2)).flatten()
        chain = -pgm.log_weight(model, Batch(x=x), particles=20000).rows.flatten()
    error = math.hypot(float(one.std()), float(chain.std())) / math.sqrt(20000)
    assert float(one.mean() - chain.mean()) == pytest.approx(0.0, abs=4 * error)


def test_one_timestep_has_the_gradient_of_the_chain() -> None:
    model, x = trained(steps=3), torch.tensor([[0.3, -1.0]])
    parameters = [model.location, model.log_scale, model.spread.bias, model.network[-1].bias]
    found = []
    for seed in range(8):
        with seeded(seed):
            one = pgm.objective(model, repeat(Batch(x=x), 20000)).mean()
            chain = -pgm.log_weight(model, Batch(x=x), particles=20000).rows.mean()
        pair = [torch.cat(torch.autograd.grad(loss, parameters)) for loss in (one, chain)]
        found.append(pair[0] - pair[1])
    difference = torch.stack(found)
    error = difference.std(0) / math.sqrt(8)
    assert (difference.mean(0).abs() < 5 * error + 0.01).all()


def test_own_and_generic_density_are_one_number() -> None:
    model, x = trained(), torch.randn(3, 2)
    own = pgm.log_prob(model, x, particles=4, seed=0)
    with torch.no_grad(), seeded(0):
        log_w = pgm.log_weight(model, Batch(x=x), particles=4).rows
    assert torch.allclose(own.value, log_w.logsumexp(0) - math.log(4), atol=1e-4)


def test_the_bound_lies_below_a_known_density_and_close_to_it() -> None:
    model = Correlated(2, steps=200, log_snr=(-8.0, 7.0))
    covariance = torch.tensor([[1.0, RHO], [RHO, 1.0]])
    exact = torch.distributions.MultivariateNormal(torch.zeros(2), covariance)
    with seeded(0):
        x = exact.sample((50,))
    found = pgm.log_prob(model, x, particles=20, seed=0)
    gap = float((exact.log_prob(x) - found.value).mean())
    assert -0.02 < gap < 0.15


def test_samples_have_the_covariance_of_the_data() -> None:
    x = pgm.sample(Correlated(2, steps=200), 5000, seed=0)["x"]
    found = torch.cov(x.T)
    assert torch.allclose(found, torch.tensor([[1.0, RHO], [RHO, 1.0]]), atol=0.06)


def test_imputation_follows_the_conditional_of_a_gaussian() -> None:
    """x_2 | x_1 = y is N(RHO y, 1 - RHO^2)."""
    model, n = Correlated(2, steps=200, log_snr=(-8.0, 7.0)), 60
    y = torch.linspace(-1.5, 1.5, n)
    rows = torch.stack([y, torch.full((n,), torch.nan)], -1)
    done = pgm.impute(model, rows, draws=100, particles=200, seed=0)
    x = done.draws["x"]
    assert torch.equal(x[..., 0], y.expand(100, n))
    residual = x[..., 1] - RHO * y
    assert float(residual.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(residual.var()) == pytest.approx(1 - RHO**2, rel=0.06)
    slope = float((x[..., 1].mean(0) * y).sum() / y.square().sum())
    assert slope == pytest.approx(RHO, rel=0.04)
    assert ((done.ess >= 1) & (done.ess <= 200)).all()
    assert float(done.ess.median()) > 50


def test_imputing_everything_samples_and_imputing_nothing_changes_nothing() -> None:
    model = Correlated(2, steps=100)
    empty = pgm.impute(model, torch.full((30, 2), torch.nan), draws=100, seed=0).draws["x"]
    assert torch.allclose(
        torch.cov(empty.flatten(0, 1).T), torch.tensor([[1, RHO], [RHO, 1]]), atol=0.1
    )
    x = torch.randn(3, 2)
    whole = pgm.impute(model, x, draws=2, seed=0)
    assert torch.equal(whole.draws["x"], x.expand(2, 3, 2))


def test_codes_are_standard_normal_and_lead_back() -> None:
    model = Correlated(2, steps=400, log_snr=(-8.0, 7.0))
    x = pgm.sample(model, 2000, seed=0)["x"]
    code = pgm.encode(model, x)
    assert torch.allclose(torch.cov(code["x_400"].T), torch.eye(2), atol=0.1)
    assert torch.allclose(pgm.decode(model, code)["x"], x, atol=0.05)
    assert torch.equal(pgm.decode(model, code["x_400"])["x"], pgm.decode(model, code)["x"])
    path = pgm.interpolate(model, x[:1], x[1:2], steps=5)["x"]
    assert torch.allclose(path[[0, -1]], x[:2], atol=0.05)
    drawn = pgm.encode(model, x[:5], draws=3, seed=0)["x_400"]
    assert drawn.shape == (3, 5, 2)


def test_training_brings_samples_to_the_data() -> None:
    found = example()
    held_out = pgm.data.load("eight_gaussians", n=500, seed=9).x / 2
    scores = []
    for options in (None, found.fit):
        if options:
            pgm.fit(found.model, found.data, seed=0, progress=False, **options)
        x = pgm.sample(found.model, 500, seed=0)["x"]
        scores.append(mmd(held_out, x, bandwidth=0.2, permutations=1, seed=0).squared)
    assert scores[0] > 0.03
    assert scores[1] < scores[0] / 3
    entropy = math.log(8) + math.log(2 * math.pi * math.e * 0.175**2)
    nats = -pgm.log_prob(found.model, held_out, particles=50, seed=0).mean[0]
    assert entropy - 0.1 < nats < entropy + 0.5


class Loss(nn.Module):
    """The objective as a module's forward, for functional_call."""

    def __init__(self, model: pgm.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return pgm.objective(self.model, Batch(x=x)).sum()


def test_per_row_gradients_by_vmap_are_those_of_single_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, x = Loss(trained()), torch.randn(5, 2)
    weights = {name: p.detach() for name, p in loss.named_parameters()}

    def rows(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(loss, weights, (x[None],))

    drawn = vmap(grad(rows), in_dims=(None, 0), randomness="different")(weights, x)
    assert all(g.shape[0] == 5 and g.isfinite().all() for g in drawn.values())
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    monkeypatch.setattr(torch, "rand", lambda shape, device: torch.full(shape, 0.7))
    together = vmap(grad(rows), in_dims=(None, 0))(weights, x)
    for i in range(5):
        alone = torch.autograd.grad(loss(x[i : i + 1]), list(loss.parameters()))
        for name, g in zip(weights, alone, strict=True):
            assert torch.allclose(together[name][i], g, rtol=1e-4, atol=1e-5)


def test_arguments_and_data_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="features is 0"):
        Diffusion(0)
    with pytest.raises(ValueError, match="steps is 1"):
        Diffusion(2, steps=1)
    with pytest.raises(ValueError, match="log_snr"):
        Diffusion(2, log_snr=(5.0, -5.0))
    model, missing = Diffusion(2, steps=3), torch.tensor([[0.0, torch.nan]])
    for ask in (pgm.log_prob, pgm.encode, pgm.objective, pgm.surprise):
        with pytest.raises(pgm.Unsupported, match=r"pgm\.impute"):
            ask(model, missing)
    with pytest.raises(pgm.Unsupported, match=r"pgm\.impute"):
        pgm.fit(model, missing, steps=1)
    with pytest.raises(ValueError, match="2 features"):
        pgm.log_prob(model, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="'y'"):
        pgm.encode(model, {"y": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match="'x_3'"):
        pgm.decode(model, {"z": torch.zeros(1, 2)})
