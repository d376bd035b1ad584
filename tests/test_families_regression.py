"""Bayesian regression: its fitted guide is the posterior, known by quadrature over the noise."""

import math

import pytest
import torch
from torch import Tensor

import pgm
from pgm.families.regression import Regression, example
from pgm.inference import Posterior, pareto_k, variational
from pgm.verb import Unsupported
from pgm.verbs import encode, impute, interpolate, log_prob, sample


@pytest.fixture(scope="module")
def fitted() -> Regression:
    made = example()
    options = {"batch_size": 200, "steps": 800, "learning_rate": 0.06, "schedule": "cosine"}
    pgm.fit(made.model, made.data, seed=0, **options)
    return made.model


@pytest.fixture(scope="module")
def posterior(fitted: Regression) -> Posterior:
    return variational(fitted, example().data, draws=1000, seed=0)


def given_noise(noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance and log density up to a constant of what the data say, at each noise.

    Bishop (2006), eqs 3.53, 3.54 and 3.86; the intercept is the last coefficient.
    """
    data = {name: value.double() for name, value in example().data.items()}
    X, y = torch.cat([data["x"], torch.ones(200, 1)], 1), data["y"]
    beta = noise[:, None, None] ** -2
    precision = torch.eye(3) / 2.5**2 + beta * (X.T @ X)
    covariance = precision.inverse()
    mean = (covariance @ (beta * (X.T @ y)[:, None]))[..., 0]
    misfit = (y - mean @ X.T).square().sum(-1) / noise**2 + mean.square().sum(-1) / 2.5**2
    log_p = -200 * noise.log() - 0.5 * misfit - 0.5 * precision.logdet() - 0.5 * noise**2
    return mean, covariance, log_p


@pytest.fixture(scope="module")
def exact() -> dict[str, tuple[float, float]]:
    noise = torch.linspace(0.3, 0.9, 3001, dtype=torch.float64)
    mean, covariance, log_p = given_noise(noise)
    p = log_p.softmax(0)
    values = torch.cat([mean, noise[:, None]], 1)
    within = torch.cat([covariance.diagonal(dim1=1, dim2=2), torch.zeros_like(noise)[:, None]], 1)
    centre = p @ values
    sd = (p @ (within + (values - centre).square())).sqrt()
    names = ["weights[0]", "weights[1]", "intercept", "noise"]
    return dict(zip(names, zip(centre.tolist(), sd.tolist(), strict=True), strict=True))


def test_the_fitted_guide_is_the_posterior(
    posterior: Posterior, exact: dict[str, tuple[float, float]]
) -> None:
    table = posterior.summary()
    for name, (mean, sd) in exact.items():
        assert abs(table["mean"][name] - mean) < 0.25 * sd, name
        assert table["sd"][name] == pytest.approx(sd, rel=0.15), name
    assert float(pareto_k(posterior)) < 0.7


def test_the_guide_knows_that_correlated_covariates_share_their_effect(
    posterior: Posterior,
) -> None:
    _, covariance, _ = given_noise(torch.tensor([0.52], dtype=torch.float64))
    expected = covariance[0, 0, 1] / covariance[0].diag()[:2].prod().sqrt()
    found = torch.corrcoef(posterior.draws["weights"][0].T)[0, 1]
    assert float(found) == pytest.approx(float(expected), abs=0.15)
    assert float(expected) < -0.4


def test_log_prob_is_the_posterior_predictive_density(fitted: Regression) -> None:
    """At the plug-in noise it is N(x m, s^2 + x S x), to the width of the noise's posterior."""
    x, y = torch.tensor([[3.0, -3.0], [0.0, 0.0]]), torch.tensor([11.0, 1.5])
    mean, covariance, _ = given_noise(torch.tensor([0.522], dtype=torch.float64))
    X = torch.cat([x, torch.ones(2, 1)], 1).double()
    spread = (0.522**2 + ((X @ covariance[0]) * X).sum(1)).sqrt()
    expected = torch.distributions.Normal(X @ mean[0], spread).log_prob(y.double())
    found = log_prob(fitted, {"x": x, "y": y}, particles=400, seed=0)
    assert torch.allclose(found.value.double(), expected, atol=0.15)


def test_missing_outcomes_are_imputed_from_the_predictive(fitted: Regression) -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    data = {"x": x, "y": torch.tensor([math.nan, 2.0])}
    y = impute(fitted, data, draws=400, seed=0).draws["y"]
    assert (y[:, 1] == 2.0).all()
    assert float(y[:, 0].mean()) == pytest.approx(2.14, abs=0.1)
    assert float(y[:, 0].std()) == pytest.approx(0.53, rel=0.15)


def test_samples_follow_their_covariates(fitted: Regression) -> None:
    y = sample(fitted, 500, context={"x": torch.tensor([[1.0, 1.0]]).repeat(500, 1)}, seed=0)["y"]
    assert float(y.mean()) == pytest.approx(0.09, abs=0.25)
    assert float(y.std()) == pytest.approx(0.52, rel=0.15)


def test_missing_covariates_are_refused_and_never_read_as_zeros(fitted: Regression) -> None:
    x = torch.tensor([[1.0, math.nan], [1.0, 0.0]])
    with pytest.raises(ValueError, match="Cells of 'x' are missing, which is context"):
        log_prob(fitted, {"x": x, "y": torch.zeros(2)})


def test_a_regression_without_intercept_has_no_such_site() -> None:
    model = Regression(2, intercept=False)
    weight = pgm.log_weight(model, pgm.batch.as_batch(example().data))
    assert weight.shared_sites == ("weights", "noise")


@pytest.mark.parametrize("verb", [encode, interpolate])
def test_no_row_has_a_code(verb: pgm.Verb, fitted: Regression) -> None:
    data = example().data
    with pytest.raises(Unsupported, match=r"shared by all rows.*pgm\.inference"):
        verb(fitted, *[data] * (2 if verb is interpolate else 1))


@pytest.mark.parametrize("options", [{"features": 0}, {"features": 1, "noise_scale": 0.0}])
def test_arguments_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"features is 0|above zero"):
        Regression(**options)
