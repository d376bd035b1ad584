"""Gradient descent whose steps are recorded once and replayed: objective, gradient and update.

A step of a small model is almost all Python: handlers, distributions, the tape. Its record
(`pgm.tracing`) is a list of torch calls, or one compiled loop with the optimiser's update in it.
The program itself runs while its arguments are checked (the first epoch), for minibatches of shapes
that hardly come again, and wherever a record cannot be trusted.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from pgm.batch import Batch, rows_of, take
from pgm.learner import GradientLearner
from pgm.randomness import seeded
from pgm.tracing import Backend, Trace, Untraceable, best_backend, close, trace
from pgm.tracing.backends import holding, leaf
from pgm.tracing.optimisers import clipped, rate_of, update_of

Compile = bool | Literal["auto"] | Backend
"""Whether, and by what, steps are replayed; "auto" where they repay the compilation."""

REPAID = 15_000
"""Updates after which a compiled step has repaid its compilation. On two busy cores the examples of
the families took 2600 to 9200, and 14000 where it was the first that the process compiled."""


class TraceWarning(UserWarning):
    """Steps that were to be replayed are run by the program itself; the message says why."""


class StaleTrace(RuntimeError):
    """A program changed after it was recorded."""


class TracedLearner(GradientLearner):
    """Gradient descent on the mean of the rows' losses, by replayed steps.

    Args:
        *args: as in `GradientLearner`.
        backend: what replays the steps.
        rest: updates with the rest of an epoch, whose record is another one.
        told: whether a fall-back to the program is warned of.
        **options: as in `GradientLearner`.

    Attributes:
        layouts: records kept: of full minibatches, and of the rest of an epoch if it comes often.
        why: why the program itself is run; None if steps are replayed.
        seconds: what recording and compiling took so far.
    """

    def __init__(self, *args: Any, backend: Backend, rest: int, told: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self.backend, self.told = backend, told
        self.layouts = 2 if told or rest >= REPAID else 1
        self.why: str | None = None
        self.seconds = 0.0
        self._replays: dict[Any, Replay] = {}

    def descend(self, batch: Batch) -> float:
        """A replayed step, where distributions no longer check their arguments.

        The loop lets them check every row once, and then never again.
        """
        replay = None if self.why or _checking() else self._replay(batch)
        return super().descend(batch) if replay is None else replay(batch)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes optimiser, schedule and averages up again."""
        self._replays.clear()  # they hold the tensors of the old state
        super().load_state_dict(state)

    def __str__(self) -> str:
        if self.why:
            return f"not compiled: {self.why}"
        return f"compiled in {self.seconds:.1f} s ({self.backend})" if self._replays else ""

    def _replay(self, batch: Batch) -> "Replay | None":
        layout = tuple((name, value.shape, value.dtype) for name, value in batch.items())
        if layout not in self._replays:
            if len(self._replays) == self.layouts:
                return None
            try:
                self._replays[layout] = Replay(self, batch)
            except (Untraceable, ImportError) as reason:  # another torch has other entry points
                self._fall_back(str(reason))
                return None
            self.seconds += self._replays[layout].trace.seconds
        return self._replays[layout]

    def _fall_back(self, why: str) -> None:
        self.why = why
        if self.told:
            warnings.warn(
                f"The steps of {type(self.model).__name__} are not replayed, but run: {why}.",
                TraceWarning,
                stacklevel=2,
            )


_SEED = 3


