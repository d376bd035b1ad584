"""Normals whose covariance is a diagonal plus a low rank, many at once.

    H = diag(alpha) + beta gamma beta^T,  beta = [alpha Y, S],
    gamma = [[0, -R^-1], [-R^-T, R^-T (D + Y^T alpha Y) R^-1]]

the inverse Hessian that L-BFGS keeps, from its last steps S and changes of the negative gradient Y,
with R the upper triangle of S^T Y and D its diagonal (Byrd, Nocedal & Schnabel 1994, eq. 2.6;
Zhang, Carpenter, Gelman & Vehtari 2022, Alg. 4).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRankNormal:
    """Normals, one a path, over d coordinates.

    Attributes:
        mean: their means.
        alpha: the diagonal parts of their covariances.
        basis: orthonormal columns Q, in the coordinates divided by sqrt(alpha).
        factor: Cholesky factor of the covariance inside the span of Q.
    """

    mean: Float[Tensor, "paths d"]
    alpha: Float[Tensor, "paths d"]
    basis: Float[Tensor, "paths d r"]
    factor: Float[Tensor, "paths r r"]

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, "n paths d"]:
        """Draws of every path."""
        noise = torch.randn(n, *self.mean.shape, generator=generator, dtype=self.mean.dtype)
        inside = torch.einsum("pdr,npd->npr", self.basis, noise)
        moved = torch.einsum("prs,nps->npr", self.factor, inside) - inside
        noise = noise + torch.einsum("pdr,npr->npd", self.basis, moved)
        return self.mean + self.alpha.sqrt() * noise

    def log_prob(self, u: Float[Tensor, "*n paths d"]) -> Float[Tensor, "*n paths"]:
        """The log density of each path's normal at a point for it, in nats."""
        z = (u - self.mean) / self.alpha.sqrt()
        inside = torch.einsum("pdr,...pd->...pr", self.basis, z)
        solved = torch.linalg.solve_triangular(self.factor, inside.unsqueeze(-1), upper=False)
        square = z.square().sum(-1) - inside.square().sum(-1) + solved.square().sum((-2, -1))
        log_det = 0.5 * self.alpha.log().sum(-1) + self.factor.diagonal(0, -2, -1).log().sum(-1)
        return -0.5 * square - log_det - 0.5 * u.shape[-1] * math.log(2 * math.pi)

    def mixture_log_prob(self, u: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The log density of the mixture of all paths, with equal weights."""
        each = self.log_prob(u.unsqueeze(1).expand(-1, len(self.mean), -1))
        mixture: Tensor = each.logsumexp(-1) - math.log(len(self.mean))
        return mixture

    def where(self, chosen: Tensor, other: "LowRankNormal") -> "LowRankNormal":
        """These normals for the chosen paths, the other ones for the rest."""
        wide, square = chosen[:, None], chosen[:, None, None]
        return LowRankNormal(
            torch.where(wide, self.mean, other.mean),
            torch.where(wide, self.alpha, other.alpha),
            torch.where(square, self.basis, other.basis),
            torch.where(square, self.factor, other.factor),
        )


@dataclass(frozen=True, eq=False)
class InverseHessian:
    """What L-BFGS knows of minus the Hessian's inverse along each path.

    Attributes:
        alpha: the diagonal it starts from.
        steps: the last moves S, the newest last; zero where there was none yet.
        changes: the changes Y of minus the gradient along them.
    """

    alpha: Float[Tensor, "paths d"]
    steps: Float[Tensor, "paths memory d"]
    changes: Float[Tensor, "paths memory d"]

    @classmethod
    def start(cls, paths: int, d: int, memory: int) -> "InverseHessian":
        """The identity."""
        none = torch.zeros(paths, memory, d, dtype=torch.float64)
        return cls(torch.ones(paths, d, dtype=torch.float64), none, none)

    def update(self, s: Tensor, y: Tensor) -> "InverseHessian":
        """Learns from a move s and the change y, along the paths where the density is concave."""
        sy = (s * y).sum(1)
        useful = sy > 1e-12 * y.square().sum(1)
        a, b = (y.square() * self.alpha).sum(1), torch.where(useful, sy, 1.0)
        c = (s.square() / self.alpha).sum(1)
        a, b, c = a[:, None], b[:, None], torch.where(useful, c, 1.0)[:, None]
        precision = a / (b * self.alpha) + y.square() / b
        precision = precision - a * s.square() / (b * c * self.alpha.square())
        keep = useful[:, None] & precision.isfinite() & (precision > 0)
        alpha = torch.where(keep, 1 / precision, self.alpha)
        wide = useful[:, None, None]
        moved = (torch.cat([old[:, 1:], new[:, None]], 1) for old, new in self._with(s, y))
        steps, changes = (
            torch.where(wide, new, old)
            for new, old in zip(moved, (self.steps, self.changes), strict=True)
        )
        return InverseHessian(alpha, steps, changes)

    def _with(self, s: Tensor, y: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        return ((self.steps, s), (self.changes, y))

    def _parts(self) -> tuple[Tensor, Tensor]:
        """beta and gamma."""
        S, Y = self.steps, self.changes
        inner = S @ Y.mT
        R = inner.triu()
        empty = (inner.diagonal(0, 1, 2) == 0).to(R.dtype)
        R = R + torch.diag_embed(empty)
        D = torch.diag_embed(R.diagonal(0, 1, 2))
        eye = torch.eye(R.shape[1], dtype=R.dtype).expand_as(R)
        R_inverse = torch.linalg.solve_triangular(R, eye, upper=True)
        core = D + (Y * self.alpha[:, None]) @ Y.mT
        lower = R_inverse.mT @ core @ R_inverse
        gamma = torch.cat(
            [
                torch.cat([torch.zeros_like(R), -R_inverse], 2),
                torch.cat([-R_inverse.mT, lower], 2),
            ],
            1,
        )
        beta = torch.cat([self.alpha[:, None] * Y, S], 1).mT
        return beta, gamma

    def times(self, gradient: Float[Tensor, "paths d"]) -> Float[Tensor, "paths d"]:
        """H g."""
        beta, gamma = self._parts()
        inner = beta.mT @ gradient[:, :, None]
        return self.alpha * gradient + (beta @ (gamma @ inner)).squeeze(2)

    def normal(self, u: Tensor, gradient: Tensor) -> LowRankNormal:
        """N(u + H g, H) of each path."""
        beta, gamma = self._parts()
        Q, R = torch.linalg.qr(beta / self.alpha.sqrt()[:, :, None])
        inside = R @ gamma @ R.mT
        inside = 0.5 * (inside + inside.mT) + torch.eye(Q.shape[2], dtype=Q.dtype)
        factor, failed = torch.linalg.cholesky_ex(inside)
        factor = torch.where((failed > 0)[:, None, None], torch.nan, factor)
        return LowRankNormal(u + self.times(gradient), self.alpha, Q, factor)
