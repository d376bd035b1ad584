"""The record of a clipped sum, for any number of rows up to the places of a frame.

A record (`pgm.tracing`) has a fixed number of rows, and Poisson lots vary. So a lot stands in the
first places of a frame of fixed size, and a mask m_i says which places are taken:

    sum_i m_i g_i min(1, C / (||g_i|| + 1e-6)),    0 for a g_i that is not finite or not there.

The rest of a frame is zeros: nothing of the data, whatever a record would do with it.

A record is made, and checked when it is made and at its calls 1, 2, 4, 8, ..., on made-up rows
alone, so that what is said of it says nothing of the data. It must give what the route gives
without a record and without a frame, under the same random numbers; one more row, lawful or not,
may move its sum by C at most; and what stands in an empty place may not change it at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Size, Tensor

from pgm.batch import Batch, rows_of, take
from pgm.model import Model
from pgm.randomness import seeded
from pgm.tracing import Backend, Trace, Untraceable, trace
from pgm.tracing.backends import holding, leaf
from privacy.draws import Tables
from privacy.gradients.parts import Part, Whole
from privacy.gradients.per_row import PerRow
from privacy.gradients.routes import at_once
from privacy.gradients.rows import ClippedSum, Layers, norms_over, weights
from privacy.synthetic import synthetic_rows

_SEED = 3
_TOLERANCE = 1e-3
"""Largest difference between a record and its route, relative, in float32."""


class Frame:
    """The record of a clipped sum, for lots of at most `size` rows.

    Args:
        rows: whose model, route and objective are recorded.
        backend: what replays the record.
        batch: rows, of which the shapes and dtypes alone are looked at.
        clip: C, which may be another one at each call; or norms by layer, which may not.
        size: of the frame.

    Raises:
        Untraceable: there is no record that can be trusted.
    """

    def __init__(
        self, rows: PerRow, backend: Backend, batch: Batch, clip: float | Layers, size: int
    ) -> None:
        self.rows, self.backend, self.steps = rows, backend, 0
        self.keys, self.size = list(batch), size
        self.layers = clip if isinstance(clip, Layers) else None
        with seeded(_SEED):
            self.made_up = synthetic_rows(rows.model, batch, size)
            norms = rows.clipped(self.made_up, 1.0, tables={}).norms
        if rows.route not in ("ghost", "vmap"):
            raise Untraceable(f"route {rows.route!r} has no record")
        if not bool(norms.any()):
            raise Untraceable("no made-up row has a finite gradient by which to check a record")
        self.bound = 0.5 * float(norms[norms > 0].median())
        self.trace = self._record()
        self._check_places()
        self._check_bound()

    def __call__(self, batch: Batch, clip: float | Layers) -> ClippedSum:
        """The clipped sum over at most `size` rows."""
        n = rows_of(batch)
        frame = Batch({key: _padded(batch[key], self.size) for key in self.keys})
        return self._replay(frame, _first(self.made_up, n), clip, n)

    def verify(self) -> None:
        """Holds the record against the route as it is now, at the 1st, 2nd, 4th, ... call.

        Raises:
            Untraceable: they differ: the program changed after it was recorded.
        """
        self.steps += 1
        if self.steps & (self.steps - 1):
            return
        for n in {self.size, 1 + self.size // 2}:
            frame = _spoilt(self.made_up, n)
            expected, found = (
                self._plain(frame, n),
                self._on_made_up(frame, _first(self.made_up, n), n),
            )
            off = _difference(found, expected)
            if not off <= _tolerance(found.norms) or not torch.equal(found.finite, expected.finite):
                raise Untraceable(
                    f"at call {self.steps} the record's clipped sum of made-up rows is off by "
                    f"{off:.2g} in relative terms. What was released so far is private, but if it "
                    "was right before, something outside the model changed it since"
                )

    @property
    def _clip(self) -> float | Layers:
        """By which made-up rows are clipped."""
        return self.bound if self.layers is None else self.layers

    def _replay(self, frame: Batch, taken: Tensor, clip: float | Layers, n: int) -> ClippedSum:
        with torch.no_grad():
            *sums, norms, finite, losses = self.trace(*self._inputs(frame, taken, clip))
        # In a record, sums that are equal may be one tensor, and a constant one the record's own.
        gradients = {k: x.clone() for k, x in zip(self.rows.parameters, sums, strict=True)}
        return ClippedSum(gradients, norms[:n], losses[:n], finite[:n])

    def _plain(self, frame: Batch, n: int) -> ClippedSum:
        """By the route itself on n rows: no record, no mask, the draws of the frame."""
        tables: Tables = {}
        with seeded(_SEED):
            self.rows.clipped(frame, self._clip, tables=tables)
        few = _first_rows(tables, n)
        return self.rows.clipped(take(frame, slice(n)), self._clip, tables=few)

    def _on_made_up(self, frame: Batch, taken: Tensor, n: int) -> ClippedSum:
        with seeded(_SEED):
            return self._replay(frame, taken, self._clip, n)

    def _inputs(self, frame: Batch, taken: Tensor, clip: float | Layers) -> list[Tensor]:
        """Everything that the record reads."""
        bound = torch.tensor(0.0 if isinstance(clip, Layers) else clip, dtype=torch.float64)
        data = [frame[key].contiguous() for key in self.keys]
        return [*_named(self.rows.model).values(), bound.to(taken.device), taken, *data]

    def _record(self) -> Trace:
        inputs = self._inputs(self.made_up, _first(self.made_up, self.size), self._clip)
        turned = Batch({key: x.flip(0) for key, x in self.made_up.items()})
        other = self._inputs(turned, _first(self.made_up, 1 + self.size // 2), self._clip)
        for place, (name, p) in enumerate(_named(self.rows.model).items()):
            if name in self.rows.parameters:
                other[place] = p.detach() * 1.001 + 1e-4
        copies = [x.detach().clone() for x in inputs]
        versions = [x._version for x in copies]
        with seeded(_SEED):
            self._program(*copies)
        if versions != [x._version for x in copies]:
            raise Untraceable("a loss changes the tensors that it is computed from")
        return trace(self._program, inputs, other, backend=self.backend)

    def _program(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """What is recorded."""
        given = iter(tensors)
        held = {name: next(given) for name in _named(self.rows.model)}
        bound, taken = next(given), next(given)
        frame = Batch(zip(self.keys, given, strict=True))
        parts, losses = _parts(self.rows, held, frame)
        clip = bound.to(losses.dtype) if self.layers is None else self.layers
        with torch.no_grad():
            return (*_summed(parts, clip, taken), losses.detach())

    def _check_places(self) -> None:
        """What stands in an empty place has no effect."""
        n = 1 + self.size // 2
        expected = self._on_made_up(self.made_up, _first(self.made_up, n), n)
        for value in (0.0, torch.inf, torch.nan):
            frame = _filled(self.made_up, list(range(n, self.size)), value)
            found = self._on_made_up(frame, _first(self.made_up, n), n)
            for name, g in expected.gradients.items():
                if not torch.equal(g, found.gradients[name]):
                    raise Untraceable(f"a place without a row enters the sum of {name!r}")

    def _check_bound(self) -> None:
        """One row more moves the sum by C at most, whatever the row is."""
        n = self.size // 2
        largest = self.bound if self.layers is None else self.layers.sensitivity
        here = self._on_made_up(self.made_up, _first(self.made_up, n), n)
        for frame in _one_more(self.made_up, n):
            there = self._on_made_up(frame, _first(self.made_up, n + 1), n + 1)
            moved = float(norms_over(_differences(there, here)))
            if not moved <= largest * (1 + _TOLERANCE):
                raise Untraceable(f"one row moves its sum by {moved:.3g}, and C is {largest:.3g}")


def _parts(rows: PerRow, held: dict[str, Tensor], frame: Batch) -> tuple[dict[str, Part], Tensor]:
    """What each parameter gets from each place, by the route in use; and the losses."""
    inside = held | {name: leaf(held[name]) for name in rows.parameters}
    own: Any = {name: inside[name] for name in rows.parameters}
    with holding(rows.model, inside):
        if rows._ghost is not None:
            return replace(rows._ghost, parameters=own).parts(frame, {})
        gradients, losses = at_once(rows._loss, own, frame, {})
    return {name: Whole(g) for name, g in gradients.items()}, losses


def _summed(parts: dict[str, Part], clip: Tensor | Layers, taken: Tensor) -> tuple[Tensor, ...]:
    """The clipped sums over the places that are taken, the norms, and which are finite."""
    norms = {name: part.norms() for name, part in parts.items()}
    kept = torch.stack(list(norms.values())).isfinite().all(0) & taken
    norms = {name: torch.where(kept, x, torch.zeros_like(x)) for name, x in norms.items()}
    c = weights(norms, clip)
    sums = [part.kept(kept).weighted(c[name]) for name, part in parts.items()]
    return (*sums, norms_over(norms), kept)


class Shared:
    """The record of the public gradients.

    Args:
        rows: whose model and objective are recorded.
        backend: what replays the record.
        n: the number of made-up rows they are computed on.

    Raises:
        Untraceable: there is no record that can be trusted.
    """

    def __init__(self, rows: PerRow, backend: Backend, n: int) -> None:
        self.rows, self.n = rows, n
        with seeded(_SEED):
            self.names = list(rows._split.gradients(n))
        inputs = list(_named(rows.model).values())
        other = [x.detach() * 1.001 if x.is_floating_point() else x for x in inputs]
        self.trace = trace(self._program, inputs, other, backend=backend)

    def __call__(self) -> dict[str, Tensor]:
        """Parameter -> its gradient."""
        with torch.no_grad():
            found = self.trace(*_named(self.rows.model).values())
        return dict(zip(self.names, found, strict=True))

    def _program(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        held = dict(zip(_named(self.rows.model), tensors, strict=True))
        inside = {k: leaf(x) if k in self.names else x for k, x in held.items()}
        with holding(self.rows.model, inside):
            found = self.rows._split.gradients(self.n)
        if list(found) != self.names:
            raise Untraceable("public terms reach other parameters when they are computed again")
        return tuple(found.values())


def _named(model: Model) -> dict[str, Tensor]:
    """Parameters and buffers as they are now."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _first(frame: Batch, n: int) -> Tensor:
    """The mask of the first n places."""
    return torch.arange(rows_of(frame), device=next(iter(frame.values())).device) < n


