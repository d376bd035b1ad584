"""One budget over many releases: a filter that refuses what would exceed it, and an odometer.

Whoever looks at one outcome before choosing the noise of the next release needs a filter (Rogers,
Roth, Ullman & Vadhan 2016). Composing privacy losses, as "prv" and "pld" do, is a theorem about
mechanisms that were fixed beforehand (Zhu, Dong & Wang 2022, Thm 10), and comparing the composed
curve with a budget is no filter in general. Renyi divergences of one order may be added and
compared with a bound, whatever the choice of the parameters (Feldman & Zrnic 2021, sec. 4;
Whitehouse, Ramdas, Rogers & Wu 2023 for mechanisms that may fail). So the filter holds

    sum_i D_alpha(release i) <= epsilon - log((alpha - 1) / alpha) + log(alpha delta) / (alpha - 1),

the order alpha fixed when the budget is made (the right side: Balle et al. 2020, Thm 21).
"""

import math
from collections.abc import Sequence
from typing import Any

from privacy.accounting import (
    HIGH_ORDERS,
    ORDERS,
    Accountant,
    History,
    check_accountant,
    check_delta,
    check_epsilon,
    compose,
    parted,
    renyi_divergence,
    solve,
)
from privacy.approximate import Approximate
from privacy.ledger import UNIT, Ledger, Release, merged, rounded_up

FAILURES = 0.1
"""The share of delta that is kept for mechanisms that may fail, such as thresholds."""


class BudgetExceeded(ValueError):
    """A release would spend more than the budget has left; nothing was made."""


class Budget:
    """The most that all releases about one data set may spend together.

    Args:
        epsilon: of all releases in the ledger, those before this budget included.
        delta: of all of them.
        ledger: of the data set; by default a new one in memory.
        accountant: "rdp" holds whatever is chosen after looking at earlier outcomes. "prv" and
            "pld" leave more room, and hold only if noise, rate and steps of every release were
            planned before the first.
        order: alpha of "rdp"; by default the one that leaves a Gaussian the most room.

    Raises:
        ValueError: a number outside its range.

    Example:
        >>> budget = Budget(1.0, 1e-5)
        >>> release = Release("fit of VAE", "a", 1.8, 0.01, 1000, 1.0, 10_000, 1e-5)
        >>> budget.begin(release)
        >>> print(budget)
        epsilon 1 at delta 1e-05 for one row, added or removed: 0.81 spent by 1 release
        filter: Renyi divergence at order 18, for parameters chosen along the way
        >>> budget.begin(release)
        Traceback (most recent call last):
        ...
        privacy.budget.BudgetExceeded: fit of VAE would bring the releases to epsilon 1.16 of 1 ...
    """

    def __init__(
        self,
        epsilon: float,
        delta: float,
        *,
        ledger: Ledger | None = None,
        accountant: Accountant = "rdp",
        order: float | None = None,
    ) -> None:
        check_epsilon(epsilon)
        check_delta(delta)
        check_accountant(accountant)
        if order is not None and not (accountant == "rdp" and 1 < order < math.inf):
            raise ValueError(
                f"order is {order} with accountant {accountant!r}; it is the order of a Renyi "
                "divergence, above 1, and goes with 'rdp' alone."
            )
        self.epsilon, self.delta, self.accountant = epsilon, delta, accountant
        self.ledger = Ledger() if ledger is None else ledger
        self.order = order or best_order(epsilon, (1 - FAILURES) * delta)

    @property
    def spent(self) -> float:
        """What the releases count for together: 0 if there is none."""
        return self.of(merged(self.ledger.committed))

    def of(self, history: History) -> float:
        """What a history counts for under this budget."""
        if self.accountant != "rdp":
            return compose(history, delta=self.delta, accountant=self.accountant)
        divergence, failing = at_order(history, self.order)
        if failing > FAILURES * self.delta:
            return math.inf
        if divergence == 0 and failing == 0:
            return 0.0
        return max(0.0, divergence + _conversion(self.order, (1 - FAILURES) * self.delta))

    def check(self, releases: Sequence[Release], *, planned: int = 1) -> None:
        """Refuses a list of releases, the last of which are planned, that is too much together.

        Args:
            releases: all of them.
            planned: how many are planned, at the end of the list.

        Raises:
            BudgetExceeded: it is.
        """
        spent = self.of(merged(releases))
        if spent > self.epsilon:
            before = self.of(merged(releases[:-planned]))
            raise BudgetExceeded(
                f"{releases[-1].what} would bring the releases to epsilon {rounded_up(spent)} of "
                f"{self.epsilon:g} (delta {self.delta:g}); {rounded_up(before)} is spent. Nothing "
                "was made and nothing spent. Ask for more noise or fewer steps, or leave epsilon= "
                "out of a fit, which then takes what is left."
            )

    def begin(self, release: Release) -> None:
        """Enters a planned release in the ledger, or refuses it.

        Raises:
            BudgetExceeded: it would exceed the budget.
        """
        self.ledger.begin(release, rule=self.check)

    def calibrate(self, *, rate: float, steps: int) -> float:
        """The noise multiplier with which `steps` lots spend what is left, and no more.

        Raises:
            BudgetExceeded: hardly anything is left.

        Example:
            >>> Budget(1.0, 1e-5).calibrate(rate=0.01, steps=1000)
            1.53
        """
        history = merged(self.ledger.committed)
        if self.of(history) > 0.98 * self.epsilon:
            raise BudgetExceeded(
                f"Of epsilon {self.epsilon:g}, {rounded_up(self.of(history))} is spent: what is "
                "left is too little for any fit."
            )

        def spent(sigma: float) -> float:
            return self.of([*history, (sigma, rate, steps)])

        guess = rate * math.sqrt(2 * steps * math.log(1 / self.delta)) / self.epsilon
        return solve(spent, self.epsilon, start=max(guess, 0.3))

    def __str__(self) -> str:
        count = len(self.ledger.releases)
        releases = "1 release" if count == 1 else f"{count} releases"
        rule = (
            f"Renyi divergence at order {self.order:g}, for parameters chosen along the way"
            if self.accountant == "rdp"
            else f"{self.accountant}, for noise, rates and steps planned beforehand"
        )
        return (
            f"epsilon {self.epsilon:g} at delta {self.delta:g} for {UNIT}: "
            f"{rounded_up(self.spent)} spent by {releases}\nfilter: {rule}"
        )


