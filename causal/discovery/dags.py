"""Sums over acyclic graphs: exact edge and ancestor probabilities under a uniform prior.

Sums over sets of nodes by inclusion and exclusion (Robinson 1973; Tian & He 2009, UAI). With A_i(S)
the sum of the scores of node i's parent sets within S, T nodes that are surely sinks of S or surely
sources after Q, and |T| their number,

    G(S) = sum over T <= S, T not empty, of (-1)^(|T|+1) G(S - T) prod_{i in T} A_i(S - T)
    K(Q) = sum over T <= V - Q, T not empty, of (-1)^(|T|+1) K(Q + T) prod_{i in T} A_i(Q)
    k_i(Q) = sum over T <= V - Q - i of (-1)^|T| K(Q + i + T) prod_{j in T} A_j(Q)

are the weights of the graphs on S, of the ways to complete Q, and of those in which all others are
descendants of i. So A_i(Q) G(Q) k_i(Q) / G(V) is the probability that Q are the nodes that do not
descend from i: sums of it are the posteriors of parent sets and of ancestors. O(n 3^n).
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from causal.discovery.orders import parent_sums
from causal.discovery.subsets import (
    bits,
    members,
    products,
    sets_by_size,
    signed_logsumexp,
    signs,
    subsets,
    sum_above,
)

_CELLS = 2**21
"""Terms that are summed at a time."""

_TOLERANCE = 1e-6
"""How far from one the probabilities of a node's parent sets may add up."""


def parent_sets(
    sets: Int[Tensor, "n m"], scores: Float[Tensor, "n m"]
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n n"], float]:
    """Posterior probabilities of parent sets and of ancestors, and log of the sum over all graphs.

    Args:
        sets: parent sets of each node, as bits.
        scores: their logarithmic scores.

    Returns:
        Probabilities of the parent sets, (n, m); of i being an ancestor of j, (n, n); log G(V).

    Raises:
        ArithmeticError: the signed sums lost too many digits, which the probabilities of a node's
            parent sets tell by not adding up to one.

    Example:
        >>> sets = torch.tensor([[0, 2], [0, 1]])
        >>> probability, ancestors, total = parent_sets(sets, torch.zeros(2, 2).double())
        >>> probability
        tensor([[0.6667, 0.3333],
                [0.6667, 0.3333]], dtype=torch.float64)
        >>> round(math.exp(total))
        3
    """
    n = len(sets)
    sums = parent_sums(sets, scores)
    graphs = weigh(sums)
    total, every = float(graphs[-1]), torch.arange(1 << n)
    found, ancestors = torch.empty_like(scores), torch.zeros(n, n, dtype=scores.dtype)
    for i, others in enumerate(_others_descend(sums)):
        weight = graphs + others - total
        found[i] = (scores[i] + sum_above(weight)[sets[i]]).exp()
        apart = (weight + sums[i]).exp()
        outside = ~bits(every, n)
        outside[:, i] = False
        ancestors[i] = apart @ outside.to(apart.dtype)
    if (error := float((found.sum(1) - 1).abs().max())) > _TOLERANCE:
        raise ArithmeticError(
            f"Sums with signs lost their digits: the parent sets of a node have probability 1 "
            f"{'+' if error > 0 else '-'} {abs(error):.1g}. Use prior='order', whose sums have no "
            "signs, or method='mcmc'."
        )
    return found, ancestors, total


def weigh(sums: Float[Tensor, "n N"]) -> Float[Tensor, " N"]:
    """log G(S), the weight of all acyclic graphs on the nodes S, for every S."""
    n = len(sums)
    graphs = torch.zeros(1 << n, dtype=sums.dtype)
    for size, sets in enumerate(sets_by_size(n)[1:], start=1):
        sign = -signs(size)[1:]
        for part in _parts(sets, size):
            sinks = subsets(members(part, n))[:, 1:]
            rest = part[:, None] - sinks
            terms = graphs[rest]
            for node in range(n):
                terms = terms + torch.where((sinks >> node) % 2 == 1, sums[node, rest], 0.0)
            graphs[part] = signed_logsumexp(terms, sign)
    return graphs


def _others_descend(sums: Float[Tensor, "n N"]) -> Float[Tensor, "n N"]:
    """log k_i(Q), the weight of what completes Q and i so that all others descend from i."""
    n = len(sums)
    full = (1 << n) - 1
    complete = torch.zeros(1 << n, dtype=sums.dtype)
    found = torch.full_like(sums, -torch.inf)
    for sets in sets_by_size(n)[-2::-1]:
        size = n - int(bits(sets[:1], n).sum())
        sign = -signs(size)
        for part in _parts(sets, size):
            nodes = members(full - part, n)
            own = sums[nodes, part[:, None]]
            after, logs = complete[part[:, None] + subsets(nodes)], products(own)
            complete[part] = signed_logsumexp((after + logs)[:, 1:], sign[1:])
            for p in range(size):
                with_p = (torch.arange(1 << size) >> p) % 2 == 1
                rest = products(torch.cat([own[:, :p], own[:, p + 1 :]], 1))
                found[nodes[:, p], part] = signed_logsumexp(
                    after[:, with_p] + rest, signs(size - 1)
                )
    return found


def _parts(sets: Int[Tensor, " k"], size: int) -> Iterator[Int[Tensor, " part"]]:
    """The sets in parts that fit memory with all their subsets."""
    yield from sets.split(max(1, _CELLS >> size))


def needed(n: int) -> float:
    """The memory that the sums need at once, in GiB."""
    return (3.5 * n + 12) * 8 * math.ldexp(1.0, n - 30) + 12 * 8 * _CELLS * 2.0**-30
