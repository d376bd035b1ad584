"""Adjustment, front door, instruments: against definitions over all paths and all subsets.

The oracles are written here, path by path, apart from the library, which searches cut graphs.
"""

import itertools
from collections.abc import Iterator

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from causal.graph import as_graph
from causal.identification import (
    adjustment_sets,
    front_door_sets,
    instruments,
    is_adjustment_set,
    is_back_door_set,
    is_front_door_set,
    is_instrument,
    optimal_adjustment_set,
)

NAMES = ["A", "B", "C", "D", "E", "F"]


@st.composite
def graphs(draw: st.DrawFn, most: int = 3) -> nx.DiGraph:
    """Random DAGs over six nodes in random order, some of them latent."""
    hidden = draw(st.permutations(NAMES))
    pairs = list(itertools.combinations(hidden, 2))
    graph = nx.DiGraph()
    graph.add_nodes_from(NAMES)
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), min_size=4, unique=True)))
    for node in draw(st.sets(st.sampled_from(NAMES), max_size=most)):
        graph.nodes[node]["latent"] = True
    return graph


def observed(graph: nx.DiGraph) -> list[str]:
    return [v for v, latent in graph.nodes.data("latent") if not latent]


def subsets(nodes: list[str]) -> Iterator[set[str]]:
    for size in range(len(nodes) + 1):
        yield from map(set, itertools.combinations(nodes, size))


def paths(graph: nx.DiGraph, x: set[str], y: set[str]) -> list[list[str]]:
    """The paths from x to y, of any directions, that meet x at their beginning alone."""
    skeleton = graph.to_undirected()
    found = (p for a in x for b in y for p in nx.all_simple_paths(skeleton, a, b))
    return [path for path in found if not x & set(path[1:])]


def is_directed(graph: nx.DiGraph, path: list[str]) -> bool:
    return all(graph.has_edge(a, b) for a, b in itertools.pairwise(path))


def is_open(graph: nx.DiGraph, path: list[str], z: set[str]) -> bool:
    """Pearl (2009), def. 1.2.3, node by node along the path."""
    for a, b, c in zip(path, path[1:], path[2:], strict=False):
        if graph.has_edge(a, b) and graph.has_edge(c, b):
            if not z & ({b} | nx.descendants(graph, b)):
                return False
        elif b in z:
            return False
    return True


def is_separated(graph: nx.DiGraph, x: str, y: str, z: set[str]) -> bool:
    return not any(is_open(graph, path, z) for path in paths(graph, {x}, {y}))


def sort(sets: object) -> list[list[str]]:
    return sorted(map(sorted, sets))


def forbidden(graph: nx.DiGraph, x: set[str], y: set[str]) -> set[str]:
    """Nodes on proper causal paths and what descends from them (Perkovic et al. 2018, sec. 4)."""
    on = {v for p in paths(graph, x, y) if is_directed(graph, p) for v in p[1:]}
    return on | {w for v in on for w in nx.descendants(graph, v)}


def adjusts(graph: nx.DiGraph, x: set[str], y: set[str], z: set[str]) -> bool:
    """Perkovic et al. (2018), def. 4.1."""
    proper = [path for path in paths(graph, x, y) if not is_directed(graph, path)]
    return not z & forbidden(graph, x, y) and not any(is_open(graph, p, z) for p in proper)


@given(graphs(), st.permutations(NAMES), st.sampled_from([(1, 1), (2, 1), (1, 2)]))
def test_adjustment_sets_are_those_among_all_subsets(
    graph: nx.DiGraph, nodes: list[str], sizes: tuple[int, int]
) -> None:
    seen = [v for v in nodes if v in observed(graph)]
    x, y, rest = set(seen[: sizes[0]]), set(seen[sizes[0] : sum(sizes)]), seen[sum(sizes) :]
    assume(y)
    right = [z for z in subsets(rest) if adjusts(graph, x, y, z)]
    assert sort(adjustment_sets(graph, x, y, kind="all")) == sort(right)
    minimal = [z for z in right if not any(other < z for other in right)]
    assert sort(adjustment_sets(graph, x, y)) == sort(minimal)
    (smallest,) = adjustment_sets(graph, x, y, kind="minimum") or [None]
    assert (smallest is None) is (not right)
    if right:
        assert set(smallest) in right
        assert len(smallest) == min(map(len, right))
    for z in subsets(rest):
        verdict = is_adjustment_set(graph, x, y, z)
        assert bool(verdict) is (z in right)
        assert bool(verdict) is not bool(verdict.reason)
        if verdict.path:
            assert is_open(graph, list(verdict.path), z)


