"""The ledger: what has been released about one data set, and the epsilon of all of it together.

Privacy is spent by every release about the same rows and never comes back, so there is one ledger a
data set, handed to every fit and every private statistic. Entries are only ever added, and the
total is composed anew from all of them (`privacy.accounting.compose`). A run enters its planned
steps before the first is made, and the number that was made when it ends: a run that dies in
between stays counted in full.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

from privacy.accounting import Accountant, History, compose
from privacy.approximate import Approximate
from privacy.chain import BrokenChain, Chain

UNIT = "one row, added or removed"
_PURE = 1e-9
"""The delta at which releases are composed that need none."""
Rule = Callable[[Sequence["Release"]], None]
"""Looks at all releases and raises if they are too many."""


@dataclass(frozen=True)
class Release:
    """Uses of one mechanism: of the Poisson-subsampled Gaussian unless `promise` is given.

    Attributes:
        what: what was released, such as "fit of VAE".
        run: tells the steps of one run, and its noise, from those of another; made from the seed.
        noise_multiplier: sigma, the standard deviation of the noise over the clipping norm.
        rate: the probability with which a row was in a lot.
        steps: the number of lots, empty ones counted; or of uses.
        clip: the clipping norm, or the sensitivity.
        rows: the declared number of rows; 0 where the mechanism needs none.
        delta: the delta that the run was planned for; 0 for a mechanism that needs none.
        unit: what is protected.
        promise: (epsilon, delta) of one use of another mechanism; sigma and rate mean nothing then.
        mechanism: its name.
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
    promise: tuple[float, float] | None = None
    mechanism: str = "Gaussian"

    @property
    def entry(self) -> tuple[float, float, int] | Approximate:
        """What an accountant composes."""
        if self.promise is None:
            return self.noise_multiplier, self.rate, self.steps
        return Approximate(*self.promise, times=self.steps)

    def epsilon(self, delta: float | None = None, *, accountant: Accountant = "prv") -> float:
        """What this release spends by itself, at its own delta unless another is given."""
        return compose([self.entry], delta=delta or self.delta or _PURE, accountant=accountant)


