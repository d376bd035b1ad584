"""The self-check before a private fit, on made-up rows: can every row be bounded, and all of it?

Clipping protects a row only if its gradient holds all that the update will know of it. So nothing
may be learned past the gradient (buffers, data kept in the model), no parameter may be moved by
noise alone, and the fast route must agree with plain autograd on single rows. The rows for this
are drawn from the untrained model, so that the outcome says nothing about the data; only their
shapes are taken from them. Two looks at the data themselves release nothing but a possible error,
for the eyes of whoever holds the data: whether they fit the model's programs and supports, and
whether the model already holds them.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Size, Tensor, nn

import pgm
from pgm.batch import SEEN, Batch, chunks, rows_of, take
from pgm.check import BrokenModel
from pgm.model import Model
from pgm.objectives import Objective
from pgm.objectives import objective as default_objective
from pgm.randomness import seeded
from pgm.verb import prepare
from privacy.draws import LotDraws, Tables
from privacy.gradients import PerRow, Route
from privacy.gradients.per_row import Terms
from privacy.gradients.routes import as_computed
from privacy.kept import as_it_was, plain_tensors, tensors
from privacy.layout import SIZES, Axis, find_axis
from privacy.options import loss_and_terms
from privacy.run import make_parameters
from privacy.synthetic import synthetic_rows
from privacy.watch import HARM, REMEDY, left_by_rows

_TOLERANCE = 1e-4
"""Largest relative difference of the two routes, in float32."""
_UNCLIPPED = 1e12
_LARGE = 300
"""Rows of a lot in which a program that is run once for all of them is looked at too."""


@dataclass(frozen=True)
class SelfCheck:
    """What `check` found.

    Attributes:
        model: the name of the model's class.
        route: the route that per-row gradients will take.
        reason: why it is not a faster one; empty if it is the fastest.
        problems: what stands in the way of a private fit, each with its remedy; empty if nothing.
    """

    model: str
    route: str
    reason: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        found = [f"  * {problem}" for problem in self.problems] or ["  can be fitted privately"]
        why = f" ({self.reason})" if self.reason else ""
        return "\n".join([f"{self.model}: per-row gradients by {self.route}{why}", *found])

    def raise_if_broken(self) -> None:
        """Stops here if there are problems.

        Raises:
            BrokenModel: with all of them listed.
        """
        if self.problems:
            listed = "\n".join(f"  * {problem}" for problem in self.problems)
            raise BrokenModel(f"{self.model} cannot be fitted privately as it stands:\n{listed}")


def check(
    model: Model,
    data: Any,
    *,
    rows: int | None = None,
    objective: Objective | str = default_objective,
    route: Route = "auto",
    terms: Terms = "split",
) -> SelfCheck:
    """Looks for whatever would make a private fit of `model` wrong.

    Args:
        model: the model, untrained; it is not changed.
        data: the rows it is to be fitted to, in any form.
        rows: the declared number of rows; by default as many as came.
        objective: the loss by row, or one of the names of `terms`.
        route: of the per-row gradients.
        terms: whether public terms are to be split off.

    Returns:
        The report; `privacy.fit` calls it and raises `BrokenModel` if there are problems.

    Raises:
        BrokenModel: the model breaks the contract of `pgm.check`.
        ValueError: a row is outside the support of its site.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> print(check(PPCA(3, 1), torch.zeros(8, 3)))
        PPCA: per-row gradients by vmap (not ghost: layers without a rule, or none, use 'mean',
        'loading', 'log_noise')
          can be fitted privately
    """
    objective, terms = loss_and_terms(objective, terms)
    batch = prepare(model, data)
    size = rows or rows_of(batch)
    make_parameters(model, batch, objective, size)
    by_row = PerRow(model, size=size, objective=objective, route=route, terms=terms)
    with as_it_was(model), seeded(0):
        pgm.check(model, batch).raise_if_broken()
    with as_it_was(model), seeded(0):
        left = [*_left_behind(model, batch, by_row)]
    if left:
        return SelfCheck(type(model).__name__, by_row.route, "not tried out", tuple(left))
    with as_it_was(model), seeded(0):
        model.train()
        _check_support(model, batch, objective, size)
        made_up = synthetic_rows(model, batch, 3)
        by_row.settle(made_up)
        problems = [
            *_held(model, batch),
            *_unreached(model, made_up, objective, size),
            *_joined(made_up, by_row),
            *_of_another_size(made_up, by_row),
            *_wrong_gradients(made_up, by_row),
            *_unbounded(made_up, by_row),
            *_joined_in_large_lots(synthetic_rows(model, batch, min(size, _LARGE)), by_row),
            *_tainted(by_row),
        ]
    return SelfCheck(type(model).__name__, by_row.route, by_row.reason, tuple(problems))


def _check_support(model: Model, batch: Batch, objective: Objective, size: int) -> None:
    """Runs the loss once over all rows with the distributions' own checks on."""
    with pyro.validation_enabled():
        for piece in chunks(batch, 1024):
            try:
                objective(model, piece, size=size)
            except ValueError as error:
                raise ValueError(
                    f"The rows do not fit {type(model).__name__}: {error} Nothing was trained and "
                    "nothing spent. Correct the rows, or choose a distribution that allows them."
                ) from error


