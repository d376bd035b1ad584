"""Which kind of expression is it? The names decide which estimators can be used on numbers.

Adjustment: sum_z P(y | x, z) P(z) (Pearl 2009, def. 3.3.1). Front door: sum_m P(m | x) sum_x'
P(y | x', m) P(x') (sec. 3.3.2).
"""

import dataclasses

from causal.graph import order, separated
from causal.identification.estimand import Estimand
from causal.identification.expressions import (
    Expression,
    Probability,
    Product,
    Sum,
    factors_of,
    free,
)


def recognise(estimand: Estimand) -> Estimand:
    """The estimand with its strategy and sets.

    Example:
        >>> from causal.identification import identify
        >>> estimand = identify("S -> T -> Y; S -> Y", "Y", do="T")
        >>> estimand.strategy, estimand.adjustment
        ('adjustment', ('S',))
    """
    expression = estimand.expression
    if not free(expression).intersection(estimand.do):
        return dataclasses.replace(estimand, strategy="no effect")
    adjustment = _adjustment(estimand, expression)
    if adjustment is not None:
        return dataclasses.replace(estimand, strategy="adjustment", adjustment=adjustment)
    mediators = _front_door(estimand, expression)
    if mediators is not None:
        return dataclasses.replace(estimand, strategy="front door", mediators=mediators)
    return estimand


def _adjustment(estimand: Estimand, expression: Expression) -> tuple[str, ...] | None:
    """z if the expression is sum_z P(y | x, z, c) P(z | c), c what is given."""
    y, c = set(estimand.outcome), set(estimand.given)
    x = free(expression).intersection(estimand.do)  # the others have no effect
    over, body = _opened(expression)
    z = set(over)
    outcome = [f for f in factors_of(body) if free(f) & (x | y)]
    weights = [f for f in factors_of(body) if f not in outcome]
    match outcome:
        case [Probability(of, conditions)] if set(of) == y and x <= set(conditions):
            fits = set(conditions) <= x | z | c and _is_weight(estimand, weights, z)
            return over if fits else None
    return None


def _is_weight(estimand: Estimand, weights: list[Expression], z: set[str]) -> bool:
    """Whether a product is P(z | c): a chain of conditionals that leave out only what is no news."""
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


def _front_door(estimand: Estimand, expression: Expression) -> tuple[str, ...] | None:
    """m if the expression is sum_m P(m | x) sum_x' P(y | x', m) P(x')."""
    over, body = _opened(expression)
    x, y, m = estimand.do, estimand.outcome, set(over)
    match body:
        case Product((Probability(of, given), Sum(again, Product((Probability(seen, held), last))))):
            first = (set(of), set(given)) == (m, set(x)) and again == x
            second = (set(seen), set(held)) == (set(y), {*x, *m}) and last == Probability(x)
            return over if first and second and not estimand.given else None
    return None


def _opened(expression: Expression) -> tuple[tuple[str, ...], Expression]:
    """What the outer sum is over, and its body."""
    return (expression.over, expression.body) if isinstance(expression, Sum) else ((), expression)
