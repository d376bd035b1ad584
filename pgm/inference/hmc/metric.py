"""The metric of HMC: an estimate of the posterior's covariance, from draws and from gradients.

    Sigma = s (I + U (Lambda - 1) U^T) s

For a normal target the covariance of the gradients G is the inverse of that of the draws X, so that
Sigma minimises the Fisher divergence between target and metric: on the diagonal it is
sqrt(var(X) / var(G)), and in full the geometric mean of cov(X) and cov(G)^-1, which is exact once
the draws span the space (Seyboldt, Carlson & Carpenter 2026, "Preconditioning Hamiltonian Monte
Carlo by minimizing Fisher divergence"). Directions U whose variance is near that of the diagonal
are left to it: they are mostly noise.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

CUTOFF = 1.5
"""A direction is kept if its variance is larger than this times the diagonal's, or smaller."""
MAX_DENSE = 256
"""The most coordinates whose correlations are estimated."""
_PER_COORDINATE = 5
"""Draws a coordinate that correlations take."""


@dataclass(frozen=True, eq=False)
class Metric:
    """An estimate of the covariance of the target, by which steps are scaled.

    Attributes:
        scale: s, of each coordinate.
        covariance: Sigma where it is not diagonal.
        root: its root, x = u @ root for u of covariance I.
        root_inverse: the inverse of the root.
    """

    scale: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"] | None = None
    root: Float[Tensor, "d d"] | None = None
    root_inverse: Float[Tensor, "d d"] | None = None

    def momentum(self, noise: Float[Tensor, "chains d"]) -> Float[Tensor, "chains d"]:
        """p ~ N(0, Sigma^-1), of standard normal noise."""
        return noise / self.scale if self.root_inverse is None else noise @ self.root_inverse.T

    def velocity(self, p: Float[Tensor, "chains d"]) -> Float[Tensor, "chains d"]:
        """The velocity in whitened coordinates, of covariance I."""
        return p * self.scale if self.root is None else p @ self.root.T

    def whiten(self, u: Float[Tensor, "chains d"]) -> Float[Tensor, "chains d"]:
        """The points in coordinates whose covariance is near I."""
        return u / self.scale if self.root_inverse is None else u @ self.root_inverse

    def drift(self, step_size: float) -> Tensor:
        """step_size Sigma: a vector where it is diagonal, else a matrix."""
        square = self.scale.square() if self.covariance is None else self.covariance
        return step_size * square


def estimate(
    u: Float[Tensor, "n d"], gradient: Float[Tensor, "n d"], *, dense: bool | None = None
) -> Metric:
    """The metric from points and the gradients there.

    Args:
        u: points of the chains.
        gradient: of the log density at each.
        dense: whether correlations are estimated; None where there are points enough for it.
    """
    finite = u.isfinite().all(1) & gradient.isfinite().all(1)
    u, gradient = u[finite], gradient[finite]
    n, d = u.shape
    scale = scale_of(u.var(0), gradient.var(0))
    if dense is None:
        dense = 1 < d <= MAX_DENSE and n >= _PER_COORDINATE * d
    if not dense:
        return Metric(scale)
    X, G = (u - u.mean(0)) / scale, (gradient - gradient.mean(0)) * scale
    variances, U = torch.linalg.eigh(geometric_mean(_covariance(X), _covariance(G)))
    far = (variances > CUTOFF) | (variances < 1 / CUTOFF)
    if not bool(far.any()):
        return Metric(scale)
    return _with_directions(scale, variances[far], U[:, far])


def scale_of(variance: Tensor, variance_of_gradient: Tensor) -> Float[Tensor, " d"]:
    """The scale of each coordinate, from the variances of draws and of gradients there.

    Where the gradient is flat, or the draws stand still, there is nothing to scale by.
    """
    scale = (variance / variance_of_gradient).pow(0.25)
    usable = scale.isfinite() & (scale > 0)
    return torch.where(usable, scale, torch.ones_like(scale)).clamp(1e-10, 1e10)


def geometric_mean(X: Float[Tensor, "d d"], G: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The Sigma with Sigma G Sigma = X, of two positive definite matrices.

    Example:
        >>> X = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
        >>> geometric_mean(X, X.inverse())
        tensor([[4.0, 0.0],
                [0.0, 1.0]])
    """
    root, inverse = _powers(G)
    middle, _ = _powers(root @ X @ root)
    mean: Tensor = inverse @ middle @ inverse
    return 0.5 * (mean + mean.T)


def _powers(A: Tensor) -> tuple[Tensor, Tensor]:
    """The root of a positive definite matrix and its inverse."""
    values, vectors = torch.linalg.eigh(0.5 * (A + A.T))
    values = values.clamp(min=1e-14 * float(values[-1])).sqrt()
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def _covariance(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Shrunk a little towards the identity, as if it had been seen in one more draw."""
    n, d = x.shape
    return (x.T @ x + torch.eye(d, dtype=x.dtype) * 1e-4) / n


def _with_directions(scale: Tensor, variances: Tensor, U: Tensor) -> Metric:
    eye = torch.eye(len(scale), dtype=scale.dtype)

    def power(a: float) -> Tensor:
        return eye + (U * (variances.pow(a) - 1)) @ U.T

    return Metric(
        scale,
        covariance=scale[:, None] * power(1.0) * scale,
        root=power(0.5) * scale,
        root_inverse=power(-0.5) / scale[:, None],
    )
