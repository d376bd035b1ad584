"""PC and FCI told by d-separation itself, where the answer is known; NOTEARS and its scale."""

import itertools

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import pgm.data
from causal.discovery import fci, notears, pc
from causal.discovery.continuous import varsortability
from causal.discovery.marks import ARROW, NONE, TAIL
from causal.graph import ancestors, observed, parse, separated


def oracle(graph):
    return lambda x, y, given: float(separated(graph, x, y, given))


def random_graph(nodes: int, seed: int, share: float = 0.5) -> nx.DiGraph:
    rng = np.random.default_rng(seed)
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from("ABCDEFGH"[:nodes])
    order = rng.permutation(list(graph))
    pairs = itertools.combinations(order, 2)
    graph.add_edges_from((str(a), str(b)) for a, b in pairs if rng.random() < share)
    return graph


def meaning(graph: nx.DiGraph) -> tuple:
    """Skeleton and colliders between nodes apart, which equivalent graphs share (Verma & Pearl)."""
    skeleton = frozenset(frozenset(e) for e in graph.edges)
    colliders = frozenset(
        (frozenset((a, c)), b)
        for b in graph
        for a, c in itertools.combinations(sorted(graph.pred[b]), 2)
        if frozenset((a, c)) not in skeleton
    )
    return skeleton, colliders


def every_graph(nodes: str) -> list[nx.DiGraph]:
    pairs, found = list(itertools.combinations(nodes, 2)), []
    for turns in itertools.product((0, 1, 2), repeat=len(pairs)):
        graph: nx.DiGraph = nx.DiGraph()
        graph.add_nodes_from(nodes)
        for (a, b), turn in zip(pairs, turns, strict=True):
            if turn:
                graph.add_edge(*((a, b) if turn == 1 else (b, a)))
        if nx.is_directed_acyclic_graph(graph):
            found.append(graph)
    return found


def test_pc_finds_the_arrows_that_all_equivalent_graphs_share() -> None:
    classes: dict = {}
    for graph in every_graph("ABCD"):
        classes.setdefault(meaning(graph), []).append(graph)
    assert len(classes) == 185  # Gillispie & Perlman (2001), four nodes
    for (skeleton, _), graphs in list(classes.items())[::4]:
        found = pc(test=oracle(graphs[0]), names=list("ABCD"))
        shared = set.intersection(*(set(g.edges) for g in graphs))
        assert set(found.directed().edges) == shared
        marked = {frozenset("ABCD"[k] for k in e) for e in np.argwhere(found.marks != NONE)}
        assert marked == set(skeleton)


@pytest.mark.parametrize("seed", range(12))
def test_fci_is_right_of_graphs_with_unseen_causes(seed: int) -> None:
    """Edges where nothing seen separates; tails at causes, arrowheads at what is no cause."""
    graph = random_graph(7, seed)
    hidden = list(graph)[seed % 7], list(graph)[(seed + 3) % 7]
    names = [v for v in graph if v not in hidden]
    found = fci(test=oracle(graph), names=names)
    for (i, x), (j, y) in itertools.combinations(enumerate(names), 2):
        rest = [v for v in names if v not in (x, y)]
        apart = any(
            separated(graph, x, y, z)
            for k in range(len(rest) + 1)
            for z in itertools.combinations(rest, k)
        )
        assert (found.marks[i, j] == NONE) == apart
        for (a, u), (b, v) in (((i, x), (j, y)), ((j, y), (i, x))):
            if found.marks[a, b] == ARROW:
                assert v not in ancestors(graph, u)
            if found.marks[a, b] == TAIL:
                assert v in ancestors(graph, u)


@pytest.mark.parametrize(
    ("text", "edges"),
    [
        ("A -> B; B <-> C; D -> C", ["A o-> B", "B <-> C", "D o-> C"]),
        ("A -> C; B -> C; C -> D", ["A o-> C", "B o-> C", "C -> D"]),
        ("A -> B -> C", ["A o-o B", "B o-o C"]),
        ("A -> B; B <-> C; B -> D; C -> D", ["A o-> B", "C o-> B", "B -> D", "C -> D"]),
        # Zhang (2008), rule 4: A *-> B <-* C *-* D is a discriminating path for C
        ("A -> B; B <-> C; B -> D; C <-> D", ["A o-> B", "B <-> C", "B -> D", "C <-> D"]),
    ],
)
def test_fci_of_small_graphs(text: str, edges: list[str]) -> None:
    graph = parse(text)
    names = sorted(observed(graph))
    assert sorted(fci(test=oracle(graph), names=names).edges()) == sorted(edges)


EDGES = [None, ("-", ">"), ("<", "-"), ("<", ">")]


