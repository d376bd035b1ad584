"""Private training: `fit(model, data, epsilon=, delta=)` for any model of the library.

The same loop as `pgm.fit` with another source (Poisson lots) and another update rule (DP-SGD). The
noise is calibrated so that all steps together spend at most epsilon; every number that the update
uses besides the rows (their number, rate, steps, divisor) is declared and public.
"""

import inspect
import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from pgm.batch import Batch, rows_of
from pgm.checkpoint import read, write
from pgm.history import Step
from pgm.learner import MakeOptimiser, Schedule
from pgm.loop import NonFiniteLoss, Training
from pgm.model import Model
from pgm.objectives import Objective
from pgm.objectives import objective as default_objective
from pgm.randomness import Stream
from pgm.schema import Schema
from pgm.traced import Compile
from privacy.accounting import Accountant, check_delta
from privacy.batches import PoissonLots, derive
from privacy.budget import Budget
from privacy.checkpoints import Position, content, taken_up
from privacy.clipping import Clip, describe
from privacy.compatibility import check
from privacy.gradients import Route
from privacy.gradients.per_row import Terms
from privacy.gradients.traced import rows_by
from privacy.learner import PrivateLearner
from privacy.ledger import Ledger, Release
from privacy.options import (
    check_options,
    clip_norm,
    goal,
    kept_by,
    loss_and_terms,
    noise_multiplier,
    public_rows,
    refuse,
    refuse_old_noise,
    refuse_text,
    sampling_rate,
)
from privacy.record import Hidden, PrivateFit
from privacy.report import PrivacyReport
from privacy.run import (
    fresh,
    make_parameters,
    note,
    repeated,
    route_taken,
    run_name,
    taken_in,
    what_is_shared,
)


def fit(
    model: Model,
    data: Any,
    *,
    progress: bool | None = None,
    compile: Compile = "auto",
    **options: Any,
) -> PrivateFit:
    """Trains a model in place with differential privacy for each row.

    Args:
        model: any model, untrained on these rows; it is checked first (`privacy.check`).
        data: rows in memory, in any form.
        progress: whether a bar is shown; by default where the output is a terminal.
        compile: as in `PrivateTraining`, but by default where that repays.
        **options: those of `PrivateTraining`: epsilon, delta, steps, expected_batch_size, ...

    Returns:
        The record: the steps with the epsilon spent, the report, the ledger. `model.note` says what
        may be said of the model. The losses, which no epsilon covers, are kept behind `reveal()`.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> run = fit(PPCA(3, 1), x, epsilon=3.0, delta=1e-5, steps=20, seed=0)
        >>> run.epsilon
        2.98
        >>> run.steps[-1].metrics["epsilon"] <= 3.0
        True
    """
    from tqdm import tqdm

    start, steps = time.perf_counter(), list[Step]()
    run = PrivateTraining(model, data, compile=compile, **options)
    hidden = None if progress is None else not progress
    with tqdm(total=run.total, desc=type(model).__name__, disable=hidden, leave=False) as bar:
        for step in run:
            steps.append(step)
            bar.update(step.step - bar.n)
            bar.set_postfix(epsilon=f"{step.metrics['epsilon']:.2f}", refresh=False)
    seconds = time.perf_counter() - start
    return PrivateFit(model, tuple(steps), seconds, run.step, run.report, run.ledger, run.hidden)