class Replay:
    """The recorded step for minibatches of one layout.

    Args:
        learner: whose model, objective and optimiser are recorded; they are left as they are.
        batch: a minibatch.

    Raises:
        Untraceable: the program has no record that can be trusted.
    """

    def __init__(self, learner: TracedLearner, batch: Batch) -> None:
        self.learner, self.keys, self.steps = learner, list(batch), 0
        model = learner.model
        self.named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.names, expected = self._reached(batch)
        self._check_held(batch, expected)
        self.parameters = [self.named[name] for name in self.names]
        whole = learner.backend == "inductor" and _is_ready(learner, self.parameters)
        self.update = update_of(learner.optimiser) if whole else None
        self.counters, self.state = self._remembered()
        self.rate = torch.tensor(float(rate_of(learner.optimiser)), dtype=torch.float64)
        self.trace = self._record(batch)
        learner.optimiser.zero_grad(set_to_none=True)

    def __call__(self, batch: Batch) -> float:
        """Makes the step; returns the mean loss in nats.

        Raises:
            StaleTrace: the program has changed; it is looked at after 2, 4, 8, ... steps.
        """
        optimiser = self.learner.optimiser
        self.steps += 1
        if self.steps & (self.steps - 1) == 0:
            self._verify(batch)
        if self.update is None:
            optimiser.zero_grad(set_to_none=True)
            loss, *gradients = self.trace(*self._inputs(batch))
            value = loss.item()
            if value - value == 0.0:
                for p, gradient in zip(self.parameters, gradients, strict=True):
                    p.grad = gradient
                self.learner.follow()
            return value
        self.rate.fill_(rate_of(optimiser))
        value = self.trace(*self._inputs(batch))[0].item()
        if value - value == 0.0 and self.counters:
            torch._foreach_add_(self.counters, 1)
        return value

    def _verify(self, batch: Batch) -> None:
        copies = [value.detach().clone() for value in self._inputs(batch)]
        with seeded(_SEED):
            found = self.trace(*copies)[0]
        with seeded(_SEED), torch.no_grad(), _buffers_kept(self.learner.model):
            expected = self._loss(batch)
        if bool(expected.isfinite()) and not close(expected, found):
            raise StaleTrace(
                f"The replayed loss of {type(self.learner.model).__name__} is {float(found):.6g} "
                f"nats after {self.steps} steps, where the program now gives {float(expected):.6g}:"
                " it has changed since it was recorded, and the last steps were wrong. Something "
                "outside the model changes with its runs. Pass compile=False."
            )

    def _remembered(self) -> tuple[list[Tensor], list[list[Tensor]]]:
        """What the optimiser keeps of each parameter, if its update is part of the record."""
        if self.update is None:
            return [], [[] for _ in self.parameters]
        optimiser = self.learner.optimiser
        return (
            self.update.counters(optimiser, self.parameters),
            self.update.remembered(optimiser, self.parameters),
        )

    def _inputs(self, batch: Batch) -> list[Tensor]:
        """Everything that the step reads: model, optimiser, step size, count and data."""
        state = [tensor for tensors in self.state for tensor in tensors]
        data = [batch[key].contiguous() for key in self.keys]
        count = self.counters[:1] or [self.rate]
        return [*self.named.values(), *state, self.rate, *count, *data]

    def _record(self, batch: Batch) -> Trace:
        inputs = self._inputs(batch)
        other = self._inputs(_redrawn(batch))
        for place, name in enumerate(self.named):
            if name in self.names:
                other[place] = _moved(inputs[place])
        slack = {}
        if self.update is not None and self.update.sensitive:
            places = [i for i, name in enumerate(self.named) if name in self.names]
            slack = dict.fromkeys(places, 2.1 * float(self.rate))
        return trace(self._step, inputs, other, backend=self.learner.backend, slack=slack)

    def _step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The step as a function of its inputs, which it changes in place."""
        given = iter(tensors)
        held = {name: next(given) for name in self.named}
        state = [[next(given) for _ in kept] for kept in self.state]
        rate, count = next(given), next(given)
        loss, gradients = self._gradients(held, Batch(zip(self.keys, given, strict=True)))
        if self.update is None:
            pairs = zip(self.names, gradients, strict=True)
            return (loss, *(torch.empty_like(held[name]).copy_(g) for name, g in pairs))
        if self.learner.clip is not None:
            gradients = clipped(gradients, self.learner.clip)
        lawful = loss.isfinite()
        for name, gradient, kept in zip(self.names, gradients, state, strict=True):
            new = self.update(held[name], gradient, kept, rate, count.double() + 1)
            for old, value in zip((held[name], *kept), new, strict=True):
                old.copy_(torch.where(lawful, value, old))
        return (loss,)

    def _gradients(self, held: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        leaves = [leaf(held[name]) for name in self.names]
        inside = held | dict(zip(self.names, leaves, strict=True))
        with torch.enable_grad(), holding(self.learner.model, inside) as after:
            loss = self.learner.objective(self.learner.model, batch, size=self.learner.size).mean()
            gradients = torch.autograd.grad(loss, leaves)
        for name, tensor in after.items():
            if tensor is not inside[name]:
                raise Untraceable(f"it replaces {name!r}, instead of changing it in place")
        return loss.detach(), gradients

    def _reached(self, batch: Batch) -> tuple[list[str], list[Tensor]]:
        """The names of the parameters that the loss depends on; the loss and its gradients.

        Raises:
            Untraceable: a run changes a number, text or truth value that the model holds.
        """
        trained = {name: value for name, value in self.named.items() if value.requires_grad}
        before = dict(_plain(self.learner))
        with seeded(_SEED), _buffers_kept(self.learner.model):
            loss = self._loss(batch)
            found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        if changed := [name for name, v in _plain(self.learner) if before.get(name) != v]:
            raise Untraceable(f"each run changes {changed[0]}, which a record would hold fixed")
        gradients: dict[str, Tensor | None] = dict(zip(trained, found, strict=True))
        reached = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        return list(reached), [loss.detach(), *reached.values()]

    def _loss(self, batch: Batch) -> Tensor:
        """The program's own loss."""
        return self.learner.objective(self.learner.model, batch, size=self.learner.size).mean()

    def _check_held(self, batch: Batch, expected: Sequence[Tensor]) -> None:
        """The step as a function of its inputs must be the step of the model itself."""
        held = {name: value.detach().clone() for name, value in self.named.items()}
        with seeded(_SEED):
            loss, gradients = self._gradients(held, batch)
        for a, b in zip(expected, (loss, *gradients), strict=True):
            if not close(a, b):
                raise Untraceable(
                    "its loss or gradient is another one when it is run again on copies of its "
                    "parameters: it changes from run to run, or reaches them by another way than "
                    "the model's own attributes"
                )


