"""Programs as structural causal models: the graph they have, and one engine behind both doors."""

from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

import causal
import pgm
from causal import SCM, LinearGaussian, counterfactual


def test_the_graph_of_a_program(program: pgm.Model, linear: SCM) -> None:
    found = SCM.from_program(program)
    assert set(found.graph.edges) == set(linear.graph.edges)
    assert found.nodes == ("A", "B", "C", "D", "E")


class Hidden(pgm.Model):
    """y listens to x through NumPy, and to z through a branch on .item()."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            x = pyro.sample("x", dist.Normal(torch.zeros(n), 1.0))
            z = pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))
            mu = torch.from_numpy(x.detach().numpy() * 2)
            pyro.sample("y", dist.Normal(mu + (1.0 if z[0].item() > 0 else 0.0), 1.0))


def test_what_is_hidden_from_torch_is_found() -> None:
    with pytest.warns(RuntimeWarning, match="x -> y"):
        found = SCM.from_program(Hidden(), seed=1)
    assert ("x", "y") in found.graph.edges
    assert ("z", "y") in found.graph.edges
    with pytest.raises(ValueError, match=r"x -> y \(hidden from torch\)"):
        SCM.from_program(Hidden(), "x; z -> y", seed=1)


def test_a_declared_graph_is_held_against_the_program(program: pgm.Model) -> None:
    declared = "A -> {B C}; B -> {C D}; C -> {D E}; D -> E; A -> E"
    assert ("A", "E") in SCM.from_program(program, declared).graph.edges
    with pytest.raises(ValueError, match="arrows that the graph does not: B -> D"):
        SCM.from_program(program, "A -> {B C}; B -> C; C -> {D E}; D -> E")
    with pytest.raises(ValueError, match="the program draws A, B, C, D, E"):
        SCM.from_program(program, "A -> B")


def test_deterministic_sites_and_latents_are_looked_through() -> None:
    class Confounded(pgm.Model):
        def model(self, n: int) -> None:
            with pgm.rows(n):
                u = pyro.sample("u", dist.Normal(0.0, 1.0))
                twice = pyro.deterministic("twice", 2 * u)
                x = pyro.sample("x", dist.Normal(twice, 1.0))
                pyro.sample("y", dist.Normal(x + u, 1.0))

        def guide(self, n: int, x: Tensor) -> None:
            with pgm.rows(n):
                pyro.sample("u", dist.Normal(0.4 * x, 0.5))

    found = SCM.from_program(Confounded())
    assert set(found.graph.edges) == {("u", "x"), ("u", "y"), ("x", "y")}
    assert causal.graph.latents(found.graph) == ["u"]


def test_an_ordinary_function_and_its_levels() -> None:
    def program(n: int) -> None:
        with pgm.rows(n):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.8])))
            pyro.sample("y", dist.Normal(torch.tensor([0.0, 3.0])[k], 1.0))

    found = SCM.from_program(program)
    assert list(found.graph.edges) == [("k", "y")]
    assert (found.mechanism("k").levels, found.mechanism("y").inputs["k"].levels) == (2, 2)


ARROW: dict[Any, Any] = {("A", "C"): 2.0}
SWAP = {"C": LinearGaussian({"A": 3.0}, intercept=1.0).double()}


@pytest.mark.parametrize("done", [{"B": 0.0}, ARROW, SWAP, {"B": lambda parents: parents["A"]}])
def test_both_doors_give_one_answer(program: pgm.Model, linear: SCM, done: dict[Any, Any]) -> None:
    seen = pgm.sample(linear, 10, seed=0)
    first = counterfactual(linear, seen, do=done)
    second = counterfactual(SCM.from_program(program), seen, do=done)
    for name, x in first.draws.items():
        assert torch.allclose(x, second.draws[name]), name


def test_a_policy_of_a_program_reads_its_parents_alone(program: pgm.Model) -> None:
    world = causal.do(SCM.from_program(program), D=lambda parents: parents["A"])
    with pytest.raises(ValueError, match="reads 'A', which is not one of its parents"):
        pgm.sample(world, 3)


def test_a_mechanism_of_a_program_with_shared_latents_is_refused() -> None:
    def program(n: int) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pgm.rows(n):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(w * x, 1.0))

    found = SCM.from_program(program)
    assert found.nodes == ("x", "y")
    with pytest.raises(pgm.Unsupported, match="latent sites outside the rows"):
        found.mechanism("y")


def levels_and_numbers(n: int) -> None:
    with pgm.rows(n):
        d = pyro.sample("d", dist.Categorical(torch.tensor([0.3, 0.7])))
        x = pyro.sample("x", dist.Normal(torch.tensor([-1.0, 2.0])[d], 1.0))
        doubled = pyro.deterministic("doubled", 2 * x)
        pyro.sample("y", dist.Normal(doubled + d, 0.5))


@pytest.mark.filterwarnings("ignore:In 1 of 1 rows the weights")  # k-hat of two scales of weights
@pytest.mark.parametrize(
    ("done", "mean", "variance"),
    [
        ({}, [-2.0, 5.0], 4.25),
        ({("x", "y"): 1.0}, [2.0, 3.0], 0.25),
        ({("d", "y"): 1}, [-1.0, 5.0], 4.25),
    ],
)
def test_levels_that_were_not_seen_are_summed_out_of_a_program(
    done: dict[Any, Any], mean: list[float], variance: float
) -> None:
    """d given y by Bayes' rule; what is computed from draws is computed from the same ones."""
    model = SCM.from_program(levels_and_numbers)
    found = causal.condition(
        causal.do(model, done) if done else model, {"y": 2.5}, particles=20000, seed=0
    )
    y = dist.Normal(torch.tensor(mean), variance**0.5).log_prob(torch.tensor(2.5)).exp()
    joint = torch.tensor([0.3, 0.7]) * y
    torch.testing.assert_close(found.mean()["d"][0], joint / joint.sum(), atol=0.03, rtol=0)
    if not done:
        torch.testing.assert_close(found.draws["doubled"], 2 * found.draws["x"])
