"""Sums discrete latent sites out of a joint density by variable elimination, in log space.

Every enumerated site owns a tensor dimension left of the plates; every factor of the joint is a
log tensor that broadcasts over those dimensions. One dimension after the other is eliminated: the
factors that have it are added, and log-sum-exp removes it (Koller & Friedman 2009, Alg. 9.1). A
dimension that belongs to a plate inside the rows is eliminated before that plate is summed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Factor(NamedTuple):
    """A log tensor of the joint, and the plate dimensions inside the rows that it varies over."""

    log_value: Tensor
    plates: frozenset[int] = frozenset()


def sum_product(
    factors: Sequence[Factor], variables: dict[int, frozenset[int]]
) -> Float[Tensor, " n"]:
    """log of the sum over all enumerated variables of the product of the factors, per row.

    Args:
        factors: log tensors whose last dimension is the row.
        variables: enumerated dimension (negative) -> the inner plates its site stands in.

    Returns:
        The log of the sum, in nats, shape (n,).

    Example:
        >>> prior = torch.tensor([0.25, 0.75]).log().reshape(2, 1)
        >>> likelihood = torch.tensor([[0.5, 0.1], [0.5, 0.3]]).log()
        >>> sum_product([Factor(prior), Factor(likelihood)], {-2: frozenset()}).exp()
        tensor([0.5000, 0.2500])
    """
    pending = dict(variables)
    groups = sorted({f.plates for f in factors}, key=len, reverse=True)
    current = list(factors)
    for plates in [g for g in groups if g] + [frozenset()]:
        inside = [f.log_value for f in current if f.plates == plates]
        current = [f for f in current if f.plates != plates]
        inside = _eliminate(inside, [d for d, where in pending.items() if where == plates])
        pending = {d: where for d, where in pending.items() if where != plates}
        outer = _enclosing(plates, pending, inside)
        current += [Factor(_sum_plates(log_value, plates - outer), outer) for log_value in inside]
    return _rows(current)


def _eliminate(log_factors: list[Tensor], dims: list[int]) -> list[Tensor]:
    """Removes the dimensions, cheapest first."""
    while dims:
        dim = min(dims, key=lambda d: _cost(log_factors, d))
        dims = [d for d in dims if d != dim]
        having = [f for f in log_factors if _has(f, dim)]
        rest = [f for f in log_factors if not _has(f, dim)]
        if having:
            product = sum(having[1:], start=having[0])
            rest.append(torch.logsumexp(product, dim, keepdim=True))
        log_factors = rest
    return log_factors


def _cost(log_factors: list[Tensor], dim: int) -> int:
    shapes = [f.shape for f in log_factors if _has(f, dim)]
    return torch.broadcast_shapes(*shapes).numel() if shapes else 0


def _has(log_factor: Tensor, dim: int) -> bool:
    return log_factor.dim() >= -dim and log_factor.shape[dim] > 1


def _enclosing(
    plates: frozenset[int], pending: dict[int, frozenset[int]], inside: list[Tensor]
) -> frozenset[int]:
    """The plates in which variables that these factors still have were drawn."""
    kept = [where for d, where in pending.items() if any(_has(f, d) for f in inside)]
    return plates & frozenset().union(*kept)


def _sum_plates(log_factor: Tensor, dims: frozenset[int]) -> Tensor:
    present = [d for d in dims if log_factor.dim() >= -d]
    return log_factor.sum(present, keepdim=True) if present else log_factor


def _rows(factors: list[Factor]) -> Tensor:
    total = sum((f.log_value for f in factors[1:]), start=factors[0].log_value)
    return total.reshape(total.shape[-1])
