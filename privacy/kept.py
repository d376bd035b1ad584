"""What a model keeps besides what is trained: plain attributes, which pickling releases.

`self.seen = x` inside a program leaves rows in the model that nothing clips or noises, and so does
a list, a dict, an array, a counter of rows, or what a transformation caches. Here it is found and
put back; whether it comes from the rows is asked in `privacy.watch`.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ReferenceType

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor

Path = tuple[str, ...]
_OWN = frozenset(vars(nn.Module()))
"""Torch's own attributes: parameters and buffers, which are looked at elsewhere, modes, hooks."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, torch.dtype, torch.device)
_OPAQUE = (FunctionType, MethodType, type, ModuleType, ReferenceType, Messenger, torch.Generator)
_LONG = 1000
"""Entries of a container beyond which only the last ones are looked at."""
_MOST, _DEEP = 20_000, 12
"""Values that are looked at, and containers within containers."""


@dataclass(frozen=True)
class Leaf:
    """A tensor, array or plain value, as it was.

    Attributes:
        value: itself.
        mark: the version of a tensor, the checksum of an array.
        copy: of a tensor or array, if asked for.
    """

    value: Any
    mark: int | None = None
    copy: Any = None

    @property
    def single(self) -> bool:
        """Whether it is one number or none: it holds no row."""
        value = self.value
        return value.numel() <= 1 if isinstance(value, Tensor) else np.size(value) <= 1

    def same(self, other: "Leaf") -> bool:
        """Whether it is the same value; of a tensor without a copy, whether it was written to."""
        a, b = self.value, other.value
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if a is b and self.copy is None:
                return self.mark == other.mark
            return _equal(
                *(leaf.value if leaf.copy is None else leaf.copy for leaf in (self, other))
            )
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return (a.shape, a.dtype, self.mark) == (b.shape, b.dtype, other.mark)
        return type(a) is type(b) and (a is b or bool(a == b) or repr(a) == repr(b))


