"""The forward recursion of a hidden Markov model, over many sequences at once, in log space.

    alpha_0(s) = pi_s b_0(s),    alpha_t(s) = b_t(s) sum_r alpha_{t-1}(r) A_rs

(Rabiner 1989, eq. 19-21); the sum of the last is p(x). Two kernels give the same number. The scan
goes step by step, at S^2 a step. The product tree multiplies the matrices A diag(b_t) pairwise, so
that T steps take log2 T passes, at S^3 a step (Sarkka & Garcia-Fernandez 2021, "Temporal
parallelization of Bayesian smoothers"): it wins where sequences are long and few. Logarithms of
zero are `FLOOR`, a finite number, so that gradients stay finite in chains with transitions that
never happen.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["FLOOR", "POSSIBLE", "Kernel", "finite_logs", "forward", "log_likelihood"]

Kernel = Literal["scan", "tree"]
"""How the recursion is computed; the number is the same."""

FLOOR = -1e30
"""Stands for log 0: far below any log-density, and finite."""

POSSIBLE = -1e29
"""Log probabilities below it are those of paths that cannot be."""

_TREE_WIDTH = 4000
_TREE_STEPS = 32
_TREE_MEMORY = 2**26


def finite_logs(logits: Float[Tensor, "*n k"]) -> Float[Tensor, "*n k"]:
    """Log probabilities from logits; those of zero are `FLOOR`.

    Example:
        >>> finite_logs(torch.tensor([0.0, -torch.inf]))
        tensor([ 0.0000e+00, -1.0000e+30])
    """
    return logits.log_softmax(-1).clamp(min=FLOOR)


def log_likelihood(
    log_pi: Float[Tensor, " S"],
    log_A: Float[Tensor, "S S"],
    log_b: Float[Tensor, "*n T S"],
    *,
    kernel: Kernel | None = None,
) -> Float[Tensor, "*n"]:
    """log p(x) of every sequence; -inf where no path of states can emit it.

    Args:
        log_pi: log probabilities of the state at step 0, which emits first.
        log_A: log probabilities of state s after state r, at [r, s].
        log_b: log density of what was seen at a step in each state; 0 where nothing was seen.
        kernel: "scan" or "tree"; by default chosen by size.

    Example:
        >>> half = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
        >>> log_likelihood(half[0], half, torch.tensor([[[-1.0, -1.0], [-2.0, -2.0]]]))
        tensor([-3.])
    """
    rows, flat = log_b.shape[:-2], log_b.reshape(-1, *log_b.shape[-2:])
    if (kernel or _chosen(*flat.shape)) == "tree":
        last = _product(log_pi, log_A, flat)
    else:
        last = forward(log_pi, log_A, flat)[-1]
    value = last.logsumexp(0)
    return torch.where(value > POSSIBLE, value, -torch.inf).reshape(rows)


def forward(
    log_pi: Float[Tensor, " S"], log_A: Float[Tensor, "S S"], log_b: Float[Tensor, "n T S"]
) -> list[Float[Tensor, "S n"]]:
    """log alpha_t of all steps; the sequences stand last, where they are contiguous."""
    b = log_b.permute(1, 2, 0).contiguous()
    alphas = [log_pi.unsqueeze(-1) + b[0]]
    if is_dense(log_A):
        A = log_A.exp().mT
        for t in range(1, len(b)):
            top = alphas[-1].detach().amax(0)
            alphas.append((A @ (alphas[-1] - top).exp()).log() + (b[t] + top))
        return alphas
    step = log_A.unsqueeze(-1)
    for t in range(1, len(b)):
        alphas.append(_log_sum(alphas[-1].unsqueeze(1) + step, 0) + b[t])
    return alphas


def is_dense(log_A: Float[Tensor, "S S"]) -> bool:
    """Whether every transition is so likely that sums may be taken of probabilities.

    A state so far below the best that its probability is lost to rounding could only matter where
    the best cannot reach what it reaches: then logarithms are added, state by state.
    """
    return bool(log_A.detach().amin() > 0.45 * math.log(torch.finfo(log_A.dtype).tiny))


def _product(
    log_pi: Float[Tensor, " S"], log_A: Float[Tensor, "S S"], log_b: Float[Tensor, "n T S"]
) -> Float[Tensor, "S n"]:
    """log alpha of the last step, by a tree of matrix products, (S, S, steps, n)."""
    b = log_b.permute(2, 1, 0).contiguous()
    multiply = _multiply_dense if is_dense(log_A) else _multiply
    product = log_A[:, :, None, None] + b[:, 1:]
    while (steps := product.shape[2]) > 1:
        even = steps // 2 * 2
        joined = multiply(product[:, :, 0:even:2], product[:, :, 1:even:2])
        product = torch.cat([joined, product[:, :, even:]], 2) if even < steps else joined
    first = log_pi.unsqueeze(-1) + b[:, 0]
    return _log_sum(first.unsqueeze(1) + product[:, :, 0], 0) if steps else first


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """log of the product of matrices that are logs."""
    return _log_sum(left.unsqueeze(2) + right.unsqueeze(0), 1)


def _multiply_dense(left: Tensor, right: Tensor) -> Tensor:
    """The same with a sum of products, whose largest are 1."""
    rows, columns = left.detach().amax(1, keepdim=True), right.detach().amax(0, keepdim=True)
    a, b = (left - rows).exp(), (right - columns).exp()
    return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1).log() + (rows + columns)


def _log_sum(logs: Tensor, dim: int) -> Tensor:
    """logsumexp of finite numbers; the largest needs no gradient, since it cancels."""
    top = logs.detach().amax(dim, keepdim=True)
    return (logs - top).exp().sum(dim).log() + top.squeeze(dim)


def _chosen(n: int, T: int, S: int) -> Kernel:
    """The tree where a step of the scan is too small to be worth its calls."""
    small = n * S**3 <= _TREE_WIDTH * (1 - 3 * math.log2(T + 1) / (T + 1))
    fits = n * T * S**3 <= _TREE_MEMORY
    return "tree" if small and fits and T >= _TREE_STEPS else "scan"
