"""Keeps, while a program runs on a whole lot, what each trainable layer saw and what came back.

Inside `with Tape(...)` a call of torch's `linear`, `embedding`, `layer_norm` or `conv` on a
trainable parameter is *covered*: it computes with a copy of the parameter that autograd does not
know, and the tape keeps its input and, on the way back, the gradient at its output. Since covered
calls are cut off from their parameters, a parameter that autograd still reaches is used by
something else, and is found by asking for its gradient in the same pass. Nothing about the model's
modules is assumed: subclasses, ties and calls by name all come by here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode

from privacy.gradients.parts import Part
from privacy.layout import Axis, find_axis


class NotCovered(ValueError):
    """The ghost route cannot take this program; the message says why."""


class Changed(NotCovered):
    """The program does something else than when it was tried out; of the rows this says no more."""

    def __init__(self) -> None:
        super().__init__("the program made other calls than when it was tried out")


@dataclass(eq=False)
class Call:
    """One covered call.

    Attributes:
        operation: its name.
        names: of the trainable parameters, by their place in the operation ("weight", "bias").
        x: its input.
        shape: of its output.
        parts: makes what each parameter gets, from input and gradient with the rows first.
        g: the gradient at its output, once a pass backwards was made.
    """

    operation: str
    names: Mapping[str, str]
    x: Tensor
    shape: tuple[int, ...]
    parts: Callable[[Tensor, Tensor], Mapping[str, Part]]
    g: Tensor | None = None
    version: int = field(init=False)

    def __post_init__(self) -> None:
        self.version = self.x._version

    @property
    def what(self) -> tuple[str, tuple[str, ...]]:
        """The operation and its parameters."""
        return self.operation, tuple(self.names.values())


@dataclass(eq=False)
class _Masked:
    """The product of a trainable weight and a constant of the model."""

    name: str
    mask: Tensor
    product: Tensor = field(repr=False)


class Tape(TorchFunctionMode):
    """Covers the calls on trainable parameters, and keeps them in order.

    Args:
        parameters: the trainable parameters by name.
        buffers: the constants of the model, by which a weight may be masked.
        rules: function of torch -> `f(tape, *arguments)`, its covered result, or None where it has
            no rule for these arguments.

    Attributes:
        calls: those that were covered, in order.
        roots: leaves of autograd's graph that stand in for the parameters.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        buffers: Iterable[Tensor],
        rules: Mapping[Any, Callable[..., Tensor | None]],
    ) -> None:
        super().__init__()
        self.rules = rules
        self.parameters = {id(p): name for name, p in parameters.items()}
        self.masks = {id(buffer) for buffer in buffers}
        self.masked: dict[int, _Masked] = {}
        self.calls: list[Call] = []
        self.roots: list[Tensor] = []
        self.listening = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Covers what can be covered; lets everything else pass."""
        options = kwargs or {}
        if func in self.rules and torch.is_grad_enabled():
            covered = self.rules[func](self, *args, **options)
            if covered is not None:
                return covered
        out = func(*args, **options)
        if func in _PRODUCTS:
            self._remember(args, out)
        return out

    def _remember(self, args: Any, out: Any) -> None:
        """A trainable weight times a constant of the model, as a masked layer has it."""
        for p, mask in (args, args[::-1]):
            if id(p) in self.parameters and id(mask) in self.masks and out.shape == p.shape:
                mask = mask.detach().to(out.dtype).expand_as(p)
                self.masked[id(out)] = _Masked(self.parameters[id(p)], mask, out)

    def weight(self, value: Any) -> tuple[str | None, Tensor | None]:
        """The name and the mask of a trainable parameter; None for what is no parameter."""
        if id(value) in self.masked:
            found = self.masked[id(value)]
            return found.name, found.mask
        return self.parameters.get(id(value)), None

    def keep(
        self,
        operation: str,
        names: Mapping[str, str],
        x: Tensor,
        out: Tensor,
        parts: Callable[[Tensor, Tensor], Mapping[str, Part]],
    ) -> Tensor:
        """Enters a call; returns its output, from which the gradient will come back."""
        call = Call(operation, names, x.detach(), tuple(out.shape), parts)
        if is_functorch_wrapped_tensor(x):
            raise NotCovered(f"{_layer(call)} is called inside a transformation of torch.func")
        if not out.requires_grad:
            self.roots.append(out.new_zeros(0, requires_grad=True))
            out = _Rooted.apply(out, self.roots[-1])
        out.register_hook(lambda g: self._heard(call, g))
        self.calls.append(call)
        return out

    def _heard(self, call: Call, g: Tensor) -> None:
        if self.listening:
            call.g = g
        elif torch.is_grad_enabled():
            raise NotCovered(f"the program differentiates a gradient of {_layer(call)}")

    def clear(self) -> None:
        """Lets go of what was kept: calls and tensors hold each other."""
        self.calls, self.roots, self.masked = [], [], {}

    def backward(
        self, loss: Tensor, leaves: Mapping[str, Tensor], others: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """One pass backwards; the gradients of `leaves`.

        Raises:
            NotCovered: a parameter in `others` is reached past the covered calls.
        """
        wanted = [*self.roots, *leaves.values(), *others.values()]
        self.listening = True
        try:
            found: Sequence[Tensor | None] = torch.autograd.grad(
                loss.sum(), wanted, allow_unused=True
            )
        finally:
            self.listening = False
        past = found[len(self.roots) + len(leaves) :]
        loose = [name for name, g in zip(others, past, strict=True) if g is not None]
        if loose:
            raise Loose(tuple(loose))
        own = found[len(self.roots) : len(self.roots) + len(leaves)]
        return {
            name: torch.zeros_like(leaf) if g is None else g
            for (name, leaf), g in zip(leaves.items(), own, strict=True)
        }


class _Rooted(torch.autograd.Function):
    """A tensor as it is, no copy, on a leaf of no numbers from which autograd is led to it."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, root: Tensor) -> Tensor:
        """The tensor itself; what follows may write to it."""
        ctx.mark_dirty(out)
        return out

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[None, None]:
        """Nothing: the gradient is heard before it comes here."""
        return None, None


