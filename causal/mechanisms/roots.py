"""Nodes without parents whose law is read off the data: atoms, kernels, a mixture of normals.

A root has no arrow into it, so that its counterfactual is itself unless it is intervened on.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Shaped
from pyro.distributions import Categorical, MixtureSameFamily, Normal
from torch import Tensor, nn

from causal.mechanisms.atoms import Atoms
from causal.mechanisms.kind import Kind
from causal.mechanisms.mechanism import Inputs, Mechanism, Values, refuse_kind

_ROUNDS = 200
"""Of expectation and maximisation."""


class Root(Mechanism):
    """A number without parents that keeps the values it was estimated from, with their weights.

    The values **are the data**: the model must not be handed on where they may not be.

    Args:
        values: numbers; none for `estimate` to fill.
    """

    values: Float[Tensor, " m"]
    weights: Float[Tensor, " m"]

    def __init__(self, values: Any = ()) -> None:
        super().__init__()
        self.inputs = {}
        x = torch.as_tensor(values, dtype=torch.get_default_dtype()).flatten()
        atoms, counts = x.unique(return_counts=True)
        self.register_buffer("values", atoms)
        self.register_buffer("weights", counts / max(len(x), 1))

    @property
    def ready(self) -> bool:
        """Whether there are values."""
        return len(self.values) > 0

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "Root":
        """Without values, which `causal.estimate` fills in."""
        check_root(cls, inputs, kind)
        return cls(**options)

    def estimate(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Keeps the values, each once, with its share of the weights."""
        values, index = x.to(self.values).unique(return_inverse=True)
        share = torch.zeros_like(values).index_add_(0, index, weight.to(values))
        self.values, self.weights = values, share / share.sum()

    def known(self) -> Float[Tensor, " m"]:
        """The values.

        Raises:
            ValueError: there are none yet.
        """
        if not len(self.values):
            raise ValueError(
                f"{type(self).__name__} has no values yet: it is read off rows, and no gradient "
                "trains it. Call causal.estimate(scm, data), or pass it values."
            )
        return self.values

    def extra_repr(self) -> str:
        """How many values."""
        return f"{len(self.values)} values"

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Takes over as many values as the file holds."""
        for name in ("values", "weights"):
            if prefix + name in state:
                setattr(self, name, getattr(self, name).new_empty(state[prefix + name].shape))
        super()._load_from_state_dict(state, prefix, *rest)


class EmpiricalRoot(Root):
    """Draws one of the values. Its density is a **probability** of each, and 0 elsewhere.

    It cannot be compared with the density of a continuous mechanism.

    Args:
        values: numbers; none for `estimate` to fill.

    Example:
        >>> EmpiricalRoot([1.0, 2.0, 2.0, 5.0]).dist({}).log_prob(torch.tensor([2.0, 3.0])).exp()
        tensor([0.5000, 0.0000])
    """

    @classmethod
    def example(cls) -> "EmpiricalRoot":
        """Four values."""
        return cls([-1.0, 0.5, 0.5, 2.0])

    def dist(self, parents: Values) -> Any:
        """The atoms."""
        return Atoms(self.known(), self.weights)


class KernelRoot(Root):
    """A kernel density: one of the values plus N(0, h^2), h by Silverman's rule.

    h = 0.9 min(std, IQR / 1.34) n^(-1/5) (Silverman 1986, Density estimation, eq. 3.31), with n
    the effective number of rows under their weights.

    Args:
        values: numbers; none for `estimate` to fill.
        bandwidth: h; None for Silverman's.

    Example:
        >>> KernelRoot([0.0], bandwidth=1.0).dist({}).log_prob(torch.tensor(0.0))
        tensor(-0.9189)
    """

    bandwidth: Float[Tensor, ""]

    def __init__(self, values: Any = (), *, bandwidth: float | None = None) -> None:
        super().__init__(values)
        if bandwidth is not None and bandwidth <= 0:
            raise ValueError(f"bandwidth is {bandwidth}; it is positive, in the unit of the node.")
        self.fixed = bandwidth
        self.register_buffer("bandwidth", torch.tensor(float(bandwidth or 1.0)))
        if bandwidth is None and len(self.values) > 1:
            self.bandwidth = silverman(self.values, self.weights, torch.as_tensor(values).numel())

    @classmethod
    def example(cls) -> "KernelRoot":
        """Four values."""
        return cls([-1.0, 0.5, 0.7, 2.0])

    def dist(self, parents: Values) -> Any:
        """A mixture of as many normals as there are values."""
        values = self.known()
        return Kernels(Categorical(probs=self.weights), Normal(values, self.bandwidth))

    def estimate(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Keeps the values and sets the bandwidth."""
        super().estimate(x, parents, weight)
        if self.fixed is None:
            n = float(weight.sum().square() / weight.square().sum())
            self.bandwidth = silverman(self.values, self.weights, n)


