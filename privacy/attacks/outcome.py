"""What an attack found: AUC, true positives at few false ones, and what a promise allows.

(epsilon, delta)-privacy bounds every attack on a row that is added or removed (Kairouz, Oh &
Viswanath 2015, thm 2.1):

    TPR <= min(e^epsilon FPR + delta, 1 - e^-epsilon (1 - delta - FPR)).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from privacy.accounting import check_delta, check_epsilon
from privacy.auditing.bounds import check_confidence, clopper_pearson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REFUTING = 0.999
"""The confidence with which a promise is said not to be kept."""


@dataclass(frozen=True)
class Interval:
    """An estimate between the ends of its confidence interval."""

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


@dataclass(frozen=True, eq=False)
class Attack:
    """What an attack makes of rows whose membership is known.

    Intervals take the rows as independent, which those of one model are nearly and those of several
    target models, being the same rows again, are less.

    Attributes:
        name: of the attack.
        scores: larger for rows that are taken for members, shape (n,).
        members: which rows were, shape (n,).
        confidence: of the intervals.
        promise: (epsilon, delta) that the training keeps for a row; None if it keeps none.
    """

    name: str
    scores: Float[Tensor, " n"]
    members: Bool[Tensor, " n"]
    confidence: float = 0.95
    promise: tuple[float, float] | None = None

    @property
    def auc(self) -> Interval:
        """The probability that a member scores above another row, with Newcombe's interval.

        It inverts Hanley & McNeil's (1982) standard error (Newcombe 2006, part 2, method 5), and
        so has a length where the attack is perfect, too.
        """
        from scipy.stats import rankdata

        inside = int(self.members.sum())
        outside = len(self.members) - inside
        ranks = rankdata(self.scores.cpu().numpy())[self.members.cpu().numpy()]
        auc = float((ranks.sum() - inside * (inside + 1) / 2) / (inside * outside))
        return _newcombe(auc, inside, outside, self.confidence)

    def tpr(self, fpr: float) -> Interval:
        """The share of members found by the lowest threshold with at most that FPR.

        The interval is Clopper & Pearson's at that threshold.
        """
        _, found = self._counts(fpr)
        return _share(found, int(self.members.sum()), self.confidence)

    def bound(self, fpr: float) -> float:
        """The TPR that the promise allows; 1 without a promise."""
        return 1.0 if self.promise is None else tpr_bound(fpr, *self.promise)

    def kept(self, fpr: float) -> bool:
        """Whether the promise allows what was found, at the near ends of 99.9 % intervals."""
        alpha, found = self._counts(fpr)
        inside = int(self.members.sum())
        fpr_end = _share(alpha, len(self.members) - inside, _REFUTING).upper
        return _share(found, inside, _REFUTING).lower <= self.bound(fpr_end)

    @property
    def advantage(self) -> Interval:
        """TPR - FPR at the members' mean score (Yeom et al. 2018, def. 4).

        The interval adds Newcombe's (1998, method 10) squares of those of the two rates.
        """
        threshold = self.scores[self.members].mean()
        found = self.scores >= threshold
        t, f = (
            _share(int(found[group].sum()), int(group.sum()), self.confidence)
            for group in (self.members, ~self.members)
        )
        value = t.value - f.value
        lower = value - math.hypot(t.value - t.lower, f.upper - f.value)
        upper = value + math.hypot(t.upper - t.value, f.value - f.lower)
        return Interval(value, lower, upper)

    def plot(self, *, ax: "Axes | None" = None) -> "Axes":
        """The ROC curve on logarithmic axes, where the small false-positive rates show."""
        import matplotlib.pyplot as plt
        from sklearn.metrics import roc_curve

        ax = ax or plt.subplots()[1]
        fpr, tpr, _ = roc_curve(self.members.cpu().numpy(), self.scores.cpu().numpy())
        least = 1 / len(self.members)
        if ax.lines:
            least = min(least, ax.get_xlim()[0])
        ax.plot(np.maximum(fpr, least), np.maximum(tpr, least), label=self.name)
        grid = np.geomspace(least, 1.0, 100)
        if "guessing" not in ax.get_legend_handles_labels()[1]:
            ax.plot(grid, grid, color="0.7", linestyle=":", label="guessing")
        if self.promise is not None:
            allowed = [self.bound(float(x)) for x in grid]
            label = f"allowed by epsilon {self.promise[0]:.3g}"
            ax.plot(grid, allowed, color="0.3", linestyle="--", label=label)
        ax.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1.05))
        ax.set(xlabel="false-positive rate", ylabel="true-positive rate")
        ax.legend(loc="lower right")
        return ax

    def __str__(self) -> str:
        inside = int(self.members.sum())
        others = len(self.members) - inside
        lines = [
            f"{self.name} on {inside} members and {others} other rows "
            f"({100 * self.confidence:g} % intervals): AUC {self.auc}"
        ]
        for fpr in [rate for rate in (0.001, 0.01, 0.1) if rate * others >= 1] or [0.0]:
            line = f"  TPR {self.tpr(fpr)} at FPR {100 * fpr:g} %"
            if self.promise is not None:
                kept = "" if self.kept(fpr) else ": MORE THAN IT ALLOWS"
                line += f" (epsilon {self.promise[0]:.3g} allows {self.bound(fpr):.3f}){kept}"
            lines.append(line)
        return "\n".join(lines)

    def _counts(self, fpr: float) -> tuple[int, int]:
        """False and true positives of the lowest threshold that keeps the rate."""
        if not 0 <= fpr <= 1:
            raise ValueError(f"fpr is {fpr}; it is a rate between 0 and 1, such as 0.01.")
        others = self.scores[~self.members].sort(descending=True).values
        allowed = int(fpr * len(others) + 1e-9)
        if allowed == len(others):
            return allowed, int(self.members.sum())
        above = self.scores > others[allowed]
        return int(above[~self.members].sum()), int(above[self.members].sum())


def tpr_bound(fpr: float, epsilon: float, delta: float) -> float:
    """The true-positive rate that (epsilon, delta)-privacy allows an attack with that FPR.

    Example:
        >>> tpr_bound(0.01, 1.0, 1e-5), tpr_bound(0.5, 1.0, 1e-5)
        (0.0272, 0.816)
    """
    grown = math.exp(min(epsilon, 700.0)) * fpr + delta
    return max(0.0, min(1.0, grown, 1 - math.exp(-epsilon) * (1 - delta - fpr)))


def judged(
    name: str,
    scores: Tensor,
    members: Tensor,
    confidence: float,
    promise: tuple[float, float] | None,
) -> Attack:
    """The outcome, of scores that are numbers and of members and others.

    Raises:
        ValueError: a score that is not a number, or nobody on a side.
    """
    if bool(scores.isnan().any()):
        raise ValueError(
            f"{int(scores.isnan().sum())} scores are not numbers: the model has lost its "
            "parameters, or has no density there. Train it anew, or pass another score=."
        )
    if not 0 < int(members.sum()) < len(members):
        raise ValueError(
            f"{int(members.sum())} of {len(members)} rows are members; an attack is judged on "
            "members and on other rows. Pass both."
        )
    scores = scores.detach().cpu()
    return Attack(name, scores, members.cpu(), confidence, promise)


def check_promise(confidence: float, promise: tuple[float, float] | None) -> None:
    """Refuses a confidence or a promise that is out of range.

    Raises:
        TypeError: a promise that is no pair of numbers.
        ValueError: which, and what it should be.
    """
    check_confidence(confidence)
    if promise is not None:
        try:
            epsilon, delta = promise
        except (TypeError, ValueError):
            raise TypeError(f"promise is {promise!r}; it is a pair (epsilon, delta).") from None
        check_epsilon(epsilon)
        check_delta(delta)


def _share(count: int, n: int, confidence: float) -> Interval:
    lower, upper = clopper_pearson(count, n, (1 - confidence) / 2)
    return Interval(count / n, float(lower), float(upper))


def _newcombe(auc: float, inside: int, outside: int, confidence: float) -> Interval:
    """All theta for which |auc - theta| <= z SE(theta)."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    z, half = float(norm.ppf((1 + confidence) / 2)), (inside + outside) / 2 - 1

    def error(theta: float) -> float:
        pairs = 1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return math.sqrt(theta * (1 - theta) * pairs / (inside * outside))

    def end(sign: float, limit: float) -> float:
        def miss(theta: float) -> float:
            return sign * (theta - auc) - z * error(theta)

        return limit if miss(limit) <= 0 else float(brentq(miss, auc, limit))

    return Interval(auc, end(-1.0, 0.0), end(1.0, 1.0))
