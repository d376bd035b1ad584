"""The gradient of every row's own loss, for any model: what clipping needs and autograd sums away.

For each row i, g_i is the gradient of `objective(model, row i, size=N)` at the parameters. `vmap`
computes them all at once, as vmap of grad over a batch of one row (any program; Bradbury et al.
2018's composition of transformations, in `torch.func`); `loop` takes one row after the other with
plain autograd, and is the reference. Both give a row the same noise (`privacy.draws`).

The loss of a row carries 1/N of the terms of the shared sites, N being declared and public, so that
clipping the whole of g_i is the joint route of Jaelkoe et al. (2017, eq. 4): g_i depends on row i
alone, and the sum over a lot divided by its expected size estimates the gradient of the mean loss.
The shared sites are drawn anew for every row. That is unbiased, the expectation being linear, and
has less variance than one draw for all.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyro
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from pgm.batch import Batch, rows_of, take
from pgm.learner import trainable
from pgm.model import Model
from pgm.objectives import Objective
from pgm.objectives import objective as default_objective
from pgm.verb import prepare
from privacy.draws import RowDraws, Tables

Route = Literal["auto", "vmap", "loop"]


@dataclass(frozen=True)
class RowGradients:
    """Gradients and losses by row.

    Attributes:
        gradients: trainable parameter -> gradients, shape (n, *parameter). A row in which the norm
            of any of them was not finite has zeros in all.
        losses: the loss of each row in nats, shape (n,); not finite where it was not.
        finite: whether the norms of all gradients of the row were finite, shape (n,).
    """

    gradients: dict[str, Tensor]
    losses: Float[Tensor, " n"]
    finite: Bool[Tensor, " n"]


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
        route: `"vmap"`, `"loop"`, or `"auto"`: vmap, and the loop where the program cannot be
            vmapped.

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
    """Computes gradients by row, again and again, by one route.

    Args:
        model: any model; its parameters are read at each call.
        size: the declared number of rows.
        objective: the loss by row.
        route: see `per_row_gradients`.

    Attributes:
        route: the route in use.
        reason: why it is not vmap; empty if it is.

    Raises:
        ValueError: an unknown route, or a model without trainable parameters.
    """

    def __init__(
        self,
        model: Model,
        *,
        size: int,
        objective: Objective = default_objective,
        route: Route = "auto",
    ) -> None:
        if route not in get_args(Route):
            raise ValueError(
                f"There is no route {route!r}: use {', '.join(map(repr, get_args(Route)))}."
            )
        trainable(model)
        self.model, self.size, self.objective = model, size, objective
        self.route, self.reason, self._forced = route, "", route == "vmap"
        if route == "loop":
            self.reason = "asked for"

    def __call__(self, batch: Batch) -> RowGradients:
        """The gradients of the rows of `batch`, of which there may be none."""
        with pyro.validation_enabled(False), warnings.catch_warnings():
            # An operation without a batching rule is taken row by row: slower, and as right.
            warnings.filterwarnings("ignore", message="There is a performance drop")
            if rows_of(batch) == 0:
                return self._nothing()
            if self.route == "loop":
                return self._loop(batch)
            if self.route == "vmap" and self._forced:
                return self._vmap(batch)
            return self._try_vmap(batch)

    def _try_vmap(self, batch: Batch) -> RowGradients:
        try:
            found = self._vmap(batch)
        except Exception as error:
            self.route, self.reason = "loop", f"vmap cannot run the program: {_first_line(error)}"
            return self._loop(batch)
        self.route = "vmap"
        return found

    def _vmap(self, batch: Batch) -> RowGradients:
        n, tables = rows_of(batch), Tables()
        loss = _Loss(self.model, self.objective, self.size)
        parameters = {f"model.{name}": p.detach() for name, p in self._parameters().items()}

        def of_row(parameters: dict[str, Tensor], row: dict[str, Tensor], index: Tensor) -> Tensor:
            one = Batch({name: value.unsqueeze(0) for name, value in row.items()})
            with RowDraws(n, index, tables):
                return functional_call(loss, parameters, (one,))

        index = torch.arange(n, device=self.model.device)[:, None]
        gradients, losses = vmap(grad_and_value(of_row), (None, 0, 0))(
            parameters, dict(batch), index
        )
        named = {name.removeprefix("model."): g for name, g in gradients.items()}
        return _finite(named, losses.detach())

    def _loop(self, batch: Batch) -> RowGradients:
        n, tables = rows_of(batch), Tables()
        parameters = self._parameters()
        gradients: dict[str, list[Tensor]] = {name: [] for name in parameters}
        losses = []
        for i in range(n):
            index = torch.tensor([i], device=self.model.device)
            with torch.enable_grad(), RowDraws(n, index, tables):
                one = take(batch, slice(i, i + 1))
                loss = self.objective(self.model, one, size=self.size).sum()
            for name, g in _gradient(loss, parameters).items():
                gradients[name].append(g)
            losses.append(loss.detach())
        return _finite({k: torch.stack(g) for k, g in gradients.items()}, torch.stack(losses))

    def _nothing(self) -> RowGradients:
        empty = {name: p.new_zeros(0, *p.shape) for name, p in self._parameters().items()}
        return RowGradients(empty, torch.zeros(0), torch.zeros(0, dtype=torch.bool))

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


class _Loss(nn.Module):
    """The loss of one row as a module, so that `functional_call` can set the parameters."""

    def __init__(self, model: Model, objective: Objective, size: int) -> None:
        super().__init__()
        self.model, self.objective, self.size = model, objective, size

    def forward(self, row: Batch) -> Tensor:
        return self.objective(self.model, row, size=self.size).sum()


def _gradient(loss: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By plain autograd; zeros for a parameter that the loss does not reach."""
    if not loss.requires_grad:
        return {name: torch.zeros_like(p) for name, p in parameters.items()}
    found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return {name: g.detach() for name, g in zip(parameters, found, strict=True)}


def _finite(gradients: dict[str, Tensor], losses: Tensor) -> RowGradients:
    """Zeros in every row whose gradient has no finite norm."""
    norms = [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients.values()]
    whole = torch.stack(norms).isfinite().all(0)
    if not bool(whole.all()):
        gradients = {
            name: torch.where(whole.reshape(-1, *[1] * (g.dim() - 1)), g, torch.zeros_like(g))
            for name, g in gradients.items()
        }
    return RowGradients(gradients, losses, whole)


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{type(error).__name__}: {line[:200]}"