class Kernels(MixtureSameFamily):
    """A mixture that draws a component and then from it alone; its law and noise form are as ever.

    Example:
        >>> law = Kernels(Categorical(torch.ones(2)), Normal(torch.tensor([0.0, 9.0]), 0.1))
        >>> law.expand([3]).sample().shape
        torch.Size([3])
    """

    def sample(self, sample_shape: Any = ()) -> Float[Tensor, "*n"]:
        """Draws of a component, then of its normal."""
        parts = self.component_distribution
        with torch.no_grad():
            i = self.mixture_distribution.sample(sample_shape)
            loc, scale = (
                p.take_along_dim(i[..., None], -1)[..., 0] if p.dim() > 1 else p[i]
                for p in (parts.loc, parts.scale.expand(parts.loc.shape))
            )
            return torch.normal(loc, scale)


class MixtureRoot(Mechanism):
    """A mixture of k normals, sum_j w_j N(m_j, s_j^2).

    Args:
        components: k.

    Example:
        >>> root = MixtureRoot(2)
        >>> root.dist({}).sample().shape
        torch.Size([])
    """

    def __init__(self, components: int = 3) -> None:
        super().__init__()
        self.inputs, k = {}, components
        self.logits = nn.Parameter(torch.zeros(k))
        spread = torch.special.ndtri((torch.arange(k) + 0.5) / k)
        self.loc = nn.Parameter(spread)
        self.log_scale = nn.Parameter(torch.full((k,), -math.log(k) / 2))

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "MixtureRoot":
        """Components at the quantiles of the standard normal."""
        check_root(cls, inputs, kind)
        return cls(**options)

    @classmethod
    def example(cls) -> "MixtureRoot":
        """Three components."""
        return cls(3)

    def dist(self, parents: Values) -> Any:
        """The mixture."""
        return Kernels(Categorical(logits=self.logits), Normal(self.loc, self.log_scale.exp()))

    def estimate(
        self, x: Float[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """A local maximum by EM (Dempster, Laird & Rubin 1977), from components at the quantiles.

        One row more in each component, of variance (std / k)^2, keeps it from shrinking to a single
        row, where the likelihood has no bound (Hathaway 1985).
        """
        x, w, k = x.double(), weight.double() / weight.double().sum(), len(self.loc)
        mean = (w * x).sum()
        std = (w * (x - mean).square()).sum().sqrt()
        if not float(std) > 1e-9 * (1 + float(mean.abs())):
            raise ValueError(
                "The node is constant, so that it has no density. Leave it out of the graph."
            )
        more = float(w.square().sum())  # the weight of one row
        q = (torch.arange(k, dtype=torch.float64, device=x.device) + 0.5) / k
        m, s, p = x.quantile(q), (std / k).expand(k), torch.full_like(q, 1 / k)
        for _ in range(_ROUNDS):
            log_joint = p.log() + torch.distributions.Normal(m, s).log_prob(x[:, None])
            r = w[:, None] * log_joint.softmax(-1)
            total = r.sum(0)
            p = (total + more) / (total + more).sum()
            m = (r.T @ x + more * m) / (total + more)
            squares = (r * (x[:, None] - m).square()).sum(0)
            s = ((squares + more * (std / k).square()) / (total + more)).sqrt()
        with torch.no_grad():
            self.logits.copy_(p.log())
            self.loc.copy_(m)
            self.log_scale.copy_(s.log())

    def extra_repr(self) -> str:
        """How many components."""
        return f"{len(self.loc)} normals"


def silverman(
    values: Float[Tensor, " m"], weights: Float[Tensor, " m"], n: float
) -> Float[Tensor, ""]:
    """The bandwidth 0.9 min(std, IQR / 1.34) n^(-1/5).

    Raises:
        ValueError: all values are the same.
    """
    mean = (weights * values).sum()
    std = (weights * (values - mean).square()).sum().sqrt()
    if not float(std) > 1e-9 * (1 + float(mean.abs())):
        raise ValueError(
            "The node is constant, so that no bandwidth can be told. Leave it out of the graph, or "
            "pass a bandwidth."
        )
    quartiles = torch.searchsorted(weights.cumsum(0), weights.new_tensor([0.25, 0.75]))
    low, high = values[quartiles.clamp(max=len(values) - 1)]
    spread = torch.minimum(std, (high - low) / 1.34) if bool(high > low) else std
    return 0.9 * spread * n**-0.2


def check_root(cls: type[Mechanism], inputs: Inputs, kind: Kind) -> None:
    """Refuses parents, levels and vectors.

    Raises:
        ValueError: the node has parents or is no number.
    """
    if not kind.is_number:
        refuse_kind(cls, kind, "a number", "CategoricalTable or LinearVector")
    if inputs:
        raise ValueError(
            f"{cls.__name__} is for nodes without parents, but this one has {', '.join(inputs)}. "
            "Use AdditiveNoise, LocationScale or SplineNoise."
        )
