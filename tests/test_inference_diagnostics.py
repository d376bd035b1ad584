"""Diagnostics and ArviZ's groups: values by hand, and problems that must be seen."""

import math
import re
import warnings
from typing import Any

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from torch import Tensor, nn

import pgm
from pgm.batch import as_batch
from pgm.families.factor import PPCA
from pgm.families.hierarchical import Hierarchical
from pgm.inference import InferenceWarning, Posterior, pareto_k, summary, variational
from pgm.inference.diagnostics import _gather, to_arviz
from pgm.inference.predictive import pointwise
from pgm.verb import Unsupported


def nuts(draws: dict[str, Tensor], **stats: Tensor) -> Posterior:
    """A posterior of given draws, with the statistics of a sampler that had no trouble."""
    shape = next(iter(draws.values())).shape[:2]
    fine = {
        "diverging": torch.zeros(shape, dtype=torch.bool),
        "reached_max_treedepth": torch.zeros(shape, dtype=torch.bool),
        "energy": torch.randn(shape, generator=torch.Generator().manual_seed(9)),
    }
    return Posterior(draws, fine | stats, PPCA(2, 1), as_batch(torch.zeros(1, 2)), 0.0, "nuts")


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_summary_of_independent_draws() -> None:
    mu, w = normal(4, 1000), 3 + 2 * normal(4, 1000, 2, 3, seed=1)
    table = summary(nuts({"mu": mu, "w": w}))
    assert table.index.tolist()[:3] == ["mu", "w[0, 0]", "w[0, 1]"] and len(table) == 7
    assert table.columns.tolist() == [
        *("mean", "sd", "q05", "q95", "mcse_mean", "ess_bulk", "ess_tail", "r_hat")
    ]
    third = w[..., 1, 2].flatten()
    row = table.loc["w[1, 2]"]
    assert row["mean"] == pytest.approx(float(third.mean()))
    assert row["sd"] == pytest.approx(float(third.std()))
    assert row["q95"] == pytest.approx(float(third.quantile(0.95)))
    assert row["mcse_mean"] == pytest.approx(2 / math.sqrt(4000), rel=0.1)
    assert row["ess_bulk"] == pytest.approx(4000, rel=0.15)
    assert abs(row["r_hat"] - 1) < 0.005


def test_a_single_chain_has_no_r_hat() -> None:
    assert summary(nuts({"mu": normal(1, 500)}))["r_hat"].isna().all()


def test_sound_draws_have_no_problem() -> None:
    assert nuts({"mu": normal(4, 1000)}).problems() == ()


@pytest.mark.parametrize(
    ("mu", "stats", "message"),
    [
        (normal(2, 500) + torch.tensor([[0.0], [1.0]]), {}, r"R-hat of mu is 1\.\d+"),
        (normal(2, 500).cumsum(1), {}, "effective number of draws of mu"),
        (normal(2, 500), {"diverging": torch.eye(2, 500).bool()}, "2 of 1000 draws diverged"),
        (normal(2, 500), {"reached_max_treedepth": torch.eye(2, 500).bool()}, "cut short"),
        (normal(2, 500), {"energy": normal(2, 500).cumsum(1)}, r"E-BFMI is 0\.\d\d"),
    ],
)
def test_each_problem_is_seen(mu: Tensor, stats: dict[str, Tensor], message: str) -> None:
    with_problem = nuts({"mu": mu}, **stats)
    assert any(re.search(message, problem) for problem in with_problem.problems())


class Gaussian(pgm.Model):
    """z ~ N(0, 1) of which the data say nothing, and a guide N(0, s)."""

    def __init__(self, s: float) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.tensor(s))

    def model(self, n: int) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(0.0, 1.0))

    def guide(self, n: int) -> None:
        pyro.sample("z", dist.Normal(0.0, self.s))


