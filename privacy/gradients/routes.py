"""Gradients by row of any program: all rows at once by vmap, or one after the other.

`vmapped` is vmap of grad over a batch of one row (Bradbury et al. 2018's composition of
transformations, in `torch.func`); `looped` is plain autograd on one row after the other, and the
reference. Both give a row the same noise (`privacy.draws`).
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from pgm.batch import Batch, rows_of, take
from pgm.model import Model
from privacy.draws import RowDraws, Tables
from privacy.gradients.rows import RowGradients, whole_rows

Parameters = Mapping[str, nn.Parameter]


class Loss(nn.Module):
    """The losses of a batch's rows as a module, so that `functional_call` can set the parameters.

    Args:
        model: the model.
        of: the losses by row.
    """

    def __init__(self, model: Model, of: Callable[[Model, Batch], Tensor]) -> None:
        super().__init__()
        self.model, self.of = model, of

    def forward(self, batch: Batch) -> Tensor:
        """Shape (n,)."""
        return self.of(self.model, batch)


@contextmanager
def as_computed() -> Iterator[None]:
    """Without the distributions' own checks, which cannot run on batched tensors."""
    with pyro.validation_enabled(False), warnings.catch_warnings():
        # An operation without a batching rule is taken row by row: slower, and as right.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


def vmapped(loss: Loss, parameters: Parameters, batch: Batch, tables: Tables) -> RowGradients:
    """All rows at once."""
    gradients, losses = at_once(loss, parameters, batch, tables)
    return whole_rows(gradients, losses)


def at_once(
    loss: Loss, parameters: Mapping[str, Tensor], batch: Batch, tables: Tables
) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients and losses of all rows, as they come out: not finite where they are not."""
    n = rows_of(batch)
    own = {f"model.{name}": p.detach() for name, p in parameters.items()}

    def of_row(own: dict[str, Tensor], row: dict[str, Tensor], index: Tensor) -> Tensor:
        one = Batch({name: value.unsqueeze(0) for name, value in row.items()})
        with RowDraws(n, index, tables):
            found: Tensor = functional_call(loss, own, (one,))
            return found.sum()

    index = torch.arange(n, device=loss.model.device)[:, None]
    gradients, losses = vmap(grad_and_value(of_row), (None, 0, 0))(own, dict(batch), index)
    named = {name.removeprefix("model."): g for name, g in gradients.items()}
    return named, losses.detach()


def looped(loss: Loss, parameters: Parameters, batch: Batch, tables: Tables) -> RowGradients:
    """One row after the other."""
    n, losses = rows_of(batch), []
    gradients: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for i in range(n):
        index = torch.tensor([i], device=loss.model.device)
        with torch.enable_grad(), RowDraws(n, index, tables):
            value = loss(take(batch, slice(i, i + 1))).sum()
        for name, g in _gradient(value, parameters).items():
            gradients[name].append(g)
        losses.append(value.detach())
    return whole_rows({k: torch.stack(g) for k, g in gradients.items()}, torch.stack(losses))


def _gradient(loss: Tensor, parameters: Parameters) -> dict[str, Tensor]:
    """By plain autograd; zeros for a parameter that the loss does not reach."""
    if not loss.requires_grad:
        return {name: torch.zeros_like(p) for name, p in parameters.items()}
    found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return {name: g.detach() for name, g in zip(parameters, found, strict=True)}
