"""Why an effect is not identified: the hedge, two C-forests that no data can tell apart.

A C-forest is a graph whose observed nodes are one district and have at most one child each; those
without a child are its roots. Two R-rooted C-forests F and F', F' inside F, make a hedge for
P(y | do(x)) if x meets F but not F', and R causes y even where x is cut off (Shpitser & Pearl 2006,
AAAI, def. 6 and thm. 4). Where there is one, two models agree on all that is observed and differ in
the effect.
"""

from dataclasses import dataclass

import networkx as nx

from causal.graph import ancestors, cut_incoming, districts, subgraph
from causal.identification.instruments import Instrument

Arrows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Hedge:
    """A hedge for P(outcome | do).

    Attributes:
        outcome: the y of the question.
        do: its x.
        larger: the nodes of F, which x meets.
        smaller: the nodes of F', which it does not.
        roots: R.
        arrows: of F; those between nodes of F' are the arrows of F'.
    """

    outcome: tuple[str, ...]
    do: tuple[str, ...]
    larger: tuple[str, ...]
    smaller: tuple[str, ...]
    roots: tuple[str, ...]
    arrows: Arrows

    def __str__(self) -> str:
        met = " and ".join(x for x in self.do if x in self.larger)
        return (
            f"Unseen common causes connect {{{', '.join(self.larger)}}}, and what they do to "
            f"{{{', '.join(self.smaller)}}} cannot be told from what {met} does: two models can "
            "agree on everything observed and differ in this effect (a hedge)."
        )

    def check(self, graph: nx.DiGraph) -> None:
        """Goes through the definition in the graph, word by word.

        Raises:
            ValueError: with what does not hold.
        """
        for claim, holds in _claims(self, graph):
            if not holds:
                raise ValueError(f"This is no hedge in the graph: it is not true that {claim}.")


class NotIdentifiable(ValueError):
    """No expression in observed probabilities is the effect: the graph and its data leave it open.

    Attributes:
        hedge: why.
        question: the probability asked for.
        instruments: what identifies the effect if it is assumed to be linear.
    """

    def __init__(
        self, question: str, hedge: Hedge, instruments: tuple[Instrument, ...] = ()
    ) -> None:
        linear = (
            f"If the effect is linear, an instrument gives it: {instruments[0]}. "
            if instruments
            else ""
        )
        super().__init__(
            f"{question} is not identified. {hedge} No amount of such data helps: observe more, "
            f"randomise, or assume more. {linear}For discrete variables causal.bounds.effect gives "
            "the range that the data leave."
        )
        self.question, self.hedge, self.instruments = question, hedge, instruments


def find_hedge(
    graph: nx.DiGraph,
    larger: set[str],
    smaller: set[str],
    outcome: tuple[str, ...],
    do: tuple[str, ...],
) -> Hedge:
    """The hedge in the pair of node sets with which ID fails at line 5.

    The roots are the nodes of the smaller set that cause none of it. Every other node keeps one
    arrow, on a shortest way to a root; there is one, since line 2 has left ancestors only.

    Args:
        graph: the projected graph of the question.
        larger: the nodes of G at line 5.
        smaller: those of S.
        outcome: the y of the question.
        do: its x.
    """
    inner: nx.DiGraph[str] = nx.DiGraph(graph.subgraph(smaller))
    roots = [v for v in graph if v in smaller and not inner.succ[v]]
    arrows = {**towards(inner, set(roots)), **towards(graph.subgraph(larger), smaller)}
    F, S, R = (tuple(v for v in graph if v in nodes) for nodes in (larger, smaller, set(roots)))
    return Hedge(outcome, do, F, S, R, tuple(sorted(arrows.items())))


def towards(graph: nx.DiGraph, goal: set[str]) -> dict[str, str]:
    """By node outside the goal, its next one on a shortest directed path into the goal."""
    found, layer, steps = set(goal), sorted(goal), dict[str, str]()
    while layer:
        new = []
        for node in layer:
            for cause in sorted(set(graph.pred[node]) - found):
                steps[cause] = node
                found.add(cause)
                new.append(cause)
        layer = new
    return steps


def _claims(hedge: Hedge, graph: nx.DiGraph) -> list[tuple[str, bool]]:
    larger, smaller, roots, do = (
        set(s) for s in (hedge.larger, hedge.smaller, hedge.roots, hedge.do)
    )
    inner = tuple((a, b) for a, b in hedge.arrows if {a, b} <= smaller)
    above = ancestors(cut_incoming(graph, do), hedge.outcome)
    return [
        ("F' lies inside F", smaller < larger),
        ("every arrow of F is one of the graph", all(graph.has_edge(*a) for a in hedge.arrows)),
        ("F is one district", len(districts(subgraph(graph, larger))) == 1),
        ("F' is one district", len(districts(subgraph(graph, smaller))) == 1),
        ("F is a forest with the roots R", _is_forest(larger, hedge.arrows, roots)),
        ("F' is a forest with the roots R", _is_forest(smaller, inner, roots)),
        ("x meets F", bool(do & larger)),
        ("x does not meet F'", not do & smaller),
        ("R causes y where x is cut off", roots <= above),
    ]


def _is_forest(nodes: set[str], arrows: Arrows, roots: set[str]) -> bool:
    """Whether every node but the roots has one child, and every way ends in a root."""
    child = dict(arrows)
    return (
        len(child) == len(arrows)
        and set(child) == nodes - roots
        and set(child.values()) <= nodes
        and nx.is_directed_acyclic_graph(nx.DiGraph(list(arrows)))
    )


def words(outcome: tuple[str, ...], do: tuple[str, ...], given: tuple[str, ...] = ()) -> str:
    """P(y | do(x), z).

    Example:
        >>> words(("Y",), ("X",), ("Z",)), words(("Y",), ())
        ('P(Y | do(X), Z)', 'P(Y)')
    """
    after = ([f"do({', '.join(do)})"] if do else []) + ([", ".join(given)] if given else [])
    return f"P({', '.join(outcome)}{' | ' if after else ''}{', '.join(after)})"
