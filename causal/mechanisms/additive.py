"""Numbers made by networks of their parents, with normal noise: additive, and location-scale.

x = f(pa) + sigma u (Hoyer et al. 2009, Nonlinear causal discovery with additive noise models) and
x = m(pa) + s(pa) u (Khemakhem et al. 2021, Causal autoregressive flows), u ~ N(0, 1).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from pyro.distributions import Normal
from torch import Tensor, nn

from causal.mechanisms.kind import NUMBER, Kind
from causal.mechanisms.maximum import train
from causal.mechanisms.mechanism import Inputs, Mechanism, Values, refuse_kind
from causal.mechanisms.predictor import Predictor

HIDDEN = (32, 32)


class Network(Mechanism):
    """A number z = (x - mean) / std made by a network of its parents; the base of the others.

    `mean` and `std` are 0 and 1 at first, as a schema has standardised its columns. `estimate`
    takes them, and those of the parents, from the rows; `pgm.fit` leaves them as they are.

    Args:
        inputs: the kind of each parent.
        hidden: sizes of the hidden layers; none for a linear function.
        seed: of the initial weights.
    """

    mean: Float[Tensor, ""]
    std: Float[Tensor, ""]
    outputs = 1

    def __init__(
        self, inputs: Inputs | None = None, *, hidden: Sequence[int] = HIDDEN, seed: int = 0
    ) -> None:
        super().__init__()
        self.inputs = dict(inputs or {})
        self.seed = seed
        self.predictor = Predictor(self.inputs, self.outputs, hidden=hidden, seed=seed)
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0))

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "Network":
        """The standard normal, whatever the parents."""
        if not kind.is_number:
            refuse_kind(cls, kind, "a number", "NetworkSoftmax or LinearVector")
        return cls(inputs, **options)

    @classmethod
    def example(cls) -> "Network":
        """Of a number, levels and a vector, all weights drawn."""
        made = cls({"a": NUMBER, "t": Kind(levels=3), "v": Kind(size=2)}, hidden=(8,), seed=1)
        return shaken(made)

    def estimate(
        self, x: Float[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Standardises to the rows and trains anew, by `pgm.fit` with a tenth of them held out."""
        w = weight.double() / weight.double().sum()
        mean = (w * x).sum()
        std = (w * (x - mean).square()).sum().sqrt()
        if not float(std) > 1e-9 * (1 + float(mean.abs())):
            raise ValueError(
                "The node is constant, so that its noise has no variance, and the node no density. "
                "Leave it out of the graph."
            )
        begin_again(self)
        with torch.no_grad():
            self.mean.copy_(mean)
            self.std.copy_(std)
            self.predictor.fit_to(parents, weight)
        train(self, x, parents, weight, seed=self.seed)

    def extra_repr(self) -> str:
        """What it is a function of."""
        return self.predictor.terms()


class AdditiveNoise(Network):
    """x = f(pa) + sigma u, f a network.

    Args:
        inputs: the kind of each parent.
        hidden: sizes of the hidden layers of f; none for a linear function.
        seed: of the initial weights.

    Example:
        >>> y = AdditiveNoise({"a": Kind()})
        >>> y.pull({"a": torch.zeros(2)}, torch.tensor([0.5, -1.0])).tolist()
        [0.5, -1.0]
    """

    def __init__(
        self, inputs: Inputs | None = None, *, hidden: Sequence[int] = HIDDEN, seed: int = 0
    ) -> None:
        super().__init__(inputs, hidden=hidden, seed=seed)
        self.log_scale = nn.Parameter(torch.tensor(0.0))

    def dist(self, parents: Values) -> Any:
        """N(f(pa), sigma^2)."""
        return Normal(self._f(parents), self._sigma())

    def push(self, parents: Values, u: Any, *, coupling: str | None = None) -> Tensor:
        """f(pa) + sigma u."""
        x: Tensor = self._f(parents) + self._sigma() * u
        return x

    def pull(self, parents: Values, x: Tensor, *, coupling: str | None = None) -> Tensor:
        """(x - f(pa)) / sigma."""
        return (x - self._f(parents)) / self._sigma()

    def _f(self, parents: Values) -> Tensor:
        return self.mean + self.std * self.predictor(parents)[..., 0]

    def _sigma(self) -> Tensor:
        return self.std * self.log_scale.exp()


class LocationScale(Network):
    """x = m(pa) + s(pa) u, both functions outputs of one network; s within e^-6 .. e^6 of std.

    Args:
        inputs: the kind of each parent.
        hidden: sizes of the hidden layers; none for linear m and log s.
        seed: of the initial weights.

    Example:
        >>> y = LocationScale({"a": Kind()})
        >>> y.push({"a": torch.zeros(2)}, torch.tensor([0.5, -1.0])).tolist()
        [0.5, -1.0]
    """

    outputs = 2

    def dist(self, parents: Values) -> Any:
        """N(m(pa), s(pa)^2)."""
        return Normal(*self._moments(parents))

    def push(self, parents: Values, u: Any, *, coupling: str | None = None) -> Tensor:
        """m(pa) + s(pa) u."""
        m, s = self._moments(parents)
        x: Tensor = m + s * u
        return x

    def pull(self, parents: Values, x: Tensor, *, coupling: str | None = None) -> Tensor:
        """(x - m(pa)) / s(pa)."""
        m, s = self._moments(parents)
        return (x - m) / s

    def _moments(self, parents: Values) -> tuple[Tensor, Tensor]:
        eta = self.predictor(parents)
        return self.mean + self.std * eta[..., 0], self.std * bounded_exp(eta[..., 1])


def bounded_exp(eta: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """exp(eta) near zero, and never outside e^-6 .. e^6: a scale that cannot vanish."""
    return (6 * torch.tanh(eta / 6)).exp()


def begin_again(mechanism: Mechanism) -> None:
    """Puts the parameters and buffers back to what the constructor made of its arguments."""
    args, kwargs = mechanism._arguments
    fresh = type(mechanism)(*args, **kwargs).to(next(mechanism.parameters()))
    mechanism.load_state_dict(fresh.state_dict())


def shaken(mechanism: Any, *, by: float = 0.4, seed: int = 7) -> Any:
    """The mechanism with all its weights moved, the same way each time."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in mechanism.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return mechanism