class PrivateTraining(Training):
    """A private training run: iterate over it to train; every step enters the ledger as it is made.

    Args:
        model: changed in place, and moved to `device`.
        data: rows in memory, in any form.
        epsilon: of this run; with a `budget`, what is left of it unless given.
        delta: the probability outside the guarantee; below 1 / rows; by default the budget's.
        steps: the number of noisy steps.
        expected_batch_size: rows in a lot on average (256, or all rows if there are fewer).
        rate: the probability with which a row is in a lot, instead of `expected_batch_size`.
        clip: the norm to which the gradient of each row is clipped; or a `privacy.LayerClip` or
            `privacy.AdaptiveClip`.
        multiplicity: draws over which the loss of a row is averaged before it is clipped.
        physical: the most rows computed with at once; a larger lot is taken in pieces, one step.
        secure: noise from the system's entropy, on a grid (`privacy.noise`); about a second a
            million parameters and step, and accounted by "rdp".
        rows: the declared, public number of rows; by default the number that came, which is then
            declared public by that.
        ledger: of these rows; by default a new one, which knows nothing of earlier releases.
        budget: of these rows, instead of their ledger: a run that would exceed it is refused.
        accountant: "prv" (tight, the default) or "rdp", by which the budget is kept.
        objective: the loss by row; by default the verb `pgm.objective`. A name is one of `terms`.
        learning_rate: step size of the optimiser.
        optimiser: makes a torch optimiser from parameters and `lr=`; by default Adam.
        schedule: "constant", "cosine", or a maker of a torch LRScheduler.
        ema: decay of an average of the private weights, which is then what is kept.
        route: of the gradients by row (see `privacy.per_row_gradients`).
        terms: "split": what no row enters, such as the prior of a shared site, has its exact
            gradient added after the noise; "joint": each row's gradient carries its share.
        compile: as in `pgm.fit`, of the clipped sums; "auto": small models, from 6000 steps on.
        seed: of lots, draws and noise. It undoes the privacy for whoever knows it: by default it
            comes from the system's entropy and is forgotten.
        schema: how a data frame is read.
        device: by default the GPU where there is one.
        dtype: of parameters and data; by default the parameters'.
        checkpoint: a file to write to, and to resume from where it exists, with new noise (see
            `privacy.checkpoints`).
        checkpoint_every: updates between checkpoints; as many may be lost when a run is killed.
        **refused: options of `pgm.fit` that a private fit cannot honour are explained.

    Attributes:
        ledger: with the steps made so far.
        hidden: the losses so far, behind `reveal()`.

    Raises:
        BudgetExceeded: the budget does not allow it.
        BrokenModel: the model breaks the contract, or cannot be fitted privately.
        ValueError: an option outside its range, or one that would spend what nobody counts.
        TypeError: an option that does not exist.
    """

    def __init__(
        self,
        model: Model,
        data: Any,
        *,
        epsilon: float | None = None,
        delta: float | None = None,
        steps: int = 1000,
        expected_batch_size: float | None = None,
        rate: float | None = None,
        clip: Clip = 1.0,
        multiplicity: int = 1,
        physical: int | None = None,
        secure: bool = False,
        rows: int | None = None,
        ledger: Ledger | None = None,
        budget: Budget | None = None,
        accountant: Accountant | None = None,
        objective: Objective | str = default_objective,
        learning_rate: float = 1e-3,
        optimiser: MakeOptimiser | None = None,
        schedule: Schedule = "constant",
        ema: float | None = None,
        route: Route = "auto",
        terms: Terms = "split",
        compile: Compile = False,
        seed: int | None = None,
        schema: Schema | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 200,
        **refused: Any,
    ) -> None:
        refuse(refused, [*inspect.signature(PrivateTraining).parameters][2:-1])
        refuse_text(epsilon=epsilon, delta=delta, steps=steps, clip=clip, rows=rows, rate=rate)
        delta, given = goal(epsilon, delta, ledger, budget)
        self.accountant = kept_by(accountant, secure=secure)
        check_options(delta, self.accountant, steps, clip, learning_rate)
        batch = taken_in(model, data, schema, device, dtype)
        declared, rows = rows is not None, public_rows(rows, rows_of(batch))
        check_delta(delta, rows=rows)
        rate = sampling_rate(rate, expected_batch_size, rows)
        objective, terms = loss_and_terms(objective, terms)
        loss = repeated(objective, multiplicity)
        make_parameters(model, batch, objective, rows)
        check(model, batch, rows=rows, objective=loss, route=route, terms=terms).raise_if_broken()
        secret = fresh() if seed is None else seed
        self.budget, self.hidden, self.clip, self.secure = budget, Hidden(), clip, secure
        self.terms = (epsilon, seed is not None, declared)
        self.earlier = model.note if given is None else None
        sampling: dict[str, Any] = {"rate": rate, "rows": rows, "secure": secure}
        what, norm = f"fit of {type(model).__name__}", clip_norm(model, clip)
        planned = Release(what, run_name(secret), 0.0, rate, steps, norm, rows, delta)
        self._plan(planned, given, checkpoint)
        how: Any = {"route": route, "terms": terms, "steps": steps, "lot": rate * rows}
        self.by_row = rows_by(compile, model, size=rows, objective=loss, physical=physical, **how)
        super().__init__(
            model,
            batch,
            objective=loss,
            steps=steps,
            seed=derive(secret, "draws"),
            device=model.device,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            source=PoissonLots(model, batch, seed=_seed_of_lots(self, secret), **sampling),
            learner=lambda model, source, total: PrivateLearner(
                model,
                self.by_row,
                release=self.release,
                ledger=self.ledger,
                seed=derive(secret, "noise"),
                steps=total,
                learning_rate=learning_rate,
                optimiser=optimiser,
                schedule=schedule,
                ema=ema,
                clip=clip,
                secure=secure,
            ),
        )

    def _plan(self, release: Release, ledger: Ledger | None, checkpoint: Any) -> None:
        """Chooses the noise, and refuses what the ledger or the budget does not allow."""
        asked = self.terms[0]
        found, known = taken_up(checkpoint, ledger)
        self.ledger = Ledger() if known is None else known
        self.start, self.lost, self.sure, self.begun = 0, 0, True, False
        self.resumed = found is not None
        if found is not None:
            if not found.matches(release, release.steps, asked):
                raise ValueError(
                    f"{checkpoint} holds another run ({found.release}, epsilon {found.asked}) than "
                    f"this one ({release}, epsilon {asked}): resuming would mix them. Give this "
                    "run a file of its own."
                )
            self.release = replace(found.release, steps=release.steps)
            return
        sigma = noise_multiplier(
            asked, release.delta, release.rate, release.steps, self.accountant, self.budget
        )
        self.release = replace(release, noise_multiplier=sigma)
        refuse_old_noise(self.release, self.ledger)
        if self.budget is not None:
            self.budget.check([*self.ledger.committed, self.release])

    def __iter__(self) -> Iterator[Step]:
        """Makes the steps; after each the model says what was spent on it."""
        try:
            for step in super().__iter__():
                self.model.note = _note(self, "rdp")
                yield step
        except GeneratorExit:
            self._save(sure=True)
            raise
        except (Exception, KeyboardInterrupt):
            self.model.note = _note(self, "rdp")
            raise
        finally:
            self.ledger.end(self.release.run)
            self._count_lost()
        self.model.note = _note(self, self.accountant)

    def _resume(self) -> None:
        """Takes up the run of the checkpoint, if there is one, and enters what is to be made."""
        found, _ = taken_up(self.checkpoint, self.ledger)
        if found is not None:
            self._take_up(found.settled(self.ledger))
        elif not self.begun:
            refuse_old_noise(self.release, self.ledger)
        self.begun = True
        left = replace(self.release, steps=self.total - self.step)
        if left.steps > 0 and self.budget is not None:
            self.budget.begin(left)
        elif left.steps > 0:
            self.ledger.begin(left)
        self._save(sure=left.steps == 0)

    def _count_lost(self) -> None:
        """A step that was broken off after its noise was drawn is spent, and not made again."""
        made = sum(r.steps for r in self.ledger.releases if r.run == self.release.run)
        lost = max(0, made - (self.step - self.start))
        self.start -= lost
        self.lost += lost
        self.total -= lost
        if lost and isinstance(self.source, PoissonLots):  # no step is made on its lot again
            self.source.seed = derive(fresh(), "lots")

    def _take_up(self, position: Position) -> None:
        """Goes on from a checkpoint, with noise, lots and draws that were never used."""
        assert self.checkpoint is not None
        state, secret = read(self.checkpoint), fresh()
        self.model.load_state_dict(state["model"])
        self.learner.load_state_dict(state["learner"])
        self.step, self.start, self.lost = position.step, position.start, position.lost
        self.total = position.end
        self.release = replace(position.release, run=run_name(secret))
        assert isinstance(self.learner, PrivateLearner) and isinstance(self.source, PoissonLots)
        self.learner.renew(self.release, seed=derive(secret, "noise"), made=self.step + self.lost)
        self.source.seed = derive(secret, "lots")
        self.stream = Stream(derive(secret, "draws"))

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds: see `privacy.checkpoints`."""
        asked, _, _ = self.terms
        position = Position(
            self.release,
            planned=self.total + self.lost,
            asked=asked,
            start=self.start,
            step=self.step,
            lost=self.lost,
            sure=self.sure or self.step == self.total,
            every=self.checkpoint_every,
        )
        learned = {"model": self.model.state_dict(), "learner": self.learner.state_dict()}
        return content(position, self.ledger) | learned

    def _save(self, *, sure: bool) -> None:
        """Writes the checkpoint; `sure` if no step follows it."""
        if self.checkpoint is not None:
            self.sure = sure
            write(self.checkpoint, self._state())
            self.sure = False

    def _advance(self, batch: Batch, epoch: int) -> Step:
        """One step, whose loss is kept to ourselves."""
        step = super()._advance(batch, epoch)
        self.hidden.losses.append(step.loss)
        return replace(step, loss=math.nan)

    @property
    def report(self) -> PrivacyReport:
        """The terms of the steps made so far."""
        asked, seeded, declared = self.terms
        return PrivacyReport(
            replace(self.release, steps=self.step + self.lost),
            asked=asked,
            accountant=self.accountant,
            route=route_taken(self.by_row),
            reason=self.by_row.reason,
            shared=what_is_shared(self.by_row),
            seeded=seeded,
            declared=declared,
            lost=self.lost,
            revealed=tuple(self.hidden.revealed),
            seal=self.ledger.head,
            together=self.ledger.releases,
            clipping=describe(self.clip, self.release.clip),
            secure=self.secure,
            earlier=self.earlier or "",
        )

    def _check(self) -> None:
        """Done already, on all rows; a lot may be empty."""

    def _stop_if_lost(self, batch: Batch, loss: float) -> None:
        """Stops if the parameters are lost; the loss of a lot tells of its rows, and stops none."""
        for name, parameter in self.model.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise NonFiniteLoss(
                    f"Parameter {name!r} is not finite after step {self.step + 1}: the noise drove "
                    "it off. Lower the learning rate, raise the lot size, or ask for less noise "
                    "(more epsilon or fewer steps). What was spent stays spent."
                )


def _note(run: PrivateTraining, accountant: Accountant) -> str:
    """What may be said of the model now."""
    return note(run.ledger, run.release.delta, accountant, run.earlier)


def _seed_of_lots(run: PrivateTraining, secret: int) -> int:
    """A fresh one where a run is taken up: lots may be handed out before that is done."""
    return derive(fresh() if run.resumed else secret, "lots")
