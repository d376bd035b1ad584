"""The self-check before a private fit, on made-up rows: can every row be bounded, and all of it?

Clipping protects a row only if its gradient holds all that the update will know of it. So nothing
may be learned past the gradient (buffers, data kept in the model), no parameter may be moved by
noise alone, and the fast route must agree with plain autograd on single rows. The rows for this
are drawn from the untrained model, so that the outcome says nothing about the data; only their
shapes are taken from them. Two looks at the data themselves release nothing but a possible error,
for the eyes of whoever holds the data: whether they fit the model's programs and supports, and
whether the model already holds them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

import pgm
from pgm.batch import SEEN, Batch, chunks, rows_of
from pgm.check import BrokenModel
from pgm.model import Model, arguments
from pgm.objectives import Objective
from pgm.objectives import objective as default_objective
from pgm.randomness import seeded
from pgm.sites import Run
from pgm.verb import prepare
from privacy.gradients import PerRow, Route, RowGradients

_TOLERANCE = 1e-4
"""Largest relative difference of the two routes, in float32."""


@dataclass(frozen=True)
class SelfCheck:
    """What `check` found.

    Attributes:
        model: the name of the model's class.
        route: the route that per-row gradients will take.
        reason: why it is not vmap; empty if it is.
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
    objective: Objective = default_objective,
    route: Route = "auto",
) -> SelfCheck:
    """Looks for whatever would make a private fit of `model` wrong.

    Args:
        model: the model, untrained; it is not changed.
        data: the rows it is to be fitted to, in any form.
        rows: the declared number of rows; by default as many as came.
        objective: the loss by row.
        route: of the per-row gradients.

    Returns:
        The report; `privacy.fit` calls it and raises `BrokenModel` if there are problems.

    Raises:
        BrokenModel: the model breaks the contract of `pgm.check`.
        ValueError: a row is outside the support of its site.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> print(check(PPCA(3, 1), torch.zeros(8, 3)))
        PPCA: per-row gradients by vmap
          can be fitted privately
    """
    batch = prepare(model, data)
    size = rows or rows_of(batch)
    by_row = PerRow(model, size=size, objective=objective, route=route)
    with _as_it_was(model), seeded(0):
        pgm.check(model, batch).raise_if_broken()
        model.train()
        _check_support(model, batch, objective, size)
        made_up = synthetic_rows(model, batch, 3)
        problems = [
            *_held(model, batch),
            *_unreached(model, made_up, objective, size),
            *_changed_buffers(model, made_up, by_row),
            *_wrong_gradients(model, made_up, by_row),
        ]
    return SelfCheck(type(model).__name__, by_row.route, by_row.reason, tuple(problems))


@contextmanager
def _as_it_was(model: Model) -> Iterator[None]:
    """Puts modes and buffers back, whatever the block does to them."""
    modules = list(model.modules())
    training = [module.training for module in modules]
    buffers = [
        (m, k, b, b.clone()) for m in modules for k, b in m._buffers.items() if b is not None
    ]
    try:
        yield
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.training = mode
        for module, name, buffer, value in buffers:
            module._buffers[name] = buffer
            with torch.no_grad():
                buffer.copy_(value)


def synthetic_rows(model: Model, like: Batch, n: int) -> Batch:
    """Rows drawn from the model, of the sites, shapes and dtypes of `like` and nothing else of it.

    What the model does not draw (context, or sites of a program that cannot be run forwards) is
    between 0 and 1, so that it may be a scale or a probability, or zero (false) for others. Where
    `like` has missing cells, a third of the cells of every row but the first are missing.
    """
    made_up = {name: _noise(name, value, n) for name, value in like.items()}
    with torch.no_grad():
        try:
            with Run() as joint:
                model.model(n, **arguments(model, "model", made_up))
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            joint = Run()
    for name, site in joint.sites.items():
        if name in like and site.value.shape == made_up[name].shape:
            made_up[name] = site.value.to(like[name].dtype)
    for name in [name for name in like if name.endswith(SEEN)]:
        made_up[name][0] = True
        x = name.removesuffix(SEEN)
        seen = made_up[name].reshape(
            made_up[name].shape + (1,) * (like[x].dim() - like[name].dim())
        )
        made_up[x] = torch.where(seen, made_up[x], torch.zeros_like(made_up[x]))
    return Batch(made_up)


def _noise(name: str, like: Tensor, n: int) -> Tensor:
    shape = (n, *like.shape[1:])
    if like.dtype == torch.bool and name.endswith(SEEN):
        return torch.rand(shape, device=like.device) < 2 / 3
    if like.is_floating_point():
        return torch.rand(shape, dtype=like.dtype, device=like.device)
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


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


def _changed_buffers(model: Model, made_up: Batch, by_row: PerRow) -> Iterator[str]:
    before = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    by_row.objective(model, made_up, size=by_row.size)
    for name, buffer in model.named_buffers():
        same, value = before[name]
        if buffer is not same or not torch.equal(buffer.nan_to_num(), value.nan_to_num()):
            yield (
                f"Buffer {name!r} changes while the loss is computed, so that it would hold what "
                "the rows leave in it, without clipping or noise. Compute from parameters and the "
                "row alone, or hold what is learned in an nn.Parameter."
            )


def _wrong_gradients(model: Model, made_up: Batch, by_row: PerRow) -> Iterator[str]:
    loop = PerRow(model, size=by_row.size, objective=by_row.objective, route="loop")
    with seeded(1):
        found = by_row(made_up)
    with seeded(1):
        reference = loop(made_up)
    if not bool(reference.finite.all()):
        yield (
            "The gradient of a row drawn from the model itself is not finite, and such rows count "
            "as zero: nothing would be learned from them. Bound scales away from zero, or "
            "standardise with constants known beforehand."
        )
    if by_row.route == "vmap" and (off := _difference(found, reference)) > _TOLERANCE:
        yield (
            f"All rows at once and one row after the other differ by {off:.1e} in relative terms: "
            "the program keeps something from row to row, or computes from a copy of its "
            "parameters. Make the loss of a row a function of that row and the parameters."
        )


def _difference(found: RowGradients, reference: RowGradients) -> float:
    """||a - b|| / ||b|| over all parameters and rows."""
    pairs = [(found.gradients[name], g) for name, g in reference.gradients.items()]
    off = sum(float((a - b).square().sum()) for a, b in pairs)
    scale = sum(float(b.square().sum()) for _, b in pairs)
    return (off / scale) ** 0.5 if scale else off**0.5


def _held(model: Model, batch: Batch) -> Iterator[str]:
    """Buffers and parameters in which at least half of the rows are rows of the data."""
    for name, kept in [*model.named_buffers(), *model.named_parameters()]:
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
