"""Bounds: published numbers, closed forms, and the truth of random models inside."""

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

import causal
import causal.examples
from causal import bounds
from causal.graph import observed, parents, parse, project
from causal.identification import (
    Table,
    identify,
    random_network,
)
from causal.identification.bounds.problem import split
from causal.identification.bounds.responses import Responses
from causal.identification.networks import Network
from causal.identification.tables import configurations

IV = "Z -> X -> Y; X <-> Y"
BOW = "X -> Y; X <-> Y"
BINARY = {"Z": (0, 1), "X": (0, 1), "Y": (0, 1)}
ONE, ZERO = {"X": 1}, {"X": 0}

# P(x, y | z), axes z, x, y. Lipid Research Clinics program, cholestyramine, dichotomised by Efron &
# Feldman (1991): Balke & Pearl (1997); Pearl (2009), sec. 8.2.6.
LIPID = torch.tensor([[[0.919, 0.081], [0.0, 0.0]], [[0.315, 0.073], [0.139, 0.473]]])
# Vitamin A and survival in Sumatra, Sommer & Zeger (1991): Balke & Pearl (1997), table 1.
VITAMIN = torch.tensor([[[74.0, 11514.0], [0.0, 0.0]], [[34.0, 2385.0], [12.0, 9663.0]]])


def instrumental(p: torch.Tensor) -> Table:
    return Table(0.5 * p / p.sum((1, 2), keepdim=True), BINARY)


def test_cholestyramine_as_published() -> None:
    joint = instrumental(LIPID)
    found = bounds.effect(IV, joint, {"Y": 1}, do=ONE, versus=ZERO)
    assert (found.lower, found.upper) == pytest.approx((0.392, 0.780), abs=5e-4)
    assert found.sharp and str(found).startswith("P(Y=1 | do(X=1)) - P(Y=1 | do(X=0)) in [0.392, ")
    simple = bounds.natural(joint, {"Y": 1}, do=ONE, versus=ZERO, instrument="Z")
    assert (simple.lower, simple.upper) == pytest.approx((0.392, 0.780), abs=5e-4)


def test_vitamin_a_as_published() -> None:
    joint = instrumental(VITAMIN)
    found = bounds.effect(IV, joint, "Y", do=ONE, versus=ZERO)
    assert (found.lower, found.upper) == pytest.approx((-0.1946, 0.0054), abs=1e-4)
    treated = bounds.effect(IV, joint, {"Y": 1}, do=ONE)
    assert (treated.lower, treated.upper) == pytest.approx((0.7990, 0.9990), abs=1e-4)
    control = bounds.effect(IV, joint, {"Y": 1}, do=ZERO)
    assert (control.lower, control.upper) == pytest.approx((0.9936, 0.9936), abs=1e-4)


def balke_pearl(p: torch.Tensor) -> tuple[float, float]:
    """The closed form of the effect's bounds, eight terms each: Balke & Pearl (1997).

    p[z, x, y] = P(x, y | z).
    """
    q = {(y, x, z): float(p[z, x, y]) for z in (0, 1) for x in (0, 1) for y in (0, 1)}
    lower = max(
        q[1, 1, 1] + q[0, 0, 0] - 1,
        q[1, 1, 0] + q[0, 0, 1] - 1,
        q[1, 1, 0] - q[1, 1, 1] - q[1, 0, 1] - q[0, 1, 0] - q[1, 0, 0],
        q[1, 1, 1] - q[1, 1, 0] - q[1, 0, 0] - q[0, 1, 1] - q[1, 0, 1],
        -q[0, 1, 1] - q[1, 0, 1],
        -q[0, 1, 0] - q[1, 0, 0],
        q[0, 0, 1] - q[0, 1, 1] - q[1, 0, 1] - q[0, 1, 0] - q[0, 0, 0],
        q[0, 0, 0] - q[0, 1, 0] - q[1, 0, 0] - q[0, 1, 1] - q[0, 0, 1],
    )
    upper = min(
        1 - q[0, 1, 1] - q[1, 0, 0],
        1 - q[0, 1, 0] - q[1, 0, 1],
        -q[0, 1, 0] + q[0, 1, 1] + q[0, 0, 1] + q[1, 1, 0] + q[0, 0, 0],
        -q[0, 1, 1] + q[1, 1, 1] + q[0, 0, 1] + q[0, 1, 0] + q[0, 0, 0],
        q[1, 1, 1] + q[0, 0, 1],
        q[1, 1, 0] + q[0, 0, 0],
        -q[1, 0, 1] + q[1, 1, 1] + q[0, 0, 1] + q[1, 1, 0] + q[1, 0, 0],
        -q[1, 0, 0] + q[1, 1, 0] + q[0, 0, 0] + q[1, 1, 1] + q[1, 0, 1],
    )
    return lower, upper


