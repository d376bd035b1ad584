"""Explicit randomness: draws that depend on a seed alone and leave the global state as it was.

Pyro and torch draw from one global generator. `seeded` lends it out for a block; a `Stream` is a
generator that is lent out many times and goes on where it stopped, so that a loop which yields
between its steps never disturbs the draws of whoever consumes it.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Runs the block with torch's generators set by `seed`; restores them afterwards.

    With `seed=None` the block draws from the global state and advances it.

    Example:
        >>> with seeded(0):
        ...     a = torch.randn(2)
        >>> with seeded(0):
        ...     b = torch.randn(2)
        >>> bool((a == b).all())
        True
    """
    if seed is None:
        yield
        return
    with Stream(seed).running():
        yield


class Stream:
    """A stream of random numbers that can be stopped and taken up again, bit for bit.

    Attributes:
        state: of the generators of the CPU and, once they are in use, of the GPUs.
    """

    def __init__(self, seed: int) -> None:
        self._seed = int(seed)
        self.state = _fresh(self._seed)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the block on this stream; the global state is restored afterwards."""
        outer = _get()
        for late in range(len(self.state), len(outer)):  # a GPU that came into use since
            self.state.append(_fresh(self._seed)[late])
        _set(self.state)
        if _has_gpu() and not torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(self._seed)  # for when the block starts the GPUs up
        try:
            yield
        finally:
            self.state = _get()
            _set(outer)


def fresh_seed() -> int:
    """Draws a seed from the global state (for a verb that is called with `seed=None`)."""
    return int(torch.randint(2**31 - 1, ()))


def _generators() -> list[torch.Generator]:
    """Those in use: asking a GPU for its own would start it up."""
    gpus = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    return [torch.default_generator, *gpus]


_has_gpu = functools.cache(torch.cuda.is_available)


def _fresh(seed: int) -> list[Tensor]:
    return [torch.Generator(g.device).manual_seed(seed).get_state() for g in _generators()]


def _get() -> list[Tensor]:
    return [generator.get_state() for generator in _generators()]


def _set(state: list[Tensor]) -> None:
    for generator, part in zip(_generators(), state, strict=False):
        generator.set_state(part)
