"""One private step: gradients by row, clipped, summed, noised, divided by the declared lot size.

The update is DP-SGD (Abadi et al. 2016, Alg. 1) with any torch optimiser after it:
(sum_i g_i min(1, C / ||g_i||) + N(0, sigma^2 C^2)) / (q N) + the gradient of the public terms. The
clipped sum comes from `privacy.gradients`; noise and division are those of Opacus' optimiser
(`privacy.optimiser`). Each step is entered in the ledger before the parameters change. An empty lot
makes a step of noise alone, and is entered too.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from pgm.batch import Batch
from pgm.learner import MakeOptimiser, Schedule, average, make_optimiser, make_schedule, trainable
from pgm.model import Model
from privacy.clipping import AdaptiveClip, Clip, LayerClip, unclipped
from privacy.generators import seed_all
from privacy.gradients import PerRow
from privacy.gradients.rows import Layers
from privacy.kept import tensors
from privacy.ledger import Ledger, Release
from privacy.noise import width
from privacy.watch import Watch


class PrivateLearner:
    """The private update rule; a learner for pgm's training loop.

    Args:
        model: whose trainable parameters are updated, in place.
        rows: computes the gradients by row.
        release: one step of the mechanism as it enters the ledger: noise, clipping norm, rate, and
            the declared number of rows.
        ledger: where every step is entered.
        seed: of the noise.
        steps: updates in all, for the schedule.
        learning_rate: the optimiser's step size.
        optimiser: makes a torch optimiser from parameters and `lr=`; by default Adam.
        schedule: as for `pgm.fit`.
        ema: decay of an average of the (already private) weights, which is then what is kept.
        clip: how rows are clipped; by default to the norm of `release`.
        secure: whether the noise comes from the system's entropy and lies on a grid.

    Attributes:
        bound: what the next step clips to.
    """

    def __init__(
        self,
        model: Model,
        rows: PerRow,
        *,
        release: Release,
        ledger: Ledger,
        seed: int,
        steps: int,
        learning_rate: float,
        optimiser: MakeOptimiser | None = None,
        schedule: Schedule = "constant",
        ema: float | None = None,
        clip: Clip | None = None,
        secure: bool = False,
    ) -> None:
        from privacy.optimiser import PrivateOptimiser

        self.model, self.rows = model, rows
        self.release, self.ledger = replace(release, steps=1), ledger
        self.lot = max(1, round(release.rate * release.rows))
        self.clip, self.bound = release.clip if clip is None else clip, _bound(clip, release, model)
        if secure:
            _check_grid(self.clip, release, trainable(model))
        inner = make_optimiser(trainable(model), learning_rate, optimiser)
        self.optimiser = PrivateOptimiser(
            inner,
            noise_multiplier=gradient_noise(clip, release),
            max_grad_norm=release.clip,
            expected_batch_size=release.rate * release.rows,
            on_step=lambda: self.ledger.add(self.release),
            generator=seed_all(torch.Generator(device=model.device), seed),
            secure=secure,
        )
        self.schedule: LRScheduler | None = make_schedule(inner, schedule, steps)
        self.average = average(model, ema)
        self.epsilon = SpentSoFar(release, planned=steps)
        self.watch = Watch(model, lambda rows: self.rows.objective(model, rows, size=release.rows))

    def update(self, batch: Batch) -> float:
        """One noisy step; returns the mean loss of the lot in nats.

        The loss is computed from the rows themselves and is not covered by epsilon. It is NaN for
        an empty lot, and for one in which no row's loss is finite.
        """
        self.optimiser.forget()
        self.rows.settle(batch)
        before, kept = [(t, t._version) for _, t in tensors(self.model)], self.watch.kept()
        found = self.rows.clipped(batch, self.bound)
        public = self.rows.public_gradients(self.lot)
        _same_tensors(self.model, before)
        if not self.rows.replayed:
            self.watch.refuse(kept, batch)
        private = set(found.gradients)
        for name, parameter in self._named():
            own = found.gradients.pop(name, None)
            parameter.grad = torch.zeros_like(parameter) if own is None else own
        if self.optimiser.pre_step():
            self.optimiser.add_public(self._named(), public, private)
            self.optimiser.original_optimizer.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._move_bound(found.norms)
        if self.schedule is not None:
            self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.epsilon.step()
        return _finite_mean(found.losses)

    def _move_bound(self, norms: Tensor) -> None:
        """Adaptive clipping: the noisy count, which is part of the step that was entered."""
        if not isinstance(self.clip, AdaptiveClip):
            return
        assert isinstance(self.bound, float)
        lot = self.release.rate * self.release.rows
        sigma = self.clip.count_noise(self.release.noise_multiplier, lot)
        count = torch.tensor([unclipped(norms, self.bound)], dtype=torch.float64)
        noisy = self.optimiser.noisy(count, 0.5, 2 * sigma)
        self._set_bound(self.clip.moved(self.bound, float(noisy), lot))

    def _set_bound(self, bound: float) -> None:
        self.bound = self.optimiser.max_grad_norm = bound

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    def averaged(self) -> Model:
        """The averaged model, or the model itself."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def metrics(self) -> dict[str, float]:
        """Epsilon spent by this run so far, and the learning rate."""
        rate = float(self.optimiser.param_groups[0]["lr"])
        found = {"epsilon": self.epsilon.value, "learning_rate": rate}
        moving = isinstance(self.clip, AdaptiveClip)
        return found | {"clip": self.optimiser.max_grad_norm} if moving else found

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, schedule and averages: what the noise protects, and nothing of the noise."""
        state: dict[str, Any] = {"optimiser": self.optimiser.state_dict()}
        if isinstance(self.clip, AdaptiveClip):
            state["clip"] = self.optimiser.max_grad_norm
        if self.schedule is not None:
            state["schedule"] = self.schedule.state_dict()
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes optimiser, schedule and averages up again; `renew` must follow."""
        self.optimiser.load_state_dict(state["optimiser"])
        if isinstance(self.clip, AdaptiveClip):
            self._set_bound(state.get("clip", self.release.clip))
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def renew(self, release: Release, *, seed: int, made: int) -> None:
        """Goes on under another name with noise of another seed, `made` steps being spent."""
        self.release = replace(release, steps=1)
        seed_all(self.optimiser.generator, seed)
        self.epsilon.steps = made