class Loose(NotCovered):
    """Parameters that something else than a covered layer uses."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        listed = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
        super().__init__(f"layers without a rule, or none, use {listed}")


def parts_of(calls: Sequence[Call], axes: Sequence[Axis], n: int) -> Iterator[tuple[str, Part]]:
    """What each call gives to its parameters; a call that the loss does not reach gives nothing."""
    for call, axis in zip(calls, axes, strict=True):
        if call.g is None:
            continue
        if call.x._version != call.version:
            raise NotCovered(f"the input of {_layer(call)} is overwritten later")
        if not axis.fits(call.shape, n) or not axis.fits(call.x.shape, n):
            raise NotCovered(f"{_layer(call)} saw {tuple(call.x.shape)} for {n} rows")
        x, g = (axis.rows_first(value, n) for value in (call.x, call.g))
        for place, part in call.parts(x, g).items():
            yield call.names[place], part


def axes_of(small: list[Call], large: list[Call], *, copies_outside: bool) -> list[Axis]:
    """Where the rows are in each call, from runs on 2 and on 3 rows.

    Raises:
        NotCovered: different calls, or one that is not of the rows.
    """
    if [call.what for call in small] != [call.what for call in large]:
        raise NotCovered("the program calls other layers for other numbers of rows")
    axes = []
    for a, b in zip(small, large, strict=True):
        axis = find_axis(a.shape, b.shape, copies_outside=copies_outside)
        seen = find_axis(a.x.shape, b.x.shape, copies_outside=copies_outside)
        if axis is None or axis != seen:
            raise NotCovered(f"{_layer(b)} is called on something that has no entry for each row")
        axes.append(axis)
    return axes


_PRODUCTS = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__}


def _layer(call: Call) -> str:
    return f"the layer of {', '.join(map(repr, call.names.values()))}"
