"""Holding a route against plain autograd on single rows, with the same noise, before it is used."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch

from pgm.batch import Batch
from privacy.draws import Tables
from privacy.gradients.routes import Loss, Parameters, looped
from privacy.gradients.rows import RowGradients
from privacy.gradients.tape import NotCovered

_TOLERANCE = 1e-4
"""Largest difference to plain autograd, relative to the parameter's gradient, in float32."""
_NEARBY = 0.05
"""Standard deviation of what is added to the parameters for the second trial."""


class Differs(NotCovered):
    """Rows of a lot have another gradient than rows alone."""


@runtime_checkable
class Candidate(Protocol):
    """A route that is tried out."""

    @property
    def loss(self) -> Loss:
        """The losses by row."""

    @property
    def parameters(self) -> Parameters:
        """Those whose gradients are clipped."""

    def by_row(self, batch: Batch, tables: Tables) -> RowGradients:
        """The gradients by row."""


def compare(route: Candidate, rows: Batch) -> None:
    """Raises where a gradient or a loss is not that of plain autograd on the row alone."""
    tables: Tables = {}
    reference = looped(route.loss, route.parameters, rows, tables)
    found = route.by_row(rows, tables)
    scale = sum(float(g.square().sum()) for g in reference.gradients.values()) ** 0.5
    fine = torch.finfo(reference.losses.dtype).eps ** 0.5 / torch.finfo(torch.float32).eps ** 0.5
    for name, g in reference.gradients.items():
        off = float((found.gradients[name] - g).norm())
        if not off <= fine * (_TOLERANCE * float(g.norm()) + 0.01 * _TOLERANCE * scale):
            raise Differs(
                f"rows of a lot have another gradient of {name!r} than rows alone: something "
                "joins them, or is counted once a lot"
            )
    if not torch.equal(found.finite, reference.finite):
        raise Differs("rows of a lot are finite where rows alone are not, or the reverse")


@contextmanager
def nearby(parameters: Parameters) -> Iterator[None]:
    """Moves the parameters a little, and puts them back: zeros at the start hide much."""
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    try:
        with torch.no_grad():
            for p in parameters.values():
                p.add_(_NEARBY * torch.randn_like(p))
        yield
    finally:
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(kept[name])
