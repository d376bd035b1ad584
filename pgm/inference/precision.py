"""Posteriors are computed in float64, on a copy of the model: the user's own is not touched."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor, nn

from pgm.batch import Batch, move
from pgm.model import Model


@contextmanager
def double(model: Model, batch: Batch) -> Iterator[tuple[Model, Batch]]:
    """A copy of the model and the batch in float64, which is the default type inside the block.

    The copy is in evaluation mode, its parameters are held fixed, and distributions do not check
    their arguments: a trajectory may leave the support and come back.

    Example:
        >>> from pgm.families.kde import KDE
        >>> batch = Batch(x=torch.zeros(1, 1))
        >>> with double(KDE(torch.zeros(2, 1)), batch) as (model, precise):
        ...     print(precise["x"].dtype, batch["x"].dtype)
        torch.float64 torch.float32
    """
    outer = torch.get_default_dtype()
    precise = copy.deepcopy(model).to(torch.float64).eval().requires_grad_(False)
    for module in precise.modules():
        vars(module).update(_plain_tensors(module))
    torch.set_default_dtype(torch.float64)
    try:
        with pyro.validation_enabled(False):
            yield precise, move(batch, device=model.device, dtype=torch.float64)
    finally:
        torch.set_default_dtype(outer)


def _plain_tensors(module: nn.Module) -> dict[str, Tensor]:
    """In float64, the tensors of a module that are neither parameters nor buffers."""
    plain = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
    return {name: v.to(torch.float64) for name, v in plain.items() if v.is_floating_point()}
