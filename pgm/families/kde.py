"""Kernel density estimation, the Parzen window: one kernel on every point that was seen.

    p(x) = 1/N sum_k K_h(x - x_k),    K_h(u) = prod_j K(u_j / h) / h

(Rosenblatt 1956; Parzen 1962; Murphy 2022, eq. 16.33), with the kernels of Murphy 2022, Table 16.1:
Gaussian K(u) = N(u; 0, 1), boxcar 1/2 I(|u| <= 1) and Epanechnikov 3/4 (1 - u^2) I(|u| <= 1). In
several dimensions they are products, so that windows that end are boxes, not balls. As a program: a
centre k is picked uniformly, then x is drawn from the kernel around it. The bandwidth h is learned
by leave-one-out likelihood, since the likelihood itself is unbounded as h shrinks (Habbema et al.
1974; Duin 1976). Every pair of a row and a centre is computed, in pieces that fit the cache: no
tree, no approximation.
"""

import math
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pgm.batch import SEEN, Batch, as_batch, cells, chunks
from pgm.data import load
from pgm.families import Example
from pgm.inference import bandwidth as search
from pgm.inference.bandwidth import Epanechnikov
from pgm.model import Model, rows
from pgm.objectives import objective
from pgm.verbs import Imputation, LogProb, decode, encode, impute, log_prob

__all__ = ["KDE", "Kernel", "example"]

Kernel = Literal["gaussian", "uniform", "epanechnikov"]
"""The shape of a window."""

_AT_ONCE = 2**18
_FEW = 2
_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class KDE(Model):
    """A Parzen window estimate (Parzen 1962): an equal mixture of kernels around points.

    The points are part of the model, of its file and of its samples: a KDE of patients hands out
    their rows, whatever is done to learn its bandwidth. Points that occur twice draw the learned
    bandwidth towards zero.

    Args:
        points: the centres x_k, shape (N, d).
        bandwidth: h, the standard deviation of a Gaussian window, or half the width of one that
            ends (a figure that speaks of windows of total width h has half of it here).
        kernel: "gaussian", "uniform" or "epanechnikov", the same in every dimension.

    Attributes:
        points: the centres, a buffer.
        log_bandwidth: log h, a parameter.

    Raises:
        ValueError: points that are no finite (N, d) floating-point tensor, a bandwidth that is not
            positive, or an unknown kernel.

    Example:
        >>> points, x = load("parzen").x, torch.zeros(1, 1)
        >>> log_prob(KDE(points, bandwidth=2.0), x).value.exp()
        tensor([0.1014])
        >>> log_prob(KDE(points, bandwidth=2.0, kernel="uniform"), x).value.exp()
        tensor([0.1250])
        >>> KDE.from_data(points).bandwidth.item()
        2.13309
    """

    points: Tensor

    def __init__(
        self, points: Tensor, *, bandwidth: float = 1.0, kernel: Kernel = "gaussian"
    ) -> None:
        super().__init__()
        _check(points, bandwidth, kernel)
        self.kernel = kernel
        self.register_buffer("points", points.detach().clone())
        self.log_bandwidth = nn.Parameter(points.new_tensor(math.log(bandwidth)))

    @property
    def bandwidth(self) -> Float[Tensor, ""]:
        """The bandwidth h, in the units of the data."""
        return self.log_bandwidth.exp()

    def window(self, centre: Float[Tensor, "... d"]) -> Any:
        """The kernel around a centre: a distribution whose events are rows."""
        h = self.bandwidth
        if self.kernel == "gaussian":
            return dist.Normal(centre, h).to_event(1)
        if self.kernel == "epanechnikov":
            return Epanechnikov(centre, h).to_event(1)
        return dist.Uniform(centre - h, centre + h, validate_args=False).to_event(1)

    def model(self, n: int) -> None:
        """k ~ uniform over the centres, x ~ K_h around centre k."""
        uniform = dist.Categorical(logits=self.points.new_zeros(len(self.points)))
        with rows(n):
            k = pyro.sample("k", uniform, infer={"enumerate": "parallel"})
            pyro.sample("x", self.window(self.points[k]))

    @classmethod
    def from_data(cls, x: Any, *, kernel: Kernel = "gaussian") -> "KDE":
        """A window on every row, with the bandwidth of the highest leave-one-out likelihood.

        For the uniform kernel it is the best of all; for the others the best near the best of a
        grid. It is computed in float64.

        Args:
            x: complete rows, shape (N, d).
            kernel: "gaussian", "uniform" or "epanechnikov".

        Raises:
            ValueError: missing cells, fewer than two rows, or rows that all occur twice, whose
                likelihood is unbounded as the bandwidth shrinks.
        """
        batch = as_batch(x)
        if "x" not in batch or "x" + SEEN in batch:
            raise ValueError(
                f"A window stands on a complete row 'x', but {batch} came. Drop rows with missing "
                "cells, or complete them with pgm.impute of another model."
            )
        _check(batch["x"], 1.0, kernel)
        points = batch["x"]

        def log_kernels(i: slice, h: Tensor) -> Tensor:
            return _log_kernels(precise, precise.points[i], None, h=h)

        precise = cls(points.double(), kernel=kernel)
        h = search.leave_one_out(points, kernel, log_kernels)
        if kernel == "uniform":  # which ends at a point, and must reach it in spite of rounding
            h *= 1 + 8 * torch.finfo(points.dtype).eps * (1 + abs(math.log(h)))
        return cls(points, bandwidth=h, kernel=kernel)


