"""Mechanisms of which no more is known than that they are (epsilon, delta)-differentially private.

The worst of them is randomised response that tells the truth with probability e^eps / (1 + e^eps),
and fails altogether with probability delta: every other one is a function of its outcome (Kairouz,
Oh & Viswanath 2015, Thm 3.4). With it the Laplace and the exponential mechanism compose with
Gaussian ones. Its privacy loss is +eps or -eps, so that where delta_G is the profile of the rest,

    delta(eps) = E[delta_G(eps - loss)].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Profile = Callable[[float], float]
"""Epsilon -> the least delta at which it holds, or an upper bound of it."""

_ATOMS = 4096
"""Distinct losses that are kept apart; more are rounded up."""


@dataclass(frozen=True)
class Approximate:
    """An (epsilon, delta)-differentially private mechanism, `times` times over.

    Args:
        epsilon: of one use; pure differential privacy where delta is 0.
        delta: of one use.
        times: the number of uses.

    Raises:
        ValueError: epsilon is negative or NaN, delta outside [0, 1), or times negative.

    Example:
        >>> Approximate(0.5)
        Approximate(epsilon=0.5, delta=0.0, times=1)
    """

    epsilon: float
    delta: float = 0.0
    times: int = 1

    def __post_init__(self) -> None:
        if not (self.epsilon >= 0 and 0 <= self.delta < 1 and self.times >= 0):
            raise ValueError(
                f"{self!r} is no mechanism: epsilon is 0 or more, delta at least 0 and below 1, "
                "and it is used 0 times or more."
            )


def left_of(delta: float, others: Sequence[Approximate]) -> float:
    """The delta that is left when the failures of the mechanisms are taken from it.

    Nothing fails with probability prod (1 - delta_i), so 1 - (1 - delta) / prod (1 - delta_i) is
    left (Kairouz et al. 2015, Thm 3.3).

    Example:
        >>> left_of(1e-5, [Approximate(1.0, delta=4e-6)])
        0.000006
    """
    safe = sum(m.times * math.log1p(-m.delta) for m in others)
    return -math.expm1(math.log1p(-delta) - safe)


def renyi(mechanism: Approximate, orders: Sequence[float]) -> Any:
    """The Renyi divergence by order of all uses together, failures apart: a numpy array.

    For alpha in `orders`: log((e^(alpha eps) + e^((1 - alpha) eps)) / (1 + e^eps)) / (alpha - 1).
    """
    import numpy as np

    alpha, eps = np.asarray(orders, dtype=float), mechanism.epsilon
    if math.isinf(eps):
        return np.full(alpha.shape, np.inf)
    moment = np.logaddexp(alpha * eps, (1 - alpha) * eps) - np.logaddexp(eps, 0.0)
    return mechanism.times * moment / (alpha - 1)


def plain_sum(others: Sequence[Approximate]) -> float:
    """Epsilon by plain addition (Dwork et al. 2006): the least bound for one or two mechanisms."""
    return sum(m.times * m.epsilon for m in others)


def combined(profile: Profile, others: Sequence[Approximate]) -> Profile:
    """The profile of the mechanisms in `others` beside those of which `profile` is.

    Example:
        >>> nothing = lambda epsilon: max(0.0, 1 - math.exp(epsilon))
        >>> both = combined(nothing, [Approximate(0.5, times=2)])
        >>> both(1.0), both(0.9) > 0
        (0.0, True)
    """
    atoms = _losses(others)
    return lambda epsilon: sum(p * profile(epsilon - loss) for loss, p in atoms)


def least_epsilon(profile: Profile, delta: float, *, most: float) -> float:
    """The least epsilon in [0, most] with profile(epsilon) <= delta, found by halving from above.

    `most` is itself a bound, known from elsewhere.
    """
    if profile(0.0) <= delta:
        return 0.0
    low, high = 0.0, most
    while high - low > 1e-9 + 1e-7 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if profile(middle) <= delta else (middle, high)
    return high


def _losses(others: Sequence[Approximate]) -> list[tuple[float, float]]:
    """The privacy loss of all together: (loss, probability), losses rounded up where many."""
    atoms = {0.0: 1.0}
    for m in others:
        truth = 1 / (1 + math.exp(-m.epsilon))
        for _ in range(m.times):
            grown: dict[float, float] = {}
            for loss, p in atoms.items():
                for step, share in ((m.epsilon, truth), (-m.epsilon, 1 - truth)):
                    key = round(loss + step, 12)
                    grown[key] = grown.get(key, 0.0) + p * share
            atoms = _coarser(grown)
    return sorted(atoms.items())


def _coarser(atoms: dict[float, float]) -> dict[float, float]:
    if len(atoms) <= _ATOMS:
        return atoms
    low, high = min(atoms), max(atoms)
    width = (high - low) / (_ATOMS // 2)
    merged: dict[float, float] = {}
    for loss, p in atoms.items():
        key = low + width * math.ceil((loss - low) / width - 1e-9)
        merged[key] = merged.get(key, 0.0) + p
    return merged
