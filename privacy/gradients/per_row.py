"""Gradients by row of any model, by the fastest route that is right for it.

For each row i, g_i is the gradient of `objective(model, row i, size=N)` at the parameters. `ghost`
runs the program once on all rows and sums clipped gradients without holding them; `vmap` computes
them all at once; `loop` takes one row after the other with plain autograd, and is the reference;
`hooks` are Opacus', on request only.
All give a row the same noise (`privacy.draws`). `auto` takes the first of them that runs, and
`ghost` only where it was seen to agree with the loop on made-up rows.

The losses have two parts. What only shared sites enter (`pgm.objectives.public`: priors and
proposals outside `rows`, a generator's draws) says nothing of any row. With `terms="split"` it is
left out of g_i and its gradient, taken on made-up rows, is neither clipped nor noised; a parameter
that nothing else reaches never meets the data. With `terms="joint"` each g_i carries 1/N of it
(Jaelkoe et al. 2017, eq. 4). The shared sites are drawn anew for every row: unbiased, the
expectation being linear, and of less variance than one draw for all.
"""

from contextlib import suppress
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pgm.batch import Batch, chunks, rows_of
from pgm.learner import trainable
from pgm.model import Model
from pgm.objectives import Objective
from pgm.objectives import objective as default_objective
from pgm.randomness import seeded
from pgm.verb import prepare
from privacy.draws import Tables
from privacy.gradients.ghost import Ghost, try_out
from privacy.gradients.hooks import Hooks, try_hooks
from privacy.gradients.public import Split
from privacy.gradients.routes import Loss, as_computed, looped, vmapped
from privacy.gradients.rows import ClippedSum, Layers, RowGradients, added, clipped, nothing
from privacy.gradients.tape import Changed, NotCovered
from privacy.layout import SIZES
from privacy.synthetic import synthetic_rows

Route = Literal["auto", "ghost", "vmap", "loop", "hooks"]
Terms = Literal["split", "joint"]
NUMBERS_AT_ONCE = 2**24
"""Gradients by row that are held at a time; larger lots are taken in pieces."""


def per_row_gradients(
    model: Model,
    batch: Any,
    *,
    size: int,
    objective: Objective = default_objective,
    route: Route = "auto",
) -> dict[str, Tensor]:
    """The gradient of each row's loss with respect to every trainable parameter.

    Args:
        model: any model; it is not changed.
        batch: rows in any form.
        size: the declared number N of rows, of which shared terms take one N-th a row.
        objective: the loss by row.
        route: `"ghost"`, `"vmap"`, `"loop"`, or `"auto"`: the first of them that runs. `"hooks"`
            are those of Opacus, refused where they are wrong.

    Returns:
        Parameter -> gradients, shape (n, *parameter). A row with a gradient that is not finite has
        zeros.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> gradients = per_row_gradients(PPCA(3, 1), torch.zeros(5, 3), size=100)
        >>> {len(g) for g in gradients.values()}
        {5}
    """
    rows = PerRow(model, size=size, objective=objective, route=route)
    return rows(prepare(model, batch)).gradients


