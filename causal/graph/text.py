"""Our own text for graphs: `"U [latent]; U -> {X Y}; X -> Z -> Y; X <-> Y"`."""

import itertools

import networkx as nx

from causal.graph.checks import check_graph
from causal.graph.grammar import Statement, Unread, quoted, statements
from causal.graph.latent import add_bidirected, bidirected_nodes


def parse(text: str) -> nx.DiGraph:
    r"""Reads a graph from arrows: statements end with `;` or a line, braces hold several nodes.

    Args:
        text: such as `"A -> B -> C; A -> {B C}; D"`. `X <-> Y` is an unseen common cause, a latent
            node `U(X,Y)`; `U [latent]` says that node U is not observed. A name with spaces or
            marks stands in double quotes, in which `\"` is a quote.

    Raises:
        ValueError: something that is no arrow between nodes, an arrow of another kind, or a cycle.

    Example:
        >>> from causal.graph import latents, parents
        >>> graph = parse("size -> treatment -> recovery; size -> recovery")
        >>> list(graph), parents(graph, "recovery")
        (['size', 'treatment', 'recovery'], ['size', 'treatment'])
        >>> latents(parse("U [latent]; U -> {X Y}; X -> Z -> Y; X <-> Z"))
        ['U', 'U(X,Z)']
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    try:
        read = statements(text)
    except Unread as problem:
        raise _unread(problem.mark, problem.around) from None
    for statement in read:
        _check(statement)
        for group in statement.groups:
            graph.add_nodes_from(group, **{"latent": True} if statement.attributes else {})
        graph.add_edges_from(statement.pairs("->"))
    add_bidirected(graph, (pair for statement in read for pair in statement.pairs("<->")))
    check_graph(graph)
    return graph


def to_text(graph: nx.DiGraph) -> str:
    """The graph as a text that `parse` reads back, with the same nodes in the same order.

    Example:
        >>> to_text(parse("X -> Z; X -> Y; Z -> Y; Y <-> X"))
        'X -> {Z Y}; Z -> Y; X <-> Y'
    """
    ends = bidirected_nodes(graph)
    hidden = {node for node in graph if graph.nodes[node].get("latent")}
    marks = {v: [f"{quoted(v)} [latent]"] if v in hidden else [] for v in graph if v not in ends}
    arrows = {v: _arrows(graph, v) for v in marks}
    both = [f"{quoted(a)} <-> {quoted(b)}" for a, b in ends.values()]
    text = "; ".join([line for v in marks for line in [*marks[v], *arrows[v]]] + both)
    if text and list(parse(text).nodes.data("latent")) == list(graph.nodes.data("latent")):
        return text
    nodes = [line for v in marks for line in marks[v] or [quoted(v)]]
    return "; ".join([*nodes, *itertools.chain(*arrows.values()), *both])


def _arrows(graph: nx.DiGraph, node: str) -> list[str]:
    """The statement with all children of a node, if it has any."""
    children = [quoted(child) for child in graph if graph.has_edge(node, child)]
    effects = children[0] if len(children) == 1 else "{" + " ".join(children) + "}"
    return [f"{quoted(node)} -> {effects}"] if children else []


def _check(statement: Statement) -> None:
    for arrow in {"<-", "--"}.intersection(statement.arrows):
        raise _unread(arrow, _written(statement))
    if statement.attributes not in ({}, {"latent": "true"}):
        raise _unread("[", _written(statement))
    if statement.attributes and statement.arrows:
        raise _unread("]", _written(statement))


def _written(statement: Statement) -> str:
    groups = [g[0] if len(g) == 1 else "{" + " ".join(g) + "}" for g in statement.groups]
    parts = [part for pair in zip(groups, [*statement.arrows, ""], strict=True) for part in pair]
    marks = [key if v == "true" else f"{key}={v}" for key, v in statement.attributes.items()]
    return " ".join([*parts[:-1], *([f"[{', '.join(marks)}]"] if marks else [])])


def _unread(mark: str, around: str) -> ValueError:
    advice = {
        "<->": "X <-> Y, an unseen common cause, stands between two nodes.",
        "<-": "Write the cause first: A -> B.",
        "--": "An arrow has a direction: A -> B, or B -> A.",
        "->": "An arrow stands between two nodes: A -> B.",
        "{": "Braces hold nodes and are closed: A -> {B C}.",
        "[": "The one mark of a node is [latent]; a name with brackets is quoted.",
        "]": "A node is declared in a statement of its own: U [latent]; U -> {X Y}.",
    }
    why = advice.get(mark, "Nodes are joined by arrows, A -> B; a name with spaces is quoted.")
    return ValueError(
        f"The graph cannot be read at {mark!r} in {around!r}. {why} Statements are "
        'parted by ";" or lines, as in "A -> B -> C; A -> {B C}".'
    )
