"""Marginal laws of the columns of a copula: densities, normal scores, and back.

A column with bounds is first brought to the line, y = log(x - a), -log(b - x) or the logit of
(x - a) / (b - a): Johnson's (1949) system of curves. There y is normal, Student's t, or has a
kernel on every row that was seen (Parzen 1962; bandwidth by Silverman 1986, eq. 3.31). The normal
score of x is z = Phi^-1(F(x)), taken from the smaller tail.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pgm.noise.quantiles import normal_score, quantile

Law = Literal["kernel", "normal", "student"]
"""What the columns follow once they are on the line."""

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
_AT_ONCE = 2**22


class Marginals(nn.Module):
    """The laws of d columns.

    Args:
        law: of all columns.
        lower: a bound below for every column, -inf for none, shape (d,).
        upper: a bound above, inf for none, shape (d,).
        points: for kernels, their centres on the line, shape (N, d).

    Attributes:
        location: of y, shape (d,); none for kernels.
        log_scale: log scale of y, shape (d,); for kernels the log bandwidths, which are fixed: the
            likelihood would shrink them onto the points.
        log_df: for Student's t, log degrees of freedom, shape (d,).
    """

    lower: Tensor
    upper: Tensor
    points: Tensor
    log_scale: Tensor

    def __init__(
        self,
        law: Law,
        lower: Float[Tensor, " d"],
        upper: Float[Tensor, " d"],
        points: Float[Tensor, "N d"] | None = None,
    ) -> None:
        super().__init__()
        self.law = law
        self.register_buffer("lower", lower.clone())
        self.register_buffer("upper", upper.clone())
        zero = torch.zeros_like(lower)
        if law == "kernel":
            assert points is not None
            self.register_buffer("points", points.detach().sort(0).values)
            self.register_buffer("log_scale", bandwidth(points).log())
            return
        self.location = nn.Parameter(zero.clone())
        self.log_scale = nn.Parameter(zero.clone())
        if law == "student":
            self.log_df = nn.Parameter(zero + math.log(8.0))

    def scores(self, x: Float[Tensor, "*n d"]) -> tuple[Float[Tensor, "*n d"], Tensor]:
        """Normal scores, and log f(x) of every cell; outside the bounds -inf, with a score of 0."""
        inside = (x > self.lower) & (x < self.upper)
        y, log_slope = to_line(torch.where(inside, x, self._middle), self.lower, self.upper)
        z, log_f = self._on_line(y)
        log_f = torch.where(inside, log_f + log_slope, -torch.inf)
        return torch.where(inside, z, 0.0), log_f

    def inverse(self, z: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """x with normal scores z."""
        if self.law == "kernel":
            return from_line(self._solve(z), self.lower, self.upper)
        u = quantile("student", z, self.log_df.exp()) if self.law == "student" else z
        return from_line(self.location + self.log_scale.exp() * u, self.lower, self.upper)

    @property
    def _middle(self) -> Float[Tensor, " d"]:
        """A point of every column's support."""
        a, b = self.lower, self.upper
        below = torch.where(b.isfinite(), b - 1, torch.zeros_like(a))
        return torch.where(a.isfinite(), torch.where(b.isfinite(), (a + b) / 2, a + 1), below)

    def _on_line(self, y: Float[Tensor, "*n d"]) -> tuple[Float[Tensor, "*n d"], Tensor]:
        """Normal scores and log densities of y."""
        if self.law == "kernel":
            return self._kernel(y)
        u = (y - self.location) / self.log_scale.exp()
        if self.law == "normal":
            return u, -0.5 * u.square() - _HALF_LOG_TAU - self.log_scale
        df = self.log_df.exp()
        log_f = log_student_density(u, df) - self.log_scale
        return normal_score("student", u, df), log_f

    def _kernel(self, y: Float[Tensor, "*n d"]) -> tuple[Float[Tensor, "*n d"], Tensor]:
        """Scores and log densities, a piece of the rows at a time."""
        most, h = max(1, _AT_ONCE // self.points.numel()), self.log_scale.exp()
        pieces = [
            kernel_scores(part, self.points, h) for part in y.reshape(-1, y.shape[-1]).split(most)
        ]
        z, log_f = (torch.cat(part).reshape(y.shape).to(y) for part in zip(*pieces, strict=True))
        return z, log_f

    def _solve(self, z: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """y with score z, column by column."""
        nodes, flat = self._nodes(), z.double().reshape(-1, z.shape[-1])
        known, close = self._kernel(nodes)[0], 10 * torch.finfo(z.dtype).eps
        points, h = self.points.double(), self.log_scale.exp().double()
        each = zip(flat.T, nodes.T, known.T, points.T, h, strict=True)
        y = torch.stack([kernel_quantiles(*column, close=close) for column in each], -1)
        return y.reshape(z.shape).to(z)

    def _nodes(self) -> Float[Tensor, "m d"]:
        """Places with a score each: on the points, between the ends and far beyond them."""
        h, points = self.log_scale.exp().double(), self.points.double()
        beyond = torch.arange(1.0, 39.0, dtype=torch.float64).unsqueeze(-1) * h
        some = points[torch.linspace(0, len(points) - 1, min(len(points), 400)).long()]
        return torch.cat([points[0] - beyond.flip(0), some, points[-1] + beyond])


def start(marginals: Marginals, x: Float[Tensor, "n d"]) -> None:
    """Sets a normal's or a Student's parameters to the maximum of the likelihood of seen cells.

    Args:
        marginals: changed in place.
        x: the rows, NaN where cells are missing.
    """
    if marginals.law == "kernel":
        return
    y, _ = to_line(x.double(), marginals.lower.double(), marginals.upper.double())
    for j, column in enumerate(y.T):
        column = column[~column.isnan()]
        location, scale, df = float(column.mean()), float(column.std(correction=0)), 0.0
        if marginals.law == "student":
            from scipy.stats import t

            df, location, scale = t.fit(column.numpy(), 8.0, loc=location, scale=scale)
        with torch.no_grad():
            marginals.location[j], marginals.log_scale[j] = location, math.log(scale)
            if marginals.law == "student":
                marginals.log_df[j] = math.log(min(max(df, 0.2), 1e4))


def to_line(
    x: Float[Tensor, "*n d"], lower: Float[Tensor, " d"], upper: Float[Tensor, " d"]
) -> tuple[Float[Tensor, "*n d"], Float[Tensor, "*n d"]]:
    """y of the columns, and log dy/dx; x lies within the bounds."""
    above, below = lower.isfinite(), upper.isfinite()
    log_a = torch.where(above, torch.where(above, x - lower, 1.0).log(), 0.0)
    log_b = torch.where(below, torch.where(below, upper - x, 1.0).log(), 0.0)
    both = above & below
    log_width = torch.where(both, torch.where(both, upper - lower, 1.0).log(), 0.0)
    return torch.where(above | below, log_a - log_b, x), log_width - log_a - log_b


def from_line(
    y: Float[Tensor, "*n d"], lower: Float[Tensor, " d"], upper: Float[Tensor, " d"]
) -> Float[Tensor, "*n d"]:
    """x of the columns, the inverse of `to_line`."""
    above, below = lower.isfinite(), upper.isfinite()
    a, b = torch.where(above, lower, 0.0), torch.where(below, upper, 0.0)
    within = a + (b - a) * torch.where(above & below, y, 0.0).sigmoid()
    over = a + torch.where(above & ~below, y, 0.0).exp()
    under = b - torch.where(below & ~above, -y, 0.0).exp()
    bounded = torch.where(above & below, within, torch.where(above, over, under))
    return torch.where(above | below, bounded, y)


def bandwidth(points: Float[Tensor, "N d"]) -> Float[Tensor, " d"]:
    """0.9 min(sd, interquartile range / 1.34) N^(-1/5) (Silverman 1986, eq. 3.31)."""
    low, high = torch.quantile(points, torch.tensor([0.25, 0.75]).to(points), dim=0)
    sd, robust = points.std(0, correction=0), (high - low) / 1.34
    spread = torch.where(robust > 0, torch.minimum(sd, robust), sd)
    return 0.9 * spread * len(points) ** -0.2


def kernel_scores(
    y: Float[Tensor, "n d"], points: Float[Tensor, "N d"], h: Float[Tensor, " d"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Normal scores and log densities of normal kernels of width h on points that are sorted."""
    N = len(points)
    sign = torch.where(y > points[N // 2], -1.0, 1.0).double()  # to the smaller tail
    u = ((y.unsqueeze(-2) - points) / h).double()
    log_tail = torch.special.log_ndtr(sign.unsqueeze(-2) * u).logsumexp(-2) - math.log(N)
    log_f = (-0.5 * u.square()).logsumexp(-2) - _HALF_LOG_TAU - h.log() - math.log(N)
    return sign * normal_quantile(log_tail), log_f


def kernel_quantiles(
    z: Float[Tensor, " n"],
    nodes: Float[Tensor, " m"],
    known: Float[Tensor, " m"],
    points: Float[Tensor, " N"],
    h: Float[Tensor, ""],
    *,
    close: float,
) -> Float[Tensor, " n"]:
    """The inverse of one column of `kernel_scores`, to `close` in z: Newton's steps in a bracket.

    Args:
        z: normal scores.
        nodes: places that bracket the answers, sorted.
        known: their scores.
        points: where the kernels stand, sorted.
        h: their width.
        close: the error of a score, relative to 1 + |z|.
    """
    at = torch.searchsorted(known.contiguous(), z.contiguous()).clamp(1, len(nodes) - 1)
    low, high = nodes[at - 1], nodes[at]
    share = (z - known[at - 1]) / (known[at] - known[at - 1]).clamp(min=1e-12)
    y = torch.lerp(low, high, share.clamp(0, 1))
    left = torch.arange(len(z), device=z.device)
    for _ in range(60):
        s, log_f = _scores_in_pieces(y[left], points, h)
        far = (s - z[left]).abs() >= close * (1 + z[left].abs())
        left, s, log_f = left[far], s[far], log_f[far]
        if not len(left):
            break
        now, under = y[left], s < z[left]
        low[left[under]], high[left[~under]] = now[under], now[~under]
        step = now - (s - z[left]) / (log_f + 0.5 * s.square() + _HALF_LOG_TAU).exp()
        inside = (step > low[left]) & (step < high[left])
        y[left] = torch.where(inside, step, (low[left] + high[left]) / 2)
    return y


def _scores_in_pieces(
    y: Float[Tensor, " n"], points: Float[Tensor, " N"], h: Float[Tensor, ""]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """As `kernel_scores` of one column, by plain sums where the tail is no smaller than 1e-250."""
    scores, logs, N = [], [], len(points)
    for part in y.split(max(1, _AT_ONCE // N)):
        sign = torch.where(part > points[N // 2], -1.0, 1.0).to(y)
        u = (part.unsqueeze(-1) - points) / h
        tail = torch.special.ndtr(sign.unsqueeze(-1) * u).mean(-1)
        log_f = u.square_().mul_(-0.5).exp_().mean(-1).log() - _HALF_LOG_TAU - h.log()
        z, small = sign * normal_quantile(tail.clamp(min=1e-250).log()), tail < 1e-250
        if bool(small.any()):
            exact = kernel_scores(part[small].unsqueeze(-1), points.unsqueeze(-1), h.view(1))
            z[small], log_f[small] = exact[0].squeeze(-1), exact[1].squeeze(-1)
        scores.append(z)
        logs.append(log_f)
    return torch.cat(scores or [y]), torch.cat(logs or [y])


def normal_quantile(log_p: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Phi^-1(exp(log_p)) by Newton's steps on log Phi: a small tail is never rounded to zero.

    Example:
        >>> normal_quantile(torch.tensor([0.5, 1e-200], dtype=torch.float64).log())
        tensor([ 0.0000, -30.2056], dtype=torch.float64)
    """
    far = (-2 * log_p).clamp(min=4.0)
    z = torch.where(
        log_p < -10,
        -(far - (2 * math.pi * far).log()).clamp(min=1.0).sqrt(),
        torch.special.ndtri(log_p.clamp(min=-11.0).exp().clamp(max=1 - 1e-12)),
    )
    for _ in range(5):
        log_tail = torch.special.log_ndtr(z)
        z = z - (log_tail - log_p) * (log_tail + 0.5 * z.square() + _HALF_LOG_TAU).exp()
    return z


def log_student_density(t: Tensor, df: Tensor) -> Tensor:
    """log density of Student's t with df degrees of freedom."""
    constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (math.pi * df).log()
    return constant - (df + 1) / 2 * torch.log1p(t.square() / df)
