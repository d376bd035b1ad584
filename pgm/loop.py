"""One loop: `training` yields a step after each update; `fit` consumes it.

The progress bar, early stopping, averages, checkpoints and private training are arguments or
consumers of this generator; there is no callback class and no second loop.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pgm.batch import Batch, chunks, split
from pgm.check import blame, check
from pgm.checkpoint import read, write
from pgm.history import Fit, Step
from pgm.learner import GradientLearner, Learner, MakeOptimiser, Schedule
from pgm.minibatches import Source
from pgm.minibatches import source as make_source
from pgm.model import Model
from pgm.objectives import Objective
from pgm.objectives import objective as default_objective
from pgm.randomness import Stream, fresh_seed, seeded
from pgm.schema import Schema
from pgm.traced import Compile, TracedLearner, choose
from pgm.verb import prepare


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; the message names the site that made it so."""


def fit(
    model: Model,
    data: Any,
    *,
    progress: bool | None = None,
    compile: Compile = "auto",
    **options: Any,
) -> Fit:
    """Trains a model in place.

    Args:
        model: any model; its programs are checked first.
        data: a batch in any form, a Dataset or a DataLoader.
        progress: whether a bar is shown; by default where the output is a terminal.
        compile: as in `Training`, but by default steps are replayed where that repays.
        **options: those of `training`.

    Returns:
        The record of the run; it prints and plots itself.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> run = fit(PPCA(3, 1), x, steps=5, seed=0)
        >>> len(run.steps), run.best
        (5, 5)
    """
    from tqdm import tqdm

    start, steps = time.perf_counter(), list[Step]()
    run = Training(model, data, compile=compile, **options)
    hidden = None if progress is None else not progress
    with tqdm(total=run.total, desc=type(model).__name__, disable=hidden, leave=False) as bar:
        for step in run:
            steps.append(step)
            bar.update(step.step - bar.n)
            bar.set_postfix(loss=f"{step.loss:.3f}", refresh=False)
    best = min(
        (s for s in steps if s.validation is not None),
        key=lambda s: s.validation,  # type: ignore[arg-type, return-value]
        default=steps[-1] if steps else Step(0, 0, float("nan")),
    )
    how = str(run.learner) if isinstance(run.learner, TracedLearner) else ""
    return Fit(model, tuple(steps), time.perf_counter() - start, best.step, how=how)


def training(model: Model, data: Any, **options: Any) -> Iterator[Step]:
    """Trains a model in place and yields after each update; `fit` without the record.

    Args:
        model: any model; its programs are checked first.
        data: a batch in any form, a Dataset or a DataLoader.
        **options: those of `Training`.

    Yields:
        A `Step` an update. The global random state is the caller's between the steps. When the
        loop ends by itself, the model holds the best (or averaged) weights.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> [step.epoch for step in training(PPCA(3, 1), torch.zeros(4, 3), steps=3, batch_size=2)]
        [0, 0, 1]
    """
    return iter(Training(model, data, **options))