@given(graphs(), st.permutations(NAMES))
def test_back_door_sets_are_pearls(graph: nx.DiGraph, nodes: list[str]) -> None:
    seen = [v for v in nodes if v in observed(graph)]
    x, y, rest = seen[0], seen[1], seen[2:]
    into = [p for p in paths(graph, {x}, {y}) if graph.has_edge(p[1], p[0])]
    for z in subsets(rest):
        right = not z & nx.descendants(graph, x) and not any(is_open(graph, p, z) for p in into)
        assert bool(is_back_door_set(graph, x, y, z)) is right
        assert not right or is_adjustment_set(graph, x, y, z)


@st.composite
def doors(draw: st.DrawFn) -> tuple[nx.DiGraph, set[str], set[str]]:
    """Graphs with x -> m -> y and a latent cause of x and y, few more arrows, and x and y."""
    u, x, a, m, b, y = draw(st.permutations(NAMES))
    pairs = list(itertools.combinations([u, x, a, m, b, y], 2))
    graph = nx.DiGraph()
    graph.add_nodes_from(NAMES)
    graph.add_edges_from([(u, x), (u, y), (x, m), (m, y)])
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), max_size=3, unique=True)))
    graph.nodes[u]["latent"] = True
    return (
        graph,
        {x} | draw(st.sampled_from([set(), {a}])),
        {y} | draw(st.sampled_from([set(), {b}])),
    )


@given(doors())
def test_front_door_sets_are_pearls(door: tuple[nx.DiGraph, set[str], set[str]]) -> None:
    graph, x, y = door
    rest = [v for v in observed(graph) if v not in x | y]

    def holds(m: set[str]) -> bool:  # Pearl (2009), def. 3.3.3
        directed = [p for a in x for p in paths(graph, {a}, y) if is_directed(graph, p)]
        first = [p for p in paths(graph, x, m) if graph.has_edge(p[1], p[0])]
        last = [p for p in paths(graph, m, y) if graph.has_edge(p[1], p[0])]
        return (
            all(m & set(p) for p in directed)
            and not any(is_open(graph, p, set()) for p in first)
            and not any(is_open(graph, p, x) for p in last)
        )

    right = [m for m in subsets(rest) if holds(m)]
    assert sort(front_door_sets(graph, x, y, kind="all")) == sort(right)
    minimal = [z for z in right if not any(other < z for other in right)]
    assert sort(front_door_sets(graph, x, y)) == sort(minimal)
    one = front_door_sets(graph, x, y, kind="one")
    assert len(one) == bool(minimal)
    assert all(set(m) in minimal for m in one)
    for m in subsets(rest):
        verdict = is_front_door_set(graph, x, y, m)
        assert bool(verdict) is (m in right)
        assert bool(verdict) is not bool(verdict.reason)


@given(graphs(), st.permutations(NAMES))
def test_instruments_are_found_where_any_is(graph: nx.DiGraph, nodes: list[str]) -> None:
    seen = [v for v in nodes if v in observed(graph)]
    (x, y), rest = seen[:2], seen[2:]
    assume(nx.has_path(graph, x, y))
    causal = {(p[0], p[1]) for p in paths(graph, {x}, {y}) if is_directed(graph, p)}
    cut = graph.copy()
    cut.remove_edges_from(causal)

    def holds(z: str, w: set[str]) -> bool:
        return (
            not (w | {z}) & forbidden(graph, {x}, {y})
            and not is_separated(graph, z, x, w)
            and is_separated(cut, z, y, w)
        )

    right = set()
    for z in rest:
        for w in subsets([v for v in rest if v != z]):
            verdict = is_instrument(graph, z, x, y, w)
            assert bool(verdict) is holds(z, w)
            assert bool(verdict) is not bool(verdict.reason)
            right |= {(z, frozenset(w))} if verdict else set()
    found = instruments(graph, x, y)
    assert bool(found) is bool(right)
    for one in found:
        assert (one.node, frozenset(one.given)) in right
        assert all((one.node, frozenset(one.given) - {v}) not in right for v in one.given)


