"""Normalising flows with rational-quadratic splines: an exact density by change of variables.

    log p(x) = log N(f(x); 0, I) + log |det df/dx|

(Durkan et al. 2019, "Neural spline flows", eq. 1), from zuko. Autoregressive transforms fit best
and sample one feature at a time; coupling transforms sample in one pass. Splines are the identity
outside [-5, 5], so the data are standardised first, and the density accounts for it. Whole numbers
are dequantised: x = floor(y) with y from the flow and q(y | x) uniform, which bounds the
probability of x from below (Theis, van den Oord & Bethge 2016, eq. 4).
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float, Shaped
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor

from pgm.batch import Batch, as_batch, cells
from pgm.data import load
from pgm.families import Example
from pgm.model import Model, rows
from pgm.verb import Unsupported
from pgm.verbs.coding import decode, encode

_validates = torch.distributions.Distribution._validate_args
import zuko  # noqa: E402

torch.distributions.Distribution.set_default_validate_args(_validates)  # zuko switches it off

__all__ = ["SplineFlow", "example"]

_BELOW_ONE = 1 - 2**-18
"""The width of the noise of dequantisation: x + u stays below x + 1 in single precision."""


class SplineFlow(Model):
    """A neural spline flow (Durkan et al. 2019).

    Args:
        features: d, the cells of a row.
        transforms: autoregressive layers, in alternating order of the features.
        hidden: sizes of the hidden layers of each.
        bins: of each spline.
        coupling: two passes a layer instead of d: faster to sample from, weaker.
        levels: None for real numbers; otherwise the data are whole numbers 0 .. levels - 1 and the
            density is a bound on their probability.
        mean: what is subtracted before the first layer, by feature.
        std: what is divided by, by feature.

    Raises:
        ValueError: a size below 1, or a std that is not above zero.

    Example:
        >>> import pgm
        >>> _ = torch.manual_seed(0)
        >>> flow = SplineFlow(2, transforms=1, hidden=(8,))
        >>> x = torch.tensor([[0.5, -0.5]])
        >>> z = pgm.encode(flow, x)
        >>> torch.allclose(pgm.decode(flow, z)["x"], x, atol=1e-5)
        True
        >>> pgm.log_prob(flow, x).kind
        'exact'
    """

    def __init__(
        self,
        features: int,
        *,
        transforms: int = 3,
        hidden: tuple[int, ...] = (64, 64),
        bins: int = 8,
        coupling: bool = False,
        levels: int | None = None,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ) -> None:
        super().__init__()
        _check(features, transforms, bins, std)
        if coupling and features < 2:
            raise ValueError("A coupling layer needs two features or more: pass coupling=False.")
        self.features, self.levels = features, levels
        middle, width = (levels / 2, levels / 12**0.5) if levels else (0.0, 1.0)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.full((features,), middle) if mean is None else mean)
        self.register_buffer("std", torch.full((features,), width) if std is None else std)
        self.flow = zuko.flows.NSF(
            features,
            bins=bins,
            transforms=transforms,
            hidden_features=hidden,
            passes=2 if coupling else None,
        )

    @classmethod
    def from_data(cls, x: Float[Tensor, "n d"], **options: Any) -> "SplineFlow":
        """A flow standardised by the mean and standard deviation of `x`.

        It reads the data without noise: under differential privacy pass public `mean` and `std`.
        """
        centred = x + 0.5 if options.get("levels") else x
        std = centred.std(0).clamp(min=1e-3 if not options.get("levels") else 0.5)
        return cls(x.shape[1], mean=centred.mean(0), std=std, **options)

    def model(self, n: int) -> None:
        """x ~ flow, or y ~ flow and x = floor(y)."""
        with rows(n):
            if self.levels is None:
                pyro.sample("x", self.density())
                return
            y = pyro.sample("y", self.density())
            x = y.floor().clamp(0, self.levels - 1)
            pyro.sample("x", dist.Delta(x).to_event(1))

    def guide(
        self, n: int, x: Shaped[Tensor, "n d"], x_seen: Bool[Tensor, "n d"] | None = None
    ) -> None:
        """q(y | x), uniform on the cell that rounds down to x; nothing for real numbers."""
        if self.levels is None:
            return
        if x_seen is not None:
            raise Unsupported(
                "SplineFlow cannot leave cells of whole numbers out: its density is joint. Drop "
                "those rows, or use a model with a factorised likelihood (VAE, PPCA, mixture)."
            )
        low = x.to(self.mean.dtype)
        with rows(n):
            uniform = dist.Uniform(low, low + _BELOW_ONE, validate_args=False)
            pyro.sample("y", uniform.to_event(1))

    @property
    def latent(self) -> bool:
        """Whether there is noise of dequantisation to draw."""
        return self.levels is not None

    def density(self) -> "_Flow":
        """The flow as a distribution over rows; event shape (d,)."""
        return _Flow(zuko.distributions.NormalizingFlow(self.transform(), self.flow().base))

    def transform(self) -> torch.distributions.Transform:
        """f: standardisation, then the splines."""
        standardise = torch.distributions.AffineTransform(
            -self.mean / self.std, 1 / self.std, event_dim=1
        )
        return zuko.transforms.ComposedTransform(standardise, self.flow().transform)


class _Flow(ZukoToPyro):
    """zuko's distribution as Pyro's, without the cache that outlives an update of the weights."""

    def __call__(self, shape: Any = ()) -> Tensor:
        return self.dist.rsample(torch.Size(shape))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density, in nats."""
        return self.dist.log_prob(x)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Flow":
        """The same density for every row."""
        return _Flow(self.dist.expand(torch.Size(batch_shape)))


@encode.register(SplineFlow)
def _encode(model: SplineFlow, batch: Batch, *, draws: int | None = None) -> Batch:
    """z = f(x): the noise that the row is made of; whole numbers stand at the middle of their cell.

    The code is a function of the row, so every draw is the same.
    """
    x, seen = cells(batch, "x", (model.features,))
    if seen is not None:
        raise Unsupported(
            "SplineFlow cannot encode rows with missing cells: every code depends on all cells. "
            "Use a VAE or PPCA, or drop those rows."
        )
    x = x.to(model.mean.dtype) + (0.5 if model.levels else 0.0)
    z = model.transform()(x)
    return Batch(z=z if draws is None else z.expand(draws, *z.shape))


@decode.register(SplineFlow)
def _decode(model: SplineFlow, z: Any, *, context: Any = None) -> Batch:
    """x = f^-1(z)."""
    noise, _ = cells(as_batch(z if isinstance(z, dict) else {"z": z}), "z", (model.features,))
    x = model.transform().inv(noise.to(model.mean))
    return Batch(x=x if model.levels is None else x.floor().clamp(0, model.levels - 1))


def _check(features: int, transforms: int, bins: int, std: Tensor | None) -> None:
    if min(features, transforms) < 1 or bins < 2:
        raise ValueError(
            f"features is {features}, transforms {transforms}, bins {bins}; a flow has at least "
            "one feature, one transform and two bins."
        )
    if std is not None and not bool((std > 0).all()):
        raise ValueError("std= holds values that are not above zero: no cell can be divided by it.")


def example() -> Example:
    """Two moons."""
    x = load("two_moons", n=500, seed=0).x
    model = SplineFlow.from_data(x, transforms=2, hidden=(32, 32))
    return Example(model, x, {"steps": 200, "learning_rate": 0.01})
