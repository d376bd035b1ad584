"""Discrete Bayesian network: a table for every variable given its parents in an acyclic graph.

    p(x) = prod_j theta_j(x_j | x_parents(j))

(Pearl 1988; Koller & Friedman 2009, Def. 3.4). The program is a chain of Categorical sites, one a
variable under its own name, causes first. What is asked of the density is answered by bucket
elimination (`pgm.inference.exact`), exactly, whatever cells are missing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pgm.batch import SEEN, Batch, rows_of
from pgm.data.bif import Network, format_bif, read_bif
from pgm.families import Example
from pgm.inference.exact import (
    Factor,
    draw,
    log_partition,
    marginals_and_log_partition,
    most_probable,
)
from pgm.inference.exact.answers import Marginals
from pgm.inference.exact.counts import Estimate, expectation_maximisation
from pgm.inference.exact.elimination import eliminate
from pgm.inference.exact.evidence import Evidence, tables
from pgm.inference.exact.factors import Scope, check_known, intervene
from pgm.inference.exact.passes import MEMORY, plan_left
from pgm.model import Model, rows
from pgm.objectives import objective
from pgm.randomness import seeded
from pgm.schema import Categorical, Level, Schema
from pgm.schema.columns import listing
from pgm.schema.words import codes
from pgm.verb import prepare
from pgm.verbs import Imputation, LogProb, impute, log_prob

__all__ = ["DiscreteBayesNet", "asia", "estimate", "example"]


class DiscreteBayesNet(Model):
    """A Bayesian network over discrete variables (Koller & Friedman 2009, Sec. 3.2).

    Args:
        parents: of each variable that has any, in the order of the axes of its table.
        states: the names of the states of every variable, or how many it has.
        tables: p(variable | parents) by variable, shape (states of each parent, states of the
            variable); tables left out are uniform, to be trained. Rows are normalised.

    Attributes:
        parents: of every variable, in the order of the axes of its table.
        states: their names, by variable.
        order: the variables, causes first.
        logits: log tables up to a constant a row, in the order of `states`; a zero of a table is
            -inf and stays so.
        schema: reads frames with a column a variable.

    Raises:
        ValueError: a cycle, an unknown variable, or a table of another shape or with rows that are
            no probabilities.

    Example:
        >>> net = DiscreteBayesNet(
        ...     {"wet": ["rain"]},
        ...     {"rain": ["no", "yes"], "wet": ["no", "yes"]},
        ...     {"rain": torch.tensor([0.7, 0.3]), "wet": torch.tensor([[0.9, 0.1], [0.2, 0.8]])},
        ... )
        >>> print(net.marginals({"wet": "yes"}))
        rain  no .2258  yes .7742
        wet   no .0000  yes 1.0000
        log p of what was seen: -1.171 nats
        >>> print(net.marginals(do={"wet": "yes"}))
        rain  no .7000  yes .3000
        wet   no .0000  yes 1.0000
    """

    def __init__(
        self,
        parents: Mapping[str, Sequence[str]],
        states: Mapping[str, Sequence[Level] | int],
        tables: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        columns = {
            name: Categorical(tuple(range(s)) if isinstance(s, int) else tuple(s))
            for name, s in states.items()
        }
        self.schema = Schema(columns)
        self.states = {name: tuple(column.levels) for name, column in columns.items()}
        check_known([*parents, *(tables or {})], list(states), what="the network")
        self.parents = {name: tuple(parents.get(name, ())) for name in states}
        check_known([p for above in self.parents.values() for p in above], list(states), what="it")
        self.order = _order(self.graph)
        self.logits = nn.ParameterList(
            nn.Parameter(_log_table(name, self._shape(name), (tables or {}).get(name)))
            for name in states
        )

    @classmethod
    def from_graph(
        cls,
        graph: "nx.DiGraph[str]",
        states: Mapping[str, Sequence[Level] | int],
        tables: Mapping[str, Any] | None = None,
    ) -> "DiscreteBayesNet":
        """A network over the nodes of a graph; the axes of a table follow `graph.predecessors`."""
        check_known(list(graph), list(states), what="the graph")
        parents = {name: list(graph.predecessors(name)) for name in graph}
        return cls(parents, states, tables)

    @classmethod
    def from_bif(cls, path: str | os.PathLike[str]) -> "DiscreteBayesNet":
        """Reads a BIF file, in double precision (`pgm.data.bif`, with the errors it raises)."""
        found = read_bif(path)
        return cls(found.parents, found.states, found.tables)

    def to_bif(self, path: str | os.PathLike[str]) -> None:
        """Writes a BIF file, which `from_bif` reads back."""
        states = {name: tuple(map(str, s)) for name, s in self.states.items()}
        found = Network(states, self.parents, self.tables, "hotplate")
        Path(path).write_text(format_bif(found) + "\n", encoding="utf-8")

    def model(self, n: int) -> None:
        """x_j ~ Categorical(theta_j(. | parents)), causes first."""
        logits = dict(zip(self.parents, self.logits, strict=True))
        values: dict[str, Tensor] = {}
        with rows(n):
            for name in self.order:
                at = tuple(values[parent].long() for parent in self.parents[name])
                values[name] = pyro.sample(name, dist.Categorical(logits=logits[name][at]))

    @property
    def graph(self) -> "nx.DiGraph[str]":
        """The graph, as a new DiGraph."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.parents)
        graph.add_edges_from((p, name) for name, above in self.parents.items() for p in above)
        return graph

    @property
    def tables(self) -> dict[str, Tensor]:
        """p(variable | parents) by variable, shape (states of each parent, states)."""
        return {name: t.softmax(-1) for name, t in zip(self.parents, self.logits, strict=True)}

    def factors(self, do: Mapping[str, Any] | None = None) -> list[Factor]:
        """The log tables as factors, for `pgm.inference.exact`; under do() as point masses."""
        found = [
            Factor((*self.parents[name], name), logits.log_softmax(-1), child=name)
            for name, logits in zip(self.parents, self.logits, strict=True)
        ]
        return intervene(found, _codes(self, do)) if do else found

    @torch.no_grad()
    def marginals(
        self,
        given: Any = None,
        *,
        targets: Sequence[str | Scope] | None = None,
        do: Mapping[str, Any] | None = None,
        memory: int = MEMORY,
    ) -> Marginals:
        """Posterior probabilities, exact, for any number of rows of evidence at once.

        Args:
            given: what was seen: a frame with some of the columns, or by variable a state in your
                words, a list of them with None where it is missing, or a tensor of codes.
            targets: variables, and tuples of them for joint probabilities; by default all.
            do: what is set, in the same words (Pearl 2009, eq. 3.10).
            memory: bytes that the tables of one pass may take.

        Raises:
            ValueError: unknown variables or states, or evidence of probability zero.
            MemoryError: a network too densely tied to be summed.
        """
        factors, seen = self.factors(do), _codes(self, given)
        found, log_p = marginals_and_log_partition(factors, targets, seen, memory=memory)
        return Marginals(found, self.states, log_p if seen else torch.zeros_like(log_p))

    @torch.no_grad()
    def most_probable(
        self, given: Any = None, *, do: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Int[Tensor, " n"]], Float[Tensor, " n"]]:
        """The most probable state of all variables together, as codes, and its log probability.

        `schema.decode` turns the codes into a frame. Arguments are those of `marginals`.
        """
        return most_probable(self.factors(do), _codes(self, given))

    def extra_repr(self) -> str:
        """How large it is."""
        arrows, numbers = len(self.graph.edges), sum(t.numel() for t in self.logits)
        return f"{len(self.states)} variables, {arrows} arrows, {numbers} probabilities"

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(len(self.states[v]) for v in (*self.parents[name], name))