def covariance(graph: nx.DiGraph, seed: int) -> np.ndarray:
    """Of a linear Gaussian model with random coefficients and variances."""
    draw, index = np.random.default_rng(seed), {v: i for i, v in enumerate(graph)}
    weights = np.zeros((len(graph), len(graph)))
    for a, b in graph.edges:
        weights[index[b], index[a]] = draw.normal()
    total = np.linalg.inv(np.eye(len(graph)) - weights)
    return total @ np.diag(draw.uniform(0.2, 2.0, len(graph))) @ total.T


def variances(graph: nx.DiGraph, x: list[str], y: str, z: set[str], seed: int) -> np.ndarray:
    """Asymptotic variances of the least-squares coefficients of x: var(y | x, z) var(x | z)^-1."""
    s, index = covariance(graph, seed), {v: i for i, v in enumerate(graph)}
    i, j, k = [index[v] for v in x], [index[y]], [index[v] for v in sorted(z)]

    def given(a: list[int], b: list[int]) -> np.ndarray:
        return s[np.ix_(a, a)] - s[np.ix_(a, b)] @ np.linalg.solve(s[np.ix_(b, b)], s[np.ix_(b, a)])

    return given(j, i + k).item() * np.diag(np.linalg.inv(given(i, k) if k else s[np.ix_(i, i)]))


def winners(graph: nx.DiGraph, x: list[str], y: str, seed: int) -> set[tuple[str, ...]]:
    """The valid sets with the smallest sum of variances."""
    of = {
        z: variances(graph, x, y, set(z), seed).sum()
        for z in adjustment_sets(graph, x, y, kind="all")
    }
    return {z for z in of if of[z] <= min(of.values()) * (1 + 1e-9)}


@settings(max_examples=12)
@given(graphs(most=2), st.integers(1, 2), st.integers(0, 10**6))
def test_the_optimal_set_has_the_smallest_variance(
    graph: nx.DiGraph, treatments: int, seed: int
) -> None:
    for *x, y in itertools.permutations(observed(graph), treatments + 1):
        sets = adjustment_sets(graph, x, y, kind="all")
        if not sets or not any(nx.has_path(graph, v, y) for v in x):
            continue
        of = {z: variances(graph, x, y, set(z), seed) for z in sets}
        minimal = adjustment_sets(graph, x, y)
        found = {optimal_adjustment_set(graph, x, y, among="minimal"): minimal}
        try:
            found[optimal_adjustment_set(graph, x, y)] = sets
        except ValueError as problem:
            assert "depends on the mechanisms" in str(problem)
            assert len(observed(graph)) < len(NAMES)
        for best, others in found.items():
            assert best in others
            assert all((of[best] <= of[z] + 1e-9).all() for z in others)


def test_reasons_name_the_node_or_the_open_path() -> None:
    graph = "A -> {X C}; B -> {C Y}; C -> D; X -> M -> {Y E}; L [latent]; L -> {X Y}"
    reasons = {
        is_adjustment_set(graph, "X", "Y"): "the non-causal path X <- L -> Y is open",
        is_adjustment_set(graph, "X", "Y", "L"): "L is latent and cannot be adjusted for",
        is_adjustment_set(graph, "X", "Y", "M"): "M is on a causal path from X to Y",
        is_adjustment_set(
            graph, "X", "Y", "E"
        ): "E is an effect of M, on a causal path from X to Y",
        is_back_door_set(graph, "A", "B", ["D", "C"]): "C is caused by A",
        is_back_door_set("A -> {X C}; B -> {C Y}; C -> D; X -> Y", "X", "Y", "D"): (
            "the back-door path X <- A -> C <- B -> Y is open given D (D is an effect of the "
            "collider C)"
        ),
        is_front_door_set(graph, "X", "Y", "L"): "L is latent and cannot be used",
        is_front_door_set(
            graph, "X", "Y", ()
        ): "the directed path X -> M -> Y misses the empty set",
        is_instrument(graph, "E", "X", "Y"): "E is an effect of M, on a causal path from X to Y",
        is_instrument(graph, "B", "X", "Y", "C"): (
            "the path B -> Y is open given C, not through the treatment"
        ),
        is_instrument(graph, "B", "X", "Y"): "B and X are independent",
    }
    for criterion, reason in reasons.items():
        assert not criterion
        assert criterion.reason == reason
    assert is_instrument(graph, "A", "X", "Y")
    assert str(is_instrument(graph, "A", "X", "Y")) == "instrument: holds"


