"""How an effect is read off data: by adjustment, through the front door, or by an instrument.

The graph decides, by `causal.identification`, and never DoWhy, whose own identification forgets
latent causes. Of adjustment sets the optimal one is taken, where the graph shows one; else the
minimal set nearest the outcome.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import networkx as nx

from causal.graph import GraphLike, as_graph, check_nodes, descendants, latents
from causal.identification import (
    NotIdentifiable,
    adjustment_sets,
    front_door_sets,
    identify,
    instruments,
    is_adjustment_set,
    is_instrument,
    optimal_adjustment_set,
)
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


def plan(
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
        graph: in any form that `causal.as_graph` reads.
        treatment: the cause.
        outcome: the effect.
        seen: the nodes that were seen; None for all that are not latent.
        kind: the way wanted; None takes adjustment, else the front door, else an instrument.
        given: an adjustment set of one's own, which is checked.

    Raises:
        ValueError: no such node, no directed path, or no such way.

    Example:
        >>> print(plan("size -> treatment -> success; size -> success", "treatment", "success"))
        adjustment, given size: it blocks every path from treatment to success that is not causal
    """
    full = as_graph(graph)
    check_nodes(full, [treatment, outcome])
    here = set(full if seen is None else seen) | {treatment, outcome}
    full = as_graph(full, latent=[node for node in full if node not in here])
    if outcome not in descendants(full, treatment) or treatment == outcome:
        raise ValueError(
            f"In the graph no directed path leads from {treatment!r} to {outcome!r}: the effect is "
            "zero by assumption, and no estimate could say otherwise. If it might not be, the "
            "graph lacks an arrow."
        )
    if given is not None:
        return _own(full, treatment, outcome, tuple(given), kind)
    rules = {"adjustment": _adjustment, "front door": _front_door, "instrument": _instrument}
    for name, rule in rules.items():
        if kind in (None, name) and (found := rule(full, treatment, outcome)):
            return found
    raise ValueError(_none(full, treatment, outcome, kind))


def _adjustment(graph: nx.DiGraph, x: str, y: str) -> Strategy | None:
    if not adjustment_sets(graph, x, y, kind="minimum"):
        return None
    try:
        return _adjusted(x, y, optimal_adjustment_set(graph, x, y))
    except ValueError:  # the latent nodes leave open which set is best
        return _adjusted(x, y, optimal_adjustment_set(graph, x, y, among="minimal"))


def _front_door(graph: nx.DiGraph, x: str, y: str) -> Strategy | None:
    sets = sorted(front_door_sets(graph, x, y), key=len)
    if not sets or not sets[0]:
        return None
    names = listing(list(sets[0]))
    why = f"every causal path leads through {names}, without an open cause shared with either"
    return Strategy("front door", x, y, through=sets[0], why=why)


def _instrument(graph: nx.DiGraph, x: str, y: str) -> Strategy | None:
    """All instruments that are valid given the covariates of the first one."""
    found = instruments(graph, x, y)
    if not found:
        return None
    given = found[0].given
    nodes = [z.node for z in found if z.node not in given]
    valid = [z for z in nodes if is_instrument(graph, z, x, y, given=given)]
    why = (
        f"tied to {x}, and to {y} through it alone; the effect is taken to be linear and the same "
        "for all, else it is that of those whom the instrument moves"
    )
    return Strategy("instrument", x, y, given, instruments=tuple(valid), why=why)


def _own(graph: nx.DiGraph, x: str, y: str, given: tuple[str, ...], kind: Kind | None) -> Strategy:
    """An adjustment set of the user's own."""
    check_nodes(graph, given, what="The covariate")
    if kind not in (None, "adjustment"):
        raise ValueError(f"given= is an adjustment set, and {kind} was asked for. Leave one out.")
    valid = is_adjustment_set(graph, x, y, given)
    if not valid:
        raise ValueError(
            f"given= cannot be adjusted for, since {valid.reason}: the estimate would be biased. "
            "Leave given= out for a set that the graph allows, or mend the graph."
        )
    return _adjusted(x, y, tuple(node for node in graph if node in given))


def _adjusted(x: str, y: str, given: tuple[str, ...]) -> Strategy:
    why = f"it blocks every path from {x} to {y} that is not causal"
    return Strategy("adjustment", x, y, given, why=why if given else "no path needs blocking")


def _none(graph: nx.DiGraph, x: str, y: str, kind: Kind | None) -> str:
    what = f"no {kind}" if kind else "neither adjustment, a front door nor an instrument"
    unseen = listing(latents(graph)) or "nothing"
    head = f"The effect of {x!r} on {y!r} has {what} in this graph (unseen: {unseen})."
    if kind is not None:
        return f"{head} Leave method= out to take what the graph allows."
    try:
        found = identify(graph, y, do=x)
    except NotIdentifiable:
        return (
            f"{head} It is not identifiable: no data on these columns can tell it. Measure a "
            "common cause, or find an instrument; causal.bounds has what can be said without."
        )
    return (
        f"{head} It is identified, by {found.expression}, for which there is no estimator on "
        "numbers. On discrete columns causal.identify(graph, outcome, do=treatment).evaluate(frame)"
        " computes it."
    )
