"""Sums over orders of the nodes: exact edge probabilities under an order-modular prior.

The prior weighs a graph by the number of orders of its nodes in which every cause comes before its
effects, so that p(data) = sum over orders of prod_i A_i(predecessors of i), A_i(S) being the sum of
the scores of the parent sets within S. Forward and backward sums over sets of predecessors give the
posterior of every parent set (Koivisto & Sood 2004, JMLR 5, sec. 4; Koivisto 2006), in O(n^2 2^n).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from causal.discovery.subsets import members, sets_by_size, sum_above, sum_below

__all__ = ["backward", "best_order", "forward", "parent_sets", "parent_sums"]


def parent_sums(
    sets: Int[Tensor, "n m"], scores: Float[Tensor, "n m"], *, largest: bool = False
) -> Float[Tensor, "n N"]:
    """log A_i(S): the sum, or the largest, of the scores of node i's parent sets within S.

    Args:
        sets: parent sets of each node, as bits.
        scores: their logarithmic scores.
        largest: the maximum in place of the sum.

    Returns:
        Shape (n, 2^n).
    """
    n = len(sets)
    sums = torch.full((n, 1 << n), -torch.inf, dtype=scores.dtype)
    sums.scatter_(1, sets, scores)
    return sum_below(sums, join=torch.maximum if largest else torch.logaddexp)


def forward(sums: Float[Tensor, "n N"], *, largest: bool = False) -> Float[Tensor, " N"]:
    """log f(S): sum over the orders of S, put first, of the product of their A_i."""
    n = len(sums)
    total = torch.zeros(sums.shape[1], dtype=sums.dtype)
    for sets in sets_by_size(n)[1:]:
        terms = _last(sums, total, sets, n)
        total[sets] = terms.amax(1) if largest else terms.logsumexp(1)
    return total


def backward(sums: Float[Tensor, "n N"]) -> Float[Tensor, " N"]:
    """log b(S): sum over the orders of all but S, put after S, of the product of their A_i."""
    n = len(sums)
    full = (1 << n) - 1
    total = torch.zeros(full + 1, dtype=sums.dtype)
    for sets in sets_by_size(n)[-2::-1]:
        after = members(full - sets, n)
        terms = sums[after, sets[:, None]] + total[sets[:, None] + (1 << after)]
        total[sets] = terms.logsumexp(1)
    return total


def parent_sets(
    sets: Int[Tensor, "n m"], scores: Float[Tensor, "n m"]
) -> tuple[Float[Tensor, "n m"], float]:
    """The posterior probability of every parent set, and the logarithm of the sum over all orders.

    Example:
        >>> sets = torch.tensor([[0, 2], [0, 1]])
        >>> probability, total = parent_sets(sets, torch.zeros(2, 2).double())
        >>> probability
        tensor([[0.7500, 0.2500],
                [0.7500, 0.2500]], dtype=torch.float64)
        >>> round(math.exp(total))
        4
    """
    sums = parent_sums(sets, scores)
    first, last = forward(sums), backward(sums)
    total = float(first[-1])
    found = torch.empty_like(scores)
    every = torch.arange(len(first))
    for i in range(len(sets)):
        before = every[(every >> i) % 2 == 0]
        weight = torch.full_like(first, -torch.inf)
        weight[before] = first[before] + last[before + (1 << i)]
        found[i] = (scores[i] + sum_above(weight)[sets[i]] - total).exp()
    return found, total


def best_order(sums: Float[Tensor, "n N"]) -> list[int]:
    """An order that holds the best graph, given the largest scores (Silander & Myllymaki 2006)."""
    n = len(sums)
    best = forward(sums, largest=True)
    found, left = list[int](), (1 << n) - 1
    while left:
        one = torch.tensor([left])
        nodes = members(one, n)[0]
        node = int(nodes[_last(sums, best, one, n)[0].argmax()])
        found.append(node)
        left -= 1 << node
    return found[::-1]


def _last(sums: Tensor, total: Tensor, sets: Tensor, n: int) -> Float[Tensor, "k size"]:
    """The terms of f(S), by which node of S is the last."""
    nodes = members(sets, n)
    before = sets[:, None] - (1 << nodes)
    return sums[nodes, before] + total[before]


def needed(n: int) -> float:
    """The memory that the sums need at once, in GiB: A, a copy while it is summed, and sets."""
    return (3 * n + 14) * 8 * math.ldexp(1.0, n - 30)
