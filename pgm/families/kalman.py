"""Linear-Gaussian state space model: a hidden vector that moves linearly, seen through noise.

    z_0 ~ N(m_0, P_0),    z_t ~ N(A z_{t-1}, Q),    x_t ~ N(C z_t + d, R)

(Kalman 1960; Murphy 2023, Sec. 8.2; for level and trend Harvey 1989, "Forecasting, structural time
series models and the Kalman filter"). A row is a whole series and one site, its states integrated
out by the Kalman filter: densities, states, completions and forecasts are exact, and missing cells
are left out of all of them. Fitted by gradients of the exact likelihood, `pgm.fit`, or by
expectation maximisation, `shumway_stoffer`.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

import pyro
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pgm.batch import Batch, cells, chunks
from pgm.families import Example
from pgm.inference.chains import kalman
from pgm.inference.chains import shumway_stoffer as em
from pgm.inference.chains.baum_welch import Climb
from pgm.inference.chains.kalman import Normals, System
from pgm.inference.chains.linear_gaussian import LinearGaussian, check_system
from pgm.inference.chains.questions import (
    Forecast,
    check_counts,
    filter_states,
    forecast,
    sample_states,
    smooth_states,
    viterbi,
)
from pgm.model import Model, rows
from pgm.objectives import objective
from pgm.randomness import seeded
from pgm.verb import prepare
from pgm.verbs import Imputation, LogProb, decode, encode, impute, log_prob

__all__ = ["Covariance", "StateSpace", "example", "shumway_stoffer"]

Covariance = Literal["diagonal", "full"]
"""The shape of the noises' covariances Q and R."""

_AT_ONCE = 2**23


class StateSpace(Model):
    """A linear-Gaussian state space model of series (Kalman 1960).

    Rows are series, shape (n, T), or (n, T, features); those that are shorter are padded with NaN.
    Matrices that are given stay as they are; the others, and the noises, are learned. Use float64
    (`.double()`) for long series and wide priors. Learned states have no units of their own: any
    invertible map of them is the same model.

    Args:
        length: T, the steps of a row.
        latents: k, the cells of a state; with a given transition, as many as it has.
        features: d, the cells of a step; None for one number a step, rows (T,).
        transition: A, (k, k); None to learn it.
        observation: C, (d, k), and no offset; None to learn C and the offset d.
        covariance: of the noises: "diagonal" or "full".
        initial_scale: the first state is N(0, initial_scale^2) in every cell; a large number, in
            the units of the data, says that nothing is known of it. None to learn its mean and
            scales, which takes several series.

    Attributes:
        transition: A, (k, k).
        observation: C, (d, k).
        offset: d, (d,).
        process: the root of Q.
        noise: the root of R.

    Raises:
        ValueError: a size below 1, matrices that do not fit together, an unknown covariance, or an
            initial scale that is not positive.

    Example:
        >>> level = StateSpace.local_level(length=3, initial_scale=1.0)
        >>> x = torch.tensor([[0.0, float("nan"), 1.0]])
        >>> log_prob(level, x).value
        tensor([-2.9537])
        >>> smooth_states(level, x).mean[0, :, 0]
        tensor([0.1429, 0.4286, 0.7143])
    """

    transition: Tensor
    observation: Tensor
    offset: Tensor
    initial_mean: Tensor
    initial_log_scales: Tensor

    def __init__(
        self,
        length: int,
        *,
        latents: int = 1,
        features: int | None = None,
        transition: Tensor | None = None,
        observation: Tensor | None = None,
        covariance: Covariance = "diagonal",
        initial_scale: float | None = None,
    ) -> None:
        super().__init__()
        d = 1 if features is None else features
        k = latents if transition is None else len(transition)
        check_system(length, k, d, transition, observation, covariance, initial_scale)
        self.length, self.step = length, () if features is None else (d,)
        C = torch.randn(d, k) / math.sqrt(k)
        _hold(self, "transition", 0.9 * torch.eye(k), given=transition)
        _hold(self, "observation", C, given=observation)
        _hold(self, "offset", torch.zeros(d), given=None if observation is None else torch.zeros(d))
        at = None if initial_scale is None else torch.full((k,), math.log(initial_scale))
        _hold(self, "initial_mean", torch.zeros(k), given=None if at is None else torch.zeros(k))
        _hold(self, "initial_log_scales", torch.zeros(k), given=at)
        self.process, self.noise = Root(k, covariance), Root(d, covariance)

    @classmethod
    def local_level(cls, length: int, *, initial_scale: float) -> "StateSpace":
        """A level that walks at random, seen through noise (Harvey 1989, eq. 2.1.2).

        Args:
            length: T.
            initial_scale: how far from zero the first level may be, in the units of the data.
        """
        one = torch.ones(1, 1)
        return cls(length, transition=one, observation=one, initial_scale=initial_scale)

    @classmethod
    def local_trend(cls, length: int, *, initial_scale: float) -> "StateSpace":
        """A level with a slope, both walking at random (Harvey 1989, eq. 2.1.3).

        Args:
            length: T.
            initial_scale: how far from zero the first level and slope may be.
        """
        return cls(
            length,
            transition=torch.tensor([[1.0, 1.0], [0.0, 1.0]]),
            observation=torch.tensor([[1.0, 0.0]]),
            initial_scale=initial_scale,
        )

    @property
    def system(self) -> System:
        """The matrices."""
        return System(
            self.transition,
            self.observation,
            self.offset,
            self.process.covariance,
            self.noise.covariance,
            self.initial_mean,
            torch.diag_embed((2 * self.initial_log_scales).exp()),
        )

    @property
    def chain(self) -> Any:
        """The distribution of a series."""
        return LinearGaussian(self.system, self.length, step=self.step)

    def model(self, n: int) -> None:
        """x ~ N(.; A, C, Q, R), a whole series in one site."""
        with rows(n):
            pyro.sample("x", self.chain)


