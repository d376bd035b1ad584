"""Neural spline flows: an exact density by an invertible map of the data to a standard normal.

    z = f(x; c),    log p(x | c) = log N(z; 0, I) + log |det df/dx|

with f a stack of monotonic rational-quadratic splines whose knots a masked network reads off the
cells before (autoregressive) or off one half of the cells (coupling) (Durkan, Bekasov, Murray &
Papamakarios 2019, "Neural spline flows", eq. 4-8; zuko's NSF). Whole numbers are floors of a
continuous y = x + u:

    log P(x) = log int_[0,1)^d p(x + u) du >= E_u[log p(x + u)],    u ~ U[0, 1)^d

(uniform dequantisation, Theis, van den Oord & Bethge 2016, eq. 3-6): y is a latent site, u its
proposal, and importance weights tighten the bound.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from jaxtyping import Bool, Float, Shaped
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import AffineTransform, constraints

from pgm.batch import SEEN, Batch, as_batch, cells, repeat
from pgm.data import load
from pgm.families import Example
from pgm.model import Model, rows
from pgm.nets import Activation, checks_kept, nonlinearity
from pgm.verb import Unsupported, prepare
from pgm.verbs.coding import decode, encode

with checks_kept():
    from zuko.distributions import NormalizingFlow
    from zuko.flows import NSF
    from zuko.transforms import ComposedTransform

__all__ = ["SplineFlow", "example"]


class SplineFlow(Model):
    """A neural spline flow over rows of numbers (Durkan et al. 2019).

    A spline is the identity outside [-5, 5], so the data are standardised first: give `mean` and
    `std`, or let `from_data` take them from the data.

    Args:
        features: d, the cells of a row.
        context: size of the context `c` that the density is conditional on; 0 for none.
        levels: None for real numbers; L for whole numbers 0 .. L - 1, which are dequantised.
        transforms: spline layers, each in the opposite order of the one before.
        hidden: sizes of the hidden layers of each layer's network.
        bins: of each spline.
        coupling: whether a layer splits the cells in two halves, which samples in 2 passes a layer
            instead of d; autoregressive layers give the better density.
        mean: subtracted from the data, shape (d,); the middle of the levels, or 0.
        std: divides the data, shape (d,); that of uniform levels, or 1.
        activation: nonlinearity of the networks.
        dropout: share of hidden units silenced in training.

    Raises:
        ValueError: a size below 1, or means and standard deviations that are not finite, of
            another shape, or not positive.

    Example:
        >>> import pgm
        >>> flow = SplineFlow(2, transforms=2, hidden=(16,))
        >>> x = torch.tensor([[0.3, -1.2]])
        >>> z = pgm.encode(flow, x)["z"]
        >>> pgm.decode(flow, z)["x"]
        tensor([[ 0.3000, -1.2000]])
        >>> pgm.log_prob(flow, x).kind
        'exact'
    """

    mean: Float[Tensor, " d"]
    std: Float[Tensor, " d"]

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        levels: int | None = None,
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
        bins: int = 8,
        coupling: bool = False,
        mean: Float[Tensor, " d"] | None = None,
        std: Float[Tensor, " d"] | None = None,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_sizes(features, context, levels, transforms, hidden, bins)
        if coupling and features < 2:
            raise ValueError(
                "Coupling halves the cells, and there is only one. Use coupling=False."
            )
        self.features, self.context_features, self.levels = features, context, levels
        middle, spread = (levels / 2, levels / 12**0.5) if levels else (0.0, 1.0)
        self.register_buffer("mean", _by_feature(mean, features, middle))
        self.register_buffer("std", _by_feature(std, features, spread))
        _check_scales(self.mean, self.std, features)
        self.flow = NSF(
            features,
            context,
            transforms=transforms,
            hidden_features=hidden,
            bins=bins,
            passes=2 if coupling else None,
            activation=lambda: nn.Sequential(*nonlinearity(activation, dropout)),
        )

    @classmethod
    def from_data(
        cls, x: Shaped[Tensor, "n d"], *, levels: int | None = None, **options: Any
    ) -> "SplineFlow":
        """A flow standardised to the data: their means and standard deviations become buffers.

        These numbers are read off the data and are **not private**: for a private fit, pass `mean`
        and `std` from public knowledge. Rows with NaN are left out of them.

        Args:
            x: the training rows.
            levels: as of the class; whole numbers get the moments of their dequantised form.
            **options: the other arguments of the class.

        Raises:
            ValueError: a column of real numbers that is constant.

        Example:
            >>> x = load("two_moons", n=200, seed=0).x * 100
            >>> bool((SplineFlow.from_data(x).std > 10).all())
            True
        """
        batch = as_batch(x)
        whole = batch.get("x" + SEEN, torch.ones_like(batch["x"], dtype=torch.bool)).all(-1)
        seen = batch["x"][whole].to(torch.get_default_dtype())
        if len(seen) < 2:
            raise ValueError(f"{len(seen)} complete rows came; a standard deviation takes two.")
        mean, variance = seen.mean(0), seen.var(0)
        if levels is not None:
            mean, variance = mean + 0.5, variance + 1 / 12
        return cls(x.shape[-1], levels=levels, mean=mean, std=variance.sqrt(), **options)

    def model(self, n: int, c: Shaped[Tensor, "n k"] | None = None) -> None:
        """x ~ the flow; or y ~ the flow and x = floor(y)."""
        with rows(n):
            if self.levels is None:
                pyro.sample("x", self.density(c))
            else:
                y = pyro.sample("y", self.density(c))
                pyro.sample("x", Floor(y, self.levels).to_event(1))

    def guide(
        self,
        n: int,
        x: Shaped[Tensor, "n d"],
        x_seen: Bool[Tensor, "n d"] | None = None,
        c: Shaped[Tensor, "n k"] | None = None,
    ) -> None:
        """y = x + u with u ~ U[0, 1)^d, where the data are whole numbers."""
        if self.levels is None:
            return
        if x_seen is not None:
            _refuse_single_cells(x_seen)
        with rows(n):
            pyro.sample("y", Dequantised(x.to(self.mean.dtype), x_seen, self.density(c)))

    @property
    def latent(self) -> bool:
        """Whether there is a y behind the whole numbers."""
        return self.levels is not None

    def density(self, c: Shaped[Tensor, "*n k"] | None = None) -> "Flow":
        """The flow's distribution over rows; its base noise is standard normal."""
        if (c is not None) != (self.context_features > 0):
            raise ValueError(
                f"This flow was built with context={self.context_features}, but "
                f"{'no c' if c is None else 'c'} came. Pass the context as "
                '{"x": ..., "c": ...}, with as many columns as context= says.'
            )
        flow = self.flow(None if c is None else c.to(self.mean.dtype))
        standardise = AffineTransform(self.mean, self.std).inv
        return Flow(NormalizingFlow(ComposedTransform(standardise, flow.transform), flow.base))


