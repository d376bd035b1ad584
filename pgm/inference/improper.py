"""Posteriors that cannot be normalised, told before a chain walks off along them."""

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.inference.unconstrained import LogJoint

_RELATIVE = 1e-11
_PER_COORDINATE = 2
"""Gradients a coordinate that the check takes."""


class ImproperPosterior(ValueError):
    """The joint density is constant along a line, so that it has no integral; names the sites."""


def refuse_improper(density: LogJoint, gradient: Float[Tensor, "n d"]) -> None:
    """Refuses a density that is constant along some direction: no gradient has a part along it.

    Args:
        density: the log joint.
        gradient: of it, at many points.

    Raises:
        ImproperPosterior: the gradients do not span the space.
    """
    gradient = gradient[gradient.isfinite().all(1)]
    n, d = gradient.shape
    if n < _PER_COORDINATE * d:
        return
    size = gradient.square().mean(0).sqrt()
    scaled = gradient / torch.where(size > 0, size, 1.0)
    _, values, directions = torch.linalg.svd(scaled, full_matrices=False)
    if float(values[-1]) > _RELATIVE * float(values[0]):
        return
    direction = directions[-1] / torch.where(size > 0, size, 1e-300)
    raise ImproperPosterior(
        f"The posterior of {type(density.model).__name__} is improper: its density stays the same "
        f"along a line through {_named(density, direction)}, at each of {n} points. The data do "
        "not tell these apart, and their priors are flat. Give them proper priors, or fix one."
    )


def _named(density: LogJoint, direction: Float[Tensor, " d"]) -> str:
    """The sites that a direction goes through."""
    parts = direction.split([shape.numel() for shape in density.shapes.values()])
    largest = direction.abs().max()
    names = [
        name
        for name, part in zip(density.shapes, parts, strict=True)
        if bool((part.abs() > 1e-3 * largest).any())
    ]
    return " and ".join(map(repr, names))