@given(st.integers(0, 10_000))
def test_the_program_is_the_closed_form_of_balke_and_pearl(seed: int) -> None:
    network = random_network(parse(IV), seed=seed, largest=2)
    joint = network.joint()
    found = bounds.effect(IV, joint, {"Y": 1}, do=ONE, versus=ZERO)
    p = joint.values / joint.values.sum((1, 2), keepdim=True)
    assert (found.lower, found.upper) == pytest.approx(balke_pearl(p), abs=1e-8)
    assert found.lower - 1e-9 <= true_effect(network) <= found.upper + 1e-9


def true_effect(network: Network) -> float:
    table = network.interventional(["Y"], do=["X"])
    return table.at(Y=1, X=1) - table.at(Y=1, X=0)


GRAPHS = [
    IV,
    BOW,
    "Z -> X -> Y; C -> {X Y}; X <-> Y",
    "Z -> X -> Y; {C D} -> X; {C D} -> Y; X <-> Y; C <-> D",
    "C -> X -> Y; D -> Y; X <-> Y; C <-> D",
    "X -> M -> Y; X <-> M",
    "X -> M -> Y; M <-> Y; X <-> Y; X <-> M",
    "U [latent]; U -> {X M Y}; X -> M -> Y",
    "Z -> X -> Y; X <-> Y; Y -> W; X <-> W",
    "W1 -> W2 -> X -> Y; W1 <-> X; W1 <-> Y; Z -> X; X <-> Y",
]


@pytest.mark.parametrize("text", GRAPHS)
def test_the_truth_lies_inside(text: str) -> None:
    for seed in range(4):
        network = random_network(parse(text), seed=seed, largest=2)
        found = bounds.effect(text, network, {"Y": 1}, do=ONE, versus=ZERO)
        assert found.lower - 1e-9 <= true_effect(network) <= found.upper + 1e-9
        assert -1 - 1e-9 <= found.lower < found.upper <= 1 + 1e-9


def test_the_bounds_of_the_example() -> None:
    table = causal.examples.instrument
    arms = {"do": ONE, "versus": ZERO}
    found = bounds.effect(table.graph, table.rows, {"Y": 1}, **arms)
    published = [value for question, value in table.answers.items() if "bound" in question]
    assert [found.lower, found.upper] == pytest.approx(published, abs=5e-4)


def test_bounds_meet_where_the_effect_is_identified() -> None:
    for text in (
        "X -> Z -> Y; X <-> Y",
        "W1 -> W2 -> X -> Y; W1 <-> X; W1 <-> Y",
        "S -> {X Y}; X -> Y",
        "Y -> X",
    ):
        network = random_network(parse(text), seed=3)
        found = bounds.effect(text, network, {"Y": 1}, do=ONE)
        exact = identify(text, "Y", do="X").evaluate(network, Y=1, X=1)
        assert found.width == 0.0 and found.how == "identified"
        assert found.lower == pytest.approx(exact, abs=1e-9)


def test_the_bow_says_no_more_than_natural_bounds() -> None:
    network = random_network(parse(BOW), seed=0, largest=2)
    found = bounds.effect(BOW, network, {"Y": 1}, do=ONE, versus=ZERO)
    plain = bounds.natural(network, {"Y": 1}, do=ONE, versus=ZERO)
    assert found.width == pytest.approx(1.0)
    assert (found.lower, found.upper) == pytest.approx((plain.lower, plain.upper))


