"""Causal graphs as functions on `nx.DiGraph`: written, checked and ordered, and never mutated.

An arrow A -> B says that B listens to A (Pearl 2009, Causality, sec. 1.2.3). The order of the nodes
in the graph is the order of columns and of parents everywhere.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import networkx as nx

from pgm.schema.columns import listing, suggestion

GraphLike: TypeAlias = "nx.Graph | str | Mapping[str, Sequence[str]] | Sequence[tuple[str, str]]"

_TOKEN = re.compile(r'<->|<-|->|--|[{}]|"[^"]*"|(?:(?!<-|->|--)[^\s{}",])+|[^\s,]')


def parse(text: str) -> nx.DiGraph:
    """Reads a graph from arrows: statements end with `;` or a line, braces hold several nodes.

    Args:
        text: such as `"A -> B -> C; A -> {B C}; D"`. A name with spaces stands in double quotes.

    Raises:
        ValueError: something that is no arrow between nodes, an arrow of another kind, or a cycle.

    Example:
        >>> graph = parse("size -> treatment -> recovery; size -> recovery")
        >>> list(graph), parents(graph, "recovery")
        (['size', 'treatment', 'recovery'], ['size', 'treatment'])
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    for statement in re.split(r"[;\n]", text):
        groups = list(_chain(statement))
        for group in groups:
            graph.add_nodes_from(group)
        for causes, effects in itertools.pairwise(groups):
            graph.add_edges_from((a, b) for a in causes for b in effects)
    return as_graph(graph)


def as_graph(graph: GraphLike) -> nx.DiGraph:
    """A checked copy of a causal graph, in whatever form it came.

    Args:
        graph: a DiGraph, a text for `parse`, children by node, or a list of arrows.

    Returns:
        A new DiGraph with the same nodes and arrows, in the same order.

    Raises:
        TypeError: a graph without directions, or nodes that are no strings.
        ValueError: a cycle, a loop, or no node at all.

    Example:
        >>> order(as_graph({"A": ["B", "C"], "B": ["C"]}))
        ('A', 'B', 'C')
    """
    if isinstance(graph, str):
        return parse(graph)
    if isinstance(graph, nx.Graph) and (not graph.is_directed() or graph.is_multigraph()):
        raise TypeError(
            f"A {type(graph).__name__} came. A causal graph is a networkx.DiGraph: each arrow has "
            "a direction, and two nodes share at most one arrow in each."
        )
    copy: nx.DiGraph[str] = nx.DiGraph()
    if isinstance(graph, nx.DiGraph):
        copy.add_nodes_from(graph.nodes)
        copy.add_edges_from(graph.edges)
    elif isinstance(graph, Mapping):
        copy.add_nodes_from(graph)
        copy.add_edges_from((a, b) for a, children in graph.items() for b in children)
    else:
        copy.add_edges_from(graph)
    _check_names(copy)
    check_acyclic(copy)
    return copy


