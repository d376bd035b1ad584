"""Causal normalising flows: one invertible map u = T(x) with the structure of the graph.

    u_j = T_j(x_j; parents of j),    log p(x) = sum_j log N(u_j; 0, 1) + log dT_j/dx_j

T_j is increasing in x_j and sees no other node than the parents of j: du_j/dx_i is zero unless i is
j or one of them (Javaloy, Sanchez-Martin & Valera 2023, "Causal normalizing flows: from theory to
practice", the abductive form with one layer). It is a spline whose parameters a masked network
gives for all nodes at once (`causal.flows.splines`).

There is one layer on purpose. In T2(T1(x)) the noise of a node also depends on the parents of its
parents: the pattern of the Jacobian becomes that of the ancestors, a node's law is no longer that
given its parents, and no mechanism is left that could be replaced while all others stay.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor

from causal.flows.splines import Conditioner
from causal.graph import GraphLike, adjacency, as_graph, check_nodes, latents, order
from causal.mechanisms import Mechanism
from causal.mechanisms.kind import NUMBER
from causal.mechanisms.mechanism import Values
from causal.scm import untrained
from causal.structural import Structural
from pgm import Continuous, Schema, log_prob, objective
from pgm.batch import SEEN, Batch, as_batch, chunks
from pgm.nets import Activation
from pgm.schema.columns import listing
from pgm.verb import Unsupported
from pgm.verbs.coding import decode, encode
from pgm.verbs.density import LogProb

__all__ = ["CausalFlow", "FlowMechanism"]

_ATOM = 0.05
"""The share of rows with one and the same value, above which a column is no continuous one."""


class CausalFlow(Structural):
    """A causal model of real numbers that assumes no form of their mechanisms.

    It is trained by `pgm.fit`, and asked by `causal.do`, `causal.counterfactual`, `causal.effect`
    and every verb; `pgm.encode` gives the noise u of rows, and `pgm.decode` takes it back.

    The law of each node given its parents is learned. Besides the graph, interventions rest on
    there being no unseen common cause, and counterfactuals on every node being monotonic in its
    noise as well: data can test neither.

    Args:
        graph: a DiGraph, or text such as `"A -> B -> C; A -> C"`; it is copied.
        schema: the columns, all `Continuous`; None for tensors, or to take over that of the first
            frame that it is fitted to.
        mean: subtracted from the nodes, by default 0. Splines bend between -5 and 5 alone, so that
            the rest must be scaled to that: see `from_data`, or let the schema do it.
        std: divides the nodes, by default 1.
        hidden: units a layer of the network, for each distinct set of parents.
        bins: of each spline.
        activation: nonlinearity of the network.

    Raises:
        ValueError: a latent node; a schema whose columns are not the nodes, or not continuous; a
            size below 1; means and standard deviations that are not one a node, or no scale.

    Example:
        >>> import pgm
        >>> flow = CausalFlow("A -> B")
        >>> pgm.log_prob(flow, {"A": torch.zeros(1), "B": torch.zeros(1)}).value
        tensor([-1.8379])
        >>> list(flow.mechanism("B").inputs)
        ['A']
    """

    def __init__(
        self,
        graph: GraphLike,
        /,
        *,
        schema: Schema | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        hidden: Sequence[int] = (32, 32, 32),
        bins: int = 8,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        self.graph = nx.freeze(as_graph(graph))
        _check_graph(self.graph)
        _check_sizes(hidden, bins)
        d = len(self.graph)
        scales = _scales([0.0] * d if mean is None else mean, [1.0] * d if std is None else std, d)
        arrows = torch.tensor([[self.graph.has_edge(a, b) for a in self.graph] for b in self.graph])
        sizes: dict[str, Any] = {"hidden": tuple(hidden), "bins": bins, "activation": activation}
        self.conditioner = Conditioner(arrows, *scales, **sizes)
        # not submodules: they hold the one network, and no parameters of their own
        self._mechanisms = {n: FlowMechanism(self.graph, n, self.conditioner) for n in self.graph}
        made = dict(zip(("mean", "std"), (s.tolist() for s in scales), strict=True)) | sizes
        object.__setattr__(self, "_arguments", ((adjacency(self.graph),), made))
        self.schema = schema

    @classmethod
    def from_data(cls, graph: GraphLike, data: Any, /, **options: Any) -> "CausalFlow":
        """A flow standardised to data: their means and standard deviations become buffers.

        These numbers are read off the data and are **not private**: for a private fit, pass `mean`
        and `std` from public knowledge. Missing cells are left out of them.

        Args:
            graph: as of the class.
            data: rows in any form; a frame without `schema` has one inferred.
            **options: the other arguments of the class.

        Raises:
            ValueError: columns that are not the nodes, or hold one value in more than one row in
                20, which no density describes.

        Example:
            >>> from causal.flows.synthetic import published
            >>> rows = published("chain").sample(500, seed=0)
            >>> CausalFlow.from_data("x1 -> x2 -> x3", rows).conditioner.std
            tensor([ 1.01, 10.11, 3.23])
        """
        schema = options.pop("schema", None)
        if schema is None and type(data).__module__.partition(".")[0] == "pandas":
            schema = Schema.infer(data)
        known = as_graph(graph)
        _check_graph(known)
        _check_schema(known, schema)
        moments = _moments(list(known), as_batch(data, schema=schema))
        return cls(known, schema=schema, **options | moments)

    @property
    def schema(self) -> Schema | None:
        """How a frame becomes a batch: a continuous column a node."""
        return self._schema

    @schema.setter
    def schema(self, schema: Schema | None) -> None:
        _check_schema(self.graph, schema)
        self._schema = schema

    def mechanism(self, node: str) -> Mechanism:
        """The mechanism of a node: its part of the network.

        Raises:
            ValueError: no such node.
        """
        check_nodes(self.graph, [node])
        return self._mechanisms[node]

    def model(self, n: int) -> None:
        """Draws every node given its parents, causes first."""
        self.draw(n)


class FlowMechanism(Mechanism):
    """p(x_j | parents) of one node of a flow; its parameters are the flow's.

    Args:
        graph: the flow's.
        node: j.
        conditioner: the flow's network.
    """

    def __init__(self, graph: nx.DiGraph, node: str, conditioner: Conditioner) -> None:
        super().__init__()
        self.inputs = {other: NUMBER for other in graph if graph.has_edge(other, node)}
        self.place = {other: i for i, other in enumerate(graph)}
        self.node, self.conditioner = node, conditioner

    def dist(self, parents: Values) -> Any:
        """The law that the parents' columns give; the others are masked, and filled with means."""
        conditioner = self.conditioner
        values = torch.broadcast_tensors(*(parents[name] for name in self.inputs))
        heard = {self.place[name]: x for name, x in zip(self.inputs, values, strict=True)}
        columns = [
            heard[i].to(mean) if i in heard else mean.expand(values[0].shape if values else ())
            for i, mean in enumerate(conditioner.mean)
        ]
        return conditioner.node(self.place[self.node], torch.stack(columns, -1))


