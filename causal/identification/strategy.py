"""Which kind of expression is it? The names decide which estimators can be used on numbers.

Adjustment: sum_z P(y | x, z) P(z) (Pearl 2009, def. 3.3.1). Front door: sum_m P(m | x) sum_x'
P(y | x', m) P(x') (sec. 3.3.2). Where ID wrote something else although one of these holds in the
graph, it takes the place: the value is the same, and it has estimators.
"""

import dataclasses

from causal.graph import order, separated
from causal.identification.adjustment import adjustment_sets
from causal.identification.estimand import Estimand
from causal.identification.expressions import (
    Expression,
    Probability,
    Product,
    Sum,
    factors_of,
    free,
)
from causal.identification.frontdoor import front_door_sets
from causal.identification.simplify import Place, multiply, ordered, probability, reduce, sum_out


def recognise(estimand: Estimand) -> Estimand:
    """The estimand with its strategy and sets, in the form of that strategy.

    Example:
        >>> from causal.identification import identify
        >>> estimand = identify("S -> T -> Y; S -> Y", "Y", do="T")
        >>> estimand.strategy, estimand.adjustment
        ('adjustment', ('S',))
    """
    if not estimand.effective:
        return dataclasses.replace(estimand, strategy="no effect")
    if (z := _adjustment(estimand)) is not None:
        return dataclasses.replace(estimand, strategy="adjustment", adjustment=z)
    if estimand.given:
        return estimand
    graph, x, y = estimand.graph, estimand.effective, estimand.outcome
    place = {v: i for i, v in enumerate(order(graph))}
    for smallest in adjustment_sets(graph, x, y, kind="minimum"):
        formula = reduce(adjusted(y, x, smallest, place), graph, place)
        found = dataclasses.replace(estimand, expression=formula, strategy="adjustment")
        return dataclasses.replace(found, adjustment=_adjustment(found) or smallest)
    for mediators in front_door_sets(graph, x, y)[:1]:
        formula = reduce(front_door(y, x, mediators, place), graph, place)
        found = dataclasses.replace(estimand, expression=formula, strategy="front door")
        return dataclasses.replace(found, mediators=mediators)
    return estimand


def adjusted(
    y: tuple[str, ...], x: tuple[str, ...], z: tuple[str, ...], place: Place
) -> Expression:
    """sum_z P(y | x, z) P(z).

    Example:
        >>> print(adjusted(("Y",), ("X",), ("Z",), {"Z": 0, "X": 1, "Y": 2}))
        Σ_Z P(Y | Z, X) P(Z)
    """
    body = multiply([probability(y, {*x, *z}, place), probability(z, (), place)], place)
    return sum_out(z, body, place)


def front_door(
    y: tuple[str, ...], x: tuple[str, ...], m: tuple[str, ...], place: Place
) -> Expression:
    """sum_m P(m | x) sum_x' P(y | x', m) P(x').

    Example:
        >>> print(front_door(("Y",), ("X",), ("M",), {"X": 0, "M": 1, "Y": 2}))
        Σ_M P(M | X) Σ_X' P(Y | X', M) P(X')
    """
    inner = multiply([probability(y, {*x, *m}, place), probability(x, (), place)], place)
    body = Product((probability(m, x, place), Sum(ordered(x, place), inner)))
    return Sum(ordered(m, place), body)


def _adjustment(estimand: Estimand) -> tuple[str, ...] | None:
    """z if the expression is sum_z P(y | x, z, c) P(z | c), c what is given."""
    y, x, c = (set(s) for s in (estimand.outcome, estimand.effective, estimand.given))
    whole = estimand.expression
    over, body = (whole.over, whole.body) if isinstance(whole, Sum) else ((), whole)
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
