"""Expressions in probabilities of what is observed: P(y | x), products, ratios, sums over values.

A name stands for the value of its variable. A `Sum` binds names in its body, as an integral does:
in sum_z P(z | x) sum_x P(y | x, z) P(x) the last x is another one than the first. Printed, it gets
a prime.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Probability:
    """P(of | given), a conditional of the joint distribution of the observed variables."""

    of: tuple[str, ...]
    given: tuple[str, ...] = ()

    def __str__(self) -> str:
        return text(self)


@dataclass(frozen=True)
class Sum:
    """The sum of the body over all values of some variables."""

    over: tuple[str, ...]
    body: "Expression"

    def __str__(self) -> str:
        return text(self)


@dataclass(frozen=True)
class Product:
    """A product; of no factors, 1."""

    factors: tuple["Expression", ...] = ()

    def __str__(self) -> str:
        return text(self)


@dataclass(frozen=True)
class Ratio:
    """numerator / denominator."""

    numerator: "Expression"
    denominator: "Expression"

    def __str__(self) -> str:
        return text(self)


Expression: TypeAlias = Probability | Sum | Product | Ratio

ONE = Product()


def variables(expression: Expression) -> set[str]:
    """All names, bound or free.

    Example:
        >>> sorted(variables(Sum(("z",), Probability(("y", "z"), ("x",)))))
        ['x', 'y', 'z']
    """
    match expression:
        case Probability(of, given):
            return {*of, *given}
        case Sum(over, body):
            return {*over} | variables(body)
        case Product(factors):
            return set[str]().union(*map(variables, factors))
        case Ratio(numerator, denominator):
            return variables(numerator) | variables(denominator)


def free(expression: Expression) -> set[str]:
    """The names that no sum binds: what the value of the expression depends on.

    Example:
        >>> sorted(free(Sum(("z",), Probability(("y", "z"), ("x",)))))
        ['x', 'y']
    """
    match expression:
        case Probability(of, given):
            return {*of, *given}
        case Sum(over, body):
            return free(body) - {*over}
        case Product(factors):
            return set[str]().union(*map(free, factors))
        case Ratio(numerator, denominator):
            return free(numerator) | free(denominator)


def probabilities(expression: Expression) -> Iterator[Probability]:
    """Every P(... | ...) in it, from left to right."""
    match expression:
        case Probability():
            yield expression
        case Sum(_, body):
            yield from probabilities(body)
        case Product(factors):
            for factor in factors:
                yield from probabilities(factor)
        case Ratio(numerator, denominator):
            yield from probabilities(numerator)
            yield from probabilities(denominator)


def factors_of(expression: Expression) -> tuple[Expression, ...]:
    """The factors of a product; anything else is its own and only factor."""
    return expression.factors if isinstance(expression, Product) else (expression,)


def text(expression: Expression, taken: Iterable[str] = ()) -> str:
    """The expression as a line of text; names that are `taken` outside it are not bound in it.

    Example:
        >>> inner = Sum(("x",), Product((Probability(("y",), ("x", "z")), Probability(("x",)))))
        >>> print(text(Sum(("z",), Product((Probability(("z",), ("x",)), inner)))))
        Σ_z P(z | x) Σ_x' P(y | x', z) P(x')
    """
    return _Text(str, free(expression).union(taken)).write(expression, {})


def latex(expression: Expression, taken: Iterable[str] = ()) -> str:
    r"""The expression in LaTeX, for math mode; `taken` as in `text`.

    Example:
        >>> P = Probability
        >>> print(latex(Sum(("z",), Product((P(("y",), ("x1", "z")), P(("z",)))))))
        \sum_{z} P(y \mid x_{1}, z) P(z)
    """
    return _Latex(symbol, free(expression).union(taken)).write(expression, {})


def symbol(name: str) -> str:
    r"""A variable in LaTeX: one letter with its index, or a word set upright; primes stay.

    Example:
        >>> symbol("X"), symbol("w1'"), symbol("blood_pressure")
        ('X', "w_{1}'", '\\mathrm{blood\\_pressure}')
    """
    word = name.rstrip("'")
    primes = name[len(word) :]
    if len(word) == 1:
        return word + primes
    if word[0].isalpha() and word[1:].isdigit():
        return f"{word[0]}_{{{word[1:]}}}{primes}"
    marked = "".join(f"\\{c}" if c in "_%&#$" else "\\ " if c == " " else c for c in word)
    return f"\\mathrm{{{marked}}}{primes}"


class _Text:
    """Writes an expression; `scope` maps every bound name to what it is printed as.

    Args:
        name: how a printed name looks.
        taken: names that are not bound.
    """

    bar = " | "

    def __init__(self, name: Callable[[str], str], taken: set[str]) -> None:
        self.name, self.taken = name, taken

    def sum(self, names: list[str]) -> str:
        """The sign of a sum."""
        return f"Σ_{names[0]}" if len(names) == 1 else f"Σ_{{{','.join(names)}}}"

    def write(self, expression: Expression, scope: Mapping[str, str]) -> str:
        """The text of an expression."""
        match expression:
            case Probability(of, given):
                after = self.bar + self._listed(given, scope) if given else ""
                return f"P({self._listed(of, scope)}{after})"
            case Product(factors):
                parts = [
                    self._factor(f, scope, i == len(factors)) for i, f in enumerate(factors, 1)
                ]
                return " ".join(parts) or "1"
            case Sum(over, body):
                used = self.taken.union(scope.values())
                inner = {**scope, **{v: _fresh(v, used) for v in over}}
                names = [self.name(inner[v]) for v in over]
                return f"{self.sum(names)} {self._factor(body, inner, not _is_ratio(body))}"
            case Ratio(numerator, denominator):
                return self.over(self._side(numerator, scope), self._side(denominator, scope))

    def over(self, numerator: str, denominator: str) -> str:
        """A ratio."""
        return f"{numerator} / {denominator}"

    def _side(self, expression: Expression, scope: Mapping[str, str]) -> str:
        written = self.write(expression, scope)
        return written if isinstance(expression, Probability) else f"[{written}]"

    def _factor(self, expression: Expression, scope: Mapping[str, str], is_last: object) -> str:
        """A sum reaches to the end of what it stands in; elsewhere brackets hold it."""
        written = self.write(expression, scope)
        bare = isinstance(expression, Probability | Product) or (
            isinstance(expression, Sum) and is_last
        )
        return written if bare else f"[{written}]"

    def _listed(self, names: Iterable[str], scope: Mapping[str, str]) -> str:
        return ", ".join(self.name(scope.get(name, name)) for name in names)


class _Latex(_Text):
    bar = r" \mid "

    def sum(self, names: list[str]) -> str:
        return rf"\sum_{{{', '.join(names)}}}"

    def over(self, numerator: str, denominator: str) -> str:
        return rf"\frac{{{numerator}}}{{{denominator}}}"

    def _side(self, expression: Expression, scope: Mapping[str, str]) -> str:
        return self.write(expression, scope)


def _fresh(name: str, taken: set[str]) -> str:
    """The name, with primes where it is taken."""
    while name in taken:
        name += "'"
    return name


def _is_ratio(expression: Expression) -> bool:
    return isinstance(expression, Ratio)