def test_k_hat_of_a_normal_guide_is_one_minus_its_variance() -> None:
    """p / q of N(0, 1) and N(0, s) has a Pareto tail of shape 1 - s^2."""
    good = variational(Gaussian(0.8), torch.zeros(3), draws=1500, seed=0)
    assert float(pareto_k(good)) == pytest.approx(1 - 0.8**2, abs=0.15)
    assert good.problems() == ()
    with pytest.warns(InferenceWarning, match="k-hat"):
        narrow = variational(Gaussian(0.3), torch.zeros(3), draws=500, seed=0)
    assert float(pareto_k(narrow)) == pytest.approx(1 - 0.3**2, abs=0.25)
    exact = variational(Gaussian(1.0), torch.zeros(3), draws=20, seed=0)
    assert float(pareto_k(exact)) == 0.0


def test_variational_draws_are_the_guides_and_follow_the_seed() -> None:
    one = variational(Gaussian(0.8), torch.zeros(3), draws=400, seed=0)
    same = variational(Gaussian(0.8), torch.zeros(3), draws=400, seed=0)
    z = one.draws["z"]
    assert z.shape == (1, 400) and torch.equal(z, same.draws["z"])
    assert float(z.std()) == pytest.approx(0.8, rel=0.1)
    log_q = dist.Normal(0.0, torch.tensor(0.8)).log_prob(z)
    log_p = dist.Normal(0.0, 1.0).log_prob(z) + 3 * dist.Normal(0.0, 1.0).log_prob(torch.zeros(()))
    assert torch.allclose(one.sample_stats["log_weight"], log_p - log_q, atol=1e-6)


def test_what_variational_and_k_hat_refuse() -> None:
    class Open(pgm.Model):
        def model(self, n: int) -> None:
            with pgm.rows(n):
                pyro.sample("x", dist.Normal(0.0, 1.0))

    class Half(Gaussian):
        def model(self, n: int) -> None:
            super().model(n)
            pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(Unsupported, match=r"no guide.*mcmc"):
        variational(Open(), torch.zeros(2))
    with pytest.raises(Unsupported, match=r"no 'w'.*the prior's"):
        variational(Half(1.0), torch.zeros(2))
    with pytest.raises(ValueError, match="draws is 3"):
        variational(Gaussian(1.0), torch.zeros(2), draws=3)
    with pytest.raises(ValueError, match="no importance weights"):
        pareto_k(nuts({"mu": normal(2, 10)}))


NEW = int(az.__version__.partition(".")[0]) >= 1
"""Whether ArviZ is of its second generation: `.ci/run` runs this file with both."""


def names_of(idata: Any) -> set[str]:
    """The groups of an InferenceData, or of a DataTree."""
    return set(idata.children) if NEW else set(idata.groups())


def hierarchical() -> Posterior:
    y = torch.tensor([28.0, math.nan, -3.0])
    data = {"y": y, "sigma": torch.tensor([15.0, 10.0, 16.0])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)  # the guide was not fitted
        return variational(Hierarchical(), data, draws=50, seed=0)


def test_arviz_has_all_groups_with_named_axes() -> None:
    idata = to_arviz(hierarchical(), seed=0)
    assert names_of(idata) == {
        *("posterior", "posterior_predictive", "log_likelihood", "sample_stats"),
        *("observed_data", "constant_data"),
    }
    assert idata.posterior["mu"].dims == ("chain", "draw")
    for group, name in [("posterior", "eta"), ("posterior", "theta"), ("log_likelihood", "y")]:
        assert idata[group][name].dims == ("chain", "draw", "rows"), name
    assert idata.posterior_predictive["y"].dims == ("chain", "draw", "rows")
    assert idata.observed_data["y"].isnull().values.tolist() == [False, True, False]
    assert idata.constant_data["sigma"].values.tolist() == [15.0, 10.0, 16.0]
    assert idata.posterior["rows"].values.tolist() == [0, 1, 2]
    mu, tau, eta = (idata.posterior[name] for name in ("mu", "tau", "eta"))
    assert np.allclose(idata.posterior["theta"], mu + tau * eta)