class Ledger:
    """An append-only list of the releases about one data set, in memory or in a file.

    Args:
        path: a file of JSON lines that is read, begun if there is none, and only ever grows; None
            keeps the list in memory, from where it goes into checkpoints.
        head: the seal of an earlier state (`Ledger.head`, which reports print): a file that was
            shortened or begun anew since then is refused.

    Raises:
        BrokenChain: the file was edited, shortened or replaced. So does every later use.

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

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, head: str | None = None
    ) -> None:
        self._chain = None if path is None else Chain(path, head=head)
        self._entries: list[Release] = []
        self._open: dict[int, int] = {}
        self._refresh()

    @property
    def releases(self) -> tuple[Release, ...]:
        """The entries, in order; runs of this process with the steps made so far."""
        self._refresh()
        return tuple(self._entries)

    @property
    def committed(self) -> tuple[Release, ...]:
        """The entries, in order; runs that are under way with all their planned steps."""
        self._refresh()
        return tuple(
            replace(r, steps=max(r.steps, self._open.get(i, 0)))
            for i, r in enumerate(self._entries)
        )

    @property
    def head(self) -> str:
        """The seal of the file as it stands, to be kept elsewhere; empty for one in memory."""
        return "" if self._chain is None else self._chain.head

    def add(self, release: Release) -> None:
        """Adds an entry; further steps of a run are added to the entry of that run."""
        known = _find(self._entries, release)
        made = release.steps + (0 if known is None else self._entries[known].steps)
        if known is not None and made <= self._open.get(known, 0):
            self._entries[known] = replace(release, steps=made)  # entered already, by `begin`
            return
        with self._writing():
            known = _find(self._entries, release)
            if known is None:
                self._entries.append(release)
                self._state(len(self._entries) - 1, release.steps)
                return
            made = self._entries[known].steps + release.steps
            self._entries[known] = replace(release, steps=made)
            self._open.pop(known, None)
            self._state(known, made)

    def begin(self, release: Release, *, rule: Rule | None = None) -> None:
        """Enters a run with its planned steps, before the first of them is made.

        Args:
            release: of which `steps` are planned; each is then told to `add`, one by one.
            rule: is shown all entries, this one included, and may raise; nothing is entered then.
        """
        with self._writing():
            if rule is not None:
                rule([*self.committed, release])
            self._entries.append(replace(release, steps=0))
            self._open[len(self._entries) - 1] = release.steps
            self._state(len(self._entries) - 1, release.steps)

    def end(self, run: str, *, steps: int | None = None) -> None:
        """States how many steps a run has made, by default those told to `add`."""
        with self._writing():
            for known, release in enumerate(self._entries):
                planned = self._open.pop(known, None) if release.run == run else None
                if planned is None and (release.run != run or steps is None):
                    continue
                made = release.steps if steps is None else steps
                self._entries[known] = replace(release, steps=made)
                if made != planned:
                    self._state(known, made)

    def epsilon(self, delta: float, *, accountant: Accountant = "prv") -> float:
        """The epsilon of all releases together: 0 for none, infinity if one had no noise.

        It holds for noise, rates and steps that were planned beforehand. Where they were chosen
        after a look at earlier outcomes, `privacy.Budget` keeps a total, and
        `privacy.odometer` reads it.
        """
        return compose(merged(self.releases), delta=delta, accountant=accountant)

    def __str__(self) -> str:
        releases = self.releases
        if not releases:
            return "nothing released: epsilon 0"
        delta = max(release.delta for release in releases) or _PURE
        rows = [("release", "sigma", "rate", "steps", f"epsilon (delta {delta:g})")]
        rows += [(r.what, *_terms(r), str(r.steps), rounded_up(r.epsilon(delta))) for r in releases]
        prv, rdp = (rounded_up(self.epsilon(delta, accountant=a)) for a in ("prv", "rdp"))
        units = ", ".join(sorted({release.unit for release in releases}))
        total = f"together: epsilon {prv} at delta {delta:g} (prv; {rdp} by rdp), unit: {units}"
        return "\n".join([*_aligned(rows), total])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        lock = nullcontext() if self._chain is None else self._chain.locked()
        with lock:
            self._refresh()
            yield

    def _state(self, known: int, steps: int) -> None:
        """Writes down how many steps entry `known` counts for."""
        if self._chain is not None:
            stated = replace(self._entries[known], steps=steps)
            self._chain.append({"entry": known, "release": asdict(stated)})

    def _refresh(self) -> None:
        """Reads what other processes wrote, and notices a file that is not what it was."""
        if self._chain is None or not self._chain.changed():
            return
        lines = self._chain.read()
        try:
            stated = [(line["entry"], release_of(line["release"])) for line in lines]
            for known, release in stated:
                if known == len(self._entries):
                    self._entries.append(release)
                elif known not in self._open:
                    self._entries[known] = release
        except (KeyError, TypeError, IndexError) as error:
            raise BrokenChain(f"{self._chain.path} is no ledger ({error!r}).") from error


def _find(entries: Sequence[Release], release: Release) -> int | None:
    """The last entry of the same run and mechanism."""
    for known in reversed(range(len(entries))):
        if replace(entries[known], steps=release.steps) == release:
            return known
    return None


def expect(ledger: Ledger, head: str) -> None:
    """Refuses a ledger that does not hold an earlier state of itself; empty for one in memory.

    Raises:
        BrokenChain: it was shortened or begun anew since.
    """
    if head:
        if ledger._chain is None:
            raise BrokenChain("The ledger was a file, and one in memory came. Pass that file's.")
        Chain(ledger._chain.path, head=head).read()


def release_of(content: dict[str, Any]) -> Release:
    """The release that `dump` made plain."""
    promise = content["promise"]
    return Release(**content | {"promise": None if promise is None else tuple(promise)})


def dump(releases: Sequence[Release]) -> list[dict[str, Any]]:
    """The releases as plain containers, for a checkpoint."""
    return [asdict(release) for release in releases]


def restore(content: Sequence[dict[str, Any]]) -> Ledger:
    """The ledger in memory that `dump` was given."""
    ledger = Ledger()
    for release in content:
        ledger.add(release_of(release))
    return ledger


def rounded_up(epsilon: float) -> str:
    """Two decimals, rounded up: a bound is never printed lower than it is.

    Example:
        >>> rounded_up(2.971), rounded_up(float("inf"))
        ('2.98', 'infinity')
    """
    return f"{math.ceil(epsilon * 100) / 100:.2f}" if math.isfinite(epsilon) else "infinity"


def merged(releases: Sequence[Release]) -> History:
    """Equal mechanisms as one of many steps, which is what accountants compose well."""
    gaussians: dict[tuple[float, float], int] = {}
    others: dict[tuple[float, float], int] = {}
    for r in releases:
        steps, key = (
            (gaussians, (r.noise_multiplier, r.rate)) if r.promise is None else (others, r.promise)
        )
        steps[key] = steps.get(key, 0) + r.steps
    return [
        *((sigma, rate, count) for (sigma, rate), count in gaussians.items()),
        *(Approximate(*promise, count) for promise, count in others.items()),
    ]


def _terms(release: Release) -> tuple[str, str]:
    """Noise and rate, or the promise of another mechanism."""
    if release.promise is None:
        return f"{release.noise_multiplier:.4g}", f"{release.rate:.4g}"
    epsilon, delta = release.promise
    return f"({epsilon:.4g}, {delta:.2g})", "-"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]