def estimate(
    net: DiscreteBayesNet,
    data: Any,
    *,
    prior: float = 1.0,
    steps: int = 200,
    tolerance: float = 1e-6,
    seed: int | None = 0,
) -> Estimate:
    """Sets all tables to those of the highest posterior, in place: counts, or EM where cells miss.

    Each table has a Dirichlet prior worth `prior` observations in all, spread evenly (BDeu;
    Heckerman, Geiger & Chickering 1995): theta is (count + a) / (total + sum of a), the posterior
    mean of complete rows. Missing cells are summed over by EM (Lauritzen 1995), which assumes that
    they are missing at random and climbs to a local maximum; `pgm.fit` climbs the same likelihood
    by gradients, without the prior.

    Args:
        net: its graph and states are kept; zeros of its tables are forgotten.
        data: rows in any form; variables that are left out are latent.
        prior: observations the prior of each table is worth; 0 for maximum likelihood.
        steps: the most steps of EM.
        tolerance: EM stops where a step raises the log posterior by less, in nats a row.
        seed: of the random starts of tables whose variables are never seen together.

    Raises:
        ValueError: a prior below zero; levels that the network does not know; with `prior=0`,
            parents' states that occur in no row.

    Example:
        >>> net = DiscreteBayesNet({"wet": ["rain"]}, {"rain": 2, "wet": 2})
        >>> rain, wet = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
        >>> _ = estimate(net, {"rain": rain, "wet": wet}, prior=0.0)
        >>> net.tables["wet"]
        tensor([[0.5000, 0.5000],
                [0.0000, 1.0000]], grad_fn=...)
    """
    if prior < 0:
        raise ValueError(f"prior is {prior}; it counts observations, from 0 for none.")
    if type(data).__module__.partition(".")[0] == "pandas" and net.schema is not None:
        latent = [name for name in net.schema.columns if name not in data]
        data = data.reindex(columns=[*data.columns, *latent])
    batch = prepare(net, data)
    with torch.no_grad():
        found, how = expectation_maximisation(
            net.factors(), batch, prior=prior, steps=steps, tolerance=tolerance, seed=seed
        )
        for logits, log_table in zip(net.logits, found, strict=True):
            logits.copy_(log_table)
    return how


