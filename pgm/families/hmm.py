"""Hidden Markov model: a chain of hidden states, each of which emits what is seen at its step.

    z_0 ~ pi,    z_t | z_{t-1} ~ A[z_{t-1}],    x_t | z_t ~ b(z_t)

(Baum & Petrie 1966; Rabiner 1989). A row is a whole sequence and one site, its states summed out by
the forward recursion: densities, posteriors of states, the best path, completions and forecasts are
exact, and missing steps are left out of all of them. Fitted by `pgm.fit`, or by `baum_welch`.
"""

import math
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pgm.batch import Batch, as_batch, cells, chunks
from pgm.families import Example
from pgm.inference.chains import baum_welch as em
from pgm.inference.chains import states as posterior
from pgm.inference.chains.emissions import Emission, Gaussians, Levels
from pgm.inference.chains.hidden_markov import HiddenMarkov, check_support
from pgm.inference.chains.questions import (
    Forecast,
    check_counts,
    filter_states,
    forecast,
    sample_states,
    smooth_states,
    viterbi,
)
from pgm.inference.chains.starts import (
    check_sizes,
    check_tables,
    complete_steps,
    moments,
    probabilities,
    start,
)
from pgm.model import Model, rows
from pgm.objectives import objective
from pgm.randomness import seeded
from pgm.verb import prepare
from pgm.verbs import Imputation, LogProb, decode, encode, impute, interpolate, log_prob

__all__ = ["HMM", "baum_welch", "example"]

_AT_ONCE = 2**23
_FLOOR = 1e-9


class HMM(Model):
    """A hidden Markov model of sequences (Rabiner 1989).

    Steps are symbols (`levels=`), shape (n, T), or Gaussian numbers with diagonal covariances, by
    state or a mixture in each state, shape (n, T) or (n, T, features). Sequences that are shorter
    are padded with NaN, or masked by `x_seen`. Parameters are drawn at random to begin with; the
    likelihood has many maxima, so compare starts, or see `from_data`. States have no names: any
    order of them is the same model.

    Args:
        states: S.
        length: T, the steps of a row.
        levels: symbols 0 .. levels - 1; None for numbers.
        features: cells of a step of numbers; None for one number a step, rows (T,).
        components: Gaussians in each state.
        floor: the smallest standard deviation, in the units of the data: it bounds the likelihood.

    Attributes:
        initial_logits: log pi up to a constant, (S,).
        transition_logits: log A up to a constant by row, (S, S).
        emission: what states emit: `Levels` or `Gaussians`.

    Raises:
        ValueError: a size below 1, a floor that is not positive, or both levels and features.

    Example:
        >>> model = HMM.from_tables(
        ...     [0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]],
        ...     emission=[[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]], length=6,
        ... )
        >>> x = torch.tensor([[0, 1, 2, 2, 1, 0]])
        >>> log_prob(model, x).value
        tensor([-6.5194])
        >>> viterbi(model, x)
        tensor([[0, 0, 1, 1, 0, 0]])
    """

    def __init__(
        self,
        states: int,
        length: int,
        *,
        levels: int | None = None,
        features: int | None = None,
        components: int = 1,
        floor: float = 1e-3,
    ) -> None:
        super().__init__()
        check_sizes(states, length, levels, features, components, floor)
        self.length = length
        self.initial_logits = nn.Parameter(torch.zeros(states))
        self.transition_logits = nn.Parameter(torch.randn(states, states))
        self.emission: Emission = (
            Gaussians(states, features, components, floor)
            if levels is None
            else Levels(states, levels)
        )

    @property
    def initial(self) -> Float[Tensor, " S"]:
        """The probabilities pi of the first state."""
        return self.initial_logits.softmax(-1)

    @property
    def transition(self) -> Float[Tensor, "S S"]:
        """The probabilities A of the next state, a row for each state."""
        return self.transition_logits.softmax(-1)

    @property
    def chain(self) -> Any:
        """The distribution of a sequence."""
        return HiddenMarkov(self.initial_logits, self.transition_logits, self.emission, self.length)

    def model(self, n: int) -> None:
        """x ~ HMM(pi, A, b), a whole sequence in one site."""
        with rows(n):
            pyro.sample("x", self.chain)

    @classmethod
    def from_tables(
        cls,
        initial: Any,
        transition: Any,
        *,
        length: int,
        emission: Any = None,
        means: Any = None,
        scales: Any = None,
    ) -> "HMM":
        """A model of known probabilities.

        Args:
            initial: pi, (S,).
            transition: A, (S, S): row r holds the probabilities of the states after r.
            length: T.
            emission: B, (S, levels): row s holds the probabilities of the symbols of s.
            means: of Gaussian steps instead, (S,) or (S, features).
            scales: their standard deviations, of the same shape.

        Raises:
            ValueError: rows that are no probabilities, or shapes that do not fit together.
        """
        pi, A = probabilities("initial", initial), probabilities("transition", transition)
        S = len(pi)
        if emission is not None:
            B = probabilities("emission", emission)
            check_tables(S, initial=pi, transition=A, emission=B)
            shape: dict[str, Any] = {"levels": B.shape[-1]}
        else:
            check_tables(S, initial=pi, transition=A)
            mu, sigma = moments(means, scales, S)
            shape = {"features": mu.shape[1] if mu.dim() == 2 else None, "floor": _FLOOR}
        with seeded(0), torch.no_grad():
            model = cls(S, length, **shape).to(pi.dtype)
            model.initial_logits.copy_(pi.log())
            model.transition_logits.copy_(A.log())
            if isinstance(model.emission, Levels):
                model.emission.logits.copy_(B.log())
            elif isinstance(model.emission, Gaussians):
                model.emission.means.copy_(mu.reshape(S, 1, -1))
                model.emission.log_scales.copy_((sigma.reshape(S, 1, -1) - _FLOOR).log())
        return model

    @classmethod
    def from_data(
        cls, x: Any, states: int, *, components: int = 1, floor: float = 1e-3, seed: int = 0
    ) -> "HMM":
        """A model of numbers that starts from k-means clusters of the complete steps.

        The clusters are computed without noise, so a model made here is not private, however it is
        trained afterwards.

        Args:
            x: sequences, (n, T) or (n, T, features); NaN where cells are missing.
            states: S.
            components: Gaussians in each state.
            floor: the smallest standard deviation.
            seed: of the clustering.

        Raises:
            ValueError: other shapes, or fewer complete steps than states.
        """
        batch = as_batch(x)
        steps = complete_steps(batch, states)
        shape = {"features": batch["x"].shape[2] if batch["x"].dim() == 3 else None}
        with seeded(seed):
            model = cls(states, batch["x"].shape[1], components=components, floor=floor, **shape)
            model = model.to(steps.dtype)
            assert isinstance(model.emission, Gaussians)
            start(model.emission, steps, seed)
        return model


