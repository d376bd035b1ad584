"""The options of a private fit: what is refused, and why; what is public, and declared."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from pgm.model import Model
from pgm.objectives import Objective
from pgm.objectives import objective as default_objective
from privacy.accounting import (
    Accountant,
    calibrate,
    check_accountant,
    check_delta,
    check_epsilon,
)
from privacy.budget import Budget
from privacy.clipping import AdaptiveClip, Clip, LayerClip, check_clip, sensitivity
from privacy.gradients.per_row import Terms
from privacy.ledger import Ledger, Release

REFUSED = {
    "batch_size": "lots are Poisson-sampled, so their size varies. Pass expected_batch_size= or "
    "rate=",
    "epochs": "pass steps=; epochs / rate steps look at each row `epochs` times on average",
    "validation": "choosing weights by a held-out loss releases that loss, which nobody counts. "
    "Evaluate afterwards, on rows that need no protection",
    "patience": "stopping by a held-out loss releases it, and nobody counts that. Pass steps=",
    "evaluate_every": "there is no held-out loss in a private fit",
    "source": "the guarantee is that of Poisson sampling and of no other source",
    "learner": "the guarantee is that of the update rule of this package",
    "size": "pass rows=, the declared number of rows",
    "noise_multiplier": "the noise follows from epsilon, delta, rate and steps; see "
    "privacy.epsilon for what a given noise spends",
}


def refuse(options: dict[str, Any], known: Sequence[str]) -> None:
    """Explains an option that a private fit cannot honour, or does not have.

    Raises:
        ValueError: an option of `pgm.fit` that would mean something else here.
        TypeError: one that neither has.
    """
    for name in options:
        if name in REFUSED:
            raise ValueError(f"A private fit takes no {name}=: {REFUSED[name]}.")
        raise TypeError(f"A private fit has no option {name!r}; it has {', '.join(known)}.")


def check_model(model: Any) -> None:
    """Refuses what is no Model.

    Raises:
        TypeError: a module or a function came.
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"A {type(model).__name__} came, and a pgm.Model is needed: the loss of every row "
            "comes from its programs. Write a class with a `model` (and a `guide`), or take Pyro "
            "functions in by pgm.from_pyro(model, guide, rows=..., observed=...)."
        )


def refuse_text(**options: Any) -> None:
    """Refuses text where a number is meant, as a form or a command line hands over.

    Raises:
        TypeError: an option is text.

    Example:
        >>> refuse_text(epsilon="1")
        Traceback (most recent call last):
        TypeError: epsilon='1' is text; a number is compared and computed with. Pass epsilon=1.
    """
    for name, value in options.items():
        if isinstance(value, str):
            raise TypeError(
                f"{name}={value!r} is text; a number is compared and computed with. "
                f"Pass {name}={value or '1'}."
            )


def loss_and_terms(objective: Objective | str, terms: Terms) -> tuple[Objective, Terms]:
    """The loss by row and what becomes of its public terms, either of which may be called by name.

    Raises:
        ValueError: a name that is neither "split" nor "joint".

    Example:
        >>> loss_and_terms("joint", "split")[1]
        'joint'
    """
    if not isinstance(objective, str):
        return objective, terms
    if objective not in ("split", "joint"):
        raise ValueError(
            f"objective is {objective!r}: it is a function (model, batch, *, size) -> losses by "
            "row, such as pgm.objective or pgm.IWAE(5), or says what becomes of the terms that no "
            "row enters: 'split' (exact, after the noise) or 'joint' (clipped with the rows), as "
            "terms= does."
        )
    return default_objective, "split" if objective == "split" else "joint"


def check_options(
    delta: float, accountant: str, steps: int, clip: Clip, learning_rate: float
) -> None:
    """Refuses numbers outside their range.

    Raises:
        ValueError: one is.
    """
    check_delta(delta)
    check_accountant(accountant)
    check_steps(steps)
    if not isinstance(clip, LayerClip | AdaptiveClip):
        check_clip(clip)
    if not learning_rate > 0:
        raise ValueError(
            f"learning_rate is {learning_rate}; a step that descends is positive, such as 1e-3."
        )


def check_steps(steps: int) -> None:
    """Refuses a fit without a step.

    Raises:
        ValueError: it has none.
    """
    if steps < 1:
        raise ValueError(
            f"steps is {steps}; a fit makes one noisy step or more, to whose number the noise is "
            "calibrated."
        )


