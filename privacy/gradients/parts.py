"""What one parameter gets from each row, kept in factors as long as that is cheaper.

A layer y_t = W a_t + b that is called at t = 1..T within a row gives it the gradient
G = sum_t g_t a_t^T, g_t the gradient at y_t. Its norm needs no G: for T = 1 it is |a| |g|
(Goodfellow 2015), else ||G||^2 = sum_{t,s} (a_t . a_s)(g_t . g_s) (Lee & Kifer 2021, sec. 5; Li et
al. 2022, eq. 6). The weighted sum over rows is one matrix product over rows and calls, of the same
factors (Bu et al. 2022's book-keeping). So what is summed is what was measured, and no second pass
backwards is needed.

The norm by pairs is exact up to rounding in sum_t |a_t| |g_t|, which can be far above ||G|| where
the calls cancel. A norm must not come out too small, so that much is added to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from privacy.gradients.rows import keep_rows, norms_of

_ROUNDING = 4.0
"""Times eps: what is added to a squared norm, in units of (sum_t |a_t| |g_t|)^2."""
_NUMBERS_AT_ONCE = 2**23


@runtime_checkable
class Part(Protocol):
    """The gradients of one parameter by row."""

    def norms(self) -> Float[Tensor, " n"]:
        """The norm of each row's gradient, never too small."""

    def weighted(self, c: Float[Tensor, " n"]) -> Tensor:
        """sum_i c_i g_i, in the parameter's shape."""

    def by_row(self) -> Float[Tensor, "n *parameter"]:
        """The gradients themselves."""

    def kept(self, rows: Bool[Tensor, " n"]) -> "Part":
        """With zeros in the other rows."""


@dataclass(frozen=True)
class Whole:
    """Gradients as they are.

    Attributes:
        g: shape (n, *parameter).
    """

    g: Float[Tensor, "n *parameter"]

    def norms(self) -> Tensor:
        """The norm of each row."""
        return norms_of(self.g)

    def weighted(self, c: Tensor) -> Tensor:
        """sum_i c_i g_i."""
        return torch.einsum("i,i...", c, self.g)

    def by_row(self) -> Tensor:
        """G."""
        return self.g

    def kept(self, rows: Tensor) -> "Whole":
        """With zeros in the other rows."""
        return Whole(keep_rows(self.g, rows))


@dataclass(frozen=True)
class Outer:
    """G = mask * sum_t g_t a_t^T of each row, as its factors.

    Attributes:
        a: inputs of the layer.
        g: gradients at its outputs.
        shape: of the parameter; the number of outputs comes first.
        mask: constant that the weight is multiplied with; None for ones.
    """

    a: Float[Tensor, "n t inputs"]
    g: Float[Tensor, "n t outputs"]
    shape: tuple[int, ...]
    mask: Float[Tensor, "outputs inputs"] | None = None

    def norms(self) -> Tensor:
        """By the cheaper of the two ways."""
        if self.a.shape[1] == 1:
            return self._single()
        T, inputs, outputs = self.a.shape[1], self.a.shape[2], self.g.shape[2]
        by_pairs = self.mask is None and T * (inputs + outputs) < inputs * outputs
        squared = self._by_pairs() if by_pairs else self._by_pieces()
        terms = (_norm(self.a) * _norm(self.g)).sum(1)
        return (squared + _ROUNDING * torch.finfo(terms.dtype).eps * terms.square()).sqrt()

    def _single(self) -> Tensor:
        a, g = self.a[:, 0], self.g[:, 0]
        if self.mask is None:
            return _norm(a) * _norm(g)
        return ((g.square() @ self.mask.square()) * a.square()).sum(1).sqrt()

    def _by_pairs(self) -> Tensor:
        return ((self.a @ self.a.mT) * (self.g @ self.g.mT)).sum((1, 2)).clamp(min=0)

    def _by_pieces(self) -> Tensor:
        rows = max(1, _NUMBERS_AT_ONCE // math.prod(self.shape))
        pieces = zip(self.a.split(rows), self.g.split(rows), strict=True)
        return torch.cat([norms_of(self._outer(a, g)).square() for a, g in pieces])

    def _outer(self, a: Tensor, g: Tensor) -> Tensor:
        G = g.mT @ a
        return G if self.mask is None else G * self.mask

    def weighted(self, c: Tensor) -> Tensor:
        """One matrix product; the smaller factor is the one that is scaled."""
        a, g = self.a, self.g
        if a.shape[2] < g.shape[2]:
            a = a * c[:, None, None]
        else:
            g = g * c[:, None, None]
        return self._outer(a.flatten(0, 1), g.flatten(0, 1)).reshape(self.shape)

    def by_row(self) -> Tensor:
        """G."""
        return self._outer(self.a, self.g).reshape(-1, *self.shape)

    def kept(self, rows: Tensor) -> "Outer":
        """With zeros in the other rows."""
        return Outer(keep_rows(self.a, rows), keep_rows(self.g, rows), self.shape, self.mask)


@dataclass(frozen=True)
class Lookup:
    """The gradient of a table of embeddings: g_t lands in line k_t.

    Attributes:
        k: which line was looked up.
        g: gradients at the outputs.
        lines: of the table.
    """

    k: Int[Tensor, "n t"]
    g: Float[Tensor, "n t d"]
    lines: int

    def norms(self) -> Tensor:
        """||G||^2 = sum over pairs of calls that looked up the same line of g_t . g_s."""
        same = (self.k[:, :, None] == self.k[:, None, :]).to(self.g.dtype)
        squared = ((self.g @ self.g.mT) * same).sum((1, 2)).clamp(min=0)
        terms = _norm(self.g).sum(1)
        return (squared + _ROUNDING * torch.finfo(terms.dtype).eps * terms.square()).sqrt()

    def weighted(self, c: Tensor) -> Tensor:
        """Added up line by line."""
        g = (self.g * c[:, None, None]).flatten(0, 1)
        table = g.new_zeros(self.lines, g.shape[-1])
        return table.index_add(0, self.k.flatten(), g)

    def by_row(self) -> Tensor:
        """G."""
        at = torch.nn.functional.one_hot(self.k, self.lines).to(self.g.dtype)
        return at.mT @ self.g

    def kept(self, rows: Tensor) -> "Lookup":
        """With zeros in the other rows."""
        return Lookup(self.k, keep_rows(self.g, rows), self.lines)


def join(parts: Sequence[Part]) -> Part:
    """What several calls give to the same parameter together: their sum, row by row."""
    first = parts[0]
    if len(parts) == 1:
        return first
    outer = [part for part in parts if isinstance(part, Outer)]
    if len(outer) == len(parts) and all(part.mask is outer[0].mask for part in outer):
        a, g = torch.cat([p.a for p in outer], 1), torch.cat([p.g for p in outer], 1)
        return Outer(a, g, outer[0].shape, outer[0].mask)
    looked_up = [part for part in parts if isinstance(part, Lookup)]
    if len(looked_up) == len(parts):
        k, g = torch.cat([p.k for p in looked_up], 1), torch.cat([p.g for p in looked_up], 1)
        return Lookup(k, g, looked_up[0].lines)
    return Whole(torch.stack([part.by_row() for part in parts]).sum(0))


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1)
