"""Graphs as dagitty writes them: `dag { X [exposure] U [latent] U -> {X Y} X -> Y }`.

Textor, van der Zander, Gilthorpe, Liskiewicz & Ellison (2016), Robust causal inference using
directed acyclic graphs: the R package 'dagitty'.
"""

import re

import networkx as nx

from causal.graph.checks import check_graph
from causal.graph.grammar import Statement, Unread, bare, quoted, statements
from causal.graph.latent import add_bidirected, bidirected_nodes

HEAD = re.compile(r'\s*(dag|pdag|mag|pag)\s*("(?:[^"\\]|\\.)*"|\w+)?\s*\{')
_NAME = bare("=@")
_PLAIN = re.compile(r"[a-z_][\w.]*", re.I | re.A)
_LATENT = {"latent", "unobserved", "l", "u"}
_QUESTION = {"exposure", "outcome", "adjusted", "source", "target", "e", "o", "a"}


def from_dagitty(text: str) -> nx.DiGraph:
    """Reads a graph from dagitty's text.

    Which nodes are exposure, outcome or adjusted is not kept: that is the question, and not the
    graph. Positions and coefficients are passed over.

    Raises:
        ValueError: another kind of graph than dag, a node marked as selected or with a mark that
            dagitty does not know, an edge that is no arrow.

    Example:
        >>> from causal.graph import to_text
        >>> to_text(from_dagitty("dag { X [exposure] U [latent] X <- U -> Y X -> Y X <-> Y }"))
        'X; U [latent]; Y; X -> Y; U -> {X Y}; X <-> Y'
    """
    head = HEAD.match(text)
    if not head or not text.rstrip().endswith("}"):
        raise _unread("{", text[:40], "dagitty's text is one graph in braces: dag { A -> B }.")
    if head[1] != "dag":
        raise _unread(
            head[1], text[:40],
            "A causal model is one dag; mag, pdag and pag are classes of them. Choose one: dag "
            "{ A -> B  A <-> C }.",
        )  # fmt: skip
    try:
        read = statements(text[head.end() : text.rstrip().rindex("}")], name=_NAME, ends=";")
    except Unread as problem:
        raise _unread(problem.mark, problem.around) from None
    graph: nx.DiGraph[str] = nx.DiGraph()
    for statement in read:
        _check(statement)
        latent = {"latent": True} if _LATENT & set(statement.attributes) else {}
        for group in statement.groups:
            graph.add_nodes_from(group, **latent)
        graph.add_edges_from(statement.pairs("->"))
        graph.add_edges_from((b, a) for a, b in statement.pairs("<-"))
    add_bidirected(graph, (pair for statement in read for pair in statement.pairs("<->")))
    check_graph(graph)
    return graph


def to_dagitty(graph: nx.DiGraph) -> str:
    """The graph in dagitty's text, which `from_dagitty` reads back.

    Example:
        >>> from causal.graph import parse
        >>> print(to_dagitty(parse("U [latent]; U -> {X Y}; X -> Y; X <-> Y")))
        dag {
          U [latent]
          X
          Y
          U -> X
          U -> Y
          X -> Y
          X <-> Y
        }
    """
    ends = bidirected_nodes(graph)
    lines = [
        _quoted(v) + (" [latent]" if graph.nodes[v].get("latent") else "")
        for v in graph
        if v not in ends
    ]
    lines += [f"{_quoted(a)} -> {_quoted(b)}" for a, b in graph.edges if a not in ends]
    lines += [f"{_quoted(a)} <-> {_quoted(b)}" for a, b in ends.values()]
    return "\n".join(["dag {", *(f"  {line}" for line in lines), "}"])


def _check(statement: Statement) -> None:
    around = statement.groups[0][0]
    if "--" in statement.arrows:
        raise _unread("--", around, "An arrow has a direction: A -> B.")
    if statement.arrows:
        return
    marks = {key for key, value in statement.attributes.items() if value == "true"}
    if {"selected", "s"} & marks:
        raise _unread(
            "selected", around,
            "Rows that were chosen by a variable (selection bias) are not modelled here: no answer "
            "would be right for them.",
        )  # fmt: skip
    if unknown := sorted(marks - _LATENT - _QUESTION):
        raise _unread(
            unknown[0], around,
            "dagitty's marks of a node are exposure, outcome, adjusted and latent; a node with "
            "another one would be taken for an observed one.",
        )  # fmt: skip


def _quoted(name: str) -> str:
    return quoted(name, unless=_PLAIN)


def _unread(mark: str, around: str, why: str = "") -> ValueError:
    why = why or "Nodes are joined by arrows: dag { U [latent] X -> Y X <-> Z }."
    return ValueError(f"The dagitty text cannot be read at {mark!r} in {around!r}. {why}")