def _unreached(model: Model, made_up: Batch, objective: Objective, size: int) -> Iterator[str]:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loss = objective(model, made_up, size=size).sum()
    reached = (
        torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        if loss.requires_grad
        else [None] * len(parameters)
    )
    for name, gradient in zip(parameters, reached, strict=True):
        if gradient is None:
            yield (
                f"Parameter {name!r} does not enter the loss: a private fit would move it by noise "
                "alone. Freeze it (requires_grad_(False)), remove it, or let a site depend on it."
            )


def _left_behind(model: Model, batch: Batch, by_row: PerRow) -> Iterator[str]:
    """What computing a loss leaves in the model, seen on made-up rows."""
    made_up = synthetic_rows(model, batch, 3)

    def losses(rows: Batch) -> Tensor:
        return by_row.objective(model, rows, size=by_row.size)

    try:
        left, _ = left_by_rows(model, losses, made_up)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
        return  # the contract's check says why
    for name in sorted(left):
        yield f"Attribute {name!r} keeps what depends on the rows. {HARM} {REMEDY}"
    before = {name: (t, t._version, t.clone()) for name, t in tensors(model)}
    losses(made_up)
    for name, tensor in tensors(model):
        same, version, value = before[name]
        written = tensor is not same or tensor._version != version  # as a step looks at it
        if written or not torch.equal(tensor.nan_to_num(), value.nan_to_num()):
            yield _changed(name, "Parameter" if isinstance(tensor, nn.Parameter) else "Buffer")


def _changed(name: str, kind: str) -> str:
    said = f"{kind} {name!r} changes while the loss is computed, so that it would hold what the "
    if kind == "Parameter":
        return said + (
            "rows leave in it, without clipping or noise (a data-dependent initialisation?). Set "
            "it beforehand, from numbers that do not come from the data."
        )
    return said + (
        "rows leave in it, without clipping or noise. Compute from parameters and the row alone, "
        "or hold what is learned in an nn.Parameter."
    )


def _joined(made_up: Batch, by_row: PerRow) -> Iterator[str]:
    """Whether the loss of a row feels its neighbour."""
    n, losses = rows_of(made_up), []
    for rows in (made_up, Batch({k: torch.cat([v[-1:], v[1:]]) for k, v in made_up.items()})):
        with seeded(1), torch.no_grad(), as_computed(), LotDraws(n, {}):
            losses.append(by_row.objective(by_row.model, rows, size=by_row.size))
    if losses[0].shape != (n,):
        yield (
            f"The objective gives shape {tuple(losses[0].shape)} for {n} rows, and must give one "
            "number a row: leave the mean or sum over rows to the fit."
        )
    elif not torch.allclose(losses[0][1:], losses[1][1:], rtol=1e-4, atol=1e-4, equal_nan=True):
        yield (
            "Changing the first row changes the loss of the others: the objective joins rows (a "
            "mean over the lot, a batch statistic). Compute each row's loss from that row alone."
        )


