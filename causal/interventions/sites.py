"""The sites of a model: what its program draws, asked before anything is done to them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from causal.structural import Structural
from pgm import Model
from pgm.model import arguments, modules_of, tensors_of
from pgm.randomness import seeded
from pgm.sites import Run, Site


def sites_of(model: Model, n: int) -> dict[str, Site] | None:
    """The sites of one run of the program; None if it needs context to run.

    One run on two rows is kept, as long as the model is as it was. What kind of distribution each
    node of a structural model has does not change with its parameters; any other program may look
    at them.
    """
    if n > 2:
        return _run(model, n)
    state = _state(model)
    known = _KNOWN.get(model)
    if known is None or known[0] != state:
        sites = _run(model, n)
        if sites is None:
            return None
        known = _KNOWN[model] = (state, sites)
    return known[1]


def _state(model: Model) -> tuple[Any, ...]:
    """What the sites of a model rest on: its modules and, in a program, its tensors."""
    state = [*map(id, modules_of(model)), model.dtype, model.device]
    if not isinstance(model, Structural):
        state += [(id(t), t._version) for t in tensors_of(model)]
    return tuple(state)


def _run(model: Model, n: int) -> dict[str, Site] | None:
    with Run() as run, asking(model, 0):
        try:
            model.model(n, **arguments(model, "model", {}))
        except (TypeError, ValueError):
            if model.context:
                return None
            raise
    return run.sites


_KNOWN: WeakKeyDictionary[Model, tuple[Any, dict[str, Site]]] = WeakKeyDictionary()


@contextmanager
def asking(model: Model, seed: int | None) -> Iterator[None]:
    """Evaluation mode, no gradients and seeded draws, as a verb has them."""
    training = [module for module in modules_of(model) if module.training]
    if training:
        model.eval()
    try:
        with torch.no_grad(), seeded(seed):
            yield
    finally:
        for module in training:
            module.training = True
