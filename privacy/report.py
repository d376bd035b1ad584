"""What a reviewer of a private fit needs to know, and what its epsilon does not cover."""

from dataclasses import dataclass

from privacy.accounting import ACCOUNTANTS, Accountant, compose
from privacy.ledger import UNIT, Release, merged, rounded_up

ADJACENCY = "two tables are neighbours if one has one row more; the rest is the same"

NOT_COVERED = (
    "the loss of each step, which is computed from the rows themselves: it is hidden, and reveal() "
    "shows it and says so here",
    "error messages and running times",
    "whatever was read off the same rows without being in the ledger: schema levels and bounds, "
    "standardisation, the initial parameters, the choice of hyper-parameters by other fits",
    "several rows about one person, who is protected only as far as group privacy goes",
    "the seed: noise and lots come from pseudo-random generators, and whoever knows or guesses the "
    "seed can subtract the noise",
)
BEFORE = (
    "The ledger knows nothing of it: if these are the same rows, more was spent on them than is "
    "said here. Pass one ledger= or budget= to all fits about the same rows."
)


@dataclass(frozen=True)
class PrivacyReport:
    """The terms of a private fit.

    Attributes:
        release: mechanism, noise, rate, steps, clipping norm, declared rows and delta.
        asked: the epsilon that was asked for; None for what was left of a budget.
        accountant: by which the budget was kept.
        route: how gradients by row were computed.
        reason: why not by a faster route; empty if by the fastest.
        shared: what became of the terms that no row enters.
        seeded: whether the seed was given by the caller.
        declared: whether the number of rows was declared by the caller.
        lost: steps that are counted though their outcome was lost with a killed process.
        revealed: values without noise that were looked at.
        seal: of the ledger's file; empty for a ledger in memory.
        together: all releases in the ledger, this one included.
        clipping: how the gradient of a row was bounded.
        secure: whether the noise came from the system's entropy and lies on a grid.
        earlier: the note that the model came with, of a fit that is not in the ledger.
    """

    release: Release
    asked: float | None
    accountant: Accountant
    route: str
    reason: str
    shared: str
    seeded: bool
    declared: bool
    lost: int = 0
    revealed: tuple[str, ...] = ()
    seal: str = ""
    together: tuple[Release, ...] = ()
    clipping: str = ""
    secure: bool = False
    earlier: str = ""

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
        return compose([self.release.entry], delta=self.delta, accountant=accountant)

    def __str__(self) -> str:
        r, lot = self.release, self.release.rate * self.release.rows
        rows = "declared" if self.declared else "the number that came, hereby declared public"
        how = self.clipping or f"clipped to norm {r.clip:g} over all parameters together"
        noise = "discrete Gaussian noise on a grid," if self.secure else "Gaussian noise"
        given = self.seeded and not self.secure
        seed = "given by the caller: keep it secret" if given else "from the system's entropy"
        left_out = NOT_COVERED[:-1] if self.secure else NOT_COVERED
        lines = {
            "guarantee": self._guarantee(),
            "unit": UNIT,
            "adjacency": ADJACENCY,
            "mechanism": (
                f"gradients by row, {how}, summed, plus {noise} of {r.noise_multiplier:.4g} x "
                f"{r.clip:g}"
            ),
            "sampling": f"Poisson, rate {r.rate:.6g}, {r.steps} steps, empty lots counted"
            + (f", {self.lost} of them lost with a killed process" if self.lost else ""),
            "public": f"{r.rows} rows ({rows}), divisor {lot:.6g}, rate, steps, clipping norm",
            "shared terms": self.shared,
            "route": self.route + (f" ({self.reason})" if self.reason else ""),
            "self-check": "passed, on made-up rows, before the first step",
            "seed": seed,
            "ledger": self._ledger(),
            "before": self.earlier and f"{self.earlier} {BEFORE}",
            "revealed": "; ".join(self.revealed) or "nothing",
            "not covered": "; ".join(left_out),
        }
        width = max(map(len, lines))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items() if text)

    def _guarantee(self) -> str:
        found = {a: self.by(a) for a in ACCOUNTANTS}
        each = ", ".join(f"{a} {rounded_up(epsilon)}" for a, epsilon in found.items())
        if 0 < found["prv"] == found["rdp"]:
            each += ": prv's arithmetic does not reach here, and its figure is the rdp bound"
        asked = "what was left of the budget" if self.asked is None else f"{self.asked:g}"
        return (
            f"({rounded_up(self.epsilon)}, {self.delta:g})-differential privacy by "
            f"{self.accountant} ({each}); asked for {asked}"
        )

    def _ledger(self) -> str:
        """All releases about the rows together."""
        count = len(self.together)
        spent = compose(merged(self.together), delta=self.delta, accountant=self.accountant)
        where = f"; file sealed {self.seal}" if self.seal else ""
        names = ", ".join(dict.fromkeys(r.what for r in self.together))
        return (
            f"{count} {'release' if count == 1 else 'releases'} about these rows ({names}), "
            f"together epsilon {rounded_up(spent)}{where}"
        )


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
