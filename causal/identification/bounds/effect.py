"""Bounds of an effect over discrete variables, by linear programming where the problem is linear.

P(y | do(x)) is a sum over the ancestors of y of a product of terms, one a district of the graph
(Tian & Pearl 2002). Where a district's term is identified it is a number. Where it is not, it is
linear in the distribution of that district's response types, and so is what was observed of it:
with one such district the least and largest value are a linear program (Balke & Pearl 1997, JASA
92, for an instrument; Sachs et al. 2022 and Duarte et al. 2023 in general). With two or more the
program is polynomial, and refused.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor

from causal.graph import (
    GraphLike,
    ancestors,
    as_graph,
    check_nodes,
    cut_incoming,
    districts,
    latents,
    observed,
    order,
    project,
    subgraph,
)
from causal.identification.algorithms import district_factor, id_
from causal.identification.bounds.answer import Bounds
from causal.identification.bounds.linear import Contradiction, Polytope
from causal.identification.bounds.responses import Responses
from causal.identification.evaluation import average, evaluate
from causal.identification.hedge import NotIdentifiable
from causal.identification.simplify import reduce
from causal.identification.tables import Label, Table, as_table, spread
from pgm.schema.columns import listing

Event = Mapping[str, Label]
"""Values by variable."""


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
    problem = _problem(whole, data, names, do)
    for name, label in [*event.items(), *do.items(), *(versus or {}).items()]:
        problem.joint.position(name, label)
    weight = _weight(problem.joint, names, event)
    arms = [(1.0, do)] + ([(-1.0, versus)] if versus else [])
    question = " - ".join(_question(names, event, arm) for _, arm in arms)
    rows = problem.joint.rows
    if not problem.open:
        value = sum(sign * float(problem.known(weight, arm)) for sign, arm in arms)
        return Bounds(question, value, value, "identified", rows=rows)
    c = sum((sign * problem.objective(weight, arm) for sign, arm in arms), start=torch.zeros(()))
    low, high = _range(problem, c, slack)
    types = f"{problem.responses.number:,} response types of {', '.join(problem.open)}"
    how = f"linear program over {types}" + (f", slack {slack:g}" if slack else "")
    return Bounds(question, low, high, how, sharp=_is_sharp(whole, problem.open), rows=rows)


@dataclass(frozen=True, eq=False)
class Problem:
    """A question, district by district.

    Attributes:
        graph: the projection on the ancestors of the districts.
        joint: P of its observed nodes.
        inner: An(y) with x cut off, without x: what the sum is over.
        terms: of the districts whose part of `inner` is identified, that part's table.
        open: the nodes of the district whose part is not; none if all are.
        seen: Q of the open district, NaN where nothing was seen.
    """

    graph: nx.DiGraph
    joint: Table
    inner: tuple[str, ...]
    terms: tuple[Table, ...]
    open: tuple[str, ...]
    seen: Table | None

    @property
    def responses(self) -> Responses:
        """The response types of the open district."""
        return Responses(self.graph, self.open, self.joint.levels)

    def known(self, weight: Table, arm: Event) -> Tensor:
        """The effect where all is identified."""
        tables = [_at(table, arm) for table in (*self.terms, weight)]
        return _contract(tables)

    def objective(self, weight: Table, arm: Event) -> Float[Tensor, " types"]:
        """The effect as a linear function of the types' probabilities."""
        responses = self.responses
        inside = [v for v in self.open if v in self.inner]
        tables = [*self.terms, weight, *map(responses.follow, inside)]
        return responses.linear([_at(table, arm) for table in tables], [])[0]

    def polytope(self, slack: float) -> Polytope:
        """What was observed of the open district."""
        assert self.seen is not None
        A, b = self.responses.matrix(self.seen.axes), self.seen.values.flatten()
        known = ~b.isnan()
        return Polytope(A[known], b[known], slack)


def _problem(whole: nx.DiGraph, data: Any, y: list[str], do: Event) -> Problem:
    """Splits the question into districts, and finds which are identified."""
    projected = project(whole)
    V = set(observed(projected))
    inner = (ancestors(cut_incoming(projected, do), y) & V) - set(do)
    touched = set[str]().union(*(D for D in districts(projected) if inner & set(D)))
    G = subgraph(projected, ancestors(projected, touched) & V)
    joint = as_table(data, [*observed(G), *(x for x in do if x not in G)])
    terms, unknown = list[Table](), list[tuple[str, ...]]()
    for D in districts(G):
        part = inner & set(D)
        term = _term(G, joint, part, inner | set(do)) if part else None
        if term is not None:
            terms.append(term)
        elif part:
            unknown.append(tuple(D))
    if len(unknown) > 1:
        raise ValueError(_not_linear(unknown))
    where = unknown[0] if unknown else ()
    seen = _seen(G, joint, where) if unknown else None
    ordered = tuple(v for v in observed(G) if v in inner)
    return Problem(G, joint, ordered, tuple(terms), where, seen)


def _term(G: nx.DiGraph, joint: Table, part: set[str], axes: set[str]) -> Table | None:
    """P(part | do(all else)) over `axes`, or None where it is not identified or not defined."""
    place = {v: i for i, v in enumerate(order(G))}
    try:
        expression = reduce(id_(G, part, set(observed(G)) - part), G, place)
    except NotIdentifiable:
        return None
    table = evaluate(expression, joint)
    table = average(table, joint, [name for name in table.axes if name not in axes])
    return None if bool(table.values.isnan().any()) else table


def _seen(G: nx.DiGraph, joint: Table, district: tuple[str, ...]) -> Table:
    """Q of a whole district, over its nodes and their parents."""
    return evaluate(district_factor(G, set(district)), joint)


def _range(problem: Problem, c: Tensor, slack: float) -> tuple[float, float]:
    try:
        return problem.polytope(slack).range(c)
    except Contradiction as found:
        D = ", ".join(problem.open)
        raise ValueError(
            f"No model over this graph has these probabilities: those of {D} miss by at least "
            f"{found.miss:.3g}. Either the graph is wrong (an instrument that acts on the outcome "
            "in another way breaks the instrumental inequality, Pearl 1995), or these are "
            f"frequencies of few rows: slack={math.ceil(found.miss * 1e3) / 1e3:g} lets each "
            "probability be off by that much."
        ) from None


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


def _at(table: Table, arm: Event) -> Table:
    """The table at the values that are set."""
    held = {name: label for name, label in arm.items() if name in table.axes}
    found = table.at(**held) if held else table
    return found if isinstance(found, Table) else Table(torch.tensor(found), {})


def _contract(tables: list[Table]) -> Tensor:
    """The sum over everything of a product of tables."""
    levels = {name: labels for table in tables for name, labels in table.levels.items()}
    product = torch.ones([len(labels) for labels in levels.values()], dtype=torch.float64)
    for table in tables:
        product = product * spread(table, levels)
    return product.sum()


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


def _not_linear(unknown: list[tuple[str, ...]]) -> str:
    named = " and ".join(f"{{{', '.join(D)}}}" for D in unknown)
    return (
        f"Several districts are not identified here: {named}. Their terms are multiplied, so that "
        "the bounds are those of a polynomial program, not of a linear one, and are not computed. "
        "Observe a confounder of one of them, or ask about an outcome nearer to what is set."
    )


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
