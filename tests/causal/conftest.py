"""Models whose answers are known, for the tests of causal."""

import pyro
import pytest
import torch
from pyro import distributions as dist

import causal
import pgm


@pytest.fixture
def linear() -> causal.SCM:
    """A = ua; B = .5A + ub; C = A - .8B + uc; D = .7B + .5C + ud; E = C + D + ue, u ~ N(0, 1)."""
    return causal.SCM(
        "A -> {B C}; B -> {C D}; C -> {D E}; D -> E",
        A=causal.LinearGaussian(),
        B=causal.LinearGaussian({"A": 0.5}),
        C=causal.LinearGaussian({"A": 1.0, "B": -0.8}),
        D=causal.LinearGaussian({"B": 0.7, "C": 0.5}),
        E=causal.LinearGaussian({"C": 1.0, "D": 1.0}),
    ).double()


class LinearProgram(pgm.Model):
    """The same model as an ordinary program."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            A = pyro.sample("A", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            B = pyro.sample("B", dist.Normal(0.5 * A, 1.0))
            C = pyro.sample("C", dist.Normal(A - 0.8 * B, 1.0))
            D = pyro.sample("D", dist.Normal(0.7 * B + 0.5 * C, 1.0))
            pyro.sample("E", dist.Normal(C + D, 1.0))


@pytest.fixture
def program() -> pgm.Model:
    return LinearProgram()


class Doubling(pgm.Model):
    """y ~ Normal(2x, 1)."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(2 * x, 1.0))


@pytest.fixture
def doubling() -> pgm.Model:
    return Doubling()


@pytest.fixture
def stones() -> dict[str, torch.Tensor]:
    """Charig et al. (1986): stone size (0 small), treatment (0 open surgery), success (1), 700 men.

    Open surgery: 81 of 87 small and 192 of 263 large stones; percutaneous: 234 of 270 and 55 of 80.
    """
    cells = {(0, 0): (81, 87), (1, 0): (192, 263), (0, 1): (234, 270), (1, 1): (55, 80)}
    rows = [
        (size, treatment, int(i < good))
        for (size, treatment), (good, total) in cells.items()
        for i in range(total)
    ]
    return dict(zip(("size", "treatment", "success"), torch.tensor(rows).T, strict=True))


@pytest.fixture
def stones_scm() -> causal.SCM:
    schema = pgm.Schema(
        {
            "size": pgm.Categorical(("small", "large")),
            "treatment": pgm.Categorical(("open", "percutaneous")),
            "success": pgm.Categorical((0, 1)),
        }
    )
    return causal.SCM("size -> treatment -> success; size -> success", schema=schema)
