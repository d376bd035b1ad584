"""The set to adjust for whose estimate has the smallest asymptotic variance.

Without latent nodes it is O = pa(cn(x, y)) without the forbidden nodes, where cn are the nodes on
causal paths (Henckel, Perkovic & Maathuis 2022, Graphical criteria for efficient total effect
estimation via adjustment in causal linear models, for ordinary least squares; Rotnitzky & Smucler
2020, Efficient adjustment sets for population average causal treatment effect estimation in
graphical models, for semiparametric estimates of one treatment's effect). These are the outcome's
neighbours in the graph whose vertex cuts are the adjustment sets.

With latent nodes these neighbours are optimal if every node that could be adjusted for is an
ancestor of treatment or outcome (Smucler, Sapienza & Rotnitzky 2022, Efficient adjustment sets in
causal graphical models with hidden variables); else there may be no optimal set. The minimal set
nearest the outcome is always the best of the minimal ones.
"""

from typing import Literal

import networkx as nx

from causal.graph import GraphLike, Nodes, ancestors, latents, separated
from causal.graph.separators import near_separator, neighbours
from causal.identification.adjustment import (
    adjustable,
    adjustment_sets,
    causal_nodes,
    proper_back_door,
)
from causal.identification.criterion import question

_COMPARED = 12
"""The most nodes of whose subsets all are compared."""


def optimal_adjustment_set(
    graph: GraphLike,
    treatment: Nodes,
    outcome: str,
    *,
    among: Literal["all", "minimal"] = "all",
) -> tuple[str, ...]:
    """The valid set of observed nodes that gives the most precise estimate, whatever the numbers.

    It is so for ordinary least squares in linear models, and with one treatment also for
    semiparametrically efficient estimates of its average effect.

    Args:
        graph: in any form that `as_graph` reads.
        treatment: one node, or several that are set together.
        outcome: one node.
        among: "all" valid sets, or the "minimal" ones, among which there is always a best.

    Raises:
        ValueError: no valid set; a treatment without an effect; or, with latent nodes, no set of
            which the graph alone shows that it is best.

    Example:
        >>> optimal_adjustment_set("A -> X -> Y; A -> B -> Y; C -> Y", "X", "Y")
        ('B', 'C')
        >>> optimal_adjustment_set("A -> X -> Y; A -> B -> Y; C -> Y", "X", "Y", among="minimal")
        ('B',)
    """
    graph, x, y = question(graph, treatment, outcome)
    if not causal_nodes(graph, x, y):
        raise ValueError(
            f"No path of arrows leads from {treatment!r} to {outcome!r}: the effect is zero, and "
            "there is nothing to estimate."
        )
    back, within = proper_back_door(graph, x, y), adjustable(graph, x, y)
    nearest = near_separator(back, y, x, within=within)
    if nearest is None:
        raise ValueError(
            f"No set of observed nodes is valid to adjust for in the effect of {treatment!r} on "
            f"{outcome!r}. Other formulas may hold: see causal.identify, front_door_sets and "
            "instruments."
        )
    if among == "minimal":
        return nearest
    best = neighbours(back, y, x, within=within)
    if not latents(graph) or within <= ancestors(graph, x | y):
        return best
    found = _dominant(graph, x, y, start=best) if len(within) <= _COMPARED else None
    if found is not None:
        return found
    raise ValueError(
        "With these latent nodes the graph does not show that one valid set is best for all "
        "numbers: which one is depends on the mechanisms. Choose among adjustment_sets by the "
        "standard error, or take the best of the minimal ones with among='minimal'."
    )


def _dominant(
    graph: nx.DiGraph, x: set[str], y: set[str], start: tuple[str, ...]
) -> tuple[str, ...] | None:
    """A valid set that is at least as good as every other one, if comparison shows one."""
    sets, best = adjustment_sets(graph, x, y, kind="all"), start
    for z in sets:
        if not _is_better(graph, x, y, best, z) and _is_better(graph, x, y, z, best):
            best = z
    return best if all(_is_better(graph, x, y, best, z) for z in sets) else None


def _is_better(
    graph: nx.DiGraph, x: set[str], y: set[str], one: tuple[str, ...], other: tuple[str, ...]
) -> bool:
    """Whether the variance with `one` is at most that with `other` (Henckel et al., theorem 3.10).

    What `other` has more says no more of y, and what `one` has more says nothing of x.
    """
    more, less = set(one) - set(other), set(other) - set(one)
    return (not less or separated(graph, y, less, x | set(one))) and (
        not more or separated(graph, x, more, other)
    )
