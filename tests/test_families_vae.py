"""The VAE against its definition, and against the exact answer where the decoder is linear."""

import math

import pyro
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal

import pgm
from pgm.families.vae import VAE, BlackAndWhite, Likelihood


def test_the_weight_is_the_definition() -> None:
    """log w = log p(x | z) + log p(z) - log q(z | x), Kingma & Welling 2014, eq. 3."""
    model = VAE(5, latents=2, hidden=(7,))
    x = torch.randint(2, (4, 5)).float()
    with torch.no_grad():
        weight = pgm.log_weight(model, pgm.as_batch(x))
        z = weight.values["z"]
        mu, log_sigma = model.encoder(x).chunk(2, -1)
        expected = (
            Bernoulli(logits=model.decoder(z)).log_prob(x).sum(-1)
            + Normal(0.0, 1.0).log_prob(z).sum(-1)
            - Normal(mu, log_sigma.exp()).log_prob(z).sum(-1)
        )
    assert torch.allclose(weight.rows, expected, atol=1e-5)


def test_a_linear_gaussian_vae_finds_its_exact_density() -> None:
    """With a linear decoder x ~ N(b, W W^T + Psi)."""
    model, exact = linear()
    x = torch.randn(6, 3)
    got = pgm.log_prob(model, x, particles=20000, seed=0)
    assert ((got.value - exact.log_prob(x)).abs() < 5 * got.error + 0.02).all()


def test_cells_in_black_and_white_are_independent_bernoullis() -> None:
    logits, x = torch.randn(4, 5), torch.randint(2, (4, 5)).float()
    lean = BlackAndWhite(pyro.distributions.Bernoulli(logits=logits), 1)
    plain = Bernoulli(logits=logits)
    assert torch.allclose(lean.log_prob(x), plain.log_prob(x).sum(-1), atol=1e-6)
    assert lean.expand([3, 4]).log_prob(x).shape == (3, 4)
    assert lean.log_prob(x[0]).shape == (4,)
    with pytest.raises(ValueError, match="support"):
        lean.log_prob(x + 0.5)
    hidden = x.clone()
    hidden[:, 0] = float("nan")
    model = VAE(5, latents=2, hidden=(7,))
    with torch.no_grad():
        weight = pgm.log_weight(model, pgm.as_batch(hidden))
        z = weight.values["z"]
        seen = Bernoulli(logits=model.decoder(z)).log_prob(x)[:, 1:].sum(-1)
        mu, log_sigma = model.encoder(x * torch.tensor([0.0, 1, 1, 1, 1])).chunk(2, -1)
        shift = Normal(0.0, 1.0).log_prob(z) - Normal(mu, log_sigma.exp()).log_prob(z)
    assert torch.allclose(weight.rows, seen + shift.sum(-1), atol=1e-5)


def linear() -> tuple[VAE, MultivariateNormal]:
    """A VAE with a linear decoder, and its density x ~ N(b, W W^T + Psi)."""
    model = VAE(3, latents=2, hidden=(8,), likelihood="gaussian")
    layer = nn.Linear(2, 3)
    model.decoder = nn.Sequential(layer)
    W, b = layer.weight.detach(), layer.bias.detach()
    return model, MultivariateNormal(b, W @ W.T + model.log_noise.detach().mul(2).exp().diag())


def test_missing_cells_are_left_out_of_the_density() -> None:
    """log p(x_seen) is the marginal's, though the encoder sees zeros (Mattei & Frellsen 2019)."""
    model, joint = linear()
    x = torch.randn(5, 3)
    x[:, 1] = float("nan")
    got = pgm.log_prob(model, x, particles=20000, seed=0)
    seen = torch.tensor([0, 2])
    marginal = MultivariateNormal(joint.loc[seen], joint.covariance_matrix[seen][:, seen])
    assert ((got.value - marginal.log_prob(x[:, seen])).abs() < 5 * got.error + 0.02).all()


def test_missing_cells_are_completed_from_the_conditional() -> None:
    """x_1 | x_0, x_2 is Gaussian with mean b_1 + S_10 S_00^-1 (x_0 - b_0)."""
    model, joint = linear()
    x = torch.tensor([[1.0, float("nan"), -1.0]])
    done = pgm.impute(model, x, draws=4000, particles=4000, seed=0)
    S, seen = joint.covariance_matrix, torch.tensor([0, 2])
    gain = torch.linalg.solve(S[seen][:, seen], S[seen, 1])
    mean = joint.loc[1] + gain @ (x[0, seen] - joint.loc[seen])
    spread = (S[1, 1] - gain @ S[seen, 1]).sqrt()
    error = 4 * float(spread) / float(done.ess) ** 0.5
    assert float(done.draws["x"][:, 0, 1].mean()) == pytest.approx(float(mean), abs=error)
    assert float(done.draws["x"][:, 0, 1].std()) == pytest.approx(float(spread), rel=0.1)


@pytest.mark.parametrize(
    ("likelihood", "levels"), [("bernoulli", None), ("gaussian", None), ("categorical", 3)]
)
def test_every_likelihood_trains(likelihood: Likelihood, levels: int | None) -> None:
    x = torch.randint(levels or 2, (60, 4)).float()
    model = VAE(4, latents=2, hidden=(8,), likelihood=likelihood, levels=levels)
    run = pgm.fit(model, x, steps=60, learning_rate=0.01, seed=0)
    assert run.loss < run.steps[0].loss
    assert pgm.sample(model, 3, seed=0)["x"].shape == (3, 4)
    assert pgm.decode(model, pgm.encode(model, x[:2]))["x"].shape == (2, 4)


def test_categorical_rows_of_any_whole_number_type() -> None:
    model = VAE(4, latents=2, hidden=(8,), likelihood="categorical", levels=3)
    x = torch.randint(3, (5, 4))
    a = pgm.log_prob(model, x, seed=0).value
    assert torch.allclose(a, pgm.log_prob(model, x.float(), seed=0).value)
    assert float(a.mean()) == pytest.approx(-4 * math.log(3), abs=1.0)


def test_arguments_that_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="levels is None"):
        VAE(4, latents=2, likelihood="categorical")
    with pytest.raises(ValueError, match="levels is 3"):
        VAE(4, latents=2, levels=3)
    with pytest.raises(ValueError, match="count from 1"):
        VAE(4, latents=0)
