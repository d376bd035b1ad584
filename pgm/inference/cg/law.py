"""Conditional Gaussian laws: discrete variables, and numbers that are normal given them.

    p(i, y) = p(i) N(y; mu_i, Sigma_i),    i a configuration of the discrete variables

(Lauritzen & Wermuth 1989, "Graphical models for associations between variables, some of which are
qualitative and some quantitative"). Given evidence the law is again of this form, row by row: the
moment characteristics (p, mu, Sigma) are its exact posterior, and every marginal is read off them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pgm.inference import normal
from pgm.schema.columns import listing, suggestion


@dataclass(frozen=True, eq=False)
class ConditionalGaussian:
    """A law for each of n rows by its moment characteristics.

    Attributes:
        levels: of the discrete variables, how many by name.
        numbers: the d continuous variables.
        configurations: the levels of the discrete variables, shape (n, K, discrete variables).
        log_p: log probabilities of the configurations, shape (n, K).
        mean: mu_i, shape (n, K, d).
        covariance: Sigma_i, shape (n, K, d, d).
    """

    levels: Mapping[str, int]
    numbers: tuple[str, ...]
    configurations: Int[Tensor, "n K discrete"]
    log_p: Float[Tensor, "n K"]
    mean: Float[Tensor, "n K d"]
    covariance: Float[Tensor, "n K d d"]

    def probabilities(self, name: str) -> Float[Tensor, "n levels"]:
        """The probabilities of the levels of a discrete variable, by row.

        Raises:
            ValueError: no such variable.
        """
        at = _index(name, list(self.levels), "discrete")
        p = self.log_p.new_zeros(len(self.log_p), self.levels[name])
        return p.scatter_add(1, self.configurations[..., at], self.log_p.exp())

    def moments(self, name: str) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Mean and variance of a number, by row.

        Raises:
            ValueError: no such variable.
        """
        at, p = _index(name, self.numbers, "continuous"), self.log_p.exp()
        each, within = self.mean[..., at], self.covariance[..., at, at]
        mean = (p * each).sum(-1)
        return mean, (p * (within + (each - mean.unsqueeze(-1)).square())).sum(-1)

    def law(self, name: str) -> Any:
        """The law of a number, a mixture of normals with batch shape (n,).

        Raises:
            ValueError: no such variable, or one that was seen or set: a point has no density.
        """
        at = _index(name, self.numbers, "continuous")
        variance = self.covariance[..., at, at]
        if not bool((variance > 0).all()):
            raise ValueError(
                f"{name!r} was seen or set in some of the rows: a point has no density there. Use "
                "moments, or ask of rows in which it is open."
            )
        parts = dist.Normal(self.mean[..., at], variance.sqrt())
        return dist.MixtureSameFamily(dist.Categorical(logits=self.log_p), parts)

    @property
    def entropy(self) -> Float[Tensor, " n"]:
        """H(i) + sum_i p(i) H(y | i), differential in the numbers, in nats, by row."""
        p, d = self.log_p.exp(), len(self.numbers)
        log_det = normal.log_determinant(torch.linalg.cholesky(self.covariance))
        each = log_det + 0.5 * d * (1 + math.log(2 * math.pi))
        return (p * each).sum(-1) + torch.special.entr(p).sum(-1)

    def __str__(self) -> str:
        """The first row, a line a variable."""
        wide = max(map(len, (*self.levels, *self.numbers)))
        lines = []
        for name in self.levels:
            p = self.probabilities(name)[0].tolist()
            lines.append(f"{name:<{wide}}  {'  '.join(f'{k} {v:.4f}' for k, v in enumerate(p))}")
        for name in self.numbers:
            mean, variance = (float(part[0]) for part in self.moments(name))
            lines.append(f"{name:<{wide}}  mean {mean:.4f}  sd {math.sqrt(max(variance, 0)):.4f}")
        more = [f"(the first of {len(self.log_p)} rows)"] if len(self.log_p) > 1 else []
        return "\n".join([*lines, *more])


def condition(
    prior: ConditionalGaussian,
    y: Float[Tensor, "n d"],
    seen: Bool[Tensor, "n d"],
    allowed: Bool[Tensor, "n K"],
) -> tuple[ConditionalGaussian, Float[Tensor, " n"]]:
    """The posterior of every row given its seen numbers and the configurations it allows.

    Args:
        prior: the law before, of one row or of n.
        y: the numbers, anything where they are not seen.
        seen: which of them were seen; one without a spread, which was set, must not be.
        allowed: whether a configuration agrees with the discrete variables that were seen.

    Returns:
        The posterior, and log p of what was seen, -inf where that is impossible.
    """
    log_joint = log_joint_of(prior, y, seen, allowed)
    evidence = log_joint.logsumexp(-1)
    mean, spread = normal.conditional(y[:, None], seen[:, None], prior.mean, prior.covariance)
    configurations = prior.configurations.expand(*log_joint.shape, -1)
    log_p = log_joint - evidence.unsqueeze(-1)
    found = replace(prior, configurations=configurations, log_p=log_p, mean=mean, covariance=spread)
    return found, evidence


def log_joint_of(
    prior: ConditionalGaussian,
    y: Float[Tensor, "n d"],
    seen: Bool[Tensor, "n d"],
    allowed: Bool[Tensor, "n K"],
) -> Float[Tensor, "n K"]:
    """log p(i, y_seen) of every row and configuration; -inf where it is not allowed."""
    log_y = normal.log_density(y[:, None], seen[:, None], prior.mean, prior.covariance)
    return (prior.log_p + log_y).masked_fill(~allowed, -torch.inf)


def divergence(p: ConditionalGaussian, q: ConditionalGaussian) -> Float[Tensor, " n"]:
    """KL(p || q) in nats: that of the configurations, plus the mean of those of the normals.

    Raises:
        ValueError: laws of different variables.
    """
    if (dict(p.levels), p.numbers) != (dict(q.levels), q.numbers):
        raise ValueError(
            f"The laws are of different variables: {listing([*p.levels, *p.numbers])} and "
            f"{listing([*q.levels, *q.numbers])}, in this order. A divergence compares laws of "
            "the same variables: build both over the same nodes."
        )
    weight = p.log_p.exp()
    each = normal.divergence(p.mean, p.covariance, q.mean, q.covariance)
    gap = torch.where(weight > 0, p.log_p - q.log_p, 0.0)
    return (weight * torch.where(weight > 0, gap + each, 0.0)).sum(-1)


def _index(name: str, known: Any, kind: str) -> int:
    names = list(known)
    if name not in names:
        raise ValueError(
            f"{name!r} is no {kind} variable of this law.{suggestion(name, names)} It has "
            f"{listing(names) or 'none'}."
        )
    return names.index(name)
