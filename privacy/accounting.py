"""How much privacy a history of noisy releases spends, and how much noise a budget asks for.

A step of training is the Poisson-subsampled Gaussian mechanism: every row is in the lot with
probability `rate`, and the sum of clipped contributions gets noise of `noise_multiplier` times the
clipping norm (Abadi et al. 2016, Alg. 1). Any other mechanism enters by the (epsilon, delta) that
its own theorem gives (`Approximate`). Epsilon bounds how much one row, added or removed, can change
the probability of any outcome, up to delta. Three accountants bound it from above:

- `"prv"` composes the privacy loss numerically (Gopi, Lee & Wutschitz 2021), by Opacus; tight to
  about 1 %, and in closed form where no step is sampled (Balle & Wang 2018, Thm 8).
- `"pld"` composes it on a grid of our own, rounded up (`privacy.losses`): the cross-check.
- `"rdp"` composes Renyi divergences (Mironov, Talwar & Zhang 2019), by Opacus, and turns them into
  epsilon by Balle et al. (2020, Thm 21); looser, and never numerical trouble.

Each step may depend on the outcomes of those before; its noise and rate may not, except under
"rdp" at one order fixed beforehand, which is what `privacy.Budget` keeps to.
"""

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from privacy import prv
from privacy.approximate import (
    Approximate,
    Profile,
    combined,
    least_epsilon,
    left_of,
    plain_sum,
    renyi,
)

Accountant = Literal["prv", "pld", "rdp"]
ACCOUNTANTS: tuple[Accountant, ...] = get_args(Accountant)
Gaussians = tuple[tuple[float, float, int], ...]
History = Sequence[tuple[float, float, int] | Approximate]
"""Noise multiplier, sampling rate and steps of each Gaussian release; other mechanisms as such."""

ORDERS = (
    1.01, 1.02, 1.05, *(1 + k / 10 for k in range(1, 20)), *(3 + k / 4 for k in range(36)),
    *range(12, 64),
)  # fmt: skip
HIGH_ORDERS = (64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024)
_LEAST_DELTA = 1e-300
_PRV_LIMIT = 300.0
"""Beyond this epsilon the grid of the PRV accountant overflows; the RDP bound is used."""


def epsilon(
    noise_multiplier: float,
    *,
    rate: float,
    steps: int,
    delta: float,
    accountant: Accountant = "prv",
) -> float:
    """The epsilon that `steps` noisy lots spend: an upper bound.

    Args:
        noise_multiplier: sigma, the standard deviation of the noise over the clipping norm.
        rate: q, the probability with which a row is in a lot.
        steps: the number of lots, empty ones counted.
        delta: the probability outside the guarantee.
        accountant: `"prv"`, `"pld"` or `"rdp"`.

    Raises:
        ValueError: a number outside its range.

    Example:
        60 epochs of MNIST in lots of 256:

        >>> for accountant in ("prv", "pld", "rdp"):
        ...     epsilon(1.1, rate=256 / 60000, steps=14062, delta=1e-5, accountant=accountant)
        2.392
        2.382
        2.597
    """
    return compose([(noise_multiplier, rate, steps)], delta=delta, accountant=accountant)


def compose(history: History, *, delta: float, accountant: Accountant = "prv") -> float:
    """The epsilon that a history of releases spends together: an upper bound.

    0 if nothing was released, infinity if anything was released without noise. Where the PRV
    accountant's grid overflows (epsilon above 300), or its arithmetic does not reach as small a
    delta (`privacy.prv`), the RDP bound is what is returned, which holds as well.

    Args:
        history: (noise multiplier, sampling rate, steps) of each release, or an `Approximate`.
        delta: the probability outside the guarantee, of the whole.
        accountant: `"prv"`, `"pld"` or `"rdp"`.

    Raises:
        ValueError: a number outside its range.

    Example:
        >>> compose([], delta=1e-5), compose([(0.0, 0.01, 1)], delta=1e-5)
        (0.0, inf)
        >>> compose([(4.0, 0.01, 1000), (2.0, 0.02, 100)], delta=1e-5)
        0.500
        >>> compose([(4.0, 0.01, 1000), Approximate(0.1)], delta=1e-5)
        0.362
    """
    check_delta(delta)
    check_accountant(accountant)
    gaussians, others = parted(history)
    left = left_of(delta, others)
    if not gaussians and not others:
        return 0.0
    if left <= 0 or any(s == 0 for s, _, _ in gaussians) or math.isinf(plain_sum(others)):
        return math.inf
    bound = _rdp(gaussians, others, left)
    if accountant == "rdp" or not gaussians or bound > _PRV_LIMIT:
        return bound if gaussians else _without_gaussians(others, left, bound)
    if accountant == "pld":
        return _pld(gaussians, others, left, bound)
    return _prv(gaussians, others, left, bound)


