"""Spline flows: the change of variables, what it integrates to, and what it must not remember."""

import itertools

import pytest
import torch

import pgm
from pgm.families.flow import SplineFlow


@pytest.mark.parametrize("coupling", [False, True])
def test_the_density_is_the_change_of_variables(*, coupling: bool) -> None:
    """log p(x) = log N(f(x)) + log |det J|, with J by automatic differentiation."""
    flow = SplineFlow(
        3, transforms=2, hidden=(8,), coupling=coupling, mean=torch.ones(3), std=3 * torch.ones(3)
    )
    x = 2 * torch.randn(3)
    J = torch.autograd.functional.jacobian(lambda x: flow.transform()(x), x)
    z = pgm.encode(flow, x[None])["z"][0]
    base = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
    got = pgm.log_prob(flow, x[None])
    assert got.kind == "exact"
    assert float(got.value) == pytest.approx(float(base + torch.linalg.slogdet(J)[1]), abs=1e-4)


def test_encoding_is_inverted_by_decoding() -> None:
    flow = SplineFlow(4, transforms=2, hidden=(8,))
    x = torch.randn(20, 4)
    assert torch.allclose(pgm.decode(flow, pgm.encode(flow, x))["x"], x, atol=1e-4)
    whole = SplineFlow(4, transforms=2, hidden=(8,), levels=17)
    x = torch.randint(17, (20, 4)).float()
    assert torch.equal(pgm.decode(whole, pgm.encode(whole, x))["x"], x)


def test_a_density_follows_the_weights() -> None:
    """A cached transform returned 3160 for 4051 after an update (design, section 4.3)."""
    flow, x = SplineFlow(2, transforms=1, hidden=(8,)), torch.randn(5, 2)
    before = pgm.log_prob(flow, x).value
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    after = pgm.log_prob(flow, x).value
    fresh = SplineFlow(2, transforms=1, hidden=(8,))
    fresh.load_state_dict(flow.state_dict())
    assert not torch.allclose(before, after)
    assert torch.equal(after, pgm.log_prob(fresh, x).value)


def test_dequantisation_bounds_the_probability_of_whole_numbers() -> None:
    """The bounds of all states sum to at most one, and to nearly one with many particles."""
    flow = SplineFlow(2, transforms=1, hidden=(8,), levels=3)
    states = torch.tensor(list(itertools.product(range(3), repeat=2))).float()
    few = pgm.log_prob(flow, states, particles=1, seed=0)
    many = pgm.log_prob(flow, states, particles=5000, seed=0)
    assert few.kind == many.kind == "bound"
    y = flow.density().dist.sample((100000,))
    inside = ((y >= 0) & (y < 3)).all(-1).float().mean()
    assert float(many.value.exp().sum()) == pytest.approx(float(inside), abs=0.02)


def test_samples_of_whole_numbers_are_whole_and_in_range() -> None:
    x = pgm.sample(SplineFlow(3, transforms=1, hidden=(8,), levels=17), 200, seed=0)["x"]
    assert torch.equal(x, x.floor())
    assert 0 <= float(x.min()) <= float(x.max()) <= 16


def test_missing_cells_are_refused() -> None:
    x = torch.tensor([[0.5, float("nan")], [0.1, 0.2]])
    with pytest.raises(pgm.Unsupported, match="cannot leave single cells out"):
        pgm.log_prob(SplineFlow(2, transforms=1, hidden=(8,)), x)
    with pytest.raises(pgm.Unsupported, match="cannot leave cells of whole numbers out"):
        pgm.log_prob(SplineFlow(2, transforms=1, hidden=(8,), levels=3), x)


def test_importing_zuko_leaves_the_checks_of_distributions_on() -> None:
    with pytest.raises(ValueError, match="constraint"):
        torch.distributions.Normal(torch.zeros(1), -torch.ones(1))


def test_arguments_that_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="at least one feature"):
        SplineFlow(0)
    with pytest.raises(ValueError, match="not above zero"):
        SplineFlow(2, std=torch.zeros(2))
    with pytest.raises(ValueError, match="coupling=False"):
        SplineFlow(1, coupling=True)
