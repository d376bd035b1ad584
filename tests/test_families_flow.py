"""Spline flows: the change of variables, what it integrates to, and what it must not remember."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pgm
from pgm.batch import Batch
from pgm.families.flow import Floor, SplineFlow

NAN = float("nan")


def disturbed(flow: SplineFlow) -> SplineFlow:
    """The flow away from its start, where it is all but the identity."""
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return flow


@pytest.mark.parametrize("coupling", [False, True])
def test_the_density_is_the_change_of_variables(*, coupling: bool) -> None:
    """log p(x) = log N(f(x)) + log |det J|, with J by automatic differentiation."""
    mean, std = torch.ones(3), torch.tensor([1.0, 3.0, 0.5])
    flow = disturbed(
        SplineFlow(3, transforms=2, hidden=(8,), coupling=coupling, mean=mean, std=std)
    )
    x = 2 * torch.randn(3)
    J = torch.autograd.functional.jacobian(flow.density().transform, x)
    z = pgm.encode(flow, x[None])["z"][0]
    base = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
    got = pgm.log_prob(flow, x[None])
    assert got.kind == "exact"
    assert float(got.value) == pytest.approx(float(base + torch.linalg.slogdet(J)[1]), abs=1e-4)


def test_far_from_the_data_the_density_is_the_standardised_normal() -> None:
    """Splines are the identity outside [-5, 5]: there only mean and std are at work."""
    flow = disturbed(
        SplineFlow(1, hidden=(8,), mean=torch.tensor([100.0]), std=torch.tensor([10.0]))
    )
    got = pgm.log_prob(flow, torch.tensor([[160.0]])).value
    assert float(got) == pytest.approx(-18.0 - 0.5 * math.log(2 * math.pi) - math.log(10), abs=1e-4)


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("coupling", [False, True])
def test_encoding_is_inverted_by_decoding(context: int, *, coupling: bool) -> None:
    flow = disturbed(SplineFlow(4, transforms=2, hidden=(8,), context=context, coupling=coupling))
    c = {"c": torch.randn(20, context)} if context else {}
    x = torch.randn(20, 4)
    z = pgm.encode(flow, {"x": x, **c})["z"]
    assert torch.allclose(pgm.decode(flow, z, context=c or None)["x"], x, atol=1e-3)


def test_whole_numbers_are_coded_in_their_cells() -> None:
    flow = SplineFlow(4, transforms=2, hidden=(8,), levels=17)
    x = torch.randint(17, (20, 4)).float()
    assert torch.equal(pgm.decode(flow, pgm.encode(flow, x))["x"], x)
    draws = pgm.encode(flow, x, draws=3, seed=0)["z"]
    assert draws.shape == (3, 20, 4)
    assert not torch.equal(draws[0], draws[1])
    assert all(torch.equal(pgm.decode(flow, z)["x"], x) for z in draws)


def test_samples_are_the_transformed_noise() -> None:
    flow = disturbed(SplineFlow(2, transforms=2, hidden=(8,)))
    z = pgm.encode(flow, pgm.sample(flow, 4000, seed=0))["z"]
    assert torch.allclose(z.mean(0), torch.zeros(2), atol=0.06)
    assert torch.allclose(z.T.cov(), torch.eye(2), atol=0.08)


def test_a_density_given_context_follows_it() -> None:
    """x | c ~ N(3 c, 0.5): after training the density of fresh rows is the exact one."""
    c = torch.randn(1000, 1)
    x = 3 * c + 0.5 * torch.randn(1000, 1)
    flow = SplineFlow.from_data(x, context=1, transforms=1, hidden=(32,))
    pgm.fit(flow, {"x": x, "c": c}, steps=200, learning_rate=0.01, seed=0)
    for at in (-1.0, 1.0):
        given = torch.full((1000, 1), at)
        fresh = torch.distributions.Normal(3 * at, 0.5)
        x = fresh.sample((1000, 1))
        got = pgm.log_prob(flow, {"x": x, "c": given}).mean[0]
        assert got == pytest.approx(float(fresh.log_prob(x).mean()), abs=0.15)
        drawn = pgm.sample(flow, 1000, context={"c": given}, seed=0)["x"]
        assert float(drawn.mean()) == pytest.approx(3 * at, abs=0.2)


@pytest.mark.parametrize(("context", "c"), [(0, torch.zeros(2, 1)), (1, None)])
def test_context_that_was_not_meant(context: int, c: Tensor | None) -> None:
    flow = SplineFlow(2, transforms=1, hidden=(8,), context=context)
    batch = {"x": torch.zeros(2, 2)} | ({} if c is None else {"c": c})
    with pytest.raises(ValueError, match=f"built with context={context}"):
        pgm.log_prob(flow, batch)


def test_a_density_follows_the_weights() -> None:
    """A cached transform returned 3160 for 4051 after an update (design, section 4.3)."""
    flow, x = SplineFlow(2, transforms=1, hidden=(8,)), torch.randn(5, 2)
    before = pgm.log_prob(flow, x).value
    after = pgm.log_prob(disturbed(flow), x).value
    fresh = SplineFlow(2, transforms=1, hidden=(8,))
    fresh.load_state_dict(flow.state_dict())
    assert not torch.allclose(before, after)
    assert torch.equal(after, pgm.log_prob(fresh, x).value)


def test_dequantisation_bounds_the_probability_of_whole_numbers() -> None:
    """With many particles the bounds of all states sum to the mass of the flow on their cells."""
    flow = disturbed(SplineFlow(2, transforms=1, hidden=(8,), levels=3))
    states = torch.tensor(list(itertools.product(range(3), repeat=2))).float()
    few = pgm.log_prob(flow, states, particles=1, seed=0)
    many = pgm.log_prob(flow, states, particles=5000, seed=0)
    assert few.kind == many.kind == "bound"
    y = flow.density().dist.sample((100000,))
    inside = ((y >= 0) & (y < 3)).all(-1).float().mean()
    assert float(many.value.exp().sum()) == pytest.approx(float(inside), abs=0.02)
    losses = pgm.objective(flow, states.repeat(2000, 1), seed=0).detach()
    elbo = -losses.reshape(2000, -1).mean(0)
    assert (elbo <= many.value + 3 * many.error).all()
    assert float((many.value - elbo).max()) > 0.01


def test_samples_of_whole_numbers_have_the_probabilities_of_the_bound() -> None:
    flow = SplineFlow(1, transforms=1, hidden=(8,), levels=3)
    x = pgm.sample(flow, 20000, seed=0)["x"][:, 0]
    shares = torch.stack([(x == level).float().mean() for level in range(3)])
    inner = pgm.log_prob(flow, torch.tensor([[1.0]]), particles=5000, seed=0).value.exp()
    assert set(x.tolist()) == {0.0, 1.0, 2.0}
    assert float(shares[1]) == pytest.approx(float(inner), abs=0.015)


def test_a_number_between_the_levels_has_probability_zero() -> None:
    y = torch.tensor([0.5, 1.0, -3.0, 9.0, 1.5, 1.5])
    x = torch.tensor([0.0, 0.0, 0.0, 2.0, 0.0, 1.5])
    inf = math.inf
    assert Floor(y, 3).log_prob(x).tolist() == [0.0, 0.0, 0.0, 0.0, -inf, -inf]


def test_single_cells_are_refused_and_whole_rows_left_out() -> None:
    x = torch.tensor([[0.5, NAN], [0.1, 0.2]])
    real = SplineFlow(2, transforms=1, hidden=(8,))
    whole = SplineFlow(2, transforms=1, hidden=(8,), levels=3)
    for flow in (real, whole):
        for question in (pgm.log_prob, pgm.impute, pgm.objective, pgm.encode):
            with pytest.raises(pgm.Unsupported, match=r"[Uu]se "):
                question(flow, x)
        gone = pgm.log_prob(flow, torch.tensor([[NAN, NAN], [1.0, 2.0]]), seed=0)
        assert float(gone.value[0]) == pytest.approx(0.0, abs=1e-5)
        assert float(gone.value[1]) < -0.1


@pytest.mark.parametrize("levels", [None, 3])
def test_rows_missing_as_a_whole_are_drawn_from_the_flow(levels: int | None) -> None:
    flow = SplineFlow(2, transforms=1, hidden=(8,), levels=levels)
    empty = torch.cat([torch.full((1, 2), NAN), torch.ones(1, 2)])
    done = pgm.impute(flow, empty, draws=3000, particles=3000, seed=0).draws["x"]
    drawn = pgm.sample(flow, 3000, seed=1)["x"]
    assert torch.equal(done[:, 1], torch.ones(3000, 2))
    assert torch.allclose(done[:, 0].mean(0), drawn.mean(0), atol=0.12)
    assert torch.allclose(done[:, 0].std(0), drawn.std(0), atol=0.12)


def test_standardising_reads_the_complete_rows() -> None:
    x = torch.tensor([[1.0, 10.0], [3.0, 30.0], [NAN, 0.0]])
    flow = SplineFlow.from_data(x)
    assert flow.mean.tolist() == [2.0, 20.0]
    assert torch.allclose(flow.std, x[:2].std(0))
    whole = SplineFlow.from_data(torch.zeros(5, 2), levels=4)
    assert whole.mean.tolist() == [0.5, 0.5]
    assert torch.allclose(whole.std, torch.full((2,), 12**-0.5))


def test_the_model_keeps_a_copy_of_what_it_was_given() -> None:
    mean = torch.zeros(2)
    flow = SplineFlow(2, mean=mean)
    flow.mean += 1
    assert mean.tolist() == [0.0, 0.0]


def test_importing_zuko_leaves_the_checks_of_distributions_on() -> None:
    with pytest.raises(ValueError, match="constraint"):
        torch.distributions.Normal(torch.zeros(1), -torch.ones(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features is 0"),
        ({"hidden": ()}, "hidden is 0"),
        ({"levels": 1}, "levels 1"),
        ({"bins": 1}, "bins 1"),
        ({"std": torch.zeros(2)}, r"Columns \[0, 1\]"),
        ({"std": torch.ones(3)}, r"std \(3,\)"),
        ({"mean": torch.tensor([0.0, NAN])}, r"Columns \[1\]"),
        ({"features": 1, "coupling": True}, "coupling=False"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_arguments_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplineFlow(**{"features": 2, **options})


def test_data_that_cannot_be_standardised() -> None:
    with pytest.raises(ValueError, match=r"Columns \[1\].*constant"):
        SplineFlow.from_data(torch.tensor([[1.0, 2.0], [2.0, 2.0]]))
    with pytest.raises(ValueError, match="1 complete rows"):
        SplineFlow.from_data(torch.tensor([[1.0, 2.0], [2.0, NAN]]))


def test_codes_that_do_not_fit() -> None:
    flow = SplineFlow(2, transforms=1, hidden=(8,))
    with pytest.raises(ValueError, match="as long as a row"):
        pgm.decode(flow, torch.zeros(3, 5))
    with pytest.raises(ValueError, match="base noise 'z'"):
        pgm.decode(flow, {"y": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match="labels"):
        pgm.encode(flow, Batch(x=torch.zeros(1, 2), labels=torch.zeros(1)))
