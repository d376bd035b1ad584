"""Private-PGM: the distribution that explains noisy marginals best.

(McKenna, Sheldon & Miklau 2019, "Graphical-model based estimation and inference for differential
privacy".) Among the marginals mu of all distributions over the cells, those are sought that
minimise

    L(mu) = 1/2 sum_r || (n mu_r - y_r) / sigma_r ||^2,

by mirror descent with the entropy of the whole: mu are the marginals of p(x) ~ exp(sum_r theta_r),
and theta_r <- theta_r - step dL / dmu_r. p is then the one of largest entropy with these marginals.
The sums over all x are `pgm.inference.exact`'s.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pgm.inference.exact import Factor, marginals
from pgm.inference.exact.factors import Scope
from privacy.synthesis.curator import Measurement


@dataclass(frozen=True, eq=False)
class Estimate:
    """A Markov random field fitted to noisy marginals.

    Attributes:
        factors: its log-potentials, one a measured marginal.
        rows: n, the number of rows, estimated or declared.
        loss: L at the end.
        steps: of mirror descent that were made.
    """

    factors: tuple[Factor, ...]
    rows: float
    loss: float
    steps: int

    def counts(self, scope: Scope) -> Tensor:
        """n times a marginal, shape (cells of each column)."""
        return self.rows * marginals(self.factors, [scope])[scope][0]


def number_of_rows(measurements: Sequence[Measurement]) -> float:
    """n from the sums of noisy marginals, weighted by inverse variances; at least 1."""
    variance = torch.stack([m.std.square().sum() for m in measurements])
    sums = torch.stack([m.counts.sum() for m in measurements])
    return max(1.0, float((sums / variance).sum() / (1 / variance).sum()))


def estimate(
    measurements: Sequence[Measurement],
    *,
    rows: float,
    start: Sequence[Factor] = (),
    steps: int = 500,
    tolerance: float = 1e-6,
) -> Estimate:
    """Mirror descent with momentum, which is dropped where it led uphill, and a line search.

    Args:
        measurements: of which every column has one; no scope twice.
        rows: n.
        start: potentials of an earlier estimate; new ones are zero.
        steps: the most that are made.
        tolerance: it stops where a step lowers L, or 1 if L is less, by a smaller share, ten times
            in a row.
    """
    theta = ahead = _start(measurements, start)
    least, step, momentum, quiet, made = math.inf, 1.0, 0, 0, 0
    while made < steps and quiet < 10:
        made += 1
        moved, loss, step = _descend(ahead, step, measurements, rows)
        if loss > least and momentum:
            ahead, momentum = theta, 0
            continue
        quiet = quiet + 1 if least - loss <= tolerance * max(loss, 1.0) else 0
        momentum += 1
        share = (momentum - 1) / (momentum + 2)
        ahead = {s: moved[s] + share * (moved[s] - theta[s]) for s in theta}
        theta, least = moved, loss
    return Estimate(tuple(Factor(s, table) for s, table in theta.items()), rows, least, made)


def _descend(
    theta: dict[Scope, Tensor], step: float, measurements: Sequence[Measurement], rows: float
) -> tuple[dict[Scope, Tensor], float, float]:
    """One step, as long as it keeps half of what the slope promises; L there, and the next length.

    Step lengths are for L / n, whose slopes are of the size of shares.
    """
    mu = _marginals(theta)
    loss, gradient = _loss(mu, measurements, rows)
    while True:
        moved = {s: theta[s] - step / rows * gradient[s] for s in theta}
        there = _marginals(moved)
        lower, _ = _loss(there, measurements, rows)
        slope = sum(float((gradient[s] * (mu[s] - there[s])).sum()) for s in theta)
        if loss - lower >= 0.5 * slope or step < 1e-12:
            return moved, lower, 1.1 * step
        step /= 2


def _start(measurements: Sequence[Measurement], start: Sequence[Factor]) -> dict[Scope, Tensor]:
    """Potentials to begin with: of single columns those that independence would have."""
    known = {factor.scope: factor.log_value for factor in start}
    first = {m.scope: m for m in measurements if len(m.scope) == 1 and not start}
    known |= {scope: m.counts.clamp_min(0.1 * m.std).log() for scope, m in first.items()}
    return {m.scope: known.get(m.scope, torch.zeros_like(m.counts)) for m in measurements}


def _marginals(theta: Mapping[Scope, Tensor]) -> dict[Scope, Tensor]:
    found = marginals([Factor(scope, table) for scope, table in theta.items()], list(theta))
    return {scope: found[scope][0] for scope in theta}


def _loss(
    mu: Mapping[Scope, Tensor], measurements: Sequence[Measurement], rows: float
) -> tuple[float, dict[Scope, Tensor]]:
    """L and its derivative by mu."""
    left = {m.scope: (rows * mu[m.scope] - m.counts) / m.std for m in measurements}
    gradient = {m.scope: rows * left[m.scope] / m.std for m in measurements}
    return sum(float(x.square().sum()) for x in left.values()) / 2, gradient
