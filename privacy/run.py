"""What every private run has, whoever drives it: a secret, a name, and a note on its model."""

import secrets
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.parameter import UninitializedParameter as Lazy

from pgm.batch import Batch, repeat, rows_of
from pgm.model import Model
from pgm.objectives import Objective
from pgm.programs import FromPyro
from pgm.randomness import seeded
from pgm.schema import Schema
from pgm.verb import prepare
from privacy.accounting import Accountant
from privacy.batches import derive
from privacy.gradients import PerRow
from privacy.gradients.traced import TracedRows
from privacy.kept import State
from privacy.ledger import Ledger
from privacy.options import check_model, in_memory
from privacy.report import statement
from privacy.synthetic import synthetic_rows


@dataclass(frozen=True)
class Multiplicity:
    """The loss of a row, averaged over K draws: noise multiplicity (Dockhorn et al. 2023, eq. 9).

    The gradient of a row is averaged before it is clipped, so that it has less variance at the same
    price: K timesteps of a diffusion model, K latents of a VAE.

    Attributes:
        objective: of one draw.
        draws: K.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> from pgm.objectives import objective
        >>> Multiplicity(objective, 4)(PPCA(3, 1), Batch(x=torch.zeros(2, 3)), size=2).shape
        torch.Size([2])
    """

    objective: Objective
    draws: int

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(
                f"multiplicity is {self.draws}; a row's loss is averaged over one draw or more."
            )

    def __call__(self, model: Model, batch: Batch, *, size: int) -> Float[Tensor, " n"]:
        """The mean loss of every row in nats."""
        losses = self.objective(model, repeat(batch, self.draws), size=size)
        return losses.reshape(self.draws, rows_of(batch)).mean(0)


def repeated(objective: Objective, multiplicity: int) -> Objective:
    """The objective, or its mean over several draws."""
    return objective if multiplicity == 1 else Multiplicity(objective, multiplicity)


def note(ledger: Ledger, delta: float, accountant: Accountant, earlier: str | None) -> str:
    """What may be said of the model now."""
    spent = ledger.epsilon(delta, accountant=accountant)
    said = statement(spent, delta, accountant, len(ledger.releases))
    return said if earlier is None else f"{said} Before that: {earlier}"


def make_parameters(model: Model, batch: Batch, objective: Objective, rows: int) -> None:
    """Runs the programs once on made-up rows: some make parameters at their first run.

    `pyro.param`, autoguides and lazy layers do. An initial value that is computed from the rows is
    then computed from made-up ones. A model that made none is left as it was.
    """
    state, names = State(model), _built(model)
    try:
        with seeded(0), torch.no_grad():
            objective(model, synthetic_rows(model, batch, 3), size=rows)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
        if isinstance(model, FromPyro):
            raise
    if _built(model) == names:  # else the check says why it does not run
        state.restore()


def _built(model: Model) -> set[str]:
    return {name for name, p in model.named_parameters() if not isinstance(p, Lazy)}


def run_name(secret: int) -> str:
    """What tells this run, and its noise, from others."""
    return f"{derive(secret, 'run'):016x}"


def fresh() -> int:
    """A secret seed from the system's entropy."""
    return secrets.randbits(63)


def taken_in(
    model: Model, data: Any, schema: Schema | None, device: Any, dtype: torch.dtype | None
) -> Batch:
    """The rows as the model reads them, once it is where it will be trained."""
    check_model(model)
    if schema is not None:
        model.schema = schema
    model.to(device=device or _best_device(model), dtype=dtype)
    return prepare(model, in_memory(model, data))


def route_taken(by_row: PerRow) -> str:
    """By which route gradients by row are computed, and whether it is replayed."""
    return str(by_row) if isinstance(by_row, TracedRows) else by_row.route


def what_is_shared(by_row: PerRow) -> str:
    """What became of the terms of the loss that no row enters."""
    if by_row.public:
        return "exact, after the noise: computed on made-up rows; no row enters them (checked)"
    if by_row.terms == "split":
        return "none"
    return f"inside the clipped gradient, 1/{by_row.size} in each row"


def _best_device(model: Model) -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda") if torch.cuda.is_available() else model.device