class PerRow:
    """Computes gradients by row or their clipped sum, again and again, by one route.

    Args:
        model: any model; its parameters are read at each call.
        size: the declared number of rows.
        objective: the loss by row.
        route: see `per_row_gradients`.
        terms: whether public terms are split off, or go with the rows.
        physical: the most rows that are computed with at once; larger lots are taken in pieces,
            whose clipped sums are added up.

    Attributes:
        route: the route in use.
        reason: why it is not a faster one; empty if it is the fastest.
        public: whether there are public terms, split off.
        replayed: whether a record meets the rows, and the program itself does not.

    Raises:
        ValueError: an unknown route, a model without trainable parameters, or half precision.
    """

    def __init__(
        self,
        model: Model,
        *,
        size: int,
        objective: Objective = default_objective,
        route: Route = "auto",
        terms: Terms = "joint",
        physical: int | None = None,
    ) -> None:
        for name, value, known in (("route", route, Route), ("terms", terms, Terms)):
            if value not in get_args(known):
                listed = ", ".join(map(repr, get_args(known)))
                raise ValueError(f"There is no {name} {value!r}: use {listed}.")
        if physical is not None and physical < 1:
            raise ValueError(f"physical is {physical}; pieces of a lot have one row or more.")
        trainable(model)
        refuse_coarse(model)
        self.physical = physical
        self.model, self.size, self.objective, self.terms = model, size, objective, terms
        self.route: str = route
        self.reason, self.public, self._auto = "", False, route == "auto"
        self.replayed = False
        self._split, self._loss = Split(model, objective, size), Loss(model, self._whole)
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._ghost: Ghost | None = None
        self._hooks: Hooks | None = None
        self._settled, self._made_up = False, True

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters whose gradients the rows enter, by name."""
        own = dict(self.model.named_parameters())
        return {name: own[name] for name in self._names}

    def __call__(self, batch: Batch, *, tables: Tables | None = None) -> RowGradients:
        """The gradients of the rows of `batch`, of which there may be none.

        Args:
            batch: the rows.
            tables: the noise of the rows, by call, filled where there is none yet.
        """
        self.settle(batch)
        if rows_of(batch) == 0:
            empty = {name: p.new_zeros(0, *p.shape) for name, p in self.parameters.items()}
            return RowGradients(empty, torch.zeros(0), torch.zeros(0, dtype=torch.bool))
        tables = {} if tables is None else tables
        with as_computed():
            if self._ghost is not None:
                try:
                    return self._ghost.by_row(batch, tables)
                except Exception as error:
                    self._leave_ghost(error)
            return self._by_row(batch, tables)

    def clipped(
        self, batch: Batch, clip: float | Layers, *, tables: Tables | None = None
    ) -> ClippedSum:
        """The clipped sum of the gradients of the rows of `batch`, of which there may be none.

        Args:
            batch: the rows.
            clip: C, the norm to which the gradient of each row is clipped; or norms by layer.
            tables: the noise of the rows, by call, filled where there is none yet; the lot is not
                taken in pieces then.
        """
        self.settle(batch)
        if rows_of(batch) == 0:
            return nothing(self.parameters)
        with as_computed():
            if tables is not None:
                return self._clipped(batch, clip, tables)
            pieces = chunks(batch, self.physical) if self.physical else [batch]
            return added(self._clipped(piece, clip, None) for piece in pieces)

    def _clipped(self, batch: Batch, clip: float | Layers, tables: Tables | None) -> ClippedSum:
        if self._ghost is not None:
            try:
                return self._ghost.clipped(batch, clip, {} if tables is None else tables)
            except Exception as error:
                self._leave_ghost(error)
        if tables is not None:
            return clipped(self._by_row(batch, tables), clip)
        size = max(1, NUMBERS_AT_ONCE // sum(p.numel() for p in self.parameters.values()))
        return added(clipped(self._by_row(piece, {}), clip) for piece in chunks(batch, size))

    def public_gradients(self, n: int) -> dict[str, Tensor]:
        """The gradients of the public terms of the mean loss; none where there are none.

        They are computed on made-up rows, so that no row of the data can enter them.

        Args:
            n: the number of rows, and so of a generator's draws.
        """
        if not self.public:
            return {}
        with as_computed():
            return self._split.gradients(n)

    def settle(self, batch: Batch) -> None:
        """Finds the route and the public terms, once, on made-up rows of the shapes of `batch`."""
        if self._settled:
            return
        self._settled = True
        with as_computed(), seeded(0):
            made_up = synthetic_rows(self.model, batch, max(SIZES))
            if self.terms == "split" and self._split.found(made_up):
                self.public, self._loss.of = True, self._split.rows
                self._names = self._split.reached or self._names
            if self.route in ("auto", "ghost"):
                self._try_ghost(made_up)
            if self.route == "hooks":
                self._hooks = _try_hooks(self._loss, self.parameters, made_up)
            if self.route == "auto":
                with suppress(Exception):  # where no route runs, the rows' own error is raised
                    self._by_row(made_up, {})
        self._made_up = False

    @property
    def tainted(self) -> str | None:
        """Why public terms were not split off although there are some; None if they were."""
        return self._split.tainted

    def _try_ghost(self, made_up: Batch) -> None:
        try:
            self._ghost = try_out(self._loss, self.parameters, made_up)
            self.route = "ghost"
        except Exception as error:
            self._leave_ghost(error)

    def _leave_ghost(self, error: Exception) -> None:
        if not self._auto:
            why = str(error) if isinstance(error, NotCovered) else _first_line(error)
            raise NotCovered(f"Route 'ghost' was asked for, but {why}. Use 'auto'.") from error
        self._ghost, self.route, self.reason = (
            None,
            "auto",
            f"not ghost: {_said(error, made_up=self._made_up)}",
        )

    def _by_row(self, batch: Batch, tables: Tables) -> RowGradients:
        if self._hooks is not None:
            return self._hooks.by_row(batch, tables)
        if self.route == "loop":
            return looped(self._loss, self.parameters, batch, tables)
        try:
            found = vmapped(self._loss, self.parameters, batch, tables)
        except Exception as error:
            if not self._auto:
                raise
            why = f"not vmap: {_said(error, made_up=self._made_up)}"
            self.route, self.reason = "loop", "; ".join(filter(None, [self.reason, why]))
            return looped(self._loss, self.parameters, batch, tables)
        self.route = "vmap"
        return found

    def _whole(self, model: Model, batch: Batch) -> Tensor:
        return self.objective(model, batch, size=self.size)


def refuse_coarse(model: Model, dtype: torch.dtype | None = None) -> None:
    """Refuses parameters in other numbers than float32 and float64.

    Args:
        model: the model.
        dtype: to which it would be moved; None for none.

    Raises:
        ValueError: a trainable parameter is, or would be, of another type.
    """
    for name, p in model.named_parameters():
        kind = p.dtype if dtype is None else dtype
        if p.requires_grad and kind not in (torch.float32, torch.float64):
            raise ValueError(
                f"Parameter {name!r} is of {kind}: there norms, clipped sums and noise are rounded "
                "so coarsely that clipping does not bound a row, and the noise does not hide it. "
                "Train in float32 (model.float(), dtype=torch.float32) and convert afterwards, "
                "which is post-processing."
            )


def _try_hooks(loss: Loss, parameters: dict[str, nn.Parameter], made_up: Batch) -> Hooks:
    try:
        return try_hooks(loss, parameters, made_up)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise NotCovered(
            f"Route 'hooks' was asked for, but Opacus' hooks are wrong here: {error}. Use 'auto'."
        ) from error


def _said(error: Exception, *, made_up: bool) -> str:
    """What a report may say of it; an error on the rows themselves may name their values."""
    if not made_up and not isinstance(error, Changed):
        return f"{type(error).__name__} on a lot, though not on made-up rows"
    return str(error) if isinstance(error, NotCovered) else _first_line(error)


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{type(error).__name__}: {line[:200]}"
