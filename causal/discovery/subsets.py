"""Sums over subsets: sets of nodes as bits of an integer, levels of one size, sums in log space.

A function on the subsets of n nodes is a tensor of 2^n numbers; bit i of an index says whether node
i is in. The zeta transform turns a function into its sums over all subsets, or over all supersets,
in n passes (Yates 1937; Kennes & Smets 1990).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Join = Callable[[Tensor, Tensor], Tensor]


def sum_below(values: Float[Tensor, "*b N"], *, join: Join = torch.logaddexp) -> Tensor:
    """log sum over U <= S of exp(values[U]), for every S; N = 2^n.

    Args:
        values: logarithms, of one function or several; they are not changed.
        join: how two are joined; `torch.maximum` gives the largest instead of the sum.

    Example:
        >>> sum_below(torch.tensor([1.0, 2.0, 4.0, 8.0]).log()).exp()
        tensor([ 1.0000,  3.0000,  5.0000, 15.0000])
    """
    return _zeta(values, 1, join)


def sum_above(values: Float[Tensor, "*b N"]) -> Tensor:
    """log sum over S >= U of exp(values[S]), for every U.

    Example:
        >>> sum_above(torch.tensor([1.0, 2.0, 4.0, 8.0]).log()).exp()
        tensor([15.0000, 10.0000, 12.0000,  8.0000])
    """
    return _zeta(values, 0, torch.logaddexp)


def _zeta(values: Tensor, into: int, join: Join) -> Tensor:
    total = values.clone()
    size = total.shape[-1]
    for bit in range(size.bit_length() - 1):
        halves = total.view(*total.shape[:-1], size >> (bit + 1), 2, 1 << bit)
        halves[..., into, :] = join(halves[..., 0, :], halves[..., 1, :])
    return total


def sets_by_size(n: int) -> list[Int[Tensor, " k"]]:
    """The subsets of n nodes, those of one size together, in rising order.

    Example:
        >>> [sets.tolist() for sets in sets_by_size(2)]
        [[0], [1, 2], [3]]
    """
    sets = torch.arange(1 << n)
    sizes = bits(sets, n).sum(-1)
    return [sets[sizes == size] for size in range(n + 1)]


def bits(sets: Int[Tensor, "*b"], n: int) -> Tensor:
    """Whether each node is in, shape (*b, n).

    Example:
        >>> bits(torch.tensor([5]), 3)
        tensor([[ True, False,  True]])
    """
    return (sets.unsqueeze(-1) >> torch.arange(n)) % 2 == 1


def members(sets: Int[Tensor, " k"], n: int) -> Int[Tensor, "k size"]:
    """The nodes of sets of one size, in rising order.

    Example:
        >>> members(torch.tensor([3, 5]), 3)
        tensor([[0, 1],
                [0, 2]])
    """
    return bits(sets, n).nonzero()[:, 1].reshape(len(sets), -1)


def subsets(nodes: Int[Tensor, "k size"]) -> Int[Tensor, "k N"]:
    """All subsets of each row of nodes; bit p of the column says whether the p-th node is in.

    Example:
        >>> subsets(torch.tensor([[0, 2]]))
        tensor([[0, 1, 4, 5]])
    """
    found = torch.zeros(len(nodes), 1, dtype=torch.long)
    for node in nodes.T:
        found = torch.cat([found, found + (1 << node)[:, None]], 1)
    return found


def products(values: Float[Tensor, "*b size"]) -> Float[Tensor, "*b N"]:
    """Sums of logarithms over each subset of the last axis, in the order of `subsets`.

    Example:
        >>> products(torch.tensor([1.0, 10.0]))
        tensor([ 0.,  1., 10., 11.])
    """
    total = values.new_zeros(*values.shape[:-1], 1)
    for value in values.unbind(-1):
        total = torch.cat([total, total + value.unsqueeze(-1)], -1)
    return total


def signs(size: int) -> Float[Tensor, " N"]:
    """+1 for subsets with an even number of members and -1 for the others, as `subsets` lists them.

    Example:
        >>> signs(2)
        tensor([ 1., -1., -1.,  1.], dtype=torch.float64)
    """
    sign = torch.ones(1, dtype=torch.float64)
    for _ in range(size):
        sign = torch.cat([sign, -sign])
    return sign


def signed_logsumexp(values: Float[Tensor, "*b N"], sign: Float[Tensor, " N"]) -> Tensor:
    """log of sum sign * exp(values), of a sum that is not negative; what rounding leaves is zero.

    Example:
        >>> signed_logsumexp(torch.tensor([5.0, 3.0]).log(), torch.tensor([1.0, -1.0])).exp()
        tensor(2.0000)
    """
    top = values.amax(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).min)
    total = (sign * (values - top).exp()).sum(-1)
    return total.clamp(min=0.0).log() + top.squeeze(-1)


def log_difference(a: Float[Tensor, "*b"], b: Float[Tensor, "*b"]) -> Tensor:
    """log(exp(a) - exp(b)) for a >= b (Maechler 2012); -inf where they are equal.

    Example:
        >>> log_difference(torch.tensor(5.0).log(), torch.tensor(3.0).log()).exp()
        tensor(2.0000)
    """
    gap = torch.where(a > -torch.inf, b - a, 0.0).clamp(max=0.0)
    near = (-torch.expm1(gap)).log()
    far = torch.log1p(-gap.exp())
    return a + torch.where(gap > -math.log(2), near, far)
