"""The privacy loss distribution of subsampled Gaussian steps on a grid: the third accountant.

The loss of one step, log P(y) / Q(y), is cut into cells of width h; the mass of P and of Q in a
cell goes to its two ends so that both are kept (Doroshenko, Ghazi, Kamath, Kumar & Manurangsi 2022,
"connect the dots"), which is the least that bounds the profile from above on this grid. Steps are
composed by the fast Fourier transform (Koskela, Jalko & Honkela 2020), for a row that is added and
for one that is removed; the greater delta counts:

    delta(eps) = sum over losses l > eps of p(l) (1 - e^(eps - l)), plus what fell off the grid.

A row is in the lot with probability q, so P is (1 - q) N(0, sigma^2) + q N(1, sigma^2) and Q is
N(0, sigma^2), or the other way round (Zhu, Dong & Wang 2022, Thm 11).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from privacy.approximate import Profile
from privacy.prv import rounding

_TAIL = 1e-3
"""The part of delta that pays for losses beyond the grid."""
_ROUNDING = 1e-12
"""And what pays for the rounding of the Fourier transform, at least."""
_MOST_CELLS = 2**21

Gaussians = tuple[tuple[float, float, int], ...]
Numbers = Float64[np.ndarray, " k"]


@dataclass(frozen=True)
class Grid:
    """Losses k h for k = -half .. half - 1.

    Attributes:
        h: the width of a cell.
        half: half of the number of losses.
    """

    h: float
    half: int

    @property
    def losses(self) -> Numbers:
        """In order."""
        return self.h * np.arange(-self.half, self.half, dtype=np.float64)


def profile(gaussians: Gaussians, delta: float, *, epsilon: float) -> Profile:
    """An upper bound of delta as a function of epsilon, for all steps together.

    Args:
        gaussians: (noise multiplier, rate, steps) of each release; noise and steps positive.
        delta: around which the bound should be tight.
        epsilon: a bound at that delta, by which the grid is chosen.

    Example:
        >>> curve = profile(((1.0, 1.0, 1),), 1e-5, epsilon=5.0)
        >>> curve(4.377)
        0.00001
    """
    grid = _grid(gaussians, delta, epsilon)
    curves = [_composed(gaussians, grid, added=added) for added in (True, False)]
    spare = _TAIL * delta + max(_ROUNDING, rounding(gaussians))
    return lambda epsilon: min(1.0, max(curve(epsilon) for curve in curves) + spare)


def _grid(gaussians: Gaussians, delta: float, epsilon: float) -> Grid:
    """Wide enough that losses beyond it have a tenth of the tail's mass; cells that add 1 % of it.

    Spreading a loss to the ends of its cell adds at most h^2 / 4 to the variance of a step.
    """
    steps = sum(count for _, _, count in gaussians)
    width = _reach(gaussians, _TAIL * delta / 10)
    h = min(1e-3, 0.01 * max(epsilon, 1e-4) / math.sqrt(steps))
    half = min(_MOST_CELLS // 2, 2 ** math.ceil(math.log2(width / h + 2)))
    return Grid(max(h, width / (half - 2)), half)


def _reach(gaussians: Gaussians, tail: float) -> float:
    """A loss that is exceeded, either way, with at most the probability `tail` (Chernoff).

    From the Renyi divergence of order a: min over a of D_a + log(1 / tail) / (a - 1).
    """
    from opacus.accountants.analysis import rdp

    # Whole orders above 11: there Opacus' series for fractions loses all its digits.
    orders = (
        1.01,
        1.05,
        1.1,
        1.25,
        1.5,
        *(2 + k / 2 for k in range(20)),
        *(2**k for k in range(4, 11)),
    )
    divergence = sum(
        steps * np.asarray(rdp.compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=orders))
        for sigma, q, steps in gaussians
    )
    reach: Any = divergence + math.log(1 / tail) / (np.asarray(orders) - 1)
    return float(reach.min())


def _composed(gaussians: Gaussians, grid: Grid, *, added: bool) -> Profile:
    spectrum: Any = 1.0
    on_grid = 1.0
    for sigma, q, steps in gaussians:
        masses = _step(sigma, q, grid, added=added)
        on_grid *= min(1.0, float(masses.sum())) ** steps
        spectrum = spectrum * np.fft.rfft(np.fft.ifftshift(masses)) ** steps
    masses = np.fft.fftshift(np.fft.irfft(spectrum, 2 * grid.half)).clip(min=0.0)
    above = masses[::-1].cumsum()[::-1]
    discounted = (masses * np.exp(-grid.losses))[::-1].cumsum()[::-1]

    def delta(epsilon: float) -> float:
        k = max(0, math.floor(epsilon / grid.h) + 1 + grid.half)
        if k >= 2 * grid.half:
            return 1.0 - on_grid
        kept = float(above[k]) - math.exp(epsilon) * float(discounted[k])
        return max(0.0, kept) + 1.0 - on_grid

    return delta


def _step(sigma: float, q: float, grid: Grid, *, added: bool) -> Numbers:
    """The masses of P on the grid for one step; what is below it goes to its lower end."""
    edges = np.append(-np.inf, np.append(grid.losses, np.inf))
    places = _place(edges, sigma, q) if added else _place(-edges, sigma, q)[::-1]
    without = _mass(places, 0.0, sigma)
    with_row = (1 - q) * without + q * _mass(places, 1.0, sigma)
    p, other = (with_row, without) if added else (without[::-1], with_row[::-1])
    low, inside, other = p[0], p[1:-1], other[1:-1]
    scaled = other * np.exp(grid.losses[:-1])
    upper = ((inside - scaled) / -math.expm1(-grid.h)).clip(0.0, inside)
    masses = np.append(inside - upper, 0.0)
    masses[1:] += upper
    masses[0] += low
    return masses


def _place(losses: Numbers, sigma: float, q: float) -> Numbers:
    """Where the loss log(1 - q + q exp((2 y - 1) / (2 sigma^2))) takes these values."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        odds = np.expm1(losses) / q
        z = np.where(odds > -1, np.log1p(np.maximum(odds, -1.0)), -np.inf)
        z = np.where(losses > 700, losses - math.log(q), z)
    return sigma**2 * z + 0.5


def _mass(
    places: Float64[np.ndarray, " k"], mean: float, sigma: float
) -> Float64[np.ndarray, " k-1"]:
    """The mass of N(mean, sigma^2) between neighbouring places, exact in both tails."""
    from scipy.special import ndtr

    z = (places - mean) / sigma
    below, above = ndtr(z), ndtr(-z)
    return np.where(z[:-1] < 0, np.diff(below), -np.diff(above)).clip(min=0.0)
