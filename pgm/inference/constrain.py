"""From points of the unconstrained space back to the latents of the program, all at once.

The program is recorded at one point and the record replayed over all of them (vmap), where it has a
fixed one; else it is run once a point.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.inference.runs import axes, latents
from pgm.inference.unconstrained import LogJoint
from pgm.tracing import Untraceable, close, record
from pgm.tracing.backends import batched
from pgm.tracing.program import drop_unused, simplify

_AT_ONCE = 500
"""Points of one replay: enough to pay for its calls, few enough for the memory."""


def constrain(
    density: LogJoint, u: Float[Tensor, "chains draws d"]
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """The latents and deterministic sites at each point, and the names of their axes.

    Call it inside `pgm.inference.precision.double`.
    """
    points = u.flatten(0, 1)
    with torch.no_grad():
        sites = latents(density.run(points[0]))
        try:
            values = _replayed(density, points)
        except Untraceable:
            runs = [latents(density.run(point)) for point in points]
            values = [torch.stack([run[name].value for run in runs]) for name in sites]
    named = zip(sites, values, strict=True)
    return (
        {name: v.reshape(*u.shape[:2], *v.shape[1:]) for name, v in named},
        {name: axes(site) for name, site in sites.items()},
    )


def _replayed(density: LogJoint, points: Float[Tensor, "n d"]) -> list[Tensor]:
    """The values of the sites, in the order of the program."""
    n = len(points)
    size = min(_AT_ONCE, n)
    single = record(lambda u: _values(density, u), [points[0]], [points[-1] + 0.1])
    drop_unused(single)
    try:
        replay = simplify(batched(single, [points[:size].clone()]))
    except Exception as error:
        raise Untraceable("it cannot be laid out over points") from error
    parts = [replay(points[i : i + size]) for i in range(0, n - size + 1, size)]
    if n % size:
        parts.append([value[-(n % size) :] for value in replay(points[-size:])])
    values = [torch.cat(part) for part in zip(*parts, strict=True)]
    for i in (0, n - 1):
        if not all(map(close, _values(density, points[i]), (v[i] for v in values))):
            raise Untraceable("the replay differs from the program")
    return values


def _values(density: LogJoint, u: Float[Tensor, " d"]) -> tuple[Tensor, ...]:
    return tuple(site.value for site in latents(density.run(u)).values())
