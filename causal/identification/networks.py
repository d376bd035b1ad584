"""Discrete causal Bayesian networks with latent nodes, and their exact distributions.

P(v) = sum_u prod_i P(v_i | parents of i), and under do(x) the factors of x are left out (Pearl
2009, Causality, eqs. 1.33 and 3.10). All is by enumeration: this is the truth that estimands and
bounds are compared with.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import networkx as nx
import torch
from torch import Tensor

from causal.graph import observed, order, parents
from causal.identification.tables import (
    Table,
    check_size,
    configurations,
    divide_tables,
    spread,
)
from causal.structural import Structural
from pgm.randomness import seeded
from pgm.schema.columns import listing


@dataclass(frozen=True, eq=False)
class Network:
    """A graph with a table P(node | parents) for every node, latent ones too.

    Attributes:
        graph: the causal graph.
        tables: by node, over its parents and, last, itself.
    """

    graph: nx.DiGraph
    tables: Mapping[str, Table]

    def joint(self) -> Table:
        """P of all observed variables, the latent ones summed out."""
        return self.interventional(observed(self.graph), do=())

    def interventional(self, outcome: Iterable[str], *, do: Iterable[str]) -> Table:
        """P(outcome | do), over the outcome and then the intervened nodes, at all their values."""
        outcome, done = list(outcome), list(do)
        factors = [table for node, table in self.tables.items() if node not in done]
        levels = {name: v for table in self.tables.values() for name, v in table.levels.items()}
        wanted = [*outcome, *done]
        ones = [Table(torch.ones(len(levels[x])), {x: levels[x]}) for x in done]
        return _sum_product([*factors, *ones], {name: levels[name] for name in wanted})

    def conditional(
        self, outcome: Iterable[str], *, do: Iterable[str], given: Iterable[str] = ()
    ) -> Table:
        """P(outcome | do, given), over the outcome, the intervened and the given nodes."""
        outcome, given = list(outcome), list(given)
        joint = self.interventional([*outcome, *given], do=do)
        rest = [name for name in joint.axes if name not in outcome]
        table = divide_tables(joint, joint.marginal(rest))
        axes = [*outcome, *(n for n in rest if n not in given), *given]
        return Table(
            spread(table, {n: table.levels[n] for n in axes}), {n: table.levels[n] for n in axes}
        )


def random_network(graph: nx.DiGraph, *, seed: int, largest: int = 3) -> Network:
    """A network over the graph with random levels, 2 .. largest a node, and positive tables.

    The rows of each table are Dirichlet(1, ..., 1), mixed with a little of the uniform.

    Example:
        >>> from causal.graph import parse
        >>> network = random_network(parse("X -> Y; X <-> Y"), seed=0)
        >>> network.joint().axes, network.joint().values.sum()
        (('X', 'Y'), tensor(1., dtype=torch.float64))
    """
    with seeded(seed):
        sizes = {v: int(torch.randint(2, largest + 1, ())) for v in graph}
        tables = {}
        for node in order(graph):
            names = [*parents(graph, node), node]
            shape = [sizes[name] for name in names]
            draws = torch.empty(shape, dtype=torch.float64).exponential_()
            probs = 0.95 * draws / draws.sum(-1, keepdim=True) + 0.05 / shape[-1]
            tables[node] = Table(probs, {name: tuple(range(sizes[name])) for name in names})
    return Network(graph, tables)


def as_network(scm: Structural) -> Network:
    """The mechanisms of an SCM of discrete nodes as tables.

    Raises:
        ValueError: a node that is a number or a count.

    Example:
        >>> from causal import SCM, CategoricalTable
        >>> scm = SCM("X -> Y", X=CategoricalTable([0.5, 0.5]),
        ...           Y=CategoricalTable([[0.9, 0.1], [0.2, 0.8]], parents=["X"]))
        >>> round(as_network(scm).joint().at(X=1, Y=1), 4)
        0.4
    """
    labels = {node: _labels(scm, node) for node in scm.nodes}
    if numbers := [node for node, values in labels.items() if len(values) < 2]:
        raise ValueError(
            f"Nodes that have no finite set of levels: {listing(numbers)}. A table of "
            "probabilities needs discrete nodes. Ask the SCM itself (causal.effect, pgm.sample "
            "under causal.do), or bin the data."
        )
    tables = {}
    for node in order(scm.graph):
        names = [*parents(scm.graph, node), node]
        levels = {name: labels[name] for name in names}
        check_size({name: len(v) for name, v in levels.items()})
        tables[node] = Table(_table(scm, node, levels), levels)
    return Network(scm.graph, tables)


def _labels(scm: Structural, node: str) -> tuple[object, ...]:
    levels = scm.mechanism(node).levels
    column = scm.schema.columns.get(node) if scm.schema else None
    named = getattr(column, "levels", None)
    return tuple(named) if named else tuple(range(levels))


def _table(scm: Structural, node: str, levels: Mapping[str, tuple[object, ...]]) -> Tensor:
    """P(node | parents) at every configuration of the parents."""
    shape = [len(values) for values in levels.values()]
    cells = configurations(shape[:-1])
    values = {name: cells[:, i] for i, name in enumerate(list(levels)[:-1])}
    with torch.no_grad():
        fn = scm.mechanism(node).dist(values)
        columns = [fn.log_prob(torch.full((len(cells),), k)).double() for k in range(shape[-1])]
    probs = torch.stack(columns, -1).exp().reshape(shape)
    return probs / probs.sum(-1, keepdim=True)


def _sum_product(tables: list[Table], keep: Mapping[str, tuple[object, ...]]) -> Table:
    """The product of tables, summed over all variables that are not kept."""
    number: dict[str, int] = {}
    for table in tables:
        for name in table.axes:
            number.setdefault(name, len(number))
    check_size({name: len(values) for name, values in keep.items()})
    operands = [x for t in tables for x in (t.values, [number[name] for name in t.axes])]
    return Table(torch.einsum(*operands, [number[name] for name in keep]), keep)