class Training:
    """A training run: iterate over it to train.

    Args:
        model: changed in place, and moved to `device`.
        data: a batch in any form, a Dataset or a DataLoader.
        objective: the loss by row; by default the verb `pgm.objective`.
        steps: updates in all (1000 unless `epochs` are given).
        epochs: passes over the data, instead of `steps`.
        batch_size: rows a minibatch.
        learning_rate: step size of the optimiser.
        optimiser: makes a torch optimiser from parameters and `lr=`; by default Adam.
        schedule: "constant", "cosine", or a maker of a torch LRScheduler.
        clip: largest norm of the gradient.
        ema: decay of an exponential moving average of the weights, which is then what is kept.
        validation: held-out data, or the fraction of the rows to hold out.
        patience: evaluations without improvement after which to stop; needs `validation`.
        evaluate_every: updates between evaluations; by default an epoch.
        seed: of the order of the rows and of all draws; by default one from the global state.
        schema: how a data frame is read; by default the model's, or inferred from the frame.
        size: the number of rows of the whole data, where the data have no length.
        device: by default the GPU where there is one.
        dtype: of parameters and data; by default the parameters'.
        checkpoint: a file to write to, and to resume from where it exists.
        checkpoint_every: updates between checkpoints.
        compile: whether steps are recorded and replayed without Python (`pgm.traced`): False runs
            the program each time, "auto" compiles from 15000 steps on, True always; or "inductor",
            "ts", "graph", "eager". In the first epoch the program itself is run, with all checks.
            Nothing but the step itself may change the model in between.
        source: minibatches, instead of the shuffled ones of `data`.
        learner: the update rule, instead of gradient descent; made from (model, source, total).

    Raises:
        BrokenModel: a program breaks a rule (see `pgm.check`).
        NonFiniteLoss: while iterating, at the first loss that is not finite.
        ValueError: options that contradict each other.
    """

    def __init__(
        self,
        model: Model,
        data: Any,
        *,
        objective: Objective = default_objective,
        steps: int | None = None,
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        optimiser: MakeOptimiser | None = None,
        schedule: Schedule = "constant",
        clip: float | None = None,
        ema: float | None = None,
        validation: Any = None,
        patience: int | None = None,
        evaluate_every: int | None = None,
        seed: int | None = None,
        schema: Schema | None = None,
        size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 200,
        compile: Compile = False,
        source: Source | None = None,
        learner: Callable[[Model, Source, int], Learner] | None = None,
    ) -> None:
        _check_options(steps, epochs, patience, validation, learning_rate)
        self.seed = fresh_seed() if seed is None else seed
        self.model = _place(model, device, dtype)
        _adopt_schema(model, data, schema)
        data, self.held_out = _hold_out(model, data, validation, self.seed)
        self.source = source or make_source(
            model, data, batch_size=batch_size, seed=self.seed, size=size
        )
        self._check()
        self.total = steps or (epochs * len(self.source) if epochs else 1000)
        descent: dict[str, Any] = {
            "learning_rate": learning_rate,
            "optimiser": optimiser,
            "schedule": schedule,
            "clip": clip,
            "ema": ema,
        }
        self.evaluate_every = evaluate_every or len(self.source)
        sure = self.total if patience is None else patience * self.evaluate_every
        make = learner or _descend(objective, compile, descent, sure=sure)
        self.learner = make(model, self.source, self.total)
        self.objective = objective
        self.patience, self.checkpoint_every = patience, checkpoint_every
        self.checkpoint = Path(checkpoint) if checkpoint is not None else None
        self.stream = Stream(self.seed)
        self.step, self.stale, self.best_loss = 0, 0, math.inf
        self.best: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[Step]:
        """Runs the updates that are left."""
        self._resume()
        self.model.note = None  # what was said of the old weights does not hold for the new ones
        while self.step < self.total and not self._out_of_patience():
            epoch, skip = divmod(self.step, len(self.source))
            for batch in self.source.epoch(epoch, skip=skip):
                yield self._advance(batch, epoch)
                if self.step >= self.total or self._out_of_patience():
                    break
        self._finish()

    def _check(self) -> None:
        """Refuses a model that breaks the contract, before anything is trained."""
        check(self.model, next(self.source.epoch(0))).raise_if_broken()

    def _stop_if_lost(self, batch: Batch, loss: float) -> None:
        """Stops at the first loss that is not finite."""
        if not math.isfinite(loss):
            raise NonFiniteLoss(_story(self.model, batch, loss, self.step + 1))

    def _advance(self, batch: Batch, epoch: int) -> Step:
        with self.stream.running(), pyro.validation_enabled(epoch == 0):  # every row once
            if not self.model.training:
                self.model.train()
            loss = self.learner.update(batch)
            self._stop_if_lost(batch, loss)
            self.step += 1
            last = self.step == self.total
            due = last or self.step % self.evaluate_every == 0
            held = self._evaluate(self.held_out) if due and self.held_out else None
        if self.checkpoint and (last or self.step % self.checkpoint_every == 0):
            write(self.checkpoint, self._state())
        return Step(self.step, epoch, loss, held, self.learner.metrics())

    def _evaluate(self, held_out: Batch) -> float:
        """The held-out loss, under the same draws each time; keeps the best weights."""
        model = self.learner.averaged()
        model.eval()
        with torch.no_grad(), seeded(self.seed):
            losses = [
                self.objective(model, piece, size=self.source.size)
                for piece in chunks(held_out, 1024)
            ]
        loss = float(torch.cat(losses).mean())
        if loss < self.best_loss:
            self.best_loss, self.stale = loss, 0
            self.best = {k: v.detach().clone() for k, v in model.state_dict().items()}
        else:
            self.stale += 1
        return loss

    def _out_of_patience(self) -> bool:
        return self.patience is not None and self.stale >= self.patience

    def _finish(self) -> None:
        """Leaves the best weights in the model, or the averaged ones."""
        kept = self.best or self.learner.averaged().state_dict()
        self.model.load_state_dict(kept)
        self.model.eval()

    def _state(self) -> dict[str, Any]:
        return {
            "run": self._identity(),
            "step": self.step,
            "model": self.model.state_dict(),
            "learner": self.learner.state_dict(),
            "stream": self.stream.state,
            "best": self.best,
            "best_loss": self.best_loss,
            "stale": self.stale,
        }

    def _resume(self) -> None:
        """Takes up the run of the checkpoint, if there is one."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        state = read(self.checkpoint)
        if state.get("run") != self._identity():
            raise ValueError(
                f"{self.checkpoint} holds another run ({state.get('run')}) than this one "
                f"({self._identity()}): resuming would mix them. Give this run a file of its own."
            )
        self.step, self.stale = state["step"], state["stale"]
        self.best, self.best_loss = state["best"], state["best_loss"]
        self.model.load_state_dict(state["model"])
        self.learner.load_state_dict(state["learner"])
        self.stream.state = state["stream"]

    def _identity(self) -> str:
        return (
            f"{type(self.model).__name__}, seed {self.seed}, {self.source.size} rows in "
            f"{len(self.source)} minibatches"
        )


def _descend(
    objective: Objective, compile: Compile, options: dict[str, Any], *, sure: int
) -> Callable[[Model, Source, int], Learner]:
    """Makes the update rule that follows the gradient, replayed where that is asked for.

    `sure` is the number of updates below which the run does not stop by itself.
    """

    def make(model: Model, source: Source, total: int) -> Learner:
        known = {"size": source.size, "steps": total, **options}
        later = max(0, min(sure, total) - len(source))  # the first epoch is not replayed
        backend = choose(compile, steps=later, device=model.device)
        if backend == "eager":
            return GradientLearner(model, objective, **known)
        known |= {"rest": later // len(source), "told": compile != "auto"}
        return TracedLearner(model, objective, backend=backend, **known)

    return make


def _story(model: Model, batch: Batch, loss: float, step: int) -> str:
    with torch.no_grad():
        return f"The loss is {loss} at step {step}: {blame(model, batch)}"


def _check_options(
    steps: int | None, epochs: int | None, patience: int | None, validation: Any, rate: float
) -> None:
    if steps is not None and epochs is not None:
        raise ValueError("Both steps= and epochs= came; they contradict each other. Pass one.")
    for name, value in {"steps": steps, "epochs": epochs, "patience": patience}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it counts from 1.")
    if rate <= 0:
        raise ValueError(f"learning_rate is {rate}; a step that descends is positive.")
    if patience is not None and validation is None:
        raise ValueError(
            "patience= stops on the held-out loss, but no rows are held out. Pass validation=, the "
            "held-out data or a fraction such as 0.1."
        )


def _place(model: Model, device: Any, dtype: torch.dtype | None) -> Model:
    chosen = device or ("cuda" if torch.cuda.is_available() else model.device)
    model.to(device=chosen, dtype=dtype)
    return model


def _adopt_schema(model: Model, data: Any, schema: Schema | None) -> None:
    """A frame's schema becomes part of the model that learns from it."""
    if schema is not None:
        model.schema = schema
    elif model.schema is None and type(data).__module__.partition(".")[0] == "pandas":
        model.schema = model.infer_schema(data)


def _hold_out(model: Model, data: Any, validation: Any, seed: int) -> tuple[Any, Batch | None]:
    if validation is None:
        return data, None
    if not isinstance(validation, float):
        return data, prepare(model, validation)
    if isinstance(data, Dataset | DataLoader):
        raise ValueError(
            "A fraction can be held out of data in memory only. Pass the held-out rows themselves "
            "as validation=."
        )
    return split(prepare(model, data), validation, seed=seed)
