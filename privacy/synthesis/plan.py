"""What a synthetic table will spend: every use of a mechanism, fixed before the first.

With s the scale of the noise, which is solved for, and shares w that add up to 1,

    sigma of a column   s sqrt(columns / w_columns)
    sigma of a pair     s sqrt(pairs / w_pairs)
    epsilon of a choice sqrt(w_choices / choices) / s

Gaussian answers enter the accounting as such, choices as what they are proven to be, pure
epsilon-differentially private.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from privacy.accounting import Accountant, compose, solve
from privacy.budget import Budget, BudgetExceeded
from privacy.ledger import Release, merged, rounded_up
from privacy.synthesis.curator import CUT, DISTANCE, MARGINAL

COLUMNS, PAIRS, CHOICES = 0.2, 0.6, 0.2
"""The shares."""


@dataclass(frozen=True)
class Plan:
    """The uses of each mechanism, and how noisy they are.

    Attributes:
        columns: marginals of one column that are measured.
        pairs: marginals of two columns that are chosen, and measured.
        cuts: halvings of columns of numbers.
        scale: s; larger is more private.

    Example:
        >>> plan = Plan(columns=4, pairs=3, cuts=2, scale=10.0)
        >>> plan.sigma_columns, plan.sigma_pairs, plan.epsilon_choice
        (44.7, 22.4, 0.02)
    """

    columns: int
    pairs: int
    cuts: int
    scale: float = 1.0

    @property
    def sigma_columns(self) -> float:
        """The standard deviation of the noise in a count of one column."""
        return self.scale * math.sqrt(self.columns / self._share(COLUMNS))

    @property
    def sigma_pairs(self) -> float:
        """The standard deviation of the noise in a count of two columns."""
        return self.scale * math.sqrt(self.pairs / self._share(PAIRS))

    @property
    def epsilon_choice(self) -> float:
        """The epsilon of a choice, of a cut or of a pair."""
        choices = self.cuts + self.pairs
        return math.sqrt(self._share(CHOICES) / choices) / self.scale if choices else 0.0

    def releases(self, run: str, delta: float) -> list[Release]:
        """The entries of the ledger."""
        blank = Release("", run, 0.0, 1.0, 0, MARGINAL, 0, delta)
        choice = replace(blank, promise=(self.epsilon_choice, 0.0), mechanism="exponential")
        planned = [
            replace(choice, what="synthetic table: cuts", steps=self.cuts, clip=CUT),
            replace(
                blank,
                what="synthetic table: columns",
                noise_multiplier=self.sigma_columns / MARGINAL,
                steps=self.columns,
            ),
            replace(choice, what="synthetic table: choices", steps=self.pairs, clip=DISTANCE),
            replace(
                blank,
                what="synthetic table: pairs",
                noise_multiplier=self.sigma_pairs / MARGINAL,
                steps=self.pairs,
            ),
        ]
        return [release for release in planned if release.steps > 0]

    def calibrated(
        self, epsilon: float | None, delta: float, accountant: Accountant, budget: Budget | None
    ) -> "Plan":
        """The plan with as little noise as epsilon allows, or what is left of the budget.

        Raises:
            BudgetExceeded: hardly anything is left.
        """
        if epsilon is not None:
            start = 3 * math.sqrt(math.log(1 / delta)) / epsilon
            return replace(self, scale=solve(self._spent(delta, accountant), epsilon, start=start))
        assert budget is not None
        if budget.spent > 0.98 * budget.epsilon:
            raise BudgetExceeded(
                f"Of epsilon {budget.epsilon:g}, {rounded_up(budget.spent)} is spent: what is left "
                "is too little for any table."
            )
        before, of = budget.ledger.committed, budget.of

        def spent(scale: float) -> float:
            return of(merged([*before, *replace(self, scale=scale).releases("", delta)]))

        start = 3 * math.sqrt(math.log(1 / delta)) / budget.epsilon
        return replace(self, scale=solve(spent, budget.epsilon, start=start))

    def _spent(self, delta: float, accountant: Accountant) -> Callable[[float], float]:
        """Epsilon by scale."""

        def spent(scale: float) -> float:
            history = merged(replace(self, scale=scale).releases("", delta))
            return compose(history, delta=delta, accountant=accountant)

        return spent

    def _share(self, share: float) -> float:
        """A share of what is used at all: without pairs, columns have theirs."""
        used = COLUMNS + PAIRS * (self.pairs > 0) + CHOICES * (self.pairs + self.cuts > 0)
        return share / used
