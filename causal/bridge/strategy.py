"""How an effect is read off data: by adjustment, through the front door, or by an instrument.

The graph decides, never DoWhy: its own identification forgets latent causes. Adjustment is by a set
that meets the adjustment criterion (Shpitser, VanderWeele & Robins 2010; Perkovic et al. 2018), the
front door by Pearl (2009, Causality, sec. 3.3.2), an instrument given covariates by Brito & Pearl
(2002).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import networkx as nx

from causal.graph import GraphLike, as_graph, check_nodes
from pgm.schema.columns import listing

Kind = Literal["adjustment", "front door", "instrument"]
"""The ways in which an effect is identified here."""


@dataclass(frozen=True)
class Strategy:
    """Which columns identify an effect, and why they do.

    Attributes:
        kind: "adjustment", "front door" or "instrument".
        treatment: the cause.
        outcome: the effect.
        adjust: the columns that are adjusted for; of an instrument, those it is valid given.
        through: the mediators of the front door.
        instruments: what moves the treatment and nothing else.
        why: the criterion that holds, in words.
    """

    kind: Kind
    treatment: str
    outcome: str
    adjust: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    why: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        used = (self.treatment, self.outcome, *self.adjust, *self.through, *self.instruments)
        return tuple(dict.fromkeys(used))

    def __str__(self) -> str:
        parts = {"through": self.through, "instrument": self.instruments, "given": self.adjust}
        named = [f"{word} {listing(list(names))}" for word, names in parts.items() if names]
        return f"{self.kind}, {', '.join(named) or 'given nothing'}: {self.why}"


def identify(
    graph: GraphLike,
    treatment: str,
    outcome: str,
    *,
    seen: Iterable[str] | None = None,
    kind: Kind | None = None,
    given: Iterable[str] | None = None,
) -> Strategy:
    """A way in which the graph lets the effect be read off the columns that were seen.

    Args:
        graph: a DiGraph, or text for `causal.parse`. Nodes marked `latent=True` are not seen.
        treatment: the cause.
        outcome: the effect.
        seen: the nodes that were seen; None for all that are not latent.
        kind: the way wanted; None takes adjustment, else the front door, else an instrument.
        given: an adjustment set of one's own, which is checked.

    Raises:
        ValueError: no such node, no directed path, or no such way.

    Example:
        >>> print(identify("size -> treatment -> success; size -> success", "treatment", "success"))
        adjustment, given size: it blocks every path from treatment to success that is not causal
    """
    full = _marked(graph)
    check_nodes(full, [treatment, outcome])
    visible = {v for v in (full if seen is None else seen) if v in full and not _latent(full, v)}
    visible -= {treatment, outcome}
    if not nx.has_path(full, treatment, outcome) or treatment == outcome:
        raise ValueError(
            f"In the graph no directed path leads from {treatment!r} to {outcome!r}: the effect is "
            "zero by assumption, and no estimate could say otherwise. If it might not be, the "
            "graph lacks an arrow."
        )
    if given is not None:
        return _checked(full, treatment, outcome, visible, tuple(given), kind)
    rules = {"adjustment": _adjustment, "front door": _front_door, "instrument": _instrument}
    for name, rule in rules.items():
        if kind in (None, name) and (found := rule(full, treatment, outcome, visible)):
            return found
    raise ValueError(_none(full, treatment, outcome, visible, kind))


def _adjustment(graph: nx.DiGraph, x: str, y: str, seen: set[str]) -> Strategy | None:
    """The optimal set (Henckel, Perkovic & Maathuis 2022) if it was seen, else a minimal one."""
    causal, forbidden = _causal(graph, x, y), _forbidden(graph, x, y)
    upstream = nx.ancestors(graph, x) | nx.ancestors(graph, y)
    allowed = (upstream & seen) - forbidden
    optimal = {p for node in causal for p in graph.predecessors(node)} - forbidden - {x}
    cut = _without_effect(graph, x, y)
    if optimal <= seen and nx.is_d_separator(cut, {x}, {y}, optimal):
        return _adjusted(graph, x, y, optimal)
    if not nx.is_d_separator(cut, {x}, {y}, allowed):
        return None
    minimal = nx.find_minimal_d_separator(cut, x, y, restricted=allowed)
    return None if minimal is None else _adjusted(graph, x, y, minimal)


def _front_door(graph: nx.DiGraph, x: str, y: str, seen: set[str]) -> Strategy | None:
    """One mediator on every causal path, unconfounded with x, and with y given x."""
    for m in (node for node in graph if node in seen and node in _causal(graph, x, y)):
        without = graph.subgraph([v for v in graph if v != m])
        if nx.has_path(without, x, y):
            continue
        if nx.is_d_separator(_cut_outgoing(graph, x), {x}, {m}, set()) and nx.is_d_separator(
            _cut_outgoing(graph, m), {m}, {y}, {x}
        ):
            why = f"every causal path leads through {m}, which shares no open cause with either"
            return Strategy("front door", x, y, through=(m,), why=why)
    return None


def _instrument(graph: nx.DiGraph, x: str, y: str, seen: set[str]) -> Strategy | None:
    """Nodes tied to x, and to y through x alone, given covariates that x and y do not move."""
    cut = _without_effect(graph, x, y)
    allowed = seen - nx.descendants(graph, x) - nx.descendants(graph, y)
    for z in (node for node in graph if node in allowed):
        given = nx.find_minimal_d_separator(cut, z, y, restricted=allowed - {z})
        if given is None:
            continue
        others = [
            v for v in graph if v in allowed - given and _is_instrument(graph, cut, v, x, y, given)
        ]
        if others:
            why = (
                f"tied to {x}, and to {y} through it alone; the effect is taken to be linear and "
                "the same for all, else it is that of those whom the instrument moves"
            )
            adjust = tuple(v for v in graph if v in given)
            return Strategy("instrument", x, y, adjust, instruments=tuple(others), why=why)
    return None


def _is_instrument(
    graph: nx.DiGraph, cut: nx.DiGraph, z: str, x: str, y: str, given: set[str]
) -> bool:
    tied = not nx.is_d_separator(graph, {z}, {x}, given)
    return tied and nx.is_d_separator(cut, {z}, {y}, given)


def _checked(
    graph: nx.DiGraph, x: str, y: str, seen: set[str], given: tuple[str, ...], kind: Kind | None
) -> Strategy:
    """An adjustment set of the user's own."""
    check_nodes(graph, given, what="The covariate")
    if kind not in (None, "adjustment"):
        raise ValueError(f"given= is an adjustment set, and {kind} was asked for. Leave one out.")
    wrong = set(given) & (_forbidden(graph, x, y) | {x, y})
    if wrong or not set(given) <= seen:
        what = f"{listing(sorted(wrong))} lies on or below a causal path from {x!r} to {y!r}"
        blind = f"{listing(sorted(set(given) - seen))} was not seen"
        raise ValueError(
            f"given= cannot be adjusted for: {what if wrong else blind}, and the estimate would be "
            "biased. Leave given= out for a set that the graph allows."
        )
    if not nx.is_d_separator(_without_effect(graph, x, y), {x}, {y}, set(given)):
        raise ValueError(
            f"given= {listing(list(given)) or 'nothing'} leaves a path between {x!r} and {y!r} "
            "open that is not causal, and the estimate would be biased. Leave given= out for a set "
            "that the graph allows, or mend the graph."
        )
    return _adjusted(graph, x, y, set(given))


