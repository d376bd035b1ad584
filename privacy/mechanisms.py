"""Noise for single statistics, each entered in a ledger before it is drawn.

- Gaussian: exact + N(0, (sigma S)^2), S the greatest change of the answer in the 2-norm (Dwork et
  al. 2006; sigma by Balle & Wang 2018); composes with the steps of training as one more of them.
- Laplace: exact + Lap(S / epsilon), S in the 1-norm (Dwork, McSherry, Nissim & Smith 2006).
- Exponential: y with probability proportional to exp(epsilon u(y) / 2 S), S the greatest change of
  the utility u (McSherry & Talwar 2007).

The noise is drawn in double precision, whose gaps a determined attacker can use (Mironov 2012); the
discrete Gaussian of `privacy.noise` has none.
"""

import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from privacy.accounting import Accountant, calibrate, check_delta, check_epsilon
from privacy.batches import derive
from privacy.budget import Budget
from privacy.ledger import Ledger, Release
from privacy.noise import on_grid

Answers = Float64[np.ndarray, " k"]


@dataclass(frozen=True)
class Spending:
    """What one statistic may spend, where that is counted, and where its noise comes from.

    Attributes:
        what: the name in the ledger.
        epsilon: of this statistic.
        delta: of this statistic; 0 where none was given.
        ledger: where it is entered.
        budget: that may refuse it; None for none.
        secret: the seed of the noise.
    """

    what: str
    epsilon: float
    delta: float
    ledger: Ledger
    budget: Budget | None
    secret: int

    @property
    def sigma(self) -> float:
        """The noise multiplier of one Gaussian answer."""
        return self._sigma("prv")

    def _sigma(self, accountant: Accountant) -> float:
        if self.delta == 0:
            raise ValueError(
                f"delta= is missing: the {self.what} gets Gaussian noise, which needs one. Pass a "
                "probability well below 1 / rows, such as 1e-6 (or, of a count or histogram, "
                "noise='laplace', which needs none)."
            )
        check_delta(self.delta)
        return calibrate(self.epsilon, delta=self.delta, rate=1.0, steps=1, accountant=accountant)

    def gaussian(self, exact: Answers, *, sensitivity: float) -> Answers:
        """The answers with Gaussian noise; `sensitivity` in the 2-norm of all together."""
        sigma = self.sigma
        generator = self._enter("Gaussian", sigma, sensitivity)
        return exact + generator.normal(0.0, sigma * sensitivity, exact.shape)

    def discrete(self, exact: Answers, *, sensitivity: float) -> Answers:
        """The answers on a grid, with discrete Gaussian noise from the system's entropy."""
        sigma = self._sigma("rdp")
        self._enter("discrete Gaussian", sigma, sensitivity)
        return on_grid(exact, sensitivity=sensitivity, sigma=sigma)

    def laplace(self, exact: Answers, *, sensitivity: float, failure: float = 0.0) -> Answers:
        """The answers with Laplace noise; `sensitivity` in the 1-norm of all together.

        `failure` is the probability with which what is done with them afterwards may fail.
        """
        promise = (self.epsilon, failure)
        generator = self._enter("Laplace", 0.0, sensitivity, promise=promise)
        return exact + generator.laplace(0.0, sensitivity / self.epsilon, exact.shape)

    def exponential(
        self, utilities: list[Answers], log_sizes: list[Answers], *, sensitivity: float
    ) -> tuple[list[int], list[float]]:
        """A choice for each list of utilities, and a uniform number for where inside the choice.

        Each choice is made with an equal part of epsilon; a candidate of size s counts s times.
        """
        uses, part = len(utilities), self.epsilon / len(utilities)
        generator = self._enter("exponential", 0.0, sensitivity, promise=(part, 0.0), uses=uses)
        chosen = [
            int(np.argmax(part * u / (2 * sensitivity) + s + generator.gumbel(size=u.shape)))
            for u, s in zip(utilities, log_sizes, strict=True)
        ]
        return chosen, [float(generator.uniform()) for _ in chosen]

    def _enter(
        self,
        mechanism: str,
        sigma: float,
        sensitivity: float,
        *,
        promise: tuple[float, float] | None = None,
        uses: int = 1,
    ) -> np.random.Generator:
        """Enters the release; only then there is a generator."""
        run = f"{derive(self.secret, self.what):016x}"
        if any(run == earlier.run for earlier in self.ledger.releases):
            raise ValueError(
                "The ledger has a statistic made with this seed: the same noise a second time "
                "could be subtracted from the first. Pass another seed=, or none."
            )
        release = Release(
            self.what, run, sigma, 1.0, uses, sensitivity, 0, self.delta,
            promise=promise, mechanism=mechanism,
        )  # fmt: skip
        self.ledger.begin(release, rule=None if self.budget is None else self.budget.check)
        self.ledger.add(release)
        self.ledger.end(run)
        return np.random.default_rng(derive(self.secret, f"noise of {self.what}"))


def spending(
    what: str,
    *,
    epsilon: float,
    delta: float | None,
    ledger: Ledger | None,
    budget: Budget | None,
    seed: int | None,
    share: float = 1.0,
) -> Spending:
    """Checks what was passed; nothing is spent yet.

    Without a delta it is this share of the budget's.

    Raises:
        ValueError: an epsilon or delta outside its range, or no place to count it.
    """
    check_epsilon(epsilon)
    if delta is not None:
        check_delta(delta)
    if budget is not None and ledger is not None and ledger is not budget.ledger:
        raise ValueError(
            "Both ledger= and budget= came, and the budget has another ledger. Pass the budget."
        )
    kept: Any = budget.ledger if budget is not None else ledger
    if kept is None:
        raise ValueError(
            f"The {what} is computed from the rows and spends privacy, but there is nowhere to "
            "count it: pass ledger=, the ledger that the fit will get, or budget=."
        )
    if delta is None and budget is not None:
        delta = share * budget.delta
    secret = secrets.randbits(63) if seed is None else seed
    return Spending(what, epsilon, delta or 0.0, kept, budget, secret)
