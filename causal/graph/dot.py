"""Graphs as DOT, the language of Graphviz: `digraph { A -> B; B -> C [dir=both] }`."""

import re

import networkx as nx

from causal.graph.checks import check_graph
from causal.graph.grammar import Statement, Unread, bare, quoted, statements
from causal.graph.latent import add_bidirected, bidirected_nodes, is_latent

_QUOTED = r'"(?:[^"\\]|\\.)*"'
HEAD = re.compile(
    rf"(?:\s|//[^\n]*\n|/\*.*?\*/|#[^\n]*\n)*(?:strict\s+)?(?P<di>di)?graph\b\s*({_QUOTED}|\w+)?\s*\{{",
    re.IGNORECASE | re.DOTALL,
)
_COMMENT = re.compile(rf"({_QUOTED})|//[^\n]*|/\*.*?\*/|^\s*#[^\n]*", re.DOTALL | re.MULTILINE)
_DEFAULT = re.compile(
    rf"({_QUOTED})|(?<![\w.-])(node|edge|graph)\s*\[((?:[^\]\"]|{_QUOTED})*)\]", re.DOTALL | re.I
)
_MEANT = re.compile(r"\b(dir|arrowhead|arrowtail|latent|hidden|unobserved|observed)\s*=")
_NAME = bare("=:+<>")
_PLAIN = re.compile(r"(?!(?:node|edge|graph|digraph|subgraph|strict)$)[a-z_]\w*", re.I | re.A)


def from_dot(text: str) -> nx.DiGraph:
    """Reads a graph from DOT.

    Nodes, chains of arrows, braces, quoted names, comments and attributes are read. An arrow with
    `dir=both` (or written `<->`) is bidirected, one with `dir=back` is turned. A node is latent
    where an attribute says so: `latent=true`, `hidden=true`, `observed=no`. Everything else is a
    matter of drawing and is passed over.

    Raises:
        ValueError: an undirected graph, circles or no heads at an arrow's ends, clusters, ports.

    Example:
        >>> from causal.graph import to_text
        >>> to_text(from_dot('digraph { "a b" -> {c d}; c -> d [dir=both]; /* no more */ }'))
        '"a b" -> {c d}; c <-> d'
    """
    text = _DEFAULT.sub(_pass_over, _COMMENT.sub(lambda comment: comment[1] or " ", text))
    head = HEAD.match(text)
    if not head or not text.rstrip().endswith("}"):
        raise _unread(
            "{", text[:40],
            "DOT is one graph in braces, with nothing behind them: digraph { A -> B }.",
        )  # fmt: skip
    if not head["di"]:
        raise _unread("graph", text[:40], "An arrow has a direction: write digraph { A -> B }.")
    try:
        read = statements(text[head.end() : text.rstrip().rindex("}")], name=_NAME, ends=";")
    except Unread as problem:
        raise _unread(problem.mark, problem.around) from None
    graph: nx.DiGraph[str] = nx.DiGraph()
    both: list[tuple[str, str]] = []
    for statement in read:
        _add(graph, both, statement)
    add_bidirected(graph, both)
    check_graph(graph)
    return graph


def to_dot(graph: nx.DiGraph) -> str:
    """The graph in DOT, as Graphviz draws it and `from_dot` reads it back.

    Example:
        >>> from causal.graph import parse
        >>> print(to_dot(parse("X -> Y; X <-> Y")))
        digraph {
          X;
          Y;
          X -> Y;
          X -> Y [dir=both, style=dashed];
        }
    """
    ends = bidirected_nodes(graph)
    lines = [
        _quoted(v) + (" [latent=true, style=dashed]" if graph.nodes[v].get("latent") else "")
        for v in graph
        if v not in ends
    ]
    lines += [f"{_quoted(a)} -> {_quoted(b)}" for a, b in graph.edges if a not in ends]
    both = [f"{_quoted(a)} -> {_quoted(b)} [dir=both, style=dashed]" for a, b in ends.values()]
    return "\n".join(["digraph {", *(f"  {line};" for line in [*lines, *both]), "}"])


def _add(graph: nx.DiGraph, both: list[tuple[str, str]], statement: Statement) -> None:
    """Adds the nodes and arrows of a statement, and to `both` its bidirected edges."""
    for node in (node for group in statement.groups for node in group):
        graph.add_node(node)
        if not statement.arrows and is_latent(node, statement.attributes):
            graph.nodes[node]["latent"] = True
    if "--" in statement.arrows:
        around = f"{statement.groups[0][0]} -- {statement.groups[1][0]}"
        raise _unread("--", around, "An arrow has a direction: A -> B.")
    both += statement.pairs("<->")
    back, ahead = _heads(statement)
    for pairs, turned in ((statement.pairs("->"), False), (statement.pairs("<-"), True)):
        for a, b in pairs:
            if back and ahead:
                both.append((a, b))
            else:
                graph.add_edge(*((b, a) if turned != back else (a, b)))


def _heads(statement: Statement) -> tuple[bool, bool]:
    """Whether the arrows have a head at their back and at their front end."""
    marks = statement.attributes
    where = marks.get("dir", "forward")
    back, ahead = marks.get("arrowtail", "normal"), marks.get("arrowhead", "normal")
    heads = (where in ("back", "both") and back != "none",
             where in ("forward", "both") and ahead != "none")  # fmt: skip
    shown = [end for head, end in zip(heads, (back, ahead), strict=True) if head]
    if statement.arrows and (not any(heads) or any("dot" in end for end in shown)):
        around = f"{statement.groups[0][0]} -> {statement.groups[1][0]} [dir={where}]"
        raise _unread(
            "dir" if not any(heads) else "dot", around,
            "An arrow has one head, or two for an unseen common cause; ends without a head or with "
            "a circle are those of equivalence classes (CPDAG, PAG). Choose one graph of the "
            "class.",
        )  # fmt: skip
    return heads


def _pass_over(found: re.Match[str]) -> str:
    """A quoted name stays; what nodes, edges or the graph look like by default is left out."""
    if found[1]:
        return found[1]
    if found[2].lower() != "graph" and (key := _MEANT.search(found[3])):
        around = f"{found[2]} [{key[1]}=...]"
        raise _unread(found[2], around, "Write it at each node or arrow itself.")
    return ";"


def _quoted(name: str) -> str:
    return quoted(name, unless=_PLAIN)


def _unread(mark: str, around: str, why: str = "") -> ValueError:
    why = why or (
        "Of DOT are read: digraph { }, nodes, arrows a -> b -> {c d}, attributes in brackets at "
        "the end of a statement, quoted names and comments; no subgraph or cluster, no port, no "
        "HTML. Take those out, or read the file with pydot and pass the DiGraph."
    )
    return ValueError(f"The DOT text cannot be read at {mark!r} in {around!r}. {why}")
