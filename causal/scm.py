"""Structural causal models: a graph, one mechanism a node, and the joint program they make.

p(x_1, ..., x_d) = prod_j p(x_j | parents of j) (Pearl 2009, Causality, eq. 1.33). An `SCM` is a
`pgm.Model`: it is trained by `pgm.fit` and asked by every verb, and `causal.do` cuts its arrows.
"""

import copy
from collections.abc import Mapping
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from causal.graph import GraphLike, adjacency, as_graph, check_nodes, order
from causal.mechanisms import (
    CategoricalTable,
    LinearGaussian,
    LinearSoftmax,
    Mechanism,
    build,
    describe,
)
from causal.structural import Structural
from pgm import Categorical, Count, Schema
from pgm.schema.columns import listing

_RESERVED = ("clamped", "rows")


class SCM(Structural):
    """A structural causal model over the columns of a table; every node is an observed site.

    A node without a mechanism of its own gets one by the kind of its column: linear-Gaussian for a
    number, a table for levels whose parents all have levels, else a linear softmax.

    Where an experiment set a node (a protein was inhibited, a dose was given), its own mechanism
    was cut: `clamped[i, j]` says that row i's node j, in the order of `nodes`, was set. Its density
    is left out of the row's, and its value, which must not be missing, still feeds its children
    (Cooper & Yoo 1999, sec. 2).

    Args:
        graph: a DiGraph, or text such as `"A -> B -> C; A -> C"`; it is copied.
        schema: the kinds of the columns, which are the nodes; None if all nodes are numbers, or to
            take over the one of the first frame that it is fitted to.
        **mechanisms: by node, a mechanism (copied), or the class of one that is to be trained.

    Raises:
        ValueError: a mechanism for no node, with other parents than the graph's or with other
            levels than the schema's; columns that are no nodes; a count without a mechanism.

    Example:
        >>> scm = SCM("A -> B", B=LinearGaussian({"A": 2.0}, scale=0.5))
        >>> scm.nodes, [name for name, _ in scm.named_parameters()][-1]
        (('A', 'B'), 'mechanisms.p(B).log_scale')
        >>> from pgm import log_prob
        >>> log_prob(scm, {"A": torch.tensor([0.0]), "B": torch.tensor([0.0])}).value
        tensor([-1.1447])
    """

    def __init__(
        self, graph: GraphLike, /, *, schema: Schema | None = None, **mechanisms: Any
    ) -> None:
        super().__init__()
        self.graph = nx.freeze(as_graph(graph))
        _check_nodes(self.graph, mechanisms)
        self._given = {name: _given(name, value) for name, value in mechanisms.items()}
        self._made = {n for n, v in mechanisms.items() if isinstance(v, dict) and not v["given"]}
        self.mechanisms = nn.ModuleDict()
        self.schema = schema

    @staticmethod
    def from_program(
        program: Any, graph: Any = None, *, context: Any = None, seed: int = 0
    ) -> Structural:
        """Any Pyro program as a structural causal model: see `causal.programs.from_program`."""
        from causal.programs import from_program

        return from_program(program, graph, context=context, seed=seed)

    @property
    def schema(self) -> Schema | None:
        """How a frame becomes a batch; setting it chooses the mechanisms that were not given."""
        return self._schema

    @schema.setter
    def schema(self, schema: Schema | None) -> None:
        _check_schema(self.graph, schema)
        self._schema = schema
        _choose(self)
        described = {
            node: describe(self.mechanism(node)) | {"given": self.is_given(node)}
            for node in self.nodes
        }
        object.__setattr__(self, "_arguments", ((adjacency(self.graph),), described))

    def mechanism(self, node: str) -> Mechanism:
        """The mechanism of a node.

        Raises:
            ValueError: no such node.
        """
        check_nodes(self.graph, [node])
        mechanism = self.mechanisms[_key(node)]
        assert isinstance(mechanism, Mechanism)
        return mechanism

    def is_given(self, node: str) -> bool:
        """Whether the mechanism was given as it is, and not made to be trained."""
        return isinstance(self._given.get(node), Mechanism) and node not in self._made

    def model(self, n: int, clamped: Tensor | None = None) -> None:
        """Draws every node given its parents, causes first; `clamped` is boolean, (n, nodes)."""
        _check_clamped(self.nodes, clamped)
        self.draw(n, clamped)


def untrained(scm: SCM) -> list[str]:
    """The nodes whose mechanism was made to be trained, and is still as it was made.

    Example:
        >>> untrained(SCM("A -> B", A=LinearGaussian()))
        ['B']
    """
    found = []
    for node in scm.nodes:
        now = scm.mechanism(node)
        made = build(describe(now)).state_dict()
        same = all(torch.equal(v.cpu(), made[k].to(v.dtype)) for k, v in now.state_dict().items())
        if same and not scm.is_given(node):
            found.append(node)
    return found


