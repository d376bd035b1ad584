"""The layers of which the ghost route knows each row's gradient: one rule an operation of torch.

A rule computes with a detached copy of the parameters and says what each of them gets from the
input x and the gradient g at the output, both with the rows first. `None` leaves a call to
autograd, which then finds its parameters loose.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair

from privacy.gradients.parts import Lookup, Outer, Part, Whole
from privacy.gradients.tape import Tape


def linear(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """y_t = W x_t + b: sum_t g_t x_t^T, and sum_t g_t."""
    names = _names(tape, weight=weight, bias=bias)
    if names is None or x.dim() < 2:
        return None
    shape, mask = tuple(weight.shape), tape.weight(weight)[1]

    def parts(x: Tensor, g: Tensor) -> dict[str, Part]:
        x, g = x.flatten(1, -2), g.flatten(1, -2)
        return _of(names, weight=lambda: Outer(x, g, shape, mask), bias=lambda: Whole(_total(g)))

    return tape.keep("linear", names, x, F.linear(x, weight.detach(), _detached(bias)), parts)


def embedding(
    tape: Tape,
    k: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    *special: Any,
    **options: Any,
) -> Tensor | None:
    """y_t = W[k_t]: g_t lands in line k_t."""
    names = _names(tape, weight=weight)
    if (
        names is None
        or padding_idx is not None
        or max_norm is not None
        or any(special + tuple(options.values()))
    ):
        return None
    lines = len(weight)

    def parts(k: Tensor, g: Tensor) -> dict[str, Part]:
        return {"weight": Lookup(k.flatten(1), g.flatten(1, -2), lines)}

    return tape.keep("embedding", names, k, F.embedding(k, weight.detach()), parts)


def layer_norm(
    tape: Tape,
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    """y_t = w * u_t + b with u_t the standardised x_t: sum_t g_t * u_t, and sum_t g_t."""
    names, inner = _names(tape, weight=weight, bias=bias), len(normalized_shape)
    if names is None or x.dim() <= inner:
        return None

    def total(g: Tensor) -> Part:
        return Whole(g.flatten(1, g.dim() - inner - 1).sum(1))

    def parts(x: Tensor, g: Tensor) -> dict[str, Part]:
        u = F.layer_norm(x, normalized_shape, eps=eps)
        return _of(names, weight=lambda: total(g * u), bias=lambda: total(g))

    out = F.layer_norm(x, normalized_shape, _detached(weight), _detached(bias), eps)
    return tape.keep("layer_norm", names, x, out, parts)


def conv2d(
    tape: Tape,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """A linear layer on every patch: sum_t g_t (patch_t)^T."""
    names = _names(tape, weight=weight, bias=bias)
    if names is None or x.dim() != 4 or groups != 1 or isinstance(padding, str):
        return None
    shape, (_, mask) = tuple(weight.shape), tape.weight(weight)
    mask = None if mask is None else mask.flatten(1)
    window = {"stride": stride, "padding": padding, "dilation": dilation}

    def parts(x: Tensor, g: Tensor) -> dict[str, Part]:
        n = len(x)
        patches = F.unfold(x.flatten(0, 1), shape[2:], **window).mT.unflatten(0, (n, -1))
        a, g = patches.flatten(1, 2), g.flatten(3).mT.flatten(1, 2)
        return _of(names, weight=lambda: Outer(a, g, shape, mask), bias=lambda: Whole(_total(g)))

    out = F.conv2d(x, weight.detach(), _detached(bias), **window)
    return tape.keep("conv2d", names, x, out, parts)


def conv1d(
    tape: Tape,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """As `conv2d`, on patches of a line."""
    names = _names(tape, weight=weight, bias=bias)
    if names is None or x.dim() != 3 or groups != 1 or isinstance(padding, str):
        return None
    shape, (_, mask) = tuple(weight.shape), tape.weight(weight)
    mask = None if mask is None else mask.flatten(1)
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    wide = {k: (int(k != "padding"), _pair(v)[-1]) for k, v in window.items()}

    def parts(x: Tensor, g: Tensor) -> dict[str, Part]:
        n, rows = len(x), x.flatten(0, 1).unsqueeze(2)
        patches = F.unfold(rows, (1, shape[2]), **wide).mT.unflatten(0, (n, -1))
        a, g = patches.flatten(1, 2), g.mT.flatten(1, 2)
        return _of(names, weight=lambda: Outer(a, g, shape, mask), bias=lambda: Whole(_total(g)))

    out = F.conv1d(x, weight.detach(), _detached(bias), **window)
    return tape.keep("conv1d", names, x, out, parts)


COVERED: dict[Any, Callable[..., Tensor | None]] = {
    F.linear: linear,
    F.embedding: embedding,
    F.layer_norm: layer_norm,
    F.conv1d: conv1d,
    F.conv2d: conv2d,
}
"""Function of torch -> its rule."""


def _names(tape: Tape, **places: Tensor | None) -> dict[str, str] | None:
    """Place -> name of its trainable parameter; None if there is none, or one that is unknown."""
    names = {}
    for place, value in places.items():
        name, _ = tape.weight(value)
        if name is not None:
            names[place] = name
        elif value is not None and value.requires_grad:
            return None
    return names or None


def _of(names: Mapping[str, str], **makers: Callable[[], Part]) -> dict[str, Part]:
    """What the trainable ones get."""
    return {place: make() for place, make in makers.items() if place in names}


def _total(g: Tensor) -> Tensor:
    """sum_t g_t; no copy of a single one."""
    return g[:, 0] if g.shape[1] == 1 else g.sum(1)


def _detached(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach()