def _padded(x: Tensor, size: int) -> Tensor:
    """Zeros after the rows, up to so many."""
    return torch.cat([x, x.new_zeros(size - len(x), *x.shape[1:])]) if len(x) < size else x


def _first_rows(tables: Tables, n: int) -> Tables:
    """The noise of the first n rows."""
    few = {}
    for (call, kind, shape, *rest), table in tables.items():
        few[(call, kind, Size((n, *shape[1:])), *rest)] = table[:n]
    return few


def _spoilt(made_up: Batch, n: int) -> Batch:
    """The made-up rows, one of which holds NaN where it is taken and one where it is not."""
    spoilt = [i for i in (n // 2, n) if 1 < i < rows_of(made_up)]
    return _filled(made_up, spoilt, torch.nan)


def _filled(frame: Batch, places: Sequence[int], value: float) -> Batch:
    """The rows, of which some hold one number everywhere; whole numbers stay."""
    filled = Batch({key: x.clone() for key, x in frame.items()})
    for x in filled.values():
        if x.is_floating_point():
            x[list(places)] = value
    return filled


def _one_more(frame: Batch, place: int) -> Iterator[Batch]:
    """The rows with another one at a place: its own, the first again or negated, and worse."""
    yield frame
    first = take(frame, slice(0, 1))
    for sign in (1, -1):
        changed = Batch({key: x.clone() for key, x in frame.items()})
        for key, x in changed.items():
            x[place] = first[key][0] if sign == 1 or not x.is_floating_point() else -first[key][0]
        yield changed
    for value in (0.0, 1e6, torch.nan, torch.inf):
        yield _filled(frame, [place], value)


def _differences(a: ClippedSum, b: ClippedSum) -> dict[str, Tensor]:
    """The norm of the difference by parameter, shape (1,)."""
    pairs = ((name, g, b.gradients[name]) for name, g in a.gradients.items())
    return {name: (g - other).double().norm().reshape(1) for name, g, other in pairs}


def _difference(found: ClippedSum, expected: ClippedSum) -> float:
    """Of two sums, relative to the second."""
    zero = {name: torch.zeros_like(g) for name, g in expected.gradients.items()}
    size = norms_over(_differences(expected, replace(expected, gradients=zero)))
    return float(norms_over(_differences(found, expected)) / size.clamp(min=1e-30))


def _tolerance(x: Tensor) -> float:
    """Less in double precision."""
    fine = torch.finfo(x.dtype).eps / torch.finfo(torch.float32).eps
    return float(_TOLERANCE * fine**0.5)
