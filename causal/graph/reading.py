"""One function that reads a causal graph in whatever form it comes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import networkx as nx
import numpy as np
from torch import Tensor

from causal.graph import dagitty, dot, gml
from causal.graph.checks import check_graph
from causal.graph.latent import copied
from causal.graph.matrices import from_frame, from_matrix
from causal.graph.structure import Nodes, node_set
from causal.graph.text import parse

if TYPE_CHECKING:
    import pandas

GraphLike: TypeAlias = Union[
    nx.Graph,
    str,
    Path,
    Mapping[str, Iterable[str]],
    Iterable[Sequence[str]],
    np.ndarray,
    Tensor,
    "pandas.DataFrame",
]
_FILE = re.compile(r"[^\n{}\[\]]*\.(?:dot|gv|gml|txt|dag)")


def as_graph(
    graph: GraphLike, *, latent: Nodes = (), names: Sequence[str] | None = None
) -> nx.DiGraph:
    """A checked copy of a causal graph, in whatever form it came.

    A text is told by how it begins: `digraph {` is DOT, `graph [` is GML, `dag {` is dagitty, and
    all else is read by `parse`. A Path is a file with such a text.

    Args:
        graph: a DiGraph; a text or the Path of one; children by node; a list of arrows (cause,
            effect); a numpy or torch adjacency matrix or a pandas frame, in which the row is the
            cause and the column the effect.
        latent: nodes that are not observed, besides those that the graph itself marks.
        names: the nodes of a numpy or torch matrix; X0, X1, ... by default.

    Returns:
        A new DiGraph with the same nodes and arrows, in the same order. Nodes that are not observed
        carry the attribute `latent=True`, also where it was `hidden=True` or `observed="no"`.

    Raises:
        TypeError: a graph without directions, nodes that are no strings, or another type.
        ValueError: a cycle, a loop, no node at all, or a text that cannot be read.

    Example:
        >>> from causal.graph import latents, order
        >>> graph = as_graph({"A": ["B", "C"], "B": ["C"]}, latent="A")
        >>> order(graph), latents(graph)
        (('A', 'B', 'C'), ['A'])
        >>> as_graph("digraph { A -> B }").edges == as_graph([("A", "B")]).edges
        True
    """
    if names is not None and not isinstance(graph, np.ndarray | Tensor):
        raise TypeError(
            f"names are for an adjacency matrix, and a {type(graph).__name__} came, which names "
            "its nodes itself. Leave them out, or use nx.relabel_nodes."
        )
    copy = _read(graph, names)
    check_graph(copy)
    for node in node_set(copy, latent):
        copy.nodes[node]["latent"] = True
    return copy


def _read(graph: Any, names: Sequence[str] | None) -> nx.DiGraph:
    if isinstance(graph, nx.Graph):
        return copied(graph)
    if isinstance(graph, Path):
        return _read_text(graph.read_text(encoding="utf-8"))
    if isinstance(graph, str):
        _refuse_file(graph)
        return _read_text(graph)
    if isinstance(graph, np.ndarray | Tensor):
        return from_matrix(graph, names)
    if type(graph).__module__.split(".")[0] == "pandas":
        return from_frame(graph)
    if isinstance(graph, Iterable):
        return _from_arrows(graph)
    raise TypeError(
        f"A {type(graph).__name__} came. A causal graph is a networkx.DiGraph, a text such as "
        '"A -> B", a Path, a dict of children, a list of arrows or an adjacency matrix.'
    )


def _read_text(text: str) -> nx.DiGraph:
    text = text.removeprefix("\ufeff")
    for head, read in (
        (dot.HEAD, dot.from_dot),
        (gml.HEAD, gml.from_gml),
        (dagitty.HEAD, dagitty.from_dagitty),
    ):
        if head.match(text):
            return read(text)
    return parse(text)


def _refuse_file(text: str) -> None:
    if "->" not in text and _FILE.fullmatch(text.strip()):
        raise ValueError(
            f"The text {text!r} looks like the name of a file, and would be a graph of one node. "
            f"For the file pass as_graph(pathlib.Path({text.strip()!r}))."
        )


def _from_arrows(graph: Iterable[Any]) -> nx.DiGraph:
    """From children by node, or from arrows."""
    new: nx.DiGraph[str] = nx.DiGraph()
    arrows: list[Any] = []
    if isinstance(graph, Mapping) and not isinstance(graph, nx.classes.reportviews.OutEdgeView):
        new.add_nodes_from(graph)
        for cause, found in graph.items():
            children = [found] if isinstance(found, str) else found
            arrows += [(cause, effect) for effect in children]
    else:
        arrows = list(graph)
    for arrow in arrows:
        if isinstance(arrow, str) or not isinstance(arrow, Sequence) or len(arrow) != 2:
            raise TypeError(
                f"{arrow!r} is no arrow. A list of arrows holds pairs (cause, effect): "
                '[("A", "B"), ("B", "C")].'
            )
        new.add_edge(*arrow)
    return new