def _of_another_size(made_up: Batch, by_row: PerRow) -> Iterator[str]:
    """Whether a row's loss depends on how many others there are; seen where no draw is shared."""
    axes, tables = _axes_of_draws(made_up, by_row), dict[Any, Tensor]()
    if axes is None or by_row.public:
        return  # the loop leaves public terms out
    alone = _loop(by_row)(made_up, tables=tables).losses
    with torch.no_grad(), as_computed(), LotDraws(rows_of(made_up), tables, lambda k, _: axes[k]):
        together = by_row.objective(by_row.model, made_up, size=by_row.size)
    if together.shape == alone.shape and not torch.allclose(together, alone, rtol=1e-3, atol=1e-3):
        yield (
            "A row among others has another loss than alone, with the same draws: the loss depends "
            "on the size of the lot (a plate with subsample=, a division by the number of rows). "
            "Compute each row's loss from that row alone, and what is shared as one part in `size`."
        )


def _axes_of_draws(made_up: Batch, by_row: PerRow) -> tuple[Axis, ...] | None:
    """Where the rows are in each draw; None if a draw is shared, or copies rows."""
    shapes = []
    for n in SIZES:
        with seeded(1), torch.no_grad(), as_computed(), LotDraws(n, {}) as draws:
            by_row.objective(by_row.model, take(made_up, slice(n)), size=by_row.size)
        shapes.append(draws.shapes)
    if len(shapes[0]) != len(shapes[1]):
        return None
    found = [find_axis(*pair) for pair in zip(*shapes, strict=True)]
    axes = tuple(axis for axis in found if axis is not None and axis.times == 1)
    return axes if len(axes) == len(found) else None


def _loop(by_row: PerRow) -> PerRow:
    """The reference for it."""
    options: dict[str, Any] = {"size": by_row.size, "objective": by_row.objective}
    return PerRow(by_row.model, route="loop", terms=by_row.terms, **options)


def _wrong_gradients(made_up: Batch, by_row: PerRow) -> Iterator[str]:
    loop = _loop(by_row)
    tables: Tables = {}
    reference, found = loop(made_up, tables=tables), by_row(made_up, tables=tables)
    if not bool(reference.finite.all()):
        yield (
            "The gradient of a row drawn from the model itself is not finite, and such rows count "
            "as zero: nothing would be learned from them. Bound scales away from zero, or "
            "standardise with constants known beforehand."
        )
    clip = _clip(by_row, made_up)
    sums = [rows.clipped(made_up, clip, tables=tables).gradients for rows in (by_row, loop)]
    off = max(_difference(found.gradients, reference.gradients), _difference(*sums))
    if by_row.route != "loop" and off > _TOLERANCE:
        yield (
            f"All rows at once and one row after the other differ by {off:.1e} in relative terms: "
            "the program keeps something from row to row, or computes from a copy of its "
            "parameters. Make the loss of a row a function of that row and the parameters."
        )


def _unbounded(made_up: Batch, by_row: PerRow) -> Iterator[str]:
    """Whether adding one row moves the clipped sum by C at most, whatever the row is."""
    rows, clip, n = copy.copy(by_row), _clip(by_row, made_up), rows_of(made_up)
    for kind, added in _added(made_up):
        tables: Tables = {}
        more = Batch({name: torch.cat([x, added[name]]) for name, x in made_up.items()})
        try:
            there = rows.clipped(more, clip, tables=tables).gradients
            here = rows.clipped(made_up, clip, tables=_of_rows(tables, slice(n))).gradients
        except (RuntimeError, ValueError, IndexError):
            continue  # no row of this model: its support was checked
        moved = _norm({name: there[name] - g for name, g in here.items()})
        if not moved <= clip * (1 + _TOLERANCE):
            yield (
                f"Adding {kind} moves the sum of clipped gradients by {moved:.3g}, and the noise "
                f"covers {clip:.3g}: the gradient of one row depends on another. Compute each "
                "row's loss from that row alone."
            )


