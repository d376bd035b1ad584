"""Tests of independence for levels: G and chi-square, in each stratum of z, summed.

G = 2 sum O log(O / E) (Woolf 1957), X^2 = sum (O - E)^2 / E. A stratum has (r - 1)(c - 1) degrees
of freedom, r and c being the levels that occur in it: what is not there can neither deviate nor be
free (Bishop, Fienberg & Holland 1975, sec. 3.4). Where counts are too small for the chi-square law,
y is shuffled within the strata, which is exact.
"""

from typing import Any, Literal

import numpy as np

_SMALL = 5.0
"""Expected count below which the chi-square law is doubtful (Cochran 1954)."""


def contingency(
    x: Any,
    y: Any,
    z: Any = None,
    *,
    statistic: Literal["G", "chi-square"] = "G",
    shuffles: int = 499,
    seed: int = 0,
) -> tuple[float, int, float, bool]:
    """The statistic, its degrees of freedom, the p-value, and whether y was shuffled for it.

    Args:
        x: codes of the levels, (n,).
        y: codes of the levels, (n,).
        z: codes of the strata, (n,); None for one stratum.
        statistic: "G" or "chi-square".
        shuffles: used where over a fifth of the expected counts lie below five; 0 never shuffles.
        seed: of the shuffles.

    Example:
        >>> counts = [30, 10, 10, 30]
        >>> x, y = np.repeat([0, 0, 1, 1], counts), np.repeat([0, 1, 0, 1], counts)
        >>> contingency(x, y, statistic="chi-square")[:2]
        (20.0, 1)
    """
    x, y = (np.unique(v, return_inverse=True)[1] for v in (x, y))
    z = np.zeros(len(x), dtype=int) if z is None else np.unique(z, return_inverse=True)[1]
    counts = _table(x, y, z)
    expected = _expected(counts)
    value = _deviation(counts, expected, statistic)
    rows, columns = (counts.sum(2) > 0).sum(1), (counts.sum(1) > 0).sum(1)
    free = int(((rows - 1) * (columns - 1)).clip(0).sum())
    if free == 0:
        return value, 0, 1.0, False
    present = expected[expected > 0]
    if shuffles and (present < _SMALL).mean() > 0.2:
        return value, free, _shuffled(x, y, z, value, statistic, shuffles, seed), True
    from scipy.stats import chi2

    return value, free, float(chi2.sf(value, free)), False


def _table(x: Any, y: Any, z: Any) -> Any:
    """Counts by stratum, level of x and level of y."""
    shape = (int(z.max()) + 1, int(x.max()) + 1, int(y.max()) + 1)
    cell = np.ravel_multi_index((z, x, y), shape)
    return np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape).astype(float)


def _expected(counts: Any) -> Any:
    total = counts.sum((1, 2), keepdims=True)
    return counts.sum(2, keepdims=True) * counts.sum(1, keepdims=True) / np.maximum(total, 1)


def _deviation(counts: Any, expected: Any, statistic: str) -> float:
    here = expected > 0
    n, E = counts[here], expected[here]
    if statistic == "chi-square":
        return float(((n - E) ** 2 / E).sum())
    seen = n > 0
    return float(2 * (n[seen] * np.log(n[seen] / E[seen])).sum())


def _shuffled(
    x: Any, y: Any, z: Any, value: float, statistic: str, shuffles: int, seed: int
) -> float:
    """The share of shuffles that deviate as much, the data counted as one (Davison & Hinkley)."""
    rng, order = np.random.default_rng(seed), np.argsort(z, kind="stable")
    x, y, z = x[order], y[order], z[order]
    expected = _expected(_table(x, y, z))
    as_far = 1
    for _ in range(shuffles):
        within = np.lexsort((rng.random(len(z)), z))
        as_far += _deviation(_table(x, y[within], z), expected, statistic) >= value - 1e-9
    return as_far / (shuffles + 1)