def shumway_stoffer(
    model: StateSpace, data: Any, *, steps: int = 200, tolerance: float = 1e-6
) -> Climb:
    """Fits what is not given, in place, by expectation maximisation (Shumway & Stoffer 1982).

    Computed in double precision and without noise, so it is not private. Close to the maximum
    `pgm.fit` is faster.

    Args:
        model: where it starts from.
        data: the series; NaN where cells are missing.
        steps: at most so many.
        tolerance: stop when a step gains less than this, in nats a series.

    Returns:
        The log-likelihood before every step and after the last, which never falls.

    Raises:
        ValueError: nothing was seen, or steps below 1.

    Example:
        >>> x = torch.tensor([[0.1, 0.4, 0.3, 0.9, 1.2, 1.1]])
        >>> run = shumway_stoffer(StateSpace.local_level(6, initial_scale=1.0), x, steps=20)
        >>> run.log_likelihood[-1] > run.log_likelihood[0]
        True
    """
    check_counts(steps=steps)
    x, seen = _cells(model, prepare(model, data))
    if seen is not None and not bool(seen.any()):
        raise ValueError("Every cell of the series is missing: there is nothing to learn from.")
    parts: dict[str, em.Part] = {"transition": "transition", "observation": "observation"}
    parts["initial_mean"] = "initial"
    learned = [part for name, part in parts.items() if name in dict(model.named_parameters())]
    system, run = em.climb(
        System(*(getattr(model.system, f.name).detach().double() for f in fields(System))),
        x.double(),
        seen,
        learned=learned,
        covariance="diagonal" if model.process.lower is None else "full",
        steps=steps,
        tolerance=tolerance,
    )
    _write(model, system)
    return run


def example() -> Example:
    """Short series of a level that walks at random, with a slope."""
    source = StateSpace.local_trend(6, initial_scale=1.0)
    with seeded(0), torch.no_grad():
        source.process.log_scales.copy_(torch.tensor([-0.5, -1.5]))
        x = source.chain.sample((200,))
    return Example(
        StateSpace.local_trend(6, initial_scale=1.0),
        x,
        fit={"steps": 60, "learning_rate": 0.05},
    )


