"""Questions to models of sequences: their hidden states given what was seen, and what comes next.

Every verb here is answered by state space models alone, exactly: `pgm.families.hmm.HMM` and
`pgm.families.kalman.StateSpace`.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pgm.batch import Batch
from pgm.model import Model
from pgm.verb import verb

__all__ = ["Forecast", "filter_states", "forecast", "sample_states", "smooth_states", "viterbi"]


@dataclass(frozen=True, eq=False)
class Forecast:
    """What comes after the sequences.

    Attributes:
        mean: the expected steps, (n, steps, ...); of levels, their probabilities.
        scale: their standard deviations, of the same shape; of levels, of their indicators.
        draws: whole futures, (draws, n, steps, ...): the steps of one hang together.
    """

    mean: Tensor
    scale: Tensor
    draws: Tensor

    def __str__(self) -> str:
        draws, n, steps = self.draws.shape[:3]
        return f"forecast of {steps} steps of {n} sequences, {draws} futures drawn"


def check_counts(**counts: int) -> None:
    """Numbers of steps or draws that are 1 or more.

    Raises:
        ValueError: one is not.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; there is 1 or more of them.")


def _needs_states(model: Model) -> str | None:
    return (
        "it is no chain of hidden states over time. Use pgm.families.hmm.HMM or "
        "pgm.families.kalman.StateSpace for sequences."
    )


@verb(needs=_needs_states)
def filter_states(model: Model, batch: Batch) -> Any:
    """The state at every step given the steps up to it.

    Args:
        model: a state space model.
        batch: the sequences; NaN where cells are missing.

    Returns:
        Of an HMM the probabilities p(z_t | x_0 .. x_t), (n, T, S); of a linear-Gaussian model
        `Normals` with means (n, T, k) and covariances.
    """


@verb(needs=_needs_states)
def smooth_states(model: Model, batch: Batch) -> Any:
    """The state at every step given the whole sequence.

    Args:
        model: a state space model.
        batch: the sequences; NaN where cells are missing.

    Returns:
        As `filter_states`, given all steps.
    """


@verb(needs=_needs_states)
def sample_states(model: Model, batch: Batch, *, draws: int = 5, seed: int | None = None) -> Tensor:
    """Whole paths of states from their joint posterior, exactly.

    Args:
        model: a state space model.
        batch: the sequences; NaN where cells are missing.
        draws: paths for every sequence.
        seed: of the draws.

    Returns:
        States, (draws, n, T) for levels and (draws, n, T, k) for numbers.
    """
    raise NotImplementedError


@verb(needs=_needs_states)
def viterbi(model: Model, batch: Batch) -> Tensor:
    """The most probable path of states as a whole.

    Args:
        model: a hidden Markov model.
        batch: the sequences; NaN where cells are missing.

    Returns:
        States, (n, T).
    """
    raise NotImplementedError


@verb(needs=_needs_states)
def forecast(
    model: Model, batch: Batch, *, steps: int, draws: int = 100, seed: int | None = None
) -> Forecast:
    """What comes after the last step, with the parameters taken as known.

    A missing step at the end of a sequence is time that has passed unseen: the forecast starts
    after it.

    Args:
        model: a state space model.
        batch: the sequences; NaN where cells are missing.
        steps: how many steps ahead.
        draws: futures drawn for every sequence.
        seed: of the draws.
    """
    raise NotImplementedError
