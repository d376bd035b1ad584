"""Counts of a table found out privately: rows, histograms, and the levels of a column.

One row, added or removed, changes a count, or one count of a histogram, by 1. The cells of a
histogram come from the bounds and levels of the `Schema`, never from the rows; only `categories`
looks for levels in the rows, and releases those alone that many rows share.
"""

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from pgm.schema import Categorical, Count, Schema
from pgm.schema.columns import Column
from privacy.budget import FAILURES, Budget
from privacy.ledger import Ledger
from privacy.mechanisms import Answers, spending

if TYPE_CHECKING:
    import pandas


def count(
    frame: "pandas.DataFrame",
    *,
    epsilon: float,
    delta: float | None = None,
    noise: Literal["gaussian", "laplace", "discrete"] = "gaussian",
    ledger: Ledger | None = None,
    budget: Budget | None = None,
    seed: int | None = None,
) -> float:
    """The number of rows, with noise.

    Args:
        frame: the table.
        epsilon: what this may spend.
        delta: the probability outside the guarantee, for Gaussian noise; by default the
            budget's.
        noise: "gaussian"; "discrete", the same on a grid and from the system's entropy (see
            `privacy.noise`); or "laplace", which needs no delta.
        ledger: of these rows, where it is entered.
        budget: of these rows, instead of their ledger.
        seed: of the noise; by default from the system's entropy. Whoever knows it can undo it.

    Raises:
        ValueError: a number outside its range, or neither ledger nor budget.
        BudgetExceeded: the budget does not allow it.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": [30.0, 50.0] * 500})
        >>> round(count(frame, epsilon=1.0, noise="laplace", ledger=Ledger(), seed=0))
        1000
    """
    spend = spending(
        "count of rows", epsilon=epsilon, delta=delta, ledger=ledger, budget=budget, seed=seed
    )
    exact = np.array([float(len(frame))])
    return float(getattr(spend, noise)(exact, sensitivity=1.0)[0])


def histogram(
    frame: "pandas.DataFrame",
    schema: Schema,
    column: str,
    *,
    epsilon: float,
    delta: float | None = None,
    bins: int = 20,
    noise: Literal["gaussian", "laplace", "discrete"] = "gaussian",
    ledger: Ledger | None = None,
    budget: Budget | None = None,
    seed: int | None = None,
) -> "pandas.Series":
    """How often each value occurs, with noise; some counts may come out negative.

    Args:
        frame: the table.
        schema: whose levels or bounds make the cells of the histogram.
        column: which column.
        epsilon: what this may spend.
        delta: as for `count`.
        bins: the number of equal cells between the bounds of a continuous column.
        noise: as for `count`.
        ledger: of these rows, where it is entered.
        budget: of these rows, instead of their ledger.
        seed: as for `count`.

    Returns:
        Counts by level, by count, or by the lower edge of the cell.

    Raises:
        ValueError: a column without levels or bounds, a level that the schema does not have, a
            number outside its range, or neither ledger nor budget.
        BudgetExceeded: the budget does not allow it.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"dose": ["low", "high", "low"] * 1000})
        >>> schema = Schema({"dose": Categorical(("low", "medium", "high"))})
        >>> histogram(frame, schema, "dose", epsilon=1.0, noise="laplace", ledger=Ledger(),
        ...           seed=0).round().to_dict()
        {'low': 2000.0, 'medium': -0.0, 'high': 1001.0}
    """
    import pandas as pd

    cells, labels = _cells(frame, schema, column, bins)
    what = f"histogram of {column}"
    spend = spending(what, epsilon=epsilon, delta=delta, ledger=ledger, budget=budget, seed=seed)
    exact = np.bincount(cells, minlength=len(labels)).astype(np.float64)
    noisy = getattr(spend, noise)(exact, sensitivity=1.0)
    return pd.Series(noisy, index=pd.Index(labels, name=column), name="count")


