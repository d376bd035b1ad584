"""Interpolation: the path between two rows through a model's latent space.

Codes with a standard normal prior are joined along the great circle, which keeps to the shell on
which the prior puts its mass (White 2016, "Sampling generative networks", Sec. 2.1); others along
the straight line.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import SEEN, Batch, rows_of
from pgm.model import Model
from pgm.verb import prepare, verb
from pgm.verbs.coding import decode, encode

Path = Literal["spherical", "linear"]


def _needs_codes(model: Model) -> str | None:
    return encode.refusal(model) or decode.refusal(model)


@verb(needs=_needs_codes)
def interpolate(
    model: Model,
    a: Any,
    b: Any,
    *,
    steps: int = 9,
    path: Path = "spherical",
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

    Example:
        >>> from pgm.families.factor import PPCA
        >>> x = torch.eye(3)
        >>> interpolate(PPCA(3, 2), x[:1], x[1:2], steps=5)["x"].shape
        torch.Size([5, 3])
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}; a path has two ends.")
    ends = prepare(model, a), prepare(model, b)
    n = rows_of(ends[0])
    if rows_of(ends[1]) != n:
        raise ValueError(f"a has {n} rows and b {rows_of(ends[1])}: each a is joined to its b.")
    start, stop = (encode(model, end) for end in ends)
    join = slerp if path == "spherical" else torch.lerp
    t = torch.linspace(0, 1, steps, device=model.device, dtype=model.dtype)
    codes = {name: _along(join, start[name], stop[name], t) for name in start}
    context = {
        k: v.repeat(steps, *[1] * (v.dim() - 1)) for k, v in _context(model, ends[0]).items()
    }
    rows = decode(model, codes, context=Batch(context) or None)
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


def _along(join: Any, start: Tensor, stop: Tensor, t: Tensor) -> Tensor:
    """The codes at all t, steps outermost, as rows."""
    if not start.is_floating_point():
        return torch.cat([start if point < 0.5 else stop for point in t])
    flat = [end.reshape(len(end), -1) for end in (start, stop)]
    return torch.cat([join(*flat, point).reshape(start.shape) for point in t])


def _context(model: Model, batch: Batch) -> dict[str, Tensor]:
    return {k: v for k, v in batch.items() if k in model.context and not k.endswith(SEEN)}