def calibrate(
    epsilon: float,
    *,
    delta: float,
    rate: float,
    steps: int,
    accountant: Accountant = "prv",
) -> float:
    """The noise multiplier that spends `epsilon` in `steps` lots: less by 2 % at most, never more.

    Args:
        epsilon: the budget.
        delta: the probability outside the guarantee.
        rate: the probability with which a row is in a lot.
        steps: the number of lots.
        accountant: `"prv"`, `"pld"` or `"rdp"`, by which the budget is kept.

    Raises:
        ValueError: a number outside its range, or a budget that no noise keeps.

    Example:
        >>> sigma = calibrate(3.0, delta=1e-5, rate=0.01, steps=1000)
        >>> sigma
        0.819
        >>> 2.94 <= epsilon(sigma, rate=0.01, steps=1000, delta=1e-5) <= 3.0
        True
    """
    check_epsilon(epsilon)
    check_delta(delta)
    check_accountant(accountant)
    _check_release(1.0, rate, steps)
    if steps < 1:
        raise ValueError(f"steps is {steps}; a fit has one step or more.")

    def spent_by(kind: Accountant) -> Callable[[float], float]:
        return lambda sigma: compose([(sigma, rate, steps)], delta=delta, accountant=kind)

    guess = rate * math.sqrt(2 * steps * math.log(1 / delta)) / epsilon
    sigma = solve(spent_by("rdp"), epsilon, start=max(guess, 0.3))
    return sigma if accountant == "rdp" else solve(spent_by(accountant), epsilon, start=sigma)


def check_epsilon(epsilon: float) -> None:
    """Refuses an epsilon that is no budget.

    Raises:
        TypeError: it is no number.
        ValueError: it is not a positive finite number.
    """
    _check_number("epsilon", epsilon)
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(
            f"epsilon is {epsilon}; a privacy budget is a positive finite number (1 is strong, 10 "
            "is weak). With epsilon 0 nothing can be learned; without privacy, use pgm.fit."
        )


def check_delta(delta: float, *, rows: int | None = None) -> None:
    """Refuses a delta that is no small probability; with `rows`, one that could expose a row.

    Raises:
        TypeError: it is no number.
        ValueError: it is not in (0, 1), or not below 1 / rows.
    """
    _check_number("delta", delta)
    if not _LEAST_DELTA <= delta < 1:
        raise ValueError(
            f"delta is {delta}; it is the probability with which the guarantee may fail, strictly "
            f"between 0 and 1, such as 1e-5 (below {_LEAST_DELTA:g} no number here can be told "
            "from 0)."
        )
    if rows is not None and delta >= 1 / rows:
        raise ValueError(
            f"delta is {delta} for {rows} rows: a mechanism that publishes one row at random keeps "
            f"any epsilon at delta = 1/rows = {1 / rows:.3g}. Choose a delta well below, such as "
            f"{0.1 / rows:.1g}."
        )


def check_accountant(accountant: str) -> None:
    """Refuses an accountant that does not exist.

    Raises:
        ValueError: it is none of `"prv"`, `"pld"` and `"rdp"`.
    """
    if accountant not in ACCOUNTANTS:
        raise ValueError(
            f"There is no accountant {accountant!r}: use 'prv' or 'pld' (tight), or 'rdp' "
            "(classical). GDP is an approximation and no guarantee, so it is not offered."
        )


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, numbers.Real):
        raise TypeError(
            f"{name} is {value!r}, a {type(value).__name__}; pass a number, such as "
            f"{'1.0' if name == 'epsilon' else '1e-5'}."
        )


def _check_release(noise_multiplier: float, rate: float, steps: int) -> None:
    if not 0 <= noise_multiplier < math.inf:
        raise ValueError(
            f"The noise multiplier is {noise_multiplier}; it is the standard deviation of the "
            "noise over the clipping norm, 0 or more and finite."
        )
    if not 0 < rate <= 1:
        raise ValueError(
            f"The sampling rate is {rate}; it is the probability with which a row is in a lot, "
            "above 0 and at most 1: expected lot size over the number of rows."
        )
    if steps < 0:
        raise ValueError(f"steps is {steps}; a number of lots is not negative.")


def parted(history: History) -> tuple[Gaussians, tuple[Approximate, ...]]:
    """The Gaussian releases and the others, checked, without those that made no step."""
    others = tuple(m for m in history if isinstance(m, Approximate) and m.times > 0)
    gaussians = [m for m in history if not isinstance(m, Approximate)]
    for noise_multiplier, rate, steps in gaussians:
        _check_release(noise_multiplier, rate, steps)
    return tuple((sigma, q, steps) for sigma, q, steps in gaussians if steps > 0), others


@functools.lru_cache(maxsize=128)
def _rdp(gaussians: Gaussians, others: tuple[Approximate, ...], delta: float) -> float:
    """Orders above 64 are tried only where they matter: at small epsilon."""
    bound, order = _best_order(gaussians, others, delta, ORDERS)
    if order == ORDERS[-1]:
        bound, _ = _best_order(gaussians, others, delta, ORDERS + HIGH_ORDERS)
    return bound


