"""From repetitions of a mechanism, with a canary and without, to what its epsilon is at least.

An auditor who says "inside" where a score exceeds a threshold errs with rates alpha (outside,
called inside) and beta (inside, called outside). Of any (epsilon, delta)-private mechanism

    1 - beta <= e^epsilon alpha + delta    and    1 - alpha <= e^epsilon beta + delta

(Kairouz, Oh & Viswanath 2015, thm 2.1), so that rates that were counted prove a lower bound on
epsilon (Jagielski, Ullman & Oprea 2020). Of a Gaussian mechanism on lots of sampling rate q,

    1 - beta <= (1 - q) alpha + q Phi(mu - t),    t = Phi^-1(1 - alpha),    mu = 1 / sigma

(Dong, Roth & Su 2022; Nasr et al. 2023, sec. 4), which is tight: it bounds mu, hence sigma. The
rates are bounded by Clopper & Pearson (1934), on other repetitions than those that chose the
thresholds. All bounds of an `Audit` hold together.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from privacy.accounting import check_delta
from privacy.ledger import rounded_up

Values = Float[np.ndarray, "..."]

_CHOOSING = 0.25
"""The share of the repetitions that chooses the thresholds, and counts for nothing else."""
_FEWEST = 20


@dataclass(frozen=True)
class Audit:
    """Lower bounds on the epsilon of a mechanism; they hold together.

    The numbers are computed from the rows that were audited, without noise.

    Attributes:
        threshold: on epsilon, whatever the mechanism.
        gaussian: on epsilon, if the mechanism is a Gaussian on lots of that rate; None if that was
            not asked.
        mu: on 1 / sigma, the inverse of the noise multiplier, under the same condition.
        delta: the probability outside the guarantee.
        confidence: with which the bounds hold.
        repetitions: that were counted, with the canary and without together.
        claim: the epsilon that the mechanism is said to spend; None if it was not said.
    """

    threshold: float
    gaussian: float | None
    mu: float | None
    delta: float
    confidence: float
    repetitions: int
    claim: float | None = None

    @property
    def lower(self) -> float:
        """The best of the bounds on epsilon."""
        return self.threshold if self.gaussian is None else max(self.threshold, self.gaussian)

    @property
    def broken(self) -> bool:
        """Whether the claim is refuted."""
        return self.claim is not None and self.lower > self.claim

    def __str__(self) -> str:
        gaussian = "" if self.gaussian is None else f", {self.gaussian:.3f} as a Gaussian mechanism"
        found = (
            f"epsilon is at least {self.threshold:.3f} by thresholds{gaussian}, at delta "
            f"{self.delta:g} with {100 * self.confidence:g} % confidence ({self.repetitions} "
            "repetitions counted)"
        )
        return found + verdict(self.claim, broken=self.broken)


def verdict(claim: float | None, *, broken: bool) -> str:
    """What an audit says of a claim, which it can refute and never prove.

    Example:
        >>> verdict(3.0, broken=False)
        '; the claim of 3.00 is not refuted'
    """
    if claim is None:
        return ""
    said = f"; the claim of {rounded_up(claim)} is "
    return said + ("REFUTED: the mechanism is broken" if broken else "not refuted")


def audit_scores(
    inside: Float[Tensor, " n"],
    outside: Float[Tensor, " m"],
    *,
    delta: float,
    confidence: float = 0.999,
    rate: float | None = 1.0,
    claim: float | None = None,
) -> Audit:
    """Lower bounds on epsilon from the scores of independent repetitions.

    Args:
        inside: scores of repetitions with the canary among the rows.
        outside: of repetitions without it.
        delta: the probability outside the guarantee.
        confidence: with which the bounds hold, all together.
        rate: the sampling rate of the Gaussian mechanism; None for another mechanism, of which
            nothing but epsilon is bounded.
        claim: the epsilon that the mechanism is said to spend.

    Raises:
        ValueError: too few repetitions, scores that are not numbers, or a number outside its range.

    Example:
        One Gaussian step with sigma 1, whose epsilon is 4.377:

        >>> noise = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
        >>> print(audit_scores(1 + noise[0], noise[1], delta=1e-5, claim=4.377))
        epsilon is at least 1.828 by thresholds, 3.930 as a Gaussian mechanism, at delta 1e-05
        with 99.9 % confidence (30000 repetitions counted); the claim of 4.38 is not refuted
    """
    check_delta(delta)
    check_confidence(confidence)
    _check_scores(inside, outside)
    (i0, i1), (o0, o1) = _parts(inside), _parts(outside)
    if _centre(i0) < _centre(o0):
        i0, i1, o0, o1 = -i0, -i1, -o0, -o1
    level, thresholds = (1 - confidence) / 4, _candidates(i0, o0)
    best = thresholds[[int(_epsilons(*_rates(i0, o0, thresholds, level), delta).argmax())]]
    threshold = float(_epsilons(*_rates(i1, o1, best, level), delta)[0])
    mu = gaussian = None
    if rate is not None:
        best = _gaussian_threshold(i0, o0, thresholds, rate=rate, level=level, n=len(i1))
        mu = float(_mus(*_rates(i1, o1, best, level), rate)[0])
        gaussian = step_epsilon(mu, delta=delta, rate=rate)
    counted = len(i1) + len(o1)
    return Audit(threshold, gaussian, mu, delta, confidence, counted, claim)


def step_epsilon(mu: float, *, delta: float, rate: float = 1.0) -> float:
    """The epsilon of one Gaussian step, exactly, a row being added or removed.

    Args:
        mu: 1 / sigma, the inverse of the noise multiplier.
        delta: the probability outside the guarantee.
        rate: the probability with which the row is in the lot.

    Returns:
        The least epsilon whose hockey-stick divergence is at most delta, in both directions
        (Balle & Wang 2018, thm 8, for rate 1; Zhu, Dong & Wang 2022 for lots).

    Raises:
        ValueError: a number outside its range.

    Example:
        >>> step_epsilon(1.0, delta=1e-5), step_epsilon(1.0, delta=1e-5, rate=0.01)
        (4.3772, 0.1995)
    """
    check_delta(delta)
    if not mu >= 0 or not 0 < rate <= 1:
        raise ValueError(
            f"mu is {mu} and the rate {rate}; mu is one over the noise multiplier, 0 or more, and "
            "the rate a probability above 0."
        )
    if mu == 0 or _excess(0.0, mu, rate) <= delta:
        return 0.0
    high = 1.0
    while _excess(high, mu, rate) > delta:
        high *= 2
        if high > 1e6:
            return math.inf
    from scipy.optimize import brentq

    return float(brentq(lambda e: _excess(e, mu, rate) - delta, 0.0, high, xtol=1e-10))


def clopper_pearson(count: Any, n: int, level: float) -> tuple[Values, Values]:
    """Lower and upper bounds on a probability of which `count` of `n` were seen.

    Each of the two fails with probability `level` at most (Clopper & Pearson 1934).

    Example:
        >>> lower, upper = clopper_pearson(0, 100, 0.025)
        >>> float(lower), float(upper)  # 1 - 0.025^(1/100)
        (0.0, 0.0362)
    """
    from scipy.stats import beta

    k = np.asarray(count, dtype=float)
    lower = np.where(k > 0, beta.ppf(level, np.maximum(k, 1), n - k + 1), 0.0)
    upper = np.where(k < n, beta.ppf(1 - level, k + 1, np.maximum(n - k, 1)), 1.0)
    return lower, upper


def check_confidence(confidence: float) -> None:
    """Refuses a confidence that is no probability.

    Raises:
        ValueError: it is not strictly between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence is {confidence}; it is the probability with which a bound holds, strictly "
            "between 0 and 1, such as 0.999."
        )


