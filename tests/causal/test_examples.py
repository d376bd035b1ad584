"""Examples: what is said to be known is found, and the numbers are those of the tables."""

import dataclasses
import itertools

import networkx as nx
import pytest
import torch

import pgm.data
from causal import examples
from causal.examples import EXAMPLES, Example
from causal.graph import independences, observed, separated
from causal.identification import (
    adjustment_sets,
    front_door_sets,
    instruments,
    is_adjustment_set,
    is_back_door_set,
)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_sets_are_those_that_are_found(example: Example) -> None:
    x, y = example.treatment, example.outcome
    found = adjustment_sets(example.graph, x, y)
    assert set(map(frozenset, found)) == set(map(frozenset, example.adjustment))
    assert front_door_sets(example.graph, x, y) == list(example.front_door)
    assert example.identified or not (found or example.front_door)
    assert example.name in repr(example)


def probability(example: Example, event: dict[str, int], given: dict[str, int]) -> float:
    """Relative frequency in the table."""
    rows = example.rows
    inside = torch.stack([rows[k] == v for k, v in given.items()]).all(0)
    both = torch.stack([rows[k] == v for k, v in event.items()]).all(0) & inside
    return (both.sum() / inside.sum()).item()


@pytest.mark.parametrize("example", [examples.kidney_stones, examples.simpson])
def test_tables_to_adjust(example: Example) -> None:
    (z,), x, y = example.adjustment[0], example.treatment, example.outcome
    marginal = example.rows[z].double().mean().item()
    for code, level in enumerate(example.levels[x]):
        strata = [probability(example, {y: 1}, {x: code, z: k}) for k in (0, 1)]
        adjusted = strata[0] * (1 - marginal) + strata[1] * marginal
        assert example.answers[f"P({y}=1 | do({x}={level}))"] == pytest.approx(adjusted, abs=1e-6)
        naive = probability(example, {y: 1}, {x: code})
        assert example.answers[f"P({y}=1 | {x}={level})"] == pytest.approx(naive, abs=1e-6)


def test_the_front_door_formula_on_its_table() -> None:
    example = examples.front_door
    smokers = example.rows["smoking"].double().mean().item()
    for x in (0, 1):
        total = 0.0
        for m in (0, 1):
            kinds = [probability(example, {"cancer": 1}, {"smoking": k, "tar": m}) for k in (0, 1)]
            through = kinds[0] * (1 - smokers) + kinds[1] * smokers
            total += probability(example, {"tar": m}, {"smoking": x}) * through
        assert example.answers[f"P(cancer=1 | do(smoking={x}))"] == pytest.approx(total, abs=1e-6)


def test_the_instrument_and_the_bounds_of_its_table() -> None:
    example = examples.instrument
    assert list(map(str, instruments(example.graph, "X", "Y"))) == ["Z"]
    p = {
        (y, x, z): probability(example, {"Y": y, "X": x}, {"Z": z})
        for y, x, z in itertools.product((0, 1), repeat=3)
    }
    # Balke & Pearl (1997), eq. 13: the terms that bind here
    lower, upper = example.answers.values()
    assert lower == pytest.approx(p[1, 1, 1] + p[0, 0, 0] - 1, abs=1e-6)
    assert upper == pytest.approx(1 - p[0, 1, 1] - p[1, 0, 0], abs=1e-6)


def test_what_must_not_be_adjusted_for() -> None:
    assert not is_adjustment_set(examples.m_bias.graph, "X", "Y", "M")
    assert not is_back_door_set(examples.back_door.graph, "Xi", "Xj", "X4")
    assert separated(examples.collider.graph, "X", "Y")
    assert not separated(examples.collider.graph, "X", "Y", "S")
    assert not is_adjustment_set(examples.collider.graph, "X", "Y", "S")


def test_the_constraint_of_verma_and_pearl() -> None:
    assert list(map(str, independences(examples.verma.graph))) == ["A _||_ C | B"]
    draw = torch.Generator().manual_seed(0)

    def table(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=draw, dtype=torch.float64).softmax(-1) * 1.0

    u, a, b, c, d = table(3), table(2), table(2, 3, 2), table(2, 2), table(2, 3, 2)
    joint = torch.einsum("u,a,aub,bc,cud->abcd", u, a, b, c, d)
    b_a = joint.sum((2, 3)) / joint.sum((1, 2, 3))[:, None]
    d_abc = joint / joint.sum(3, keepdim=True)
    verma = torch.einsum("abcd,ab->acd", d_abc, b_a)
    assert torch.allclose(verma[0], verma[1])
    assert not torch.allclose(d_abc.mean(1)[0], d_abc.mean(1)[1])


def test_the_squad() -> None:
    scm = examples.firing_squad.scm()
    draws = pgm.sample(scm, 4000, seed=0)
    assert torch.equal(draws["D"], draws["A"] | draws["B"])
    assert torch.equal(draws["B"], draws["U"])
    dead = draws["D"] == 1
    alive = 1 - draws["B"][dead].double().mean().item()  # D is B when A does not shoot
    known = examples.firing_squad.answers["P(D would be 0, had A been 0 | D=1)"]
    assert alive == pytest.approx(known, abs=3 * (known * (1 - known) / dead.sum().item()) ** 0.5)


def test_the_graph_of_sachs_is_that_of_the_data() -> None:
    assert set(examples.sachs.graph.edges) == set(pgm.data.load("sachs").graph().edges)


def test_a_table_becomes_a_model() -> None:
    scm = examples.kidney_stones.scm()
    probs = (
        scm.mechanism("success")
        .dist({"size": torch.tensor([0, 1]), "treatment": torch.tensor([0, 0])})
        .probs[:, 1]
    )
    assert probs.tolist() == pytest.approx([81 / 87, 192 / 263])
    frame = examples.kidney_stones.frame
    assert frame.groupby("treatment").success.mean()["open"] == pytest.approx(0.78)
    with pytest.raises(ValueError, match="latent"):
        examples.front_door.scm()
    with pytest.raises(ValueError, match="graph alone"):
        _ = examples.bow.rows


def test_examples_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        examples.bow.name = "cross"
    with pytest.raises(TypeError):
        examples.front_door.answers["P"] = 1.0
    examples.bow.graph.add_edge("Y", "Z")
    assert list(examples.bow.graph) == ["X", "Y", "U(X,Y)"]
    assert nx.is_directed_acyclic_graph(examples.warm_up.graph)
    assert observed(examples.m_bias.graph) == ["X", "M", "Y"]
