"""What the values of a site are, numbers or levels, and how they are averaged and called."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from pyro.distributions import Normal
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent

from causal.shifts import Shifted
from pgm import Categorical as Levels
from pgm import Continuous, Schema
from pgm.noise.form import require


def categories(fn: Any) -> int:
    """The number of levels of a distribution; 0 if its values are numbers or vectors.

    Example:
        >>> from pyro.distributions import Categorical, Normal
        >>> categories(Categorical(torch.ones(3))), categories(Normal(0.0, 1.0))
        (3, 0)
    """
    if type(fn) is Normal:  # the usual case, told at once
        return 0
    fn = unwrapped(fn)
    if isinstance(fn, Categorical):
        return int(fn.probs.shape[-1])
    return 2 if isinstance(fn, Bernoulli) else 0


def is_binary(fn: Any) -> bool:
    """Whether the values are 0.0 and 1.0, and not codes."""
    return isinstance(unwrapped(fn), Bernoulli)


def unwrapped(fn: Any) -> Any:
    """The distribution inside masks, expansions, shifts and empty events."""
    while isinstance(fn, MaskedDistribution | ExpandedDistribution | Shifted) or (
        isinstance(fn, Independent) and not fn.event_shape
    ):
        fn = fn.base_dist
    return fn


def check_levels(name: str, value: Shaped[Tensor, "*n"], levels: int) -> None:
    """Refuses what an intervention makes of a site with levels, where it is none of them.

    Raises:
        ValueError: a code below 0, of `levels` or above, or between two whole numbers.
    """
    if not levels:
        return
    require(
        (value >= 0) & (value < levels) & (value == value.round()),
        value,
        f"do({name}=...): the site has {levels} levels, coded 0 .. {levels - 1}, and what depends "
        "on it knows no other. With a schema, levels are set by their names.",
    )


def frequencies(x: Shaped[Tensor, "*n"], levels: int) -> Float[Tensor, "*n levels"]:
    """One-hot codes, whose mean is the frequency of each level."""
    return (x[..., None] == torch.arange(levels, device=x.device)).to(torch.get_default_dtype())


def names(schema: Schema | None, site: str, levels: int) -> tuple[Any, ...]:
    """What the levels of a site are called: the schema's labels, or 0 .. k-1."""
    column = schema.columns.get(site) if schema is not None else None
    return tuple(column.levels) if isinstance(column, Levels) else tuple(range(levels))


def in_units(schema: Schema | None, site: str, x: Shaped[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Numbers in the unit of their column, in float64."""
    column = schema.columns.get(site) if schema is not None else None
    x = x.double()
    return x * column.std + column.mean if isinstance(column, Continuous) else x
