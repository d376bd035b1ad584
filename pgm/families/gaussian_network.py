"""Gaussian Bayesian networks: linear-Gaussian, or conditional Gaussian if some nodes have levels.

    x_j | parents ~ N(b_i + w_i' y, s_i^2),    i the levels of its discrete parents, y the numbers

(Lauritzen & Wermuth 1989; Koller & Friedman 2009, Def. 7.3 and 14.4; without discrete nodes the
linear-Gaussian network of Shachter & Kenley 1989). The joint law is a normal for every
configuration of the levels, so that densities, marginals and completions are exact whatever cells
are missing. The program is a chain of sites, one a node under its own name, causes first.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import networkx as nx
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pgm.batch import SEEN, Batch, as_batch, chunks, move, rows_of
from pgm.families import Example
from pgm.inference.cg import (
    ConditionalGaussian,
    Evidence,
    Line,
    Structure,
    check_possible,
    condition,
    draw,
    evidence_of,
    expectation_maximisation,
    joint,
)
from pgm.inference.cg.checks import (
    causes_first,
    check_batch,
    check_columns,
    check_known,
    check_structure,
    code_of,
    one_value_each,
)
from pgm.model import Model, rows
from pgm.objectives import objective
from pgm.randomness import seeded
from pgm.schema import Categorical, Schema
from pgm.schema.columns import listing
from pgm.verb import prepare
from pgm.verbs import Imputation, LogProb, decode, encode, impute, log_prob

__all__ = ["GaussianNetwork", "estimate", "example"]

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
_AT_ONCE = 2**22


class GaussianNetwork(Model):
    """A linear-Gaussian or conditional Gaussian network (Koller & Friedman 2009, Sec. 7.2, 14.2).

    Args:
        parents: of each node that has any; a node without parents may be named with none.
        levels: how many levels each discrete node has; all other nodes are numbers.

    Attributes:
        parents: of every node.
        levels: of the discrete nodes, causes first.
        numbers: the nodes that are numbers, causes first.
        logits: log tables of the discrete nodes up to a constant a row, in the order of `levels`,
            shape (levels of each parent, levels).
        coefficients: of the numbers, intercept first, in the order of `numbers`, shape (levels of
            each discrete parent, 1 + numbers among the parents).
        log_scales: log s of the numbers, shape (levels of each discrete parent).

    Raises:
        ValueError: a cycle, a number among the parents of a discrete node, no number at all, fewer
            than two levels, or more configurations than fit memory.

    Example:
        >>> net = GaussianNetwork({"B": ["A"], "C": ["B"]})
        >>> for c in net.coefficients[1:]:
        ...     _ = c.data.copy_(torch.tensor([0.0, 2.0]))  # B ~ N(2 A, 1), C ~ N(2 B, 1)
        >>> print(net.marginals({"B": 1.0}))
        A  mean 0.4000  sd 0.4472
        B  mean 1.0000  sd 0.0000
        C  mean 2.0000  sd 1.0000
        >>> print(net.marginals(do={"B": 1.0}))
        A  mean 0.0000  sd 1.0000
        B  mean 1.0000  sd 0.0000
        C  mean 2.0000  sd 1.0000
    """

    def __init__(
        self, parents: Mapping[str, Sequence[str]], levels: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        nodes = dict.fromkeys([*parents, *(p for above in parents.values() for p in above)])
        nodes |= dict.fromkeys(levels or {})
        self.parents = {name: tuple(parents.get(name, ())) for name in nodes}
        self.order = causes_first(self.graph)
        counts = dict(levels or {})
        self.levels = {name: counts[name] for name in self.order if name in counts}
        self.numbers = tuple(name for name in self.order if name not in counts)
        check_structure(self.structure)
        self.logits = nn.ParameterList(
            nn.Parameter(torch.zeros(*self._axes(name), k)) for name, k in self.levels.items()
        )
        self.coefficients = nn.ParameterList(
            nn.Parameter(torch.zeros(*self._axes(name), 1 + len(self.numbers_among(name))))
            for name in self.numbers
        )
        self.log_scales = nn.ParameterList(
            nn.Parameter(torch.zeros(self._axes(name))) for name in self.numbers
        )

    @classmethod
    def from_graph(
        cls, graph: "nx.DiGraph[str]", levels: Schema | Mapping[str, int] | None = None
    ) -> "GaussianNetwork":
        """A network over the nodes of a graph.

        Args:
            graph: acyclic; it is not changed.
            levels: how many levels each discrete node has, or the schema of a frame, whose
                categorical columns are the discrete nodes.

        Example:
            >>> import pandas as pd
            >>> frame = pd.DataFrame({"sex": ["f", "m", "f"], "height": [1.6, 1.8, 1.7]})
            >>> graph = nx.DiGraph([("sex", "height")])
            >>> GaussianNetwork.from_graph(graph, Schema.infer(frame)).levels
            {'sex': 2}
        """
        schema = levels if isinstance(levels, Schema) else None
        if schema is not None:
            check_columns(list(graph), schema)
            kinds = schema.columns.items()
            levels = {name: len(k.levels) for name, k in kinds if isinstance(k, Categorical)}
        assert not isinstance(levels, Schema)
        net = cls({name: list(graph.predecessors(name)) for name in graph}, levels)
        net.schema = schema
        return net

    @property
    def structure(self) -> Structure:
        """The arrows, for `pgm.inference.cg_network`."""
        return Structure(self.parents, self.levels, self.numbers)

    @property
    def graph(self) -> "nx.DiGraph[str]":
        """The graph, as a new DiGraph."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.parents)
        graph.add_edges_from((p, name) for name, above in self.parents.items() for p in above)
        return graph

    def infer_schema(self, frame: Any) -> Schema:
        """How `pgm.fit` reads a frame: standardised, or its steps would be too small."""
        return Schema.infer(frame, standardise=True)

    def numbers_among(self, name: str) -> list[str]:
        """The parents of a node that are numbers."""
        return [parent for parent in self.parents[name] if parent not in self.levels]

    def model(self, n: int) -> None:
        """x_j ~ p(x_j | parents), causes first."""
        values: dict[str, Tensor] = {}
        with rows(n):
            for name in self.order:
                values[name] = pyro.sample(name, self.law(name, values))

    def law(self, name: str, values: Mapping[str, Tensor]) -> Any:
        """The distribution of a node given the values of its parents, batch shape (n,)."""
        at = tuple(values[p].long() for p in self.parents[name] if p in self.levels)
        if name in self.levels:
            return dist.Categorical(logits=self.logits[list(self.levels).index(name)][at])
        j = self.numbers.index(name)
        c, mean = self.coefficients[j][at], self.coefficients[j][at][..., 0]
        for i, parent in enumerate(self.numbers_among(name), start=1):
            mean = mean + c[..., i] * values[parent]
        return dist.Normal(mean, self.log_scales[j][at].exp())

    def joint(self, do: Mapping[str, Any] | None = None) -> ConditionalGaussian:
        """The law of all nodes, of one row, in float64 on the CPU; under do() the truncated one.

        Args:
            do: what is set, a number or a level (Pearl 2009, eq. 3.10).
        """
        tables = [t.double().log_softmax(-1) for t in self.logits]
        lines = [
            Line(c.double(), s.double().exp())
            for c, s in zip(self.coefficients, self.log_scales, strict=True)
        ]
        return joint(
            self.structure, tables, lines, one_value_each(self.structure, self._codes(do or {}))
        )

    @torch.no_grad()
    def marginals(
        self, given: Any = None, *, do: Mapping[str, Any] | None = None
    ) -> ConditionalGaussian:
        """The exact posterior of all nodes given evidence, for any number of rows at once.

        Args:
            given: what was seen: a frame with some of the columns, or by node a value or tensor,
                NaN where it is missing; in your words where the network has a schema, tensors in
                the model's numbers.
            do: what is set, one value a node, in the same words.

        Returns:
            Probabilities of levels, means and variances of numbers, by row, in the model's numbers.

        Raises:
            ValueError: unknown nodes or levels, evidence on what is set, or of probability zero.
        """
        prior, found = self.joint(do), self._codes({} if given is None else given)
        if both := [name for name in found if name in (do or {})]:
            raise ValueError(
                f"{listing(both)} is set by do() and given as evidence too: under the intervention "
                "its value is no news. Leave it out of the evidence."
            )
        if not found:
            return prior
        batch = move(as_batch(found), device=torch.device("cpu"), dtype=torch.float64)
        check_batch(self.structure, batch)
        seen = evidence_of(self.structure, prior, batch)
        posterior, log_p = condition(seen.law, seen.y, seen.seen, seen.allowed)
        check_possible(log_p)
        return posterior

    def _axes(self, name: str) -> list[int]:
        return [self.levels[p] for p in self.parents[name] if p in self.levels]

    def _codes(self, given: Any) -> dict[str, Tensor]:
        """What was given or set, as tensors of the model's numbers, rows first."""
        if type(given).__module__.partition(".")[0] == "pandas":
            given = {name: given[name] for name in given.columns}
        check_known(self.structure, [name.removesuffix(SEEN) for name in given])
        return {name: code_of(self.schema, name, value) for name, value in given.items()}


