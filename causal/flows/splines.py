"""The law of a node in a causal flow, and the masked network that gives the laws of all nodes.

    x = m + s g^-1(u),    u ~ N(0, 1)

with g a monotonic rational-quadratic spline, the identity outside [-5, 5] (Durkan, Bekasov, Murray
& Papamakarios 2019, "Neural spline flows", eq. 4-8; zuko). m, s and the knots of g are functions of
the parents. The mask of each layer lets every output see the node's parents alone (Germain et al.
2015, MADE), so that one pass gives the parameters of all nodes.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from pyro.distributions import Normal, TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from pgm import noise
from pgm.nets import Activation, checks_kept, nonlinearity

with checks_kept():
    from zuko.nn import MaskedLinear, MaskedMLP
    from zuko.transforms import MonotonicRQSTransform


class SplineNormal(TorchDistribution):
    """x = loc + scale g^-1(u) with u ~ N(0, 1).

    Args:
        loc: m, of the batch shape or one that broadcasts to it.
        scale: s > 0, the same.
        spline: g, the same.
        batch_shape: by default that of `loc`.

    Example:
        >>> law = SplineNormal.from_parameters(torch.zeros(7), torch.tensor(1.0), torch.tensor(2.0))
        >>> law.log_prob(torch.tensor(1.0)) - Normal(1.0, 2.0).log_prob(torch.tensor(1.0))
        tensor(0.)
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch reads it from the class)
    support = constraints.real
    has_rsample = True

    def __init__(
        self,
        loc: Float[Tensor, "*#batch"],
        scale: Float[Tensor, "*#batch"],
        spline: MonotonicRQSTransform,
        batch_shape: Sequence[int] | None = None,
    ) -> None:
        self.loc, self.scale, self.spline = loc, scale, spline
        shape = loc.shape if batch_shape is None else Size(batch_shape)
        super().__init__(shape, validate_args=False)

    @classmethod
    def from_parameters(
        cls, theta: Float[Tensor, "*batch k"], mean: Float[Tensor, "*#b"], std: Float[Tensor, "*#b"]
    ) -> "SplineNormal":
        """The law of free parameters: K widths, K heights, K - 1 slopes, a shift and a log scale.

        Args:
            theta: the parameters, k = 3 K + 1; zeros make N(mean, std^2).
            mean: of the unit that the shift is in.
            std: the same.
        """
        K = theta.shape[-1] // 3
        widths, heights, slopes, affine = theta.split([K, K, K - 1, 2], -1)
        shift, log_scale = affine[..., 0], _bounded(affine[..., 1])
        spline = MonotonicRQSTransform(widths, heights, slopes)
        return cls(mean + std * shift, std * log_scale.exp(), spline)

    def push(self, u: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The value that noise makes."""
        x: Tensor = self.loc + self.scale * self.spline.inv(u)
        return x

    def pull(self, x: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The noise that made a value."""
        u: Tensor = self.spline((x - self.loc) / self.scale)
        return u

    def rsample(self, sample_shape: Sequence[int] = Size()) -> Float[Tensor, "..."]:
        """Draws, differentiable in the parameters."""
        return self.push(_normal(self, Size(sample_shape)))

    def log_prob(self, x: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """log N(u; 0, 1) + log du/dx."""
        u, log_slope = self.spline.call_and_ladj((x - self.loc) / self.scale)
        log_prob: Tensor = Normal(0.0, 1.0).log_prob(u) + log_slope - self.scale.log()
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def cdf(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Phi(u)."""
        return torch.special.ndtr(self.pull(x))

    def icdf(self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The quantiles."""
        return self.push(torch.special.ndtri(value))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "SplineNormal":
        """The same law for each of a batch."""
        return SplineNormal(self.loc, self.scale, self.spline, batch_shape)


def _bounded(log_scale: Tensor) -> Tensor:
    """Keeps a scale within 1e-3 and 1e3, as the slopes of the spline are.

    Without it the law given a parent far out might be that of any scale, and in rounding the noise
    would be lost.
    """
    return log_scale / (1 + (log_scale / math.log(1e-3)).abs())


def _normal(fn: Any, shape: Size) -> Tensor:
    return torch.randn(shape + fn.batch_shape, dtype=fn.loc.dtype, device=fn.loc.device)


noise.register(
    SplineNormal,
    noise=_normal,
    push=lambda fn, u: fn.push(u.expand(torch.broadcast_shapes(u.shape, fn.batch_shape))),
    pull=lambda fn, x: fn.pull(x.expand(torch.broadcast_shapes(x.shape, fn.batch_shape))),
)


class Conditioner(nn.Module):
    """The parameters of the laws of all nodes, as functions of their parents.

    theta_j = b_j + W_j z + net_j(z) with z the standardised nodes; the masks leave W_j and net_j
    the parents of j. The linear term carries what is linear past the range of the data. At the
    start all is zero, and the nodes are independent normals.

    Args:
        arrows: whether node i listens to node j, shape (d, d).
        mean: of the nodes.
        std: of the nodes.
        hidden: units a layer for each distinct set of parents.
        bins: of the splines.
        activation: nonlinearity.
    """

    mean: Float[Tensor, " d"]
    std: Float[Tensor, " d"]

    def __init__(
        self,
        arrows: Bool[Tensor, "d d"],
        mean: Float[Tensor, " d"],
        std: Float[Tensor, " d"],
        *,
        hidden: Sequence[int],
        bins: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.size = 3 * bins + 1
        pattern = arrows.repeat_interleave(self.size, 0)
        self.body, heads = nn.Sequential(), [MaskedLinear(pattern)]
        if bool(arrows.any()):
            sets = len({tuple(row) for row in arrows.tolist() if any(row)})
            *body, head = MaskedMLP(
                pattern,
                [sets * units for units in hidden],
                activation=lambda: nonlinearity(activation)[0],
            )
            self.body = nn.Sequential(*body)
            heads.append(head)
        for head in heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Any:
        """The laws of all nodes, of batch shape (*batch, d), in one pass."""
        theta = self._theta(x, slice(None)).unflatten(-1, (-1, self.size))
        return SplineNormal.from_parameters(theta, self.mean, self.std)

    def node(self, j: int, x: Float[Tensor, "*batch d"]) -> Any:
        """The law of one node, of batch shape (*batch,); it reads the parents' columns alone."""
        theta = self._theta(x, slice(j * self.size, (j + 1) * self.size))
        return SplineNormal.from_parameters(theta, self.mean[j], self.std[j])

    def at_zero(self) -> Bool[Tensor, " d"]:
        """The nodes whose parameters are still those of the start, whatever their parents."""
        zero = [(p.reshape(len(p), -1) == 0).all(1) for p in self.heads.parameters()]
        return torch.stack(zero).all(0).unflatten(0, (-1, self.size)).all(1)

    def _theta(self, x: Float[Tensor, "*batch d"], part: slice) -> Float[Tensor, "*batch k"]:
        z = (x - self.mean) / self.std
        theta = _linear(self.heads[0], z, part)
        if len(self.heads) == 1:
            return theta
        return theta + _linear(self.heads[1], self.body(z), part)


def _linear(layer: MaskedLinear, h: Tensor, part: slice) -> Tensor:
    """Some of the outputs of a masked layer."""
    weight = layer.weight[part] * layer.mask[part]
    return nn.functional.linear(h, weight, layer.bias[part])
