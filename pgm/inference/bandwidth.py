"""The bandwidth of a kernel density estimate by leave-one-out likelihood, and a kernel that ends.

    L(h) = sum_i log 1/(N - 1) sum_{k != i} K_h(x_i - x_k)

(Habbema, Hermans & van den Broek 1974; Duin 1976). For the uniform kernel, L falls between the
distances at which a window reaches one more point, so that its maximum is at one of them and is
found exactly. For the others, the best of a grid is refined until the slope of L is zero.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Beta, constraints
from torch.distributions.utils import broadcast_all

__all__ = ["Epanechnikov", "leave_one_out"]

_AT_ONCE = 2**20
_MOST_PAIRS = 2**25
_GRID = {"gaussian": 24, "epanechnikov": 96}


def leave_one_out(
    points: Float[Tensor, "N d"], kernel: str, log_kernels: Callable[[slice, Tensor], Tensor]
) -> float:
    """The bandwidth of the highest leave-one-out likelihood.

    Args:
        points: the rows.
        kernel: "gaussian", "epanechnikov" or "uniform".
        log_kernels: log K_h(x_i - x_k) of some rows i at a bandwidth, (len(i), N), differentiable.

    Raises:
        ValueError: fewer than two rows, rows that all occur twice, or more than an exact search of
            uniform windows has memory for.
    """
    if len(points) < 2:
        raise ValueError(
            "One row has no leave-one-out likelihood: without it no density is left. Pass two rows "
            "or more, or a bandwidth."
        )
    p = math.inf if kernel != "gaussian" else 2.0
    nearest = _nearest(points.double(), p)
    if float(nearest.max()) == 0:
        raise ValueError(
            "Every row occurs twice or more, so that the leave-one-out likelihood grows without "
            "bound as the bandwidth shrinks. Drop the duplicates, or pass a bandwidth."
        )
    if kernel == "uniform":
        return _of_steps(points.double(), float(nearest.max()))
    low = float(nearest.max()) if kernel == "epanechnikov" else float(nearest[nearest > 0].min())
    high = float((points.amax(0) - points.amin(0)).norm()) + low

    def likelihood(h: float) -> tuple[float, float]:
        return _likelihood(len(points), h, log_kernels)

    least, most = math.log(low) + 1e-9, math.log(4 * high)
    size = _GRID[kernel] - 1
    return _of_slope(likelihood, [least + (most - least) * i / size for i in range(size + 1)])


def _nearest(points: Float[Tensor, "N d"], p: float) -> Float[Tensor, " N"]:
    """The distance of every row to the nearest other one."""
    N = len(points)
    found = []
    for start in range(0, N, max(1, _AT_ONCE // N)):
        rows = torch.arange(start, min(N, start + max(1, _AT_ONCE // N)), device=points.device)
        D = _distances(points[rows], points, p)
        found.append(D.scatter(1, rows.unsqueeze(1), torch.inf).amin(1))
    return torch.cat(found)


def _distances(x: Tensor, y: Tensor, p: float) -> Tensor:
    return torch.cdist(x, y, p=p, compute_mode="donot_use_mm_for_euclid_dist")


def _likelihood(
    N: int, h: float, log_kernels: Callable[[slice, Tensor], Tensor]
) -> tuple[float, float]:
    """L at h, without its constant, and its slope along log h."""
    value, slope = 0.0, 0.0
    for start in range(0, N, max(1, _AT_ONCE // N)):
        rows = slice(start, min(N, start + max(1, _AT_ONCE // N)))
        log_h = torch.tensor(math.log(h), dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            logs = log_kernels(rows, log_h.exp())
            itself = torch.arange(rows.start, rows.stop, device=logs.device).unsqueeze(1)
            part = logs.scatter(1, itself, -torch.inf).logsumexp(1).sum()
            slope += float(torch.autograd.grad(part, log_h)[0])
        value += float(part.detach())
    return value, slope


def _of_slope(L: Callable[[float], tuple[float, float]], grid: list[float]) -> float:
    """The maximum of L near the best of a grid, where the slope changes its sign."""
    from scipy.optimize import brentq, minimize_scalar

    values = [L(math.exp(u))[0] for u in grid]
    best = max(range(len(grid)), key=values.__getitem__)
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda u: -L(math.exp(u))[0], bounds=ends, method="bounded", options={"xatol": 1e-4}
    ).x
    around = max(found - 1e-3, ends[0]), min(found + 1e-3, ends[1])
    if L(math.exp(around[0]))[1] > 0 > L(math.exp(around[1]))[1]:
        found = brentq(lambda u: L(math.exp(u))[1], *around, xtol=1e-13)
    return math.exp(found)


def _of_steps(points: Float[Tensor, "N d"], reach: float) -> float:
    """The best distance at which uniform windows reach one more point; all rows are reached first.

    Reaching its m-th neighbour, m > 1, a row gains log m - log(m - 1).
    """
    N, d = points.shape
    if N * N > _MOST_PAIRS:
        raise ValueError(
            f"The search over all distances of {N} rows takes {3 * 8 * N * N / 2**30:.1f} GiB. "
            f"Pass at most {math.isqrt(_MOST_PAIRS)} rows, drawn at random, and use the bandwidth "
            "found for all, or kernel='gaussian' or 'epanechnikov', which keep no distances."
        )
    D = _distances(points, points, math.inf).fill_diagonal_(torch.inf).sort(1).values[:, :-1]
    m = torch.arange(1, N, dtype=D.dtype, device=D.device)
    gain = (m.log() - (m - 1).clamp(min=1).log()).expand_as(D)
    distance, order = D.flatten().sort()
    total = gain.flatten()[order].cumsum(0) - N * d * distance.log()
    last = torch.cat([distance[1:] > distance[:-1], distance.new_ones(1, dtype=torch.bool)])
    usable = last & (distance >= reach)
    return float(distance[total.masked_fill(~usable, -torch.inf).argmax()])


class Epanechnikov(TorchDistribution):
    """The parabola 3/4 (1 - u^2) / scale over |u| < 1, u = (x - loc) / scale (Epanechnikov 1969).

    Args:
        loc: the middle.
        scale: half the width.

    Example:
        >>> Epanechnikov(0.0, 2.0).log_prob(torch.tensor([0.0, 1.0, 3.0])).exp()
        tensor([0.3750, 0.2812, 0.0000])
    """

    arg_constraints = {  # noqa: RUF012 (torch reads it from the class)
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    has_rsample = True

    def __init__(self, loc: Any, scale: Any) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """An interval."""
        return constraints.interval(self.loc - self.scale, self.loc + self.scale)

    @property
    def mean(self) -> Tensor:
        """The middle."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """A fifth of the square of half the width."""
        return self.scale.square() / 5

    def log_prob(self, x: Tensor) -> Tensor:
        """-inf where the parabola has ended."""
        u = (x - self.loc) / self.scale
        inside = u.abs() < 1
        height = torch.log1p(-torch.where(inside, u, 0.0).square()) + math.log(0.75)
        return torch.where(inside, height - self.scale.log(), -torch.inf)

    def rsample(self, sample_shape: Sequence[int] = Size()) -> Tensor:
        """loc + scale (2 b - 1) with b ~ Beta(2, 2)."""
        two = torch.full_like(self.loc, 2.0)
        return self.loc + self.scale * (2 * Beta(two, two).rsample(Size(sample_shape)) - 1)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The same distribution for each of a batch."""
        return Epanechnikov(self.loc.expand(batch_shape), self.scale.expand(batch_shape))
