"""Numbers made through monotone splines: post-nonlinear, and a spline of the noise.

    x = g(f(pa) + sigma u)                  (Zhang & Hyvarinen 2009, eq. 1)
    x = m(pa) + s(pa) T(u; theta(pa))       (Durkan et al. 2019, Neural spline flows)

with u ~ N(0, 1), and g and T monotone rational-quadratic splines on [-5, 5] and the identity
outside, whose inverse is exact (zuko's). Both act on z = (x - mean) / std.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from pyro.distributions import Normal, TransformedDistribution
from torch import Tensor, nn
from torch.distributions import AffineTransform

from causal.mechanisms.additive import HIDDEN, Network, bounded_exp, shaken
from causal.mechanisms.kind import NUMBER, Kind
from causal.mechanisms.mechanism import Inputs, Values
from pgm.nets import checks_kept

with checks_kept():
    from zuko.transforms import MonotonicRQSTransform

BINS = 8


class PostNonlinear(Network):
    """x = g(f(pa) + sigma u), f a network and g a monotone spline.

    Args:
        inputs: the kind of each parent.
        hidden: sizes of the hidden layers of f; none for a linear function.
        seed: of the initial weights.

    Example:
        >>> from causal.mechanisms import Kind
        >>> y = PostNonlinear({"a": Kind()})
        >>> y.push({"a": torch.zeros(2)}, torch.tensor([0.5, -1.0]))
        tensor([ 0.5000, -1.0000], grad_fn=<AddBackward0>)
    """

    def __init__(
        self, inputs: Inputs | None = None, *, hidden: Sequence[int] = HIDDEN, seed: int = 0
    ) -> None:
        super().__init__(inputs, hidden=hidden, seed=seed)
        self.log_scale = nn.Parameter(torch.tensor(0.0))
        self.knots = nn.Parameter(torch.zeros(3 * BINS - 1))

    def dist(self, parents: Values) -> Any:
        """The law of mean + std g(f + sigma u)."""
        base = Normal(self.predictor(parents)[..., 0], self.log_scale.exp())
        return TransformedDistribution(
            base, [spline(self.knots), AffineTransform(self.mean, self.std)]
        )

    def push(self, parents: Values, u: Any, *, coupling: str | None = None) -> Tensor:
        """Mean + std g(f + sigma u)."""
        y = self.predictor(parents)[..., 0] + self.log_scale.exp() * u
        return self.mean + self.std * spline(self.knots)(y)

    def pull(self, parents: Values, x: Tensor, *, coupling: str | None = None) -> Tensor:
        """(g^-1(z) - f) / sigma."""
        y: Tensor = spline(self.knots).inv((x - self.mean) / self.std)
        return (y - self.predictor(parents)[..., 0]) / self.log_scale.exp()


class SplineNoise(Network):
    """x = m(pa) + s(pa) T(u; theta(pa)): a conditional flow of one number.

    Args:
        inputs: the kind of each parent.
        hidden: sizes of the hidden layers; none where theta is linear in the parents.
        seed: of the initial weights.

    Example:
        >>> from causal.mechanisms import Kind
        >>> y = SplineNoise({"a": Kind()})
        >>> y.pull({"a": torch.zeros(2)}, torch.tensor([0.5, -1.0]))
        tensor([ 0.5000, -1.0000], grad_fn=<WhereBackward0>)
    """

    outputs = 2 + 3 * BINS - 1

    @classmethod
    def example(cls) -> "SplineNoise":
        """Of a number and levels, all weights drawn."""
        made = cls({"a": NUMBER, "t": Kind(levels=3)}, hidden=(8,), seed=1)
        return shaken(made, by=0.2)

    def dist(self, parents: Values) -> Any:
        """The law of m + s T(u)."""
        m, s, T = self._parts(parents)
        return TransformedDistribution(
            Normal(torch.zeros_like(m), torch.ones_like(m)), [T, AffineTransform(m, s)]
        )

    def push(self, parents: Values, u: Any, *, coupling: str | None = None) -> Tensor:
        """M + s T(u)."""
        m, s, T = self._parts(parents)
        x: Tensor = m + s * T(u)
        return x

    def pull(self, parents: Values, x: Tensor, *, coupling: str | None = None) -> Tensor:
        """T^-1((x - m) / s)."""
        m, s, T = self._parts(parents)
        u: Tensor = T.inv((x - m) / s)
        return u

    def _parts(self, parents: Values) -> tuple[Tensor, Tensor, Any]:
        eta = self.predictor(parents)
        m = self.mean + self.std * eta[..., 0]
        return m, self.std * bounded_exp(eta[..., 1]), spline(eta[..., 2:])


def spline(knots: Float[Tensor, "*n k"]) -> Any:
    """The monotone spline of 3 K - 1 free numbers; all zero make the identity."""
    return MonotonicRQSTransform(*knots.split([BINS, BINS, BINS - 1], -1))