def _check_scores(*scores: Tensor) -> None:
    if min(map(len, scores)) < _FEWEST:
        raise ValueError(
            f"{len(scores[0])} and {len(scores[1])} repetitions came; with fewer than {_FEWEST} on "
            "either side nothing can be said with confidence. A few thousand are usual."
        )
    if any(bool(part.isnan().any()) for part in scores):
        raise ValueError(
            "A score is not a number, and cannot be above or below a threshold. Let the score be "
            "finite or infinite for whatever the mechanism releases."
        )


def _parts(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The repetitions that choose, and those that count."""
    cut = max(1, round(_CHOOSING * len(scores)))
    scores = scores.detach().cpu().double()
    return scores[:cut], scores[cut:]


def _centre(scores: Tensor) -> float:
    """The mean, or the median where scores are infinite."""
    mean = float(scores.mean())
    return mean if math.isfinite(mean) else float(scores.median())


def _candidates(inside: Tensor, outside: Tensor, most: int = 512) -> Tensor:
    values = torch.cat([inside, outside]).sort().values
    index = torch.linspace(0, len(values) - 1, min(most, len(values))).round().long()
    between = (values[index[:-1]] + values[index[1:]]) / 2
    return between.nan_to_num(0.0) if len(between) else values[:1]


def _rates(
    inside: Tensor, outside: Tensor, thresholds: Tensor, level: float
) -> tuple[Values, Values]:
    """By threshold: an upper bound on alpha, and a lower bound on the power 1 - beta."""
    above = [
        len(part) - torch.searchsorted(part.sort().values, thresholds, right=True)
        for part in (inside, outside)
    ]
    power, _ = clopper_pearson(above[0].numpy(), len(inside), level)
    _, alpha = clopper_pearson(above[1].numpy(), len(outside), level)
    return alpha, power


def _epsilons(alpha: Any, power: Any, delta: float) -> Values:
    """What both directions of the definition prove, by threshold."""
    with np.errstate(divide="ignore"):
        here = np.log(np.maximum(power - delta, 0.0)) - np.log(alpha)
        there = np.log(np.maximum(1 - alpha - delta, 0.0)) - np.log(1 - power)
    return np.maximum(0.0, np.maximum(here, there))


def _mus(alpha: Any, power: Any, rate: float) -> Values:
    """The mu whose best test has this alpha and this power."""
    from scipy.special import ndtri

    t = ndtri(1 - alpha)
    share = np.clip((power - (1 - rate) * alpha) / rate, 0.0, 1.0)
    found = np.where(alpha < 1, t + ndtri(share), 0.0)
    return np.maximum(0.0, np.nan_to_num(found, nan=0.0, posinf=np.inf, neginf=0.0))


def _gaussian_threshold(
    inside: Tensor, outside: Tensor, thresholds: Tensor, *, rate: float, level: float, n: int
) -> Tensor:
    """The threshold that n repetitions should bound mu best by, if the scores are what they should.

    Fitting mu and the spread to the repetitions that choose is steadier than counting them. Where
    the threshold so found is poor on them, the scores are not normal, and they are counted.
    """
    from scipy.special import ndtr

    spread = float(outside.std())
    t = (thresholds - outside.mean()).numpy() / max(spread, 1e-12)
    mu = float(inside.mean() - outside.mean()) / (rate * max(spread, 1e-12))
    power = (1 - rate) * ndtr(-t) + rate * ndtr(mu - t)
    lower, _ = clopper_pearson(n * power, n, level)
    _, upper = clopper_pearson(n * ndtr(-t), n, level)
    expected = np.nan_to_num(_mus(upper, lower, rate), nan=0.0)
    counted = _mus(*_rates(inside, outside, thresholds, level), rate)
    chosen = int(expected.argmax())
    if counted[chosen] < 0.5 * counted.max():
        chosen = int(counted.argmax())
    return thresholds[[chosen]]


def _excess(epsilon: float, mu: float, q: float) -> float:
    """delta(epsilon) of (1 - q) N(0, 1) + q N(mu, 1) against N(0, 1), the larger direction."""
    from scipy.special import log_ndtr, ndtr

    if math.isinf(mu):
        return q
    odds = epsilon + math.log1p(-(1 - q) * math.exp(-epsilon)) - math.log(q)
    t = odds / mu + mu / 2
    added = (1 - q) * ndtr(-t) + q * ndtr(mu - t) - math.exp(min(epsilon + log_ndtr(-t), 0.0))
    if q == 1 or math.exp(-epsilon) <= 1 - q:
        return float(added)  # at rate 1 both directions are the same
    s = (math.log(math.exp(-epsilon) - (1 - q)) - math.log(q)) / mu + mu / 2
    removed = ndtr(s) - math.exp(epsilon) * ((1 - q) * ndtr(s) + q * ndtr(s - mu))
    return float(max(added, removed))