def ancestral_graphs(names):
    """The edges of every ancestral graph by pair of nodes, and a DAG that says the same."""
    pairs = list(itertools.combinations(names, 2))
    for edges in itertools.product(EDGES, repeat=len(pairs)):
        found = list(zip(pairs, edges, strict=True))
        graph: nx.DiGraph = nx.DiGraph([p for p, e in found if e == ("-", ">")])
        graph.add_edges_from(p[::-1] for p, e in found if e == ("<", "-"))
        graph.add_nodes_from(names)
        both = [p for p, e in found if e == ("<", ">")]
        if nx.is_directed_acyclic_graph(graph):
            if any(nx.has_path(graph, *p) or nx.has_path(graph, *p[::-1]) for p in both):
                continue
            graph.add_edges_from((f"u{k}", end) for k, pair in enumerate(both) for end in pair)
            yield edges, graph


def test_fci_tells_all_that_four_nodes_can() -> None:
    """Of all 2492 maximal ancestral graphs of four nodes: the marks that their class shares.

    Richardson & Spirtes (2002) for the definition, by brute force; Zhang (2008) for the theorem
    that FCI is sound and complete.
    """
    names = "ABCD"
    pairs = list(itertools.combinations(names, 2))
    rest = {p: sorted(set(names) - set(p)) for p in pairs}
    given = {p: [z for k in range(3) for z in itertools.combinations(rest[p], k)] for p in pairs}
    classes: dict = {}
    for edges, graph in ancestral_graphs(names):
        said = {
            p: [nx.is_d_separator(graph, {p[0]}, {p[1]}, set(z)) for z in given[p]] for p in pairs
        }
        if all(any(said[p]) for p, e in zip(pairs, edges, strict=True) if e is None):
            classes.setdefault(tuple(map(tuple, said.values())), []).append(edges)
    assert (sum(map(len, classes.values())), len(classes)) == (2492, 248)
    for said, members in classes.items():
        table = {
            (*p, z): each
            for p, values in zip(pairs, said, strict=True)
            for z, each in zip(given[p], values, strict=True)
        }

        def test(x, y, z, table=table):
            return float(table[(*sorted((x, y)), tuple(sorted(z)))])

        shared = set()
        for p, *edges in zip(pairs, *members, strict=True):
            if edges[0] is not None:
                ends = [{edge[end] for edge in edges} for end in (0, 1)]
                shared.add((*p, *(e.pop() if len(e) == 1 else "o" for e in ends)))
        assert set(map(in_order, fci(test=test, names=list(names)).edges())) == shared


def in_order(edge):
    """The nodes of an edge in alphabetical order, and the marks there."""
    a, marks, b = edge.split()
    turned = str.maketrans("<>", "><")
    if a > b:
        return b, a, marks[-1].translate(turned), marks[0].translate(turned)
    return a, b, marks[0], marks[-1]


def test_pc_on_cells() -> None:
    data = pgm.data.load("sachs")
    frame = data.frame[(~data.clamped.any(1)).numpy()][["Raf", "Mek", "PKC", "P38", "Plcg"]]
    found = pc(frame)
    assert "Raf -- Mek" in list(found.edges())
    assert str(found).startswith(f"{len(list(found.edges()))} edges, PC at level 0.01")
    assert found.separators and frozenset(("Raf", "Mek")) not in found.separators


def test_tests_need_something_to_test() -> None:
    with pytest.raises(ValueError, match="Pass rows, or a test"):
        pc()
    with pytest.raises(ValueError, match="between 0 and 1"):
        fci(test=lambda x, y, z: 1.0, names=["A", "B"], alpha=1.0)
    empty = pc(test=lambda x, y, z: 1.0, names=["A", "B", "C"])
    assert not list(empty.edges()) and empty.tests == 3


def chain(rows: int = 1000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    y = 2 * x + rng.normal(size=rows)
    return pd.DataFrame({"z": 2 * y + rng.normal(size=rows), "x": x, "y": y})


def test_notears_reads_the_order_off_the_variances_and_says_so() -> None:
    with pytest.warns(UserWarning, match="100% of these directions"):
        raw = notears(chain(), standardise=False)
    assert set(raw.graph().edges) == {("x", "y"), ("y", "z")}
    assert raw.weights[1, 2] == pytest.approx(2, abs=0.2)
    scaled = notears(chain())
    joined = {frozenset(e) for e in scaled.graph().edges}
    assert joined >= {frozenset("xy"), frozenset("yz")}
    assert nx.is_directed_acyclic_graph(scaled.graph())
    assert "no evidence of causes" in str(scaled)


def test_varsortability_of_a_chain() -> None:
    W = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert varsortability(W, np.array([1.0, 2.0, 3.0])) == 1
    assert varsortability(W, np.array([3.0, 2.0, 1.0])) == 0
    assert varsortability(W, np.ones(3)) == 0.5
    assert varsortability(0 * W, np.ones(3)) == 0.5
