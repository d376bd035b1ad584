"""Noise that an attacker cannot see through: from the system's entropy, on a grid, exact.

Gaussian noise in floating point has gaps that tell the sum it was added to (Mironov 2012; Jin et
al. 2022), and a pseudo-random generator can be guessed. So the sum is rounded to a grid of width g,
and gets noise from the discrete Gaussian N_Z(0, 2^40), sampled without any rounding by Canonne,
Kamath & Steinke (2020, Alg. 1-3) from the random bits of the operating system.

Rounding d numbers moves the sum of neighbours apart by g sqrt(d) more, so g solves
2^20 g = sigma (C + g sqrt(d)). A shift by an integer vector v has Renyi divergence
alpha |v|^2 / (2 sigma^2) at most, as for the Gaussian (their Thm 14). Their densities have the same
ratio at every point of the grid, so sums over the grid differ from the integrals of the subsampled
Gaussian by the error of Poisson's summation formula, exp(-2 pi^2 2^40): nothing.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

Bits = Callable[[int], bytes]
"""So many random bytes."""
BITS = 20
"""The standard deviation of the noise in cells of the grid, as a power of two."""
_MOST = 4_000_000
"""Numbers that are drawn at once."""

Integers = Int[np.ndarray, " k"]
Exponents = Int[np.ndarray, " k"]


def on_grid(
    x: Float[np.ndarray, " d"], *, sensitivity: float, sigma: float, bits: Bits = os.urandom
) -> Float[np.ndarray, " d"]:
    """Numbers with discrete Gaussian noise of noise multiplier sigma.

    Args:
        x: the numbers, which together move by `sensitivity` in the 2-norm.
        sensitivity: C.
        sigma: the noise multiplier; positive.
        bits: the source of randomness.

    Raises:
        ValueError: too many numbers for the grid.

    Example:
        >>> noisy = on_grid(np.zeros(2000), sensitivity=0.5, sigma=2.0)
        >>> bool(0.9 < noisy.std() < 1.1)
        True
    """
    g = width(len(x), sensitivity=sensitivity, sigma=sigma)
    cells = np.rint(np.asarray(x, dtype=np.float64) / g).astype(np.int64)
    noise = [discrete_gaussian(len(part), BITS, bits) for part in _parts(len(x))]
    noisy: Any = (cells + np.concatenate(noise)) * g if noise else x
    return np.asarray(noisy, dtype=np.float64)


def width(d: int, *, sensitivity: float, sigma: float) -> float:
    """The width g of the grid for d numbers: 2^20 g = sigma (C + g sqrt(d)).

    One part in 500 is added to sqrt(d), for the rounding of the division by g.

    Raises:
        ValueError: too many numbers.
    """
    spare = 2.0**BITS - sigma * math.sqrt(d) * 1.002
    if spare < 2.0 ** (BITS - 2):
        raise ValueError(
            f"{d} numbers with noise multiplier {sigma:.3g} do not fit the grid of secure noise: "
            "rounding them would cost more than the clipping. Train fewer parameters at once, or "
            "ask for less noise (more epsilon, fewer steps; noise= of an AdaptiveClip)."
        )
    return sigma * sensitivity / spare


def discrete_gaussian(size: int, b: int, bits: Bits = os.urandom) -> Integers:
    """Exact draws from N_Z(0, sigma^2), sigma = 2^b: P(x) in proportion to exp(-x^2 / 2 sigma^2).

    A draw Y of the discrete Laplace law of scale sigma is kept with probability
    exp(-(|Y| - sigma)^2 / (2 sigma^2)) (Canonne et al. 2020, Alg. 3 with t = sigma).
    """
    found = np.zeros(size, dtype=np.int64)
    left = np.arange(size)
    while len(left):
        y = _discrete_laplace(len(left), b, bits)
        kept = _bernoulli_exp((np.abs(y) - 2**b) ** 2, 2 * b + 1, bits)
        found[left[kept]] = y[kept]
        left = left[~kept]
    return found


def _discrete_laplace(size: int, b: int, bits: Bits) -> Integers:
    """P(y) in proportion to exp(-|y| / 2^b) (Alg. 2)."""
    found = np.zeros(size, dtype=np.int64)
    left = np.arange(size)
    while len(left):
        u = _uniform(len(left), b, bits)
        kept = _bernoulli_exp(u, b, bits)
        y = u + 2**b * _geometric(len(left), bits)
        negative = _uniform(len(left), 1, bits) == 1
        kept &= ~(negative & (y == 0))
        found[left[kept]] = np.where(negative, -y, y)[kept]
        left = left[~kept]
    return found


def _geometric(size: int, bits: Bits) -> Integers:
    """How often Bernoulli(exp(-1)) succeeds before it fails."""
    count, left = np.zeros(size, dtype=np.int64), np.arange(size)
    while len(left):
        left = left[_bernoulli_exp(np.ones(len(left), dtype=np.int64), 0, bits)]
        count[left] += 1
    return count


def _bernoulli_exp(n: Exponents, b: int, bits: Bits) -> Bool[np.ndarray, " k"]:
    """True with probability exp(-n / 2^b), exactly (Alg. 1)."""
    whole, rest = n >> b, n & (2**b - 1)
    alive = _of_fraction(rest, b, bits)
    left = np.flatnonzero(alive & (whole > 0))
    while len(left):
        kept = _of_fraction(np.full(len(left), 2**b, dtype=np.int64), b, bits)
        alive[left[~kept]] = False
        whole[left] -= 1
        left = left[kept & (whole[left] > 0)]
    return alive


def _of_fraction(n: Exponents, b: int, bits: Bits) -> Bool[np.ndarray, " k"]:
    """For n <= 2^b: K, the first failure of Bernoulli(n / (2^b K)), K = 1, 2, ..., is odd."""
    odd, left, K = np.zeros(len(n), dtype=np.bool_), np.arange(len(n)), 1
    while len(left):
        success = _uniform(len(left), b, bits) < n[left]
        success &= _one_of(len(left), K, bits)
        odd[left[~success]] = K % 2 == 1
        left, K = left[success], K + 1
    return odd


def _one_of(size: int, K: int, bits: Bits) -> Bool[np.ndarray, " k"]:
    """True with probability 1 / K, exactly: a number below the largest multiple of K, or again."""
    found, left = np.zeros(size, dtype=np.bool_), np.arange(size)
    limit = 2**32 // K * K
    while len(left):
        u = _uniform(len(left), 32, bits)
        found[left] = u % K == 0
        left = left[u >= limit]
    return found


def _uniform(size: int, b: int, bits: Bits) -> Integers:
    """Uniform on 0 .. 2^b - 1."""
    if b == 0:
        return np.zeros(size, dtype=np.int64)
    words: UInt64[np.ndarray, " k"] = np.frombuffer(bits(8 * size), dtype=np.uint64)
    return (words >> np.uint64(64 - b)).astype(np.int64)


def _parts(size: int) -> list[range]:
    return [range(start, min(start + _MOST, size)) for start in range(0, size, _MOST)]
