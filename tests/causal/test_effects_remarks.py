"""What answers say of themselves: what is not identified, and what it rests on instead."""

from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist

import causal
import pgm
from causal import SCM, CategoricalTable, LinearSoftmax, effect

DO: dict[str, Any] = {"do": {"x": 1}, "versus": {"x": 0}}


def rows(probs: list[float]) -> list[list[float]]:
    return [[1 - p, p] for p in probs]


def hidden(graph: str) -> SCM:
    """A latent u of x and y, with a mediator m that x has."""
    return SCM(
        graph,
        u=CategoricalTable([0.5, 0.5]),
        x=CategoricalTable(rows([0.2, 0.8]), ["u"]),
        m=CategoricalTable(rows([0.3, 0.9]), ["x"]),
        y=CategoricalTable([rows([0.1, 0.4]), rows([0.3, 0.8])], ["u", "m"]),
    )


def test_a_front_door_is_identified_and_a_bow_is_not() -> None:
    """Pearl (2009), fig. 3.5: x -> m -> y with u unseen is; x -> y itself would not be."""
    door = hidden("u [latent]; u -> x -> m -> y; u -> y")
    found = effect(door, "y", level=1, **DO)
    assert float(found.difference) == pytest.approx(0.6 * 0.4, abs=1e-6)
    assert found.remarks == ()
    bow = SCM(
        "u [latent]; u -> {x y}; x -> y",
        u=CategoricalTable([0.5, 0.5]),
        x=CategoricalTable(rows([0.2, 0.8]), ["u"]),
        y=CategoricalTable([rows([0.1, 0.4]), rows([0.3, 0.8])], ["u", "x"]),
    )
    assert "not identified from observed data: u unseen" in str(effect(bow, "y", **DO))
    treated = effect(door, "y", among={"x": 1}, **DO)
    assert "data alone may not identify it" in str(treated)
    assert "the model's: u unseen" in str(causal.mediation(door, "y", **DO))


def test_nothing_is_said_where_all_is_seen_and_identified(linear: SCM) -> None:
    assert effect(linear, "E", do={"B": 1.0}, draws=10).remarks == ()
    assert causal.mediation(linear, "E", do={"B": 1.0}, versus={"B": 0.0}).remarks == ()


class Coin(pgm.Model):
    """x -> y by a program."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            x = pyro.sample("x", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Bernoulli(0.2 + 0.6 * x))


def test_programs_without_a_graph() -> None:
    """Frechet: P(y' = 1 | y = 0) is in [(.8 - .2) / .8, 1] and .75 by one threshold."""
    seen = {"x": torch.zeros(1), "y": torch.zeros(1)}
    asked: dict[str, Any] = {"do": {"x": 1.0}, "versus": {"x": 0.0}, "level": 1, "seed": 0}
    found = effect(Coin(), "y", among=seen, **asked)
    assert float(found.difference) == pytest.approx(0.75, abs=4.5 * float(found.error))
    assert found.bounds is not None
    assert [float(b) for b in found.bounds] == pytest.approx([0.75, 1.0], abs=1e-4)
    assert "by gumbel coupling" in str(found) and "has no graph" in str(found)
    causes = causal.causation(Coin(), "y", do={"x": 1.0}, versus={"x": 0.0}, event=1, seed=0)
    assert float(causes["PNS"]) == pytest.approx(0.6, abs=4.5 * float(causes.error[2]))
    assert causes.bounds is not None
    assert [float(b[2]) for b in causes.bounds] == pytest.approx([0.6, 0.8], abs=0.03)
    assert "y in two worlds at once, by gumbel coupling" in str(causes)


def test_programs_with_a_graph_are_asked_along_their_arrows() -> None:
    class Program(pgm.Model):
        def model(self, n: int) -> None:
            with pgm.rows(n):
                x = pyro.sample("x", dist.Normal(0.0, 1.0))
                m = pyro.sample("m", dist.Normal(2 * x, 1.0))
                pyro.sample("y", dist.Normal(x + 3 * m, 1.0))

    scm = SCM.from_program(Program())
    asked: dict[str, Any] = {"do": {"x": 1.0}, "versus": {"x": 0.0}, "draws": 200, "seed": 0}
    found = causal.path_effect(scm, "y", along="x -> m -> y", **asked)
    assert float(found["along"]) == pytest.approx(6.0, abs=1e-3)
    assert float(causal.mediation(scm, "y", **asked)["natural direct"]) == pytest.approx(
        1, abs=1e-3
    )


def test_any_mechanism_of_levels_is_a_table() -> None:
    """A softmax of levels is enumerated, and its effect has no error."""
    scm = SCM(
        "x -> y",
        x=CategoricalTable([0.5, 0.5]),
        y=LinearSoftmax({"x": [[0.0, 0.0], [0.0, 2.0]]}, intercept=[0.0, -1.0]),
    )
    found = effect(scm, "y", level=1, draws=10, **DO)
    one, zero = torch.tensor([1.0, -1.0]).sigmoid().tolist()
    assert float(found.difference) == pytest.approx(one - zero, abs=1e-6)
    assert float(found.error) == 0


def test_what_had_been_done_before_stays_done(linear: SCM) -> None:
    """Under do(C = 2) the effect of B on E is .7, of all and of a unit; one law is one draw."""
    acted = causal.do(linear, C=2.0)
    asked: dict[str, Any] = {"do": {"B": 1.0}, "versus": {"B": 0.0}}
    assert float(effect(acted, "E", draws=10, **asked).difference) == pytest.approx(0.7, abs=1e-6)
    unit = {k: torch.tensor([v]).double() for k, v in zip("ABCDE", (1, 2, 2, 1, 4), strict=True)}
    assert float(effect(acted, "E", among=unit, **asked).difference) == pytest.approx(0.7, abs=1e-6)
    table = SCM(
        "{z x} -> y",
        z=CategoricalTable([0.9, 0.1]),
        x=CategoricalTable([0.5, 0.5]),
        y=CategoricalTable([rows([0.0, 1.0]), rows([1.0, 0.0])], ["z", "x"]),
    )
    even = causal.do(table, z=dist.Categorical(torch.tensor([0.5, 0.5])))
    found = causal.causation(even, "y", event=1, **DO)
    assert float(found["PNS"]) == pytest.approx(0.5, abs=1e-6), "y = x xor z, with one z"


def test_an_effect_of_units_holds_no_draws_of_the_outcome(linear: SCM) -> None:
    found = effect(linear, "E", do={"B": 1.0}, among={"A": 1.0})
    with pytest.raises(ValueError, match="among A=1, and holds no draws"):
        causal.draw_outcome(found)
    assert found.plot() is not None