def choose(
    compile: Compile, *, steps: int, device: torch.device, repaid: int | None = None
) -> Backend:
    """What replays the steps: "eager" is the program itself.

    With "auto" it depends on the number of steps alone (`repaid` or more, by default `REPAID`), so
    that a run is the same each time, and the same when it is resumed.

    Raises:
        ValueError: there is no such back end.

    Example:
        >>> choose("auto", steps=100, device=torch.device("cpu"))
        'eager'
    """
    from pgm.tracing import BACKENDS

    if compile == "auto":
        pays = steps >= (REPAID if repaid is None else repaid) and device.type == "cpu"
        return best_backend() if pays else "eager"
    if isinstance(compile, bool):
        return best_backend() if compile else "eager"
    if compile not in BACKENDS:
        raise ValueError(
            f"There is no compile={compile!r}: pass 'auto', True, False or one of "
            f"{', '.join(BACKENDS)}."
        )
    return compile


def _checking() -> bool:
    checking: bool = pyro.settings.get("validate_distributions_pyro")
    return checking


def _is_ready(learner: GradientLearner, parameters: Sequence[Tensor]) -> bool:
    """Whether the optimiser has made a step: before, it remembers nothing."""
    update = update_of(learner.optimiser)
    if update is None:
        return False
    try:
        update.remembered(learner.optimiser, parameters)
    except KeyError:
        return False
    return True


def _plain(learner: GradientLearner) -> Iterator[tuple[str, Any]]:
    """The numbers, texts and truth values held by the objective and the modules of the model."""
    holders: dict[str, Any] = {"the objective": learner.objective}
    holders |= {f"{name or 'the model'}": m for name, m in learner.model.named_modules()}
    for name, holder in holders.items():
        for key, value in getattr(holder, "__dict__", {}).items():
            if isinstance(value, int | float | str):
                yield f"{key!r} of {name}", value


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Undoes what the block does to buffers in place."""
    kept = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    yield
    for buffer, version, value in kept:
        if buffer._version != version:
            buffer.copy_(value)


def _redrawn(batch: Batch) -> Batch:
    """Rows of the batch drawn with replacement: other data that are as lawful."""
    generator = torch.Generator().manual_seed(0)
    n = rows_of(batch)
    device = next(iter(batch.values())).device
    return take(batch, torch.randint(n, (n,), generator=generator).to(device))


def _moved(p: Tensor) -> Tensor:
    noise = torch.rand(p.shape, generator=torch.Generator().manual_seed(0)).to(p)
    return p.detach() + 1e-3 * (noise - 0.5)