def odometer(ledger: Ledger, delta: float) -> float:
    """An epsilon that may be read at any time, however releases and the reading were chosen.

    It is the least of a fixed list of filters, 19 % apart, that the releases have not filled, each
    holding with its share of delta (Rogers et al. 2016; Lecuyer 2021): looser than
    `Ledger.epsilon`, which is for what was planned.

    Example:
        >>> ledger = Ledger()
        >>> ledger.add(Release("fit of VAE", "a", 1.8, 0.01, 1000, 1.0, 10_000, 1e-5))
        >>> odometer(ledger, 1e-5), ledger.epsilon(1e-5)
        (1.35, 0.72)
    """
    check_delta(delta)
    history = merged(ledger.committed)
    readings = [0.05 * 2 ** (k / 4) for k in range(64)]
    share = (1 - FAILURES) * delta / len(readings)
    for epsilon in readings:
        rate = math.log(1 / share)
        order = min(ORDERS + HIGH_ORDERS, key=lambda a: (rate / (a - 1) - epsilon) / a)
        divergence, failing = at_order(history, order)
        if divergence == 0 and failing == 0:
            return 0.0
        if failing <= FAILURES * delta and divergence + rate / (order - 1) <= epsilon:
            return epsilon
    return math.inf


def best_order(epsilon: float, delta: float) -> float:
    """The order at which a Gaussian, whose divergence is rho alpha, has the most room for rho.

    Example:
        >>> best_order(3.0, 1e-5)
        7.5
    """
    return min(ORDERS + HIGH_ORDERS, key=lambda a: (_conversion(a, delta) - epsilon) / a)


def at_order(history: History, order: float) -> tuple[float, float]:
    """The Renyi divergence of one order of all together, and the sum of what may fail."""
    gaussians, others = parted(history)
    failing = sum(m.times * m.delta for m in others)
    if any(sigma == 0 for sigma, _, _ in gaussians):
        return math.inf, failing
    whole: Sequence[Approximate] = [m for m in others if m.epsilon > 0]
    divergence: Any = renyi_divergence(gaussians, whole, (order,))
    return (float(divergence[0]) if gaussians or whole else 0.0), failing


def _conversion(order: float, delta: float) -> float:
    """What is added to a Renyi divergence to make it an epsilon (Balle et al. 2020, Thm 21)."""
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
