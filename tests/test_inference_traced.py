"""The density of many chains against the program, run chain by chain; and what it refuses."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pgm
from pgm.data import load
from pgm.families import example
from pgm.families.hierarchical import Hierarchical
from pgm.inference.traced import Density, log_density
from pgm.tracing import Backend, compiles
from pgm.verb import Unsupported

needs_compiler = pytest.mark.skipif(not compiles(), reason="inductor finds no C++ compiler")


class LabelledMixture(pgm.Model):
    """Two components: ordered means, a Dirichlet weight, labels summed out."""

    def model(self, n: int) -> None:
        zero = torch.zeros(())
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
        base = dist.Normal(torch.zeros(2), 2.0).to_event(1)
        ordered = dist.transforms.OrderedTransform()
        means = pyro.sample("means", dist.TransformedDistribution(base, [ordered]))
        scale = pyro.sample("scale", dist.HalfNormal(zero + 2.0))
        with pgm.rows(n):
            k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(means[k], scale))


class Correlated(pgm.Model):
    """Rows with a latent each, whose two sides share an LKJ-distributed correlation."""

    def model(self, n: int) -> None:
        factor = pyro.sample("factor", dist.LKJCholesky(2, torch.ones(())))
        share = pyro.sample("share", dist.Beta(torch.ones(()) * 2, torch.ones(()) * 3))
        with pgm.rows(n):
            pair = dist.MultivariateNormal(torch.zeros(2), scale_tril=factor)
            z = pyro.sample("z", pair)
            pyro.sample("y", dist.Normal(z.sum(-1) * share, 1.0))


class Branching(pgm.Model):
    """A program that looks at the value of a latent."""

    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        scale = 1.0 if mu > 0 else 2.0
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu, scale))


class Counting(pgm.Model):
    """A program that remembers how often it ran, and lets it count."""

    calls = 0

    def model(self, n: int) -> None:
        Counting.calls += 1
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), float(Counting.calls > 7) + 1.0))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu, 1.0))


def numbers(n: int = 6) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(0))


def with_holes() -> Tensor:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    x[1, 0] = torch.nan
    return x


class Noisy(pgm.Model):
    """Two columns about a mean: cells may be missing."""

    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu, 1.0).to_event(1))


CASES: dict[str, Callable[[], tuple[pgm.Model, Any]]] = {
    "eight schools": lambda: (Hierarchical(), dict(load("eight_schools").tensors)),
    "regression": lambda: (example("regression").model, example("regression").data),
    "labels summed out": lambda: (LabelledMixture(), {"y": numbers()}),
    "a latent a row": lambda: (Correlated(), {"y": numbers()}),
    "missing cells": lambda: (Noisy(), {"y": with_holes()}),
}


def points(density: Density, chains: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(chains, density.d, dtype=torch.float64, generator=generator)


def assert_like_the_program(density: Density, model: pgm.Model, data: Any) -> None:
    program = log_density(model, data, backend="eager")
    u = points(density)
    density(u)  # what it is recorded at
    for fresh in (u, u * 0.3 - 0.2):
        found, expected = density(fresh), program(fresh)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert density.why is None


@pytest.mark.parametrize("name", CASES)
def test_all_chains_at_once_are_each_chain_by_itself(name: str) -> None:
    model, data = CASES[name]()
    backend: Backend = "ts" if name == "regression" else "graph"
    density = log_density(model, data, backend=backend)
    assert_like_the_program(density, model, data)
    assert density.backend == backend


@needs_compiler
def test_compiled() -> None:
    model, data = Noisy(), {"y": with_holes()}
    density = log_density(model, data)
    assert_like_the_program(density, model, data)
    assert density.backend == "inductor"


def test_the_gradient_is_that_of_finite_differences() -> None:
    density = log_density(LabelledMixture(), {"y": numbers()}, backend="graph")
    u, step = points(density, 1), 1e-6
    _, gradient = density(u)
    moved = torch.cat([u + step * torch.eye(density.d), u - step * torch.eye(density.d)])
    up, down = density(moved)[0].split(density.d)
    torch.testing.assert_close((up - down) / (2 * step), gradient[0], rtol=1e-6, atol=1e-6)


def test_another_number_of_chains_is_recorded_anew() -> None:
    density = log_density(Noisy(), {"y": with_holes()}, backend="graph")
    u = points(density, 7)
    torch.testing.assert_close(density(u)[0][:2], density(u[:2])[0], rtol=1e-12, atol=1e-12)


def test_a_program_that_looks_at_its_draws_is_run_and_says_why() -> None:
    density = log_density(Branching(), {"y": numbers()}, backend="graph")
    u = torch.tensor([[0.5], [-0.5]], dtype=torch.float64)
    prior = dist.Normal(0.0, 1.0).log_prob(u[:, 0])
    y, scale = numbers().double(), torch.tensor([[1.0], [2.0]])
    expected = prior + dist.Normal(u, scale).log_prob(y).sum(-1)
    torch.testing.assert_close(density(u)[0], expected, check_dtype=False)
    assert density.backend == "eager"
    assert "looks at the values" in str(density)


def test_a_program_that_changes_between_runs_is_not_replayed() -> None:
    density = log_density(Counting(), {"y": numbers()}, backend="graph")
    Counting.calls = 6
    density(points(density))
    assert density.backend == "eager"
    assert "not the same each time" in str(density.why)


def test_the_model_and_the_defaults_are_left_alone() -> None:
    model, data = CASES["regression"]()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    density = log_density(model, data, backend="graph")
    density(points(density))
    assert torch.get_default_dtype() == torch.float32
    assert all(bool((v == before[k]).all()) for k, v in model.state_dict().items())
    assert model.location.grad is None


def test_points_that_cannot_be_meant() -> None:
    density = log_density(Noisy(), {"y": with_holes()}, backend="graph")
    with pytest.raises(ValueError, match="one row of 2 coordinates"):
        density(torch.zeros(3, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"torch\.float64"):
        density(torch.zeros(3, 2))


def test_a_density_that_is_itself_random_is_refused() -> None:
    class Shaky(pgm.Model):
        def model(self, n: int) -> None:
            mu = pyro.sample("mu", dist.Normal(torch.randn(()), 1.0))
            with pgm.rows(n):
                pyro.sample("y", dist.Normal(mu, 1.0))

    with pytest.raises(Unsupported, match="no chain can be right"):
        log_density(Shaky(), {"y": numbers()})
