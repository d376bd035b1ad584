"""The distribution of a whole sequence under a linear-Gaussian state space model: one site.

Its density is the product of what the Kalman filter predicts, step by step (Schweppe 1965).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import constraints

from pgm.inference.chains.kalman import System, draw_prior, log_likelihood
from pgm.sites import Marginalisable

__all__ = ["LinearGaussian", "check_system"]


class LinearGaussian(Marginalisable):
    """Sequences of a fixed length, normal as a whole.

    Args:
        system: the matrices.
        length: T, the steps of a sequence.
        step: the shape of a step: (d,), or () for single numbers.
        seen: the cells whose density counts, (*batch_shape, T, *step); None for all.
        batch_shape: as of any distribution.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> walk = LinearGaussian(System(one, one, zero, one, one, zero, one), 3)
        >>> walk.log_prob(torch.zeros(2, 3)).shape
        torch.Size([2])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch reads it from the class)
    has_rsample = True

    def __init__(
        self,
        system: System,
        length: int,
        *,
        step: tuple[int, ...] = (),
        seen: Bool[Tensor, "*cells"] | None = None,
        batch_shape: Sequence[int] = (),
    ) -> None:
        self.system, self.length, self.step, self.seen = system, length, step, seen
        super().__init__(Size(batch_shape), Size((length, *step)), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Sequences of numbers."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, x: Float[Tensor, "*cells"]) -> Float[Tensor, "*n"]:
        """log p(x) of the seen cells."""
        value = log_likelihood(self.system, self._vectors(x), self._vectors(self.seen))
        return value.expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def rsample(self, sample_shape: Sequence[int] = Size()) -> Float[Tensor, "*cells"]:
        """A path of states, then what is seen of it."""
        x = draw_prior(self.system, (*sample_shape, *self.batch_shape), self.length)[1]
        return x if self.step else x.squeeze(-1)

    def marginal(self, seen: Bool[Tensor, "*cells"]) -> Any:
        """The density of the seen cells, the others integrated out."""
        return self._again(seen, seen.shape[: seen.dim() - len(self.event_shape)])

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The same distribution for each of a batch of sequences."""
        return self._again(self.seen, batch_shape)

    def _again(self, seen: Tensor | None, batch_shape: Sequence[int]) -> Any:
        return LinearGaussian(
            self.system, self.length, step=self.step, seen=seen, batch_shape=batch_shape
        )

    def _vectors(self, x: Any) -> Any:
        return x if self.step or x is None else x.unsqueeze(-1)


def check_system(
    length: int,
    k: int,
    d: int,
    transition: Tensor | None,
    observation: Tensor | None,
    covariance: str,
    initial_scale: float | None,
) -> None:
    """The sizes and matrices of a state space model.

    Raises:
        ValueError: they do not fit together.
    """
    if min(length, k, d) < 1:
        raise ValueError(
            f"A series of {length} steps of {d} numbers and {k} latents was asked for; every size "
            "is 1 or more."
        )
    expected = {"transition": (transition, (k, k)), "observation": (observation, (d, k))}
    for name, (matrix, shape) in expected.items():
        if matrix is None:
            continue
        if tuple(matrix.shape) != shape or not matrix.is_floating_point():
            raise ValueError(
                f"{name} is {matrix.dtype} of shape {tuple(matrix.shape)}; with {k} latents and "
                f"{d} cells a step it is a floating-point tensor of shape {shape}."
            )
        if not bool(matrix.isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite.")
    if covariance not in ("diagonal", "full"):
        raise ValueError(f"There is no covariance {covariance!r}; there are 'diagonal' and 'full'.")
    if initial_scale is not None and not 0 < initial_scale < math.inf:
        raise ValueError(
            f"initial_scale is {initial_scale}; it is a standard deviation, positive and finite. "
            "To know nothing of the first state, take one much larger than the data."
        )
