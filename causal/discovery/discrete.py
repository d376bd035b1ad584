"""Scores of levels: BDeu, BDs and BIC, from the counts of a child and its parents.

With N_jk rows in configuration j of the parents and level k of the child,

    BD = prod_j Gamma(a_j) / Gamma(a_j + N_j) prod_k Gamma(a_jk + N_jk) / Gamma(a_jk)

is the marginal likelihood under Dirichlet priors (Heckerman, Geiger & Chickering 1995, eq. 28).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from causal.discovery.cells import Kinds


@dataclass(frozen=True)
class Discrete:
    """A score of levels; `local` gives it from counts, (k, q, r) -> (k,)."""

    kinds: ClassVar[Kinds] = "levels"

    def local(self, counts: Float[Tensor, "k q r"]) -> Float[Tensor, " k"]:
        """The logarithmic score of each of k families."""
        raise NotImplementedError

    def prior(self, q: int, r: int) -> float:
        """The prior count of a cell of the child's table, with which a graph is fitted."""
        raise NotImplementedError


@dataclass(frozen=True)
class BDeu(Discrete):
    """a_jk = ess / (q r): graphs that say the same independences score alike (Buntine 1991).

    Args:
        ess: the equivalent sample size, in rows.

    Raises:
        ValueError: an equivalent sample size that is not positive.

    Example:
        >>> BDeu().local(torch.tensor([[[3.0, 1.0]]]))
        tensor([-3.2425])
    """

    ess: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(self.ess)

    def local(self, counts: Float[Tensor, "k q r"]) -> Float[Tensor, " k"]:
        """The logarithmic score of each of k families."""
        q, r = counts.shape[1:]
        own, rows = self.ess / (q * r), counts.sum(-1)
        each = torch.lgamma(counts + own).sum((1, 2)) - q * r * math.lgamma(own)
        return each - torch.lgamma(rows + self.ess / q).sum(1) + q * math.lgamma(self.ess / q)

    def prior(self, q: int, r: int) -> float:
        """ess / (q r)."""
        return self.ess / (q * r)


@dataclass(frozen=True)
class BDs(Discrete):
    """BDeu with the prior on the configurations of the parents that occur (Scutari 2016).

    It does not favour more parents where few configurations are seen, but two graphs that say the
    same independences may score differently.

    Args:
        ess: the equivalent sample size, in rows.

    Raises:
        ValueError: an equivalent sample size that is not positive.

    Example:
        >>> BDs().local(torch.tensor([[[3.0, 1.0], [0.0, 0.0]]]))
        tensor([-3.2425])
    """

    ess: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(self.ess)

    def local(self, counts: Float[Tensor, "k q r"]) -> Float[Tensor, " k"]:
        """The logarithmic score of each of k families."""
        rows, r = counts.sum(-1), counts.shape[-1]
        seen = rows > 0
        whole = self.ess / seen.sum(1).clamp(min=1).to(counts.dtype)[:, None]
        own = whole[..., None] / r
        each = (torch.lgamma(counts + own) - torch.lgamma(own)).sum(-1)
        return (seen * (each + torch.lgamma(whole) - torch.lgamma(rows + whole))).sum(1)

    def prior(self, q: int, r: int) -> float:
        """ess / (q r), all configurations alike, as what never occurred may yet."""
        return self.ess / (q * r)


@dataclass(frozen=True)
class BIC(Discrete):
    """The largest log-likelihood, less log(rows) / 2 for each free probability (Schwarz 1978).

    Example:
        >>> BIC().local(torch.tensor([[[3.0, 1.0]]]))
        tensor([-2.9425])
    """

    def local(self, counts: Float[Tensor, "k q r"]) -> Float[Tensor, " k"]:
        """The logarithmic score of each of k families."""
        q, r = counts.shape[1:]
        rows = counts.sum(-1, keepdim=True)
        fit = (torch.special.xlogy(counts, counts).sum((1, 2))) - torch.special.xlogy(
            rows, rows
        ).sum((1, 2))
        n = rows.sum((1, 2))
        return fit - 0.5 * q * (r - 1) * n.clamp(min=1).log()

    def prior(self, q: int, r: int) -> float:
        """1 / (q r), one row in all: relative frequencies alone would forbid what was not seen."""
        return 1 / (q * r)


def _check_positive(ess: float) -> None:
    if not (ess > 0 and math.isfinite(ess)):
        raise ValueError(
            f"ess={ess}: the equivalent sample size is a number of rows that the prior is worth, "
            "and positive; 1 is usual."
        )
