"""Whether treated and untreated rows are comparable at all: the propensity and what it says.

e(w) = P(treated | w) (Rosenbaum & Rubin 1983). Rows with e near 0 or 1 have hardly a counterpart in
the other arm: weights explode there, and a regression answers by its form alone. Nothing is clipped
here; rows are left out only by `trim=` (Crump, Hotz, Imbens & Mitnik 2009).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from causal.bridge.table import Table

Units = Literal["ate", "att", "atc"]
"""Whom an effect is averaged over: all rows, those treated, those not."""

WHOM = {"ate": "all rows", "att": "the treated rows", "atc": "the untreated rows"}


@dataclass(frozen=True, eq=False)
class Overlap:
    """How far the two arms overlap.

    Attributes:
        treated: the propensity of the treated rows.
        untreated: the propensity of the untreated rows.
        ess: effective number of rows behind the weights of each arm, (sum w)^2 / sum w^2.
        imbalance: largest difference of a covariate's means between the arms, in pooled standard
            deviations: as they are, and weighted.
    """

    treated: Float[Tensor, " n1"]
    untreated: Float[Tensor, " n0"]
    ess: tuple[float, float]
    imbalance: tuple[float, float]

    @property
    def outside(self) -> float:
        """The share of rows whose propensity lies outside [.05, .95]."""
        e = torch.cat([self.treated, self.untreated])
        return float(((e < 0.05) | (e > 0.95)).double().mean())

    @property
    def support(self) -> tuple[float, float]:
        """The propensities that occur in both arms; empty where the first exceeds the second."""
        return (
            max(float(self.treated.min()), float(self.untreated.min())),
            min(float(self.treated.max()), float(self.untreated.max())),
        )

    @property
    def apart(self) -> float:
        """The share of rows outside the common support."""
        low, high = self.support
        e = torch.cat([self.treated, self.untreated])
        return float(((e < low) | (e > high)).double().mean())

    @property
    def worries(self) -> list[str]:
        """What is wrong, in words; empty where the arms overlap well."""
        found = []
        for arm, ess, n in zip(("treated", "untreated"), self.ess, self._sizes, strict=True):
            if ess < 0.1 * n or ess < 30:
                found.append(f"{ess:.0f} of {n} {arm} rows carry the weights of their arm")
        if self.outside > 0.1:
            found.append(f"{self.outside:.0%} of the rows have hardly a counterpart")
        if self.imbalance[1] > 0.1:
            found.append(f"weighting leaves an imbalance of {self.imbalance[1]:.2f} deviations")
        return found

    def plot(self, ax: Any = None) -> Any:
        """Draws the propensities of both arms; returns the matplotlib axes."""
        import matplotlib.pyplot as plt

        ax = plt.gca() if ax is None else ax
        for e, name in ((self.treated, "treated"), (self.untreated, "untreated")):
            ax.hist(e.numpy(), bins=np.linspace(0, 1, 41), density=True, alpha=0.5, label=name)
        ax.set(xlabel="propensity", ylabel="density")
        ax.legend()
        return ax

    @property
    def _sizes(self) -> tuple[int, int]:
        return len(self.treated), len(self.untreated)

    def __str__(self) -> str:
        low, high = self.support
        quantiles = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
        lines = ["Overlap: propensity"]
        for arm, e, ess in zip(
            ("treated", "untreated"), (self.treated, self.untreated), self.ess, strict=True
        ):
            q = " ".join(f"{v:.3g}" for v in e.double().quantile(quantiles).tolist())
            lines.append(f"  {arm:<9}  {len(e)} rows, 5%/50%/95% at {q}; effective rows {ess:.1f}")
        lines.append(f"  outside [.05, .95]: {self.outside:.1%} of the rows")
        shared = f"[{low:.3g}, {high:.3g}], {self.apart:.1%} of the rows outside"
        lines.append(f"  common support: {shared if low <= high else 'none'}")
        before, after = self.imbalance
        lines.append(f"  largest imbalance: {before:.2f} deviations, {after:.2f} when weighted")
        return "\n".join([*lines, *(f"  ! {worry}" for worry in self.worries)])


def propensity_model(model: Any = None) -> Any:
    """A classifier for the propensity: a copy of the user's, or a logistic regression.

    The regression is penalised just enough for its maximum to exist where the arms separate.
    """
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1e6, max_iter=2000) if model is None else clone(model)


def propensity(table: Table, model: Any = None) -> Any:
    """P(treated | covariates) of every row, (n,), from a model fitted to these rows.

    Args:
        table: with a binary treatment.
        model: a scikit-learn classifier, copied; None for a logistic regression.
    """
    treated = table.treated
    if not table.covariates:
        return np.full(len(treated), treated.mean())
    X = table.frame[list(table.covariates)].to_numpy()
    return propensity_model(model).fit(X, treated.astype(int)).predict_proba(X)[:, 1]


def weights(treated: Any, e: Any, units: Units) -> Any:
    """The weight of every row that makes each arm look like the units."""
    own, other = np.where(treated, e, 1 - e), np.where(treated, 1 - e, e)
    with np.errstate(divide="ignore"):
        if units == "ate":
            return 1 / own
        at_home = treated if units == "att" else ~treated
        return np.where(at_home, 1.0, other / own)


def overlap(table: Table, e: Any, units: Units) -> Overlap:
    """The report on a table with a binary treatment, given the propensity of its rows."""
    treated = table.treated
    w = weights(treated, e, units)
    X = table.frame[list(table.covariates)].to_numpy()
    arms = (treated, ~treated)
    return Overlap(
        torch.as_tensor(e[treated]),
        torch.as_tensor(e[~treated]),
        (_ess(w[arms[0]]), _ess(w[arms[1]])),
        (_imbalance(X, arms, np.ones(len(e))), _imbalance(X, arms, w)),
    )


def _ess(w: Any) -> float:
    if not np.isfinite(w).all():
        return 0.0
    return float(w.sum() ** 2 / (w**2).sum())


def _imbalance(X: Any, arms: tuple[Any, Any], w: Any) -> float:
    if not X.shape[1] or not np.isfinite(w).all():
        return 0.0 if np.isfinite(w).all() else float("inf")
    means = [np.average(X[arm], axis=0, weights=w[arm]) for arm in arms]
    pooled = np.sqrt(sum(X[arm].var(0) for arm in arms) / 2)
    return float((np.abs(means[0] - means[1]) / np.maximum(pooled, 1e-12)).max())
