"""ID and IDC: published answers, and truth by enumeration on hundreds of random graphs."""

import itertools
import random
import re

import networkx as nx
import pytest

import causal
import causal.examples
from causal.graph import observed, order, parse, project, to_text
from causal.identification import (
    NotIdentifiable,
    identify,
    is_adjustment_set,
    is_front_door_set,
    random_network,
    verify,
    witnesses,
)
from causal.identification.algorithms import idc
from causal.identification.estimand import Estimand
from causal.identification.verify import largest_error

EXAMPLES = [e for e in vars(causal.examples).values() if isinstance(e, causal.examples.Example)]
# Back door and front door: Pearl (2009), eqs. 3.19 and 3.29. Napkin: Pearl & Mackenzie (2018), The
# Book of Why, ch. 7. M-bias: Greenland, Pearl & Robins (1999). Two treatments: after Pearl & Robins
# (1995).
KNOWN = [
    ("S -> T -> Y; S -> Y", "Y", "T", (), "Σ_S P(Y | S, T) P(S)", "adjustment"),
    ("X -> Z -> Y; X <-> Y", "Y", "X", (), "Σ_Z P(Z | X) Σ_X' P(Y | X', Z) P(X')", "front door"),
    (
        "W1 -> W2 -> X -> Y; W1 <-> X; W1 <-> Y",
        "Y",
        "X",
        (),
        "[Σ_W1 P(X, Y | W1, W2) P(W1)] / [Σ_W1 P(X | W1, W2) P(W1)]",
        "general",
    ),
    ("X -> Y; X <-> M; M <-> Y", "Y", "X", (), "P(Y | X)", "adjustment"),
    ("X -> M -> Y; C -> {X Y}", "Y", "X", (), "Σ_C P(Y | C, X) P(C)", "adjustment"),
    ("Y -> X", "Y", "X", (), "P(Y)", "no effect"),
    ("X1 -> Z -> X2 -> Y; X1 -> Y; X1 <-> X2; Z <-> Y", "Y", ["X1", "X2"], (), None, "general"),
    ("X -> Z -> Y; X <-> Y", "Y", "X", "Z", "Σ_X' P(Y | X', Z) P(X')", "no effect"),
    ("Z -> {X Y}; X -> Y", "Y", "X", "Z", "P(Y | Z, X)", "adjustment"),
    ("X -> Y -> W; X -> W", ["Y", "W"], "X", (), "P(Y, W | X)", "adjustment"),
]
# A path of bidirected edges joins X to a child of it that acts on Y: Tian & Pearl (2002).
UNKNOWN = [
    ("X -> Y; X <-> Y", ["Y"], ["X"]),
    ("Z -> X -> Y; X <-> Y", ["Y"], ["X"]),
    ("X -> Z -> Y; X <-> Z", ["Y"], ["X"]),
    ("X -> Z -> Y; X <-> Z; Z <-> Y", ["Y"], ["X"]),
    ("X -> Y; Z -> {X Y}; X <-> Z; Z <-> Y", ["Y"], ["X"]),
    ("X -> Z -> Y; X <-> Y; Z <-> Y", ["Y"], ["X"]),
    ("X -> Y1; X -> Y2; W <-> X; W -> Y1; W <-> Y1", ["Y1"], ["X"]),
]


@pytest.mark.parametrize(("text", "y", "x", "z", "expression", "strategy"), KNOWN)
def test_published_estimands(
    text: str, y: str, x: str, z: str, expression: str, strategy: str
) -> None:
    estimand = identify(text, y, do=x, given=z)
    if expression is not None:
        assert str(estimand).splitlines()[0].endswith(f" = {expression}")
    assert estimand.strategy == strategy
    assert verify(estimand).error < 1e-12


