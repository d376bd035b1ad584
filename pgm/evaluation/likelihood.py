"""Bits a dimension, on one measure: continuous and discrete models of the same whole numbers.

A density of x in nats says nothing beside a probability of x: the one changes with the units of x,
the other does not. For whole-numbered x with uniform noise u in [0, 1), Jensen's inequality gives
log P(x) = log int p(x + u) du >= E_u log p(x + u) (Theis, van den Oord & Bethge 2016, eq. 6), so
that a density on dequantised data bounds a probability of the data. In the units y = (x + u) / s in
which a model is trained, p(x + u) = p(y) / s in each dimension.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.randomness import seeded
from pgm.verbs.density import Kind, LogProb


@dataclass(frozen=True)
class BitsPerDimension:
    """Mean bits that a model spends on a dimension; lower is better.

    Attributes:
        value: bits a dimension.
        error: standard error, rows as a sample.
        kind: what it is of the log density that it came from; of a "bound" the true value is the
            same or lower.
        measure: "counting", probabilities of discrete data; or "volume", densities, which depend
            on the units. Numbers of different measures cannot be compared.
    """

    value: float
    error: float
    kind: Kind
    measure: str

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f} bits/dim ({self.kind}, {self.measure})"


def bits_per_dimension(
    log_prob: LogProb, dimensions: int, *, dequantised: float | None = None, discrete: bool = False
) -> BitsPerDimension:
    """Bits a dimension of a held-out set, with its kind, standard error and measure.

    Args:
        log_prob: of the held-out rows, in nats.
        dimensions: numbers in a row.
        dequantised: for rows (x + u) / s, whole numbers x with uniform noise u: the scale s. The
            result is then a bound on the bits of the whole numbers themselves.
        discrete: whether `log_prob` holds log probabilities rather than log densities.

    Raises:
        ValueError: no dimension, a scale that is not positive, or both discrete and dequantised.

    Example:
        >>> uniform = LogProb(torch.zeros(5), torch.zeros(5), "exact")
        >>> print(bits_per_dimension(uniform, 64, dequantised=16.0))
        4.000 ± 0.000 bits/dim (bound, counting)
    """
    if dimensions < 1:
        raise ValueError(f"dimensions is {dimensions}; a row has at least one number.")
    if discrete and dequantised is not None:
        raise ValueError(
            "Both discrete=True and dequantised= came: a model of whole numbers gives their "
            "probabilities, and needs no dequantisation. Pass the one that is meant."
        )
    if dequantised is not None and not 0 < dequantised < math.inf:
        raise ValueError(f"dequantised is {dequantised}; the scale s of (x + u) / s is positive.")
    mean, error = log_prob.mean
    bit = math.log(2)
    value = (math.log(dequantised or 1.0) - mean / dimensions) / bit
    kind: Kind = log_prob.kind
    if dequantised is not None and kind == "exact":
        kind = "bound"
    counting = discrete or dequantised is not None
    measure = "counting" if counting else "volume"
    return BitsPerDimension(value, error / dimensions / bit, kind, measure)


def dequantise(
    x: Float[Tensor, "n *shape"], *, scale: float = 1.0, seed: int | None = None
) -> Float[Tensor, "n *shape"]:
    """(x + u) / scale with uniform noise u in [0, 1), for whole numbers x.

    Args:
        x: whole numbers 0, 1, ... as floats.
        scale: the unit; the number of levels brings the result to [0, 1).
        seed: of the noise.

    Raises:
        ValueError: x that is not whole, whose dequantised density would bound nothing.

    Example:
        >>> dequantise(torch.tensor([[0.0, 16.0]]), scale=17.0, seed=0)
        tensor([[0.0292, 0.9864]])
    """
    if not bool((x == x.round()).all()):
        raise ValueError(
            "dequantise adds noise to whole numbers, but x holds fractions: the bound on their "
            "probabilities would not hold. Pass the levels themselves, such as 0 .. 16."
        )
    if not 0 < scale < math.inf:
        raise ValueError(f"scale is {scale}; it is a positive number.")
    with seeded(seed):
        return (x + torch.rand_like(x)) / scale
