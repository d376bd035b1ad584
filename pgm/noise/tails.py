"""Tails of distributions in NumPy: the tables and formulae behind `pgm.noise.quantiles`.

A family is a lower tail F(x) = P(X <= x) and an upper tail P(X > x), each from SciPy's own function
for it, so that a small probability at either end keeps its digits. Arrays are flat and of one size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

Array = np.ndarray[Any, np.dtype[np.float64]]
Truths = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Continuous:
    """A continuous family by its two tails, their inverses and its log-density, on arrays.

    Attributes:
        lower: F(x, *theta) = P(X <= x).
        upper: P(X > x).
        lower_inverse: x with `lower(x, *theta)` equal to p, from `(p, *theta)`.
        upper_inverse: The same for `upper`.
        log_density: log f(x, *theta).
    """

    lower: Callable[..., Array]
    upper: Callable[..., Array]
    lower_inverse: Callable[..., Array]
    upper_inverse: Callable[..., Array]
    log_density: Callable[..., Array]

    def quantile(self, u: Array, *theta: Array) -> Array:
        """x = F^{-1}(Phi(u))."""
        p = special.ndtr(-np.abs(u))
        return by_sign(u, self.lower_inverse, self.upper_inverse, p, *theta)

    def normal_score(self, x: Array, *theta: Array) -> Array:
        """u = Phi^{-1}(F(x))."""
        return score_of(self, x, *theta)

    def slope(self, x: Array, u: Array, *theta: Array) -> Array:
        """dx/du = phi(u) / f(x)."""
        log_phi = -0.5 * u**2 - 0.5 * np.log(2 * np.pi)
        return np.exp(log_phi - self.log_density(x, *theta))

    def shift(self, i: int, x: Array, u: Array, *theta: Array) -> Array:
        """dx/dtheta_i = -(dF/dtheta_i) / f(x), F taken from its smaller tail."""
        h = 6e-6 * theta[i]  # near the cube root of float64's rounding
        more = (*theta[:i], theta[i] + h, *theta[i + 1 :])
        less = (*theta[:i], theta[i] - h, *theta[i + 1 :])
        rise = by_sign(u, self.lower, self.upper, x, *more)
        rise -= by_sign(u, self.lower, self.upper, x, *less)
        slope = np.where(u < 0, rise, -rise) / (2 * h)
        with np.errstate(divide="ignore"):  # far out 1 / f alone is beyond float64
            size = np.exp(np.log(np.abs(slope)) - self.log_density(x, *theta))
        return -np.sign(slope) * size


@dataclass(frozen=True)
class Counts:
    """A distribution on 0, 1, 2, ... by its two tails, on arrays.

    Attributes:
        lower: F(k, *theta) = P(X <= k) for k >= 0.
        upper: P(X > k) for k >= 0.
    """

    lower: Callable[..., Array]
    upper: Callable[..., Array]

    def normal_score(self, k: Array, *theta: Array) -> Array:
        """Phi^{-1}(F(k)); minus infinity for k = -1."""
        return np.where(k < 0, -np.inf, score_of(self, np.maximum(k, 0), *theta))

    def quantile(self, u: Array, mean: Array, sd: Array, *theta: Array) -> Array:
        """The smallest k with F(k) >= Phi(u), searched outwards from the normal guess."""
        finite = np.isfinite(u + mean + sd + sum(theta))
        u, mean, sd = (np.where(finite, a, 0.0) for a in (u, mean, sd))
        p = special.ndtr(-np.abs(u))

        def below(k: Array) -> Truths:
            """Whether F(k) < Phi(u), in the smaller tail."""
            tail = by_sign(u, self.lower, self.upper, np.maximum(k, 0), *theta)
            return (k < 0) | np.where(u < 0, tail < p, tail > p)

        guess = np.maximum(np.floor(mean + sd * u), 0)
        return np.where(finite, first_false(below, guess), np.nan)


def first_false(below: Callable[[Array], Truths], guess: Array) -> Array:
    """The smallest integer k >= 0 with not below(k); `below` is true, then false, as k grows."""
    low, high, step = guess - 1, guess, 1
    while (wrong := ~below(low)).any():
        low, step = np.where(wrong, np.maximum(low - step, -1), low), 2 * step
    step = 1
    while (wrong := below(high)).any():
        high, step = np.where(wrong, high + step, high), 2 * step
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        up = below(middle)
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return high


def score_of(family: Continuous | Counts, x: Array, *theta: Array) -> Array:
    """Phi^{-1}(F(x)), from the smaller tail."""
    p = family.lower(x, *theta)
    high = p > 0.5
    p[high] = family.upper(x[high], *(parameter[high] for parameter in theta))
    return np.where(high, -1.0, 1.0) * special.ndtri(p)


def by_sign(
    u: Array, negative: Callable[..., Array], positive: Callable[..., Array], *arguments: Array
) -> Array:
    """Element by element, `negative(*arguments)` where u < 0 and `positive(*arguments)` elsewhere.

    Only one of the two is computed for each element: they are the cost of everything here.
    """
    below = u < 0
    result = np.empty_like(u)
    result[below] = negative(*(a[below] for a in arguments))
    result[~below] = positive(*(a[~below] for a in arguments))
    return result


FAMILIES: dict[str, Continuous | Counts] = {
    "gamma": Continuous(
        lower=lambda x, a: special.gammainc(a, x),
        upper=lambda x, a: special.gammaincc(a, x),
        lower_inverse=lambda p, a: special.gammaincinv(a, p),
        upper_inverse=lambda p, a: special.gammainccinv(a, p),
        log_density=lambda x, a: special.xlogy(a - 1, x) - x - special.gammaln(a),
    ),
    "beta": Continuous(
        lower=lambda x, a, b: special.betainc(a, b, x),
        upper=lambda x, a, b: special.betaincc(a, b, x),
        lower_inverse=lambda p, a, b: special.betaincinv(a, b, p),
        upper_inverse=lambda p, a, b: special.betainccinv(a, b, p),
        log_density=lambda x, a, b: (
            special.xlogy(a - 1, x) + special.xlog1py(b - 1, -x) - special.betaln(a, b)
        ),
    ),
    "student": Continuous(
        lower=lambda t, df: special.stdtr(df, t),
        upper=lambda t, df: special.stdtr(df, -t),
        lower_inverse=lambda p, df: special.stdtrit(df, p),
        upper_inverse=lambda p, df: -special.stdtrit(df, p),
        log_density=lambda t, df: (
            -special.betaln(0.5, df / 2) - 0.5 * np.log(df) - (df + 1) / 2 * np.log1p(t * t / df)
        ),
    ),
    "poisson": Counts(
        lower=lambda k, rate: special.gammaincc(k + 1, rate),
        upper=lambda k, rate: special.gammainc(k + 1, rate),
    ),
    "binomial": Counts(
        lower=lambda k, n, p: np.where(
            k < n, special.betaincc(k + 1, np.maximum(n - k, 1), p), 1.0
        ),
        upper=lambda k, n, p: np.where(k < n, special.betainc(k + 1, np.maximum(n - k, 1), p), 0.0),
    ),
    "negative_binomial": Counts(
        lower=lambda k, r, p: special.betaincc(k + 1, r, p),
        upper=lambda k, r, p: special.betainc(k + 1, r, p),
    ),
    "geometric": Counts(
        lower=lambda k, p: -np.expm1((k + 1) * np.log1p(-p)),
        upper=lambda k, p: np.exp((k + 1) * np.log1p(-p)),
    ),
}