def baum_welch(
    model: HMM,
    data: Any,
    *,
    steps: int = 200,
    tolerance: float = 1e-6,
    prior: float = 0.0,
) -> em.Climb:
    """Fits the model, in place, by expectation maximisation (Baum et al. 1970).

    Args:
        model: where it starts from.
        data: the sequences; NaN where cells are missing.
        steps: at most so many.
        tolerance: stop when a step gains less than this, in nats a sequence.
        prior: counts added to every cell of pi, A and of the tables or component weights of the
            states: the mode under Dirichlet priors with parameter 1 + prior.

    Returns:
        The log-likelihood before every step, which never falls where prior is 0.

    Raises:
        ValueError: nothing was seen, a sequence that the model cannot emit, steps below 1, or a
            prior below 0.

    Example:
        >>> coins = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 0, 0]])
        >>> with seeded(0):
        ...     model = HMM(states=2, length=6, levels=2)
        >>> run = baum_welch(model, coins, prior=0.1)
        >>> run.log_likelihood[-1] > run.log_likelihood[0]
        True
    """
    check_counts(steps=steps)
    if not 0 <= prior < math.inf:
        raise ValueError(f"prior is {prior}; it is a count that is added, 0 or more.")
    x, seen = _cells(model, prepare(model, data))
    if seen is not None and not bool(seen.any()):
        raise ValueError("Every cell of the sequences is missing: there is nothing to learn from.")
    check_support(x, seen, model.emission)
    return em.climb(
        model.initial_logits,
        model.transition_logits,
        model.emission,
        x,
        seen,
        steps=steps,
        tolerance=tolerance,
        prior=prior,
    )


def example() -> Example:
    """Sequences of two states that last, with Gaussian steps in the plane."""
    source = HMM.from_tables(
        [0.5, 0.5],
        [[0.9, 0.1], [0.2, 0.8]],
        means=[[-2.0, 0.0], [2.0, 1.0]],
        scales=[[1.0, 0.5], [0.7, 1.0]],
        length=8,
    )
    with seeded(0), torch.no_grad():
        x = source.chain.sample((200,))
    return Example(HMM.from_data(x, 2), x, fit={"steps": 60, "learning_rate": 0.05})


