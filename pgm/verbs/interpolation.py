"""Interpolation: the path between two rows through a model's latent space.

Codes are joined along the great circle, which keeps to the shell on which a standard normal prior
puts its mass (White 2016, "Sampling generative networks", Sec. 2.1), or along the straight line;
discrete codes change half-way. Context goes from that of the one row to that of the other in a
straight line, or half-way.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import SEEN, Batch, rows_of
from pgm.model import Model
from pgm.verb import prepare, verb
from pgm.verbs.coding import decode, encode


def _needs_codes(model: Model) -> str | None:
    return encode.refusal(model) or decode.refusal(model)


@verb(needs=_needs_codes)
def interpolate(
    model: Model,
    a: Any,
    b: Any,
    *,
    steps: int = 9,
    path: str = "spherical",
    seed: int | None = None,
) -> Batch:
    """Rows on the way from `a` to `b`: both are encoded, their codes joined and decoded.

    Args:
        model: a model that can encode and decode.
        a: one row, or n rows.
        b: as many rows.
        steps: points on the path, both ends included.
        path: "spherical" or "linear", in the space of the codes.
        seed: of the draws, where encoding or decoding draws.

    Returns:
        The observed sites, shape (steps, ...) for one row, (steps, n, ...) for several.

    Raises:
        ValueError: fewer than 2 steps, an unknown path, or ends that differ in rows or context.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> x = torch.eye(3)
        >>> interpolate(PPCA(3, 2), x[:1], x[1:2], steps=5)["x"].shape
        torch.Size([5, 3])
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}; a path has two ends.")
    if path not in _JOINS:
        raise ValueError(f"There is no path {path!r}: use {' or '.join(map(repr, _JOINS))}.")
    first, last = prepare(model, a), prepare(model, b)
    n = rows_of(first)
    if rows_of(last) != n:
        raise ValueError(f"a has {n} rows and b {rows_of(last)}: each a is joined to its b.")
    t = torch.linspace(0, 1, steps, device=model.device, dtype=model.dtype)
    codes = _along(_JOINS[path], encode(model, first), encode(model, last), t)
    context = _along(torch.lerp, _context(model, first), _context(model, last), t)
    rows = decode(model, codes, context=context or None)
    if n == 1:
        return rows
    return Batch({name: value.reshape(steps, n, *value.shape[1:]) for name, value in rows.items()})


def slerp(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], t: Float[Tensor, "..."]
) -> Float[Tensor, "n d"]:
    """The great circle from a to b at t (Shoemake 1985); the straight line for parallel codes.

    Example:
        >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor(0.5))
        tensor([[0.7071, 0.7071]])
    """
    cosine = torch.nn.functional.cosine_similarity(a, b, -1, eps=1e-12).clamp(-1, 1)[..., None]
    omega = torch.arccos(cosine)
    straight = torch.sin(omega) < 1e-4
    safe = torch.where(straight, torch.ones_like(omega), omega)
    arc = (torch.sin((1 - t) * safe) * a + torch.sin(t * safe) * b) / torch.sin(safe)
    return torch.where(straight, torch.lerp(a, b, t), arc)


_JOINS: dict[str, Any] = {"spherical": slerp, "linear": torch.lerp}


def _along(join: Any, start: Batch, stop: Batch, t: Tensor) -> Batch:
    """What lies between two batches at all t, steps outermost, as rows."""
    if start.keys() != stop.keys():
        raise ValueError(
            f"a has {', '.join(map(repr, start)) or 'nothing'} and b "
            f"{', '.join(map(repr, stop)) or 'nothing'} to decode by. Pass both, or neither."
        )
    return Batch({name: _between(join, start[name], stop[name], t) for name in start})


def _between(join: Any, start: Tensor, stop: Tensor, t: Tensor) -> Tensor:
    if not start.is_floating_point():
        return torch.cat([start if point < 0.5 else stop for point in t])
    flat = [end.reshape(len(end), -1) for end in (start, stop)]
    return torch.cat([join(*flat, point).reshape(start.shape) for point in t])


def _context(model: Model, batch: Batch) -> Batch:
    return Batch({k: v for k, v in batch.items() if k in model.context and not k.endswith(SEEN)})
