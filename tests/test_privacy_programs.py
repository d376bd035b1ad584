"""Ordinary Pyro programs under a private fit: each autoguide, and networks called by `pyro.module`.

The check before each fit holds gradients by row against plain autograd on single rows.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import autoguide
from torch import Tensor, nn

import pgm
import privacy

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, -1.0])
GOOD: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-3, "steps": 2, "rate": 0.5, "seed": 0}


def regression(x: Tensor, y: Tensor | None = None) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("obs", dist.Normal(x @ w, scale), obs=y)


@pytest.mark.parametrize(
    "name",
    ["Normal", "DiagonalNormal", "MultivariateNormal", "LowRankMultivariateNormal", "IAFNormal",
     "Delta"],
)  # fmt: skip
def test_every_autoguide(name: str) -> None:
    guide = getattr(autoguide, f"Auto{name}")
    model = pgm.from_pyro(regression, guide, rows="data", observed={"y": "obs"})
    run = privacy.fit(model, {"x": X, "obs": Y}, **GOOD)
    assert run.report.route == "vmap"
    assert "exact, after the noise" in run.report.shared
    assert all(p.isfinite().all() for p in model.parameters())
    assert not any("$$$" in name or "learned" in name for name, _ in model.named_parameters())


def test_a_network_that_is_called_by_its_name() -> None:
    net = nn.Linear(2, 1)

    def program(x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("net", net)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("obs", dist.Normal(net(x).squeeze(-1), 1.0), obs=y)

    shape: Any = {"rows": "data", "observed": {"y": "obs"}}
    model = pgm.from_pyro(program, modules=[net], **shape)
    for route in ("ghost", "vmap", "loop"):
        before = net.weight.clone()
        privacy.fit(model, {"x": X, "obs": Y}, route=route, **GOOD)
        assert len(list(model.parameters())) == 2 and not torch.equal(net.weight, before)


@pytest.mark.parametrize("name", ["split", "joint"])
def test_what_becomes_of_public_terms_may_be_the_objectives_name(name: Any) -> None:
    said = []
    for options in ({"objective": name}, {"terms": name}):
        model = pgm.from_pyro(regression, autoguide.AutoDelta, rows="data", observed={"y": "obs"})
        run = privacy.fit(model, {"x": X, "obs": Y}, **GOOD, **options)
        said.append((run.report.shared, [p.tolist() for p in model.parameters()]))
    assert said[0] == said[1] and ("exact" in said[0][0]) is (name == "split")
    with pytest.raises(ValueError, match=r"'split' .* or 'joint'"):
        privacy.fit(model, {"x": X, "obs": Y}, objective="elbo", **GOOD)


def test_a_plate_that_makes_minibatches_of_its_own() -> None:
    def program(x: Tensor, y: Tensor | None = None) -> None:
        slope = pyro.param("slope", torch.tensor(0.0))
        with pyro.plate("data", 60, subsample_size=20) as i:
            pyro.sample("obs", dist.Normal(slope * x[i], 1.0), obs=None if y is None else y[i])

    model = pgm.from_pyro(program, rows="data", observed={"y": "obs"})
    with pytest.raises(ValueError, match=r"20 of 60 rows.* without subsampling"):
        privacy.fit(model, {"x": Y, "obs": Y}, **GOOD)
