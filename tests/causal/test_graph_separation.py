"""Separation: against an enumeration of all paths that is written here, on random graphs."""

import itertools
from collections.abc import Iterator

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal.graph import (
    basis,
    bidirected,
    connected,
    find_separator,
    independences,
    minimal_separators,
    minimum_separator,
    observed,
    open_path,
    parents,
    parse,
    separated,
    separators,
    show_path,
)

NAMES = ["A", "B", "C", "D", "E", "F"]


@st.composite
def graphs(draw: st.DrawFn, most: int = 3) -> nx.DiGraph:
    """Random DAGs over six nodes in random order, up to three of them latent."""
    hidden = draw(st.permutations(NAMES))
    pairs = list(itertools.combinations(hidden, 2))
    graph = nx.DiGraph()
    graph.add_nodes_from(NAMES)
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), min_size=4, unique=True)))
    for node in draw(st.sets(st.sampled_from(NAMES), max_size=most)):
        graph.nodes[node]["latent"] = True
    return graph


def subsets(nodes: list[str]) -> Iterator[set[str]]:
    for size in range(len(nodes) + 1):
        yield from map(set, itertools.combinations(nodes, size))


def is_open(graph: nx.DiGraph, path: list[str], z: set[str]) -> bool:
    """Pearl (2009), def. 1.2.3, node by node along the path."""
    for a, b, c in zip(path, path[1:], path[2:], strict=False):
        if graph.has_edge(a, b) and graph.has_edge(c, b):
            if not z & ({b} | nx.descendants(graph, b)):
                return False
        elif b in z:
            return False
    return True


def is_separated(graph: nx.DiGraph, x: set[str], y: set[str], z: set[str]) -> bool:
    skeleton = graph.to_undirected()
    paths = (p for a in x for b in y for p in nx.all_simple_paths(skeleton, a, b))
    return not any(is_open(graph, path, z) for path in paths)


@given(graphs(), st.permutations(NAMES), st.integers(1, 2), st.integers(1, 2), st.integers(0, 2))
def test_separation_is_that_no_path_is_open(
    graph: nx.DiGraph, nodes: list[str], i: int, j: int, k: int
) -> None:
    x, y, z = set(nodes[:i]), set(nodes[i : i + j]), set(nodes[i + j : i + j + k])
    apart = is_separated(graph, x, y, z)
    assert separated(graph, x, y, z) is apart
    path = open_path(graph, x, y, z)
    assert (path is None) is apart
    assert bool(y & connected(graph, x, z)) is not apart
    if path is not None:
        assert path[0] in x
        assert path[-1] in y
        assert len(set(path)) == len(path)
        assert nx.is_path(graph.to_undirected(), path)
        assert is_open(graph, path, z)


@given(graphs())
def test_every_pair_given_every_set(graph: nx.DiGraph) -> None:
    skeleton = graph.to_undirected()
    for a, b in itertools.combinations(NAMES, 2):
        paths = list(nx.all_simple_paths(skeleton, a, b))
        for z in subsets([v for v in NAMES if v not in (a, b)]):
            apart = not any(is_open(graph, path, z) for path in paths)
            assert separated(graph, a, b, z) is apart
            path = open_path(graph, a, b, z)
            assert (path not in paths) is apart
            assert path is None or is_open(graph, path, z)
            assert (b in connected(graph, a, z)) is not apart


@given(graphs(), st.permutations(NAMES), st.data())
def test_separators_are_those_among_all_subsets(
    graph: nx.DiGraph, nodes: list[str], data: st.DataObject
) -> None:
    i, j = data.draw(st.sampled_from([(1, 1), (1, 2), (2, 1)]))
    x, y, rest = set(nodes[:i]), set(nodes[i : i + j]), nodes[i + j :]
    within = {v for v in rest if v in observed(graph)}
    must = data.draw(st.sets(st.sampled_from(sorted(within)), max_size=1)) if within else set()
    right = [z for z in subsets(sorted(within)) if must <= z and is_separated(graph, x, y, z)]
    assert sorted(map(sorted, separators(graph, x, y, include=must))) == sorted(map(sorted, right))
    minimal = [z for z in right if not any(other < z for other in right)]
    found = minimal_separators(graph, x, y, include=must)
    assert sorted(map(sorted, found)) == sorted(map(sorted, minimal))
    one = find_separator(graph, x, y, include=must)
    smallest = minimum_separator(graph, x, y, include=must)
    if right:
        assert set(one) in right
        assert set(smallest) in right
        assert len(smallest) == min(map(len, right))
    else:
        assert one is smallest is None


