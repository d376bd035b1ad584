"""The normal hierarchical model: its guide is exact in the effects, given mu and tau."""

import math

import pyro.distributions as dist
import pytest
import torch

import pgm
from pgm.batch import as_batch
from pgm.data import load
from pgm.families.hierarchical import Hierarchical
from pgm.verbs import encode, impute

SCHOOLS = dict(load("eight_schools").tensors)


def test_weights_of_rows_are_their_marginal_density_whatever_eta_is() -> None:
    """p(y, eta) / q(eta | y) = N(y; mu, tau^2 + sigma^2): Gelman et al. (2013), eq. 5.17."""
    weight = pgm.log_weight(Hierarchical(), as_batch(SCHOOLS), particles=20)
    mu, tau = weight.values["mu"][:, None], weight.values["tau"][:, None]
    spread = (tau.square() + SCHOOLS["sigma"].square()).sqrt()
    expected = dist.Normal(mu, spread).log_prob(SCHOOLS["y"])
    assert torch.allclose(weight.rows, expected, atol=1e-4)


def test_a_school_without_an_estimate_has_weight_one() -> None:
    y = torch.where(torch.arange(8) == 2, math.nan, SCHOOLS["y"])
    weight = pgm.log_weight(Hierarchical(), as_batch(SCHOOLS | {"y": y}))
    assert float(weight.rows[2].detach()) == pytest.approx(0.0, abs=1e-5)
    done = impute(Hierarchical(), SCHOOLS | {"y": y}, draws=3, seed=0).draws["y"]
    assert done[:, 2].unique().numel() == 3 and (done[:, 0] == 28).all()


def test_fitting_reaches_the_evidence_lower_bound() -> None:
    """log p(y) by quadrature over tau bounds it; mean-field in two numbers comes within 0.2."""
    model = Hierarchical()
    options = {"steps": 400, "learning_rate": 0.07, "schedule": "cosine"}
    pgm.fit(model, SCHOOLS, seed=0, **options)
    weight = pgm.log_weight(model, as_batch(SCHOOLS), particles=500)
    log_w = (weight.rows.sum(1) + weight.shared).detach()
    y, v = SCHOOLS["y"].double(), SCHOOLS["sigma"].double().square()
    u = torch.linspace(-10, 8, 2001, dtype=torch.float64)
    log_p = []
    for tau in u.exp():
        covariance = torch.diag(v + tau**2) + 25.0
        log_y = dist.MultivariateNormal(torch.zeros(8).double(), covariance).log_prob(y)
        log_p.append(log_y + math.log(2 / (5 * math.pi)) - (1 + (tau / 5) ** 2).log() + tau.log())
    evidence = float(torch.stack(log_p).logsumexp(0) + math.log(18 / 2000))
    assert evidence - 0.2 < float(log_w.mean()) < evidence + 0.05
    assert float(log_w.logsumexp(0) - math.log(500)) == pytest.approx(evidence, abs=0.1)


def test_effects_are_shrunk_towards_their_mean() -> None:
    codes = encode(Hierarchical(), SCHOOLS)["eta"]
    assert codes.shape == (8,) and (codes.sign() == SCHOOLS["y"].sign()).all()


@pytest.mark.parametrize("options", [{"mean_scale": 0.0}, {"spread_scale": -1.0}])
def test_scales_that_are_not_positive_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Hierarchical(**options)