def _joined_in_large_lots(many: Batch, by_row: PerRow) -> Iterator[str]:
    """Whether one row more adds its own gradient to many, where a program is run once for all."""
    n, tables = rows_of(many), dict[Any, Tensor]()
    if by_row.route not in ("ghost", "hooks") or n < 2:
        return
    whole = by_row.clipped(many, _UNCLIPPED, tables=tables)
    few, one = (_of_rows(tables, rows) for rows in (slice(n - 1), slice(n - 1, n)))
    fewer = by_row.clipped(take(many, slice(n - 1)), _UNCLIPPED, tables=few).gradients
    alone = _loop(by_row).clipped(take(many, slice(n - 1, n)), _UNCLIPPED, tables=one)
    moved = {name: g - fewer[name] for name, g in whole.gradients.items()}
    off = _norm({name: moved[name] - g for name, g in alone.gradients.items()})
    if off > 1e-2 * _norm(alone.gradients) + 1e-5 * float(whole.norms.sum()):
        yield (
            f"In a lot of {n} rows, one row more changes the gradient by something else than its "
            "own: the program joins rows where there are many. Compute each row's loss from that "
            "row alone."
        )


def _of_rows(tables: Tables, rows: slice) -> Tables:
    """The noise of some of the rows."""
    parts = {key: table[rows] for key, table in tables.items()}
    return {(k[0], k[1], Size((len(t), *k[2][1:])), *k[3:]): t for k, t in parts.items()}


def _added(made_up: Batch) -> Iterator[tuple[str, Batch]]:
    """Rows to add: the first one again, and what its numbers may turn out to be."""
    first = take(made_up, slice(0, 1))
    numbers = {k: x for k, x in first.items() if x.is_floating_point()}
    yield "a row a second time", first
    yield "a row of the opposite sign", Batch(first | {k: -x for k, x in numbers.items()})
    for value in (0.0, 1e6, torch.nan, torch.inf):
        filled = {k: torch.full_like(x, value) for k, x in numbers.items()}
        yield f"a row of numbers {value:g}", Batch(first | filled)


def _clip(by_row: PerRow, made_up: Batch) -> float:
    """A norm to which some of these rows are clipped, so that a check sees clipping at work."""
    norms = by_row.clipped(made_up, 1.0).norms
    return 0.5 * float(norms.median()) or 1.0


def _tainted(by_row: PerRow) -> Iterator[str]:
    if by_row.tainted is None:
        return
    yield (
        "What stands outside `rows`, or is marked as public by the objective, is taken as public, "
        f"but {by_row.tainted} changes with the rows. Let the guide of shared sites, and whatever "
        "the objective marks as public, look at no row; or pass terms='joint', which clips it "
        "with each row's gradient."
    )


def _difference(found: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """||a - b|| / ||b|| over all parameters and rows."""
    off = _norm({name: found[name] - g for name, g in reference.items()})
    return off / (_norm(reference) or 1.0)


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return sum(float(x.double().square().sum()) for x in tensors.values()) ** 0.5


def _held(model: Model, batch: Batch) -> Iterator[str]:
    """What the model says it keeps, and tensors of which at least half the rows are data."""
    if model.keeps:
        yield (
            f"{type(model).__name__} keeps {model.keeps}: they would be released with the model, "
            "whatever noise its training adds. Use a family that keeps no data."
        )
    for name, kept in [*tensors(model), *plain_tensors(model)]:
        for site, x in batch.items():
            if site.endswith(SEEN):  # any two masks have rows in common
                continue
            if kept.dim() < 1 or kept.shape[1:] != x.shape[1:] or not len(kept):
                continue
            rows = set(_fingerprints(x))
            known = [fingerprint in rows for fingerprint in _fingerprints(kept.to(x.dtype))]
            whole = bool((kept.double() == kept.double().round()).all())
            by_chance = whole and 2 * len(kept) < len(x)
            if known and 2 * sum(known) >= len(kept) and not by_chance:
                yield (
                    f"{name!r} holds rows of {site!r}, the data themselves: they would be released "
                    "with the model, whatever noise its training adds. Start from numbers that do "
                    "not come from the data, and use a family that keeps none (a mixture for a "
                    "KDE)."
                )


def _fingerprints(x: Tensor) -> Iterator[int]:
    """Of the rows that are not all zero."""
    for row in x.detach().cpu().numpy():
        if row.any():
            yield hash(row.tobytes())
