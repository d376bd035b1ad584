"""The record of a private fit, which keeps to itself what the noise does not cover."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pgm.history import Fit
from privacy.ledger import Ledger
from privacy.report import PrivacyReport


class PrivateValue(RuntimeError):
    """A number was asked for that was computed from the rows without noise."""


@dataclass
class Hidden:
    """Losses that are not shown until they are revealed, which is written down.

    Attributes:
        losses: the mean loss of each lot in nats a row; NaN for an empty one.
        revealed: what was revealed so far.
    """

    losses: list[float] = field(default_factory=list, repr=False)
    revealed: list[str] = field(default_factory=list)

    def reveal(self) -> tuple[float, ...]:
        """The losses; says in `revealed` that they were seen."""
        note = f"the losses of {len(self.losses)} steps"
        if note not in self.revealed:
            self.revealed.append(note)
        return tuple(self.losses)


@dataclass(frozen=True)
class PrivateFit(Fit):
    """The record of a private fit; the model it trained is changed in place.

    Attributes:
        terms: of the guarantee, without what was revealed since.
        ledger: all releases about these rows, this one included.
        hidden: the losses.
    """

    terms: PrivacyReport
    ledger: Ledger
    hidden: Hidden

    @property
    def report(self) -> PrivacyReport:
        """The terms of the guarantee, and what it does not cover."""
        return replace(self.terms, revealed=tuple(self.hidden.revealed))

    @property
    def epsilon(self) -> float:
        """What this run spent, by the accountant that kept the budget."""
        return self.terms.epsilon

    @property
    def delta(self) -> float:
        """The probability outside the guarantee."""
        return self.terms.delta

    def reveal(self) -> tuple[float, ...]:
        """The mean loss of every lot in nats a row, NaN for empty lots; the report says so.

        They are computed from the rows and not covered by epsilon: for the eyes of whoever holds
        the data.
        """
        return self.hidden.reveal()

    @property
    def loss(self) -> float:
        """Mean loss over the last tenth of the updates, in nats a row, once it was revealed.

        Raises:
            PrivateValue: it was not.
        """
        if not self.hidden.revealed:
            raise PrivateValue(
                "The loss of a private fit is computed from the rows without noise, and no epsilon "
                "covers it. To look at it where the data are held, call reveal() first, which the "
                "report will say; to publish a figure, evaluate the model on rows that need no "
                "protection."
            )
        return _tail_mean(self.hidden.losses)

    def __str__(self) -> str:
        return (
            f"{type(self.model).__name__}: {len(self.steps)} private steps in "
            f"{self.seconds:.1f} s\n{self.report}"
        )

    def plot(self, ax: Any = None) -> Any:
        """Draws the epsilon spent by step; returns the matplotlib axes."""
        import matplotlib.pyplot as plt

        ax = ax or plt.subplots()[1]
        ax.plot([s.step for s in self.steps], [s.metrics["epsilon"] for s in self.steps])
        ax.set(xlabel="step", ylabel=f"epsilon spent (delta {self.delta:g})")
        return ax


def _tail_mean(losses: Sequence[float]) -> float:
    """Over the last tenth; empty lots have no loss and are left out."""
    known = [loss for loss in losses[-max(1, len(losses) // 10) :] if math.isfinite(loss)]
    return sum(known) / len(known) if known else math.nan