@log_prob.register(CausalFlow)
def _log_prob(
    model: CausalFlow, batch: Batch, *, particles: int = 100, seed: int | None = None
) -> LogProb:
    """One pass of the network where all cells are there."""
    if not _is_complete(model, batch):
        return log_prob.generic(model, batch, particles=particles)
    value = torch.cat([_log_density(model, piece) for piece in chunks(batch, 2**16)])
    return LogProb(value, torch.zeros_like(value), "exact")


@objective.register(CausalFlow)
def _objective(model: CausalFlow, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """The negative log-density, in one pass of the network where all cells are there."""
    if not _is_complete(model, batch):
        return objective.generic(model, batch, size=size)
    return -_log_density(model, batch)


@encode.register(CausalFlow)
def _encode(model: CausalFlow, batch: Batch, *, draws: int | None = None) -> Batch:
    """The noise u = T(x), shape (n, nodes): exact."""
    if not _is_complete(model, batch):
        raise Unsupported(
            f"The noise of a row takes every cell of it: {listing(list(model.nodes))}. Leave out "
            "rows with missing cells, or draw these with pgm.impute."
        )
    x = _columns(model, batch)
    u = model.conditioner(x).pull(x)
    return Batch(u=u if draws is None else u.expand(draws, *u.shape))


@decode.register(CausalFlow)
def _decode(model: CausalFlow, z: Any, *, context: Any = None) -> Batch:
    """x = T^-1(u), node by node."""
    u = torch.as_tensor(z["u"] if isinstance(z, Mapping) else z).to(model.device, model.dtype)
    if u.dim() != 2 or u.shape[1] != len(model.nodes):
        raise ValueError(
            f"u has shape {tuple(u.shape)}; the noise of a row has one number a node: "
            f"(n, {len(model.nodes)})."
        )
    x: dict[str, Tensor] = {}
    for node in order(model.graph):
        x[node] = model.mechanism(node).push(x, u[:, model.nodes.index(node)])
    return Batch({node: x[node] for node in model.nodes})


@untrained.register(CausalFlow)
def _untrained(model: CausalFlow) -> list[str]:
    """The nodes with all parameters at the zeros of the start."""
    at_zero = model.conditioner.at_zero()
    return [node for node, zero in zip(model.nodes, at_zero.tolist(), strict=True) if zero]


def _log_density(model: CausalFlow, batch: Batch) -> Float[Tensor, " n"]:
    x = _columns(model, batch)
    return model.conditioner(x).log_prob(x).sum(-1)


def _columns(model: CausalFlow, batch: Batch) -> Float[Tensor, "n d"]:
    return torch.stack([batch[node] for node in model.nodes], -1)


def _is_complete(model: CausalFlow, batch: Batch) -> bool:
    """Whether there are all columns, without missing cells, and no others.

    Raises:
        ValueError: whole numbers or booleans.
    """
    _check_real(batch)
    return batch.keys() == set(model.nodes) and all(x.dim() == 1 for x in batch.values())


_DISCRETE = (
    "A causal flow is a density of real numbers, but {} holds levels or counts. Adding noise to "
    "them (dequantisation) would give numbers, but its counterfactuals would be those of the noise "
    "that was added, and are not identified. Use causal.SCM, whose mechanisms take levels; if "
    "whole numbers stand for a quantity, pass floats, or declare the column pgm.Continuous()."
)


def _check_graph(graph: nx.DiGraph) -> None:
    if hidden := latents(graph):
        raise ValueError(
            f"Node {hidden[0]!r} is latent. A causal flow maps the columns of a row to as many "
            "independent noises: with an unseen common cause they are not independent, and every "
            "effect read off the flow would be confounded without a sign. Use causal.SCM with a "
            "latent node, or ask causal.identification what the graph still determines."
        )


def _check_sizes(hidden: Sequence[int], bins: int) -> None:
    if min(hidden, default=0) < 1 or bins < 2:
        raise ValueError(
            f"hidden is {tuple(hidden)} and bins {bins}; there is one hidden layer or more, of one "
            "unit or more, and a spline has two bins or more."
        )


def _scales(
    mean: Sequence[float], std: Sequence[float], d: int
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    m, s = (torch.tensor([float(v) for v in values]) for values in (mean, std))
    if len(m) != d or len(s) != d:
        raise ValueError(
            f"{len(m)} means and {len(s)} standard deviations came for {d} nodes: pass one a node, "
            "in the order of the graph, or use CausalFlow.from_data."
        )
    if not bool(m.isfinite().all() and s.isfinite().all() and (s > 0).all()):
        raise ValueError(
            f"mean is {m.tolist()} and std {s.tolist()}: all are finite, and a std is positive. A "
            "node that is constant has no density: leave it out."
        )
    return m, s


def _check_schema(graph: nx.DiGraph, schema: Schema | None) -> None:
    if schema is None:
        return
    if schema.site is not None or set(schema.columns) != set(graph):
        raise ValueError(
            f"The schema has columns {listing(list(schema.columns))} (site={schema.site!r}), and "
            f"the graph nodes {listing(list(graph))}: each node is a column and a site of its own."
        )
    discrete = [repr(n) for n in graph if not isinstance(schema.columns[n], Continuous)]
    if discrete:
        raise ValueError(_DISCRETE.format(listing(discrete)))


def _moments(nodes: list[str], batch: Batch) -> dict[str, list[float]]:
    """The means and standard deviations of the cells that were seen."""
    columns = [name for name in batch if not name.endswith(SEEN)]
    if set(columns) != set(nodes):
        raise ValueError(
            f"The data have columns {listing(columns)}, and the graph nodes {listing(nodes)}: each "
            "node is a column. Drop the others, or draw them in the graph."
        )
    _check_real(batch)
    mean, std = [], []
    for node in nodes:
        x = batch[node][batch[node + SEEN]] if node + SEEN in batch else batch[node]
        _check_atoms(node, x)
        mean.append(float(x.double().mean()))
        std.append(float(x.double().std()))
    return {"mean": mean, "std": std}


def _check_real(batch: Batch) -> None:
    masks = {name for name in batch if name.endswith(SEEN)}
    whole = [repr(n) for n, x in batch.items() if n not in masks and not x.is_floating_point()]
    if whole:
        raise ValueError(_DISCRETE.format(listing(whole)))


def _check_atoms(node: str, x: Tensor) -> None:
    values, counts = x.unique(return_counts=True)
    most = int(counts.argmax())
    if int(counts[most]) > max(1, _ATOM * len(x)):
        raise ValueError(
            f"Column {node!r} is {values[most].item():g} in {int(counts[most])} of {len(x)} rows. "
            "There a density has no bound, and a flow would spend itself on that one value. Use "
            "causal.SCM with a mechanism for such columns, or model the rows without it."
        )
