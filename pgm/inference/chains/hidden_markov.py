"""The distribution of a sequence under a hidden Markov model: one site, its states summed out.

    p(x) = sum_z pi(z_0) b(x_0 | z_0) prod_{t>0} A(z_{t-1}, z_t) b(x_t | z_t)

(Rabiner 1989, eq. 13-17). The first state emits: no transition comes before the first step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Size, Tensor
from torch.distributions import Categorical, Distribution, constraints

from pgm.inference.chains.emissions import Emission
from pgm.inference.chains.kernels import finite_logs, log_likelihood
from pgm.sites import Marginalisable

__all__ = ["HiddenMarkov", "check_support"]


class HiddenMarkov(Marginalisable):
    """Sequences of a fixed length whose steps hang together by a hidden chain of states.

    Args:
        initial: logits of the state at step 0, (S,).
        transition: logits of the next state given the last, (S, S).
        emission: what a state emits.
        length: T, the steps of a sequence.
        seen: the cells whose density counts, (*batch_shape, T, *step); None for all.
        batch_shape: as of any distribution.

    Example:
        >>> from pgm.inference.chains.emissions import Levels
        >>> coin = HiddenMarkov(torch.zeros(1), torch.zeros(1, 1), Levels(1, 2), 3)
        >>> every = torch.cartesian_prod(*[torch.arange(2)] * 3)
        >>> coin.log_prob(every).exp().sum()
        tensor(1.0000, grad_fn=<SumBackward0>)
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch reads it from the class)

    def __init__(
        self,
        initial: Float[Tensor, " S"],
        transition: Float[Tensor, "S S"],
        emission: Emission,
        length: int,
        *,
        seen: Bool[Tensor, "*cells"] | None = None,
        batch_shape: Sequence[int] = (),
    ) -> None:
        self.initial, self.transition, self.emission = initial, transition, emission
        self.length, self.seen = length, seen
        super().__init__(Size(batch_shape), Size((length, *emission.step)), validate_args=False)

    @property
    def logs(self) -> tuple[Float[Tensor, " S"], Float[Tensor, "S S"]]:
        """log pi and log A."""
        return finite_logs(self.initial), finite_logs(self.transition)

    @property
    def support(self) -> constraints.Constraint:
        """Sequences of cells."""
        return constraints.independent(self.emission.support, len(self.event_shape))

    def log_prob(self, x: Tensor) -> Float[Tensor, "*n"]:
        """log p(x) of the seen cells; -inf where no path of states can emit them."""
        if Distribution._validate_args:
            check_support(x, self.seen, self.emission)
        log_b = self.emission.log_prob(x, self.seen)
        value = log_likelihood(*self.logs, log_b)
        return value.expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = Size()) -> Tensor:
        """A path of states, then what they emit."""
        with torch.no_grad():
            z = self.sample_states(Size((*sample_shape, *self.batch_shape)))
            return self.emission.sample(z)

    def sample_states(self, shape: Sequence[int]) -> Int[Tensor, "*n T"]:
        """Paths of states, step by step."""
        z = [Categorical(logits=self.initial).sample(Size(shape))]
        for _ in range(self.length - 1):
            z.append(Categorical(logits=self.transition[z[-1]]).sample())
        return torch.stack(z, -1)

    def marginal(self, seen: Bool[Tensor, "*cells"]) -> Any:
        """The density of the seen cells, the others summed out."""
        return self._again(seen, seen.shape[: seen.dim() - len(self.event_shape)])

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The same distribution for each of a batch of sequences."""
        return self._again(self.seen, batch_shape)

    def _again(self, seen: Tensor | None, batch_shape: Sequence[int]) -> Any:
        return HiddenMarkov(
            self.initial,
            self.transition,
            self.emission,
            self.length,
            seen=seen,
            batch_shape=batch_shape,
        )


def check_support(x: Tensor, seen: Tensor | None, emission: Emission) -> None:
    """Refuses cells that no state can emit.

    Raises:
        ValueError: there are some.
    """
    good = emission.support.check(x)
    bad = ~good if seen is None else ~good & seen
    if bool(bad.any()):
        top = getattr(emission.support, "upper_bound", "inf")
        raise ValueError(
            f"A step holds {float(x[bad][0]):g}, which no state emits: the alphabet of this model "
            f"is 0 .. {top}. Number the symbols from 0, build the model with levels= as many as "
            "there are, or hide (NaN) the steps that are no symbol."
        )
