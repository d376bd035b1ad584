"""Anomaly scores: how surprising a row is to a model."""

from jaxtyping import Float
from torch import Tensor

from pgm.batch import Batch
from pgm.model import Model
from pgm.verb import verb
from pgm.verbs.density import log_prob


def _needs_density(model: Model) -> str | None:
    why = log_prob.refusal(model)
    return None if why is None else f"its surprise is -log p(x), and {why}"


@verb(needs=_needs_density)
def surprise(
    model: Model, batch: Batch, *, particles: int = 100, seed: int | None = None
) -> Float[Tensor, " n"]:
    """The anomaly score -log p(x) of every row, in nats: the higher, the stranger.

    Scores rank rows of one data set. Across data sets densities can rank the wrong way round
    (Nalisnick et al. 2019): compare with the scores of held-out rows of the training set.

    Args:
        model: any model with a density.
        batch: the rows.
        particles: as in `log_prob`.
        seed: of the draws.

    Returns:
        Scores, shape (n,).

    Example:
        >>> import torch
        >>> from pgm.families.kde import KDE
        >>> surprise(KDE(torch.tensor([[0.0]]), bandwidth=1.0), torch.tensor([[0.0], [3.0]]))
        tensor([0.9189, 5.4189])
    """
    return -log_prob(model, batch, particles=particles).value
