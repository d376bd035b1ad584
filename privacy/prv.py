"""Opacus' PRV accountant (Gopi, Lee & Wutschitz 2021), as far as its arithmetic reaches.

The privacy loss of a step stands on a grid in double precision, and steps are composed by the
Fourier transform. Each step adds rounding of about 2^-53 to every probability, so that delta is
known to some multiple of steps 2^-53 and no better; Opacus checks this against the precision of
`longdouble`, which it does not compute in. Here that much is taken off delta first. Where more than
half of delta would go, the accountant has nothing to say.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from privacy.approximate import Profile

Gaussians = tuple[tuple[float, float, int], ...]
_ROUNDINGS = 10
"""Rounding errors of the size 2^-53 a step; against closed forms, up to 2 were seen."""


def rounding(gaussians: Gaussians) -> float:
    """How exactly delta is known at best, by any accountant that composes by Fourier transforms.

    Example:
        >>> rounding(((1.0, 0.01, 1_000_000),)) < 2e-9
        True
    """
    return _ROUNDINGS * 2.0**-53 * sum(steps + 1 for _, _, steps in gaussians)


def reaches(gaussians: Gaussians, delta: float) -> bool:
    """Whether the accountant can tell a probability of `delta` from its own rounding."""
    return rounding(gaussians) <= delta / 2


def upper_bound(gaussians: Gaussians, delta: float, *, rdp: float) -> float:
    """Opacus' upper bound of epsilon; the Renyi bound `rdp` where Opacus finds none."""
    found = _composed(gaussians, delta, rdp)
    if found is None:
        return rdp
    tail = delta / 1000
    try:
        with _on_a_grid():
            bound = float(found.compute_epsilon(delta - rounding(gaussians), tail, _error(rdp))[2])
    except (RuntimeError, ValueError, FloatingPointError):
        return rdp
    return max(0.0, bound) if math.isfinite(bound) else rdp


def profile(gaussians: Gaussians, delta: float, *, rdp: float) -> Profile:
    """delta(eps) <= estimate(eps - error) + error of delta (Gopi et al. 2021, Thm 5.5)."""
    found, error = _composed(gaussians, delta, rdp), _error(rdp)
    if found is None:
        return lambda epsilon: 1.0
    spare = delta / 1000 + rounding(gaussians)

    def bound(epsilon: float) -> float:
        try:
            with _on_a_grid():
                return min(1.0, float(found.compute_delta_estimate(epsilon - error)) + spare)
        except FloatingPointError:
            return 1.0

    return bound


def _composed(gaussians: Gaussians, delta: float, rdp: float) -> Any:
    """The privacy loss of all steps on Opacus' grid; None if it does not fit there."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = list(gaussians)
    with _on_a_grid():
        try:
            return accountant._get_dprv(eps_error=_error(rdp), delta_error=delta / 1000)
        except (RuntimeError, FloatingPointError):
            return None


def _error(bound: float) -> float:
    """The numerical error of epsilon: 1.1 %, and Opacus' 0.01 from 0.9 to 10."""
    return max(0.0005, min(0.01, 0.011 * bound), 0.001 * bound)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Opacus where it is right all the same.

    Another order could be tighter, and the bound holds at every one; at rate 1 the loss has no
    lower end, which it finds as log(1 - rate) = log 0.
    """
    import numpy as np

    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        yield


@contextmanager
def _on_a_grid() -> Iterator[None]:
    """Stops Opacus where a loss overflows: it leaves NaN on the grid that epsilon is read off.

    Raises:
        FloatingPointError: it does.
    """
    import numpy as np

    with quiet(), np.errstate(over="raise", invalid="raise"):
        yield
