"""Kernel tests of independence, x _||_ y and x _||_ y | z, for numbers and vectors of any law.

With centred Gaussian kernels K the statistic is tr(K_x K_y) (HSIC; Gretton, Fukumizu, Teo, Song,
Scholkopf & Smola 2008), and given z the same of what is left of K_{xz} and K_y after a kernel ridge
regression on z, K_{x|z} = R K_{xz} R with R = e (K_z + e I)^-1 (KCI; Zhang, Peters, Janzing &
Scholkopf 2011, prop. 5). Its law under independence is taken to be a gamma of the same mean and
variance (their prop. 5 and sec. 3.3), which the kernels give in closed form. The cost is n^3.
"""

from typing import Any

import numpy as np

_TINY = 1e-12
_WIDTHS = (0.3, 1.0)
_RIDGES = np.geomspace(1e-3, 1e3, 25)


def hsic(x: Any, y: Any) -> tuple[float, float]:
    """The statistic and its p-value for x _||_ y.

    Args:
        x: (n,) or (n, d).
        y: (n,) or (n, e).

    Example:
        >>> x, e = np.random.default_rng(0).normal(size=(2, 200))
        >>> hsic(x, e)[1] > 0.05 > hsic(x, x**2 + 0.1 * e)[1]
        True
    """
    K, L = _centred(_kernel(_columns(x))), _centred(_kernel(_columns(y)))
    n = len(K)
    mean = np.trace(K) * np.trace(L) / n
    variance = 2 * (K**2).sum() * (L**2).sum() / n**2
    return _gamma(float((K * L).sum()), mean, variance)


def kci(x: Any, y: Any, z: Any) -> tuple[float, float]:
    """The statistic and its p-value for x _||_ y | z.

    Args:
        x: (n,) or (n, d).
        y: (n,) or (n, e).
        z: (n,) or (n, f), with f of one or more.

    Example:
        >>> z, a, b = np.random.default_rng(0).normal(size=(3, 200))
        >>> x, y = np.tanh(z) + 0.3 * a, z**2 + 0.3 * b
        >>> hsic(x, y)[1] < 0.05 < kci(x, y, z)[1]
        True
    """
    x, y, z = _columns(x), _columns(y), _columns(z)
    spectra = [np.linalg.eigh(_centred(_kernel(z, width))) for width in _WIDTHS]
    K = _left(_centred(_kernel(np.column_stack([x, z / 2]))), x, spectra)
    L = _left(_centred(_kernel(y)), y, spectra)
    product = K * L
    return _gamma(float(product.sum()), np.trace(product), 2 * (product**2).sum())


def _left(K: Any, target: Any, spectra: list[Any]) -> Any:
    """R K R, what is left of a kernel after its regression on z.

    Width and e are those under which the target is most probable as a Gaussian process on z,
    N(0, s (K_z + e I)).
    """
    best: tuple[float, Any] = (np.inf, None)
    for values, vectors in spectra:
        power, n = (vectors.T @ (target - target.mean(0))) ** 2, len(target)
        for e in _RIDGES:
            spectrum = values.clip(0) + e
            scale = (power / spectrum[:, None]).mean(0) + _TINY
            loss = np.log(spectrum).sum() * target.shape[1] + n * np.log(scale).sum()
            if loss < best[0]:
                best = (float(loss), (vectors * (e / spectrum)) @ vectors.T)
    R = best[1]
    return R @ K @ R


def _kernel(x: Any, width: float = 1.0) -> Any:
    """exp(-|x - x'|^2 / (2 w^2)), w a multiple of the median distance of two rows."""
    squares = (x**2).sum(1)
    distance = np.maximum(squares[:, None] + squares - 2 * x @ x.T, 0)
    off = distance[np.triu_indices(len(x), 1)]
    positive = off[off > _TINY]
    if not len(positive):
        return np.ones_like(distance)
    return np.exp(-distance / (2 * width**2 * np.median(positive)))


def _centred(K: Any) -> Any:
    rows = K.mean(0)
    return K - rows - rows[:, None] + rows.mean()


def _columns(x: Any) -> Any:
    """Standardised columns of numbers, (n, d)."""
    x = np.asarray(x, dtype=float).reshape(len(x), -1)
    return (x - x.mean(0)) / np.maximum(x.std(0), _TINY)


def _gamma(statistic: float, mean: float, variance: float) -> tuple[float, float]:
    from scipy.stats import gamma

    if variance <= 0 or mean <= 0:
        return statistic, 1.0
    return statistic, float(gamma.sf(statistic, mean**2 / variance, scale=variance / mean))