def check_acyclic(graph: nx.DiGraph) -> None:
    """Refuses a graph in which something causes itself.

    Raises:
        ValueError: with the cycle.

    Example:
        >>> check_acyclic(nx.DiGraph([("A", "B"), ("B", "A")]))
        Traceback (most recent call last):
        ValueError: The graph has a cycle, A -> B -> A: a node cannot cause itself at one moment...
    """
    try:
        cycle = [a for a, _ in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        return
    raise ValueError(
        f"The graph has a cycle, {' -> '.join(map(str, [*cycle, cycle[0]]))}: a node cannot cause "
        "itself at one moment, and no order of the mechanisms exists. Turn or drop an arrow; for "
        "feedback over time give every moment nodes of its own (A1 -> B1 -> A2)."
    )


def check_nodes(graph: nx.DiGraph, names: Iterable[str], *, what: str = "Node") -> None:
    """Refuses names that are no nodes of the graph.

    Args:
        graph: the graph.
        names: what should be nodes.
        what: what the names stand for, for the message.

    Raises:
        ValueError: with the nodes, and the one that was perhaps meant.

    Example:
        >>> check_nodes(parse("dose -> recovery"), ["dosis"])
        Traceback (most recent call last):
        ValueError: Node 'dosis' is not in the graph. Did you mean 'dose'? Its nodes are...
    """
    for name in names:
        if name not in graph:
            raise ValueError(
                f"{what} {name!r} is not in the graph.{suggestion(name, graph)} Its nodes are: "
                f"{listing([str(node) for node in graph])}."
            )


def parents(graph: nx.DiGraph, node: str) -> list[str]:
    """The direct causes of a node, in the order of the graph's nodes.

    Raises:
        ValueError: no such node.

    Example:
        >>> parents(parse("A -> B; C -> {A B}"), "B")
        ['A', 'C']
    """
    check_nodes(graph, [node])
    return [other for other in graph if graph.has_edge(other, node)]


def order(graph: nx.DiGraph) -> tuple[str, ...]:
    """The nodes with every cause before its effects; ties as they stand in the graph.

    Raises:
        ValueError: the graph has a cycle.

    Example:
        >>> order(parse("B -> C; A -> B"))
        ('A', 'B', 'C')
    """
    check_acyclic(graph)
    place = {node: i for i, node in enumerate(graph)}
    return tuple(nx.lexicographical_topological_sort(graph, key=place.__getitem__))


def adjacency(graph: nx.DiGraph) -> dict[str, list[str]]:
    """The children of every node, in plain lists: `as_graph` reads it back.

    Example:
        >>> adjacency(parse("A -> {B C}"))
        {'A': ['B', 'C'], 'B': [], 'C': []}
    """
    return {node: [other for other in graph if graph.has_edge(node, other)] for node in graph}


def _chain(statement: str) -> Iterator[list[str]]:
    """The groups of nodes between the arrows of one statement."""
    tokens = _TOKEN.findall(statement)
    while tokens:
        group, tokens = _group(tokens, statement)
        yield group
        if not tokens:
            return
        arrow, *tokens = tokens
        if arrow != "->" or not tokens:
            raise _unread(statement, arrow)


def _group(tokens: list[str], statement: str) -> tuple[list[str], list[str]]:
    """One node or the nodes in braces, and what follows."""
    if tokens[0] != "{":
        group, rest = tokens[:1], tokens[1:]
    elif "}" in tokens:
        end = tokens.index("}")
        group, rest = tokens[1:end], tokens[end + 1 :]
    else:
        raise _unread(statement, "{")
    marks = {"{", "}", "->", "<-", "<->", "--"}.intersection(group)
    if marks or not group:
        raise _unread(statement, min(marks, default="{}"))
    return [name.strip('"') for name in group], rest


def _unread(statement: str, mark: str) -> ValueError:
    advice = {
        "<->": "An unseen common cause is written as a node of its own: U -> {X Y}.",
        "<-": "Write the cause first: A -> B.",
        "--": "An arrow has a direction: A -> B, or B -> A.",
        "->": "An arrow stands between two nodes: A -> B.",
        "{": "Braces hold nodes and are closed: A -> {B C}.",
    }
    why = advice.get(mark, "Nodes are joined by arrows, A -> B; a name with spaces is quoted.")
    return ValueError(
        f"The graph cannot be read at {mark!r} in {statement.strip()!r}. {why} Statements are "
        'parted by ";" or lines, as in "A -> B -> C; A -> {B C}".'
    )


def _check_names(graph: nx.DiGraph) -> None:
    if not len(graph):
        raise ValueError('The graph has no node. Write its arrows, as in "A -> B -> C; A -> C".')
    for node in graph:
        if not isinstance(node, str) or not node.strip():
            raise TypeError(
                f"Node {node!r} is a {type(node).__name__}; nodes are columns of a table and sites "
                "of a program, so their names are strings. Use nx.relabel_nodes(graph, str)."
            )
