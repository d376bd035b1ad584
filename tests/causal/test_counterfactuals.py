"""Counterfactuals: closed forms, the consistency law, and no noise drawn in silence."""

from typing import Any

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from torch import Tensor

import causal
import pgm
from causal import SCM, CategoricalTable, LinearGaussian, counterfactual

UNIT = {"A": 1.0, "B": 2.0, "C": -1.0, "D": 0.5, "E": 3.0}


def unit() -> dict[str, Tensor]:
    return {name: torch.tensor([value]).double() for name, value in UNIT.items()}


@pytest.mark.parametrize("kind", ["linear", "program"])
def test_the_unit_under_do(kind: str, request: pytest.FixtureRequest) -> None:
    """Issue 3: (1, 2, -1, .5, 3) under do(B=0) is (1, 0, .6, -.1, 4.0)."""
    found = counterfactual(request.getfixturevalue(kind), unit(), do={"B": 0.0})
    expected = (1.0, 0.0, 0.6, -0.1, 4.0)
    assert found.exact
    for name, value in zip("ABCDE", expected, strict=True):
        assert abs(float(found.draws[name]) - value) < 1e-6
    assert "B  set by do" in str(found)
    assert "E  exact inversion" in str(found)


def test_a_plain_program_keeps_its_noise(doubling: pgm.Model) -> None:
    """Seen x = 1 and y = 3 where y ~ Normal(2x, 1): u = 1, so y under do(x=0) is 1."""
    seen = {"x": torch.tensor([1.0]), "y": torch.tensor([3.0])}
    assert counterfactual(doubling, seen, do={"x": 0.0}).draws["y"].tolist() == [[1.0]]


def test_an_ordinary_pyro_function() -> None:
    def model(n: int, y: Tensor | None = None) -> None:
        with pyro.plate("data", n, dim=-1):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            twice = pyro.deterministic("twice", 2 * x)
            pyro.sample("y", dist.Normal(twice, 1.0), obs=y)

    seen = {"x": torch.tensor([1.0]), "y": torch.tensor([3.0])}
    found = counterfactual(
        pgm.from_pyro(model, rows="data", observed={"y": "y"}), seen, do={"x": 0.0}
    )
    assert found.draws["y"].tolist() == [[1.0]]
    assert found.draws["twice"].tolist() == [[0.0]]
    assert found.how["twice"] == "computed from the others"


@given(st.lists(st.floats(-5, 5), min_size=5, max_size=5), st.sets(st.sampled_from("ABCDE")))
def test_doing_what_was_seen_changes_nothing(values: list[float], done: set[str]) -> None:
    """Consistency (Pearl 2009, cor. 7.3.2), for any set of sites."""
    scm = SCM(
        "A -> {B C}; B -> {C D}; C -> {D E}; D -> E",
        A=LinearGaussian(),
        B=LinearGaussian({"A": 0.5}, scale=2.0),
        C=LinearGaussian({"A": 1.0, "B": -2.0}),
        D=LinearGaussian({"B": 0.7, "C": 0.5}, intercept=1.0),
        E=LinearGaussian({"C": 0.1, "D": 1.0}),
    ).double()
    seen = {name: torch.tensor([v]).double() for name, v in zip("ABCDE", values, strict=True)}
    done = done or {"C"}
    found = counterfactual(scm, seen, do={name: seen[name] for name in done})
    for name, x in seen.items():
        assert torch.allclose(found.draws[name][0], x)


@pytest.mark.parametrize("coupling", ["gumbel", "monotone"])
def test_doing_what_was_seen_changes_no_level(coupling: str) -> None:
    probs = torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    scm = SCM("x -> y", x=CategoricalTable([0.5, 0.5]), y=CategoricalTable(probs, parents=["x"]))
    seen = pgm.sample(scm, 50, seed=0)
    found = counterfactual(scm, seen, do={"x": seen["x"]}, coupling=coupling, particles=20, seed=0)
    assert bool((found.draws["y"] == seen["y"]).all())


