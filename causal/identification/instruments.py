"""Instruments: in linear models the effect is cov(z, y | w) / cov(z, x | w).

z is an instrument of x and y given w (Brito & Pearl 2002, Generalized instrumental variables; for
total effects Henckel, Buttenschoen & Maathuis 2024, Graphical tools for selecting conditional
instrumental sets) if

    1. neither z nor w lies on a causal path from x to y, x apart, or descends from one that does,
    2. z and x are not separated by w, and
    3. w separates z from y once the first arrows of the causal paths from x to y are taken away.

To find a w for a given z is NP-hard, but where any z has one, some z has one among the ancestors of
z and y, the separator nearest y (van der Zander, Textor & Liskiewicz 2015, Efficiently finding
conditional instruments for causal inference). Without linearity an instrument gives bounds, or the
effect on those whom it moves (Angrist, Imbens & Rubin 1996).
"""

from dataclasses import dataclass

import networkx as nx

from causal.graph import GraphLike, Nodes, ancestors, latents, observed, separated
from causal.graph.separators import near_separator
from causal.graph.structure import node_set
from causal.identification.adjustment import adjustable, causal_nodes, proper_back_door
from causal.identification.criterion import Criterion, blame, question

_NAME = "instrument"


@dataclass(frozen=True)
class Instrument:
    """A node that is an instrument given others.

    Example:
        >>> Instrument("Z", ("A", "B"))
        Z | A, B
    """

    node: str
    given: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.node + (f" | {', '.join(self.given)}" if self.given else "")


def instruments(graph: GraphLike, treatment: str, outcome: str) -> list[Instrument]:
    """Instruments for the total effect of the treatment on the outcome, each with a minimal set.

    If there is any conditional instrument, one is found; not every one is.

    Args:
        graph: in any form that `as_graph` reads.
        treatment: one node.
        outcome: one node.

    Raises:
        ValueError: no such node, a latent one, or a treatment that does not cause the outcome.

    Example:
        >>> instruments("Z -> X -> Y; X <-> Y; A -> {Z Y}", "X", "Y")
        [Z | A]
    """
    graph, x, y = question(graph, treatment, outcome)
    _check_effect(graph, treatment, outcome)
    back, found = proper_back_door(graph, x, y), list[Instrument]()
    allowed = adjustable(graph, x, y)
    for z in (v for v in observed(graph) if v in allowed):
        w = near_separator(back, y, {z}, within=allowed - {z})
        if w is not None and is_instrument(graph, z, treatment, outcome, given=w):
            found.append(Instrument(z, _pruned(graph, z, treatment, outcome, w)))
    return found


def is_instrument(
    graph: GraphLike, instrument: str, treatment: str, outcome: str, given: Nodes = ()
) -> Criterion:
    """Whether a node is an instrument for the total effect, given a set.

    Args:
        graph: in any form that `as_graph` reads.
        instrument: the node.
        treatment: one node.
        outcome: one node.
        given: what is conditioned on.

    Returns:
        An answer that is true where it is an instrument, and says why where it is not.

    Raises:
        ValueError: no such node, a latent treatment or outcome, a treatment that does not cause
            the outcome, or a node that is named twice.

    Example:
        >>> bool(is_instrument("Z -> X -> Y; X <-> Y", "Z", "X", "Y"))
        True
        >>> print(is_instrument("Z -> X -> Y; X <-> Y; Z -> Y", "Z", "X", "Y"))
        instrument: fails, since the path Z -> Y is open, not through the treatment
        >>> print(is_instrument("Z; X -> Y; X <-> Y", "Z", "X", "Y"))
        instrument: fails, since Z and X are independent
    """
    graph, x, y = question(graph, treatment, outcome)
    _check_effect(graph, treatment, outcome)
    w = node_set(graph, given)
    z = node_set(graph, instrument)
    if twice := sorted((z & w) | ((z | w) & (x | y))):
        raise ValueError(
            f"Node {twice[0]!r} is named twice. Instrument, treatment, outcome and what is given "
            "are different nodes."
        )
    if hidden := [v for v in latents(graph) if v in z | w]:
        return Criterion(_NAME, False, f"{hidden[0]} is latent and cannot be used")
    between, allowed = causal_nodes(graph, x, y), adjustable(graph, x, y)
    for node in (v for v in graph if v in (z | w) - allowed):
        above = next(v for v in graph if v in between & ancestors(graph, node))
        is_what = "is" if node == above else f"is an effect of {above},"
        reason = f"{node} {is_what} on a causal path from {treatment} to {outcome}"
        return Criterion(_NAME, False, reason)
    if separated(graph, z, x, w):
        known = f" given {', '.join(v for v in graph if v in w)}" if w else ""
        return Criterion(_NAME, False, f"{instrument} and {treatment} are independent{known}")
    found = blame(_NAME, proper_back_door(graph, x, y), z, y, w, "path")
    if found:
        return found
    return Criterion(_NAME, False, f"{found.reason}, not through the treatment", found.path)


def _pruned(
    graph: nx.DiGraph, z: str, treatment: str, outcome: str, w: tuple[str, ...]
) -> tuple[str, ...]:
    """What is left of w when no single node can be left out any more."""
    for node in w:
        fewer = tuple(v for v in w if v != node)
        if is_instrument(graph, z, treatment, outcome, given=fewer):
            return _pruned(graph, z, treatment, outcome, fewer)
    return w


def _check_effect(graph: nx.DiGraph, treatment: str, outcome: str) -> None:
    if not causal_nodes(graph, {treatment}, {outcome}):
        raise ValueError(
            f"No path of arrows leads from {treatment!r} to {outcome!r}: the effect is zero, and "
            "there is nothing to estimate."
        )
