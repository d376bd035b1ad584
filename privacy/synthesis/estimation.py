"""Private-PGM: the distribution that explains noisy marginals best (McKenna, Sheldon & Miklau 2019).

Among the marginals mu of all distributions over the cells, those are sought that minimise

    L(mu) = 1/2 sum_r || (n mu_r - y_r) / sigma_r ||^2,

by mirror descent with the entropy of the whole: mu are the marginals of p(x) ~ exp(sum_r theta_r),
and theta_r <- theta_r - step dL / dmu_r (Alg. 2). p is then the one of largest entropy with these
marginals. The sums over all x are `pgm.inference.exact`'s.
"""

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
    """n from the sums of noisy marginals, weighted by the inverse of their variances; at least 1."""
    variance = torch.stack([m.std.square().sum() for m in measurements])
    sums = torch.stack([m.counts.sum() for m in measurements])
    return max(1.0, float((sums / variance).sum() / (1 / variance).sum()))


def estimate(
    measurements: Sequence[Measurement],
    *,
    rows: float,
    start: Sequence[Factor] = (),
    steps: int = 1000,
    tolerance: float = 1e-6,
) -> Estimate:
    """Mirror descent with a line search.

    Args:
        measurements: of which every column has one; no scope twice.
        rows: n.
        start: potentials of an earlier estimate; new ones are zero.
        steps: the most that are made.
        tolerance: it stops where a step lowers L by a smaller share, ten times in a row.
    """
    theta = _start(measurements, start)
    mu, step, quiet, made = _marginals(theta), 1.0, 0, 0
    loss, gradient = _loss(mu, measurements, rows)
    for made in range(1, steps + 1):
        while True:
            moved = {s: theta[s] - step / rows * gradient[s] for s in theta}
            mu_moved = _marginals(moved)
            lower, gradient_moved = _loss(mu_moved, measurements, rows)
            slope = sum(float((gradient[s] * (mu[s] - mu_moved[s])).sum()) for s in theta)
            if loss - lower >= 0.5 * slope or step < 1e-12:
                break
            step /= 2
        quiet = quiet + 1 if loss - lower <= tolerance * loss else 0
        theta, mu, loss, gradient, step = moved, mu_moved, lower, gradient_moved, 1.5 * step
        if quiet >= 10:
            break
    return Estimate(tuple(Factor(s, table) for s, table in theta.items()), rows, loss, made)


def _start(measurements: Sequence[Measurement], start: Sequence[Factor]) -> dict[Scope, Tensor]:
    known = {factor.scope: factor.log_value for factor in start}
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
