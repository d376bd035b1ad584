"""How a model is made of rows, and how well it knows a row: what audits and attacks are told.

An attack trains many models, so it takes the recipe and not the model. What it looks at is one
number a row, larger for rows that the model knows better.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

import pgm
from pgm.batch import Batch
from pgm.model import Model

Recipe = Callable[[Batch, int], Model]
"""`recipe(rows, seed)` returns a new model trained on the rows. Of a private recipe the number of
rows must be declared (`rows=`), the largest that may come: how many came is a secret."""

Score = Callable[[Model, Batch], Tensor]
"""`score(model, rows)` says how well the model knows each row, shape (n,)."""


def log_density(model: Model, batch: Batch) -> Float[Tensor, " n"]:
    """log p(row) in nats, or minus the loss where the model has no density by row.

    Random draws, where there are any, are the same at each call.

    Example:
        >>> from pgm.families.kde import KDE
        >>> log_density(KDE(torch.tensor([[0.0]]), bandwidth=1.0), Batch(x=torch.zeros(1, 1)))
        tensor([-0.9189])
    """
    if pgm.log_prob.refusal(model) is None:
        return pgm.log_prob(model, batch, seed=0).value
    with torch.no_grad():
        return -pgm.objective(model, batch, seed=0)


def log_odds(model: Model, batch: Batch) -> Float[Tensor, " n"]:
    """log p / (1 - p) of the row, for models of one discrete outcome given its context.

    It is nearer to a normal distribution than log p is (Carlini et al. 2022, sec. IV).

    Raises:
        ValueError: a density above one, which is no probability.
    """
    log_p = log_density(model, batch).double()
    if bool((log_p > 1e-4).any()):
        raise ValueError(
            f"A row has log density {float(log_p.max()):.3g}, and a probability is at most one: "
            "the outcome is not discrete. Use log_density."
        )
    # Where p rounds to one the distance to it is taken to be the last digit's.
    return (log_p - (-torch.expm1(log_p.clamp(max=-1e-7))).log()).to(torch.get_default_dtype())
