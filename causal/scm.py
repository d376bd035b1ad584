"""Structural causal models: a graph, one mechanism a node, and the joint program they make.

p(x_1, ..., x_d) = prod_j p(x_j | parents of j) (Pearl 2009, Causality, eq. 1.33). An `SCM` is a
`pgm.Model`: it is trained by `pgm.fit` and asked by every verb, and `causal.do` cuts its arrows.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import networkx as nx
import torch
from torch import Tensor, nn

from causal.defaults import check_fit, default, fix_scale, kind_of, read_given, start
from causal.graph import GraphLike, as_graph, check_nodes, latents, observed, order, to_text
from causal.latent.marginal import entangled
from causal.latent.proposals import Encoder, propose
from causal.mechanisms import (
    NUMBER,
    Kind,
    Mechanism,
    build,
    describe,
)
from causal.mechanisms.additive import shaken
from causal.structural import Structural, widened
from pgm import Model, Schema, rows
from pgm.batch import SEEN
from pgm.model import tensors_of
from pgm.schema.columns import listing

_RESERVED = ("clamped", "rows")


class SCM(Structural):
    """A structural causal model over the columns of a table; every node is a site.

    A node without a mechanism of its own gets one by the kind of its column: linear-Gaussian for a
    number, negative binomial for a count, a table for levels whose parents all have levels, else a
    linear softmax.

    A latent node (`latent=True`, or the bidirected edge X <-> Y) is a latent site: N(0, 1), which
    is not trained, if nothing else is said; `U=Kind(levels=2)` makes it one of two levels, whose
    probabilities are trained, and which is summed out. What depends on it starts at small weights
    of its own, as equal ones would never part. The guide of the others is in `causal.latent`.

    Where an experiment set a node (a protein was inhibited, a dose was given), its own mechanism
    was cut: `clamped[i, j]` says that row i's node j, in the order of `nodes` or of the observed
    ones, was set. Its density is left out of the row's, and its value, which must not be missing,
    still feeds its children (Cooper & Yoo 1999, sec. 2).

    Args:
        graph: a DiGraph, or text such as `"A -> B -> C; A -> C"`; it is copied.
        schema: the kinds of the columns, which are the observed nodes; None if all nodes are
            numbers, or to take over the one of the first frame that it is fitted to.
        **mechanisms: by node, a mechanism (copied); the class of one that is to be trained, or with
            options `functools.partial(AdditiveNoise, hidden=(64,))`; or the `Kind` of a node that
            no schema tells of, which gets the mechanism of its kind.

    Raises:
        ValueError: a mechanism for no node, with other parents than the graph's or with other
            levels than the schema's; columns that are no nodes.

    Example:
        >>> from causal import LinearGaussian
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
        self._given = {name: read_given(name, value) for name, value in mechanisms.items()}
        self._made = {n for n, v in mechanisms.items() if isinstance(v, dict) and not v["given"]}
        self.mechanisms = nn.ModuleDict()
        self.encoder: nn.Module | None = None
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
        _make_encoder(self)
        described = {
            node: describe(self.mechanism(node)) | {"given": self.is_given(node)}
            for node in self.nodes
        }
        object.__setattr__(self, "_arguments", ((to_text(self.graph),), described))

    def mechanism(self, node: str) -> Mechanism:
        """The mechanism of a node.

        Raises:
            ValueError: no such node.
        """
        held = vars(vars(self)["_modules"]["mechanisms"])["_modules"]  # Pyro's way there is long
        mechanism = held.get(_key(node))
        if mechanism is None:
            check_nodes(self.graph, [node])
        assert isinstance(mechanism, Mechanism)
        return mechanism

    def is_given(self, node: str) -> bool:
        """Whether the mechanism was given as it is, and not made to be trained."""
        return isinstance(self._given.get(node), Mechanism) and node not in self._made

    def site_options(self, node: str) -> dict[str, Any]:
        """A latent node with levels is summed out."""
        summed = node in latents(self.graph) and self.mechanism(node).levels > 1
        return {"enumerate": "parallel"} if summed else {}

    @property
    def proposed(self) -> list[str]:
        """The latent nodes that the guide proposes: those without levels."""
        return [node for node in latents(self.graph) if self.mechanism(node).levels == 1]

    @property
    def latent(self) -> bool:
        """Whether there are latent nodes that the guide proposes."""
        return bool(self.proposed)

    @property
    def wants(self) -> tuple[str, ...]:
        """The observed nodes with their masks, and what was set, where there is a guide."""
        seen = [name for node in observed(self.graph) for name in (node, node + SEEN)]
        return (*seen, "clamped") if self.latent else ()

    def model(self, n: int, clamped: Tensor | None = None) -> None:
        """Draws every node given its parents, causes first; `clamped` is boolean, (n, nodes)."""
        self.draw(n, clamped)

    def guide(self, n: int, **seen: Tensor) -> None:
        """Proposes the latent nodes without levels."""
        if "clamped" in seen:
            seen["clamped"] = widened(self.graph, seen["clamped"])  # type: ignore[assignment]
        if self.latent:
            with rows(n):
                propose(self, self.proposed, self.encoder, n, seen)