def categories(
    frame: "pandas.DataFrame",
    column: str,
    *,
    epsilon: float,
    delta: float | None = None,
    ledger: Ledger | None = None,
    budget: Budget | None = None,
    seed: int | None = None,
) -> Categorical:
    """The levels of a column that many rows share, where they are not known beforehand.

    Each level's count gets Laplace noise, and those above 1 + log(1 / 2 delta) / epsilon are
    released (Korolova, Kenthapadi, Mishra & Ntoulas 2009): a level of a single row comes out with
    probability delta at most. Rare levels are left out; the cells that hold them should be
    renamed, say to "other", before the schema reads them.

    Args:
        frame: the table.
        column: which column.
        epsilon: what this may spend.
        delta: the probability with which a single row's own level may come out; by default a
            twentieth of the budget's.
        ledger: of these rows, where it is entered.
        budget: of these rows, instead of their ledger.
        seed: as for `count`.

    Returns:
        The kind of the column, its levels sorted.

    Raises:
        ValueError: no level is common enough, a number outside its range, or neither ledger nor
            budget.
        BudgetExceeded: the budget does not allow it.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"drug": ["A", "B"] * 500 + ["made for one patient"]})
        >>> categories(frame, "drug", epsilon=1.0, delta=1e-6, ledger=Ledger(), seed=0).levels
        ('A', 'B')
    """
    what = f"levels of {column}"
    spend = spending(
        what,
        epsilon=epsilon,
        delta=delta,
        ledger=ledger,
        budget=budget,
        seed=seed,
        share=FAILURES / 2,
    )
    if spend.delta == 0:
        raise ValueError("delta= is missing: the probability with which a lone level may come out.")
    seen = frame[column].dropna().value_counts().sort_index(key=lambda levels: levels.astype(str))
    exact = seen.to_numpy(dtype=np.float64)
    noisy = spend.laplace(exact, sensitivity=1.0, failure=spend.delta)
    threshold = 1 + math.log(1 / (2 * spend.delta)) / epsilon
    levels = [level for level, n in zip(seen.index, noisy, strict=True) if n > threshold]
    if not levels:
        raise ValueError(
            f'No level of column "{column}" is common enough to be released: a count must be above '
            f"{threshold:.0f}. What was asked is spent. Declare the levels from what is known, or "
            "ask with more epsilon."
        )
    return Categorical(tuple(levels))


def kind_of(schema: Schema, column: str) -> Column:
    """The declared kind of a column.

    Raises:
        ValueError: the schema has no such column.
    """
    return schema.select([column]).columns[column]


def bounds_of(schema: Schema, column: str) -> tuple[float, float]:
    """The declared bounds of a column of numbers.

    Raises:
        ValueError: there are none.
    """
    kind = kind_of(schema, column)
    lower = 0 if isinstance(kind, Count) else getattr(kind, "lower", None)
    upper = getattr(kind, "upper", None)
    if lower is None or upper is None:
        raise ValueError(
            f'Column "{column}" has no bounds ({kind}), so that one row could change the answer by '
            "any amount and no noise hides it. Declare what is known before the data: "
            "Continuous(lower=0, upper=120), Count(upper=40). Bounds read off the rows would tell "
            "of the most extreme row."
        )
    return float(lower), float(upper)


def seen_cells(frame: "pandas.DataFrame", column: str, lower: float, upper: float) -> Answers:
    """The cells that were seen, those beyond the bounds moved to them."""
    x = frame[column].dropna().to_numpy(dtype=np.float64)
    return np.clip(x[~np.isnan(x)], lower, upper)


def _cells(
    frame: "pandas.DataFrame", schema: Schema, column: str, bins: int
) -> tuple[np.ndarray, list[object]]:
    """The cell of the histogram of each row that was seen, and the labels of the cells."""
    kind = kind_of(schema, column)
    if isinstance(kind, Categorical):
        codes = kind.encode(column, frame[column])
        return codes[~np.isnan(codes)].astype(np.int64), list(kind.levels)
    lower, upper = bounds_of(schema, column)
    x = seen_cells(frame, column, lower, upper)
    if isinstance(kind, Count):
        return x.round().astype(np.int64), list(range(int(upper) + 1))
    if bins < 1:
        raise ValueError(f"bins is {bins}; a histogram has one cell or more.")
    edges = np.linspace(lower, upper, bins + 1)
    cells = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, bins - 1)
    return cells.astype(np.int64), [float(edge) for edge in edges[:-1]]