def _best_order(
    gaussians: Gaussians,
    others: Sequence[Approximate],
    delta: float,
    orders: tuple[float, ...],
) -> tuple[float, float]:
    from opacus.accountants.analysis import rdp

    divergence = renyi_divergence(gaussians, others, orders)
    with prv.quiet():
        bound, order = rdp.get_privacy_spent(orders=list(orders), rdp=divergence, delta=delta)
    return max(0.0, float(bound)), float(order)


def renyi_divergence(
    gaussians: Gaussians, others: Sequence[Approximate], orders: tuple[float, ...]
) -> Any:
    """The Renyi divergences of all together by order, failures apart: a numpy array."""
    steps = sum(count * _divergence(sigma, q, orders) for sigma, q, count in gaussians)
    return steps + sum(renyi(mechanism, orders) for mechanism in others)


@functools.lru_cache(maxsize=128)
def _divergence(sigma: float, q: float, orders: tuple[float, ...]) -> Any:
    """Renyi divergence of one step, by order (Mironov et al. 2019, sec. 3.3)."""
    from opacus.accountants.analysis import rdp

    return rdp.compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=orders)


def _without_gaussians(others: Sequence[Approximate], delta: float, bound: float) -> float:
    """Exact but for rounding: the least of the Renyi bound, the plain sum, and the profile's."""
    most = min(bound, plain_sum(others))
    return least_epsilon(combined(_nothing, others), delta, most=most)


def _nothing(epsilon: float) -> float:
    """The profile of a release that tells nothing."""
    return max(0.0, -math.expm1(min(epsilon, 0.0)))


@functools.lru_cache(maxsize=1024)
def _pld(
    gaussians: Gaussians, others: tuple[Approximate, ...], delta: float, bound: float
) -> float:
    from privacy.losses import profile

    curve = combined(profile(gaussians, delta, epsilon=bound), others)
    return least_epsilon(curve, delta, most=bound)


@functools.lru_cache(maxsize=1024)
def _prv(
    gaussians: Gaussians, others: tuple[Approximate, ...], delta: float, bound: float
) -> float:
    """Opacus' upper bound; the closed form of one Gaussian where no step is sampled."""
    if all(q == 1 for _, q, _ in gaussians):
        curve = combined(_gaussian(gaussians), others)
        return least_epsilon(curve, delta, most=bound)
    if not prv.reaches(gaussians, delta):
        return bound
    if not others:
        return min(bound, prv.upper_bound(gaussians, delta, rdp=bound))
    curve = combined(prv.profile(gaussians, delta, rdp=bound), others)
    return least_epsilon(curve, delta, most=bound)


def _gaussian(gaussians: Gaussians) -> Profile:
    """The profile of Gaussian steps on all rows: one of mu^2 = sum 1 / sigma^2 (Balle & Wang)."""
    from scipy.special import log_ndtr

    mu = math.sqrt(sum(steps / sigma**2 for sigma, _, steps in gaussians))

    def delta(epsilon: float) -> float:
        a, b = log_ndtr(mu / 2 - epsilon / mu), epsilon + log_ndtr(-mu / 2 - epsilon / mu)
        return float(-math.exp(a) * math.expm1(min(0.0, b - a)))

    return delta


def solve(spent: Callable[[float], float], target: float, *, start: float) -> float:
    """A sigma with 0.985 target <= spent(sigma) <= target, where `spent` falls with sigma."""
    first = spent(start)
    if 0.985 * target <= first <= target:
        return start
    low, high = _bracket(spent, target, (start, first))
    for attempt in range(60):
        if high[1] >= 0.985 * target:
            break
        sigma = math.sqrt(low[0] * high[0]) if attempt % 3 == 2 else _chord(low, high, target)
        point = (sigma, spent(sigma))
        low, high = (low, point) if point[1] <= target else (point, high)
    return high[0]


Point = tuple[float, float]


def _bracket(spent: Callable[[float], float], target: float, first: Point) -> tuple[Point, Point]:
    """Two points (sigma, epsilon), the first above the target and the second not."""
    low = high = first
    factor = 1.15
    while high[1] > target:
        if high[0] > 1e7:
            raise ValueError(
                f"No noise keeps epsilon {target} by this accountant. Allow more epsilon, more "
                "delta, fewer steps or a lower rate."
            )
        low, high = high, (factor * high[0], spent(factor * high[0]))
        factor **= 1.5
    while low[1] <= target:
        low, high = (low[0] / factor, spent(low[0] / factor)), low
        factor **= 1.5
    return low, high


def _chord(low: Point, high: Point, target: float) -> float:
    """Where the straight line through two points meets 0.993 target, in logarithms."""
    if math.isinf(low[1]) or high[1] <= 0:
        return math.sqrt(low[0] * high[0])
    (x0, y0), (x1, y1) = ((math.log(x), math.log(y)) for x, y in (low, high))
    share = (math.log(0.993 * target) - y0) / (y1 - y0)
    return math.exp(x0 + min(max(share, 0.02), 0.98) * (x1 - x0))
