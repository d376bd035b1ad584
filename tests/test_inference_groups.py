"""Axes of ArviZ's groups: the names of plates and of a frame's columns, and those that you give."""

from typing import Any

import numpy as np
import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pgm
from pgm.batch import as_batch
from pgm.families.factor import PPCA
from pgm.inference import Posterior, variational
from pgm.inference.diagnostics import to_arviz
from pgm.inference.groups import Groups
from pgm.inference.runs import axes, latents, run_joint
from pgm.sites import Run


def normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Grouped(pgm.Model):
    """Means of groups, in a plate of their own, and weights of named columns."""

    def model(self, n: int, x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("groups", 3):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
            pyro.deterministic("twice", 2 * mu)
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(x @ w + mu.sum(), 1.0))


def grouped() -> Posterior:
    draws = {"w": normal(2, 5, 2), "mu": normal(2, 5, 3)}
    batch = as_batch({"x": torch.zeros(4, 2), "y": torch.zeros(4)})
    dims = {
        name: axes(site)
        for name, site in latents(run_joint(Grouped(), batch, Run(observed=batch))).items()
    }
    return Posterior(draws, {}, Grouped(), batch, 0.0, "nuts", dims)


def test_plates_name_their_axes_and_you_may_name_the_others() -> None:
    found = to_arviz(grouped(), seed=0).posterior
    assert found["mu"].dims == ("chain", "draw", "groups")
    assert found["w"].dims == ("chain", "draw", "w_dim_0")
    named = to_arviz(
        grouped(),
        dims={"w": ["feature"]},
        coords={"feature": ["age", "dose"], "groups": ["a", "b", "c"]},
        seed=0,
    ).posterior
    assert named["w"].sel(feature="dose").shape == (2, 5)
    assert np.array_equal(named["w"].sel(feature="dose"), grouped().draws["w"][..., 1])
    assert named["mu"].coords["groups"].values.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": {"w": ["a", "b"]}}, "2 names for 'w', which has 1"),
        ({"dims": {"v": ["a"]}}, "Nothing is called 'v'"),
        ({"coords": {"groups": ["a"]}}, "1 labels for 'groups', which has 3"),
        ({"coords": {"group": ["a", "b", "c"]}}, "Nothing is called 'group'"),
    ],
)
def test_names_that_do_not_fit_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_arviz(grouped(), seed=0, **options)


def test_the_columns_of_a_frame_are_named() -> None:
    frame = pandas.DataFrame({"age": [0.1, 0.2, 0.3], "dose": [1.0, -1.0, 0.5]})
    model = PPCA(2, 1)
    model.schema = pgm.Schema.infer(frame, site="x")
    found = to_arviz(variational(model, frame, draws=4, seed=0), seed=0)
    observed = found.observed_data["x"]
    assert observed.dims == ("rows", "columns")
    assert observed.coords["columns"].values.tolist() == ["age", "dose"]
    assert np.allclose(observed.sel(columns="dose"), [1.0, -1.0, 0.5])
    assert found.posterior_predictive["x"].dims == ("chain", "draw", "rows", "columns")


def test_the_levels_of_a_column_stand_beside_its_codes() -> None:
    frame = pandas.DataFrame({"drug": ["none", "low", "none"], "pain": [0.1, 0.3, 0.2]})
    schema = pgm.Schema.infer(frame, site=None)
    batch = as_batch(schema.encode(frame))
    codes = torch.zeros(1, 2, 3, dtype=torch.long)
    posterior = Posterior({"drug": codes}, {}, PPCA(2, 1), batch, 0.0, "nuts", {"drug": ("rows",)})
    posterior.model.schema = schema
    made = Groups(posterior, {}, {}).draws(posterior.draws, posterior.dims)
    assert made["drug"].attrs["levels"] == [str(v) for v in schema.columns["drug"].levels]