def test_log_likelihood_is_that_of_the_rows_at_each_draw() -> None:
    posterior = hierarchical()
    data = {name: value.double() for name, value in posterior.batch.items()}
    by_row = dist.Normal(posterior.draws["theta"], data["sigma"]).log_prob(data["y"])
    by_row[..., 1] = 0.0
    assert torch.allclose(pointwise(posterior), by_row)


def test_replicated_data_follow_the_draws_and_the_seed() -> None:
    posterior = hierarchical()
    one, same, other = (
        to_arviz(posterior, seed=s).posterior_predictive["y"].values for s in (1, 1, 2)
    )
    assert (one == same).all() and (one != other).any()
    z = (one - posterior.draws["theta"].numpy()) / np.array([15.0, 10.0, 16.0])
    assert abs(z.mean()) < 4 / math.sqrt(150) and abs(z.std() - 1) < 0.25


class Mean(pgm.Model):
    """y ~ N(mu, 1), mu ~ N(0, 3): conjugate."""

    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu, 1.0))


def test_psis_loo_of_a_conjugate_normal_is_exact() -> None:
    y = 1 + normal(20, seed=5)
    v = 1 / (1 / 9 + len(y))
    draws = {"mu": v * y.sum() + v**0.5 * normal(2, 600, seed=6)}
    posterior = Posterior(draws, nuts(draws).sample_stats, Mean(), as_batch({"y": y}), 0.0, "nuts")
    v_rest = torch.tensor(1 / (1 / 9 + len(y) - 1))
    exact = dist.Normal(v_rest * (y.sum() - y), (v_rest + 1).sqrt()).log_prob(y).sum()
    found = az.loo(to_arviz(posterior, seed=0))
    elpd = found.elpd if NEW else found.elpd_loo
    assert elpd == pytest.approx(float(exact), abs=0.05)