def test_the_monotone_coupling_by_its_closed_form() -> None:
    """x = 0: F = (.2, .5, 1); x = 1: F = (.7, .9, 1). Seen x = 0, y = 1: u in (.2, .5), so y = 0.

    Seen y = 2: u in (.5, 1), so y = 0, 1, 2 with probabilities .4, .4, .2.
    """
    probs = torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    scm = SCM("x -> y", x=CategoricalTable([0.5, 0.5]), y=CategoricalTable(probs, parents=["x"]))
    seen = {"x": torch.tensor([0, 0]), "y": torch.tensor([1, 2])}
    do = {"x": torch.tensor(1)}
    found = counterfactual(scm, seen, do=do, coupling="monotone", particles=4000, seed=0)
    assert found.mean()["y"][0].tolist() == [1.0, 0.0, 0.0]
    assert (found.mean()["y"][1] - torch.tensor([0.4, 0.4, 0.2])).abs().max() < 0.04
    assert found.how["y"] == "monotone coupling, not identified"
    assert "Another coupling may answer otherwise" in str(found)
    assert not found.exact


class Confounded(pgm.Model):
    """z -> t, z -> y, t -> y, with an imperfect guide for z."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            t = pyro.sample("t", dist.Bernoulli(logits=z))
            pyro.sample("y", dist.Normal(z + t, 1.0))

    def guide(self, n: int, y: Tensor, t: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal((y - t) / 2, 0.9))


def test_latents_come_from_the_posterior_and_keep_their_noise() -> None:
    """By quadrature over z: t is kept where logit noise allows, y keeps y - z - t."""
    seen = {"t": torch.tensor([1.0]), "y": torch.tensor([2.0])}
    found = counterfactual(Confounded(), seen, do={"z": -1.0}, particles=20_000, seed=0)
    z = torch.linspace(-8, 8, 4001).double()
    weight = (
        dist.Normal(0.0, 1.0).log_prob(z)
        + dist.Bernoulli(logits=z).log_prob(torch.tensor(1.0).double())
        + dist.Normal(z + 1, 1.0).log_prob(torch.tensor(2.0).double())
    ).softmax(0)
    stays = torch.sigmoid(torch.minimum(z, torch.tensor(-1.0))) / torch.sigmoid(z)
    t = float(weight @ stays)
    y = float(weight @ (-1 + stays + 2 - z - 1))
    assert abs(float(found.mean()["t"][0, 1]) - t) < 0.02
    assert abs(float(found.mean()["y"]) - y) < 0.03
    assert found.how["z"] == "set by do"
    assert float(found.ess) > 5000


class SharedSlope(pgm.Model):
    """A slope with a prior, outside the rows; the guide is the prior itself."""

    def model(self, n: int) -> None:
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pgm.rows(n):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(b * x, 1.0))

    def guide(self, n: int) -> None:
        pyro.sample("b", dist.Normal(0.0, 1.0))


def test_a_shared_latent_is_resampled_for_all_rows_at_once() -> None:
    """b | data ~ N(x.y / (1 + x.x), 1 / (1 + x.x)); under do(x=0) y is y - b x."""
    x, y = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([1.0, 3.0, -2.0])
    found = counterfactual(SharedSlope(), {"x": x, "y": y}, do={"x": 0.0}, particles=300, seed=0)
    b, variance = x @ y / (1 + x @ x), 1 / (1 + x @ x)
    error = (variance / found.ess[0] + variance / 300).sqrt()
    assert abs(found.mean()["b"] - b) < 4 * error
    assert (found.mean()["y"] - (y - b * x)).abs().max() < 8 * error
    assert torch.allclose(found.draws["y"], y - found.draws["b"][:, None] * x, atol=1e-5)
    assert list(found.frame().columns) == ["x", "y"]


def test_few_effective_particles_warn() -> None:
    x = torch.ones(60)
    with pytest.warns(RuntimeWarning, match="particles carry the weight"):
        counterfactual(SharedSlope(), {"x": x, "y": 3 * x}, do={"x": 0.0}, particles=20, seed=0)


def test_a_distribution_is_drawn_afresh_and_policies_see_the_other_world(linear: SCM) -> None:
    law = dist.Normal(torch.tensor(0.0).double(), 2.0)
    found = counterfactual(linear, unit(), do={"B": law}, particles=2000, seed=0)
    B = found.draws["B"]
    assert (B.shape, found.exact) == ((2000, 1), False)
    assert 1.8 < B.std() < 2.2
    assert torch.allclose(found.draws["C"], 0.6 - 0.8 * B)
    shifted = counterfactual(linear, unit(), do={"A": 2.0, "B": lambda parents: parents["A"]})
    assert float(shifted.draws["B"]) == 2.0


def test_values_by_row_go_with_the_particles() -> None:
    seen = {"t": torch.tensor([1.0, 0.0, 1.0]), "y": torch.tensor([2.0, 0.0, 1.0])}
    value = torch.tensor([0.0, 1.0, 1.0])
    found = counterfactual(Confounded(), seen, do={"t": value}, particles=50, seed=0)
    assert bool((found.draws["t"] == value).all())
    change = found.draws["y"] - seen["y"]
    assert torch.allclose(change, (value - seen["t"]).expand(50, 3), atol=1e-5)


def test_the_answer_as_a_frame_in_the_users_words() -> None:
    schema = pgm.Schema(
        {"dose": pgm.Categorical(("low", "high")), "age": pgm.Continuous(mean=50, std=20)}
    )
    scm = SCM(
        "dose -> age",
        schema=schema,
        dose=CategoricalTable([0.5, 0.5]),
        age=LinearGaussian({"dose": [0.0, 1.0]}),
    )
    seen = {"dose": torch.tensor([0, 1]), "age": torch.tensor([0.0, 0.0])}
    found = counterfactual(scm, seen, do={"dose": "high"})
    assert found.frame()["age"].tolist() == [70.0, 50.0]
    assert found.frame()["dose"].tolist() == ["high", "high"]
    assert found.do == {"dose": "high"}


def test_same_seed_same_draws_and_the_global_state_is_left_alone() -> None:
    seen = {"t": torch.tensor([1.0]), "y": torch.tensor([2.0])}
    before = torch.get_rng_state()
    first, second = (
        counterfactual(Confounded(), seen, do={"t": 0.0}, particles=50, seed=3) for _ in range(2)
    )
    assert torch.equal(first.draws["z"], second.draws["z"])
    assert torch.equal(before, torch.get_rng_state())


class Branching(pgm.Model):
    """The distribution of y changes its kind with x."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            kind = dist.Normal if bool((x > 0).all()) else dist.Laplace
            pyro.sample("y", kind(x, 1.0))


