"""What a lot gives to a private step: gradients by row, or their clipped sum.

The clipped sum is sum_i g_i min(1, C / (||g_i|| + 1e-6)), the norm over all parameters together
(Abadi et al. 2016, Alg. 1; the 1e-6 is Opacus'). Clipped layer by layer, each to a norm C_l, it
moves by sqrt(sum_l C_l^2) at most (McMahan et al. 2018, sec. 3). A row whose norm is not finite
counts as zero, so that adding any row at all moves the sum by C at most.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_STABLE = 1e-6


@dataclass(frozen=True)
class RowGradients:
    """Gradients and losses by row.

    Attributes:
        gradients: trainable parameter -> gradients, shape (n, *parameter). A row in which the norm
            of any of them was not finite has zeros in all.
        losses: the loss of each row in nats, shape (n,); not finite where it was not.
        finite: whether the norms of all gradients of the row were finite, shape (n,).
    """

    gradients: dict[str, Tensor]
    losses: Float[Tensor, " n"]
    finite: Bool[Tensor, " n"]


@dataclass(frozen=True)
class ClippedSum:
    """The clipped sum over the rows of a lot, before noise.

    Attributes:
        gradients: parameter -> the clipped sum, in its shape and in memory of its own: noise is
            added in place.
        norms: of every row's gradient over all parameters, shape (n,); 0 where it was not finite.
        losses: the loss of each row in nats, shape (n,).
        finite: whether the norm of the row was finite, shape (n,).
    """

    gradients: dict[str, Tensor]
    norms: Float[Tensor, " n"]
    losses: Float[Tensor, " n"]
    finite: Bool[Tensor, " n"]


@dataclass(frozen=True)
class Layers:
    """Clipping norms of groups of parameters, each of which is clipped by itself.

    Attributes:
        groups: the parameters of each group, and its norm C_l.

    Example:
        >>> Layers(((("a", "b"), 0.6), (("c",), 0.8))).sensitivity
        1.0
    """

    groups: tuple[tuple[tuple[str, ...], float], ...]

    @property
    def sensitivity(self) -> float:
        """The square root of the sum of C_l^2: what a row can move, over all groups."""
        return math.sqrt(sum(bound**2 for _, bound in self.groups))

    def __mul__(self, factor: float) -> "Layers":
        """All norms times a number."""
        return Layers(tuple((names, factor * bound) for names, bound in self.groups))


def factors(norms: Float[Tensor, " n"], clip: float | Tensor) -> Float[Tensor, " n"]:
    """min(1, C / (norm + 1e-6)) of every row.

    Example:
        >>> factors(torch.tensor([0.5, 1.0, 4.0]), 2.0)
        tensor([1.0000, 1.0000, 0.5000])
    """
    return (clip / (norms + _STABLE)).clamp(max=1.0)


def weights(norms: Mapping[str, Tensor], clip: float | Tensor | Layers) -> dict[str, Tensor]:
    """The factor of every row for each parameter, from the norms by parameter.

    Raises:
        ValueError: a parameter that is in no group, and so would not be clipped.
    """
    if not isinstance(clip, Layers):
        return dict.fromkeys(norms, factors(norms_over(norms), clip))
    found: dict[str, Tensor] = {}
    for names, bound in clip.groups:
        group = {name: norms[name] for name in names if name in norms}
        if group:
            found |= dict.fromkeys(group, factors(norms_over(group), bound))
    if found.keys() != norms.keys():
        left = ", ".join(sorted(norms.keys() - found.keys()))
        raise ValueError(f"No group holds {left}, whose gradient would not be clipped.")
    return found


def clipped(rows: RowGradients, clip: float | Layers) -> ClippedSum:
    """The clipped sum of gradients by row.

    Example:
        >>> g = {"w": torch.tensor([[3.0, 4.0], [0.3, 0.4]])}
        >>> rows = RowGradients(g, torch.zeros(2), torch.ones(2, dtype=torch.bool))
        >>> clipped(rows, 1.0).gradients["w"]
        tensor([0.9000, 1.2000])
    """
    norms = {name: norms_of(g) for name, g in rows.gradients.items()}
    c = weights(norms, clip)
    sums = {name: torch.einsum("i,i...", c[name], g) for name, g in rows.gradients.items()}
    return ClippedSum(sums, norms_over(norms), rows.losses, rows.finite)


def added(parts: Iterable[ClippedSum]) -> ClippedSum:
    """The clipped sum of a lot, from those of its pieces."""
    first, *rest = parts
    if not rest:
        return first
    pieces = [first, *rest]
    return ClippedSum(
        {name: torch.stack([p.gradients[name] for p in pieces]).sum(0) for name in first.gradients},
        torch.cat([p.norms for p in pieces]),
        torch.cat([p.losses for p in pieces]),
        torch.cat([p.finite for p in pieces]),
    )


def nothing(parameters: Mapping[str, Tensor]) -> ClippedSum:
    """The clipped sum of no rows."""
    zeros = {name: torch.zeros_like(p, requires_grad=False) for name, p in parameters.items()}
    none = next(iter(zeros.values())).new_zeros(0)
    return ClippedSum(zeros, none, none, none.bool())


def norms_of(g: Float[Tensor, "n *parameter"]) -> Float[Tensor, " n"]:
    """The norm of every row's part."""
    return torch.linalg.vector_norm(g.reshape(len(g), g[:1].numel()), dim=1)


def norms_over(norms: Mapping[str, Tensor]) -> Float[Tensor, " n"]:
    """The norm over all parameters, of the norms by parameter."""
    return torch.linalg.vector_norm(torch.stack(list(norms.values()), 1), dim=1)


def whole_rows(gradients: dict[str, Tensor], losses: Tensor) -> RowGradients:
    """Zeros in every row whose gradient has no finite norm."""
    whole = torch.stack([norms_of(g) for g in gradients.values()]).isfinite().all(0)
    if not bool(whole.all()):
        gradients = {name: keep_rows(g, whole) for name, g in gradients.items()}
    return RowGradients(gradients, losses, whole)


def keep_rows(x: Float[Tensor, "n *shape"], kept: Bool[Tensor, " n"]) -> Float[Tensor, "n *shape"]:
    """The rows of `x` that are kept, and zeros for the others (whatever they hold)."""
    return torch.where(kept.reshape(-1, *[1] * (x.dim() - 1)), x, torch.zeros_like(x))
