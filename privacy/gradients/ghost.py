"""The ghost route: one pass over the whole lot, which never holds a gradient by row.

The program runs once on all rows; a tape keeps what its layers saw and what came back, from which
follow every row's norm, and then the clipped sum (`privacy.gradients.parts`). A small parameter
that is used outside layers is handed to the program once a row, as a leaf with the rows first; that
works where it is broadcast against rows.

None of this is true of every program. A lot couples its rows where the program takes a mean over
them; time or enumerated values may stand before the rows; a regulariser belongs to no row. So the
route is tried out before it is used: on two and on three made-up rows, to find where the rows are
in every call and draw, and then against plain autograd on single rows with the same noise, at the
parameters as they are and at others nearby. What differs is not taken. In use, a program that makes
other calls than it did then is refused.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from pgm.batch import Batch, rows_of, take
from privacy.draws import LotDraws, Tables
from privacy.gradients.layers import COVERED
from privacy.gradients.parts import Part, Whole, join
from privacy.gradients.routes import Loss, Parameters
from privacy.gradients.rows import (
    ClippedSum,
    Layers,
    RowGradients,
    norms_over,
    weights,
    whole_rows,
)
from privacy.gradients.tape import Call, Changed, Loose, NotCovered, Tape, axes_of, parts_of
from privacy.gradients.trial import Differs, compare, nearby
from privacy.layout import SIZES, Axis, find_axis

_MOST_RAW = 2**14
"""Numbers in the parameters that are handed to the program once a row."""


@dataclass(frozen=True)
class Plan:
    """How a program is run on a lot.

    Attributes:
        calls: operation and parameters of every covered call, in order.
        axes: where the rows are in each.
        draws: where they are in every random draw.
        raw: parameters that are handed to the program once a row, and their shapes for that.
    """

    calls: tuple[Any, ...] = ()
    axes: tuple[Axis, ...] = ()
    draws: tuple[Axis, ...] = ()
    raw: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Ghost:
    """Clipped sums by the ghost route, for a program that it was tried out on.

    Attributes:
        loss: the losses by row.
        parameters: those whose gradients are clipped.
        plan: what was found out about the program.
    """

    loss: Loss
    parameters: Parameters
    plan: Plan

    def clipped(self, batch: Batch, clip: float | Layers, tables: Tables) -> ClippedSum:
        """The clipped sum over the rows of `batch`.

        Raises:
            NotCovered: the program did something else than when it was tried out.
        """
        parts, losses = self.parts(batch, tables)
        norms = {name: part.norms() for name, part in parts.items()}
        finite = torch.stack(list(norms.values())).isfinite().all(0)
        if not bool(finite.all()):
            parts = {name: part.kept(finite) for name, part in parts.items()}
            norms = {name: torch.where(finite, x, torch.zeros_like(x)) for name, x in norms.items()}
        c = weights(norms, clip)
        sums = {name: parts.pop(name).weighted(c[name]) for name in self._order(parts)}  # none kept
        return ClippedSum(sums, norms_over(norms), losses, finite)

    def _order(self, parts: dict[str, Part]) -> list[str]:
        """The smallest sums first; of equal ones the last, as the rows of first layers stay."""
        last_first = list(parts)[::-1]
        return sorted(last_first, key=lambda name: self.parameters[name].numel())

    def by_row(self, batch: Batch, tables: Tables) -> RowGradients:
        """The gradients by row themselves, as large as they are."""
        parts, losses = self.parts(batch, tables)
        return whole_rows({name: part.by_row() for name, part in parts.items()}, losses)

    def parts(self, batch: Batch, tables: Tables) -> tuple[dict[str, Part], Tensor]:
        """What each parameter gets from each row, and the losses."""
        n, plan = rows_of(batch), self.plan
        leaves = {name: _by_row(self.parameters[name], n, shape) for name, shape in plan.raw}
        draws = LotDraws(n, tables, self._axis_of_draw)
        tape, losses = _run(self.loss, self.parameters, batch, draws, leaves)
        if tuple(call.what for call in tape.calls) != plan.calls or draws.calls != len(plan.draws):
            raise Changed
        given = tape.backward(losses, leaves, self.parameters)
        found: dict[str, list[Part]] = {name: [] for name in self.parameters}
        for name, part in parts_of(tape.calls, plan.axes, n):
            found[name].append(part)
        for name, g in given.items():
            found[name].append(Whole(g.reshape(n, *self.parameters[name].shape)))
        tape.clear()
        return {k: self._joined(k, parts, n) for k, parts in found.items()}, losses.detach()

    def _joined(self, name: str, parts: list[Part], n: int) -> Part:
        p = self.parameters[name]
        return join(parts) if parts else Whole(p.new_zeros(n, *p.shape))

    def _axis_of_draw(self, number: int, shape: tuple[int, ...]) -> Axis:
        if number >= len(self.plan.draws):
            raise Changed
        return self.plan.draws[number]


def try_out(loss: Loss, parameters: Parameters, made_up: Batch) -> Ghost:
    """The route for a program, if it can be taken.

    Args:
        loss: the losses by row.
        parameters: those whose gradients are clipped.
        made_up: three rows.

    Raises:
        NotCovered: it cannot, and why.
    """
    loose = _loose(loss, parameters, made_up)
    if sum(parameters[name].numel() for name in loose) > _MOST_RAW:
        raise Loose(loose)
    shapes = [[(name, shape) for shape in _broadcast(parameters[name])] for name in loose]
    why: Exception = NotCovered("")
    for copies_outside, raw in itertools.product([True, False], itertools.product(*shapes)):
        try:
            plan = _plan(loss, parameters, made_up, raw, copies_outside=copies_outside)
            ghost = Ghost(loss, parameters, plan)
            compare(ghost, made_up)
            with nearby(parameters):
                compare(ghost, made_up)
            return ghost
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            why = error if copies_outside and not isinstance(why, Differs) else why
    raise NotCovered(str(Loose(loose)) if loose else str(why)) from why


def _loose(loss: Loss, parameters: Parameters, rows: Batch) -> tuple[str, ...]:
    """The parameters that are used by something else than covered layers."""
    tape, losses = _run(loss, parameters, rows, LotDraws(rows_of(rows), {}), {})
    try:
        tape.backward(losses, {}, parameters)
    except Loose as error:
        return error.names
    return ()


def _broadcast(p: Tensor) -> list[tuple[int, ...]]:
    """Shapes of one row's copy: as it is; a number also as a row of one number."""
    return [(), (1,)] if p.dim() == 0 else [tuple(p.shape)]