@given(graphs())
def test_the_independences_of_a_graph_are_its_separable_pairs(graph: nx.DiGraph) -> None:
    joined = {frozenset(pair) for pair in bidirected(graph)} | {frozenset(e) for e in graph.edges}
    found = independences(graph)
    pairs = {frozenset(i.x + i.y) for i in found}
    assert len(pairs) == len(found)
    for a, b in itertools.combinations(observed(graph), 2):
        rest = [v for v in observed(graph) if v not in (a, b)]
        some = any(is_separated(graph, {a}, {b}, z) for z in subsets(rest))
        assert ({a, b} in pairs) is some
        assert not (some and {a, b} in joined)
    for i in (*found, *independences(graph, kind="minimal")):
        assert separated(graph, i.x, i.y, i.given)
        assert all(not separated(graph, i.x, i.y, set(i.given) - {v}) for v in i.given)


@given(graphs(most=0))
def test_a_basis_holds_and_leaves_out_parents_alone(graph: nx.DiGraph) -> None:
    found = basis(graph)
    for i in found:
        assert separated(graph, i.x, i.y, i.given)
        assert list(i.given) == parents(graph, i.x[0])
    missing = len(NAMES) * (len(NAMES) - 1) // 2 - graph.number_of_edges()
    assert sum(len(i.y) for i in found) == missing


def test_the_published_implications_of_pearls_sprinkler() -> None:
    # Pearl (2009), fig. 1.2: season, sprinkler, rain, wet, slippery
    graph = parse("season -> {sprinkler rain} -> wet -> slippery")
    assert list(map(str, basis(graph))) == [
        "rain _||_ sprinkler | season",
        "wet _||_ season | sprinkler, rain",
        "slippery _||_ season, sprinkler, rain | wet",
    ]


def test_the_verma_graph_has_one_independence() -> None:
    # Verma & Pearl (1990): its other constraint, on A and D, is no independence
    graph = parse("A -> B -> C -> D; B <-> D")
    assert list(map(str, independences(graph, kind="minimal"))) == ["A _||_ C | B"]


def test_paths_are_written_with_their_arrows() -> None:
    graph = parse("U [latent]; U -> {X Y}; X -> Y; Y <-> Z")
    assert show_path(graph, ["X", "U", "Y", "U(Y,Z)", "Z"]) == "X <- U -> Y <-> Z"
    assert show_path(graph, ["U(Y,Z)", "Y"]) == "U(Y,Z) -> Y"
    assert show_path(graph, ["X"]) == "X"


def test_sets_that_are_no_three_sets() -> None:
    graph = parse("A -> B -> C; U [latent]")
    with pytest.raises(ValueError, match="disjoint"):
        separated(graph, "A", "B", "A")
    with pytest.raises(ValueError, match="not in the graph"):
        open_path(graph, "A", "Q")
    with pytest.raises(ValueError, match="may have"):
        find_separator(graph, "A", "C", include="U")
    with pytest.raises(ValueError, match="latent"):
        basis(graph)


def test_a_node_that_must_be_in_the_set_blocks_already() -> None:
    graph = parse("X -> A -> I -> B -> Y")
    assert minimal_separators(graph, "X", "Y", include="I") == [("I",)]
    assert minimum_separator(graph, "X", "Y", include="I") == ("I",)


def test_a_latent_cause_works_through_another() -> None:
    graph = parse("L [latent]; M [latent]; L -> {X M}; M -> {Y Z}")
    assert bidirected(graph) == [("X", "Y"), ("X", "Z"), ("Y", "Z")]
