"""Ordinary Pyro functions are models: they train, answer and are refused like any other."""

from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

import pgm
from pgm.verb import prepare

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(200, generator=GENERATOR)
Y = 2 * X + 0.5 + 0.3 * torch.randn(200, generator=GENERATOR)
SEEN = {"y": "obs"}


def line(x: Tensor, y: Tensor | None = None) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 10.0))
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    s = pyro.param("s", torch.tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(w * x + b, s), obs=y)


@pytest.mark.parametrize("guide", [AutoNormal, AutoMultivariateNormal])
def test_regression_with_an_autoguide_finds_least_squares(guide: Any) -> None:
    """Least squares is the limit of the posterior mean under a flat prior."""
    model = pgm.from_pyro(line, guide, rows="data", observed=SEEN)
    batch = {"x": X, "obs": Y}
    pgm.fit(model, batch, steps=400, batch_size=200, learning_rate=0.1, seed=0)
    A = torch.stack([X, torch.ones_like(X)], 1)
    w, b = torch.linalg.lstsq(A, Y[:, None]).solution.flatten()
    with torch.no_grad():
        weight = pgm.log_weight(model, prepare(model, batch), particles=50)
    assert float(weight.values["w"].mean()) == pytest.approx(float(w), abs=0.1)
    assert float(weight.values["b"].mean()) == pytest.approx(float(b), abs=0.1)
    drawn = pgm.sample(model, 200, context={"x": X}, seed=0)["obs"]
    assert float((drawn - Y).std()) == pytest.approx(0.3 * 2**0.5, rel=0.2)


def test_loose_parameters_are_taken_in_and_do_not_touch_the_global_store() -> None:
    model = pgm.from_pyro(line, AutoNormal, rows="data", observed=SEEN)
    pgm.fit(model, {"x": X, "obs": Y}, steps=2, seed=0)
    assert "learned.values.s" in dict(model.named_parameters())
    assert not list(pyro.get_param_store())


def vae(net: nn.Module, encoder: nn.Module) -> pgm.Model:
    def model(n: int, x: Tensor | None = None) -> None:
        with pyro.plate("images", n):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    def guide(n: int, x: Tensor | None = None) -> None:
        assert x is not None
        with pyro.plate("images", n):
            pyro.sample("z", dist.Normal(encoder(x), 0.5).to_event(1))

    return pgm.from_pyro(model, guide, rows="images", observed={"x": "x"}, modules=[net, encoder])


def test_a_function_with_networks_gets_every_verb() -> None:
    model = vae(nn.Linear(2, 3), nn.Linear(3, 2))
    x = torch.randn(50, 3)
    run = pgm.fit(model, x, steps=30, learning_rate=0.01, seed=0)
    assert run.steps[-1].loss < run.steps[0].loss
    assert pgm.sample(model, 4, seed=0)["x"].shape == (4, 3)
    assert pgm.encode(model, x)["z"].shape == (50, 2)
    assert pgm.log_prob(model, x[:5], seed=0).kind == "bound"
    x[0, 1] = torch.nan
    assert pgm.impute(model, x[:3], seed=0).draws["x"].isfinite().all()


def test_the_plate_must_be_the_rows() -> None:
    model = pgm.from_pyro(line, AutoNormal, rows="other", observed=SEEN)
    with pytest.raises(pgm.BrokenModel, match="No site stands inside the plate"):
        pgm.fit(model, {"x": X, "obs": Y}, steps=1, seed=0)


def test_a_subsampling_plate_is_refused() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x), subsample_size=2) as index:
            pyro.sample("obs", dist.Normal(x[index], 1.0), obs=None if y is None else y[index])

    wrapped = pgm.from_pyro(model, rows="data", observed=SEEN)
    with pytest.raises(pgm.BrokenModel, match="without subsampling"):
        pgm.fit(wrapped, {"x": X, "obs": Y}, steps=1, seed=0)


def test_arguments_that_cannot_be_meant() -> None:
    def greedy(y: Tensor) -> None: ...

    with pytest.raises(ValueError, match="names the parameter 'z'"):
        pgm.from_pyro(line, rows="data", observed={"z": "obs"})
    with pytest.raises(ValueError, match="default None"):
        pgm.from_pyro(greedy, rows="data", observed=SEEN)
