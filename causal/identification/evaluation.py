"""The value of an expression on a table of observed probabilities: the plug-in estimate.

On the joint distribution of a model the value is exact; on relative frequencies of rows it is the
maximum-likelihood estimate. Where a needed stratum is empty, the result is undefined (NaN).
"""

from collections.abc import Iterable, Mapping

import torch

from causal.identification.expressions import (
    Expression,
    Probability,
    Product,
    Ratio,
    Sum,
    probabilities,
)
from causal.identification.tables import Label, Table, divide_tables, multiply_tables, spread


def evaluate(expression: Expression, joint: Table) -> Table:
    """The expression at all values of its free variables.

    Args:
        expression: over variables of the table.
        joint: P of the observed variables.

    Example:
        >>> joint = Table(torch.tensor([[0.1, 0.3], [0.4, 0.2]]), {"x": (0, 1), "y": (0, 1)})
        >>> evaluate(Probability(("y",), ("x",)), joint).at(x=0, y=1)
        0.75
    """
    match expression:
        case Probability(of, given):
            held = joint.marginal([*of, *given])
            return divide_tables(held, joint.marginal(given)) if given else held
        case Product(factors):
            return multiply_tables([evaluate(factor, joint) for factor in factors])
        case Sum(over, body):
            table = evaluate(body, joint)
            return table.marginal([name for name in table.axes if name not in over])
        case Ratio(numerator, denominator):
            return divide_tables(evaluate(numerator, joint), evaluate(denominator, joint))


def average(table: Table, joint: Table, arbitrary: Iterable[str], outcome: Iterable[str]) -> Table:
    """The mean over variables at any value of which a table should be the same.

    The weights are their joint probabilities, at those of their values where the table is defined
    for every outcome, so that a distribution stays one.
    """
    names = [name for name in arbitrary if name in table.axes]
    if not names:
        return table
    left = {name: v for name, v in table.levels.items() if name not in names}
    levels = {**left, **{name: table.levels[name] for name in names}}
    outcome = set(outcome)
    cells = spread(table, levels).reshape(*(len(v) for v in left.values()), -1)
    weight = joint.marginal(names).values.flatten()
    bad = cells.isnan()
    for axis, name in enumerate(left):
        if name in outcome:
            bad = bad.any(axis, keepdim=True).expand_as(bad)
    weight = torch.where(bad, 0.0, weight)
    mean = torch.where(bad, 0.0, cells * weight).sum(-1) / weight.sum(-1)
    return Table(mean, left)


def empty_strata(
    expression: Expression, joint: Table, asked: Iterable[str], fixed: Mapping[str, Label]
) -> list[str]:
    """The strata of the expression that have no row, in words, at some fixed values.

    Those are listed whose part without the variables asked about does occur: overlap fails there.

    Example:
        >>> joint = Table(torch.tensor([[0.5, 0.0], [0.2, 0.3]]), {"z": (0, 1), "x": (0, 1)})
        >>> empty_strata(Probability(("y",), ("z", "x")), joint, ["x"], {})
        ['z=0, x=1']
    """
    found, asked = dict[str, None](), set(asked)
    for term in probabilities(expression):
        held = joint.marginal(term.given)
        others = [name for name in term.given if name not in asked]
        occurs = joint.marginal(others)
        for cell in torch.nonzero(held.values == 0).tolist() if term.given else []:
            labels = {n: held.levels[n][i] for n, i in zip(held.axes, cell, strict=True)}
            meant = all(fixed.get(n, label) == label for n, label in labels.items())
            rest = {n: labels[n] for n in others}
            if meant and (not others or occurs.at(**rest) > 0):
                found[", ".join(f"{n}={label}" for n, label in labels.items())] = None
    return list(found)
