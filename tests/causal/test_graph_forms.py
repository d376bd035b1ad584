"""Forms of graphs: what is written is read back, and what other libraries write is read right."""

import itertools
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from causal.graph import (
    as_graph,
    bidirected,
    from_dagitty,
    from_dot,
    from_gml,
    latents,
    observed,
    parse,
    to_dagitty,
    to_dot,
    to_gml,
    to_text,
)

ODD = [
    "a b", 'say "yes"', "back\\", "node", "latent", "graph", "ü", "x->y", "{", "1", "a;b,c", "[x]",
    "two\nlines", "true", "U(A,B)", "dag", "#", "//", "a=b", "A:B",
]  # fmt: skip


@st.composite
def admgs(draw: st.DrawFn) -> nx.DiGraph:
    """Random graphs with latent nodes anywhere, bidirected edges and names of every kind."""
    names = draw(st.lists(st.sampled_from([*"ABCDE", *ODD]), min_size=1, max_size=6, unique=True))
    graph: nx.DiGraph = nx.DiGraph()
    for name in draw(st.permutations(names)):
        graph.add_node(name, **draw(st.sampled_from([{}, {}, {"latent": True}])))
    pairs = list(itertools.combinations(names, 2))
    if pairs:
        graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), unique=True)))
        for a, b in draw(st.lists(st.sampled_from(pairs), max_size=3, unique=True)):
            a, b = (v for v in graph if v in (a, b))
            graph.add_node(f"U({a},{b})", latent=True)
            graph.add_edges_from([(f"U({a},{b})", a), (f"U({a},{b})", b)])
    return graph if nx.is_directed_acyclic_graph(graph) else nx.DiGraph([("A", "B")])


def check_same(a: nx.DiGraph, b: nx.DiGraph) -> None:
    assert list(a) == list(b)
    assert set(a.edges) == set(b.edges)
    assert latents(a) == latents(b)


@pytest.mark.parametrize(
    ("write", "read"),
    [(to_text, parse), (to_dot, from_dot), (to_dagitty, from_dagitty), (to_gml, from_gml)],
)
@given(graph=admgs())
@example(graph=parse("A <-> B; B <-> C; A <-> C"))
def test_what_is_written_is_read_back(
    write: Callable[[nx.DiGraph], str], read: Callable[[str], nx.DiGraph], graph: nx.DiGraph
) -> None:
    before = (list(graph.nodes.data()), list(graph.edges))
    text = write(graph)
    check_same(read(text), graph)
    assert before == (list(graph.nodes.data()), list(graph.edges))
    if write is not to_text or not any(name in text for name in ("graph", "dag")):
        check_same(as_graph(text), graph)


@given(graph=admgs())
def test_networkx_reads_our_gml(graph: nx.DiGraph) -> None:
    read = nx.parse_gml(to_gml(graph))
    assert list(read) == list(graph)
    assert [v for v in read if read.nodes[v]["observed"] == "no"] == latents(graph)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot 4.0 on pyparsing 3.3
def test_graphviz_grammar_of_pydot_reads_our_dot() -> None:
    graph = parse('"a b" -> {C "node"}; C -> D; "a b" <-> D; L [latent]; L -> {C D}')
    (read,) = pytest.importorskip("pydot").graph_from_dot_data(to_dot(graph))
    names = {node.get_name(): node for node in read.get_nodes()}
    assert set(names) == {'"a b"', "C", '"node"', "D", "L"}
    assert names["L"].get("latent") == "true"
    arrows = {(e.get_source(), e.get_destination(), e.get("dir")) for e in read.get_edges()}
    assert ('"a b"', "D", "both") in arrows
    assert ("L", "C", None) in arrows


def test_the_dialects_that_dowhy_writes() -> None:
    gml = 'graph[directed 1node[ id "y" label "y"]node[ id "W0" label "W0"]node[ id "v" label "v"]'
    gml += 'edge[source "v" target "y"]edge[ source "W0" target "v"]edge[ source "W0" target "y"]]'
    dot = 'digraph {v->y;W0-> v; W0-> y;U[label="Unobserved", observed=no];U->v; U->y;}'
    assert set(as_graph(gml).edges) == {("v", "y"), ("W0", "v"), ("W0", "y")}
    assert latents(as_graph(gml, latent="W0")) == ["W0"]
    assert bidirected(as_graph(dot)) == [("v", "y")]
    mine = nx.DiGraph([("U", "v"), ("U", "y"), ("v", "y")])
    nx.set_node_attributes(mine, {"U": "no", "v": "yes", "y": "yes"}, "observed")
    assert latents(as_graph(mine)) == ["U"]


