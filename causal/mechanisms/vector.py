"""Vectors with a linear mean: x ~ N(b + W pa, L L'), L lower triangular.

The estimate is weighted least squares, component by component, and the covariance of the residuals,
which maximise the likelihood (Anderson 2003, thm. 8.2.1).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from pyro.distributions import MultivariateNormal
from torch import Tensor, nn

from causal.mechanisms.kind import Kind
from causal.mechanisms.linear import least_squares
from causal.mechanisms.mechanism import Inputs, Mechanism, Values, refuse_kind
from causal.mechanisms.predictor import blocks_of, columns, design, vectors_of, zeros


class LinearVector(Mechanism):
    """x = b + sum_p W_p x_p + L u, a vector of d numbers.

    Args:
        coefficients: by parent: d numbers for a parent that is a number, one list of d numbers a
            level, or a component of a vector.
        intercept: b, d numbers.
        cholesky: L, d rows of d numbers, zero above the diagonal and positive on it; None for I.
        vectors: the parents that are vectors.

    Raises:
        ValueError: fewer than two components, or a matrix that is no Cholesky factor.

    Example:
        >>> place = LinearVector({"a": [1.0, -1.0]}, intercept=[0.0, 0.0])
        >>> place.dist({"a": torch.tensor([2.0])}).mean
        tensor([[ 2., -2.]], grad_fn=<ExpandBackward0>)
    """

    def __init__(
        self,
        coefficients: Mapping[str, Any] | None = None,
        *,
        intercept: Sequence[float],
        cholesky: Sequence[Sequence[float]] | None = None,
        vectors: Sequence[str] = (),
    ) -> None:
        super().__init__()
        d = len(intercept)
        if d < 2:
            raise ValueError(f"A vector of {d} numbers came; for a number use LinearGaussian.")
        self.kind = Kind(size=d)
        self.inputs, blocks = blocks_of(coefficients, d, vectors)
        weight = torch.cat([torch.zeros(0, d), *blocks.values()])
        L = torch.eye(d) if cholesky is None else torch.tensor(cholesky)
        if L.shape != (d, d) or bool((L.triu(1) != 0).any()) or bool((L.diagonal() <= 0).any()):
            raise ValueError(
                f"cholesky has {tuple(L.shape)} entries; it is a {d} by {d} matrix, zero above the "
                "diagonal and positive on it: torch.linalg.cholesky(covariance)."
            )
        self.weight = nn.Parameter(weight, requires_grad=bool(blocks))
        self.intercept = nn.Parameter(torch.tensor([float(b) for b in intercept]))
        self.log_diagonal = nn.Parameter(L.diagonal().log())
        self.below = nn.Parameter(L[tuple(torch.tril_indices(d, d, -1))])

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "LinearVector":
        """The standard normal, whatever the parents."""
        if kind.size is None:
            refuse_kind(cls, kind, "a vector", "an instance, which says how many numbers it has")
        d = kind.size or 0
        b = [0.0] * d
        return cls(zeros(inputs, d), intercept=b, vectors=vectors_of(inputs), **options)

    @classmethod
    def example(cls) -> "LinearVector":
        """Two numbers, of a number, levels and a vector."""
        coefficients = {
            "a": [1.0, -0.5],
            "t": [[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]],
            "v": [[0.3, 0.0], [0.0, 0.3]],
        }
        L = [[1.0, 0.0], [0.5, 0.8]]
        return cls(coefficients, intercept=[0.0, 1.0], cholesky=L, vectors=["v"])

    @property
    def cholesky(self) -> Float[Tensor, "d d"]:
        """L."""
        d = len(self.intercept)
        i, j = torch.tril_indices(d, d, -1)
        L = torch.diag_embed(self.log_diagonal.exp())
        return L.index_put((i, j), self.below)

    def mean(self, parents: Values) -> Float[Tensor, "*n d"]:
        """b + sum_p W_p x_p."""
        if not self.inputs:
            return self.intercept
        return self.intercept + columns(self.inputs, parents, self.weight.dtype) @ self.weight

    def dist(self, parents: Values) -> Any:
        """N(b + sum_p W_p x_p, L L')."""
        return MultivariateNormal(self.mean(parents), scale_tril=self.cholesky)

    def push(self, parents: Values, u: Any, *, coupling: str | None = None) -> Tensor:
        """b + sum_p W_p x_p + L u."""
        x: Tensor = self.mean(parents) + u @ self.cholesky.mT
        return x

    def pull(self, parents: Values, x: Tensor, *, coupling: str | None = None) -> Tensor:
        """L^-1 (x - b - sum_p W_p x_p)."""
        centred = (x - self.mean(parents))[..., None]
        return torch.linalg.solve_triangular(self.cholesky, centred, upper=False)[..., 0]

    def estimate(
        self, x: Float[Tensor, "n d"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Weighted least squares, and the covariance of the residuals."""
        w = weight.double()
        X = design(self.inputs, parents, x[:, 0])
        B = least_squares(X, x.double(), w, self.inputs, parents)
        residual = x.double() - X @ B
        covariance = residual.mT @ (w[:, None] * residual) / w.sum()
        L, failed = torch.linalg.cholesky_ex(covariance)
        variance = covariance.diagonal()
        if int(failed) or bool((L.diagonal().square() <= 1e-12 * variance).any()):
            raise ValueError(
                "The residuals of the components are linearly dependent, so that the vector has no "
                "density. Drop a component that follows from the others."
            )
        with torch.no_grad():
            self.intercept.copy_(B[0])
            self.weight.copy_(B[1:])
            self.log_diagonal.copy_(L.diagonal().log())
            self.below.copy_(L[tuple(torch.tril_indices(len(L), len(L), -1))])

    def extra_repr(self) -> str:
        """What it is linear in."""
        return f"{len(self.intercept)} numbers | linear in {', '.join(self.inputs) or 'nothing'}"
