"""What a reviewer of a private fit needs to know, and what its epsilon does not cover."""

from dataclasses import dataclass

from privacy.accounting import Accountant, compose
from privacy.ledger import UNIT, Release, rounded_up

NOT_COVERED = (
    "the loss of each step, which is computed from the rows themselves: do not publish it",
    "error messages and running times",
    "whatever was read off the same rows before: schema levels and bounds, standardisation, the "
    "initial parameters, the choice of hyper-parameters by earlier fits outside the ledger",
    "the seed: noise and lots come from pseudo-random generators, and whoever knows or guesses the "
    "seed can subtract the noise",
)


@dataclass(frozen=True)
class PrivacyReport:
    """The terms of a private fit.

    Attributes:
        release: mechanism, noise, rate, steps, clipping norm, declared rows and delta.
        asked: the epsilon that was asked for.
        accountant: by which the budget was kept.
        route: how gradients by row were computed.
        reason: why not by a faster route; empty if by the fastest.
        shared: what became of the terms that no row enters.
        seeded: whether the seed was given by the caller.
        declared: whether the number of rows was declared by the caller.
    """

    release: Release
    asked: float
    accountant: Accountant
    route: str
    reason: str
    shared: str
    seeded: bool
    declared: bool

    @property
    def delta(self) -> float:
        """The probability outside the guarantee."""
        return self.release.delta

    @property
    def epsilon(self) -> float:
        """What the run spent, by the accountant that kept the budget."""
        return self.by(self.accountant)

    def by(self, accountant: Accountant) -> float:
        """What the run spent, by an accountant."""
        history = [(self.release.noise_multiplier, self.release.rate, self.release.steps)]
        return compose(history, delta=self.delta, accountant=accountant)

    def __str__(self) -> str:
        r, lot = self.release, self.release.rate * self.release.rows
        rows = "declared" if self.declared else "the number that came, hereby declared public"
        seed = "given by the caller: keep it secret" if self.seeded else "from the system's entropy"
        own, prv, rdp = (rounded_up(e) for e in (self.epsilon, self.by("prv"), self.by("rdp")))
        lines = {
            "guarantee": (
                f"({own}, {r.delta:g})-differential privacy by {self.accountant} "
                f"(prv {prv}, rdp {rdp}); asked for {self.asked:g}"
            ),
            "unit": UNIT,
            "mechanism": (
                f"gradients by row, clipped to norm {r.clip:g} over all parameters together, "
                f"summed, plus Gaussian noise of {r.noise_multiplier:.4g} x {r.clip:g}"
            ),
            "sampling": f"Poisson, rate {r.rate:.6g}, {r.steps} steps, empty lots counted",
            "public": f"{r.rows} rows ({rows}), divisor {lot:.6g}, rate, steps, clipping norm",
            "shared terms": self.shared,
            "route": self.route + (f" ({self.reason})" if self.reason else ""),
            "seed": seed,
            "not covered": "; ".join(NOT_COVERED),
        }
        width = max(map(len, lines))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def statement(epsilon: float, delta: float, accountant: str, releases: int) -> str:
    """What every answer of a privately fitted model may say of itself.

    Example:
        >>> statement(2.9719, 1e-5, "prv", 1)[:63]
        'Trained with (2.98, 1e-05)-differential privacy for one row, ad'
    """
    of = "1 release" if releases == 1 else f"{releases} releases"
    return (
        f"Trained with ({rounded_up(epsilon)}, {delta:g})-differential privacy for {UNIT} "
        f"({accountant} accountant, {of} in the ledger). Whatever is computed from the model alone "
        "is post-processing, and spends nothing. What the guarantee does not cover stands in the "
        "report of the fit."
    )
