"""Opacus' layer hooks, on request only: gradients by row as its `GradSampleModule` computes them.

The hooks take the first dimension of what a layer sees for the rows. On Pyro's idioms that is wrong
without notice: time or enumerated values come first, a plate with `subsample=` scales by the lot, a
parameter is used outside of layers. So they are never chosen, and where they are asked for they are
first tried out against single rows, and refused with the reason.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pgm.batch import Batch, rows_of, take
from privacy.draws import LotDraws, Tables
from privacy.gradients.routes import Loss, Parameters
from privacy.gradients.rows import RowGradients, whole_rows
from privacy.gradients.tape import NotCovered
from privacy.gradients.trial import compare, nearby
from privacy.layout import SIZES, Axis, find_axis


@dataclass(frozen=True)
class Hooks:
    """Gradients by row by Opacus' hooks, for a program that they were tried out on.

    Attributes:
        loss: the losses by row.
        parameters: those whose gradients are clipped.
        draws: where the rows are in every random draw.
    """

    loss: Loss
    parameters: Parameters
    draws: tuple[Axis, ...]

    def by_row(self, batch: Batch, tables: Tables) -> RowGradients:
        """The gradients by row.

        Raises:
            NotCovered: the hooks give no gradient for a parameter, or one of other rows.
        """
        n = rows_of(batch)
        with _hooked(self.loss) as module, torch.enable_grad():
            with LotDraws(n, tables, self._axis):
                losses: Tensor = module(batch)
            if losses.shape != (n,):
                raise NotCovered(f"the loss has shape {tuple(losses.shape)}, not one number a row")
            wanted = list(self.parameters.values())
            torch.autograd.grad(losses.sum(), wanted, allow_unused=True)
            found = {name: self._of(name, p, n) for name, p in self.parameters.items()}
        return whole_rows(found, losses.detach())

    def _of(self, name: str, p: Any, n: int) -> Tensor:
        g = p.grad_sample
        if g is None:
            raise NotCovered(
                f"Opacus' hooks see no gradient of {name!r}, which is used outside of its layers"
            )
        if isinstance(g, list) or g.shape != (n, *p.shape):
            seen = len(g) if isinstance(g, list) else g.shape[0]
            raise NotCovered(
                f"Opacus' hooks found {seen} gradients of {name!r} for {n} rows: something else "
                "than the rows stands in the first dimension of what the layer sees"
            )
        found: Tensor = g.detach()
        return found

    def _axis(self, number: int, shape: tuple[int, ...]) -> Axis:
        if number >= len(self.draws):
            raise NotCovered("the program made more draws than when it was tried out")
        return self.draws[number]


def try_hooks(loss: Loss, parameters: Parameters, made_up: Batch) -> Hooks:
    """The route for a program, if it is right for it.

    Args:
        loss: the losses by row.
        parameters: those whose gradients are clipped.
        made_up: three rows.

    Raises:
        NotCovered: it is not, and why.
    """
    shapes = []
    for n in SIZES:
        with torch.no_grad(), LotDraws(n, {}) as draws:
            loss(take(made_up, slice(n)))
        shapes.append(draws.shapes)
    axes = [find_axis(*pair) for pair in zip(*shapes, strict=True)]
    if any(axis is None for axis in axes):
        raise NotCovered("the program makes a draw that all rows share")
    hooks = Hooks(loss, parameters, tuple(axis for axis in axes if axis is not None))
    compare(hooks, made_up)
    with nearby(parameters):
        compare(hooks, made_up)
    return hooks


@contextmanager
def _hooked(loss: Loss) -> Iterator[Any]:
    """The loss under Opacus' hooks, which are taken off again."""
    from opacus.grad_sample import GradSampleModule

    before = {part: set(vars(part)) for part in loss.modules()}
    try:
        module = GradSampleModule(loss, batch_first=True, loss_reduction="sum")
    except NotImplementedError as error:
        first = str(error).strip("[]").splitlines()[0][:200]
        raise NotCovered(f"Opacus' hooks do not take its layers ({first})") from error
    try:
        with warnings.catch_warnings():  # no input of a first layer has a gradient: as it should be
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            yield module
    finally:
        module.to_standard_module()
        for part, known in before.items():  # what the layers saw is kept nowhere
            for name in vars(part).keys() - known:
                delattr(part, name)