def estimate(
    net: GaussianNetwork,
    data: Any,
    *,
    prior: float = 1.0,
    steps: int = 500,
    tolerance: float = 1e-8,
) -> list[float]:
    """Sets all parameters to their estimates, in place: closed form, or EM where cells are missing.

    Complete rows: the tables are (count + a) / (total + sum of a) with a Dirichlet prior worth
    `prior` observations a table, spread evenly; the numbers are regressed on their parents by least
    squares, in every configuration of the discrete ones. Missing cells enter by their posterior
    moments, which is EM (Lauritzen 1995), and are taken to be missing at random. Not private.

    Args:
        net: its graph is kept. Without a schema, it takes that of a frame, in the frame's units.
        data: rows in any form, every node among them.
        prior: observations the prior of each table is worth; 0 for maximum likelihood.
        steps: the most steps of EM.
        tolerance: EM stops where a step changes the log-likelihood by less, in nats a row.

    Returns:
        The mean log-likelihood before every step after the first, and at the end, in nats a row.

    Raises:
        ValueError: a negative prior, unknown or absent nodes or levels, a configuration of parents
            with too few rows, parents that are linearly dependent, or a node without a residual.

    Example:
        >>> net = GaussianNetwork({"y": ["x"]})
        >>> x = torch.tensor([-1.0, 0.0, 1.0, 2.0])
        >>> _ = estimate(net, {"x": x, "y": 3 * x + torch.tensor([0.1, -0.1, -0.1, 0.1])})
        >>> net.coefficients[1].data
        tensor([0.0000, 3.0000])
    """
    if prior < 0:
        raise ValueError(f"prior is {prior}; it counts observations, from 0 for none.")
    if net.schema is None and type(data).__module__.partition(".")[0] == "pandas":
        net.schema = Schema.infer(data)
    batch = move(prepare(net, data), device=torch.device("cpu"), dtype=torch.float64)
    check_batch(net.structure, batch, every=True)

    def evidence(law: ConditionalGaussian) -> Iterator[Evidence]:
        for piece in _pieces(net, batch):
            yield evidence_of(net.structure, law, piece)

    with torch.no_grad():
        tables, lines, history = expectation_maximisation(
            net.structure,
            _start(net, batch),
            evidence,
            complete=not any(name.endswith(SEEN) for name in batch),
            prior=prior,
            steps=steps,
            tolerance=tolerance,
        )
        for logits, log_p in zip(net.logits, tables, strict=True):
            logits.copy_(log_p)
        for c, s, line in zip(net.coefficients, net.log_scales, lines, strict=True):
            c.copy_(line.coefficients)
            s.copy_(line.scale.log())
    return history


