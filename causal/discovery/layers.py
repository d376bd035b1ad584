"""Exact draws of acyclic graphs under a uniform prior, by layers (Talvitie et al. 2019, UAI).

Every acyclic graph falls into layers in one way: the nodes without parents; then, again and again,
those whose parents have all been placed, one of them in the layer before. With S the nodes placed
and R those of the last layer, D_i(S, R) is the sum of the scores of parent sets within S that meet
R, and the weight of all ways to go on is

    B(S, R) = sum over T <= V - S, T not empty, of B(S + T, T) prod_{i in T} D_i(S, R),

a sum without signs. It has 4^n terms; the layers are then drawn from the first to the last, and
parent sets given the layers.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from causal.discovery.subsets import (
    bits,
    log_difference,
    members,
    products,
    sets_by_size,
    subsets,
)

_CELLS = 2**21
"""Terms that are summed at a time."""

MOST = 13
"""Nodes above which 4^n terms take minutes."""


def completions(sums: Float[Tensor, "n N"]) -> Float[Tensor, " M"]:
    """log B(S, R) at index ternary(S) + ternary(R), for R <= S; 3^n numbers."""
    n = len(sums)
    full, place = (1 << n) - 1, ternary(n)
    found = torch.full((3**n,), -torch.inf, dtype=sums.dtype)
    found[place[full] + place] = 0.0
    for sets in sets_by_size(n)[-2:0:-1]:
        for part in sets.split(max(1, _CELLS >> n)):
            nodes = members(full - part, n)
            after = subsets(nodes)[:, 1:]
            then = found[place[part][:, None] + 2 * place[after]]
            last = subsets(members(part, n))
            own = joins(sums, nodes, part, last)
            terms = products(own)[..., 1:] + then[:, None, :]
            found[place[part][:, None] + place[last]] = terms.logsumexp(-1)
    return found


def joins(
    sums: Tensor, nodes: Int[Tensor, "k m"], placed: Int[Tensor, " k"], last: Int[Tensor, "k L"]
) -> Float[Tensor, "k L m"]:
    """log D_i(S, R) of nodes, given what is placed and several choices of the last layer."""
    own = sums[nodes, placed[:, None]][:, None, :]
    without = sums[nodes[:, None, :], (placed[:, None] - last)[..., None]]
    return log_difference(own.expand_as(without), without)


def draw_layers(
    sums: Float[Tensor, "n N"], draws: int, generator: torch.Generator
) -> tuple[Int[Tensor, "draws n"], Int[Tensor, "draws n"]]:
    """For each draw and node, what was placed before it, and the last layer of that.

    Args:
        sums: log A_i(S), see `causal.discovery.orders.parent_sums`.
        draws: how many.
        generator: of the random numbers.
    """
    n = len(sums)
    full, place, weights = (1 << n) - 1, ternary(n), completions(sums)
    placed, last = (torch.zeros(draws, dtype=torch.long) for _ in range(2))
    before, final = (torch.zeros(draws, n, dtype=torch.long) for _ in range(2))
    while bool((placed != full).any()):
        states = torch.stack([placed, last], 1)
        for state in states[placed != full].unique(dim=0):
            rows = (states == state).all(1).nonzero()[:, 0]
            now = state[None]
            nodes = members(full - now[:, 0], n)
            after = subsets(nodes)[0, 1:]
            if int(state[0]):
                own = joins(sums, nodes, now[:, 0], now[:, 1:])[0, 0]
            else:
                own = sums[nodes[0], 0]
            logits = products(own)[1:] + weights[place[state[0]] + 2 * place[after]]
            chosen = after[_categorical(logits, len(rows), generator)]
            mine = bits(chosen, n)
            before[rows] = torch.where(mine, state[0], before[rows])
            final[rows] = torch.where(mine, state[1], final[rows])
            placed[rows], last[rows] = placed[rows] + chosen, chosen
    return before, final


def draw_parents(
    sets: Int[Tensor, "n m"],
    scores: Float[Tensor, "n m"],
    before: Int[Tensor, "draws n"],
    last: Int[Tensor, "draws n"],
    generator: torch.Generator,
) -> Int[Tensor, "draws n"]:
    """Parent sets within `before` that meet `last`, if there is a last layer, by their scores."""
    found = torch.zeros_like(before)
    for i in range(len(sets)):
        states = torch.stack([before[:, i], last[:, i]], 1)
        for state in states.unique(dim=0):
            rows = (states == state).all(1).nonzero()[:, 0]
            fits = (sets[i] & ~state[0]) == 0
            if int(state[1]):
                fits &= (sets[i] & state[1]) != 0
            options = sets[i][fits]
            found[rows, i] = options[_categorical(scores[i][fits], len(rows), generator)]
    return found


def ternary(n: int) -> Int[Tensor, " N"]:
    """sum of 3^i over the members of every subset, so that a pair R <= S has an index of its own.

    Example:
        >>> ternary(2)
        tensor([0, 1, 3, 4])
    """
    return subsets(torch.arange(n)[None])[0].new_tensor(
        [sum(3**i for i in range(n) if s >> i & 1) for s in range(1 << n)]
    )


def _categorical(logits: Tensor, draws: int, generator: torch.Generator) -> Int[Tensor, " draws"]:
    probs = (logits - logits.max()).exp().cumsum(0)
    u = torch.rand(draws, generator=generator, dtype=probs.dtype) * probs[-1]
    return torch.searchsorted(probs, u, right=True).clamp(max=len(probs) - 1)


def needed(n: int) -> float:
    """The memory that the sums need at once, in GiB."""
    return (2 * 3**n + 6 * max(_CELLS, 2**n) * n) * 8 * 2.0**-30