def _adjusted(graph: nx.DiGraph, x: str, y: str, given: set[str]) -> Strategy:
    why = f"it blocks every path from {x} to {y} that is not causal"
    adjust = tuple(node for node in graph if node in given)
    return Strategy("adjustment", x, y, adjust, why=why if adjust else "no path needs blocking")


def _none(graph: nx.DiGraph, x: str, y: str, seen: set[str], kind: Kind | None) -> str:
    latent = [node for node in graph if node not in seen | {x, y}]
    what = f"no {kind}" if kind else "neither adjustment, a front door nor an instrument"
    return (
        f"The effect of {x!r} on {y!r} has {what} in this graph (unseen: "
        f"{listing(latent) or 'nothing'}). Measure a common cause or find an instrument; "
        "causal.identification looks for other formulas, and for bounds where there is none."
    )


def _causal(graph: nx.DiGraph, x: str, y: str) -> set[str]:
    """The nodes on causal paths from x to y, x left out."""
    return nx.descendants(graph, x) & (nx.ancestors(graph, y) | {y})


def _forbidden(graph: nx.DiGraph, x: str, y: str) -> set[str]:
    """What must not be adjusted for: causal paths, and all that lies below them."""
    causal = _causal(graph, x, y)
    return causal.union(*(nx.descendants(graph, node) for node in causal))


def _without_effect(graph: nx.DiGraph, x: str, y: str) -> nx.DiGraph:
    """The proper back-door graph: the first arrow of every causal path is cut."""
    cut: nx.DiGraph[str] = nx.DiGraph(graph)
    cut.remove_edges_from([(x, node) for node in _causal(graph, x, y)])
    return cut


def _cut_outgoing(graph: nx.DiGraph, node: str) -> nx.DiGraph:
    cut: nx.DiGraph[str] = nx.DiGraph(graph)
    cut.remove_edges_from(list(graph.out_edges(node)))
    return cut


def _marked(graph: GraphLike) -> nx.DiGraph:
    """A checked copy with the marks of latent nodes."""
    copy = as_graph(graph)
    if isinstance(graph, nx.DiGraph):
        nx.set_node_attributes(copy, {node: dict(graph.nodes[node]) for node in graph})
    return copy


def _latent(graph: nx.DiGraph, node: str) -> bool:
    return bool(graph.nodes[node].get("latent", False))
