"""How far an estimate might be off by chance: the bootstrap, and a formula for matching.

The bootstrap draws the rows anew and does all of the estimate again, the propensity with it (Efron
1979); the quantiles of its draws are the interval. It fails for matching, whose estimate jumps with
the ties it makes (Abadie & Imbens 2008); there the variance of Abadie & Imbens (2006) is used.
"""

from typing import Any

import numpy as np

from causal.bridge.estimators import Estimator
from causal.bridge.matching import matched
from causal.bridge.overlap import propensity
from causal.bridge.table import OUTCOME, Table

Interval = tuple[float, float, str]


def interval(
    how: Estimator, table: Table, value: float, *, confidence: float, refits: int, seed: int
) -> Interval:
    """The ends of the interval, and where they come from."""
    if how.method == "matching" and table.covariates:
        return _matched(how, table, value, confidence)
    drawn = bootstrap(how, table, refits=refits, seed=seed)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    source = f"bootstrap of {len(table.frame)} rows, {refits} times"
    if len(drawn) < refits:
        source += f", of which {refits - len(drawn)} had no estimate"
    return float(low), float(high), source


def bootstrap(how: Estimator, table: Table, *, refits: int, seed: int) -> Any:
    """The estimate on rows drawn with replacement, `refits` times.

    Draws without an estimate, in which a rare level is missing from an arm, are left out.

    Raises:
        ValueError: more than one in twenty draws have no estimate.
    """
    generator, n = np.random.default_rng(seed), len(table.frame)
    drawn: list[float] = []
    for i in range(refits):
        index = generator.integers(n, size=n)
        try:
            drawn.append(how(table.rows(index)))
        except ValueError as error:
            if i + 1 - len(drawn) > refits / 20:
                raise ValueError(
                    "The estimate exists on these rows, but not on too many sets of rows drawn "
                    f"from them, so that it has no interval: the data barely carry it. {error}"
                ) from error
    return np.array(drawn)


def _matched(how: Estimator, table: Table, value: float, confidence: float) -> Interval:
    """value -+ z times the standard error, the propensity taken as known."""
    from scipy.stats import norm

    e = propensity(table, how.model)
    error = matched(table.frame[OUTCOME].to_numpy(), table.treated, e, how.units)[1]
    half = float(norm.ppf((1 + confidence) / 2)) * error
    source = (
        "variance of Abadie & Imbens (2006), the propensity taken as known, which is wide for all "
        "rows and may be either for a part of them (2016)"
    )
    return value - half, value + half, source