class Ladder(pgm.Model):
    """An enumerated latent that both a continuous latent of the row and its data depend on."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            c = pyro.sample("c", dist.Normal(2 * k, 1.0))
            pyro.sample("x", dist.Normal(c - k, 0.5))

    def guide(self, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("c", dist.Normal(x, 1.0))


def test_enumerated_latents_are_summed_out_of_the_likelihood() -> None:
    x = torch.tensor([0.0, 2.5], dtype=torch.float64)
    posterior = variational(Ladder(), x, draws=400, seed=0)
    c = posterior.draws["c"][..., None]
    k, prior = torch.tensor([0.0, 1.0]), torch.tensor([0.7, 0.3]).log()
    latent = prior + dist.Normal(2 * k, 1.0).log_prob(c)
    joint = latent + dist.Normal(c - k, 0.5).log_prob(x[:, None])
    expected = joint.logsumexp(-1) - latent.logsumexp(-1)
    assert torch.allclose(pointwise(posterior), expected, atol=1e-6)
    assert set(posterior.draws) == {"c"}


def test_a_likelihood_that_needs_a_missing_cell_is_left_out_and_told() -> None:
    class Chain(pgm.Model):
        def model(self, n: int) -> None:
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pgm.rows(n):
                x = pyro.sample("x", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.Normal(a * x, 1.0))

        def guide(self, n: int) -> None:
            pyro.sample("a", dist.Normal(0.0, 1.0))

    data = {"x": torch.tensor([1.0, math.nan]), "y": torch.tensor([1.0, 2.0])}
    posterior = variational(Chain(), data, draws=50, seed=0)
    with pytest.warns(InferenceWarning, match=r"No log_likelihood.*pgm\.impute"):
        idata = to_arviz(posterior, seed=0)
    assert "log_likelihood" not in names_of(idata) and "posterior" in names_of(idata)


@pytest.mark.skipif(NEW, reason="an older ArviZ is installed as a newer one, not the reverse")
def test_arviz_1_gets_a_data_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"posterior": xarray.Dataset({"mu": (("chain", "draw"), np.zeros((1, 2)))})}
    assert isinstance(_gather(groups), az.InferenceData)
    monkeypatch.setattr(az, "__version__", "1.0.0")
    tree = _gather(groups)
    assert isinstance(tree, xarray.DataTree) and tree["posterior"]["mu"].shape == (1, 2)


def test_a_posterior_prints_its_table_its_problems_and_the_models_note() -> None:
    posterior = nuts({"theta": normal(2, 500, 30)}, diverging=torch.ones(2, 500).bool())
    posterior.model.note = "epsilon = 3"
    lines = str(posterior).splitlines()
    assert lines[0] == "Posterior of PPCA (nuts): 2 chains of 500 draws of theta in 0.0 s"
    assert lines[1].split()[:2] == ["mean", "sd"] and lines[2].startswith("theta[0]")
    assert "... and 6 more: posterior.summary() has all of them" in lines
    assert any("1000 of 1000 draws diverged" in line for line in lines)
    assert lines[-1] == "epsilon = 3"


def test_the_largest_weights_alike_are_no_heavy_tail() -> None:
    """Weights of a site with levels take few values; a tail of one value has no shape to fit."""
    level = torch.arange(2000) % 3
    assert float(pareto_k(torch.tensor([0.1, 0.5, 0.9]).log()[level])) == 0.0


def test_the_prior_and_its_data_have_groups_of_their_own() -> None:
    idata = to_arviz(hierarchical(), prior=40, seed=0)
    assert names_of(idata) >= {"prior", "prior_predictive"}
    assert (
        idata.prior["theta"].dims == idata.prior_predictive["y"].dims == ("chain", "draw", "rows")
    )
    assert idata.prior["mu"].sizes["draw"] == 40
    mu, tau, eta = (idata.prior[name] for name in ("mu", "tau", "eta"))
    assert np.allclose(idata.prior["theta"], mu + tau * eta)
    assert float((idata.prior["mu"] / 5).std()) == pytest.approx(1.0, abs=0.4)


class Improper(pgm.Model):
    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.ImproperUniform(torch.distributions.constraints.real, (), ()))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu, 1.0))


def test_what_cannot_be_drawn_from_has_no_prior_group() -> None:
    draws = {"mu": normal(2, 50)}
    posterior = Posterior(
        draws, nuts(draws).sample_stats, Improper(), as_batch({"y": torch.ones(3)}), 0.0, "nuts"
    )
    with pytest.raises(pgm.Unsupported, match="improper"):
        to_arviz(posterior, prior=5, seed=0)


class Two(pgm.Model):
    """Two normals with known means; the labels are summed out."""

    def model(self, n: int) -> None:
        p = pyro.sample("p", dist.Beta(torch.tensor(1.0), torch.tensor(1.0)))
        with pgm.rows(n):
            k = pyro.sample("k", dist.Bernoulli(p), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(2 * k - 1, 1.0))


def test_labels_that_were_summed_out_are_drawn_from_their_posterior() -> None:
    y = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64)
    draws = {"p": torch.full((1, 1500), 0.3, dtype=torch.float64)}
    posterior = Posterior(draws, {}, Two(), as_batch({"y": y}), 0.0, "nuts", {"p": ()})
    idata = to_arviz(posterior, enumerated="draw", seed=0)
    found = idata.posterior["k"].mean(("chain", "draw")).values
    odds = math.log(0.3 / 0.7) + 2 * y  # log N(y; 1, 1) - log N(y; -1, 1) = 2 y
    assert np.allclose(found, odds.sigmoid(), atol=4 * 0.5 / 1500**0.5)
    assert "k" not in to_arviz(posterior, seed=0).posterior