def _choose(scm: SCM) -> None:
    """Gives every node its mechanism; one that still fits what is known is kept."""
    kinds: dict[str, Kind] = {}
    for node in order(scm.graph):
        inputs = {p: kinds[p] for p in scm.parents(node)}
        old = scm.mechanisms[_key(node)] if _key(node) in scm.mechanisms else None  # noqa: SIM401
        given = scm._given.get(node)
        own = _kind(scm, node)
        if isinstance(given, Mechanism):
            new = old if isinstance(old, Mechanism) else given
        else:
            made = given or _default(scm, node, inputs)
            new = _start(node, made, inputs, own or NUMBER)
            if type(old) is type(new) and (old.inputs, old.kind) == (new.inputs, new.kind):
                new = old
        _check_fit(node, new, inputs, own or new.kind)
        kinds[node] = new.kind
        scm.mechanisms[_key(node)] = new.to(scm.device, scm.dtype)


def _kind(scm: SCM, node: str) -> Kind | None:
    """What the schema says of a node; None where it says nothing."""
    if scm.schema is None or node not in scm.schema.columns:
        return None
    column = scm.schema.columns[node]
    return Kind(levels=len(column.levels)) if isinstance(column, Categorical) else NUMBER


def _default(scm: SCM, node: str, inputs: Inputs) -> type[Mechanism]:
    """The class of mechanism for the kind of a column."""
    column = scm.schema.columns.get(node) if scm.schema else None
    if isinstance(column, Count):
        return NegativeBinomial
    if not isinstance(column, Categorical):
        return LinearGaussian
    return CategoricalTable if all(k.levels > 1 for k in inputs.values()) else LinearSoftmax


def _start(node: str, made: Any, inputs: Inputs, kind: Kind) -> Mechanism:
    """The untrained mechanism of a class, or of a `functools.partial` of one."""
    options = made.keywords if isinstance(made, functools.partial) else {}
    cls = made.func if isinstance(made, functools.partial) else made
    try:
        return cls.start(inputs, kind, **options)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise type(error)(f"The mechanism of {node!r}: {error}") from error


def _given(node: str, value: Any) -> Mechanism | type[Mechanism]:
    """What was passed for a node: a copy of a mechanism, a class, or a description from a file."""
    if isinstance(value, dict) and "mechanism" in value:
        return build(value)
    if isinstance(value, Mechanism):
        return copy.deepcopy(value)
    if isinstance(value, type) and issubclass(value, Mechanism):
        return value
    raise TypeError(
        f"The mechanism of {node!r} is {value!r}. Pass a mechanism, such as "
        "LinearGaussian({'A': 0.5}), or the class of one that is to be trained: LinearGaussian."
    )


def _check_nodes(graph: nx.DiGraph, mechanisms: Mapping[str, Any]) -> None:
    check_nodes(graph, mechanisms, what="The node of mechanism")
    for node in graph:
        if node in _RESERVED or node.endswith("_seen"):
            raise ValueError(
                f"A node cannot be called {node!r}: batches use that name for something else "
                f"({', '.join(_RESERVED)}, and names that end with _seen). Rename it."
            )


def _check_schema(graph: nx.DiGraph, schema: Schema | None) -> None:
    if schema is None:
        return
    if schema.site is not None:
        raise ValueError(
            f"The schema puts all columns into one site {schema.site!r}, but every node is a site "
            "of its own. Make it with site=None."
        )
    check_nodes(graph, schema.columns, what="Column")
    absent = [node for node in graph if node not in schema.columns]
    if absent:
        raise ValueError(
            f"Nodes without a column in the schema: {listing(absent)}. Add the columns, or take "
            "the nodes out of the graph; an unseen common cause is not supported here yet."
        )


def _check_fit(node: str, mechanism: Mechanism, inputs: Mapping[str, int], own: int) -> None:
    if set(mechanism.inputs) != set(inputs):
        raise ValueError(
            f"The mechanism of {node!r} listens to {listing(list(mechanism.inputs)) or 'nothing'}, "
            f"but its parents in the graph are {listing(list(inputs)) or 'none'}. Each arrow "
            "stands for one argument: mend the mechanism or the graph."
        )
    if mechanism.levels != own or dict(mechanism.inputs) != dict(inputs):
        raise ValueError(
            f"The mechanism of {node!r} ({type(mechanism).__name__}) is for {mechanism.levels} "
            f"levels of its own and {mechanism.inputs} of its parents, but there are {own} and "
            f"{dict(inputs)} (1 means a number). Pass the schema, or a mechanism made for these."
        )


def _check_clamped(nodes: tuple[str, ...], clamped: Tensor | None) -> None:
    if clamped is None:
        return
    if clamped.dtype != torch.bool or clamped.shape[-1] != len(nodes) or clamped.dim() != 2:
        raise ValueError(
            f"clamped has shape {tuple(clamped.shape)} and dtype {clamped.dtype}; it is boolean, "
            f"of shape (n, {len(nodes)}), with a column for each node: {listing(list(nodes))}."
        )


def _key(node: str) -> str:
    """A name for the mechanism that is no attribute of a module and has no dot."""
    return f"p({node.replace('.', '·')})"