def clamped_unit() -> dict[str, Tensor]:
    clamped = torch.zeros(1, 5, dtype=torch.bool)
    clamped[0, 1] = True
    return {**unit(), "clamped": clamped}


@pytest.mark.parametrize(
    ("model", "evidence", "done", "message"),
    [
        ("linear", {**unit(), "Q": torch.zeros(1)}, {"B": 0.0}, "'Q'"),
        ("linear", clamped_unit(), {"C": 0.0}, "clamped by an experiment"),
        ("linear", unit(), {"Q": 0.0}, "no site 'Q'"),
        ("linear", unit(), {}, "nothing to do"),
        (Branching(), {"x": torch.ones(1), "y": torch.ones(1)}, {"x": -1.0}, "is a Laplace, but"),
    ],
)
def test_questions_without_an_answer(
    model: Any,
    evidence: dict[str, Tensor],
    done: dict[str, float],
    message: str,
    request: pytest.FixtureRequest,
) -> None:
    asked = request.getfixturevalue(model) if isinstance(model, str) else model
    with pytest.raises(ValueError, match=message):
        counterfactual(asked, evidence, do=done)


def test_a_distribution_without_a_noise_form_is_named() -> None:
    class Odd(pgm.Model):
        def model(self, n: int) -> None:
            with pgm.rows(n):
                x = pyro.sample("x", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.VonMises(x, 1.0))

    with pytest.raises(pgm.noise.NoNoiseForm, match=r"Site 'y': .*VonMises"):
        counterfactual(Odd(), {"x": torch.ones(1), "y": torch.ones(1)}, do={"x": 0.0})