@objective.register(StateSpace)
def _loss(model: StateSpace, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """-log p(x), exact, without draws for missing cells."""
    return -kalman.log_likelihood(model.system, *_cells(model, batch))


@log_prob.register(StateSpace)
def _density(model: StateSpace, batch: Batch, *, particles: int = 100) -> LogProb:
    """log p(x), exact; missing cells are integrated out."""
    value = -torch.cat([_loss(model, piece) for piece in _pieces(model, batch)])
    return LogProb(value, torch.zeros_like(value), "exact")


@filter_states.register(StateSpace)
def _filter(model: StateSpace, batch: Batch) -> Normals:
    return kalman.normals(_filtered(model, batch).after)


@smooth_states.register(StateSpace)
def _smooth(model: StateSpace, batch: Batch) -> Normals:
    return kalman.normals(kalman.smoother(model.system, _filtered(model, batch)))


@sample_states.register(StateSpace)
def _paths(model: StateSpace, batch: Batch, *, draws: int = 5) -> Float[Tensor, "draws n T k"]:
    check_counts(draws=draws)
    pieces = [_cells(model, piece) for piece in _pieces(model, batch, draws)]
    return torch.cat([kalman.draw_paths(model.system, *p, draws=draws)[0] for p in pieces], 1)


viterbi.refuse(
    StateSpace,
    "its states are numbers, and the most probable path is that of their means. Use smooth_states.",
)


@forecast.register(StateSpace)
def _forecast(model: StateSpace, batch: Batch, *, steps: int, draws: int = 100) -> Forecast:
    check_counts(steps=steps, draws=draws)
    ahead = kalman.after_the_last(model.system, _filtered(model, batch))
    mean, variance = (_steps(model, t) for t in kalman.predicted(ahead, steps))
    futures = kalman.draw_prior(ahead, (draws, len(mean)), steps)[1]
    return Forecast(mean, variance.sqrt(), _steps(model, futures))


@impute.register(StateSpace)
def _complete(
    model: StateSpace, batch: Batch, *, draws: int = 5, particles: int = 200
) -> Imputation:
    """Exact draws of the missing cells given those that were seen, whole series at once."""
    pieces = [_cells(model, piece) for piece in _pieces(model, batch, draws)]
    drawn = [kalman.draw_paths(model.system, *p, draws=draws)[1] for p in pieces]
    completed = _steps(model, torch.cat(drawn, 1))
    return Imputation(Batch(x=completed), completed.new_full((completed.shape[1],), particles))


@encode.register(StateSpace)
def _encode(model: StateSpace, batch: Batch, *, draws: int | None = None) -> Batch:
    """The posterior means of the states as "z", (n, T, k), or paths drawn, (draws, n, T, k)."""
    if draws is None:
        return Batch(z=_smooth(model, batch).mean)
    return Batch(z=_paths(model, batch, draws=draws))


@decode.register(StateSpace)
def _decode(model: StateSpace, z: Any, *, context: Any = None) -> Batch:
    """The mean of what is seen of states, C z + d."""
    given, k = dict(z) if isinstance(z, Mapping) else {"z": z}, len(model.initial_mean)
    path = torch.as_tensor(given.get("z", torch.zeros(0)))
    if set(given) != {"z"} or context is not None or path.dim() != 3 or path.shape[-1] != k:
        raise ValueError(
            f"A state space model decodes paths of states, the site 'z' of shape (n, T, {k}), "
            f"without context; {', '.join(map(repr, given))} came. Pass what pgm.encode returns."
        )
    path = path.to(model.device, model.dtype)
    return Batch(x=_steps(model, path @ model.observation.mT + model.offset))


class Root(nn.Module):
    """The root of a covariance.

    Attributes:
        log_scales: logs of the standard deviations, or of the diagonal of the Cholesky factor.
        lower: for "full", what stands below the diagonal.
    """

    lower: nn.Parameter | None

    def __init__(self, size: int, covariance: Covariance) -> None:
        super().__init__()
        self.log_scales = nn.Parameter(torch.zeros(size))
        full = covariance == "full"
        self.lower = nn.Parameter(torch.zeros(size, size)) if full else None

    @property
    def covariance(self) -> Float[Tensor, "k k"]:
        """The covariance L L'."""
        L = torch.diag_embed(self.log_scales.exp())
        if self.lower is not None:
            L = L + self.lower.tril(-1)
        return L @ L.mT


def _hold(model: StateSpace, name: str, start: Tensor, *, given: Tensor | None) -> None:
    """A tensor that was given stays; one that was not is learned."""
    if given is None:
        setattr(model, name, nn.Parameter(start))
    else:
        model.register_buffer(name, given.detach().clone())


@torch.no_grad()
def _write(model: StateSpace, system: System) -> None:
    """The matrices of a system into the parameters; those that were given are the same."""
    model.transition.copy_(system.A)
    model.observation.copy_(system.C)
    model.offset.copy_(system.offset)
    model.initial_mean.copy_(system.m0)
    model.initial_log_scales.copy_(0.5 * system.P0.diagonal().log())
    for root, S in ((model.process, system.Q), (model.noise, system.R)):
        L = torch.linalg.cholesky(S)
        root.log_scales.copy_(L.diagonal().log())
        if root.lower is not None:
            root.lower.copy_(L.tril(-1))


def _filtered(model: StateSpace, batch: Batch) -> kalman.Filtered:
    return kalman.kalman_filter(model.system, *_cells(model, batch))


def _cells(
    model: StateSpace, batch: Batch
) -> tuple[Float[Tensor, "n T d"], Bool[Tensor, "n T d"] | None]:
    x, seen = cells(batch, "x", (model.length, *model.step))
    x = x.to(model.dtype)
    if not model.step:
        x, seen = x.unsqueeze(-1), None if seen is None else seen.unsqueeze(-1)
    return x, seen


def _steps(model: StateSpace, x: Float[Tensor, "*n d"]) -> Tensor:
    """Vectors in the shape of a step."""
    return x if model.step else x.squeeze(-1)


def _pieces(model: StateSpace, batch: Batch, times: int = 1) -> Any:
    """The series in pieces whose covariances fit memory."""
    size = (len(model.initial_mean) + len(model.offset)) ** 2
    return chunks(batch, max(1, _AT_ONCE // (model.length * size * times)))
