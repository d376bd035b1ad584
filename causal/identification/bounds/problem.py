r"""A question split into districts: which are identified, and the linear program of the rest.

P(y | do(x)) = sum_{d \ y} prod_i Q_i(d), d the ancestors of y where x is cut off, one term a
district (Tian & Pearl 2002). A term that is not identified is linear in the distribution q of the
response types of its district, and so is Q of the whole district, which is observed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor

from causal.graph import (
    ancestors,
    cut_incoming,
    districts,
    observed,
    order,
    parents,
    project,
    subgraph,
)
from causal.identification.algorithms import district_factor, id_
from causal.identification.bounds.linear import Polytope
from causal.identification.bounds.responses import Levels, Responses
from causal.identification.evaluation import average, evaluate
from causal.identification.hedge import NotIdentifiable
from causal.identification.simplify import reduce
from causal.identification.tables import Label, Table, as_table, configurations, spread

Event = Mapping[str, Label]
"""Values by variable."""

Arms = Sequence[tuple[float, Event]]
"""What is set in each arm of the question, and the sign of the arm."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A question, district by district.

    Attributes:
        graph: the projection on the ancestors of the districts.
        joint: P of its observed nodes.
        inner: the ancestors of y with x cut off, without x.
        terms: of the districts whose part of `inner` is identified, that part's table.
        open: the nodes of the district whose part is not; none if all are.
    """

    graph: nx.DiGraph
    joint: Table
    inner: tuple[str, ...]
    terms: tuple[Table, ...]
    open: tuple[str, ...]

    @property
    def shared(self) -> list[str]:
        """The parents of every node of the open district, outside it.

        What its nodes do at one of their values says nothing about another one: there is one
        program a value, and no types across values.
        """
        heard = [set(parents(self.graph, v)) for v in self.open]
        return [v for v in observed(self.graph) if all(v in p for p in heard) and heard]

    def known(self, weight: Table, arms: Arms) -> float:
        """The effect where all is identified."""
        values = (sign * _contract(_sliced([*self.terms, weight], arm)) for sign, arm in arms)
        return float(sum(values))

    def programs(
        self, weight: Table, arms: Arms, slack: float
    ) -> list[tuple[Polytope, Float[Tensor, " types"]]]:
        """The linear programs whose values add up to the effect: what was observed, and c."""
        seen = evaluate(district_factor(self.graph, set(self.open)), self.joint)
        shared = {name: self.joint.levels[name] for name in self.shared}
        found = []
        for cell in configurations([len(labels) for labels in shared.values()]).tolist():
            held = {v: labels[i] for (v, labels), i in zip(shared.items(), cell, strict=True)}
            responses = Responses(self.graph, self.open, self._levels(held))
            c = self._objective(responses, weight, arms, held)
            found.append((self._polytope(responses, seen, held, slack), c))
        return found

    def _levels(self, held: Event) -> Levels:
        return {v: (held[v],) if v in held else k for v, k in self.joint.levels.items()}

    def _objective(
        self, responses: Responses, weight: Table, arms: Arms, held: Event
    ) -> Float[Tensor, " types"]:
        """The effect, as far as it is at these values, as a function of q."""
        inside = [v for v in self.open if v in self.inner]
        follow = [_kept(responses.follow(v), held) for v in inside]
        c = torch.zeros(responses.number, dtype=torch.float64)
        for sign, arm in arms:
            if all(arm.get(v, label) == label for v, label in held.items()):
                outer = _sliced(_sliced([*self.terms, weight], held), arm)
                c = c + sign * responses.linear([*outer, *_sliced(follow, arm)], [])[0]
        return c

    def _polytope(self, responses: Responses, seen: Table, held: Event, slack: float) -> Polytope:
        """What was observed of the district at these values; nothing where no row was."""
        (table,) = _sliced([seen], held)
        follow = [_kept(responses.follow(v), held) for v in self.open]
        A, b = responses.linear(follow, table.axes), table.values.flatten()
        known = ~b.isnan()
        return Polytope(A[known], b[known], slack)


def split(whole: nx.DiGraph, data: Any, y: Sequence[str], arms: Arms) -> Problem:
    """Splits the question into districts, and finds which are identified.

    Args:
        whole: the graph.
        data: as in `effect`.
        y: the outcome.
        arms: all of which set the same variables.

    Raises:
        ValueError: several districts that are not identified.
    """
    projected, x = project(whole), set(arms[0][1])
    V = set(observed(projected))
    inner = (ancestors(cut_incoming(projected, x), y) & V) - x
    touched = set[str]().union(*(D for D in districts(projected) if inner & set(D)))
    G = subgraph(projected, ancestors(projected, touched) & V)
    joint = as_table(data, [*observed(G), *(v for v in observed(projected) if v in x - set(G))])
    for _, arm in arms:
        for name, label in arm.items():
            joint.position(name, label)
    terms, unknown = list[Table](), list[tuple[str, ...]]()
    for D in districts(G):
        if part := inner & set(D):
            term = _term(G, joint, part, inner | x)
            if term is not None and _is_defined(term, arms):
                terms.append(term)
            else:
                unknown.append(tuple(D))
    if len(unknown) > 1:
        raise ValueError(_not_linear(unknown))
    ordered = tuple(v for v in observed(G) if v in inner)
    return Problem(G, joint, ordered, tuple(terms), unknown[0] if unknown else ())


def _term(G: nx.DiGraph, joint: Table, part: set[str], axes: set[str]) -> Table | None:
    """P(part | do(all else)) over `axes`, or None where it is not identified."""
    place = {v: i for i, v in enumerate(order(G))}
    try:
        expression = reduce(id_(G, part, set(observed(G)) - part), G, place)
    except NotIdentifiable:
        return None
    table = evaluate(expression, joint)
    return average(table, joint, [v for v in table.axes if v not in axes], part)


def _is_defined(table: Table, arms: Arms) -> bool:
    return not any(_sliced([table], arm)[0].values.isnan().any() for _, arm in arms)


def _sliced(tables: Sequence[Table], event: Event) -> list[Table]:
    """The tables at these values, their axes gone."""
    found = []
    for table in tables:
        held = {name: label for name, label in event.items() if name in table.axes}
        part = table.at(**held) if held else table
        exact = torch.tensor(part, dtype=torch.float64) if isinstance(part, float) else part
        found.append(exact if isinstance(exact, Table) else Table(exact, {}))
    return found


def _kept(table: Table, held: Event) -> Table:
    """The table without its axes of size one."""
    return _sliced([table], held)[0]


def _contract(tables: Sequence[Table]) -> Tensor:
    """The sum over everything of a product of tables."""
    levels = {name: labels for table in tables for name, labels in table.levels.items()}
    product = torch.ones([len(labels) for labels in levels.values()], dtype=torch.float64)
    return math.prod((spread(table, levels) for table in tables), start=product).sum()


def _not_linear(unknown: Sequence[Sequence[str]]) -> str:
    named = " and ".join(f"{{{', '.join(D)}}}" for D in unknown)
    return (
        f"Several districts are not identified here: {named}. Their terms are multiplied, so that "
        "the bounds are those of a polynomial program, not of a linear one, and are not computed. "
        "Observe a confounder of one of them, or ask about an outcome nearer to what is set."
    )
