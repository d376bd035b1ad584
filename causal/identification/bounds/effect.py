"""Bounds of an effect over discrete variables, by linear programming where the problem is linear.

P(y | do(x)) is a sum over the ancestors of y of a product of terms, one a district of the graph
(Tian & Pearl 2002). Where a district's term is identified it is a number. Where it is not, it is
linear in the distribution of that district's response types, and so is what was observed of it:
with one such district the least and largest value are a linear program (Balke & Pearl 1997, JASA
92, for an instrument; Sachs et al. 2022 and Duarte et al. 2023 in general). With two or more the
program is polynomial, and refused.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import networkx as nx
import torch
from torch import Tensor

from causal.graph import GraphLike, as_graph, check_nodes, latents, observed
from causal.identification.bounds.answer import Bounds
from causal.identification.bounds.linear import Contradiction, Polytope
from causal.identification.bounds.problem import Event, Problem, split
from causal.identification.tables import Table
from pgm.schema.columns import listing

Programs: TypeAlias = Sequence[tuple[Polytope, Tensor]]


def effect(
    graph: GraphLike,
    data: Any,
    outcome: str | Event,
    *,
    do: Event,
    versus: Event | None = None,
    slack: float = 0.0,
) -> Bounds:
    """The least and largest effect that the graph and the probabilities of the data allow.

    Args:
        graph: a causal graph in any form.
        data: probabilities of the observed variables: a `Table`, rows of discrete values, or a
            discrete SCM.
        outcome: the event whose probability is asked for, `{"Y": 1}`; or one variable whose values
            are numbers, for its mean.
        do: the values that are set.
        versus: those that are compared with; the bounds are of the difference.
        slack: by how much the probabilities may be off, each; for frequencies that no model over
            the graph has exactly.

    Returns:
        The bounds. They meet where the effect is identified.

    Raises:
        ValueError: probabilities that contradict the graph (the instrumental inequality, say);
            several districts that are not identified; too many response types; a name or value
            that is not there.

    Example:
        >>> from causal.identification import Table
        >>> p = torch.tensor([[[0.919, 0.081], [0.0, 0.0]], [[0.315, 0.073], [0.139, 0.473]]])
        >>> joint = Table(0.5 * p, {"Z": (0, 1), "X": (0, 1), "Y": (0, 1)})
        >>> graph = "Z -> X -> Y; X <-> Y"
        >>> print(effect(graph, joint, {"Y": 1}, do={"X": 1}, versus={"X": 0}))
        P(Y=1 | do(X=1)) - P(Y=1 | do(X=0)) in [0.392, 0.78]
          linear program over 16 response types of X, Y; sharp
    """
    whole = as_graph(graph)
    event: Event = dict(outcome) if isinstance(outcome, Mapping) else {}
    names = list(event) or [str(outcome)]
    _check(whole, names, do, versus)
    arms = [(1.0, do)] + ([(-1.0, versus)] if versus else [])
    problem = split(whole, data, names, arms)
    weight = _weight(problem.joint, names, event)
    question = " - ".join(_question(names, event, arm) for _, arm in arms)
    rows = problem.joint.rows
    if not problem.open:
        value = problem.known(weight, arms)
        return Bounds(question, value, value, "identified", rows=rows)
    programs = problem.programs(weight, arms, slack)
    low, high = _range(problem, programs)
    sharp = _is_sharp(whole, problem.open)
    return Bounds(question, low, high, _how(problem, programs, slack), sharp=sharp, rows=rows)


def _range(problem: Problem, programs: Programs) -> tuple[float, float]:
    """The least and largest sum of the programs' values."""
    try:
        ends = [polytope.range(c) for polytope, c in programs]
        return sum(low for low, _ in ends), sum(high for _, high in ends)
    except Contradiction as found:
        D = ", ".join(problem.open)
        raise ValueError(
            f"No model over this graph has these probabilities: those of {D} miss by at least "
            f"{found.miss:.3g}. Either the graph is wrong (an instrument that acts on the outcome "
            "in another way breaks the instrumental inequality, Pearl 1995), or these are "
            f"frequencies of few rows: slack={math.ceil(found.miss * 1e3) / 1e3:g} lets each "
            "probability be off by that much."
        ) from None


def _how(problem: Problem, programs: Programs, slack: float) -> str:
    types = f"{len(programs[0][1]):,} response types of {', '.join(problem.open)}"
    at = f" at each value of {', '.join(problem.shared)}" if problem.shared else ""
    return f"linear program over {types}{at}" + (f", slack {slack:g}" if slack else "")


def _weight(joint: Table, names: list[str], event: Event) -> Table:
    """What is summed: 1 at the event, or the value of the outcome."""
    levels = {name: joint.levels[name] for name in names}
    if not event:
        labels = levels[names[0]]
        if not all(isinstance(label, int | float) for label in labels):
            raise ValueError(
                f"The values of {names[0]!r} are {', '.join(map(repr, labels))}: names have no "
                f"mean. Ask for the probability of one: {{{names[0]!r}: {labels[0]!r}}}."
            )
        return Table(torch.tensor([float(label) for label in labels]), levels)
    cells = torch.zeros([len(labels) for labels in levels.values()])
    cells[tuple(joint.position(name, event[name]) for name in names)] = 1.0
    return Table(cells, levels)


def _is_sharp(whole: nx.DiGraph, district: tuple[str, ...]) -> bool:
    """Whether one unseen node acts on all of the district, as the response types assume."""
    if len(district) <= 2:
        return True
    seen = set(observed(whole))
    for u in latents(whole):
        reached, todo = set[str](), [u]
        while todo:
            new = set(whole.succ[todo.pop()]) - reached
            reached |= new
            todo += sorted(new - seen)
        if set(district) <= reached:
            return True
    return False


def _question(names: list[str], event: Event, arm: Event) -> str:
    done = f"do({', '.join(f'{x}={label}' for x, label in arm.items())})"
    if not event:
        return f"E[{names[0]} | {done}]"
    return f"P({', '.join(f'{y}={label}' for y, label in event.items())} | {done})"


def _check(whole: nx.DiGraph, y: list[str], do: Event, versus: Event | None) -> None:
    for what, names in (("The outcome", y), ("The intervened node", list(do))):
        check_nodes(whole, names, what=what)
        if hidden := [v for v in latents(whole) if v in names]:
            raise ValueError(f"{what} {hidden[0]!r} is latent: no data hold it. Ask about others.")
    if both := set(y) & set(do):
        raise ValueError(f"{sorted(both)[0]!r} is set, so that it is no outcome. Ask about others.")
    if not do:
        raise ValueError('Nothing is set: pass the value of the cause, do={"X": 1}.')
    if versus is not None and set(versus) != set(do):
        raise ValueError(
            f"do sets {listing(sorted(do))} and versus {listing(sorted(versus))}. An effect "
            "compares two values of the same variables: name the same ones in both."
        )
