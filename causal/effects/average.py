"""Average effects: E[outcome | do(a)] - E[outcome | do(b)], of all or of some, with an interval.

The means of the two worlds are exact where the mechanisms allow them, else those of draws on common
noise. What is left is the uncertainty of the parameters (`causal.effects.uncertainty`).
"""

from collections.abc import Mapping
from typing import Any

from causal.counterfactuals.worlds import Coupling
from causal.effects.question import ask, sampled, shown
from causal.effects.remarks import remarks
from causal.effects.results import Effect
from causal.effects.uncertainty import Options, Source, spread
from causal.effects.units import Everyone, of_whom
from pgm import Model
from pgm.randomness import fresh_seed, seeded


def effect(
    model: Model,
    outcome: str,
    *,
    do: Mapping[Any, Any],
    versus: Mapping[Any, Any] | None = None,
    among: Any = None,
    given: Any = None,
    data: Any = None,
    posterior: Source = "bootstrap",
    level: Any = None,
    confidence: float = 0.95,
    draws: int = 10_000,
    refits: int = 200,
    refit: Mapping[str, Any] | None = None,
    coupling: Coupling = None,
    seed: int | None = None,
) -> Effect:
    """The average effect of one intervention against another on an outcome.

    Of a number, the difference of its means, in the unit of its column; of an outcome with levels,
    the difference of the probability of each. It is the average over all (ATE), unless the units
    are said:

    - `among={"x": 1}`: the units of which that was seen, as they were. With the treatment it is the
      effect on the treated, or the controls (ATT, ETT, ATC), with covariates that of a group
      (CATE), with complete rows that of individuals (ITE): `Effect.by_row`. A counterfactual: the
      noise of the units is kept.
    - `given={"z": 1}`: E[Y | do(a), z] - E[Y | do(b), z], the evidence being seen in the worlds of
      the interventions, perhaps downstream of what was done.

    A controlled direct effect (CDE) sets the mediator in both worlds: `do={"x": 1, "m": 0}`,
    `versus={"x": 0, "m": 0}`. Natural ones are asked of `causal.mediation`.

    Without `data` the interval holds the error of the draws alone, if the means are not exact, and
    the answer says so (with latent parameters, sites outside the rows, it holds their spread under
    the guide). With `data` the question is asked of `refits` draws of the parameters.

    Args:
        model: a trained model.
        outcome: a site of one number or level a row.
        do: the intervention, as in `causal.do`.
        versus: what it is compared with; None for the model left alone.
        among: evidence of the units as they were, one value by site or rows in any form.
        given: evidence that either world shows, likewise.
        data: the rows that the model was fitted to, with `clamped` if there is any.
        posterior: how the parameters are drawn given `data`: "bootstrap", the Bayesian bootstrap;
            "laplace", "svi" or "nuts" over the parameters of an SCM's mechanisms, see
            `causal.effects.parameters`. Or, without `data`, a `Posterior` of pgm.inference over the
            model's latent parameters, or a list of models, one a draw.
        level: the one level of the outcome to report.
        confidence: of the interval.
        draws: rows sampled in each world, or particles in all rows of evidence together.
        refits: draws of the parameters.
        refit: options of `pgm.fit` that train a copy, started from the model, on resampled rows;
            needed where there is no closed form. Too few steps make the interval too narrow.
        coupling: of discrete sites, where units are followed from one world to another: see
            `causal.counterfactual`.
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
    question = ask(model, outcome, do=do, versus=versus, draws=draws, coupling=coupling)
    kept = shown(question, level)
    whom = of_whom(question, among, given)
    seed = fresh_seed() if seed is None else seed
    options = Options(data, posterior, confidence, refits, refit, seed)
    found = spread(whom, question.model, options, kept)
    samples = None
    if isinstance(whom, Everyone):
        with seeded(seed + 1):
            both = [
                sampled(question, question.model, {}, w) for w in (question.do, question.versus)
            ]
        samples = both[0], both[1]
    worlds, bounds = found.reply.worlds, whom.bounds(question.model, seed)
    spreading = found.worlds if found.worlds is not None else worlds[None]
    return Effect(
        outcome=outcome,
        do=question.words[0],
        versus=question.words[1],
        levels=tuple(question.labels[i] for i in kept) if question.levels else (),
        treated=worlds[0].mean(0)[kept],
        control=worlds[1].mean(0)[kept],
        difference=found.reply.values[0, kept],
        lower=found.lower[0, kept],
        upper=found.upper[0, kept],
        confidence=confidence,
        source=found.source,
        samples=samples,
        units=whom.words,
        error=found.reply.errors[0, kept],
        bounds=None if bounds is None else (bounds[0][kept], bounds[1][kept]),
        means=spreading[..., kept],
        by_row=(worlds[0] - worlds[1])[:, kept],
        how=found.reply.how,
        remarks=remarks(question, whom.open, worlds=1 if among is None else 2),
        note=question.model.note,
    )