@pytest.mark.parametrize(("text", "y", "x"), UNKNOWN)
def test_published_hedges(text: str, y: list[str], x: list[str]) -> None:
    with pytest.raises(NotIdentifiable, match=r"not identified.*bounds\.effect") as caught:
        identify(text, y, do=x)
    hold_to(caught.value, parse(text))
    assert ("instrument gives it: Z" in str(caught.value)) == (text == "Z -> X -> Y; X <-> Y")


def test_napkin_is_the_same_at_every_value_of_w2() -> None:
    estimand = identify("W1 -> W2 -> X -> Y; W1 <-> X; W1 <-> Y", "Y", do="X")
    assert estimand.arbitrary == ("W2",)
    assert "at any value of W2" in str(estimand)
    assert estimand.latex == (
        r"P(Y \mid \mathrm{do}(X)) = \frac{\sum_{W_{1}} P(X, Y \mid W_{1}, W_{2}) P(W_{1})}"
        r"{\sum_{W_{1}} P(X \mid W_{1}, W_{2}) P(W_{1})}"
    )


@pytest.mark.parametrize("name", [e.name for e in EXAMPLES])
def test_examples(name: str) -> None:
    (example,) = (e for e in EXAMPLES if e.name == name)
    try:
        estimand = identify(example.graph, example.outcome, do=example.treatment)
    except NotIdentifiable as error:
        assert not example.identified
        hold_to(error, example.graph)
        return
    assert example.identified
    assert verify(estimand, models=2).right
    for question, value in example.answers.items():
        if match := re.fullmatch(r"P\((\w+)=(\w+) \| do\((\w+)=(\w+)\)\)", question):
            y, b, x, a = match.groups()
            data = example.scm() if example.mechanisms else example.frame
            table = estimand.evaluate(data)
            labels = {str(label): label for k in (x, y) for label in table.levels[k]}
            assert table.at(**{x: labels[a], y: labels[b]}) == pytest.approx(value, abs=1e-4)


def test_effects_in_random_graphs_are_right_or_have_a_hedge() -> None:
    """300 DAGs with latents: the truncated factorisation, or the definition of a hedge."""
    kinds = {"identified": 0, "hedge": 0}
    for seed in range(300):
        graph, y, x, z = random_question(seed)
        try:
            estimand = identify(graph, y, do=x, given=z)
        except NotIdentifiable as error:
            kinds["hedge"] += 1
            hold_to(error, graph)
            continue
        kinds["identified"] += 1
        assert largest_error(estimand, random_network(graph, seed=seed)) < 1e-9, describe(seed)
        if estimand.strategy == "adjustment" and not z:
            valid = is_adjustment_set(graph, estimand.effective, y, estimand.adjustment)
            assert valid, describe(seed)
        if estimand.strategy == "front door":
            assert is_front_door_set(graph, estimand.effective, y, estimand.mediators)
    assert min(kinds.values()) > 40


def test_bounds_hold_the_truth_in_random_graphs() -> None:
    kinds = {"identified": 0, "linear": 0}
    for seed in range(400, 460):
        graph, y, x, _ = random_question(seed)
        network = random_network(graph, seed=seed, largest=2)
        one, zero, event = (dict.fromkeys(names, k) for names, k in ((x, 1), (x, 0), (y, 1)))
        table = network.interventional(y, do=x)
        truth = table.at(**event, **one) - table.at(**event, **zero)
        try:
            found = causal.bounds.effect(graph, network, event, do=one, versus=zero)
        except ValueError as refused:
            assert "polynomial" in str(refused) or "response types" in str(refused)
            continue
        kinds[found.how.split()[0]] += 1
        assert found.lower - 1e-8 <= truth <= found.upper + 1e-8, describe(seed)
    assert min(kinds.values()) > 10


def test_id_itself_is_right_before_anything_is_simplified_by_the_graph() -> None:
    for seed in range(300, 400):
        graph, y, x, z = random_question(seed)
        projected = project(graph)
        place = {v: i for i, v in enumerate(order(projected))}
        try:
            expression = idc(projected, y, x, z)
        except NotIdentifiable:
            continue
        ordered = (tuple(sorted(names, key=place.__getitem__)) for names in (y, x, z))
        estimand = Estimand(*ordered, expression, "general", graph=projected)
        assert largest_error(estimand, random_network(graph, seed=seed)) < 1e-9, describe(seed)


