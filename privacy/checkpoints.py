"""Checkpoints of private runs: the ledger is inside, and no noise is.

What is on disk is what the noise protects (parameters and the optimiser's moments), and what was
spent for it; neither seed nor state of a generator, and no loss. A run that is taken up again draws
new noise and new lots from the system's entropy, since the old noise on other lots could be
subtracted. Steps that were made after the checkpoint are spent although their outcome is lost: a
run that was killed has so many steps less to make, and keeps to its epsilon.
"""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pgm.checkpoint import read
from privacy.ledger import Ledger, Release, dump, expect, release_of, restore


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        release: the mechanism, under the name of the part that is under way.
        planned: steps of the whole run.
        asked: the epsilon asked for; None for what is left of a budget.
        start: the step at which this part began.
        step: the steps behind the parameters.
        lost: steps that were made and are not behind them.
        sure: whether no step can have been made since; if not, up to `every - 1`.
        every: steps between checkpoints.
    """

    release: Release
    planned: int
    asked: float | None
    start: int
    step: int
    lost: int
    sure: bool
    every: int

    @property
    def end(self) -> int:
        """The last step that may be made."""
        return self.planned - self.lost

    def matches(self, release: Release, planned: int, asked: float | None) -> bool:
        """Whether a run with these options is the one that stands here."""
        return (self.planned, self.asked) == (planned, asked) and all(
            getattr(self.release, name) == getattr(release, name)
            for name in ("what", "rate", "clip", "rows", "delta")
        )

    def settled(self, ledger: Ledger) -> "Position":
        """Counts the steps of the last part, in the ledger too; then that part is over.

        Raises:
            ValueError: the ledger knows less of the run than the checkpoint.
        """
        made = self.step - self.start
        counted = sum(r.steps for r in ledger.committed if r.run == self.release.run)
        if counted < made:
            raise ValueError(
                f"The checkpoint is of a run of {made} steps, of which the ledger has {counted}: "
                "it was begun anew, or is that of other rows. Pass the ledger of the first run; a "
                "ledger in memory comes back with the checkpoint, if no ledger= is passed."
            )
        unknown = 0 if self.sure else min(self.every - 1, self.end - self.step)
        lost = min(counted - made, unknown)
        if counted:
            ledger.end(self.release.run, steps=made + lost)
        return replace(self, lost=self.lost + lost, start=self.step, sure=True)


def content(position: Position, ledger: Ledger) -> dict[str, Any]:
    """The position and the ledger as plain containers."""
    plain = asdict(position) | {"release": dump([position.release])[0]}
    return {"private": plain, "ledger": dump(ledger.committed), "seal": ledger.head}


def taken_up(
    path: str | os.PathLike[str] | None, ledger: Ledger | None
) -> tuple[Position | None, Ledger | None]:
    """The position in a checkpoint, if there is one, and the ledger that belongs to it.

    Raises:
        ValueError: the file is no checkpoint of a private run, or its ledger is missing.
    """
    if path is None or not Path(path).exists():
        return None, ledger
    state = read(path)
    if "private" not in state:
        raise ValueError(
            f"{path} is no checkpoint of a private run (it has {', '.join(state)}): what was spent "
            "on it is unknown. Give this run a file of its own."
        )
    plain = state["private"]
    position = Position(**plain | {"release": release_of(plain["release"])})
    if ledger is not None:
        expect(ledger, state["seal"])
    elif state["seal"]:
        raise ValueError(
            f"The run in {path} kept its ledger in a file. Pass it: ledger=privacy.Ledger(path)."
        )
    return position, restore(state["ledger"]) if ledger is None else ledger
