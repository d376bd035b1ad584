"""The posterior of causal graphs given a table: arrows, ancestors, draws and effects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from causal.discovery.agreement import Agreement, compare
from causal.discovery.cells import Cells
from causal.discovery.draws import GraphDraws, as_digraph, best_graph, draw_by_order, draw_uniform
from causal.discovery.families import Families, Score
from causal.discovery.layers import MOST
from causal.effects.results import Effect
from causal.graph import GraphLike
from causal.graph.checks import check_nodes
from pgm.randomness import fresh_seed
from pgm.verb import Unsupported

if TYPE_CHECKING:
    import pandas

    from causal.discovery.averages import Fit

Prior = Literal["uniform", "order"]
_SHOWN = 40
"""Edges that are printed."""


@dataclass(frozen=True)
class Probability:
    """A probability, and its standard error where it comes of draws.

    Attributes:
        value: the probability.
        error: zero where it is exact.
    """

    value: float
    error: float = 0.0

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.4f}" + (f" +- {self.error:.4f}" if self.error else " (exact)")


@dataclass(frozen=True, eq=False, repr=False)
class GraphPosterior:
    """How probable every causal graph is, given a table; it prints and plots itself.

    Attributes:
        names: of the n nodes.
        edges: the probability of every arrow, (n, n); the row is the cause.
        log_evidence: log p(table) in nats, averaged over graphs; NaN where it is not known.
        prior: "uniform", all graphs alike, or "order", by the number of their causal orders.
        score: of the families.
        most: the largest number of parents.
        how: by what algorithm.
        families: the table of scores.
        cells: the table.
        clamped: what was set in each row, (rows, n).
        conditions: names of the conditions whose targets were not known.
        targets: the probability that a condition acts on a node, (conditions, n).
        ancestors: the probability that the row is an ancestor of the column, where it is exact.
        chains: graphs drawn by Markov chains, (chains, draws, n) sets of parents as bits.
        error: standard errors of `edges`, where they come of chains.
        remarks: reasons not to trust the chains.
    """

    names: tuple[str, ...]
    edges: Float[Tensor, "n n"]
    log_evidence: float
    prior: Prior
    score: Score
    most: int
    how: str
    families: Families
    cells: Cells
    clamped: Bool[Tensor, "rows n"]
    conditions: tuple[str, ...]
    targets: Float[Tensor, "c n"]
    ancestors: Float[Tensor, "n n"] | None = None
    chains: Tensor | None = None
    error: Float[Tensor, "n n"] | None = None
    remarks: tuple[str, ...] = field(default=())

    def probability(self, cause: str, effect: str) -> float:
        """The probability of one arrow.

        Raises:
            ValueError: no such node.
        """
        return float(self.edges[self._index(cause), self._index(effect)])

    def graph(self, *, above: float = 0.5) -> "nx.DiGraph[str]":
        """The arrows that are more probable than `above`, with their `probability`.

        It summarises many graphs and need not be one of them; it may even have a cycle.
        """
        graph = as_digraph(self.names, self.edges > above)
        for a, b in graph.edges:
            graph.edges[a, b]["probability"] = self.probability(a, b)
        return graph

    def mode(self) -> "nx.DiGraph[str]":
        """The graph of the highest score, which is the most probable one under a uniform prior.

        Raises:
            Unsupported: too many nodes for sums over all sets of nodes.
        """
        self._check_exact("The graph of the highest score")
        parents = best_graph(self.families.sets, _scaled(self.families))
        return next(iter(GraphDraws(self.names, parents[None], "the highest score")))

    def sample(self, draws: int = 1000, *, seed: int | None = None) -> GraphDraws:
        """Graphs drawn from the posterior: independent ones, or those of the Markov chains.

        Under the uniform prior they are drawn by layers (Talvitie et al. 2019), under the
        order-modular one by orders: both exactly.

        Args:
            draws: how many.
            seed: of the draws.

        Raises:
            Unsupported: more than 13 nodes under the uniform prior, which then has Markov chains.
        """
        generator = torch.Generator().manual_seed(fresh_seed() if seed is None else seed)
        what = f"{self.prior} prior, at most {self.most} parents"
        if self.chains is not None:
            every = self.chains.flatten(0, 1)
            chosen = torch.randint(len(every), (draws,), generator=generator)
            return GraphDraws(self.names, every[chosen], f"{what}; from Markov chains")
        draw = draw_by_order if self.prior == "order" else draw_uniform
        if self.prior == "uniform" and len(self.names) > MOST:
            raise Unsupported(
                f"Exact draws under the uniform prior have 4^n terms, and {len(self.names)} nodes "
                f"are more than {MOST}. Use discover(..., method='mcmc'), or prior='order'."
            )
        parents = draw(self.families.sets, _scaled(self.families), draws, generator)
        return GraphDraws(self.names, parents, f"{what}; independent draws")

    def ancestor(
        self, cause: str, effect: str, *, draws: int = 1000, seed: int | None = None
    ) -> Probability:
        """The probability that there is a directed path: that setting one node can move another.

        Exact under the uniform prior, else the share of draws.

        Raises:
            ValueError: no such node.
        """
        i, j = self._index(cause), self._index(effect)
        if self.ancestors is not None:
            return Probability(float(self.ancestors[i, j]))
        found = self.sample(draws, seed=seed).ancestors[:, i, j].double()
        return Probability(float(found.mean()), float((found.var() / draws).sqrt()))

    def effect(
        self,
        outcome: str,
        *,
        do: Mapping[str, Any],
        versus: Mapping[str, Any] | None = None,
        draws: int = 200,
        fit: "Fit | None" = None,
        confidence: float = 0.95,
        seed: int | None = None,
    ) -> Effect:
        """The effect of an intervention, averaged over graphs: see `causal.discovery.averages`."""
        from causal.discovery.averages import average_effect

        return average_effect(
            self, outcome, do=do, versus=versus, draws=draws, fit=fit, confidence=confidence,
            seed=seed,
        )  # fmt: skip

    def compare(self, graph: GraphLike, *, above: float = 0.5) -> Agreement:
        """Holds the arrows that are more probable than `above` against those of another graph."""
        return compare(self.graph(above=above), graph)

    def table(self) -> "pandas.DataFrame":
        """Probabilities of the arrows, a row for each cause and a column for each effect."""
        import pandas as pd

        return pd.DataFrame(self.edges.numpy(), index=list(self.names), columns=list(self.names))

    def plot(self, ax: Any = None) -> Any:
        """Draws the probabilities as a matrix; returns the matplotlib axes."""
        from causal.discovery.pictures import draw_edges

        return draw_edges(self, ax=ax)

    def __str__(self) -> str:
        likely = [(float(self.edges[i, j]), i, j) for i, j in (self.edges > 0.5).nonzero().tolist()]
        likely.sort(key=lambda edge: -edge[0])
        rows, n = self.cells.x.shape
        evidence = "" if self.log_evidence != self.log_evidence else (
            f", log evidence {self.log_evidence:.2f} nats"
        )  # fmt: skip
        lines = [
            f"Graphs of {n} nodes from {rows} rows: {len(likely)} arrows above .5{evidence}",
            f"  {self.score}, at most {self.most} parents, {self.prior} prior; {self.how}",
        ]
        if set_rows := int(self.clamped.any(1).sum()):
            lines.append(f"  {set_rows} rows in which a node was set do not count for it")
        lines += [f"  {p:.3f}  {self.names[i]} -> {self.names[j]}" for p, i, j in likely[:_SHOWN]]
        lines += [f"  and {len(likely) - _SHOWN} more"] if len(likely) > _SHOWN else []
        for name, row in zip(self.conditions, self.targets, strict=True):
            found = _by_weight(self.names, row)
            lines.append(f"  condition {name} acts on {found}")
        return "\n".join([*lines, *(f"  * {remark}" for remark in self.remarks)])

    __repr__ = __str__

    def _index(self, name: str) -> int:
        check_nodes(as_digraph(self.names, self.edges > 2), [name])
        return self.names.index(name)

    def _check_exact(self, what: str) -> None:
        if self.chains is not None:
            raise Unsupported(
                f"{what} is found by sums over all sets of nodes, which {len(self.names)} nodes "
                "forbid. Take the most frequent of posterior.sample().distinct()."
            )


def _scaled(families: Families) -> Tensor:
    """Scores with the best of every node at zero, which loses no digits to their size."""
    return families.scores - families.scores.amax(1, keepdim=True)


def _by_weight(names: Sequence[str], row: Tensor) -> str:
    order = row.argsort(descending=True, stable=True).tolist()
    likely = [f"{names[i]} ({float(row[i]):.3f})" for i in order if float(row[i]) > 0.5]
    return (
        ", ".join(likely)
        or f"nothing above .5, {names[order[0]]} most ({float(row[order[0]]):.3f})"
    )