def check_trained(model: Model, nodes: Iterable[str] | None = None) -> None:
    """Refuses to answer from mechanisms that were never trained.

    Args:
        model: any model; interventions are no concern here.
        nodes: those whose mechanisms the answer needs; all by default.

    Raises:
        ValueError: with the nodes.
    """
    state = tuple((id(p), p._version) for p in tensors_of(model))
    if _TRAINED.get(model) == state:
        return
    raw = untrained(model)
    if not raw:
        _TRAINED[model] = state
    if needed := [node for node in raw if nodes is None or node in set(nodes)]:
        raise ValueError(
            f"The mechanisms of {listing(needed)} are as they were made, and any answer would be "
            "made up. Train the model: pgm.fit(model, data), or causal.estimate(scm, data); or "
            "pass mechanisms with parameters of your own."
        )


_TRAINED: WeakKeyDictionary[Model, tuple[tuple[int, int], ...]] = WeakKeyDictionary()
"""The state in which a model was found to be trained: building it anew to compare costs time."""


@functools.singledispatch
def untrained(model: Model) -> list[str]:
    """The nodes whose mechanism was made to be trained, and is still as it was made.

    Other models than those with a rule of their own do not know, and name none.

    Example:
        >>> from causal import LinearGaussian
        >>> untrained(SCM("A -> B", A=LinearGaussian()))
        ['B']
    """
    return []


@untrained.register(SCM)
def _untrained(scm: SCM) -> list[str]:
    found = []
    for node in scm.nodes:
        now = scm.mechanism(node)
        made = _parted(scm, node, build(describe(now))).state_dict()
        same = all(torch.equal(v.cpu(), made[k].to(v.dtype)) for k, v in now.state_dict().items())
        if same and not scm.is_given(node) and not _is_fixed(scm, node):
            found.append(node)
    return found


def _is_fixed(scm: SCM, node: str) -> bool:
    """Whether it is a latent node with nothing to train."""
    free = [p for p in scm.mechanism(node).parameters() if p.requires_grad]
    return node in latents(scm.graph) and not free


def _parted(scm: SCM, node: str, made: Mechanism) -> Mechanism:
    """A new mechanism; what depends on a latent node starts at weights of its own."""
    hidden = set(latents(scm.graph))
    if not hidden.intersection(made.inputs):
        return made
    return shaken(made, by=0.3, seed=scm.nodes.index(node))


def _make_encoder(scm: SCM) -> None:
    """The network of the guide, where the posterior of the latent nodes is not normal."""
    kinds = {node: scm.mechanism(node).kind for node in scm.nodes}
    if not scm.proposed or entangled(scm, scm.proposed) is not None:
        scm.encoder = None
        return
    seen = {node: kinds[node] for node in observed(scm.graph)}
    hidden = {node: kinds[node] for node in scm.proposed}
    old = scm.encoder
    if not isinstance(old, Encoder) or (old.inputs, old.latents) != (seen, hidden):
        scm.encoder = Encoder(seen, hidden).to(scm.device, scm.dtype)


def _choose(scm: SCM) -> None:
    """Gives every node its mechanism; one that still fits what is known is kept."""
    kinds: dict[str, Kind] = {}
    for node in order(scm.graph):
        inputs = {p: kinds[p] for p in scm.parents(node)}
        old = scm.mechanisms[_key(node)] if _key(node) in scm.mechanisms else None  # noqa: SIM401
        given = scm._given.get(node)
        column = scm.schema.columns.get(node) if scm.schema else None
        own = kind_of(node, column, given)
        if isinstance(given, Mechanism):
            new = old if isinstance(old, Mechanism) else given
        else:
            said = given is not None and not isinstance(given, Kind)
            made = given if said else default(column, own or NUMBER, inputs)
            new = _parted(scm, node, start(node, made, inputs, own or NUMBER))
            if type(old) is type(new) and (old.inputs, old.kind) == (new.inputs, new.kind):
                new = old
        if node in latents(scm.graph) and not scm.is_given(node):
            fix_scale(new)
        check_fit(node, new, inputs, own or new.kind)
        kinds[node] = new.kind
        scm.mechanisms[_key(node)] = new.to(scm.device, scm.dtype)


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
    absent = [node for node in observed(graph) if node not in schema.columns]
    if absent:
        raise ValueError(
            f"Nodes without a column in the schema: {listing(absent)}. Add the columns, take the "
            "nodes out of the graph, or say that they are not observed: 'U [latent]; U -> {X Y}'."
        )
    if known := [node for node in latents(graph) if node in schema.columns]:
        raise ValueError(
            f"{listing(known)} is a latent node, but the schema has a column for it. Take the "
            "column out (schema.select), or the mark [latent] off the node."
        )


def _key(node: str) -> str:
    """A name for the mechanism that is no attribute of a module and has no dot."""
    return _KEYS[node]


class _Keys(dict[str, str]):
    """Made once a node."""

    def __missing__(self, node: str) -> str:
        self[node] = f"p({node.replace('.', '·')})"
        return self[node]


_KEYS = _Keys()
