"""Posteriors over mechanisms' parameters: known posteriors, and what is asked of every draw."""

from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

import causal
import pgm
import pgm.inference
from causal import SCM, LinearGaussian, LinearSoftmax, effect
from causal.effects import parameters as module
from causal.effects.parameters import parameters
from causal.fitting.estimation import complete

DO: dict[str, Any] = {"do": {"x": 1}, "versus": {"x": 0}}


def trial(n: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = (torch.rand(n, generator=g) < 0.4).long()
    return {"x": x, "y": (torch.rand(n, generator=g) < 0.3 + 0.4 * x).long()}


def test_tables_have_their_conjugate_posterior() -> None:
    """P(y = 1 | x) ~ Beta(counts + 1/2): the mean and the variance of the difference of two."""
    data, level = trial(60), pgm.Categorical((0, 1))
    scm = SCM("x -> y", schema=pgm.Schema({"x": level, "y": level}))
    causal.estimate(scm, data)
    found = effect(
        scm, "y", data=data, level=1, posterior="laplace", refits=300, draws=10, seed=0, **DO
    )
    draws = found.to_xarray()["effect"].values.ravel()
    mean, variance = 0.0, 0.0
    for x, sign in ((0, -1), (1, 1)):
        y = data["y"][data["x"] == x]
        a, b = float(y.sum()) + 0.5, float((1 - y).sum()) + 0.5
        mean += sign * a / (a + b)
        variance += a * b / (a + b) ** 2 / (a + b + 1)
    assert draws.mean() == pytest.approx(mean, abs=4 * (variance / 300) ** 0.5)
    assert draws.std() == pytest.approx(variance**0.5, rel=0.17)
    assert "exact Dirichlet posteriors of tables" in found.source


@pytest.fixture
def dose() -> tuple[SCM, dict[str, Tensor]]:
    """y = 2 x + u with n = 50."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, generator=g)
    data = {"x": x, "y": 2 * x + torch.randn(50, generator=g)}
    scm = SCM("x -> y")
    causal.estimate(scm, data)
    return scm, data


@pytest.mark.parametrize("method", ["laplace", "svi", "nuts"])
@pytest.mark.filterwarnings("ignore::pgm.inference.InferenceWarning")
def test_the_posterior_of_a_slope(
    dose: tuple[SCM, dict[str, Tensor]], method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flat priors: N(b, s^2 / Sxx), nearly, with the slope's standard error of least squares.

    Chains and steps are cut short here, where the posterior is nearly normal.
    """
    for name, few in {"_WARMUP": 40, "_KEPT": 60, "_STEPS": 80}.items():
        monkeypatch.setattr(module, name, few)
    scm, data = dose
    found = effect(
        scm, "y", do={"x": 1.0}, versus={"x": 0.0}, data=data, posterior=method, refits=60,
        draws=10, seed=0,
    )  # fmt: skip
    residual = data["y"] - scm.mechanism("y").dist(data).mean.detach()
    Sxx = float((data["x"] - data["x"].mean()).square().sum())
    error = (float(residual.square().mean()) / Sxx) ** 0.5
    draws = torch.as_tensor(found.to_xarray()["effect"].values.ravel())
    assert float(draws.mean()) == pytest.approx(float(found.difference), abs=0.6 * error)
    assert float(draws.std()) == pytest.approx(error, rel=0.35)
    assert "60 draws of the mechanisms' parameters given 50 rows" in found.source


def test_laplace_of_a_logistic_mechanism_has_the_inverse_of_fishers_information() -> None:
    """The difference of the two levels' slopes, whose standard error is textbook."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(400, generator=g)
    y = (torch.rand(400, generator=g) < torch.sigmoid(0.5 + z)).long()
    scm = SCM("z -> y", z=LinearGaussian, y=LinearSoftmax({"z": [0.0, 0.0]}, intercept=[0.0, 0.0]))
    data = {"z": z, "y": y}
    causal.estimate(scm, data)
    drawn = parameters(scm, complete(scm, data), method="laplace", draws=2000, seed=0)
    weight = drawn.thetas["y"][:, :2]
    X = torch.stack([torch.ones(400), z], 1).double()
    p = scm.mechanism("y").dist(data).probs[:, 1].detach().double()
    information = X.T @ (X * (p * (1 - p))[:, None])
    error = float(torch.linalg.inv(information)[1, 1]) ** 0.5
    assert float((weight[:, 1] - weight[:, 0]).std()) == pytest.approx(error, rel=0.06)


def test_parameters_are_not_averaged_before_the_question() -> None:
    """E[(b x)^2] over q(b) = N(0, 1) is x^2, and that of the mean b is 0: a policy of squares."""

    class Bayes(pgm.Model):
        def model(self, n: int) -> None:
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            with pgm.rows(n):
                x = pyro.sample("x", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.Normal((b * x) ** 2, 0.01))

        def guide(self, n: int) -> None:
            pyro.sample("b", dist.Normal(0.0, 1.0))

    found = effect(Bayes(), "y", do={"x": 1.0}, versus={"x": 0.0}, refits=80, draws=10, seed=0)
    assert float(found.difference) == pytest.approx(1.0, abs=0.5)
    b = torch.linspace(-2, 2, 41).reshape(1, 41)
    posterior = pgm.inference.Posterior(
        draws={"b": b}, sample_stats={}, model=Bayes(), batch=pgm.batch.Batch(), seconds=0.0,
        method="nuts",
    )  # fmt: skip
    found = effect(
        Bayes(), "y", do={"x": 1.0}, versus={"x": 0.0}, posterior=posterior, refits=41, draws=50,
        seed=0,
    )  # fmt: skip
    assert float(found.difference) == pytest.approx(float(b.square().mean()), abs=0.01)
    assert "41 draws of b by nuts" in found.source


def test_units_are_followed_under_every_draw_of_the_parameters() -> None:
    """b ~ N(2, .1^2): the effect on a unit is b, whatever is known of the unit."""

    class Bayes(pgm.Model):
        def model(self, n: int) -> None:
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            with pgm.rows(n):
                x = pyro.sample("x", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.Normal(b * x, 1.0))

        def guide(self, n: int) -> None:
            pyro.sample("b", dist.Normal(2.0, 0.1))

    unit = {"x": torch.tensor([1.0]), "y": torch.tensor([2.5])}
    asked: dict[str, Any] = {"do": {"x": 1.0}, "versus": {"x": 0.0}, "refits": 40, "seed": 0}
    found = effect(Bayes(), "y", among=unit, draws=100, **asked)
    assert float(found.difference) == pytest.approx(2.0, abs=0.05)
    assert float(found.upper - found.lower) == pytest.approx(2 * 1.96 * 0.1, rel=0.4)
    assert "40 draws of b from the guide" in found.source


def test_models_as_draws(dose: tuple[SCM, dict[str, Tensor]]) -> None:
    models = [
        SCM("x -> y", x=LinearGaussian(), y=LinearGaussian({"x": b})) for b in (1.0, 2.0, 3.0)
    ]
    found = effect(models[0], "y", do={"x": 1.0}, versus={"x": 0.0}, posterior=models, draws=10)
    assert float(found.difference) == pytest.approx(2.0)
    assert found.source == "3 models"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"posterior": "laplace"}, "given the rows data="),
        ({"posterior": []}, "two or more of them"),
        ({"posterior": [], "data": {}}, "leave data= out"),
    ],
)
def test_posteriors_that_are_none(
    dose: tuple[SCM, dict[str, Tensor]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        effect(dose[0], "y", do={"x": 1.0}, **options)