def test_the_set_of_an_instrument_is_the_one_near_the_outcome() -> None:
    # given A, which also separates Z from the outcome, Z would say nothing of the treatment
    graph = "A -> {Z B X}; B -> Y; X -> Y; X <-> Y"
    assert list(map(str, instruments(graph, "X", "Y"))) == ["A | B", "Z | B"]


def test_questions_that_are_none() -> None:
    graph = "X -> Y; L [latent]; L -> Y; Z"
    for treatment, outcome, message in [
        ("X", "X", "both treatment and outcome"),
        ("L", "Y", "latent"),
        ("Q", "Y", "not in the graph"),
        ((), "Y", "at least one treatment"),
    ]:
        with pytest.raises(ValueError, match=message):
            adjustment_sets(graph, treatment, outcome)
    for ask in (is_adjustment_set, is_back_door_set, is_front_door_set):
        with pytest.raises(ValueError, match="itself"):
            ask(graph, "X", "Y", "X")
    with pytest.raises(ValueError, match="the effect is zero"):
        instruments(graph, "Z", "Y")
    with pytest.raises(ValueError, match="named twice"):
        is_instrument(graph, "Z", "X", "Y", "Z")
    with pytest.raises(ValueError, match="the effect is zero"):
        optimal_adjustment_set(graph, "Z", "Y")
    with pytest.raises(ValueError, match="No set of observed nodes"):
        optimal_adjustment_set("X -> Y; X <-> Y", "X", "Y")


def test_no_set_is_optimal_for_all_numbers() -> None:
    # an M whose collider E can stand for the hidden cause B of the outcome
    graph = "A -> {X E}; B [latent]; B -> {Y E}; X -> Y"
    with pytest.raises(ValueError, match="depends on the mechanisms"):
        optimal_adjustment_set(graph, "X", "Y")
    best = [winners(as_graph(graph), ["X"], "Y", seed) for seed in range(10)]
    assert {()} in best
    assert {("A", "E")} in best
    assert optimal_adjustment_set(graph, "X", "Y", among="minimal") == ()


def test_a_treatment_after_another_is_not_adjusted_for_by_the_back_door_alone() -> None:
    # Perkovic et al. (2018), example 3, in small: the sets of several treatments
    graph = "X1 -> V -> X2 -> Y; C -> {X2 Y}"  # no proper causal path leads through V
    assert adjustment_sets(graph, ["X1", "X2"], "Y", kind="all") == [("C",), ("V", "C")]
    graph = "X1 -> X2 -> Y; X1 -> Y; C -> {X2 Y}"
    assert adjustment_sets(graph, ["X1", "X2"], "Y") == [("C",)]
    verdict = is_back_door_set(graph, ["X1", "X2"], "Y", "C")
    assert verdict.reason == "the back-door path X2 <- X1 -> Y is open given C"
    assert is_adjustment_set(graph, ["X1", "X2"], "Y", "C")


def test_nothing_is_exponential_on_a_large_graph() -> None:
    draw = np.random.default_rng(0)
    graph = nx.DiGraph()
    graph.add_nodes_from(f"V{i}" for i in range(60))
    pairs = itertools.combinations(list(graph), 2)
    graph.add_edges_from(pair for pair in pairs if draw.random() < 0.1)
    x, y = "V20", max(nx.descendants(graph, "V20"))
    (smallest,) = adjustment_sets(graph, x, y, kind="minimum")
    best = optimal_adjustment_set(graph, x, y)
    assert is_adjustment_set(graph, x, y, smallest)
    assert is_adjustment_set(graph, x, y, best)
    assert len(smallest) <= len(best)
    (door,) = front_door_sets(graph, x, y, kind="one")
    assert is_front_door_set(graph, x, y, door)
