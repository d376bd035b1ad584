"""The loss attack: whom the model knows well, it was trained on (Yeom et al. 2018)."""

from typing import Any

import torch

from pgm.model import Model
from pgm.verb import prepare
from privacy.attacks.outcome import Attack, check_promise, judged
from privacy.recipes import Score, log_density


def loss_attack(
    model: Model,
    members: Any,
    others: Any,
    *,
    score: Score = log_density,
    confidence: float = 0.95,
    promise: tuple[float, float] | None = None,
) -> Attack:
    """Takes rows for members that the model knows well.

    Args:
        model: trained on `members` and not on `others`.
        members: rows in any form.
        others: rows from the same population.
        score: how well the model knows a row; by default its log density, or minus its loss.
        confidence: of the intervals.
        promise: (epsilon, delta) of the training, to print what it allows.

    Raises:
        ValueError: no rows on a side, a score that is not a number, or a number outside its range.

    Example:
        A kernel density estimate knows its own rows too well:

        >>> from pgm.families.kde import KDE
        >>> x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
        >>> print(loss_attack(KDE(x[:100], bandwidth=0.1), x[:100], x[100:]))
        loss attack on 100 members and 100 other rows (95 % intervals): AUC 1.000 [0.9..., 1.000]
          TPR 1.000 [0.964, 1.000] at FPR 1 %
          TPR 1.000 [0.964, 1.000] at FPR 10 %
    """
    check_promise(confidence, promise)
    known = [score(model, prepare(model, rows)) for rows in (members, others)]
    inside = torch.cat([torch.full((len(part),), i == 0) for i, part in enumerate(known)])
    return judged("loss attack", torch.cat(known), inside, confidence, promise)