def example() -> Example:
    """Height and weight of two sexes, in standard units."""
    net = GaussianNetwork({"sex": [], "height": ["sex"], "weight": ["height", "sex"]}, {"sex": 2})
    with seeded(0):
        sex = torch.randint(2, (400,))
        height = 0.8 * sex + 0.6 * torch.randn(400)
        weight = 0.7 * height + 0.4 * sex + 0.5 * torch.randn(400)
    data = {"sex": sex, "height": height, "weight": weight}
    return Example(net, data, fit={"steps": 150, "learning_rate": 0.03})


@objective.register(GaussianNetwork)
def _loss(model: GaussianNetwork, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """-log p of the seen cells, exact; infinite where a level is none of the node's."""
    check_known(model.structure, [name.removesuffix(SEEN) for name in batch])
    if set(model.parents) == set(batch):
        return -_complete(model, batch)
    log_p = evidence_of(model.structure, model.joint(), batch).log_joint().logsumexp(-1)
    return -log_p.to(model.log_scales[0])


@log_prob.register(GaussianNetwork)
def _density(model: GaussianNetwork, batch: Batch, *, particles: int = 100) -> LogProb:
    """log p of the seen cells, exact; what is missing or left out is integrated out."""
    check_batch(model.structure, batch)
    value = torch.cat([-_loss(model, piece) for piece in _pieces(model, batch)])
    return LogProb(value, torch.zeros_like(value), "exact")


@impute.register(GaussianNetwork)
def _impute(
    model: GaussianNetwork, batch: Batch, *, draws: int = 5, particles: int = 200
) -> Imputation:
    """Exact joint draws: a configuration of the levels, then the numbers from its conditional."""
    check_batch(model.structure, batch)
    law = model.joint()
    pieces = [_draw(model, law, piece, draws) for piece in _pieces(model, batch, draws)]
    completed = Batch({name: torch.cat([p[name] for p in pieces], 1) for name in pieces[0]})
    return Imputation(completed, torch.full((rows_of(batch),), float(particles)))


for verb in (encode, decode):
    verb.refuse(
        GaussianNetwork,
        "its nodes are what was seen, and there is no code behind them. Use marginals(given) for "
        "the posterior of unseen nodes, or pgm.families.factor.FactorAnalysis for codes.",
    )


def _draw(
    model: GaussianNetwork, law: ConditionalGaussian, batch: Batch, draws: int
) -> dict[str, Tensor]:
    """Completions (draws, n) of the sites in the batch."""
    levels, y = draw(evidence_of(model.structure, law, batch), draws)
    found = dict(zip(model.levels, levels.unbind(-1), strict=True))
    found |= dict(zip(model.numbers, y.unbind(-1), strict=True))
    return {
        name: torch.where(batch[name + SEEN], batch[name], x.to(batch[name]))
        if name + SEEN in batch
        else batch[name].expand(draws, -1)
        for name, x in found.items()
        if name in batch
    }


def _complete(model: GaussianNetwork, batch: Batch) -> Float[Tensor, " n"]:
    """log p of rows without a missing cell: the sum over the nodes."""
    inside = {name: batch[name].clamp(0, k - 1) for name, k in model.levels.items()}
    values, total = batch | inside, torch.zeros(rows_of(batch)).to(model.log_scales[0])
    for name in model.order:
        total = total + model.law(name, values).log_prob(values[name])
    for name, x in inside.items():
        total = torch.where(x == batch[name], total, -torch.inf)
    return total


def _start(model: GaussianNetwork, batch: Batch) -> ConditionalGaussian:
    """Independent nodes: uniform tables, numbers with the moments of their seen cells."""
    tables = [torch.zeros_like(t).double().log_softmax(-1) for t in model.logits]
    lines = []
    for name, c, s in zip(model.numbers, model.coefficients, model.log_scales, strict=True):
        x = batch[name][batch.get(name + SEEN, torch.ones_like(batch[name], dtype=torch.bool))]
        c, s = torch.zeros_like(c).double(), torch.ones_like(s).double()
        c[..., 0] = x.mean()
        lines.append(Line(c, s * x.std(correction=0).clamp(min=1e-12)))
    return joint(model.structure, tables, lines)


def _pieces(model: GaussianNetwork, batch: Batch, times: int = 1) -> Iterator[Batch]:
    """The rows in pieces of which a covariance a configuration fits memory."""
    seen = all(v in batch and v + SEEN not in batch for v in model.levels)
    each = 1 if seen else math.prod(model.levels.values())
    return chunks(batch, max(1, _AT_ONCE // (max(each, times) * len(model.numbers) ** 2)))
