"""The plan of an elimination: what can be left out, in which order the rest goes, what it costs.

Nothing here looks at a number. Of three orders the cheapest is taken: by min-weight next goes the
variable whose neighbours, the variables that it shares a table with, have the fewest states
together; by min-fill the one that ties the fewest of them that were not tied before (Koller &
Friedman 2009, Sec. 9.4.3.2); and the order in which the variables are named, which along a chain is
the forward algorithm and across a lattice the transfer matrix, cell by cell. A conditional table
whose child nobody else mentions, sees or asks about sums to one, and is left out with it (barren
nodes; Shachter 1986).
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pgm.inference.exact.factors import Scope


class Step(NamedTuple):
    """The elimination of one variable.

    Attributes:
        scope: its clique: the variable, then the others by the order in which they go.
        inputs: the tables that are added: those of the model by number, and behind them, from
            the number of all tables on, the messages of earlier steps.
    """

    scope: Scope
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How a model is summed, and what it costs.

    Attributes:
        steps: one a variable, in order.
        kept: the tables that take part, by number; the others are barren.
        cells: numbers in all cliques together, for one row.
        largest: numbers in the largest clique.
    """

    steps: tuple[Step, ...]
    kept: tuple[int, ...]
    cells: int
    largest: int

    @property
    def order(self) -> Scope:
        """The variables in the order of their elimination."""
        return tuple(step.scope[0] for step in self.steps)

    def __str__(self) -> str:
        return (
            f"{len(self.steps)} variables to sum, {self.cells:,} cells a row, the largest clique "
            f"{self.largest:,}"
        )


@functools.lru_cache(maxsize=512)
def make_plan(
    scopes: tuple[Scope, ...],
    children: tuple[str | None, ...],
    levels: tuple[tuple[str, int], ...],
    together: tuple[Scope, ...] = (),
    *,
    prune: bool = True,
) -> Plan:
    """The order of elimination and its cost.

    Args:
        scopes: the variables of each table that are to be summed.
        children: the variable over which each table sums to one, None if there is none.
        levels: the number of levels of every variable in the scopes.
        together: variables that are asked about; those of one entry shall stand in one clique.
        prune: whether barren tables are left out, which a maximum does not allow.
    """
    asked = {name for scope in together for name in scope}
    kept = _prune(scopes, children, asked) if prune else tuple(range(len(scopes)))
    sizes, plans = dict(levels), []
    mentioned = [*(scopes[i] for i in kept), *together]
    named = {name for scope in mentioned for name in scope}
    orders = [_greedy(mentioned, sizes, cost) for cost in (_weight, _fill)]
    for order in (*orders, [name for name in sizes if name in named]):
        steps = _steps(order, {i: scopes[i] for i in kept}, together, len(scopes))
        cells = [math.prod(sizes[name] for name in step.scope) for step in steps]
        plans.append(Plan(steps, kept, sum(cells), max(cells, default=1)))
    return min(plans, key=lambda plan: plan.cells)


def _prune(
    scopes: tuple[Scope, ...], children: tuple[str | None, ...], asked: set[str]
) -> tuple[int, ...]:
    """The tables that remain when barren ones go, one after the other."""
    kept = dict(enumerate(scopes))
    mentions: dict[str, int] = {}
    for scope in scopes:
        for name in scope:
            mentions[name] = mentions.get(name, 0) + 1
    while barren := [i for i in kept if _barren(kept[i], children[i], mentions, asked)]:
        for i in barren:
            if _barren(kept[i], children[i], mentions, asked):
                for name in kept.pop(i):
                    mentions[name] -= 1
    return tuple(kept)


def _barren(scope: Scope, child: str | None, mentions: Mapping[str, int], asked: set[str]) -> bool:
    """Whether the sum over the child is one, and no other variable is lost with the table."""
    if child not in scope or child in asked or mentions[child] > 1:
        return False
    return all(mentions[name] > 1 for name in scope if name != child)


Neighbours = Mapping[str, set[str]]
Cost = Callable[[str, Neighbours, Mapping[str, int]], int]


def _weight(name: str, neighbours: Neighbours, sizes: Mapping[str, int]) -> int:
    """The joint states of the neighbours."""
    return math.prod(sizes[other] for other in neighbours[name] if other != name)


def _fill(name: str, neighbours: Neighbours, sizes: Mapping[str, int]) -> int:
    """The pairs of neighbours that are not neighbours of each other."""
    near = neighbours[name] - {name}
    return sum(len(near - neighbours[other]) for other in near) // 2


def _greedy(scopes: Iterable[Scope], sizes: Mapping[str, int], cost: Cost) -> list[str]:
    """The cheapest variable first; ties by the order in which they appear."""
    neighbours: dict[str, set[str]] = {}
    for scope in scopes:
        for name in scope:
            neighbours.setdefault(name, set()).update(scope)
    costs = {name: cost(name, neighbours, sizes) for name in neighbours}
    order = []
    while costs:
        name = min(costs, key=costs.__getitem__)
        clique = neighbours.pop(name) - {name}
        del costs[name]
        order.append(name)
        for other in clique:
            neighbours[other] |= clique
            neighbours[other].discard(name)
        for other in set[str]().union(*(neighbours[other] for other in clique)):
            costs[other] = cost(other, neighbours, sizes)
    return order


def _steps(
    order: list[str], tables: Mapping[int, Scope], together: tuple[Scope, ...], first: int
) -> tuple[Step, ...]:
    """Puts every table and message into the bucket of its variable that goes first."""
    place = {name: i for i, name in enumerate(order)}
    buckets: list[list[int]] = [[] for _ in order]
    cliques: list[set[str]] = [{name} for name in order]

    def put(number: int | None, scope: Iterable[str]) -> None:
        names = set(scope)
        if names:
            bucket = min(place[name] for name in names)
            cliques[bucket] |= names
            if number is not None:
                buckets[bucket].append(number)

    for number, scope in tables.items():
        put(number, scope)
    for scope in together:
        put(None, scope)
    steps = []
    for i, name in enumerate(order):
        put(first + i, cliques[i] - {name})
        scope = tuple(sorted(cliques[i], key=place.__getitem__))
        steps.append(Step(scope, tuple(buckets[i])))
    return tuple(steps)
