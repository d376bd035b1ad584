"""Non-centred latents: the same distribution, and no funnel."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist

import pgm
from pgm.inference import mcmc
from pgm.inference.reparameterisation import reparameterise
from pgm.inference.unconstrained import log_joint
from pgm.randomness import seeded
from pgm.sites import Run

Y = torch.tensor([28.0, 8.0, -3.0, 7.0])


class Groups(pgm.Model):
    """Effects of groups; `kind` says of which distribution."""

    def __init__(self, kind: str = "normal") -> None:
        super().__init__()
        self.kind = kind

    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
        kinds = {
            "normal": dist.Normal(mu, tau),
            "student": dist.StudentT(4.0, mu, tau),
            "lognormal": dist.LogNormal(mu, tau),
        }
        with pgm.rows(n):
            theta = pyro.sample("theta", kinds[self.kind])
            pyro.sample("y", dist.Normal(theta, 10.0))


@pytest.mark.parametrize("kind", ["normal", "student", "lognormal"])
def test_auto_finds_the_funnel_and_leaves_the_law_as_it_is(kind: str) -> None:
    """Density of theta, by the change of variables theta = mu + tau eta (or its exponential)."""
    model = reparameterise(Groups(kind))
    assert model.sites == ("theta",)
    with seeded(1), Run() as run:
        model.model(3)
    sites = run.sites
    noise = next(s for name, s in sites.items() if name.startswith("theta_"))
    assert sites["theta"].deterministic
    mu, tau, eta = sites["mu"].value, sites["tau"].value, noise.value
    moved = mu + tau * eta
    expected = moved.exp() if kind == "lognormal" else moved
    torch.testing.assert_close(sites["theta"].value, expected)
    law = dist.StudentT(4.0) if kind == "student" else dist.Normal(0.0, 1.0)
    torch.testing.assert_close(noise.fn.log_prob(eta), law.log_prob(eta))


def test_both_forms_have_the_same_evidence() -> None:
    """log p(y | mu, tau), with theta integrated out on a grid in either form."""
    grid = torch.linspace(-12, 12, 301, dtype=torch.float64)
    mu, tau, y = 1.0, 2.0, {"y": Y[:1].double()}
    totals = []
    for model in (Groups(), reparameterise(Groups())):
        density = log_joint(model, pgm.batch.as_batch(y))
        at = torch.tensor([mu, math.log(tau), 0.0], dtype=torch.float64).repeat(len(grid), 1)
        scale = 1.0 if isinstance(model, Groups) else tau
        at[:, 2] = mu + tau * grid if isinstance(model, Groups) else grid
        with torch.no_grad():
            values = torch.stack([density(u) for u in at])
        step = (grid[1] - grid[0]) * (tau if scale == 1.0 else 1.0)
        totals.append(float(values.logsumexp(0) + step.log()))
    assert totals[0] == pytest.approx(totals[1], abs=1e-6)


@pytest.mark.filterwarnings("ignore::pgm.inference.InferenceWarning")  # few draws are enough here
def test_the_posterior_still_speaks_of_theta() -> None:
    found = mcmc(
        reparameterise(Groups()), {"y": Y}, draws=40, warmup=100, chains=1, seed=0, progress=False
    )
    draws = found.draws
    moved = draws["mu"][..., None] + draws["tau"][..., None] * draws["theta_decentered"]
    torch.testing.assert_close(draws["theta"], moved)


def test_what_has_no_funnel_or_no_location_is_refused() -> None:
    class Plain(pgm.Model):
        def model(self, n: int) -> None:
            p = pyro.sample("p", dist.Beta(1.0, 1.0))
            with pgm.rows(n):
                pyro.sample("y", dist.Bernoulli(p))

    with pytest.raises(ValueError, match="no funnel"):
        reparameterise(Plain())
    with pytest.raises(ValueError, match="'p' is a Beta"):
        reparameterise(Plain(), ["p"])
    with pytest.raises(ValueError, match="no site at all"):
        reparameterise(Plain(), ["q"])


def test_a_guide_of_the_centred_sites_is_not_used() -> None:
    class Guided(Groups):
        def guide(self, n: int) -> None:
            pyro.sample("mu", dist.Normal(0.0, 1.0))

    with pytest.raises(TypeError, match="needs no guide"):
        pgm.log_prob(reparameterise(Guided()), {"y": Y})
