"""What structural models have in common: a causal graph, and a mechanism for every node of it.

p(x_1, ..., x_d) = prod_j p(x_j | parents of j) (Pearl 2009, Causality, eq. 1.33). The node loop of
`Structural.draw` is the one place where arrows become arguments, and so where an arrow, or a whole
mechanism, can be exchanged for another one.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import networkx as nx
import pyro
import torch
from torch import Tensor

from causal.graph import check_nodes, observed, order, parents
from causal.mechanisms import Kind, Mechanism
from pgm import Model, Schema, rows
from pgm.schema.columns import listing

Arrow: TypeAlias = tuple[str, str]
"""A cause and its effect."""


class Structural(Model):
    """A model with a graph; `SCM` has its own mechanisms, `ProgramSCM` reads them off a program.

    Attributes:
        graph: the causal graph; nodes that are not observed carry the attribute `latent`.
    """

    graph: nx.DiGraph
    walked: ClassVar[bool] = True
    """Whether its mechanisms say all, so that nodes can be computed one by one without Pyro."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes in the order of the graph."""
        return tuple(self.graph)

    def parents(self, node: str) -> list[str]:
        """The direct causes of a node, in the order of `nodes`."""
        return parents(self.graph, node)

    def infer_schema(self, frame: Any) -> Schema:
        """How `fit` reads a frame: numbers are standardised, or its steps would be too small."""
        return Schema.infer(frame, standardise=True)

    def mechanism(self, node: str) -> Mechanism:
        """The mechanism of a node."""
        raise NotImplementedError(f"{type(self).__name__} has no mechanism(node).")

    def site_options(self, node: str) -> Any:
        """What Pyro is told of the site of a node, its `infer`."""
        return {}

    def draw(
        self,
        n: int,
        clamped: Tensor | None = None,
        *,
        mechanisms: Mapping[str, Mechanism] | None = None,
        arrows: Mapping[Arrow, Callable[..., Tensor]] | None = None,
    ) -> None:
        """Draws every node given its parents, causes first.

        Args:
            n: the number of rows.
            clamped: as in `SCM`.
            mechanisms: by node, what stands in the place of its own mechanism.
            arrows: by arrow, what its effect hears instead of the value of its cause.
        """
        swapped, heard = mechanisms or {}, arrows or {}
        clamped = widened(self.graph, clamped)
        values: dict[str, Tensor] = {}
        plate = rows(n)
        for node in ordered(rewired(self.graph, swapped)):
            mechanism = swapped.get(node) or self.mechanism(node)
            fn = mechanism.dist(listen(node, mechanism.inputs, values, heard))
            if clamped is not None:
                fn = fn.mask(~clamped[..., self.nodes.index(node)])
            with plate:
                values[node] = pyro.sample(node, fn, infer=self.site_options(node))


def listen(
    node: str,
    inputs: Mapping[str, Kind],
    values: Mapping[str, Tensor],
    arrows: Mapping[Arrow, Callable[..., Tensor]],
) -> dict[str, Tensor]:
    """What a node hears of its parents."""
    heard = {parent: values[parent] for parent in inputs}
    for (cause, effect), change in arrows.items():
        if effect == node:
            levels = inputs[cause].levels
            heard[cause] = change(heard[cause], levels if levels > 1 else 0)
    return heard


def widened(graph: nx.DiGraph, clamped: Tensor | None) -> Tensor | None:
    """What was set, with a column for every node: no experiment sets a latent one.

    Raises:
        ValueError: another dtype, or columns for neither all nodes nor the observed ones.
    """
    if clamped is None:
        return None
    nodes, seen = list(graph), observed(graph)
    k = clamped.shape[-1] if clamped.dim() else 0
    if clamped.dtype != torch.bool or clamped.dim() != 2 or k not in (len(nodes), len(seen)):
        raise ValueError(
            f"clamped has shape {tuple(clamped.shape)} and dtype {clamped.dtype}; it is boolean, "
            f"of shape (n, {len(seen)}), with a column for each node: {listing(seen)}."
        )
    if k == len(nodes):
        return clamped
    none = torch.zeros_like(clamped[:, 0])
    return torch.stack([clamped[:, seen.index(v)] if v in seen else none for v in nodes], 1)


def ordered(graph: nx.DiGraph) -> tuple[str, ...]:
    """Causes before effects; of a frozen graph, which cannot change, worked out once."""
    return _order(graph) if nx.is_frozen(graph) else order(graph)


_order = functools.lru_cache(maxsize=256)(order)


def rewired(graph: nx.DiGraph, mechanisms: Mapping[str, Mechanism]) -> nx.DiGraph:
    """The graph with the arrows into some nodes replaced by those of other mechanisms.

    Raises:
        ValueError: an input that is no node, or one that is downstream of what listens to it.

    Example:
        >>> from causal.graph import parse
        >>> from causal.mechanisms import LinearGaussian
        >>> list(rewired(parse("A -> B; C"), {"B": LinearGaussian({"C": 1.0})}).edges)
        [('C', 'B')]
    """
    if not mechanisms:
        return graph
    copy: nx.DiGraph[str] = nx.DiGraph(graph)
    for node, mechanism in mechanisms.items():
        check_nodes(graph, mechanism.inputs, what="The input of a mechanism")
        copy.remove_edges_from(list(copy.in_edges(node)))
        copy.add_edges_from((parent, node) for parent in mechanism.inputs)
    return copy