def example() -> Example:
    """Two moons: a window on every row, the bandwidth learned with that row left out."""
    x = load("two_moons", n=500).x
    return Example(KDE(x), x, fit={"steps": 80, "learning_rate": 0.1})


def _needs_slope(model: KDE) -> str | None:
    if model.kernel == "gaussian":
        return None
    return (
        "its windows end: the gradient says to shrink them until a row is in none, where the "
        "likelihood is zero. Use kernel='gaussian' to learn the bandwidth by gradients, or "
        "KDE.from_data, which searches for it."
    )


@objective.register(KDE, needs=_needs_slope)
def _leave_one_out(model: KDE, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """-log p(x) over the centres without the row itself: one that coincides with it is left out.

    A row with missing cells coincides with a centre where all its seen cells do.
    """
    if len(model.points) == 1:
        raise ValueError(
            "A KDE of one point has no leave-one-out likelihood: without that point no density is "
            "left. Build it on the rows of the training data."
        )
    x, seen = _cells(model, batch)
    equal = x[:, None] == model.points
    same = (equal if seen is None else equal | ~seen[:, None]).all(-1)
    itself = same & (same.cumsum(-1) == 1)
    others = (len(model.points) - itself.sum(-1)).to(x)
    log_sum = _log_kernels(model, x, seen).masked_fill(itself, -torch.inf).logsumexp(-1)
    return -(log_sum - others.log())


@log_prob.register(KDE)
def _density(model: KDE, batch: Batch, *, particles: int = 100) -> LogProb:
    """log p(x), exact; missing cells are integrated out, kernel by kernel."""
    pieces = [_log_sum(_log_kernels(model, *_cells(model, p))) for p in _pieces(model, batch)]
    value = torch.cat(pieces) - math.log(len(model.points))
    return LogProb(value, torch.zeros_like(value), "exact")


@impute.register(KDE)
def _complete(model: KDE, batch: Batch, *, draws: int = 5, particles: int = 200) -> Imputation:
    """Exact draws: a centre from p(k | x_seen), then the missing cells from its kernel."""
    completed = torch.cat([_draw(model, piece, draws) for piece in _pieces(model, batch)], 1)
    return Imputation(Batch(x=completed), model.points.new_full((completed.shape[1],), particles))


def _draw(model: KDE, batch: Batch, draws: int) -> Float[Tensor, "draws n d"]:
    x, seen = _cells(model, batch)
    log_kernel = _log_kernels(model, x, seen)
    alone = torch.isinf(log_kernel).all(-1)
    if bool(alone.any()):
        raise ValueError(
            f"{int(alone.sum())} of the rows have seen cells outside every window, where the "
            "density is zero: nothing can be drawn given them. Use a larger bandwidth, or "
            "kernel='gaussian', whose windows have no end."
        )
    k = dist.Categorical(logits=log_kernel).sample((draws,))
    y = model.window(model.points[k]).sample()
    return x.expand_as(y) if seen is None else torch.where(seen, x, y)


def _log_kernels(
    model: KDE,
    x: Float[Tensor, "n d"],
    seen: Bool[Tensor, "n d"] | None,
    *,
    h: Tensor | None = None,
) -> Float[Tensor, "n N"]:
    """log K_h(x - x_k) over the seen cells, for every row and centre."""
    h = model.bandwidth if h is None else h
    d = x.shape[-1] if seen is None else seen.sum(-1, keepdim=True)
    if model.kernel == "gaussian":
        return _squares(x, model.points, seen) / (-2 * h**2) - d * (h.log() + _HALF_LOG_TAU)
    total: Any = 0.0
    for j, column in enumerate(model.points.mT):
        u = (x[:, j, None] - column) / h
        if model.kernel == "uniform":
            cell = torch.where(u.abs() <= 1, 0.0, -torch.inf)
        else:
            inside = u.abs() < 1
            cell = torch.where(
                inside, torch.log1p(-torch.where(inside, u, 0.0).square()), -torch.inf
            )
        total = total + (cell if seen is None else torch.where(seen[:, j, None], cell, 0.0))
    height = math.log(0.5) if model.kernel == "uniform" else math.log(0.75)
    return total + d * (height - h.log())


def _squares(
    x: Float[Tensor, "n d"], points: Float[Tensor, "N d"], seen: Bool[Tensor, "n d"] | None
) -> Float[Tensor, "n N"]:
    """Squared distances over the seen cells, from differences: nothing cancels."""
    if seen is None and x.shape[-1] > _FEW:
        return torch.cdist(x, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    total = x.new_zeros(len(x), len(points))
    for j, column in enumerate(points.mT):
        u = x[:, j, None] - column
        total = total + (u if seen is None else u * seen[:, j, None]).square()
    return total


def _log_sum(logs: Float[Tensor, "n N"]) -> Float[Tensor, " n"]:
    """logsumexp; without a gradient in place, and nothing so small that it is slow to add up."""
    if logs.requires_grad:
        return logs.logsumexp(-1)
    top = logs.amax(-1, keepdim=True)
    least = 0.9 * math.log(torch.finfo(logs.dtype).tiny)
    value = (logs - top).clamp_(min=least).exp_().sum(-1).log_() + top.squeeze(-1)
    return torch.where(top.squeeze(-1) == -torch.inf, -torch.inf, value)


def _cells(model: KDE, batch: Batch) -> tuple[Float[Tensor, "n d"], Bool[Tensor, "n d"] | None]:
    x, seen = cells(batch, "x", tuple(model.points.shape[1:]))
    return x.to(model.dtype), seen


def _pieces(model: KDE, batch: Batch) -> Any:
    """The rows in pieces whose distances to all centres fit the cache."""
    return chunks(batch, max(1, _AT_ONCE // len(model.points)))


def _check(points: Any, bandwidth: float, kernel: str) -> None:
    if not isinstance(points, Tensor) or not points.is_floating_point() or points.dim() != 2:
        came = f"{points.dtype} {tuple(points.shape)}" if isinstance(points, Tensor) else points
        raise ValueError(
            f"points is {came}; the centres are a floating-point tensor of shape (N, d), one row a "
            "point. Use x.unsqueeze(-1) for numbers on a line."
        )
    if not points.numel() or not bool(torch.isfinite(points).all()):
        raise ValueError(
            f"points of shape {tuple(points.shape)} are empty or hold values that are not "
            "finite: a kernel stands at a place. Drop rows with missing cells, or complete them "
            "with pgm.impute of another model."
        )
    if not 0 < bandwidth < math.inf:
        raise ValueError(f"bandwidth is {bandwidth}; the width of a window is positive and finite.")
    if kernel not in ("gaussian", "uniform", "epanechnikov"):
        raise ValueError(
            f"There is no kernel {kernel!r}; there are 'gaussian', 'uniform' and 'epanechnikov'."
        )


_NO_CODE = (
    "its only latent is which of its points a row came from, no code of the row. Use "
    "pgm.families.mixture.GaussianMixture for clusters, or pgm.families.factor.PPCA for codes."
)
encode.refuse(KDE, _NO_CODE)
decode.refuse(KDE, _NO_CODE)