def kept_by(accountant: Accountant | None, *, secure: bool) -> Accountant:
    """The accountant that was asked for; "prv", or "rdp" for noise on a grid.

    Raises:
        ValueError: another than "rdp" for noise on a grid.
    """
    if accountant is None:
        return "rdp" if secure else "prv"
    if secure and accountant != "rdp":
        raise ValueError(
            f"accountant={accountant!r} with secure=True: what is proved of noise on a grid is its "
            "Renyi divergence. Leave accountant= out, or pass 'rdp'."
        )
    return accountant


def clip_norm(model: Model, clip: Clip) -> float:
    """How far a row can move the clipped sum of the model's gradients."""
    return sensitivity(clip, [name for name, p in model.named_parameters() if p.requires_grad])


def in_memory(model: Model, data: Any) -> Any:
    """The data as they came, unless somebody else would batch or read them.

    Raises:
        ValueError: a Dataset or DataLoader, or a frame without a schema.
    """
    if isinstance(data, Dataset | DataLoader):
        raise ValueError(
            f"A {type(data).__name__} came; it orders and batches the rows by itself, and the "
            "guarantee holds for Poisson sampling alone. Pass the rows as tensors or as a frame."
        )
    if type(data).__module__.partition(".")[0] == "pandas" and model.schema is None:
        raise ValueError(
            "A data frame came, and the model has no schema: levels and bounds read off the rows "
            "would be released without noise. Declare them beforehand, from what is publicly "
            'known: schema=pgm.Schema({"age": pgm.Continuous(lower=0, upper=120), ...}).'
        )
    return data


def public_rows(rows: int | None, came: int) -> int:
    """The declared number of rows; the number that came where none was declared.

    Raises:
        ValueError: more rows came than are declared.
    """
    if rows is not None and rows < came:
        raise ValueError(
            f"rows={rows} are declared and {came} came: the sampling rate and the share of a row "
            "would be wrong. Declare a public number that is at least as large."
        )
    return came if rows is None else rows


def sampling_rate(rate: float | None, expected_batch_size: float | None, rows: int) -> float:
    """The probability with which a row is in a lot.

    Raises:
        ValueError: two numbers for it, or one outside (0, 1].
    """
    if rate is not None and expected_batch_size is not None:
        raise ValueError(
            "Both rate= and expected_batch_size= came; each fixes the other. Pass one."
        )
    if rate is None:
        expected = min(256, rows) if expected_batch_size is None else expected_batch_size
        rate = expected / rows
    if not 0 < rate <= 1:
        raise ValueError(
            f"The sampling rate is {rate:g} (lots of {rate * rows:g} rows of {rows}); it is the "
            "probability with which a row is in a lot, above 0 and at most 1."
        )
    return rate


def noise_multiplier(
    epsilon: float | None,
    delta: float,
    rate: float,
    steps: int,
    accountant: Accountant,
    budget: Budget | None,
) -> float:
    """The noise multiplier that spends epsilon, or what is left of the budget."""
    if epsilon is not None:
        return calibrate(epsilon, delta=delta, rate=rate, steps=steps, accountant=accountant)
    assert budget is not None
    return budget.calibrate(rate=rate, steps=steps)


def goal(
    epsilon: float | None, delta: float | None, ledger: Ledger | None, budget: Budget | None
) -> tuple[float, Ledger | None]:
    """Delta, and the ledger that was passed: of the budget, if one came.

    Raises:
        ValueError: no epsilon, no delta, or two ledgers.
    """
    if budget is not None and not isinstance(budget, Budget):
        raise TypeError(
            f"budget is {budget!r}; a budget is kept over all releases about these rows. Pass "
            "budget=privacy.Budget(epsilon, delta), or epsilon= for this fit alone."
        )
    if epsilon is None and budget is None:
        raise ValueError(
            "epsilon= is missing: how much may a row change what is published? (1 is strong, 10 "
            "is weak.) Or pass budget=privacy.Budget(...), of which a fit takes what is left."
        )
    if epsilon is not None:
        check_epsilon(epsilon)
    if budget is None:
        if delta is None:
            raise ValueError("delta= is missing: a probability well below 1 / rows, such as 1e-6.")
        return delta, ledger
    if ledger is not None and ledger is not budget.ledger:
        raise ValueError(
            "Both ledger= and budget= came, and the budget has another ledger: the fit would be "
            "counted in one of them only. Pass budget=privacy.Budget(..., ledger=ledger) alone."
        )
    return (budget.delta if delta is None else delta), budget.ledger


def refuse_old_noise(release: Release, ledger: Ledger) -> None:
    """Refuses a run whose noise the ledger has seen.

    Raises:
        ValueError: it has.
    """
    if any(release.run == earlier.run for earlier in ledger.releases):
        raise ValueError(
            "The ledger has a release made with this seed: the same noise a second time could be "
            "subtracted from the first. Pass another seed=, or none."
        )
