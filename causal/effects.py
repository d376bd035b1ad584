"""Average effects: E[outcome | do(a)] - E[outcome | do(b)], with an interval.

The means of the two worlds are exact where the mechanisms allow it, else those of draws. What is
left is the uncertainty of the parameters: they are redrawn, the difference is taken anew each time,
and quantiles of the differences make the interval. They are redrawn by the Bayesian bootstrap
(Rubin 1981) for an SCM and complete rows; by refits on resampled rows (Efron 1979) for any model;
by the guide where the parameters are latent sites.
"""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from causal.actions import Action, Target, asking, checked, sites_of, words
from causal.answers import Effect
from causal.estimation import bootstrap, complete, estimate
from causal.expectations import expectation
from causal.interventions import Intervened, unwrap
from causal.outcomes import categories, frequencies, in_units, names
from causal.scm import SCM, untrained
from pgm import Model, fit
from pgm.batch import rows_of, take
from pgm.randomness import fresh_seed, seeded
from pgm.schema.columns import listing, suggestion
from pgm.verb import Unsupported, prepare
from pgm.verbs.sampling import draw

_NO_DATA = "the parameters are taken as known: pass data= for their uncertainty"

Shared = dict[str, Tensor]
"""The values of the sites outside the rows."""


def effect(
    model: Model,
    outcome: str,
    *,
    do: Mapping[str, Any],
    versus: Mapping[str, Any] | None = None,
    data: Any = None,
    level: Any = None,
    confidence: float = 0.95,
    draws: int = 10_000,
    refits: int = 200,
    refit: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Effect:
    """The average effect of one intervention against another on an outcome.

    Of a number, the difference of its means, in the unit of its column; of an outcome with levels,
    the difference of the probability of each.

    Without `data` the interval holds the error of the draws alone, if the means are not exact, and
    the answer says so (with latent parameters, sites outside the rows, it holds their spread under
    the guide). With `data`
    the parameters are estimated anew `refits` times: for an SCM in closed form, with a Dirichlet
    prior of one observation on each row of a table; for other models by `pgm.fit`.

    Args:
        model: a trained model.
        outcome: a site of one number or level a row.
        do: the intervention, as in `causal.do`.
        versus: what it is compared with; None for the model left alone.
        data: the rows that the model was fitted to, with `clamped` if there is any.
        level: the one level of the outcome to report.
        confidence: of the interval.
        draws: rows sampled in each world.
        refits: draws of the parameters.
        refit: options of `pgm.fit` that train a copy, started from the model, on resampled rows;
            needed where there is no closed form. Too few steps make the interval too narrow.
        seed: of all draws.

    Returns:
        Means, difference and interval; it prints and plots itself.

    Raises:
        ValueError: an outcome, level or intervention that the model does not have; too few refits
            for the confidence; an SCM that was not trained; data beside a model that carries a
            note, such as a privacy ledger, to which refits would not keep.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> scm = SCM("x -> y", x=LinearGaussian(), y=LinearGaussian({"x": 2.0}))
        >>> print(effect(scm, "y", do={"x": 1.0}, versus={"x": 0.0}))
        Effect of do(x=1) versus do(x=0) on y
                do  versus  difference  95% interval
          mean  2   0       2           none
          interval: none; the parameters are taken as known: pass data= for their uncertainty
    """
    question = _ask(model, outcome, do, versus, draws)
    shown = _shown(question, level)
    _check(question.model, data, confidence, draws, refits)
    seeds = _seeds(seed, 3 * refits + 2)
    source, redrawn = _redraw(question.model, data, refits, refit, seeds[2:])
    means, errors = _means(question, question.model, {}, seeds[0])
    again = [_means(question, *drawn, s)[0] for drawn, s in zip(redrawn, seeds[2::3], strict=False)]
    if again and data is None:  # the posterior mean, over latent parameters
        means, errors = torch.stack(again).mean(0), torch.zeros_like(errors)
    difference = means[0] - means[1]
    spread = torch.stack([pair[0] - pair[1] for pair in again]) if again else None
    lower, upper = _interval(difference, errors.square().sum(0).sqrt(), spread, confidence)
    if spread is not None and data is not None:
        closed = isinstance(question.model, SCM) and refit is None
        best = _best(question, data, spread, seeds[0], closed=closed)
        gauge = (t[shown] for t in (difference, best, upper - lower))
        _warn_if_unfinished(*gauge, tolerance=0.1 if closed else 0.5)
    with seeded(seeds[1]):
        samples = [_sample(question, question.model, {}, v) for v in question.worlds]
    return Effect(
        outcome=outcome,
        do=_words(question, 0),
        versus=_words(question, 1),
        levels=tuple(question.labels[i] for i in shown) if question.levels else (),
        treated=means[0][shown],
        control=means[1][shown],
        difference=difference[shown],
        lower=lower[shown],
        upper=upper[shown],
        confidence=confidence,
        source="none; " + _NO_DATA if bool(lower.isnan().any()) else source,
        samples=(samples[0], samples[1]),
        note=question.model.note,
    )


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked of every draw of the parameters.

    Attributes:
        model: the model before all interventions.
        outcome: the site.
        levels: how many the outcome has; 0 for a number.
        labels: what the means are called.
        worlds: the interventions of either world, in the model's numbers.
        draws: rows sampled in each world.
    """

    model: Model
    outcome: str
    levels: int
    labels: tuple[Any, ...]
    worlds: tuple[dict[Target, Action], dict[Target, Action]]
    draws: int


def _ask(
    model: Model,
    outcome: str,
    do: Mapping[str, Any],
    versus: Mapping[str, Any] | None,
    draws: int,
) -> _Question:
    base, before = unwrap(model)
    acted = {**before, **checked(base, before, do)}
    other = {**before, **(checked(base, before, versus) if versus else {})}
    k = _levels(base, outcome)
    labels = names(base.schema, outcome, k) if k else ("mean",)
    return _Question(base, outcome, k, labels, (acted, other), draws)


def _words(question: _Question, world: int) -> dict[str, str]:
    return words(question.model.schema, question.worlds[world])


def _means(
    question: _Question, model: Model, shared: Shared, seed: int
) -> tuple[Float[Tensor, "2 k"], Float[Tensor, "2 k"]]:
    """The mean outcome of both worlds, in its unit, and the error of the draws, zero if exact."""
    means, errors = [], []
    for i, values in enumerate(question.worlds):
        exact = expectation(model, values, question.outcome) if isinstance(model, SCM) else None
        if exact is None:
            with seeded(seed + i):
                x = _sample(question, model, shared, values)
            coded = frequencies(x, question.levels).double() if question.levels else x[:, None]
            means.append(coded.mean(0))
            errors.append(coded.std(0) / len(x) ** 0.5)
        else:
            unit = exact.double()
            if not question.levels:
                unit = in_units(model.schema, question.outcome, exact)
            means.append(unit)
            errors.append(torch.zeros_like(unit))
    return torch.stack(means), torch.stack(errors)


def _sample(
    question: _Question, model: Model, shared: Shared, values: Mapping[Target, Action]
) -> Shaped[Tensor, " draws"]:
    """Draws of the outcome in one world: numbers in its unit, or levels as codes."""
    acted = Intervened(model, values) if values else model
    given = {name: value for name, value in shared.items() if name not in values}
    with asking(acted, None):
        x = draw(acted, question.draws, latents=given).sites[question.outcome].value
    return x if question.levels else in_units(model.schema, question.outcome, x)


def _redraw(
    model: Model,
    data: Any,
    refits: int,
    refit: Mapping[str, Any] | None,
    seeds: list[int],
) -> tuple[str, Iterator[tuple[Model, Shared]]]:
    """Where the uncertainty of the parameters comes from, and draws of them."""
    shared = _shared(model)
    if shared and data is not None:
        raise ValueError(
            f"The parameters {listing(shared)} are latent sites with a posterior, which is the "
            "interval's source: leave data= out."
        )
    if shared:
        return f"{refits} draws of {listing(shared)} from the guide", _posterior(model, seeds)
    if data is None:
        return f"error of the draws alone; {_NO_DATA}", iter(())
    if isinstance(model, SCM) and refit is None:
        batch = complete(model, data)
        n = rows_of(batch)
        drawn = bootstrap(model, batch, seeds=seeds[1::3])
        return f"Bayesian bootstrap of {n} rows, {refits} times", ((scm, {}) for scm in drawn)
    if refit is None:
        raise ValueError(
            f"There is no closed form for {type(model).__name__}: say how a copy is trained on "
            "resampled rows, refit={'steps': 500, 'learning_rate': 1e-3}, as you trained the model."
        )
    return f"{refits} refits on resampled rows", _refits(model, data, refit, seeds)


def _refits(
    model: Model, data: Any, options: Mapping[str, Any], seeds: list[int]
) -> Iterator[tuple[Model, Shared]]:
    """Copies trained on rows drawn with replacement, their masks and `clamped` with them."""
    batch = prepare(model, data)
    n = rows_of(batch)
    for seed, order in zip(seeds[1::3], seeds[2::3], strict=True):
        generator = torch.Generator().manual_seed(seed)
        index = torch.randint(n, (n,), generator=generator).to(model.device)
        drawn = copy.deepcopy(model)
        fit(drawn, take(batch, index), seed=order, progress=False, **options)
        yield drawn, {}


def _posterior(model: Model, seeds: list[int]) -> Iterator[tuple[Model, Shared]]:
    """The model with draws of its shared sites."""
    for seed in seeds[1::3]:
        with asking(model, seed):
            sites = draw(model, 2).sites
        yield model, {name: sites[name].value for name in _shared(model)}


def _shared(model: Model) -> list[str]:
    """The latent sites outside the rows."""
    sites = sites_of(model, 2) or {}
    return [name for name, s in sites.items() if not s.rows and not s.observed]


def _interval(
    difference: Float[Tensor, " k"],
    error: Float[Tensor, " k"],
    spread: Float[Tensor, "refits k"] | None,
    confidence: float,
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    tail = torch.tensor((1 - confidence) / 2, dtype=torch.float64)
    if spread is None and not bool(error.any()):
        return torch.full_like(difference, torch.nan), torch.full_like(difference, torch.nan)
    if spread is None:
        half = -torch.special.ndtri(tail) * error
        return difference - half, difference + half
    return spread.quantile(tail, 0), spread.quantile(1 - tail, 0)


def _best(
    question: _Question, data: Any, spread: Float[Tensor, "refits k"], seed: int, *, closed: bool
) -> Float[Tensor, " k"]:
    """The difference at the maximum of the likelihood, or the middle of the refits."""
    if not closed:
        return spread.median(0).values
    best = copy.deepcopy(question.model)
    assert isinstance(best, SCM)
    estimate(best, data)
    means = _means(question, best, {}, seed)[0]
    return means[0] - means[1]


def _warn_if_unfinished(
    difference: Float[Tensor, " k"],
    best: Float[Tensor, " k"],
    width: Float[Tensor, " k"],
    *,
    tolerance: float,
) -> None:
    gap = (difference - best).abs()
    if bool((gap > tolerance * width).any()):
        i = int((gap - tolerance * width).argmax())
        warnings.warn(
            f"Under the model's own parameters the difference is {float(difference[i]):.4g}, but "
            f"{float(best[i]):.4g} under parameters fitted to these data, as those behind the "
            "interval are: the model is not at the maximum of the likelihood. Train it longer or "
            "with a larger learning rate, on these rows; causal.estimate(scm, data) sets an SCM "
            "there at once.",
            RuntimeWarning,
            stacklevel=3,
        )


def _levels(model: Model, outcome: str) -> int:
    sites = sites_of(model, 2)
    if sites is None:
        raise Unsupported(
            f"The program of {type(model).__name__} needs context "
            f"({listing(list(model.context))}), and an average over contexts is not offered yet. "
            "Make the context sites of the program."
        )
    if outcome not in sites:
        raise ValueError(
            f"{type(model).__name__} has no site {outcome!r}.{suggestion(outcome, sites)} Its "
            f"sites are: {listing(list(sites))}."
        )
    site = sites[outcome]
    if not site.rows or site.fn.event_shape or site.plates:
        raise ValueError(
            f"Site {outcome!r} has shape {tuple(site.fn.event_shape)}; the outcome of an effect is "
            "one number or level a row. Sample from causal.do(model, ...) and summarise the draws."
        )
    return categories(site.fn)


def _shown(question: _Question, level: Any) -> list[int]:
    """Which of the means are reported."""
    if level is None:
        return list(range(len(question.labels)))
    if not question.levels or level not in question.labels:
        what = listing([repr(label) for label in question.labels]) if question.levels else "none"
        raise ValueError(
            f"level={level!r}: the levels of {question.outcome!r} are: {what}."
            f"{suggestion(level, question.labels)} Leave level= out for all of them."
        )
    return [question.labels.index(level)]


def _check(model: Model, data: Any, confidence: float, draws: int, refits: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it lies between 0 and 1, such as 0.95.")
    if draws < 2:
        raise ValueError(f"draws is {draws}; an average and its error need two or more.")
    fewest = math.ceil(2 / (1 - confidence) - 1e-9)
    if refits < fewest:
        raise ValueError(
            f"refits is {refits}: the ends of a {confidence:.0%} interval are quantiles of at "
            f"least {fewest} of them, or it would come out too narrow."
        )
    if raw := untrained(model):
        raise ValueError(
            f"The mechanisms of {listing(raw)} are as they were made, and any effect would be "
            "made up. Train the model: pgm.fit(model, data), or causal.estimate for an SCM."
        )
    if data is not None and model.note is not None:
        raise ValueError(
            f"The model carries a note ({model.note}), and refits on data= would use the data "
            "beyond what it says. Leave data= out: the interval is then of the draws alone."
        )


def _seeds(seed: int | None, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(fresh_seed() if seed is None else seed)
    return torch.randint(2**31 - 1, (count,), generator=generator).tolist()
