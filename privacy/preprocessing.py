"""What is to be known of a table before a model is fitted, found out privately.

Standardising a column with its own mean, or taking its levels from the cells, releases them. Here
they are released with noise and counted in the ledger of the fit. What the noise is measured by
must be known beforehand: bounds and levels come from the `Schema`, never from the cells. Values
beyond the bounds are moved to them, missing cells are left out, and every row is in each statistic
once, so that one row, added or removed, changes

- sums of (1, u, u^2 - 1/2) with |u| <= 1 by at most 3/2 in the 2-norm, a column;
- the rank of a candidate for the p-quantile, against p times the count, by max(p, 1 - p).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pgm.schema import Categorical, Continuous, Count, Schema
from privacy.budget import Budget
from privacy.counts import bounds_of, kind_of, seen_cells
from privacy.ledger import Ledger
from privacy.mechanisms import Answers, spending

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Moments:
    """What was found out about a column of numbers, with noise in all of it.

    Attributes:
        count: of the cells that were seen.
        mean: of them.
        std: their standard deviation; where it drowns in the noise, the most that would.
        error: the standard error that the noise gives the mean; it tells nothing of the rows.
    """

    count: float
    mean: float
    std: float
    error: float


def moments(
    frame: "pandas.DataFrame",
    schema: Schema,
    columns: Iterable[str] | None = None,
    *,
    epsilon: float,
    delta: float | None = None,
    ledger: Ledger | None = None,
    budget: Budget | None = None,
    seed: int | None = None,
) -> dict[str, Moments]:
    """Count, mean and standard deviation of columns of numbers, from one Gaussian release.

    Args:
        frame: the table.
        schema: with bounds for these columns.
        columns: which; by default all continuous ones.
        epsilon: what all of them together may spend.
        delta: as for `count`.
        ledger: of these rows, where it is entered.
        budget: of these rows, instead of their ledger.
        seed: as for `count`.

    Raises:
        ValueError: a column without bounds, a number outside its range, or neither ledger nor
            budget.
        BudgetExceeded: the budget does not allow it.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": [30.0, 50.0] * 5000})
        >>> schema = Schema({"age": Continuous(lower=0, upper=120)})
        >>> found = moments(frame, schema, epsilon=1.0, delta=1e-6, ledger=Ledger(), seed=0)["age"]
        >>> round(found.mean), round(found.std)
        (40, 10)
    """
    chosen = _numbers(schema, columns)
    bounds = {name: bounds_of(schema, name) for name in chosen}
    what = f"moments of {', '.join(chosen)}"
    spend = spending(what, epsilon=epsilon, delta=delta, ledger=ledger, budget=budget, seed=seed)
    sums = []
    for name, (lower, upper) in bounds.items():
        u = (seen_cells(frame, name, lower, upper) - lower) / (upper - lower) * 2 - 1
        sums += [float(len(u)), u.sum(), (u**2 - 0.5).sum()]
    sensitivity = 1.5 * math.sqrt(len(chosen))
    noisy, scale = (
        spend.gaussian(np.array(sums), sensitivity=sensitivity),
        sensitivity * spend.sigma,
    )
    return {
        name: _moments(noisy[3 * k : 3 * k + 3], scale, *bounds[name])
        for k, name in enumerate(chosen)
    }


def standardise(
    frame: "pandas.DataFrame",
    schema: Schema,
    columns: Iterable[str] | None = None,
    *,
    epsilon: float,
    delta: float | None = None,
    ledger: Ledger | None = None,
    budget: Budget | None = None,
    seed: int | None = None,
) -> Schema:
    """The schema with private means and standard deviations, for `privacy.fit(..., schema=)`.

    Args:
        frame: the table.
        schema: with bounds for these columns.
        columns: which; by default all continuous ones.
        epsilon: what all of them together may spend.
        delta: as for `count`.
        ledger: of these rows, where it is entered; pass it to the fit too.
        budget: of these rows, instead of their ledger.
        seed: as for `count`.

    Raises:
        ValueError: as for `moments`; and a column of counts, which a schema does not standardise.
        BudgetExceeded: the budget does not allow it.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": [30.0, 50.0] * 5000})
        >>> schema = Schema({"age": Continuous(lower=0, upper=120)})
        >>> ledger = Ledger()
        >>> print(standardise(frame, schema, epsilon=1.0, delta=1e-6, ledger=ledger, seed=0))
        column  kind        values
        age     continuous  [0, 120], mean 39.97 std 9.9
        >>> [release.what for release in ledger.releases]
        ['moments of age']
    """
    chosen = _numbers(schema, columns)
    for name in chosen:
        if not isinstance(schema.columns[name], Continuous):
            raise ValueError(
                f'Column "{name}" is a {schema.columns[name].kind} column, which is modelled as it '
                "is. Declare it Continuous(lower=..., upper=...) to have it standardised."
            )
    found = moments(
        frame, schema, chosen, epsilon=epsilon, delta=delta, ledger=ledger, budget=budget, seed=seed
    )
    columns_now = dict(schema.columns)
    for name, m in found.items():
        kind = columns_now[name]
        assert isinstance(kind, Continuous)
        columns_now[name] = replace(kind, mean=_rounded(m.mean, m.std), std=_rounded(m.std, m.std))
    return Schema(columns_now, site=schema.site)


def quantiles(
    frame: "pandas.DataFrame",
    schema: Schema,
    column: str,
    probabilities: Sequence[float] = (0.25, 0.5, 0.75),
    *,
    epsilon: float,
    ledger: Ledger | None = None,
    budget: Budget | None = None,
    seed: int | None = None,
) -> list[float]:
    """Quantiles of a column by the exponential mechanism (Smith 2011, Alg. 2); needs no delta.

    A value is the likelier the nearer its rank is to the one asked for: y between two neighbouring
    cells has utility -|rank(y) - p n|.

    Args:
        frame: the table.
        schema: with bounds for the column.
        column: which column.
        probabilities: which quantiles, each between 0 and 1.
        epsilon: what all of them together may spend.
        ledger: of these rows, where it is entered.
        budget: of these rows, instead of their ledger.
        seed: as for `count`.

    Raises:
        ValueError: a column without bounds, no probability or one outside [0, 1], a number outside
            its range, or neither ledger nor budget.
        BudgetExceeded: the budget does not allow it.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": [float(age) for age in range(20, 81)] * 100})
        >>> schema = Schema({"age": Continuous(lower=0, upper=120)})
        >>> found = quantiles(frame, schema, "age", [0.5], epsilon=1.0, ledger=Ledger(), seed=0)
        >>> round(found[0])
        50
    """
    if not probabilities or not all(0 <= p <= 1 for p in probabilities):
        raise ValueError(
            f"probabilities are {list(probabilities)}; a quantile is asked for by a number between "
            "0 and 1, such as 0.5 for the median."
        )
    (name,), (lower, upper) = _numbers(schema, [column]), bounds_of(schema, column)
    what = f"quantiles of {name}"
    spend = spending(what, epsilon=epsilon, delta=None, ledger=ledger, budget=budget, seed=seed)
    edges = np.concatenate([[lower], np.sort(seen_cells(frame, name, lower, upper)), [upper]])
    with np.errstate(divide="ignore"):
        log_sizes = np.log(np.diff(edges))
    ranks = np.arange(len(log_sizes), dtype=np.float64)
    utilities = [-np.abs(ranks - p * (len(edges) - 2)) for p in probabilities]
    chosen, inside = spend.exponential(
        utilities,
        [log_sizes] * len(utilities),
        sensitivity=max(max(p, 1 - p) for p in probabilities),
    )
    found = [edges[k] + v * (edges[k + 1] - edges[k]) for k, v in zip(chosen, inside, strict=True)]
    whole = isinstance(schema.columns[name], Count)
    return [float(round(y)) if whole else float(y) for y in found]


def _numbers(schema: Schema, columns: Iterable[str] | None) -> list[str]:
    """The columns of numbers that are meant."""
    continuous = [n for n, kind in schema.columns.items() if isinstance(kind, Continuous)]
    chosen = continuous if columns is None else list(columns)
    for name in chosen:
        if isinstance(kind_of(schema, name), Categorical):
            raise ValueError(
                f'Column "{name}" is categorical, and its codes are names: it has no mean and no '
                "quantiles. Ask for its histogram."
            )
    if not chosen:
        raise ValueError("The schema has no continuous column, so there is nothing to standardise.")
    return chosen


def _moments(sums: Answers, scale: float, lower: float, upper: float) -> Moments:
    """Back from sums of (1, u, u^2 - 1/2) that have noise of this scale each.

    The variance of u is 1/2 + S_2 / n - (S_1 / n)^2; its error is that of its linear part.
    """
    n, half = max(1.0, float(sums[0])), (upper - lower) / 2
    mean = min(1.0, max(-1.0, float(sums[1]) / n))
    square = min(1.0, max(0.0, 0.5 + float(sums[2]) / n))
    slopes = (1.0, 2 * mean, 0.5 - square + 2 * mean**2)
    error = scale / n * math.hypot(*slopes)
    variance = min(max(square - mean**2, error), 1.0)
    return Moments(
        count=float(sums[0]),
        mean=lower + half * (1 + mean),
        std=half * math.sqrt(variance),
        error=half * scale / n * math.hypot(1.0, mean),
    )


def _rounded(x: float, scale: float) -> float:
    """To three digits of the scale: more would be noise."""
    return round(x, 2 - math.floor(math.log10(scale)))
