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

    Raises:
        ValueError: a factor joins variables of two plates neither of which holds the other, which
            no order of elimination sums in the size of the factors.

    Example:
        >>> prior = torch.tensor([0.25, 0.75]).log().reshape(2, 1)
        >>> likelihood = torch.tensor([[0.5, 0.1], [0.5, 0.3]]).log()
        >>> sum_product([Factor(prior), Factor(likelihood)], {-2: frozenset()}).exp()
        tensor([0.5000, 0.2500])
    """
    pending = dict(variables)
    current = list(factors)
    while any(f.plates for f in current):
        plates = max((f.plates for f in current), key=len)
        inside = [f.log_value for f in current if f.plates == plates]
        current = [f for f in current if f.plates != plates]
        inside = _eliminate(inside, [d for d, where in pending.items() if where == plates])
        pending = {d: where for d, where in pending.items() if where != plates}
        outer = _enclosing(plates, pending, inside)
        current += [Factor(_sum_plates(log_value, plates - outer), outer) for log_value in inside]
    return _rows(_eliminate([f.log_value for f in current], list(pending)))


def draw_variables(
    factors: Sequence[Factor], variables: dict[int, frozenset[int]]
) -> dict[int, Tensor]:
    """Draws the enumerated variables jointly from their posterior, one after the other.

    The marginal of a variable is the gradient of the log sum with respect to a log factor of that
    variable alone (Darwiche 2003); what is drawn is clamped before the next.

    Args:
        factors: as in `sum_product`.
        variables: as in `sum_product`, in the order of the program.

    Returns:
        For each dimension the index drawn, with size one along that dimension.
    """
    clamped, drawn = [Factor(f.log_value.detach(), f.plates) for f in factors], {}
    for dim, plates in variables.items():
        shape = torch.broadcast_shapes(
            *[_only_dims(f.log_value, {dim, -1, *plates}) for f in factors]
        )
        with torch.enable_grad():
            probe = factors[0].log_value.new_zeros(shape, requires_grad=True)
            total = sum_product([*clamped, Factor(probe, plates)], variables).sum()
            (marginal,) = torch.autograd.grad(total, probe)
        along = marginal.movedim(dim, -1)
        index = torch.multinomial(along.reshape(-1, along.shape[-1]), 1).reshape(along.shape[:-1])
        drawn[dim] = index.unsqueeze(-1).movedim(-1, dim)
        chosen = torch.zeros_like(marginal).scatter(dim, drawn[dim], 1.0).log()
        clamped.append(Factor(chosen, plates))
    return drawn


def _only_dims(log_factor: Tensor, dims: set[int]) -> list[int]:
    """The shape of a factor with all but some dimensions set to one."""
    return [size if d - log_factor.dim() in dims else 1 for d, size in enumerate(log_factor.shape)]


def _eliminate(log_factors: list[Tensor], dims: list[int]) -> list[Tensor]:
    """Removes the dimensions, cheapest first."""
    while dims:
        dim = min(dims, key=lambda d: _cost(log_factors, d))
        dims = [d for d in dims if d != dim]
        having = [f for f in log_factors if _has(f, dim)]
        rest = [f for f in log_factors if not _has(f, dim)]
        if having:
            product = sum(having[1:], start=having[0])
            rest.append(_log_sum_exp(product, dim))
        log_factors = rest
    return log_factors


def _log_sum_exp(log_value: Tensor, dim: int) -> Tensor:
    """torch's, with gradient zero instead of NaN where every term is -inf."""
    impossible = (log_value == -torch.inf).all(dim, keepdim=True)
    total = torch.logsumexp(log_value.masked_fill(impossible, 0.0), dim, keepdim=True)
    return total.masked_fill(impossible, -torch.inf)


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
    outer = plates & frozenset().union(*kept)
    if plates and outer == plates:
        raise ValueError(
            "A site depends on enumerated sites of two plates (dimensions "
            f"{', '.join(map(str, sorted(plates, reverse=True)))}) neither of which stands inside "
            "the other: every pair of them is tied, and their sum grows exponentially with the "
            "plates. Give one of them a site in the guide instead of enumerating it."
        )
    return outer


def _sum_plates(log_factor: Tensor, dims: frozenset[int]) -> Tensor:
    present = [d for d in dims if log_factor.dim() >= -d]
    return log_factor.sum(present, keepdim=True) if present else log_factor


def _rows(log_factors: list[Tensor]) -> Tensor:
    total = sum(log_factors[1:], start=log_factors[0])
    return total.reshape(total.shape[-1])