def test_dot_as_people_write_it() -> None:
    graph = as_graph(
        """/* smoking */ strict digraph "front door" {
        rankdir = LR; bgcolor="#ffffff" // left to right
        node [shape=circle, style="filled"]
        # a line of the preprocessor
        smoking [label="Smokes -> ?", pos="0,1!"]
        smoking -> tar -> cancer [color=red]
        {smoking; "cancer"} -> cost
        smoking -> cancer [dir=both, style=dashed]
        gene -> cost [dir=back, arrowtail=normal]
        }"""
    )
    assert list(graph)[:4] == ["smoking", "tar", "cancer", "cost"]
    assert bidirected(graph) == [("smoking", "cancer")]
    assert graph.has_edge("cost", "gene")
    assert len(graph.edges) == 7
    # the ends that causal-learn writes
    assert as_graph("digraph { A -> B [dir=both, arrowtail=none] }").has_edge("A", "B")


def test_dagitty_as_people_write_it() -> None:
    # dagitty's own help: an M-shaped graph, edges in both notations, properties and layout
    graph = as_graph(
        """dag {
        bb="0,0,1,1"
        x [exposure,pos="0.1,0.2"]
        "the outcome" [outcome]
        z [unobserved] ; w [pos="1,1",adjusted]
        x -> "the outcome" [beta=0.3] x <- z -> "the outcome"
        x <- w <-> "the outcome"
        }"""
    )
    assert observed(graph) == ["x", "the outcome", "w"]
    assert bidirected(graph) == [("x", "the outcome"), ("the outcome", "w")]
    assert as_graph("dag{ x<->m<->y<-x }").number_of_edges() == 5


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_a_row_is_a_cause(kind: Callable[..., np.ndarray | torch.Tensor]) -> None:
    graph = as_graph(kind([[0, 0.5, -2.0], [0, 0, 1], [0, 0, 0]]), names=["A", "B", "C"])
    assert list(graph) == ["A", "B", "C"]
    assert set(graph.edges) == {("A", "B"), ("A", "C"), ("B", "C")}


def test_matrices_and_frames_are_read_back_from_networkx() -> None:
    graph = parse("B -> C; A -> {B C}; D")
    check_same(as_graph(nx.to_numpy_array(graph), names=list(graph)), graph)
    check_same(as_graph(nx.to_pandas_adjacency(graph)), graph)
    check_same(as_graph(nx.to_dict_of_lists(graph)), graph)
    assert set(as_graph(graph.edges).edges) == set(graph.edges)
    assert list(as_graph(np.zeros((2, 2)))) == ["X0", "X1"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.dot", "digraph { A -> B; A -> B [dir=both] }"),
        ("a.gml", to_gml(parse("A -> B; A <-> B"))),
        ("a.txt", "dag { A -> B A <-> B }"),
        ("b.txt", "A -> B\nA <-> B\n"),
    ],
)
def test_files_are_paths(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    check_same(as_graph(tmp_path / name), parse("A -> B; A <-> B"))
    with pytest.raises(ValueError, match=r"pathlib\.Path"):
        as_graph(str(tmp_path / name))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("graph { A -- B }", "has a direction"),
        ("digraph { A -- B }", "has a direction"),
        ("digraph { A -> B [dir=none] }", "one head"),
        ("digraph { A -> B [arrowhead=none] }", "one head"),
        ("digraph { A -> B [dir=both, arrowtail=odot] }", "circle"),
        ("digraph { subgraph cluster_0 { A -> B } }", "cluster"),
        ("digraph { A:n -> B }", "no port"),
        ("digraph { edge [dir=both]; A -> B }", "each node or arrow itself"),
        ("digraph { A [observed=perhaps] }", "neither yes nor no"),
        ("digraph { A -> B", "braces"),
        ("dag { A -- B }", "has a direction"),
        ("dag { A @-> B }", "at '@'"),
        ("dag { A [selected] A -> B }", "selection bias"),
        ("dag { A [hidden_confounder] A -> B }", "another one"),
        ("mag { A -> B }", "one dag"),
        ("graph [ directed 1 node [ id ] ]", "GML text"),
        ('graph [ node [ id 0 label "A" ] ]', "directed 1"),
        ({"A": ["B"], "B": ["A"]}, "cycle"),
        (np.ones((2, 3)), "square"),
        (np.array([[0.0, np.nan], [0.0, 0.0]]), "finite"),
        (np.array([[0, -1], [1, 0]]), "end marks"),
        (pd.DataFrame({"cause": ["A"], "effect": ["B"]}), "itertuples"),
    ],
)
def test_what_is_no_causal_graph(graph: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_graph(graph)


@pytest.mark.parametrize("graph", [["AB"], [("A", "B", "C")], ["A", "B"]])
def test_what_is_no_arrow(graph: object) -> None:
    with pytest.raises(TypeError, match="is no arrow"):
        as_graph(graph)


def test_names_belong_to_a_matrix() -> None:
    with pytest.raises(TypeError, match="names are for"):
        as_graph("A -> B", names=["A", "B"])
    with pytest.raises(ValueError, match="1 names"):
        as_graph(np.zeros((2, 2)), names=["A"])