def test_a_counterfactual_of_an_intervened_model(linear: SCM) -> None:
    """Rows seen under do(B=2): B is no draw, and a second intervention adds to the first."""
    found = counterfactual(causal.do(linear, B=2.0), unit(), do={"A": 0.0})
    assert found.how["B"] == "set by do"
    assert float(found.draws["B"]) == 2.0
    assert abs(float(found.draws["C"]) - -2.0) < 1e-9
    with pytest.raises(ValueError, match=r"do\(\) sets it to 5"):
        counterfactual(causal.do(linear, B=5.0), unit(), do={"A": 0.0})


@pytest.mark.parametrize("then", [1.0, dist.Normal(1.0, 1.0), lambda parents: parents["A"]])
@pytest.mark.parametrize("now", [lambda value, parents: value, causal.LinearGaussian({"A": 0.5})])
def test_the_noise_of_a_site_that_was_set_is_not_known(linear: SCM, then: Any, now: Any) -> None:
    """Its own mechanism did not make its value, so that its own noise cannot be read off it."""
    seen = {node: x for node, x in unit().items() if node != "B"}
    with pytest.raises(ValueError, match=r"'B' was set, or followed a law or policy, when"):
        counterfactual(causal.do(linear, B=then), seen, do={"B": now})


WHOLE: list[tuple[dict[Any, Any], float]] = [
    ({"A": 0.5}, 0.25),
    ({("A", "B"): 0.5}, 0.25),
    ({"B": lambda value, parents: value / 2}, 0.5),
]


@pytest.mark.parametrize("kind", ["linear", "program"])
@pytest.mark.parametrize(("done", "B"), WHOLE)
def test_whole_numbers_in_the_evidence_of_a_number_are_numbers(
    kind: str, done: dict[Any, Any], B: float, request: pytest.FixtureRequest
) -> None:
    """B = A / 2 + u with A = 2 and B = 1, so u = 0: what is done is never rounded to their type."""
    model = request.getfixturevalue(kind)
    model = model if kind == "linear" else SCM.from_program(model)
    whole = {node: torch.tensor([int(x)]) for node, x in zip("ABCDE", "21111", strict=True)}
    assert float(counterfactual(model, whole, do=done).draws["B"]) == pytest.approx(B)
    numbers = {node: x.double() for node, x in whole.items()}
    if kind == "linear" and isinstance(next(iter(done)), tuple):
        under = causal.do(model, done)
        found, wanted = (pgm.log_prob(under, seen, seed=0).value for seen in (whole, numbers))
        torch.testing.assert_close(found, wanted)


def test_mechanisms_that_were_never_trained_are_refused_where_they_are_needed() -> None:
    seen = {name: torch.zeros(1) for name in "xyz"}
    scm = SCM("x -> y -> z", z=LinearGaussian({"y": 1.0}))
    with pytest.raises(ValueError, match="mechanisms of y are as they were made"):
        counterfactual(scm, seen, do={"x": 1.0})
    assert float(counterfactual(scm, seen, do={"y": 1.0}).draws["z"]) == 1.0
    with pytest.raises(ValueError, match="mechanisms of x, y are"):
        causal.condition(scm, {"z": 0.0})
    causal.estimate(scm, {name: torch.randn(50) for name in "xyz"})
    assert counterfactual(scm, seen, do={"x": 1.0}).exact


@settings(max_examples=5)
@given(st.integers(1, 4))
def test_shapes(particles: int) -> None:
    seen = {"t": torch.tensor([1.0, 0.0, 1.0]), "y": torch.tensor([2.0, 0.0, 1.0])}
    with pytest.warns(RuntimeWarning, match="carry the weight"):
        found = counterfactual(Confounded(), seen, do={"t": 0.0}, particles=particles)
    assert {tuple(x.shape) for x in found.draws.values()} == {(particles, 3)}


def test_a_shared_latent_of_several_numbers_is_no_row() -> None:
    class Regression(pgm.Model):
        def model(self, n: int) -> None:
            w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            with pgm.rows(n):
                x = pyro.sample("x", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.Normal(w[0] + w[1] * x, 1.0))

    seen = {"x": torch.tensor([1.0, 2.0]), "y": torch.tensor([1.0, 0.0])}
    found = counterfactual(Regression(), seen, do={"x": 0.0}, particles=100, seed=0)
    assert found.size == (100, 2)
    assert list(found.frame().columns) == ["x", "y"]
