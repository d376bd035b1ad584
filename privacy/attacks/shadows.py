"""LiRA: how well models with the row, and without it, know it (Carlini et al. 2022, alg. 1)."""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Normal

from pgm.batch import Batch, rows_of, take
from pgm.randomness import seeded
from pgm.schema import Schema
from pgm.verb import prepare
from privacy.attacks.outcome import Attack, check_promise, judged
from privacy.batches import derive
from privacy.recipes import Recipe, Score, log_density
from privacy.rows import as_rows

Mode = Literal["online", "offline"]
Variance = Literal["row", "shared"]

_FEW_SHADOWS = 64
"""Below so many shadow models one variance serves all rows (Carlini et al. 2022, sec. VI)."""


def lira(
    recipe: Recipe,
    rows: Any,
    *,
    shadows: int = 32,
    targets: int = 1,
    mode: Mode = "online",
    variance: Variance | None = None,
    score: Score = log_density,
    confidence: float = 0.95,
    promise: tuple[float, float] | None = None,
    seed: int = 0,
    schema: Schema | None = None,
) -> Attack:
    """The likelihood-ratio attack: trains shadow models with each row and without it.

    Every shadow model is trained on rows of which each is in half of them; every target on rows
    drawn by fair coins. Of each row, normal laws are fitted to its scores under the shadows with it
    and without it. Online, its score is the logarithm of their ratio at the target's score;
    offline, how far that is above the law without it, in standard deviations.

    Args:
        recipe: what is attacked; for a private one, declare `rows=` as all the rows.
        rows: the pool, in any form.
        shadows: models to learn the laws from, an even number.
        targets: models to attack.
        mode: "online" or "offline".
        variance: "row" for one of each row's own, or "shared" by all rows, which is steadier; by
            default shared below 64 shadows.
        score: how well a model knows a row; for a discrete outcome, `log_odds`.
        confidence: of the intervals.
        promise: (epsilon, delta) of the recipe, to print what it allows.
        seed: of who is in, and of all training.
        schema: how a data frame is read.

    Raises:
        ValueError: too few shadows, targets or rows, an unknown mode, a score that is not a number,
            or a number outside its range.
    """
    check_promise(confidence, promise)
    _check_lira(shadows, targets, mode, variance)
    batch = as_rows(rows, schema)
    n = rows_of(batch)
    within = _halves(shadows, n, derive(seed, "shadows"))
    with seeded(derive(seed, "targets")):
        inside = torch.rand(targets, n) < 0.5
    shadow_scores = _known(recipe, batch, within, score, derive(seed, "shadow"))
    target_scores = _known(recipe, batch, inside, score, derive(seed, "target"))
    variance = variance or ("shared" if shadows < _FEW_SHADOWS else "row")
    ratio = likelihood_ratio(target_scores, shadow_scores, within, mode=mode, variance=variance)
    name = f"LiRA ({mode}, {shadows} shadow models)"
    return judged(name, ratio.flatten(), inside.flatten(), confidence, promise)


def likelihood_ratio(
    scores: Float[Tensor, "targets n"],
    shadow_scores: Float[Tensor, "shadows n"],
    within: Bool[Tensor, "shadows n"],
    *,
    mode: Mode = "online",
    variance: Variance = "row",
) -> Float[Tensor, "targets n"]:
    """The statistic of `lira` from the scores of rows under targets and shadows.

    Args:
        scores: of each row under each target.
        shadow_scores: of each row under each shadow.
        within: which shadows had the row.
        mode: "online" or "offline".
        variance: "row" or "shared".

    Example:
        Laws N(1, 1) with the row and N(-1, 1) without it, to within their estimation:

        >>> noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
        >>> within = torch.arange(20_000)[:, None] % 2 == 0
        >>> shadow_scores = noise + torch.where(within, 1.0, -1.0)
        >>> likelihood_ratio(torch.tensor([[0.5]]), shadow_scores, within)  # log ratio 2 x 0.5
        tensor([[1.0]], dtype=torch.float64)
    """
    scores, shadow_scores = scores.double(), shadow_scores.double()
    into, out = (_law(shadow_scores, group, variance) for group in (within, ~within))
    if mode == "offline":
        found = (scores - out[0]) / out[1]
    else:
        found = Normal(*into).log_prob(scores) - Normal(*out).log_prob(scores)
    return found


def _check_lira(shadows: int, targets: int, mode: str, variance: str | None) -> None:
    if shadows < 4 or shadows % 2:
        raise ValueError(
            f"shadows is {shadows}; every row is in half of the shadow models, and a law takes two "
            "of them or more: an even number from 4, better 32 or more."
        )
    if targets < 1:
        raise ValueError(
            f"targets is {targets}; attack one model or more, to have something to judge."
        )
    if mode not in get_args(Mode):
        raise ValueError(f"There is no mode {mode!r}: use 'online' or 'offline'.")
    if variance is not None and variance not in get_args(Variance):
        raise ValueError(f"There is no variance {variance!r}: use 'row' or 'shared'.")


def _halves(shadows: int, n: int, seed: int) -> Bool[Tensor, "shadows n"]:
    """Every row in a random half of the shadow models."""
    with seeded(seed):
        return torch.rand(shadows, n).argsort(0) < shadows // 2


def _known(
    recipe: Recipe, batch: Batch, inside: Bool[Tensor, "models n"], score: Score, seed: int
) -> Float[Tensor, "models n"]:
    """Trains a model a row of `inside`, and scores all rows by each."""
    scores = []
    for i, chosen in enumerate(inside):
        model = recipe(take(batch, chosen.nonzero().flatten()), derive(seed, str(i)))
        scores.append(score(model, prepare(model, batch)).detach().cpu())
    return torch.stack(scores).to(torch.get_default_dtype())


def _law(scores: Tensor, group: Tensor, variance: Variance) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each row's scores over a group of shadows."""
    count = group.sum(0)
    mean = torch.where(group, scores, 0.0).sum(0) / count
    squares = torch.where(group, (scores - mean).square(), 0.0).sum(0)
    spread = squares / (count - 1)
    if variance == "shared":
        spread = spread.mean().expand_as(spread)
    return mean, spread.sqrt().clamp(min=1e-6 * float(scores.std()) + 1e-30)
