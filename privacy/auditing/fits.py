"""An audit of whole fits: one canary in or out, trained again and again by the same recipe.

It sees what anyone with the model sees, and holds for whatever the recipe does between the rows and
the model, preprocessing and choices included (Jagielski, Ullman & Oprea 2020, alg. 1). It is dear:
with n fits on either side no epsilon much above log n can be proved.
"""

from typing import Any

import torch
from torch import Tensor

from pgm.batch import Batch, rows_of
from pgm.schema import Schema
from privacy.auditing.bounds import Audit, audit_scores
from privacy.batches import derive
from privacy.recipes import Recipe, Score, log_density
from privacy.rows import as_rows, together


def audit_fits(
    recipe: Recipe,
    data: Any,
    canary: Any,
    *,
    delta: float,
    repetitions: int = 200,
    claim: float | None = None,
    score: Score = log_density,
    confidence: float = 0.95,
    seed: int = 0,
    schema: Schema | None = None,
) -> Audit:
    """Trains with the canary among the rows and without, and bounds epsilon by telling which.

    Args:
        recipe: what is audited; it declares the number of rows, the canary included, as public.
        data: rows beside the canary, in any form.
        canary: one row, best far from the others.
        delta: the probability outside the guarantee.
        repetitions: fits with the canary, and as many without.
        claim: the epsilon that the recipe is said to spend for a row, added or removed.
        score: how well a model knows the canary.
        confidence: with which the bound holds.
        seed: of the fits.
        schema: how data frames are read.

    Raises:
        ValueError: more than one canary, columns of other names, or too few repetitions.

    Example:
        A mean with Gaussian noise of one: sigma 1 for rows between 0 and 1.

        >>> from pgm.families.kde import KDE
        >>> def noisy_sum(rows, seed):
        ...     noise = torch.randn((), generator=torch.Generator().manual_seed(seed))
        ...     return KDE((rows["x"].sum() + noise).reshape(1, 1), bandwidth=1.0)
        >>> zeros, one = torch.zeros(9, 1), torch.ones(1, 1)
        >>> audit_fits(noisy_sum, zeros, one, delta=1e-5, claim=4.38).broken
        False
    """
    rows, canary = as_rows(data, schema), as_rows(canary, schema)
    if rows_of(canary) != 1:
        raise ValueError(
            f"{rows_of(canary)} canaries came; audit_fits follows one row. For many at once, in "
            "one fit, use audit_run."
        )
    with_canary = together(rows, canary)

    def scores(what: Batch, where: str) -> Tensor:
        models = (recipe(what, derive(seed, f"{where} {i}")) for i in range(repetitions))
        return torch.stack([score(model, canary).reshape(()) for model in models])

    return audit_scores(
        scores(with_canary, "inside"),
        scores(rows, "outside"),
        delta=delta,
        confidence=confidence,
        rate=None,
        claim=claim,
    )
