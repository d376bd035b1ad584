"""Explicit randomness: draws that depend on a seed alone and leave the global state as it was.

Pyro and torch draw from one global generator. `seeded` lends it out for a block; a `Stream` is a
generator that is lent out many times and goes on where it stopped, so that a loop which yields
between its steps never disturbs the draws of whoever consumes it.
"""

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
    """A stream of random numbers that can be stopped and taken up again, bit for bit."""

    def __init__(self, seed: int) -> None:
        outer = _get()
        torch.manual_seed(seed)
        self.state = _get()
        _set(outer)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the block on this stream; the global state is restored afterwards."""
        outer = _get()
        _set(self.state)
        try:
            yield
        finally:
            self.state = _get()
            _set(outer)


def fresh_seed() -> int:
    """Draws a seed from the global state (for a verb that is called with `seed=None`)."""
    return int(torch.randint(2**31 - 1, ()))


def _get() -> list[Tensor]:
    state = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state += torch.cuda.get_rng_state_all()
    return state


def _set(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])
