"""Graphs: what is written is what is read, nothing is mutated, and mistakes are named."""

import itertools

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal.graph import (
    adjacency,
    as_graph,
    bidirected,
    check_nodes,
    districts,
    observed,
    order,
    parents,
    parse,
    project,
    separated,
    subgraph,
)

NAMES = ["A", "B", "C", "D", "E", "F"]


@st.composite
def dags(draw: st.DrawFn) -> nx.DiGraph:
    """Random DAGs with nodes and arrows in random order."""
    hidden = draw(st.permutations(NAMES))
    pairs = [(a, b) for i, a in enumerate(hidden) for b in hidden[i + 1 :]]
    graph = nx.DiGraph()
    graph.add_nodes_from(draw(st.permutations(NAMES)))
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), unique=True)))
    return graph


@given(dags())
def test_causes_come_before_their_effects(graph: nx.DiGraph) -> None:
    place = {node: i for i, node in enumerate(order(graph))}
    assert all(place[a] < place[b] for a, b in graph.edges)


@given(dags())
def test_a_graph_survives_text_adjacency_and_copies_with_its_orders(graph: nx.DiGraph) -> None:
    text = "; ".join([*graph.nodes, *(f"{a} -> {b}" for a, b in graph.edges)])
    for other in (parse(text), as_graph(adjacency(graph)), as_graph(graph)):
        assert list(other) == list(graph)
        assert set(other.edges) == set(graph.edges)
        assert order(other) == order(graph)
        assert all(parents(other, node) == parents(graph, node) for node in graph)


def test_chains_braces_quotes_and_lone_nodes() -> None:
    graph = parse('A -> B -> {C, "a name"}\n{A B} -> D; lonely')
    assert list(graph) == ["A", "B", "C", "a name", "D", "lonely"]
    arrows = {("A", "B"), ("B", "C"), ("B", "a name"), ("A", "D"), ("B", "D")}
    assert set(graph.edges) == arrows
    assert set(parse("A->B->C-1").edges) == {("A", "B"), ("B", "C-1")}


def test_a_copy_shares_nothing_with_the_graph_that_came() -> None:
    mine = nx.DiGraph([("A", "B")])
    as_graph(mine).add_edge("B", "C")
    assert list(mine.edges) == [("A", "B")]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("A -> B -> A", "cycle, A -> B -> A"),
        ("A -> A", "cycle, A -> A"),
        ("A <-> A", "common cause of two"),
        ("A <->", "unseen common cause"),
        ("A [exposure]", "one mark"),
        ("A [latent] -> B", "statement of its own"),
        ("A -> B [latent]", "statement of its own"),
        ("A <- B", "Write the cause first"),
        ("A -- B", "has a direction"),
        ("A -> ", "stands between two nodes"),
        ("-> A", "stands between two nodes"),
        ("A B", "joined by arrows"),
        ("A -> {B C", "closed"),
        ("A -> {}", "cannot be read"),
        ("", "no node"),
    ],
)
def test_text_that_is_no_causal_graph(graph: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(graph)


def test_graphs_of_other_kinds() -> None:
    with pytest.raises(TypeError, match="each arrow has a direction"):
        as_graph(nx.Graph([("A", "B")]))
    with pytest.raises(TypeError, match="at most one arrow"):
        as_graph(nx.MultiDiGraph([("A", "B")]))
    with pytest.raises(TypeError, match="names are strings"):
        as_graph(nx.DiGraph([(1, 2)]))


def test_unknown_nodes_are_named_with_what_was_perhaps_meant() -> None:
    with pytest.raises(ValueError, match="Did you mean 'dose'"):
        check_nodes(parse("dose -> recovery"), ["dosis"])
    with pytest.raises(ValueError, match="not in the graph"):
        parents(parse("A -> B"), "C")


@given(
    dags(),
    st.sets(st.sampled_from(NAMES), max_size=4),
    st.lists(st.sampled_from(NAMES), min_size=1),
)
def test_a_projection_separates_what_the_graph_separates(
    graph: nx.DiGraph, hidden: set[str], some: list[str]
) -> None:
    whole = as_graph(graph, latent=hidden)
    part = project(whole)
    assert list(part)[: len(NAMES) - len(hidden)] == observed(whole)
    assert bidirected(part) == bidirected(whole)
    assert districts(part) == districts(whole)
    for a, b in itertools.combinations(observed(whole), 2):
        others = [v for v in observed(whole) if v not in (a, b)]
        for size in range(len(others) + 1):
            for z in itertools.combinations(others, size):
                assert separated(part, a, b, z) == separated(whole, a, b, z)
    kept = set(some) - hidden
    assert same(project(subgraph(whole, kept)), subgraph(part, kept))


def same(a: nx.DiGraph, b: nx.DiGraph) -> bool:
    return dict(a.nodes.items()) == dict(b.nodes.items()) and set(a.edges) == set(b.edges)
