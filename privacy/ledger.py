"""The ledger: what has been released about one data set, and the epsilon of all of it together.

Privacy is spent by every release about the same rows and never comes back, so there is one ledger a
data set, handed to every fit. Entries are only ever added, and the total is composed anew from all
of them (`privacy.accounting.compose`).
"""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from privacy.accounting import Accountant, compose

UNIT = "one row, added or removed"


@dataclass(frozen=True)
class Release:
    """Steps of one noisy mechanism: the Poisson-subsampled Gaussian.

    Attributes:
        what: what was released, such as "fit of VAE".
        run: tells the steps of one run, and its noise, from those of another; made from the seed.
        noise_multiplier: sigma, the standard deviation of the noise over the clipping norm.
        rate: the probability with which a row was in a lot.
        steps: the number of lots, empty ones counted.
        clip: the clipping norm.
        rows: the declared number of rows.
        delta: the delta that the run was planned for.
        unit: what is protected.
    """

    what: str
    run: str
    noise_multiplier: float
    rate: float
    steps: int
    clip: float
    rows: int
    delta: float
    unit: str = UNIT

    def epsilon(self, delta: float | None = None, *, accountant: Accountant = "prv") -> float:
        """What this release spends by itself, at its own delta unless another is given."""
        history = [(self.noise_multiplier, self.rate, self.steps)]
        return compose(history, delta=delta or self.delta, accountant=accountant)


class Ledger:
    """An append-only list of the releases about one data set.

    Example:
        >>> ledger = Ledger()
        >>> ledger.epsilon(1e-5)
        0.0
        >>> ledger.add(Release("fit of VAE", "a", 1.0, 0.01, 1000, 1.0, 10_000, 1e-5))
        >>> ledger.add(Release("fit of PPCA", "b", 2.0, 0.01, 1000, 1.0, 10_000, 1e-5))
        >>> print(ledger)
        release      sigma  rate  steps  epsilon (delta 1e-05)
        fit of VAE   1      0.01  1000   1.84
        fit of PPCA  2      0.01  1000   0.63
        together: epsilon 1.96 at delta 1e-05 (prv; 2.22 by rdp), unit: one row, added or removed
    """

    def __init__(self, releases: Iterable[Release] = ()) -> None:
        self._releases = list(releases)

    @property
    def releases(self) -> tuple[Release, ...]:
        """The entries, in order."""
        return tuple(self._releases)

    def add(self, release: Release) -> None:
        """Adds an entry; further steps of the last entry's own run are added to that entry."""
        last = self._releases[-1] if self._releases else None
        if last is not None and replace(last, steps=release.steps) == release:
            self._releases[-1] = replace(last, steps=last.steps + release.steps)
        else:
            self._releases.append(release)

    def epsilon(self, delta: float, *, accountant: Accountant = "prv") -> float:
        """The epsilon of all releases together: 0 for none, infinity if one had no noise."""
        history = [(r.noise_multiplier, r.rate, r.steps) for r in self._releases]
        return compose(_merged(history), delta=delta, accountant=accountant)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ledger as JSON; the file appears whole or not at all."""
        target = Path(path)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"ledger": [asdict(r) for r in self._releases]}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ledger":
        """Reads what `save` wrote.

        Raises:
            ValueError: the file is no ledger.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(Release(**entry) for entry in content["ledger"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no ledger written by Ledger.save ({error!r}). Losing a ledger is "
                "losing track of what was spent: find the right file, and do not start a new one "
                "for the same rows."
            ) from error

    def __str__(self) -> str:
        if not self._releases:
            return "nothing released: epsilon 0"
        delta = min(release.delta for release in self._releases)
        rows = [("release", "sigma", "rate", "steps", f"epsilon (delta {delta:g})")]
        rows += [
            (
                r.what,
                f"{r.noise_multiplier:.4g}",
                f"{r.rate:.4g}",
                str(r.steps),
                rounded_up(r.epsilon(delta)),
            )
            for r in self._releases
        ]
        prv, rdp = (rounded_up(self.epsilon(delta, accountant=a)) for a in ("prv", "rdp"))
        units = ", ".join(sorted({release.unit for release in self._releases}))
        total = f"together: epsilon {prv} at delta {delta:g} (prv; {rdp} by rdp), unit: {units}"
        return "\n".join([*_aligned(rows), total])


def rounded_up(epsilon: float) -> str:
    """Two decimals, rounded up: a bound is never printed lower than it is.

    Example:
        >>> rounded_up(2.971), rounded_up(float("inf"))
        ('2.98', 'infinity')
    """
    return f"{math.ceil(epsilon * 100) / 100:.2f}" if math.isfinite(epsilon) else "infinity"


def _merged(history: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """Equal mechanisms as one of many steps, which is what accountants compose well."""
    steps: dict[tuple[float, float], int] = {}
    for sigma, rate, count in history:
        steps[sigma, rate] = steps.get((sigma, rate), 0) + count
    return [(sigma, rate, count) for (sigma, rate), count in steps.items()]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]
