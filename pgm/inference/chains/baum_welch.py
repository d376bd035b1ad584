"""Maximum likelihood of a hidden Markov model by expectation maximisation (Baum et al. 1970).

Each step computes what the states are expected to have done and counts it as if it were seen
(Rabiner 1989, eq. 40). The likelihood never falls. Sequences that end early are padded with missing
steps; the moves into their padding say nothing of A and are not counted.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pgm.inference.chains.emissions import Emission, log_shares
from pgm.inference.chains.kernels import finite_logs
from pgm.inference.chains.states import Counts, expected_counts

__all__ = ["Climb", "climb"]


@dataclass(frozen=True)
class Climb:
    """A run of expectation maximisation.

    Attributes:
        log_likelihood: of all sequences together before every step and after the last, in nats.
        converged: whether the last step gained less than the tolerance asked for.
    """

    log_likelihood: tuple[float, ...]
    converged: bool

    def __str__(self) -> str:
        first, last, steps = self.log_likelihood[0], self.log_likelihood[-1], self.steps
        how = "converged" if self.converged else "not converged"
        return f"log p(x) from {first:.3f} to {last:.3f} nats in {steps} steps, {how}"

    @property
    def steps(self) -> int:
        """The steps taken."""
        return len(self.log_likelihood) - 1


def climb(
    initial: nn.Parameter,
    transition: nn.Parameter,
    emission: Emission,
    x: Tensor,
    seen: Tensor | None,
    *,
    steps: int,
    tolerance: float,
    prior: float,
) -> Climb:
    """Sets the parameters, in place, by steps of Baum and Welch.

    Args:
        initial: logits of the first state, (S,).
        transition: logits of the next state, (S, S).
        emission: what states emit.
        x: sequences, (n, T, ...).
        seen: which cells were seen; None for all.
        steps: at most so many.
        tolerance: stop when a step gains less than this, in nats a sequence.
        prior: counts added to every cell of the tables: the mode under Dirichlet(1 + prior).
    """
    trail: list[float] = []
    with torch.no_grad():
        while True:
            log_A = finite_logs(transition)
            counts = expected_counts(finite_logs(initial), log_A, emission.log_prob(x, seen))
            trail.append(float(counts.log_likelihood.double().sum()))
            done = len(trail) > 1 and trail[-1] - trail[-2] < tolerance * len(x)
            if done or len(trail) > steps:
                return Climb(tuple(trail), done)
            emission.maximise(x, seen, counts.states, prior)
            initial.copy_(log_shares(counts.states[:, 0].sum(0) + prior, initial))
            moves = counts.transitions - _into_padding(counts, log_A.exp(), seen)
            transition.copy_(log_shares(moves.clamp(min=0) + prior, transition))


def _into_padding(
    counts: Counts, A: Float[Tensor, "S S"], seen: Bool[Tensor, "n T *step"] | None
) -> Float[Tensor, "S S"]:
    """The expected moves after the last step that was seen: those of the chain left to itself."""
    if seen is None:
        return torch.zeros_like(A)
    shown = seen.flatten(2).any(-1) if seen.dim() > 2 else seen
    later = shown.flip(-1).int().cummax(-1).values.flip(-1).bool()
    padding = (~later[:, 1:]).unsqueeze(-1)
    return (counts.states[:, :-1] * padding).sum((0, 1)).unsqueeze(-1) * A