def test_a_wrong_expression_is_found_out() -> None:
    bow = identify("X -> Y", "Y", do="X")
    wrong = Estimand(("Y",), ("X",), (), bow.expression, "general", graph=parse("X -> Y; X <-> Y"))
    report = wrong.verify()
    assert not report.right and report.error > 0.01
    assert "WRONG" in str(report)


def test_the_graph_stays_as_it_is() -> None:
    graph = nx.freeze(parse("U [latent]; U -> {X Y}; X -> Z -> Y"))
    before = (dict(graph.nodes(data=True)), list(graph.edges))
    identify(graph, "Y", do="X")
    assert (dict(graph.nodes(data=True)), list(graph.edges)) == before


def test_what_is_set_to_no_effect_is_named() -> None:
    estimand = identify("X -> Y -> W", "Y", do=["X", "W"])
    assert (estimand.effective, estimand.strategy) == (("X",), "adjustment")
    assert "setting W changes nothing" in str(estimand)


def test_conditional_failure_names_the_question() -> None:
    with pytest.raises(NotIdentifiable, match=r"P\(Y \| do\(X\), W\) is not identified"):
        identify("X -> Y -> W; X <-> Y", "Y", do="X", given="W")


@pytest.mark.parametrize(
    ("y", "x", "z", "message"),
    [
        ("Y", "Q", (), "intervened node 'Q' is not in the graph"),
        ("U", "X", (), "outcome 'U' is latent"),
        ("Y", "U", (), "intervened node 'U' is latent"),
        ("Y", "X", "U", "given node 'U' is latent"),
        ("Y", "Y", (), "'Y' stands twice"),
        ("Y", "X", "X", "'X' stands twice"),
        ([], "X", (), "needs an outcome"),
        ("Y", [], (), "at least one node to set"),
    ],
)
def test_bad_questions(y: str, x: str, z: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        causal.identify("U [latent]; U -> {X Y}; X -> Y", y, do=x, given=z)


def hold_to(error: NotIdentifiable, graph: nx.DiGraph) -> None:
    """The hedge is one, and two models agree on what is observed and differ in the effect."""
    hedge, projected = error.hedge, project(graph)
    hedge.check(projected)
    first, second = witnesses(hedge, projected)
    assert (first.joint().values - second.joint().values).abs().max() < 1e-12
    effects = [m.interventional(hedge.outcome, do=hedge.do).values for m in (first, second)]
    assert (effects[0] - effects[1]).abs().max() > 0.05


def random_question(seed: int) -> tuple[nx.DiGraph, list[str], list[str], list[str]]:
    """A DAG over 3 to 5 observed and up to 3 latent nodes, and what is asked of it."""
    draw = random.Random(seed)
    nodes = [f"V{i}" for i in range(draw.choice([3, 4, 5]))]
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(e for e in itertools.combinations(nodes, 2) if draw.random() < 0.5)
    for i in range(draw.randint(0, 3)):
        graph.add_node(f"U{i}", latent=True)
        graph.add_edges_from((f"U{i}", v) for v in draw.sample(nodes, draw.choice([2, 2, 3])))
    above = sorted(nodes, key=lambda v: int(v[1:]) + 3 * draw.random())
    x, rest = above[: draw.choice([1, 1, 2])], list(reversed(above))
    y = [v for v in rest if v not in x][: draw.choice([1, 1, 2])]
    z = [v for v in rest if v not in (*x, *y)][: draw.choice([0, 0, 1])]
    assert set(observed(graph)) == set(nodes)
    return graph, y, x, z


def describe(seed: int) -> str:
    graph, y, x, z = random_question(seed)
    return f"seed {seed}: {to_text(graph)}, P({y} | do({x}), {z})"
