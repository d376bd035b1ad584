"""How strong a common cause that nobody measured would have to be to change the answer.

bias^2 <= S^2 R_y^2 R_t^2 / (1 - R_t^2), with S^2 = E (y - g)^2 E alpha^2: R_y^2 is the share of the
outcome's remaining variance that the unseen cause explains, R_t^2 that of the treatment's (of its
weights alpha, for two arms), both given the covariates (Chernozhukov, Cinelli, Newey, Sharma &
Syrgkanis 2022, "Long story short", thm. 2; Cinelli & Hazlett 2020 for a regression). The bound is
attained, so that nothing smaller would be safe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from causal.bridge.adjustment import Adjusted
from causal.bridge.estimators import arms
from causal.bridge.overlap import propensity, weights
from causal.bridge.table import OUTCOME, TREATMENT, Table


@dataclass(frozen=True)
class Sensitivity:
    """What an unseen common cause could do to an effect.

    Attributes:
        value: the estimate.
        scale: S, in the unit of the effect.
        robustness: the share of both variances that it would have to explain to make the effect
            zero.
        covariates: for each covariate, the shares (R_y^2, R_t^2) that it explains itself, given the
            others.
    """

    value: float
    scale: float
    robustness: float
    covariates: Mapping[str, tuple[float, float]]

    def bias(self, outcome: float, treatment: float) -> float:
        """The most that a cause explaining these shares could add to or take from the effect.

        Args:
            outcome: R_y^2, in [0, 1].
            treatment: R_t^2, in [0, 1).
        """
        if not (0 <= outcome <= 1 and 0 <= treatment < 1):
            raise ValueError(
                f"bias({outcome}, {treatment}): both are shares of a variance, from 0 to 1, and a "
                "cause that explains all of the treatment leaves nothing to compare."
            )
        return float(self.scale * np.sqrt(outcome * treatment / (1 - treatment)))

    def __str__(self) -> str:
        lines = [
            f"Unseen common cause: {self.robustness:.1%} of what is left of the variance of both "
            f"treatment and outcome would bring the effect from {self.value:.4g} to zero."
        ]
        for name, (y, t) in self.covariates.items():
            low, high = self.value - self.bias(y, t), self.value + self.bias(y, t)
            lines.append(f"  one as strong as {name}: the effect in [{low:.4g}, {high:.4g}]")
        return "\n".join(lines)


def sensitivity(found: Adjusted) -> Sensitivity:
    """How far an unseen common cause could move an effect that was found by adjustment.

    Args:
        found: an effect of `causal.adjust`.

    Raises:
        ValueError: an effect that was found otherwise.

    Example:
        >>> import pandas as pd, torch
        >>> from causal.bridge import adjust
        >>> u, v, e = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0))
        >>> frame = pd.DataFrame({"t": u + v, "y": 2 * (u + v) + u + e})
        >>> found = adjust(frame, "t -> y", treatment="t", outcome="y", refits=40, seed=0)
        >>> sensitivity(found).bias(1 / 3, 1 / 2)  # the shares of u, which was not measured
        0.5
    """
    if found.strategy.kind != "adjustment":
        raise ValueError(
            f"The effect was found by {found.strategy.kind}: what an unseen common cause of "
            "treatment and outcome does to it is not this bound. It rests on other assumptions, "
            "which its strategy names."
        )
    noise, alpha = _moments(found, found.table)
    scale = float(np.sqrt(noise * alpha))
    f = (found.value / scale) ** 2
    robustness = float((np.sqrt(f**2 + 4 * f) - f) / 2)
    covariates = {}
    for name in found.strategy.adjust:
        less = _moments(found, _without(found.table, name))
        y, t = 1 - noise / less[0], 1 - less[1] / alpha
        covariates[name] = (float(np.clip(y, 0, 1)), float(np.clip(t, 0, 1 - 1e-12)))
    return Sensitivity(found.value, scale, robustness, covariates)


def _moments(found: Adjusted, table: Table) -> tuple[float, float]:
    """E (y - g)^2 and E alpha^2."""
    y = table.frame[OUTCOME].to_numpy()
    if not table.binary:
        return _linear(table)
    treated, units = table.treated, found.estimator.units
    m1, m0 = arms(table)
    residual = y - np.where(treated, m1, m0)
    w = weights(treated, propensity(table, found.estimator.model), units)
    share = {"ate": 1.0, "att": treated.mean(), "atc": 1 - treated.mean()}[units]
    return float((residual**2).mean()), float((w**2).mean() / share**2)


def _linear(table: Table) -> tuple[float, float]:
    """The same for an outcome linear in the treatment; alpha = t / E t^2, t partialled out."""
    W = np.column_stack([np.ones(len(table.frame)), table.frame[list(table.covariates)]])
    both = table.frame[[TREATMENT, OUTCOME]].to_numpy()
    t, y = (both - W @ np.linalg.lstsq(W, both, rcond=None)[0]).T
    slope = (t @ y) / (t @ t)
    contrast: Any = table.do - table.versus
    return float(((y - slope * t) ** 2).mean()), float(contrast**2 / (t**2).mean())


def _without(table: Table, name: str) -> Table:
    own = (f"of {name}", f"of {name} = ")
    left = [c for c in table.covariates if c != own[0] and not c.startswith(own[1])]
    return replace(table, covariates=tuple(left))
