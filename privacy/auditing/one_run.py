"""An audit by one training run: many canaries, each in or out by a fair coin, and guesses.

Let S in {-1, 1}^m be the coins and T in {-1, 0, 1}^m the auditor's guesses, 0 being an abstention,
of which r are made. If the mechanism is (epsilon, delta)-private, then for every v

    P[number right >= v] <= f(v) + 2 m delta max_{1 <= i <= v} (f(v - i) - f(v)) / i,
    f(v) = P[Binomial(r, e^epsilon / (1 + e^epsilon)) >= v]

(Steinke, Nasr & Jagielski 2023, thm 5.2): it does not matter that all canaries share one run. An
epsilon at which what was seen is too unlikely is refuted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Real
from torch import Tensor

from pgm.batch import rows_of, take
from pgm.randomness import seeded
from pgm.schema import Schema
from privacy.accounting import check_delta
from privacy.auditing.bounds import check_confidence, verdict
from privacy.batches import derive
from privacy.recipes import Recipe, Score, log_density
from privacy.rows import as_rows, together

_SHARES = (1.0, 1 / 3, 1 / 10, 1 / 30)
_FEWEST = 10


@dataclass(frozen=True)
class OneRunAudit:
    """What the guesses about one run prove of its epsilon.

    The numbers are computed from the canaries and from the rows beside them, without noise.

    Attributes:
        lower: lower bound on epsilon.
        right: guesses that were right, of those that proved it.
        guesses: guesses that were made.
        canaries: of which each was in or out by a fair coin.
        delta: the probability outside the guarantee.
        confidence: with which the bound holds.
        claim: the epsilon that the run is said to spend; None if it was not said.
    """

    lower: float
    right: int
    guesses: int
    canaries: int
    delta: float
    confidence: float
    claim: float | None = None

    @property
    def broken(self) -> bool:
        """Whether the claim is refuted."""
        return self.claim is not None and self.lower > self.claim

    def __str__(self) -> str:
        found = (
            f"epsilon is at least {self.lower:.3f} at delta {self.delta:g} with "
            f"{100 * self.confidence:g} % confidence ({self.right} of {self.guesses} guesses right "
            f"about {self.canaries} canaries, in one run)"
        )
        return found + verdict(self.claim, broken=self.broken)


def audit_run(
    recipe: Recipe,
    canaries: Any,
    *,
    data: Any = None,
    delta: float,
    claim: float | None = None,
    score: Score = log_density,
    confidence: float = 0.95,
    guesses: Sequence[int] | None = None,
    seed: int = 0,
    schema: Schema | None = None,
) -> OneRunAudit:
    """Trains once, with a random half of the canaries, and guesses which these were.

    Args:
        recipe: what is audited; it declares the number of rows, canaries included, as public.
        canaries: the rows that are in or out, in any form; a few hundred or more.
        data: rows that are always in; by default none.
        delta: the probability outside the guarantee.
        claim: the epsilon that the recipe is said to spend for a row, added or removed.
        score: what the auditor looks at; larger for canaries that were in.
        confidence: with which the bound holds.
        guesses: numbers of guesses to try, fixed beforehand, of which the confidence is shared; by
            default all canaries, a third, a tenth and a thirtieth.
        seed: of the coins and of the run.
        schema: how data frames are read.

    Raises:
        ValueError: too few canaries, rows of other names, or a number outside its range.
    """
    check_delta(delta)
    check_confidence(confidence)
    batch = as_rows(canaries, schema)
    m = rows_of(batch)
    _check_guesses(guesses, m)
    inside = coins(m, derive(seed, "coins"))
    chosen = take(batch, inside.nonzero().flatten())
    rows = chosen if data is None else together(as_rows(data, schema), chosen)
    model = recipe(rows, derive(seed, "run"))
    return audit_guesses(
        score(model, batch),
        inside,
        delta=delta,
        confidence=confidence,
        guesses=guesses,
        claim=claim,
    )


def audit_guesses(
    scores: Real[Tensor, " m"],
    inside: Bool[Tensor, " m"],
    *,
    delta: float,
    confidence: float = 0.95,
    guesses: Sequence[int] | None = None,
    claim: float | None = None,
) -> OneRunAudit:
    """The bound from the scores of canaries that were in or out by independent fair coins.

    The highest r / 2 scores are guessed to be in, the lowest r / 2 out. The best bound over the
    numbers of guesses is reported, each at its share of what the confidence leaves.

    Args:
        scores: larger for canaries that seem to have been in.
        inside: the coins.
        delta: the probability outside the guarantee.
        confidence: with which the bound holds.
        guesses: the numbers r, chosen without looking at `inside`.
        claim: the epsilon that the run is said to spend.

    Raises:
        ValueError: too few canaries, scores that are not numbers, or a number outside its range.

    Example:
        Randomised response that tells the truth with probability e / (1 + e):

        >>> inside = coins(10_000, 0)
        >>> lies = torch.rand(10_000, generator=torch.Generator().manual_seed(1)) < 0.2689
        >>> print(audit_guesses((inside ^ lies).float(), inside, delta=0.0001, claim=1.0))
        epsilon is at least 0.9... at delta 0.0001 with 95 % confidence (... guesses right
        about 10000 canaries, in one run); the claim of 1.00 is not refuted
    """
    check_delta(delta)
    check_confidence(confidence)
    m = len(scores)
    tried = _check_guesses(guesses, m)
    if bool(scores.isnan().any()):
        raise ValueError(
            "A score is not a number, and has no rank. Let the score of every canary be a number."
        )
    order, found = _ranked(scores), []
    for r in tried:
        out, into = order[: r // 2], order[m - (r - r // 2) :]
        right = int(inside[into].sum()) + int((~inside[out]).sum())
        lower = epsilon_of_guesses(
            right, guesses=r, canaries=m, delta=delta, confidence=1 - (1 - confidence) / len(tried)
        )
        found.append(OneRunAudit(lower, right, r, m, delta, confidence, claim))
    return max(found, key=lambda audit: audit.lower)


def epsilon_of_guesses(
    right: int, *, guesses: int, canaries: int, delta: float, confidence: float = 0.95
) -> float:
    """The largest epsilon up to which every epsilon is refuted by so many right guesses.

    Example:
        >>> epsilon_of_guesses(75, guesses=100, canaries=1000, delta=1e-5)
        0.6...
        >>> epsilon_of_guesses(50, guesses=100, canaries=1000, delta=1e-5)
        0.0
    """

    def possible(epsilon: float) -> bool:
        p = p_value(right, epsilon, guesses=guesses, canaries=canaries, delta=delta)
        return p > 1 - confidence

    # The first epsilon that is possible: on a fine grid where the p-value need not rise throughout.
    low, step = 0.0, 0.05 if 2 * canaries * delta > 1 else 1.0
    if possible(low):
        return 0.0
    while not possible(low + step):
        low += step
    high = low + step
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if possible(middle) else (middle, high)
    return low


def p_value(right: int, epsilon: float, *, guesses: int, canaries: int, delta: float) -> float:
    """A bound on the probability of so many right guesses, or more (thm 5.2).

    Args:
        right: guesses that were right, v.
        epsilon: of the mechanism.
        guesses: r, abstentions not counted.
        canaries: m.
        delta: of the mechanism.

    Example:
        >>> p_value(75, 0.5, guesses=100, canaries=1000, delta=1e-5)
        0.00578
    """
    from scipy.stats import binom

    q = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(right - 1, guesses, q))
    if right == 0 or delta == 0:
        return min(1.0, tail)
    i = np.arange(1, right + 1)
    below = np.cumsum(binom.pmf(right - i, guesses, q))  # f(v - i) - f(v)
    return min(1.0, tail + 2 * canaries * delta * float((below / i).max()))


def coins(m: int, seed: int) -> Bool[Tensor, " m"]:
    """m independent fair coins.

    Example:
        >>> coins(4, 0).shape
        torch.Size([4])
    """
    with seeded(seed):
        return torch.rand(m) < 0.5


def _ranked(scores: Tensor) -> Tensor:
    """Indices by score, equal scores in an order that knows nothing of the coins."""
    with seeded(0):
        shuffled = torch.randperm(len(scores))
    return shuffled[scores.detach().cpu()[shuffled].argsort(stable=True)]


def _check_guesses(guesses: Sequence[int] | None, m: int) -> tuple[int, ...]:
    if m < _FEWEST:
        raise ValueError(
            f"{m} canaries came; with fewer than {_FEWEST} nothing can be said with confidence. A "
            "few hundred are few."
        )
    if guesses is None:
        guesses = tuple(dict.fromkeys(max(_FEWEST, round(share * m)) for share in _SHARES))
    for r in guesses:
        if not 1 <= r <= m:
            raise ValueError(
                f"{r} guesses about {m} canaries: make between 1 and {m}, and abstain on the rest."
            )
    if not guesses:
        raise ValueError("guesses is empty: name one number of guesses or more.")
    return tuple(guesses)