class Flow(ZukoToPyro):
    """A flow of zuko as a Pyro distribution, without Pyro's store of densities by draw."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch reads it from the class)
    support = constraints.real_vector

    @property
    def transform(self) -> Any:
        """z = f(x), whose `inv` is f^-1."""
        return self.dist.transform  # type: ignore[attr-defined]

    def __call__(self, sample_shape: Sequence[int] = Size()) -> Tensor:
        """A draw."""
        return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = Size()) -> Tensor:
        """x = f^-1(z)."""
        x: Tensor = self.dist.rsample(Size(sample_shape))
        return x

    def log_prob(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """log N(f(x)) + log |det df/dx|."""
        log_prob: Tensor = self.dist.log_prob(x)
        return log_prob

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Flow":
        """The same distribution for each of a batch of rows."""
        return Flow(self.dist.expand(Size(batch_shape)))


class Floor(TorchDistribution):
    """The whole number x = floor(y), within 0 .. levels - 1: log P(x | y) is 0 or -inf.

    The ends of a cell belong to both neighbours, so that a rounded x + u is never outside its own.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch reads it from the class)

    def __init__(self, y: Float[Tensor, "*n d"], levels: int) -> None:
        self.y, self.levels = y, levels
        super().__init__(y.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The levels."""
        return constraints.integer_interval(0, self.levels - 1)

    def sample(self, sample_shape: Sequence[int] = Size()) -> Float[Tensor, "*n d"]:
        """The whole number that it is."""
        x = self.y.detach().floor().clamp(0, self.levels - 1)
        return x.expand(*sample_shape, *self.batch_shape)

    def log_prob(self, x: Shaped[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """0 where y lies in [x, x + 1], the outermost cells being open outwards; else -inf."""
        top = self.levels - 1
        above = (self.y >= x) | (x == 0)
        below = (self.y <= x + 1) | (x == top)
        whole = (x == x.round()) & (x >= 0) & (x <= top)
        return torch.where(above & below & whole, 0.0, -torch.inf).to(self.y.dtype)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Floor":
        """The same distribution for each of a batch."""
        return Floor(self.y.expand(*batch_shape), self.levels)


class Dequantised(TorchDistribution):
    """y = x + u with u ~ U[0, 1)^d; for rows that were not seen, the draws of the flow."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch reads it from the class)
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, x: Float[Tensor, "n d"], x_seen: Bool[Tensor, "n d"] | None, flow: Any
    ) -> None:
        self.x, self.flow = x, flow.expand(x.shape[:-1])
        self.seen = None if x_seen is None else x_seen.all(-1)
        super().__init__(x.shape[:-1], x.shape[-1:], validate_args=False)

    def rsample(self, sample_shape: Sequence[int] = Size()) -> Float[Tensor, "*n d"]:
        """x + u, or a draw of the flow."""
        shape = (*sample_shape, *self.x.shape)
        y = self.x + torch.rand(shape, dtype=self.x.dtype, device=self.x.device)
        if self.seen is None:
            return y
        return torch.where(self.seen[:, None], y, self.flow.rsample(sample_shape))

    def log_prob(self, y: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """log 1 = 0 on the cell of x, or the density of the flow."""
        cell = torch.zeros_like(y[..., 0])
        return cell if self.seen is None else torch.where(self.seen, cell, self.flow.log_prob(y))


@encode.register(SplineFlow)
def _encode(model: SplineFlow, batch: Batch, *, draws: int | None = None) -> Batch:
    """The base noise z = f(x): exact; whole numbers at the middle of their cells, or at draws."""
    _, seen = cells(batch, "x", (model.features,), others=("c",))
    if seen is not None:
        raise Unsupported(
            "SplineFlow cannot encode rows with missing cells: the code is a function of the whole "
            "row. Use rows without NaN, or a VAE, whose encoder takes them."
        )
    many = batch if draws is None else repeat(batch, draws)
    y = many["x"].to(model.dtype)
    if model.levels is not None:
        y = y + (0.5 if draws is None else torch.rand_like(y))
    z = model.density(many.get("c")).transform(y)
    return Batch(z=z if draws is None else z.unflatten(0, (draws, -1)))


@decode.register(SplineFlow)
def _decode(model: SplineFlow, z: Any, *, context: Any = None) -> Batch:
    """x = f^-1(z): exact; whole numbers are rounded down."""
    codes = dict(z) if isinstance(z, Mapping) else {"z": z}
    if list(codes) != ["z"]:
        raise ValueError(
            f"A SplineFlow has one code, its base noise 'z', but {', '.join(codes) or 'none'} came."
        )
    noise = torch.as_tensor(codes["z"]).to(model.device, model.dtype)
    if noise.dim() != 2 or noise.shape[1] != model.features:
        raise ValueError(
            f"z has shape {tuple(noise.shape)}; a code is as long as a row: (n, {model.features})."
        )
    given = Batch() if context is None else prepare(model, context)
    y = model.density(given.get("c")).transform.inv(noise)
    return Batch(x=y if model.levels is None else Floor(y, model.levels).sample())


def _refuse_single_cells(x_seen: Bool[Tensor, "n d"]) -> None:
    if bool((x_seen.any(-1) & ~x_seen.all(-1)).any()):
        raise Unsupported(
            "Single cells are missing, and a flow has one joint density of the whole row. Use rows "
            "that are complete or missing as a whole, or a model that leaves cells out: "
            "pgm.families.vae.VAE, pgm.families.mixture.GaussianMixture, or MADE's impute."
        )


def _check_sizes(
    features: int,
    context: int,
    levels: int | None,
    transforms: int,
    hidden: Sequence[int],
    bins: int,
) -> None:
    sizes = {"features": features, "transforms": transforms, "hidden": min(hidden, default=0)}
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it counts from 1.")
    if context < 0 or bins < 2 or (levels is not None and levels < 2):
        raise ValueError(
            f"context is {context}, bins {bins} and levels {levels}; a context has 0 columns or "
            "more, a spline 2 bins or more, and whole numbers 2 levels or more (None for reals)."
        )


def _by_feature(given: Tensor | None, features: int, default: float) -> Tensor:
    return torch.full((features,), default) if given is None else given.detach().clone()


def _check_scales(mean: Tensor, std: Tensor, features: int) -> None:
    if mean.shape != (features,) or std.shape != (features,):
        raise ValueError(
            f"mean has shape {tuple(mean.shape)} and std {tuple(std.shape)}; both have one number "
            f"a feature: ({features},)."
        )
    bad = ((std <= 0) | ~std.isfinite() | ~mean.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"Columns {bad} have means or standard deviations that are not finite and positive. A "
            "constant column has no density: leave it out, or give levels= if it is whole numbers."
        )


def example() -> Example:
    """Two moons."""
    x = load("two_moons", n=500, seed=0).x
    model = SplineFlow.from_data(x, transforms=2, hidden=(32, 32))
    return Example(model, x, {"steps": 200, "learning_rate": 5e-3})