@pytest.mark.parametrize("text", [IV, BOW, "U [latent]; U -> {X Y W}; Z -> X -> Y; Y -> W"])
def test_each_end_is_the_effect_in_a_model_with_the_same_observations(text: str) -> None:
    """Sharp: two positive joints, one a seed, each of two models whose effects are the two ends."""
    for seed in range(3):
        observed_ = random_network(parse(text), seed=seed, largest=2)
        found = bounds.effect(text, observed_, {"Y": 1}, do=ONE, versus=ZERO)
        assert found.sharp and found.width > 1e-3
        for sign, end in ((1.0, found.lower), (-1.0, found.upper)):
            model = extreme(text, observed_, sign)
            joint = model.joint()
            same = observed_.joint().marginal(joint.axes).values
            assert torch.allclose(joint.values, same, atol=1e-9)
            assert true_effect(model) == pytest.approx(end, abs=1e-9)


def extreme(text: str, network: Network, sign: float) -> Network:
    """The model of the district's types that has the least (or, at -1, largest) effect."""
    arms = [(1.0, ONE), (-1.0, ZERO)]
    problem = split(parse(text), network, ["Y"], arms)
    event = Table(torch.tensor([0.0, 1.0]), {"Y": (0, 1)})
    ((polytope, c),) = problem.programs(event, arms, 0.0)
    A, b = polytope.A.numpy(), polytope.b.numpy()
    q = torch.tensor(linprog((sign * c).numpy(), A_eq=A, b_eq=b).x).clamp(min=0.0)
    responses = Responses(problem.graph, problem.open, problem.joint.levels)
    cells = configurations([responses.counts[v] for v in problem.open])
    tables = {"U": Table(q / q.sum(), {"U": tuple(range(len(q)))})}
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("U", latent=True)
    for v in observed(problem.graph):
        inputs = [p for p in parents(problem.graph, v) if p in problem.joint.axes]
        levels = {p: problem.joint.levels[p] for p in (*inputs, v)}
        if v in problem.open:
            follow = responses.follow(v).values[cells[:, problem.open.index(v)]]
            tables[v] = Table(follow, {**tables["U"].levels, **levels})
        else:
            share = problem.joint.marginal([*inputs, v]).values
            tables[v] = Table(share / share.sum(-1, keepdim=True), levels)
        graph.add_edges_from((p, v) for p in tables[v].axes if p != v)
        graph.add_node(v)
    return Network(graph, tables)


def test_an_instrument_narrows_natural_bounds_and_more_levels_work() -> None:
    network = random_network(parse(IV), seed=11)
    outcome, arms = {"Y": 1}, {"do": {"X": 0}}
    sharp = bounds.effect(IV, network, outcome, **arms)
    by_instrument = bounds.natural(network, outcome, instrument="Z", **arms)
    alone = bounds.natural(network, outcome, **arms)
    assert alone.lower - 1e-9 <= by_instrument.lower <= sharp.lower + 1e-9
    assert sharp.upper - 1e-9 <= by_instrument.upper <= alone.upper + 1e-9


def test_a_district_of_three_is_sharp_only_with_one_common_cause() -> None:
    several, one = GRAPHS[6:8]
    assert project(parse(several)).edges == project(parse(one)).edges
    network = random_network(parse(one), seed=0, largest=2)
    joint = network.joint()
    wide, sharp = (bounds.effect(text, joint, {"Y": 1}, do=ONE) for text in (several, one))
    assert sharp.sharp and not wide.sharp
    assert "perhaps wider than need be" in str(wide)


def test_the_mean_of_a_numeric_outcome() -> None:
    rows = {"S": [0, 0, 0, 1, 1, 1], "X": [0, 1, 1, 0, 0, 1], "Y": [10, 10, 0, 10, 0, 0]}
    found = bounds.effect("S -> {X Y}; X -> Y", rows, "Y", do=ONE, versus=ZERO)
    assert found.lower == found.upper == pytest.approx(-5.0)
    assert "6 rows" in str(found)
    with pytest.raises(ValueError, match="names have no mean"):
        bounds.effect(BOW, {"X": [0, 1], "Y": ["a", "b"]}, "Y", do=ONE)


