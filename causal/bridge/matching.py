"""Matching on the propensity, every row with the nearest of the other arm and all who tie with it.

The mean of y - y(match) over the treated rows, of y(match) - y over the untreated, and its variance
by Abadie & Imbens (2006, thm. 7) in the form for ties of Abadie, Drukker, Herr & Imbens (2004).
DoWhy's matching takes one of the ties, the same one every time; without ties the two agree.
"""

from typing import Any

import numpy as np

from causal.bridge.overlap import Units

Matches = tuple[Any, Any, Any]


def matched(y: Any, treated: Any, e: Any, units: Units) -> tuple[float, float]:
    """The effect, and its standard error with the propensity taken as known.

    Args:
        y: outcomes, (n,).
        treated: truth values, (n,).
        e: propensities, (n,).
        units: whom the effect is averaged over.
    """
    other, used, squared = _matches(y, treated, e)
    own = {"ate": np.ones_like(treated), "att": treated, "atc": ~treated}[units]
    difference = np.where(treated, y - other, other - y)
    value = float(difference[own].mean())
    extra = used**2 + 2 * used - squared if units == "ate" else np.where(own, 0, used**2 - squared)
    total = ((difference[own] - value) ** 2).sum() + (extra * _noise(y, treated, e)).sum()
    return value, float(np.sqrt(total) / own.sum())


def _matches(y: Any, treated: Any, e: Any) -> Matches:
    """The mean outcome of each row's matches, and sums over the rows that it is a match of.

    A row that is one of k ties counts 1/k in the first sum and 1/k^2 in the second.
    """
    other, used, squared = np.empty(len(y)), np.zeros(len(y)), np.zeros(len(y))
    for arm in (treated, ~treated):
        there = np.flatnonzero(~arm)
        at, member = np.unique(e[there].round(12), return_inverse=True)
        ties = np.bincount(member)
        nearest = _nearest(at, e[arm])
        other[arm] = (np.bincount(member, y[there]) / ties)[nearest]
        times = np.bincount(nearest, minlength=len(at))
        used[there], squared[there] = (times / ties)[member], (times / ties**2)[member]
    return other, used, squared


def _nearest(at: Any, e: Any) -> Any:
    """The index of the value in `at`, which is sorted, that is nearest to each of e."""
    right = np.searchsorted(at, e).clip(1, len(at) - 1) if len(at) > 1 else np.zeros(len(e), int)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(at[left] - e) <= np.abs(at[right] - e), left, right)


def _noise(y: Any, treated: Any, e: Any) -> Any:
    """var(y | e, arm) of each row, from its neighbour in its own arm."""
    noise = np.empty(len(y))
    for arm in (treated, ~treated):
        rows = np.flatnonzero(arm)[np.argsort(e[arm], kind="stable")]
        near = np.append(rows[1:], rows[-2])
        noise[rows] = (y[rows] - y[near]) ** 2 / 2
    return noise
