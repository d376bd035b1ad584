"""Which kind of expression is it? The names decide which estimators can be used on numbers.

Adjustment: sum_z P(y | x, z) P(z) (Pearl 2009, def. 3.3.1). Front door: sum_m P(m | x) sum_x'
P(y | x', m) P(x') (sec. 3.3.2).
"""

import dataclasses
from collections.abc import Sequence

import networkx as nx

from causal.graph import (
    ancestors,
    cut_incoming,
    descendants,
    observed,
    order,
    separated,
)
from causal.identification.estimand import Estimand
from causal.identification.expressions import (
    Expression,
    Probability,
    Product,
    Sum,
    factors_of,
    free,
)
from causal.identification.simplify import multiply, ordered, probability, reduce, sum_out


def recognise(estimand: Estimand) -> Estimand:
    """The estimand with its strategy and sets.

    Where another expression came out of ID although a set can be adjusted for, the adjustment takes
    its place: it has estimators for numbers.

    Example:
        >>> from causal.identification import identify
        >>> estimand = identify("S -> T -> Y; S -> Y", "Y", do="T")
        >>> estimand.strategy, estimand.adjustment
        ('adjustment', ('S',))
    """
    if not free(estimand.expression).intersection(estimand.do):
        return dataclasses.replace(estimand, strategy="no effect")
    if (over := _adjustment(estimand)) is not None:
        return dataclasses.replace(estimand, strategy="adjustment", adjustment=over)
    if (over := _front_door(estimand)) is not None:
        return dataclasses.replace(estimand, strategy="front door", mediators=over)
    z = adjustable(estimand.graph, estimand.outcome, estimand.do)
    if z is None or estimand.given:
        return estimand
    place = {v: i for i, v in enumerate(order(estimand.graph))}
    outcome = Probability(estimand.outcome, ordered({*estimand.do, *z}, place))
    body = multiply([outcome, probability(z, (), place)], place)
    formula = reduce(sum_out(z, body, place), estimand.graph, place)
    adjusted = dataclasses.replace(estimand, expression=formula)
    over = _adjustment(adjusted)
    assert over is not None, f"{formula} is an adjustment"
    return dataclasses.replace(adjusted, strategy="adjustment", adjustment=over)


def adjustable(graph: nx.DiGraph, y: Sequence[str], x: Sequence[str]) -> set[str] | None:
    """A set that can be adjusted for and none of whose members can be left out, if there is one.

    If there is any, the ancestors of x and y that stand on no causal path from x to y, nor
    downstream of one, are one (Shpitser, VanderWeele & Robins 2010; van der Zander, Liskiewicz &
    Textor 2014, UAI): they block every other path, once the first arrows of causal ones are cut.

    Example:
        >>> from causal.graph import parse
        >>> adjustable(parse("A -> C -> {X Y}; X -> M -> Y"), ["Y"], ["X"])
        {'C'}
    """
    beyond = cut_incoming(graph, x)
    causal = (descendants(beyond, x) & ancestors(beyond, y)) - set(x)
    forbidden = descendants(graph, causal) | {*x, *y}
    z = [v for v in observed(graph) if v in ancestors(graph, [*x, *y]) - forbidden]
    rest: nx.DiGraph[str] = nx.DiGraph(graph)
    rest.remove_edges_from([(a, b) for a, b in graph.edges if a in x and b in causal])
    if not separated(rest, x, y, z):
        return None
    for v in list(z):
        if separated(rest, x, y, [other for other in z if other != v]):
            z.remove(v)
    return set(z)


def _adjustment(estimand: Estimand) -> tuple[str, ...] | None:
    """z if the expression is sum_z P(y | x, z, c) P(z | c), c what is given."""
    y, c = set(estimand.outcome), set(estimand.given)
    x = free(estimand.expression).intersection(estimand.do)  # the others have no effect
    over, body = _opened(estimand.expression)
    z = set(over)
    outcome = [f for f in factors_of(body) if free(f) & (x | y)]
    weights = [f for f in factors_of(body) if f not in outcome]
    match outcome:
        case [Probability(of, conditions)] if set(of) == y and x <= set(conditions):
            fits = set(conditions) <= x | z | c and _is_weight(estimand, weights, z)
            return over if fits else None
    return None


def _is_weight(estimand: Estimand, weights: list[Expression], z: set[str]) -> bool:
    """Whether a product is P(z | c): a chain of conditionals that leave out what is no news."""
    known = set(estimand.given)
    place = {v: i for i, v in enumerate(order(estimand.graph))}
    plain = [f for f in weights if isinstance(f, Probability)]
    for f in sorted(plain, key=lambda f: min(place[v] for v in f.of)):
        news = known - set(f.given)
        if not set(f.given) <= known:
            return False
        if news and not separated(estimand.graph, f.of, news, f.given):
            return False
        known |= set(f.of)
    return len(plain) == len(weights) and known == z | set(estimand.given)


def _front_door(estimand: Estimand) -> tuple[str, ...] | None:
    """m if the expression is sum_m P(m | x) sum_x' P(y | x', m) P(x')."""
    over, body = _opened(estimand.expression)
    x, y, m = estimand.do, estimand.outcome, set(over)
    match body:
        case Product(
            (Probability(of, given), Sum(again, Product((Probability(seen, held), last))))
        ):
            first = (set(of), set(given)) == (m, set(x)) and again == x
            second = (set(seen), set(held)) == (set(y), {*x, *m}) and last == Probability(x)
            return over if first and second and not estimand.given else None
    return None


def _opened(expression: Expression) -> tuple[tuple[str, ...], Expression]:
    """What the outer sum is over, and its body."""
    return (expression.over, expression.body) if isinstance(expression, Sum) else ((), expression)