def test_data_that_break_the_instrumental_inequality() -> None:
    broken = torch.tensor([[[0.9, 0.0], [0.1, 0.0]], [[0.0, 0.9], [0.0, 0.1]]])
    with pytest.raises(ValueError, match=r"miss by at least 0\.4.*Pearl 1995.*slack=0\.4"):
        bounds.effect(IV, instrumental(broken), {"Y": 1}, do=ONE)
    found = bounds.effect(IV, instrumental(broken), {"Y": 1}, do=ONE, slack=0.41)
    assert 0.0 <= found.lower <= found.upper <= 1.0 and "slack 0.41" in str(found)
    with pytest.raises(ValueError, match="exclude each other"):
        bounds.natural(instrumental(broken), {"Y": 1}, do=ZERO, instrument="Z")


def test_no_overlap_leaves_the_program_open_instead_of_undefined() -> None:
    rows = {"S": [0, 0, 1, 1], "X": [0, 1, 0, 0], "Y": [1, 0, 1, 0]}
    found = bounds.effect("S -> {X Y}; X -> Y", rows, {"Y": 1}, do=ONE)
    assert (found.lower, found.upper) == pytest.approx((0.0, 0.5))


def test_a_covariate_of_all_splits_the_program_and_changes_nothing() -> None:
    """P(y | do(x)) = sum_c P(c) P(y | do(x), c): the bounds are the mean of those at each c."""
    network = random_network(parse("Z -> X -> Y; C -> {X Y}; X <-> Y"), seed=5, largest=2)
    joint = network.joint()
    found = bounds.effect(network.graph, joint, {"Y": 1}, do=ONE, versus=ZERO)
    assert "at each value of C" in found.how
    mean = [0.0, 0.0]
    for c in joint.levels["C"]:
        share = joint.marginal(["C"]).at(C=c)
        part = joint.at(C=c)
        inside = Table(part.values / share, part.levels)
        one = bounds.effect(IV, inside, {"Y": 1}, do=ONE, versus=ZERO)
        mean = [mean[0] + share * one.lower, mean[1] + share * one.upper]
    assert (found.lower, found.upper) == pytest.approx(tuple(mean), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "outcome", "do", "versus", "message"),
    [
        ("X1 -> Y1 -> Y; X1 <-> Y1; X -> Y; X <-> Y", {"Y": 1}, {"X1": 1, "X": 0}, None, "polynom"),
        (BOW, {"Q": 1}, ONE, None, "'Q' is not in the graph"),
        (BOW, {"Y": 9}, ONE, None, "'Y' has no value 9"),
        (BOW, {"Y": 1}, {"X": 9}, None, "'X' has no value 9"),
        (BOW, {"Y": 1}, {"Y": 1}, None, "is set, so that it is no outcome"),
        (BOW, {"Y": 1}, {}, None, "Nothing is set"),
        (BOW, {"Y": 1}, ONE, {"Y": 1}, "name the same ones in both"),
        ("U [latent]; U -> {X Y}; X -> Y", {"U": 1}, ONE, None, "is latent"),
        ("{A B C D E} -> X -> Y; X <-> Y; F -> Y", {"Y": 1}, ONE, None, "Merge levels"),
    ],
)
def test_questions_that_are_refused(
    text: str, outcome: object, do: object, versus: object, message: str
) -> None:
    network = random_network(parse(text), seed=0, largest=2)
    with pytest.raises(ValueError, match=message):
        bounds.effect(text, network, outcome, do=do, versus=versus)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_frechet(p: list[float]) -> None:
    every, any_ = bounds.conjunction(*p), bounds.disjunction(*p)
    independent = torch.tensor(p, dtype=torch.float64)
    assert every.lower - 1e-12 <= float(independent.prod()) <= every.upper + 1e-12
    assert any_.lower - 1e-12 <= 1 - float((1 - independent).prod()) <= any_.upper + 1e-12
    assert every.lower == pytest.approx(1 - bounds.disjunction(*[1 - x for x in p]).upper)


def test_frechet_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match="Probabilities came as"):
        bounds.conjunction(0.5, 1.5)
    with pytest.raises(ValueError, match="Probabilities came as"):
        bounds.disjunction()