def _by_row(p: Tensor, n: int, shape: tuple[int, ...]) -> Tensor:
    return p.detach().reshape(shape).expand(n, *shape).clone().requires_grad_()


def _plan(
    loss: Loss, parameters: Parameters, made_up: Batch, raw: Any, *, copies_outside: bool
) -> Plan:
    calls: list[list[Call]] = []
    shapes: list[list[tuple[int, ...]]] = []
    for n in SIZES:
        draws = LotDraws(n, {})
        leaves = {name: _by_row(parameters[name], n, shape) for name, shape in raw}
        tape, _ = _run(loss, parameters, take(made_up, slice(n)), draws, leaves)
        calls.append(tape.calls)
        shapes.append(draws.shapes)
    if len(shapes[0]) != len(shapes[1]):
        raise NotCovered("the program makes other draws for other numbers of rows")
    found = [find_axis(*pair, copies_outside=copies_outside) for pair in zip(*shapes, strict=True)]
    if any(axis is None for axis in found):
        raise NotCovered("the program makes a draw that all rows share")
    axes = axes_of(*calls, copies_outside=copies_outside)
    draws_axes = tuple(axis for axis in found if axis is not None)
    return Plan(tuple(c.what for c in calls[1]), tuple(axes), draws_axes, tuple(raw))


def _run(
    loss: Loss,
    parameters: Parameters,
    batch: Batch,
    draws: LotDraws,
    leaves: dict[str, Tensor],
) -> tuple[Tape, Tensor]:
    tape = Tape(parameters, loss.model.buffers(), COVERED)
    given = {f"model.{name}": leaf for name, leaf in leaves.items()}
    with torch.enable_grad(), draws, tape:
        losses: Tensor = functional_call(loss, given, (batch,)) if given else loss(batch)
    if losses.shape != (rows_of(batch),):
        raise NotCovered(f"the loss has shape {tuple(losses.shape)}, not one number a row")
    if not losses.requires_grad:
        raise NotCovered("the loss reaches no parameter")
    return tape, losses
