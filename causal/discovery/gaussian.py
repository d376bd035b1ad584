"""Scores of numbers under linear-Gaussian mechanisms: BGe and BIC, from means and scatter."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from causal.discovery.cells import Kinds

Scored = tuple[Int[Tensor, " k"], Int[Tensor, "k parents"], Float[Tensor, " k"]]

_SINGULAR = 1e-10
"""The least eigenvalue of columns of unit variance, below which one is a function of the others."""


@dataclass(frozen=True)
class Gaussian:
    """A score of numbers: log g(child, parents) - log g(parents) of the rows of the child."""

    kinds: ClassVar[Kinds] = "numbers"

    def whole(self, rows: Float[Tensor, "rows n"]) -> Float[Tensor, "n n"]:
        """The matrix of which `local` sees the part of a set."""
        raise NotImplementedError

    def local(self, part: Float[Tensor, "k l l"], rows: int, n: int) -> Float[Tensor, " k"]:
        """log g of sets of l columns, of n in all."""
        raise NotImplementedError


@dataclass(frozen=True)
class BGe(Gaussian):
    """The marginal likelihood of linear-Gaussian graphs (Geiger & Heckerman 2002).

    Normal-Wishart prior with mean zero and T = t I, t = mean_rows (w - n - 1) / (mean_rows + 1),
    in the corrected form of Kuipers, Moffa & Heckerman (2014, Annals of Statistics 42). Columns are
    standardised first, as the prior has a scale.

    Args:
        mean_rows: how many rows the prior mean is worth.
        degrees: w - n, the degrees of freedom beyond the number n of columns; more than 1. Two by
            default, the least whole number.

    Raises:
        ValueError: values outside their range.
    """

    mean_rows: float = 1.0
    degrees: float = 2.0

    def __post_init__(self) -> None:
        if not (self.mean_rows > 0 and self.degrees > 1):
            raise ValueError(
                f"BGe(mean_rows={self.mean_rows}, degrees={self.degrees}): mean_rows is positive, "
                "and degrees more than 1, or the prior has no scale."
            )

    @property
    def scale(self) -> float:
        """t, the diagonal of the prior's matrix T."""
        return self.mean_rows * (self.degrees - 1) / (self.mean_rows + 1)

    def whole(self, rows: Float[Tensor, "rows n"]) -> Float[Tensor, "n n"]:
        """R = T + scatter + N a / (N + a) mean mean^T."""
        n, mean = len(rows), rows.mean(0)
        centred, a = rows - mean, self.mean_rows
        scatter = centred.T @ centred + (n * a / (n + a)) * torch.outer(mean, mean)
        return scatter + self.scale * torch.eye(rows.shape[1], dtype=rows.dtype)

    def local(self, part: Float[Tensor, "k l l"], rows: int, n: int) -> Float[Tensor, " k"]:
        """log p of the rows of l columns, eq. 4 of the correction."""
        size, a = part.shape[-1], self.mean_rows
        w = torch.tensor((self.degrees + size) / 2, dtype=part.dtype)
        gammas = _log_gamma(w + rows / 2, size) - _log_gamma(w, size)
        constant = size / 2 * (math.log(a / (rows + a)) - rows * math.log(math.pi))
        prior = float(w) * size * math.log(self.scale)
        return constant + gammas + prior - (float(w) + rows / 2) * torch.logdet(part)


@dataclass(frozen=True)
class GaussianBIC(Gaussian):
    """The largest log-likelihood of linear-Gaussian mechanisms, less log(rows) / 2 a parameter."""

    def whole(self, rows: Float[Tensor, "rows n"]) -> Float[Tensor, "n n"]:
        """The covariance."""
        centred = rows - rows.mean(0)
        return centred.T @ centred / len(rows)

    def local(self, part: Float[Tensor, "k l l"], rows: int, n: int) -> Float[Tensor, " k"]:
        """A set's part of log-likelihood and penalty: a mean, a variance and coefficients each."""
        size = part.shape[-1]
        if bool((torch.linalg.eigvalsh(part)[:, 0] < _SINGULAR).any()):
            raise ValueError(
                "A column is a linear function of others: the likelihood has no bound. Leave one "
                "of them out, or use BGe(), whose prior bounds it."
            )
        fit = -rows / 2 * (torch.logdet(part) + size * (math.log(2 * math.pi) + 1))
        return fit - 0.5 * math.log(rows) * (2 * size + size * (size - 1) / 2)


def families(
    x: Float[Tensor, "rows n"], clamped: Bool[Tensor, "rows n"], score: Gaussian, *, most: int
) -> Iterator[Scored]:
    """Children, parents and scores, for every child and every set of parents up to a size.

    Raises:
        ValueError: too few rows, or a column that is a linear function of others.
    """
    n = x.shape[1]
    x = (x - x.mean(0)) / x.std(0)
    never = ~clamped.any(0)
    groups = [never.nonzero()[:, 0]] if bool(never.any()) else []
    groups += [j[None] for j in (~never).nonzero()[:, 0]]
    for children in groups:
        rows = x[~clamped[:, children[0]]]
        _check_rows(rows, most)
        yield from _scored(score.whole(rows), len(rows), children, n, score, most)


def _scored(
    whole: Tensor, rows: int, children: Tensor, n: int, score: Gaussian, most: int
) -> Iterator[Scored]:
    parents = torch.zeros(1, 0, dtype=torch.long)
    for size in range(most + 1):
        if size:
            parents = torch.tensor(list(itertools.combinations(range(n), size)))
        for child in children:
            mine = parents[(parents != child).all(1)]
            both = torch.cat([mine, child.expand(len(mine), 1)], 1)
            value = _of_sets(whole, both, rows, n, score) - _of_sets(whole, mine, rows, n, score)
            yield child.expand(len(mine)), mine, value


def _of_sets(whole: Tensor, sets: Tensor, rows: int, n: int, score: Gaussian) -> Tensor:
    if not sets.shape[1]:
        return whole.new_zeros(len(sets))
    return score.local(whole[sets[:, :, None], sets[:, None, :]], rows, n)


def _log_gamma(a: Tensor, size: int) -> Tensor:
    """log of the multivariate gamma function, without its power of pi, which cancels."""
    return torch.lgamma(a - torch.arange(size, dtype=a.dtype) / 2).sum()


def _check_rows(rows: Tensor, most: int) -> None:
    if len(rows) < most + 2:
        raise ValueError(
            f"{len(rows)} rows tell of a node with {most} parents: fewer than it has parameters. "
            "Add rows, or lower max_parents."
        )
