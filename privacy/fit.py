"""Private training: `fit(model, data, epsilon=, delta=)` for any model of the library.

The same loop as `pgm.fit` with another source (Poisson lots) and another update rule (DP-SGD). The
noise is calibrated so that all steps together spend at most epsilon; every number that the update
uses besides the rows (their number, rate, steps, divisor) is declared and public.
"""

import inspect
import math
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pgm.batch import Batch, rows_of
from pgm.history import Fit, Step
from pgm.learner import MakeOptimiser, Schedule
from pgm.loop import NonFiniteLoss, Training
from pgm.model import Model
from pgm.objectives import Objective
from pgm.objectives import objective as default_objective
from pgm.schema import Schema
from pgm.verb import prepare
from privacy.accounting import Accountant, calibrate, check_accountant, check_delta, check_epsilon
from privacy.batches import PoissonLots, derive
from privacy.compatibility import check
from privacy.gradients import PerRow, Route
from privacy.gradients.per_row import Terms
from privacy.learner import PrivateLearner
from privacy.ledger import Ledger, Release
from privacy.report import PrivacyReport, statement


@dataclass(frozen=True)
class PrivateFit(Fit):
    """The record of a private fit; the model it trained is changed in place.

    Attributes:
        report: the terms of the guarantee, and what it does not cover.
        ledger: all releases about these rows, this one included.
    """

    report: PrivacyReport
    ledger: Ledger

    @property
    def epsilon(self) -> float:
        """What this run spent, by the accountant that kept the budget."""
        return self.report.epsilon

    @property
    def delta(self) -> float:
        """The probability outside the guarantee."""
        return self.report.delta

    @property
    def loss(self) -> float:
        """Mean loss over the last tenth of the updates, in nats a row; not covered by epsilon.

        Empty lots have no loss and are left out.
        """
        tail = self.steps[-max(1, len(self.steps) // 10) :]
        known = [step.loss for step in tail if math.isfinite(step.loss)]
        return sum(known) / len(known) if known else math.nan

    def __str__(self) -> str:
        return (
            f"{type(self.model).__name__}: {len(self.steps)} private steps in "
            f"{self.seconds:.1f} s, loss {self.loss:.3f} nats a row (not covered by epsilon: do "
            "not publish)\n"
            f"{self.report}"
        )


def fit(model: Model, data: Any, *, progress: bool | None = None, **options: Any) -> PrivateFit:
    """Trains a model in place with differential privacy for each row.

    Args:
        model: any model, untrained on these rows; it is checked first (`privacy.check`).
        data: rows in memory, in any form.
        progress: whether a bar is shown; by default where the output is a terminal.
        **options: those of `PrivateTraining`: epsilon, delta, steps, expected_batch_size, ...

    Returns:
        The record: the steps with loss and epsilon spent, the report, the ledger. `model.note` says
        what may be said of the model.

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
    run = PrivateTraining(model, data, **options)
    hidden = None if progress is None else not progress
    with tqdm(total=run.total, desc=type(model).__name__, disable=hidden, leave=False) as bar:
        for step in run:
            steps.append(step)
            bar.update(step.step - bar.n)
            spent = step.metrics["epsilon"]
            bar.set_postfix(epsilon=f"{spent:.2f}", loss=f"{step.loss:.3f}", refresh=False)
    seconds = time.perf_counter() - start
    return PrivateFit(model, tuple(steps), seconds, len(steps), run.report, run.ledger)


class PrivateTraining(Training):
    """A private training run: iterate over it to train; every step enters the ledger as it is made.

    Args:
        model: changed in place, and moved to `device`.
        data: rows in memory, in any form.
        epsilon: the budget of this run.
        delta: the probability outside the guarantee; below 1 / rows.
        steps: the number of noisy steps.
        expected_batch_size: rows in a lot on average (256, or all rows if there are fewer).
        rate: the probability with which a row is in a lot, instead of `expected_batch_size`.
        clip: the norm to which the gradient of each row is clipped.
        rows: the declared, public number of rows; by default the number that came, which is then
            declared public by that.
        ledger: of these rows; by default a new one, which knows nothing of earlier releases.
        accountant: "prv" (tight) or "rdp", by which the budget is kept.
        objective: the loss by row; by default the verb `pgm.objective`.
        learning_rate: step size of the optimiser.
        optimiser: makes a torch optimiser from parameters and `lr=`; by default Adam.
        schedule: "constant", "cosine", or a maker of a torch LRScheduler.
        ema: decay of an average of the private weights, which is then what is kept.
        route: of the gradients by row (see `privacy.per_row_gradients`).
        terms: "split": what no row enters, such as the prior of a shared site, has its exact
            gradient added after the noise; "joint": each row's gradient carries its share.
        seed: of lots, draws and noise. It undoes the privacy for whoever knows it: by default it
            comes from the system's entropy and is forgotten.
        schema: how a data frame is read.
        device: by default the GPU where there is one.
        dtype: of parameters and data; by default the parameters'.
        **refused: options of `pgm.fit` that a private fit cannot honour are explained.

    Attributes:
        ledger: with the steps made so far.

    Raises:
        BrokenModel: the model breaks the contract, or cannot be fitted privately.
        ValueError: an option outside its range, or one that would spend what nobody counts.
        TypeError: an option that does not exist.
    """

    def __init__(
        self,
        model: Model,
        data: Any,
        *,
        epsilon: float,
        delta: float,
        steps: int = 1000,
        expected_batch_size: float | None = None,
        rate: float | None = None,
        clip: float = 1.0,
        rows: int | None = None,
        ledger: Ledger | None = None,
        accountant: Accountant = "prv",
        objective: Objective = default_objective,
        learning_rate: float = 1e-3,
        optimiser: MakeOptimiser | None = None,
        schedule: Schedule = "constant",
        ema: float | None = None,
        route: Route = "auto",
        terms: Terms = "split",
        seed: int | None = None,
        schema: Schema | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **refused: Any,
    ) -> None:
        _refuse(refused)
        _check_options(epsilon, delta, accountant, steps, clip, learning_rate)
        if schema is not None:
            model.schema = schema
        model.to(device=device or _best_device(model), dtype=dtype)
        batch = prepare(model, _in_memory(model, data))
        declared, rows = rows is not None, _public_rows(rows, rows_of(batch))
        check_delta(delta, rows=rows)
        rate = _rate(rate, expected_batch_size, rows)
        check(
            model, batch, rows=rows, objective=objective, route=route, terms=terms
        ).raise_if_broken()
        sigma = calibrate(epsilon, delta=delta, rate=rate, steps=steps, accountant=accountant)
        secret = secrets.randbits(63) if seed is None else seed
        what, run = f"fit of {type(model).__name__}", f"{derive(secret, 'run'):016x}"
        self.release = Release(what, run, sigma, rate, steps, clip, rows, delta)
        self.ledger = Ledger() if ledger is None else ledger
        _refuse_old_noise(self.release, self.ledger)
        self.accountant, self.terms = accountant, (epsilon, seed is not None, declared)
        self.by_row = PerRow(model, size=rows, objective=objective, route=route, terms=terms)
        self.by_row.settle(batch)
        self.earlier = model.note if ledger is None else None
        super().__init__(
            model,
            batch,
            objective=objective,
            steps=steps,
            seed=derive(secret, "draws"),
            device=model.device,
            source=PoissonLots(model, batch, rate=rate, rows=rows, seed=derive(secret, "lots")),
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
            ),
        )

    def __iter__(self) -> Iterator[Step]:
        """Makes the steps; after each the model says what was spent on it."""
        try:
            for step in super().__iter__():
                self.model.note = self._note("rdp")
                yield step
        except (Exception, KeyboardInterrupt):
            self.model.note = self._note("rdp")
            raise
        self.model.note = self._note(self.accountant)

    @property
    def report(self) -> PrivacyReport:
        """The terms of the steps made so far."""
        asked, seeded, declared = self.terms
        return PrivacyReport(
            replace(self.release, steps=self.step),
            asked=asked,
            accountant=self.accountant,
            route=self.by_row.route,
            reason=self.by_row.reason,
            shared=_shared(self.by_row),
            seeded=seeded,
            declared=declared,
        )

    def _note(self, accountant: Accountant) -> str:
        delta, releases = self.release.delta, self.ledger.releases
        spent = self.ledger.epsilon(delta, accountant=accountant)
        note = statement(spent, delta, accountant, len(releases))
        return note if self.earlier is None else f"{note} Before that: {self.earlier}"

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


_REFUSED = {
    "batch_size": "lots are Poisson-sampled, so their size varies. Pass expected_batch_size= or "
    "rate=",
    "epochs": "pass steps=; epochs / rate steps look at each row `epochs` times on average",
    "validation": "choosing weights by a held-out loss releases that loss, which nobody counts. "
    "Evaluate afterwards, on rows that need no protection",
    "patience": "stopping by a held-out loss releases it, and nobody counts that. Pass steps=",
    "evaluate_every": "there is no held-out loss in a private fit",
    "checkpoint": "a run taken up again would use the noise of the first a second time, so that it "
    "could be subtracted. Run it in one go, and pgm.save the model when it is done",
    "checkpoint_every": "private runs are not resumed, so there is no checkpoint",
    "source": "the guarantee is that of Poisson sampling and of no other source",
    "learner": "the guarantee is that of the update rule of this package",
    "size": "pass rows=, the declared number of rows",
    "noise_multiplier": "the noise follows from epsilon, delta, rate and steps; see "
    "privacy.epsilon for what a given noise spends",
}


def _refuse(options: dict[str, Any]) -> None:
    for name in options:
        if name in _REFUSED:
            raise ValueError(f"A private fit takes no {name}=: {_REFUSED[name]}.")
        known = [p for p in inspect.signature(PrivateTraining).parameters if p != "refused"]
        raise TypeError(f"A private fit has no option {name!r}; it has {', '.join(known[2:])}.")


def _check_options(
    epsilon: float, delta: float, accountant: str, steps: int, clip: float, learning_rate: float
) -> None:
    check_epsilon(epsilon)
    check_delta(delta)
    check_accountant(accountant)
    if steps < 1:
        raise ValueError(
            f"steps is {steps}; a fit makes one noisy step or more, to whose number the noise is "
            "calibrated."
        )
    if not (clip > 0 and math.isfinite(clip)):
        raise ValueError(
            f"clip is {clip}; it is the norm to which the gradient of each row is clipped, "
            "positive and finite: without it no noise hides a row."
        )
    if not learning_rate > 0:
        raise ValueError(
            f"learning_rate is {learning_rate}; a step that descends is positive, such as 1e-3."
        )


def _refuse_old_noise(release: Release, ledger: Ledger) -> None:
    if any(release.run == earlier.run for earlier in ledger.releases):
        raise ValueError(
            "The ledger has a release made with this seed: the same noise a second time could be "
            "subtracted from the first. Pass another seed=, or none."
        )


def _in_memory(model: Model, data: Any) -> Any:
    if isinstance(data, Dataset | DataLoader):
        raise ValueError(
            f"A {type(data).__name__} came; it orders and batches the rows by itself, and the "
            "guarantee holds for Poisson sampling alone. Pass the rows as tensors or as a frame."
        )
    if type(data).__module__.partition(".")[0] == "pandas" and model.schema is None:
        raise ValueError(
            "A data frame came, and the model has no schema: levels and bounds read off the rows "
            "would be released without noise. Declare them beforehand, from what is publicly "
            'known: schema=pgm.Schema({"age": pgm.Continuous(lower=0, upper=120), ...}).'
        )
    return data


def _public_rows(rows: int | None, came: int) -> int:
    if rows is not None and rows < came:
        raise ValueError(
            f"rows={rows} are declared and {came} came: the sampling rate and the share of a row "
            "would be wrong. Declare a public number that is at least as large."
        )
    return came if rows is None else rows


def _rate(rate: float | None, expected_batch_size: float | None, rows: int) -> float:
    if rate is not None and expected_batch_size is not None:
        raise ValueError(
            "Both rate= and expected_batch_size= came; each fixes the other. Pass one."
        )
    if rate is None:
        expected = min(256, rows) if expected_batch_size is None else expected_batch_size
        rate = expected / rows
    if not 0 < rate <= 1:
        raise ValueError(
            f"The sampling rate is {rate:g} (lots of {rate * rows:g} rows of {rows}); it is the "
            "probability with which a row is in a lot, above 0 and at most 1."
        )
    return rate


def _shared(by_row: PerRow) -> str:
    """What became of the terms of the loss that no row enters."""
    if by_row.public:
        return "exact, after the noise: computed on made-up rows; no row enters them (checked)"
    if by_row.terms == "split":
        return "none"
    return f"inside the clipped gradient, 1/{by_row.size} in each row"


def _best_device(model: Model) -> torch.device:
    return torch.device("cuda") if torch.cuda.is_available() else model.device