@objective.register(HMM)
def _loss(model: HMM, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """-log p(x), exact, without draws for missing cells."""
    x, seen = _cells(model, batch)
    chain = model.chain
    return -(chain if seen is None else chain.marginal(seen)).log_prob(x)


@log_prob.register(HMM)
def _density(model: HMM, batch: Batch, *, particles: int = 100) -> LogProb:
    """log p(x), exact; missing cells are summed out."""
    value = -torch.cat([_loss(model, piece) for piece in _pieces(model, batch)])
    return LogProb(value, torch.zeros_like(value), "exact")


@filter_states.register(HMM)
def _filter(model: HMM, batch: Batch) -> Float[Tensor, "n T S"]:
    return torch.cat([posterior.filtered(*logs) for logs in _logs(model, batch)])


@smooth_states.register(HMM)
def _smooth(model: HMM, batch: Batch) -> Float[Tensor, "n T S"]:
    return torch.cat([posterior.expected_counts(*logs).states for logs in _logs(model, batch)])


@viterbi.register(HMM)
def _viterbi(model: HMM, batch: Batch) -> Int[Tensor, "n T"]:
    return torch.cat([posterior.best_path(*logs)[0] for logs in _logs(model, batch)])


@sample_states.register(HMM)
def _paths(model: HMM, batch: Batch, *, draws: int = 5) -> Int[Tensor, "draws n T"]:
    check_counts(draws=draws)
    pieces = _logs(model, batch, draws)
    return torch.cat([posterior.backward_draws(*logs, draws=draws) for logs in pieces], 1)


@forecast.register(HMM)
def _forecast(model: HMM, batch: Batch, *, steps: int, draws: int = 100) -> Forecast:
    check_counts(steps=steps, draws=draws)
    p, z = posterior.futures(_filter(model, batch)[:, -1], model.transition, steps, draws)
    mean, variance = model.emission.mean(), model.emission.variance()
    expected = torch.tensordot(p, mean, 1)
    spread = torch.tensordot(p, variance + mean.square(), 1) - expected.square()
    return Forecast(expected, spread.clamp(min=0).sqrt(), model.emission.sample(z))


@impute.register(HMM)
def _complete(model: HMM, batch: Batch, *, draws: int = 5, particles: int = 200) -> Imputation:
    """Exact draws: a path of states from p(z | x_seen), then the missing cells of each step."""
    completed = torch.cat([_draw(model, piece, draws) for piece in _pieces(model, batch, draws)], 1)
    ess = completed.new_full((completed.shape[1],), particles, dtype=model.dtype)
    return Imputation(Batch(x=completed), ess)


def _draw(model: HMM, batch: Batch, draws: int) -> Tensor:
    x, seen = _cells(model, batch)
    if seen is None:
        return x.expand(draws, *x.shape)
    return model.emission.complete(_paths(model, batch, draws=draws), x, seen)


@encode.register(HMM)
def _encode(model: HMM, batch: Batch, *, draws: int | None = None) -> Batch:
    """p(z_t | x) as "z", (n, T, S); draws are whole paths, one-hot, (draws, n, T, S)."""
    if draws is None:
        return Batch(z=_smooth(model, batch))
    z = _paths(model, batch, draws=draws)
    return Batch(z=nn.functional.one_hot(z, len(model.initial)).to(model.dtype))


@decode.register(HMM)
def _decode(model: HMM, z: Any, *, context: Any = None) -> Batch:
    """The mean of each step, or its most probable symbol, under probabilities of states."""
    given = dict(z) if isinstance(z, Mapping) else {"z": z}
    p, S = torch.as_tensor(given.get("z", torch.zeros(0))), len(model.initial)
    if set(given) != {"z"} or context is not None or p.dim() != 3 or p.shape[-1] != S:
        raise ValueError(
            f"An HMM decodes probabilities of its states, the site 'z' of shape (n, T, {S}), "
            f"without context; {', '.join(f'{k} {tuple(v.shape)}' for k, v in given.items())} came."
            " Pass what pgm.encode returns."
        )
    mean = torch.tensordot(p.to(model.device, model.dtype), model.emission.mean(), 1)
    return Batch(x=mean.argmax(-1) if isinstance(model.emission, Levels) else mean)


interpolate.refuse(
    HMM,
    "its codes are states, of which there are a few, and no path leads from one to another. Use a "
    "model with continuous codes, such as pgm.families.kalman.StateSpace or pgm.families.vae.VAE.",
)


def _logs(model: HMM, batch: Batch, times: int = 1) -> Any:
    """log pi, log A and log b of the sequences, in pieces that fit memory."""
    check_support(*_cells(model, batch), model.emission)
    for piece in _pieces(model, batch, times):
        x, seen = _cells(model, piece)
        log_pi, log_A = model.chain.logs
        log_b = model.emission.log_prob(x, seen)
        yield log_pi, log_A, log_b


def _cells(model: HMM, batch: Batch) -> tuple[Tensor, Tensor | None]:
    x, seen = cells(batch, "x", (model.length, *model.emission.step))
    return x if isinstance(model.emission, Levels) else x.to(model.dtype), seen


def _pieces(model: HMM, batch: Batch, times: int = 1) -> Any:
    """The sequences in pieces whose steps fit memory, in every state."""
    parts = sum(p.numel() for p in model.emission.parameters()) + len(model.initial_logits) ** 2
    return chunks(batch, max(1, _AT_ONCE // (model.length * parts * times)))
