"""Estimates of the mechanisms beyond the linear ones: against libraries and closed forms."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor

import causal
from causal import Kind

A = {"a": Kind()}


def rows(n: int = 300) -> tuple[Tensor, Tensor]:
    """A parent far from zero and of another scale than one, and weights."""
    return 5 + 3 * torch.randn(n), torch.rand(n) + 0.5


def test_poisson_agrees_with_scikit_learn() -> None:
    a, w = rows()
    x = torch.poisson((0.2 * a - 0.5).exp())
    ours = causal.Poisson.start(A, Kind())
    ours.estimate(x, {"a": a}, w)
    theirs = PoissonRegressor(alpha=0, tol=1e-8, max_iter=1000).fit(a[:, None], x, w)
    assert ours.predictor.weight.item() == pytest.approx(theirs.coef_[0], abs=1e-3)
    assert ours.predictor.intercept.item() == pytest.approx(theirs.intercept_, abs=5e-3)


def test_negative_binomial_finds_the_mean_and_the_size() -> None:
    """Of an intercept alone the mean is the sample's, whatever the size (Lawless 1987, eq. 2.4)."""
    rate = torch.distributions.Gamma(2.0, 2.0).sample((4000,)) * 3
    x, w = torch.poisson(rate), torch.ones(4000)
    ours = causal.NegativeBinomial.start({}, Kind())
    ours.estimate(x, {}, w)
    law = ours.dist({})
    assert law.mean.item() == pytest.approx(x.mean().item(), rel=1e-3)
    assert law.total_count.item() == pytest.approx(2.0, rel=0.15)


def test_two_ordered_levels_are_logistic_regression() -> None:
    a, w = rows()
    x = (torch.rand(300) < torch.sigmoid(a - 5)).long()
    ours = causal.Ordinal.start(A, Kind(levels=2))
    ours.estimate(x, {"a": a}, w)
    theirs = LogisticRegression(C=1e6, tol=1e-8, max_iter=1000).fit(a[:, None], x, w)
    assert ours.dist({"a": a}).probs[:, 1].detach() == pytest.approx(
        theirs.predict_proba(a[:, None])[:, 1], abs=2e-3
    )


@pytest.mark.parametrize("link", ["logit", "probit"])
def test_ordinal_finds_its_cut_points(link: str) -> None:
    n = 4000
    a, w = rows(n)
    u = torch.randn(n) if link == "probit" else torch.logit(torch.rand(n))
    y = 0.5 * a + u
    x = (y[:, None] > torch.tensor([1.5, 2.5, 4.0])).sum(1)
    ours = causal.Ordinal.start(A, Kind(levels=4), link=link)
    ours.estimate(x, {"a": a}, w)
    assert ours.cutpoints.tolist() == pytest.approx([1.5, 2.5, 4.0], abs=0.25)
    assert ours.predictor.weight.item() == pytest.approx(0.5, abs=0.05)
    assert ours.predictor.intercept.item() == 0.0


def test_kernel_root_is_scipys_density() -> None:
    a, _ = rows(80)
    ours = causal.KernelRoot.start({}, Kind())
    ours.estimate(a, {}, torch.ones(80))
    theirs = stats.gaussian_kde(a, bw_method=ours.bandwidth.item() / a.std().item())
    points = torch.linspace(-5, 15, 20)
    density = ours.dist({}).expand((20,)).log_prob(points).exp()
    assert density == pytest.approx(theirs(points), rel=1e-3)
    iqr = np.subtract(*np.percentile(a, [75, 25]))
    silverman = 0.9 * min(a.std(correction=0).item(), iqr / 1.34) * 80**-0.2
    assert ours.bandwidth.item() == pytest.approx(silverman, rel=0.05)


def test_mixture_root_does_as_well_as_scikit_learn() -> None:
    a = torch.cat([torch.randn(150) - 3, 0.5 * torch.randn(100) + 2, torch.randn(50) + 8])
    ours = causal.MixtureRoot.start({}, Kind())
    ours.estimate(a, {}, torch.ones(300))
    theirs = GaussianMixture(3, random_state=0).fit(a[:, None])
    found = ours.dist({}).expand((300,)).log_prob(a).mean().item()
    assert found > theirs.score(a[:, None]) - 0.01


def test_a_vector_is_as_many_regressions_and_the_covariance_of_their_residuals() -> None:
    a, w = rows()
    L = torch.tensor([[1.0, 0.0], [0.8, 0.3]])
    x = torch.stack([a, -a], 1) + torch.randn(300, 2) @ L.T
    ours = causal.LinearVector.start(A, Kind(size=2))
    ours.estimate(x, {"a": a}, w)
    theirs = LinearRegression().fit(a[:, None], x, w)
    residual = torch.as_tensor(x.numpy() - theirs.predict(a[:, None]))
    covariance = residual.T @ (w[:, None] * residual) / w.sum()
    assert ours.mean({"a": a}).detach() == pytest.approx(theirs.predict(a[:, None]), abs=1e-3)
    found = (ours.cholesky @ ours.cholesky.T).detach()
    assert found == pytest.approx(covariance, abs=1e-3)


def test_a_network_with_noise_of_its_own_scale_finds_both() -> None:
    a, _ = rows(600)
    x = 20 + 4 * torch.sin(a) + (0.2 + 0.3 * (a > 5)) * torch.randn(600)
    ours = causal.LocationScale.start(A, Kind())
    ours.estimate(x, {"a": a}, torch.ones(600))
    law = ours.dist({"a": torch.tensor([2.0, 8.0])})
    assert law.mean.tolist() == pytest.approx([20 + 4 * np.sin(2), 20 + 4 * np.sin(8)], abs=0.5)
    assert law.stddev[1] > 1.4 * law.stddev[0]


def test_any_regressor_with_and_without_weights() -> None:
    a, w = rows(200)
    x = a.sin() + 0.2 * torch.randn(200)
    for estimator in (RandomForestRegressor(20, random_state=0), KNeighborsRegressor(10)):
        y = causal.Regressor.start(A, Kind(), estimator=estimator)
        y.estimate(x, {"a": a}, w)
        assert 0.05 < y.scale.item() < 0.3
    forest = causal.Regressor.start(A, Kind(), estimator=RandomForestRegressor(5, random_state=0))
    forest.estimate(x, {"a": a}, w)
    again = RandomForestRegressor(5, random_state=0).fit(a[:, None], x, w)
    assert forest.dist({"a": a}).mean == pytest.approx(again.predict(a[:, None]), abs=1e-5)


def test_vectors_are_parents_and_children_in_one_model() -> None:
    scm = causal.SCM(
        "a -> v -> y",
        a=causal.LinearGaussian(),
        v=causal.LinearVector({"a": [1.0, -1.0]}, intercept=[0.0, 2.0]),
        y=causal.LinearGaussian({"v": [0.5, 2.0]}, vectors=["v"]),
    )
    answer = causal.effect(scm, "y", do={"a": 1.0}, versus={"a": 0.0})
    assert answer.difference.item() == pytest.approx(0.5 - 2.0)
    held = causal.effect(scm, "y", do={"v": torch.tensor([1.0, 1.0])})
    assert held.treated.item() == pytest.approx(2.5)
    unit = {"a": torch.zeros(1), "v": torch.tensor([[1.0, 2.0]]), "y": torch.tensor([5.0])}
    found = causal.counterfactual(scm, unit, do={"a": torch.tensor(2.0)}).draws
    assert found["v"].flatten().tolist() == pytest.approx([3.0, 0.0])
    assert found["y"].item() == pytest.approx(5.0 + 0.5 * 2 - 2.0 * 2)