class SpentSoFar:
    """An upper bound on the epsilon of the first t of the planned steps, cheap at every t.

    It is the Renyi bound of t steps, or the PRV bound of all the steps where that is less.

    Args:
        release: the mechanism of a step, and the delta.
        planned: the number of steps.
    """

    def __init__(self, release: Release, *, planned: int) -> None:
        self.release, self.steps = release, 0
        self._whole = replace(release, steps=planned).epsilon()

    def step(self) -> None:
        """One step more."""
        self.steps += 1

    @property
    def value(self) -> float:
        """The bound."""
        bound = replace(self.release, steps=self.steps).epsilon(accountant="rdp")
        return min(bound, self._whole)


def _bound(clip: Clip | None, release: Release, model: Model) -> float | Layers:
    """What the first step clips to."""
    if isinstance(clip, LayerClip):
        return clip.layers([name for name, p in model.named_parameters() if p.requires_grad])
    return release.clip


def gradient_noise(clip: Clip | None, release: Release) -> float:
    """The noise multiplier of the gradient; more than the accounted one beside a noisy count."""
    if isinstance(clip, AdaptiveClip):
        return clip.gradient_noise(release.noise_multiplier, release.rate * release.rows)
    return release.noise_multiplier


def _check_grid(clip: Clip, release: Release, parameters: list[nn.Parameter]) -> None:
    """Refuses, before a step is made, noise that does not fit the grid of secure noise."""
    numbers, z = sum(p.numel() for p in parameters), release.noise_multiplier
    width(numbers, sensitivity=release.clip, sigma=gradient_noise(clip, release))
    if isinstance(clip, AdaptiveClip):
        count = clip.count_noise(z, release.rate * release.rows)
        width(1, sensitivity=0.5, sigma=2 * count)


def _same_tensors(model: Model, before: list[tuple[Tensor, int]]) -> None:
    """Raises if computing a loss changed a buffer or parameter, which nothing clips or noises."""
    for (name, tensor), (old, version) in zip(tensors(model), before, strict=True):
        if tensor is not old or tensor._version != version:
            kind = "Parameter" if isinstance(tensor, nn.Parameter) else "Buffer"
            raise RuntimeError(
                f"{kind} {name!r} of {type(model).__name__} changed while the loss of a private "
                "step was computed, so that it holds what the rows left in it, without noise. "
                "Discard this model. Compute from parameters and the row alone, or hold what is "
                "learned in an nn.Parameter."
            )


def _finite_mean(losses: Tensor) -> float:
    finite = losses[losses.isfinite()]
    return float(finite.mean()) if len(finite) else math.nan
