"""Noise forms of distributions made of others: transformed, wrapped, and the constant."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import Delta
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Size, Tensor
from torch.distributions import Independent, Transform, TransformedDistribution

from pgm.noise.form import (
    Noise,
    NoNoiseForm,
    couplings,
    noise,
    pull,
    push,
    register,
    require,
    require_support,
)

# A mask changes what is believed, not how x is made.
BASES: Mapping[Any, Callable[[Any], Any]] = {
    Independent: lambda fn: fn.base_dist,
    MaskedDistribution: lambda fn: fn.base_dist,
    ExpandedDistribution: lambda fn: fn.base_dist,
    ZukoToPyro: lambda fn: fn.dist,
}


def register_wrapper(kind: Any, base: Callable[[Any], Any]) -> None:
    """Give a wrapper the noise form of what it wraps."""
    couplings.register(kind, lambda fn: couplings(base(fn)))
    noise.register(
        kind, lambda fn, shape=(), *, coupling=None: noise(base(fn), shape, coupling=coupling)
    )
    push.register(kind, lambda fn, u, *, coupling=None: push(base(fn), u, coupling=coupling))
    pull.register(kind, lambda fn, x, *, coupling=None: pull(base(fn), x, coupling=coupling))


for kind, base in BASES.items():
    register_wrapper(kind, base)


@noise.register(ExpandedDistribution)
def expanded_noise(fn: Any, shape: tuple[int, ...] = (), *, coupling: str | None = None) -> Noise:
    """Noise of the base for each element of the expanded batch.

    The base repeats the axes of size 1 of its batch shape, so it is drawn that many times more; as
    noise is independent and alike over a batch, any order of the draws will do.
    """
    shape, wide = Size(shape), Size(fn.batch_shape)
    narrow = fn.base_dist.batch_shape
    times = wide.numel() // narrow.numel() if narrow.numel() else 1
    u = noise(fn.base_dist, (*shape, times), coupling=coupling)
    return over_leaves(
        lambda leaf: leaf.reshape(shape + wide + leaf.shape[len(shape) + 1 + len(narrow) :]), u
    )


def over_leaves(function: Callable[[Tensor], Tensor], u: Any) -> Any:
    """Apply a function to every tensor of a noise."""
    if isinstance(u, Tensor):
        return function(u)
    return type(u)(*(over_leaves(function, part) for part in u))


def delta_pull(fn: Any, x: Tensor) -> Tensor:
    """Zero, if x is the constant."""
    same = (x == fn.v).reshape(*torch.broadcast_shapes(x.shape, fn.v.shape))
    batch = same.shape[: same.dim() - fn.event_dim]
    x = x.expand(same.shape)
    require(
        same.reshape(*batch, -1).all(-1),
        x,
        "Delta: pull got a value that is not the constant. This site is deterministic: it cannot "
        "have made that value.",
    )
    return torch.zeros(batch, dtype=torch.get_default_dtype(), device=x.device)


def delta_push(fn: Any, u: Tensor) -> Tensor:
    """The constant, whatever u."""
    batch = torch.broadcast_shapes(u.shape, fn.batch_shape)
    return fn.v.expand(batch + fn.event_shape)


register(
    Delta,
    noise=lambda fn, shape: torch.zeros(shape + fn.batch_shape, device=fn.v.device),
    push=delta_push,
    pull=delta_pull,
)


# x = t_m(... t_1(z)), where z has the noise form of the base
couplings.register(TransformedDistribution, lambda fn: couplings(fn.base_dist))


@noise.register(TransformedDistribution)
def transformed_noise(
    fn: TransformedDistribution, shape: tuple[int, ...] = (), *, coupling: str | None = None
) -> Noise:
    """Noise of the base."""
    require_bijections(fn)
    return noise(fn.base_dist, shape, coupling=coupling)


@push.register(TransformedDistribution)
def transformed_push(
    fn: TransformedDistribution, u: Noise, *, coupling: str | None = None
) -> Tensor:
    """Transform the value of the base."""
    require_bijections(fn)
    x = push(fn.base_dist, u, coupling=coupling)
    for transform in fn.transforms:
        x = apply(transform, x)
    return x


@pull.register(TransformedDistribution)
def transformed_pull(
    fn: TransformedDistribution, x: Tensor, *, coupling: str | None = None
) -> Noise:
    """Undo the transforms, the last one first."""
    require_bijections(fn)
    require_support(fn, x)
    for transform in reversed(fn.transforms):
        x = apply(transform.inv, x)
    return pull(fn.base_dist, x, coupling=coupling)


def apply(transform: Transform, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Transform x, past any cache: transforms look it up by identity and never see an update."""
    try:
        return transform(x.view_as(x))
    except (KeyError, NotImplementedError) as error:
        raise NoNoiseForm(
            f"{transform} cannot be computed in the direction that the noise form needs. Use a "
            "transform with an analytic inverse, or a flow of zuko."
        ) from error


def require_bijections(fn: TransformedDistribution) -> None:
    """Raise if a transform has several u for one x: its formal inverse would give a wrong one."""
    for transform in fn.transforms:
        if not transform.bijective:
            raise NoNoiseForm(
                f"{type(fn).__name__} goes through {transform}, which is no bijection: x does not "
                "determine the value before it. Use another distribution, or teach it: "
                f"pgm.noise.register({type(fn).__name__}, noise=..., push=..., pull=...)."
            )
