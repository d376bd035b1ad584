"""Algebra of expressions: what sums to one goes, chains of conditionals merge, ratios cancel.

Only the rules of probability are used, and where a graph is given, the independences it says (Pearl
2009, thm. 1.2.4): P(a | b, c) is P(a | b) where a and c are separated by b. The order of `place`,
causes first, is that in which variables are written.
"""

from collections.abc import Callable, Iterable, Mapping

import networkx as nx

from causal.graph import separated
from causal.identification.expressions import (
    ONE,
    Expression,
    Probability,
    Product,
    Ratio,
    Sum,
    factors_of,
    free,
)

Place = Mapping[str, int]
"""Where a variable stands in an order of the graph, causes first."""


def probability(of: Iterable[str], given: Iterable[str], place: Place) -> Expression:
    """P(of | given), the names in order; of nothing, 1."""
    names = ordered(of, place)
    return Probability(names, ordered(given, place)) if names else ONE


def ordered(names: Iterable[str], place: Place) -> tuple[str, ...]:
    """The names in the order of `place`."""
    return tuple(sorted(names, key=place.__getitem__))


def multiply(factors: Iterable[Expression], place: Place) -> Expression:
    """The product, flat, with P(a | b, c) P(b | c) written as P(a, b | c).

    Example:
        >>> p = Probability
        >>> print(multiply([p(("y",), ("x", "z")), p(("x",), ("z",))], {"z": 0, "x": 1, "y": 2}))
        P(x, y | z)
    """
    flat = [f for factor in factors for f in factors_of(factor)]
    while pair := _chain(flat):
        first, second = pair
        flat.remove(first)
        flat.remove(second)
        flat.append(Probability(ordered({*first.of, *second.of}, place), second.given))
    return flat[0] if len(flat) == 1 else Product(tuple(sorted(flat, key=_rank(place))))


def sum_out(over: Iterable[str], expression: Expression, place: Place) -> Expression:
    """The sum over all values of some variables, each taken out where it sums to one.

    Example:
        >>> body = Product((Probability(("y", "z"), ("x",)), Probability(("x",))))
        >>> place = {"z": 0, "x": 1, "y": 2}
        >>> print(sum_out(["y"], body, place), "and", sum_out(["x"], body, place))
        P(z, x) and P(z, y)
    """
    names = ordered(over, place)
    assert free(expression).issuperset(names), f"{names} do not occur in {expression}"
    expression = multiply(factors_of(expression), place)
    left: list[str] = []
    for name in reversed(names):
        done = _summed(name, expression, place)
        left, expression = (left, done) if done is not None else ([name, *left], expression)
    if len(left) < len(names) and left:  # what went may have been in the way of another
        return sum_out(left, expression, place)
    if not left:
        return expression
    if isinstance(expression, Sum):
        return Sum(ordered({*left, *expression.over}, place), expression.body)
    parts = factors_of(expression)
    inside = [f for f in parts if free(f).intersection(left)]
    outside = [f for f in parts if not free(f).intersection(left)]
    return multiply([*outside, Sum(tuple(left), multiply(inside, place))], place)


def divide(numerator: Expression, denominator: Expression, place: Place) -> Expression:
    """The ratio, with what stands on both sides cancelled and P(a, b | c) / P(b | c) = P(a | b, c).

    Example:
        >>> print(divide(Probability(("x", "y"), ("z",)), Probability(("x",), ("z",)),
        ...              {"z": 0, "x": 1, "y": 2}))
        P(y | z, x)
    """
    above, below = list(factors_of(numerator)), list(factors_of(denominator))
    for factor in list(below):
        if factor in above:
            above.remove(factor)
            below.remove(factor)
    while pair := _conditional(above, below):
        joint, marginal = pair
        above.remove(joint)
        below.remove(marginal)
        of = set(joint.of) - set(marginal.of)
        above += factors_of(probability(of, {*joint.given, *marginal.of}, place))
    upper = multiply(above, place)
    return Ratio(upper, multiply(below, place)) if below else upper


def reduce(expression: Expression, graph: nx.DiGraph, place: Place) -> Expression:
    """Drops from every P(a | b) what the graph says is no news, and simplifies again.

    Example:
        >>> from causal.graph import parse
        >>> place = {"X": 0, "Z": 1, "Y": 2}
        >>> print(reduce(Probability(("Y",), ("X", "Z")), parse("X -> Z -> Y"), place))
        P(Y | Z)
    """
    before, seen = None, expression
    while seen != before:
        before, seen = seen, _reduced(seen, graph, place)
    return seen


def _reduced(expression: Expression, graph: nx.DiGraph, place: Place) -> Expression:
    match expression:
        case Probability(of, given):
            kept = list(given)
            for name in given:
                rest = [other for other in kept if other != name]
                if separated(graph, of, name, rest):
                    kept = rest
            return probability(of, kept, place)
        case Product(factors):
            return multiply([_reduced(f, graph, place) for f in factors], place)
        case Sum(over, body):
            return sum_out(over, _reduced(body, graph, place), place)
        case Ratio(numerator, denominator):
            above, below = (_reduced(side, graph, place) for side in (numerator, denominator))
            return divide(above, below, place)


def _summed(name: str, expression: Expression, place: Place) -> Expression | None:
    """The sum over one variable if no sum sign is needed for it."""
    match expression:
        case Probability(of, given) if name in of:
            return probability(set(of) - {name}, given, place)
        case Product(factors):
            having = [f for f in factors if name in free(f)]
            done = _summed(name, having[0], place) if len(having) == 1 else None
            rest = [f for f in factors if f not in having]
            return None if done is None else multiply([*rest, done], place)
        case Sum(over, body) if name not in over:
            done = _summed(name, body, place)
            return None if done is None else sum_out(over, done, place)
        case Ratio(numerator, denominator) if name not in free(denominator):
            done = _summed(name, numerator, place)
            return None if done is None else divide(done, denominator, place)
    return None


def _chain(factors: list[Expression]) -> tuple[Probability, Probability] | None:
    """Two factors P(a | b, c) and P(b | c)."""
    plain = [f for f in factors if isinstance(f, Probability)]
    for first in plain:
        for second in plain:
            if set(first.given) == {*second.of, *second.given} and first is not second:
                return first, second
    return None


def _conditional(
    above: list[Expression], below: list[Expression]
) -> tuple[Probability, Probability] | None:
    """Factors P(a, b | c) above and P(b | c) below."""
    for joint in above:
        for marginal in below:
            if (
                isinstance(joint, Probability)
                and isinstance(marginal, Probability)
                and joint.given == marginal.given
                and set(marginal.of) <= set(joint.of)
            ):
                return joint, marginal
    return None


def _rank(place: Place) -> Callable[[Expression], tuple[int, int, str]]:
    """Probabilities of late variables first, then ratios, then sums, which reach to the end."""

    def rank(factor: Expression) -> tuple[int, int, str]:
        kind = {Probability: 0, Ratio: 1, Product: 2, Sum: 3}[type(factor)]
        last = max(place[v] for v in factor.of) if isinstance(factor, Probability) else 0
        return kind, -last, str(factor)

    return rank