def asia() -> DiscreteBayesNet:
    """The chest clinic of Lauritzen & Spiegelhalter (1988), Table 1, in double precision."""
    p = {
        "asia": [0.01, 0.99],
        "tub": [[0.05, 0.95], [0.01, 0.99]],
        "smoke": [0.5, 0.5],
        "lung": [[0.1, 0.9], [0.01, 0.99]],
        "bronc": [[0.6, 0.4], [0.3, 0.7]],
        "either": [[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]],
        "xray": [[0.98, 0.02], [0.05, 0.95]],
        "dysp": [[[0.9, 0.1], [0.8, 0.2]], [[0.7, 0.3], [0.1, 0.9]]],
    }
    parents = {"tub": ["asia"], "lung": ["smoke"], "bronc": ["smoke"], "either": ["lung", "tub"]}
    parents |= {"xray": ["either"], "dysp": ["bronc", "either"]}
    tables = {name: torch.tensor(table, dtype=torch.float64) for name, table in p.items()}
    return DiscreteBayesNet(parents, {name: ["yes", "no"] for name in p}, tables)


def example() -> Example:
    """The chest clinic, its tables to be learned from 500 rows."""
    true = asia()
    with seeded(0):
        drawn = draw(true.factors(), 500)
    data = {name: x[:, 0] for name, x in drawn.items()}
    net = DiscreteBayesNet(true.parents, {name: list(s) for name, s in true.states.items()})
    return Example(net, data, fit={"steps": 200, "learning_rate": 0.05}, discrete=True)


@log_prob.register(DiscreteBayesNet)
def _log_prob(model: DiscreteBayesNet, batch: Batch, *, particles: int = 100) -> LogProb:
    """log p of the cells that were seen, exact."""
    value = log_partition(model.factors(), batch)
    return LogProb(value, torch.zeros_like(value), "exact")


@impute.register(DiscreteBayesNet)
def _impute(
    model: DiscreteBayesNet, batch: Batch, *, draws: int = 5, particles: int = 200
) -> Imputation:
    """Exact joint draws of the missing cells of a row given those that were seen."""
    drawn = draw(model.factors(), draws, batch)
    sites = {name: drawn[name] for name in batch if name in model.parents}
    return Imputation(Batch(sites), torch.full((rows_of(batch),), float(particles)))


@objective.register(DiscreteBayesNet)
def _loss(model: DiscreteBayesNet, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """-log p of the cells that were seen, exact; infinite where a code is none of the states."""
    factors = model.factors()
    masks = {name + SEEN for name in batch}
    names = [name for name in batch if name not in masks]
    check_known(names, list(model.parents), what="the batch")
    known, seen, valid = {}, {}, torch.ones((), dtype=torch.bool, device=model.device)
    for name in names:
        x = batch[name]
        known[name] = x.clamp(0, len(model.states[name]) - 1).long()
        if name + SEEN in batch:
            seen[name] = batch[name + SEEN]
        valid = valid & ((x == known[name]) | ~seen.get(name, torch.ones_like(valid)))
    evidence = Evidence(rows_of(batch), known, seen)
    left = [tuple(v for v in f.scope if v not in evidence.known) for f in factors]
    plan = plan_left(factors, [*left, *((name,) for name in seen)], (), prune=True)
    log_p = eliminate(tables(factors, evidence), plan)[0]
    return torch.where(valid, -log_p.expand(rows_of(batch)), torch.inf)


def _codes(net: DiscreteBayesNet, given: Any) -> dict[str, Tensor]:
    assert net.schema is not None
    return {} if given is None else codes(net.schema, given)


def _order(graph: "nx.DiGraph[str]") -> tuple[str, ...]:
    """Causes before effects, otherwise as the variables were named."""
    if not nx.is_directed_acyclic_graph(graph):
        cycle = [a for a, _ in nx.find_cycle(graph)]
        raise ValueError(
            f"The parents go round in a circle: {' -> '.join([*cycle, cycle[0]])}. A Bayesian "
            "network is acyclic: drop one of these arrows; for symmetric ties use a Markov random "
            "field."
        )
    place = {name: i for i, name in enumerate(graph)}
    return tuple(nx.lexicographical_topological_sort(graph, key=place.__getitem__))


def _log_table(name: str, shape: tuple[int, ...], table: Any) -> Tensor:
    if table is None:
        return torch.zeros(shape)
    p = torch.as_tensor(table).detach()
    p = p if p.is_floating_point() else p.to(torch.get_default_dtype())
    if tuple(p.shape) != shape:
        raise ValueError(
            f"The table of {name!r} has shape {tuple(p.shape)}; it needs {shape}: an axis for each "
            "parent in their order, and the variable's own states last."
        )
    total = p.sum(-1, keepdim=True)
    sums = [f"{t:g}" for t in total.flatten().tolist()]
    if bool((p < 0).any()) or not bool(((total - 1).abs() < 1e-2).all()):
        raise ValueError(
            f"The rows of the table of {name!r} are no probabilities: they are >= 0 and add up to "
            f"1 over the last axis, but sums such as {listing(sums, 4)} came."
        )
    return (p / total).log()
