"""Known structural equations: their inverses, densities, interventions; the published ones."""

import math

import networkx as nx
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal
from torch.func import jacrev, vmap

from causal import Equations, parse
from causal.flows.equations import additive
from causal.flows.synthetic import NAMES, published

# The graphs of Javaloy, Sanchez-Martin & Valera (2023), app. D.
GRAPHS = {
    "chain": "x1 -> x2 -> x3",
    "chain_nonlinear": "x1 -> x2 -> x3",
    "chain_of_4": "x1 -> x2 -> x3 -> x4",
    "chain_of_5": "x1 -> x2 -> x3 -> x4 -> x5",
    "collider": "x1 -> x3; x2 -> x3",
    "fork": "x1 -> x3; x2 -> x3; x3 -> x4",
    "fork_nonlinear": "x1 -> x3; x2 -> x3; x3 -> x4",
    "large_backdoor": "x1 -> {x2 x3}; x2 -> x4 -> x6 -> x8 -> x9; x3 -> x5 -> x7 -> x9",
    "simpson": "x1 -> {x2 x3}; x2 -> x3 -> x4",
    "simpson_symmetric": "x1 -> {x2 x3 x4}; x2 -> x3",
    "triangle": "x1 -> {x2 x3}; x2 -> x3",
    "triangle_nonlinear": "x1 -> {x2 x3}; x2 -> x3",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_graphs_are_the_published_ones(name: str) -> None:
    assert nx.utils.graphs_equal(published(name).graph, parse(GRAPHS[name]))


@pytest.mark.parametrize("name", NAMES)
def test_abduction_inverts_the_equations(name: str) -> None:
    known = published(name)
    u = known.noise(200, seed=0)
    x = known.solve(u)
    back = known.abduct(x)
    for node in known.equations:
        torch.testing.assert_close(back[node], u[node], atol=1e-6, rtol=0)
        again = known.counterfactual(x, do={node: x[node]})
        for other in known.equations:  # what was set to what it was changes nothing
            torch.testing.assert_close(again[other], x[other])


@pytest.mark.parametrize("name", NAMES)
def test_the_density_is_that_of_the_whole_jacobian(name: str) -> None:
    known = published(name)
    x = known.sample(20, seed=0)
    rows = torch.stack(list(x.values()), -1)

    def abduct(row: torch.Tensor) -> torch.Tensor:
        u = known.abduct(dict(zip(known.equations, row[:, None], strict=True)))
        return torch.cat(list(u.values()))

    jacobian = vmap(jacrev(abduct))(rows)
    u = torch.stack(list(known.abduct(x).values()), -1)
    expected = known.law.log_prob(u).sum(-1) + jacobian.det().abs().log()
    torch.testing.assert_close(known.log_prob(x), expected)


def test_the_linear_triangle_is_the_gaussian_of_its_coefficients() -> None:
    """x1 = u1 + 1, x2 = 10 x1 - u2, x3 = x1 + x2 / 2 + u3: x = A u + m."""
    known = published("triangle")
    A = torch.tensor([[1.0, 0, 0], [10, -1, 0], [6, -0.5, 1]], dtype=torch.float64)
    x = known.sample(50, seed=0)
    law = MultivariateNormal(torch.tensor([1.0, 10, 6], dtype=torch.float64), A @ A.T)
    torch.testing.assert_close(known.log_prob(x), law.log_prob(torch.stack(list(x.values()), -1)))


def test_one_row_of_the_nonlinear_triangle_by_hand() -> None:
    known = published("triangle_nonlinear")
    u = dict(zip(known.equations, torch.tensor([[1.0], [-1.5], [0.25]]), strict=True))
    x = known.solve(u)
    assert [x[node].item() for node in ("x1", "x2")] == [1.0, 0.5]
    assert x["x3"].item() == pytest.approx(20 / (1 + math.exp(0.75)) + 0.25)
    other = known.counterfactual(x, do={"x1": 0.0})
    assert [other[node].item() for node in ("x1", "x2")] == [0.0, -1.5]
    assert other["x3"].item() == pytest.approx(20 / (1 + math.exp(-2.25)) + 0.25)


def test_the_backdoor_has_the_laplace_noise_of_its_last_node() -> None:
    known = published("large_backdoor")
    x = known.sample(20_000, do={"x7": -1.0, "x8": 0.0}, seed=0)["x9"]
    centre = 2 - math.log1p(math.exp(1 - 1.3 / 3))
    assert x.median().item() == pytest.approx(centre, abs=0.02)
    assert (x - centre).abs().mean().item() == pytest.approx(0.6, abs=0.02)  # the Laplace's scale


def test_interventions_reach_descendants_alone() -> None:
    known = published("fork")
    u = known.noise(100, seed=0)
    x, y = known.solve(u), known.solve(u, do={"x3": lambda heard: heard["x1"] + heard["x2"]})
    for node in ("x1", "x2"):
        assert torch.equal(x[node], y[node])
    torch.testing.assert_close(y["x3"], x["x1"] + x["x2"])
    torch.testing.assert_close(y["x4"] - y["x3"], x["x4"] - x["x3"])


def test_the_same_seed_gives_the_same_rows_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    first, second = (published("simpson").sample(5, seed=3) for _ in range(2))
    assert all(torch.equal(first[node], second[node]) for node in first)
    assert torch.equal(before, torch.get_rng_state())


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean 'triangle'"):
        published("triangel")
    with pytest.raises(ValueError, match="x9"):
        published("chain").sample(3, do={"x9": 0.0})
    with pytest.raises(ValueError, match="cycle"):
        _ = Equations(
            "circle", {"a": additive(lambda b: b), "b": additive(lambda a: a)}, Normal(0.0, 1.0)
        ).graph