@dataclass
class Kept:
    """What the modules of a model keep in plain attributes.

    Attributes:
        leaves: by attribute, such as `encoder.cache`, and place within.
        copies: whether tensors are copied, so that writing to them can be told and undone.
    """

    leaves: dict[Path, Leaf] = field(default_factory=dict)
    copies: bool = False
    _seen: set[int] = field(default_factory=set)
    _before: list[tuple[Any, Any]] = field(default_factory=list)

    @staticmethod
    def of(model: nn.Module, *, copies: bool = False) -> "Kept":
        """Of every module of the model; tensors that vmap left behind come without its wraps."""
        found, named = Kept(copies=copies), dict(model.named_modules())
        found._seen |= {id(module) for module in named.values()}
        found._seen |= {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
        for name, module in named.items():
            own = {k: v for k, v in vars(module).items() if _kept(k)}
            found._before.append((vars(module), own))
            for key, value in own.items():
                found._visit((f"{name}.{key}".lstrip("."),), value)
        return found

    def changed(self, other: "Kept") -> set[str]:
        """The attributes that differ."""
        return {path[0] for path in self._differ(other, Leaf.same)}

    def written(self, other: "Kept") -> set[str]:
        """The attributes that were set, perhaps to what they were."""
        return {path[0] for path in self._differ(other, _untouched)}

    def held(self, other: "Kept") -> set[str]:
        """The attributes that differ in more than single numbers."""
        differ = self._differ(other, Leaf.same)
        return {path[0] for path in differ if not self.leaves.get(path, _NOTHING).single}

    def _differ(self, other: "Kept", same: Callable[[Leaf, Leaf], bool]) -> set[Path]:
        return {
            path
            for path in self.leaves.keys() | other.leaves.keys()
            if path not in self.leaves
            or path not in other.leaves
            or not same(self.leaves[path], other.leaves[path])
        }

    def restore(self) -> None:
        """Puts back what was there; with copies, what stood in tensors too."""
        for holder, content in self._before:
            _refill(holder, content)
        for leaf in self.leaves.values():
            if isinstance(leaf.copy, np.ndarray):
                np.copyto(leaf.value, leaf.copy)
            elif leaf.copy is not None and not _equal(leaf.value, leaf.copy):
                with torch.no_grad():
                    leaf.value.copy_(leaf.copy)

    def _visit(self, path: Path, value: Any) -> None:
        if id(value) in self._seen or len(path) > _DEEP or len(self.leaves) > _MOST:
            return
        if isinstance(value, Tensor):
            value = _unwrapped(value)
            self.leaves[path] = Leaf(value, _version(value), _copy(value) if self.copies else None)
        elif isinstance(value, np.ndarray):
            self.leaves[path] = Leaf(value, _checksum(value), value.copy() if self.copies else None)
        elif isinstance(value, _PLAIN):
            self.leaves[path] = Leaf(value)
        elif not isinstance(value, _OPAQUE):
            self._seen.add(id(value))
            self._enter(path, value)

    def _enter(self, path: Path, value: Any) -> None:
        holder, entries = _content(value)
        if isinstance(holder, list | dict | deque | set):
            self._before.append((holder, type(holder)(holder)))
        self.leaves[(*path, "length")] = Leaf(len(entries))
        for key, entry in entries[-_LONG:]:
            self._visit((*path, key), entry)


class State:
    """All that computing a loss may change in a model, for putting it back.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.kept = model, Kept.of(model, copies=True)
        self.modes = [(module, module.training) for module in model.modules()]
        self.tensors = [
            (holder, name, tensor, None if tensor is None else _copy(tensor))
            for module in model.modules()
            for holder in (module._parameters, module._buffers)
            for name, tensor in holder.items()
        ]

    def restore(self) -> None:
        """Puts parameters, buffers, attributes and modes back."""
        for module, mode in self.modes:
            module.training = mode
        for holder, name, tensor, value in self.tensors:
            holder[name] = tensor  # type: ignore[assignment]
            if tensor is not None and value is not None and not _equal(tensor, value):
                with torch.no_grad():
                    tensor.copy_(value)
        self.kept.restore()


def tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    return [*model.named_parameters(), *model.named_buffers()]


def plain_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors and arrays of numbers in plain attributes, by attribute."""
    for path, leaf in Kept.of(model).leaves.items():
        name = path[0].replace("_arguments", "an argument of the constructor")
        if isinstance(leaf.value, np.ndarray) and leaf.value.dtype.kind in "fiub":
            yield name, torch.from_numpy(np.array(leaf.value))
        elif isinstance(leaf.value, Tensor):
            yield name, leaf.value


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Puts the model's state back, whatever the block does to it."""
    state = State(model)
    try:
        yield
    finally:
        state.restore()


_NOTHING = Leaf(None)


def _untouched(a: Leaf, b: Leaf) -> bool:
    return a.value is b.value and a.mark == b.mark


def _unwrapped(x: Tensor) -> Tensor:
    while is_functorch_wrapped_tensor(x):
        x = get_unwrapped(x)
    return x


def _kept(attribute: str) -> bool:
    return attribute not in _OWN and not attribute.startswith("_pyro_")


def _content(value: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """Where a value holds others, and these by key."""
    if isinstance(value, partial):
        return None, [("function", value.func), ("given", [*value.args, *value.keywords.values()])]
    if isinstance(value, list | tuple | deque | set | frozenset):
        return value, [(str(i), entry) for i, entry in enumerate(value)]
    holder = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    named = ((k if isinstance(k, str) else f"{i}", v) for i, (k, v) in enumerate(holder.items()))
    return holder, list(named)


def _refill(holder: Any, content: Any) -> None:
    if not isinstance(holder, dict):
        holder.clear()
        (holder.update if isinstance(holder, set) else holder.extend)(content)
        return
    for key in [key for key in holder if key not in content and not _is_own(holder, key)]:
        del holder[key]
    holder.update(content)


def _is_own(holder: dict[Any, Any], key: Any) -> bool:
    """Whether it is an entry of a module's that is not looked at here."""
    return "_parameters" in holder and "_modules" in holder and not _kept(str(key))


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def _checksum(x: Any) -> int:
    return zlib.crc32(repr(x).encode() if x.dtype.hasobject else x.tobytes())


def _copy(x: Tensor) -> Tensor | None:
    """None of a tensor of a lazy layer, which has no value yet."""
    try:
        return x.detach().clone()
    except (RuntimeError, ValueError):
        return None


def _equal(x: Tensor, y: Tensor) -> bool:
    try:
        alike = (x.shape, x.dtype, x.device) == (y.shape, y.dtype, y.device)
        return alike and torch.equal(x.nan_to_num(), y.nan_to_num())
    except RuntimeError:
        return False
