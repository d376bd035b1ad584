"""The uncertainty of the parameters: they are redrawn, and the question is asked of every draw.

Parameters are never averaged before the question. They are redrawn by the Bayesian bootstrap
(Rubin 1981) for an SCM and complete rows, from a posterior over the mechanisms' parameters
(`causal.effects.parameters`), by refits on resampled rows (Efron 1979) for any model, or from the
guide, or from draws of a chain, where the parameters are latent sites.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from causal.effects.parameters import Method, parameters
from causal.effects.question import Shared
from causal.fitting.estimation import bootstrap, complete, estimate
from causal.interventions.sites import asking, sites_of
from causal.scm import SCM, untrained
from pgm import Model, fit
from pgm.batch import rows_of, take
from pgm.inference import Posterior
from pgm.randomness import fresh_seed
from pgm.schema.columns import listing
from pgm.verb import prepare
from pgm.verbs.sampling import draw

Source = Method | Posterior | Sequence[Model]
"""Where draws of the parameters come from."""

_NO_DATA = "the parameters are taken as known: pass data= for their uncertainty"


@dataclass(frozen=True, eq=False)
class Reply:
    """What one draw of the parameters says.

    Attributes:
        worlds: mean outcomes of w worlds, in n rows of evidence or in one for all.
        values: m effects, of k levels.
        errors: what draws leave open of them; zero where they are exact.
        how: how evidence was taken in, if there was any.
        bounds: the least and the largest value over all couplings, where draws show them.
    """

    worlds: Float[Tensor, "w n k"]
    values: Float[Tensor, "m k"]
    errors: Float[Tensor, "m k"]
    how: str = ""
    bounds: tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]] | None = None


Query = Callable[[Model, Shared, int], Reply]
"""A question: a model, the values of its shared sites, a seed."""


@dataclass(frozen=True, eq=False)
class Spread:
    """The reply under the model's own parameters, and how it spreads.

    Attributes:
        reply: the effects; the mean of the draws where parameters are latent sites.
        draws: effects of every draw, (draws, m, k); None if there are none.
        worlds: mean outcomes of every draw, (draws, w, n, k).
        lower: ends of the interval, (m, k); NaN where there is none.
        upper: likewise.
        source: what the interval accounts for.
    """

    reply: Reply
    draws: Float[Tensor, "draws m k"] | None
    worlds: Float[Tensor, "draws w n k"] | None
    lower: Float[Tensor, "m k"]
    upper: Float[Tensor, "m k"]
    source: str


@dataclass(frozen=True)
class Options:
    """How intervals are made: see the arguments of `causal.effect`."""

    data: Any = None
    posterior: Source = "bootstrap"
    confidence: float = 0.95
    refits: int = 200
    refit: Mapping[str, Any] | None = None
    seed: int | None = None


def spread(query: Query, model: Model, options: Options, shown: Sequence[int]) -> Spread:
    """Asks the question of the model and of draws of its parameters.

    Args:
        query: the question.
        model: the model before all interventions.
        options: how the parameters are redrawn.
        shown: the levels that are reported.
    """
    check(model, options)
    refits = options.refits
    seeds = _seeds(options.seed, 3 * refits + 1)
    source, redrawn = _redraw(model, options, seeds[1:])
    with torch.no_grad():
        pairs = zip(redrawn, seeds[1::3], strict=False)
        again = [query(drawn, shared, s) for (drawn, shared), s in pairs]
        latent = _is_latent(model, options)
        reply = _averaged(again) if latent else query(model, {}, seeds[0])
    values = torch.stack([r.values for r in again]) if again else None
    worlds = torch.stack([r.worlds for r in again]) if again else None
    lower, upper = interval(reply, values, options.confidence)
    if values is not None and options.data is not None:
        closed = options.posterior == "bootstrap" and options.refit is None
        best = _best(query, model, options, seeds[0]) if closed else values.median(0).values
        gauge = (t[:, shown] for t in (reply.values, best, upper - lower))
        _warn_if_unfinished(*gauge, tolerance=0.1 if closed else 0.5)
    none = bool(lower.isnan().all())
    return Spread(reply, values, worlds, lower, upper, "none; " + _NO_DATA if none else source)


def _averaged(replies: Sequence[Reply]) -> Reply:
    """The posterior means."""
    values = torch.stack([r.values for r in replies]).mean(0)
    worlds = torch.stack([r.worlds for r in replies]).mean(0)
    ends = [r.bounds for r in replies if r.bounds is not None]
    bounds = None
    if ends:
        low, high = (torch.stack(list(each)).mean(0) for each in zip(*ends, strict=True))
        bounds = low, high
    return Reply(worlds, values, torch.zeros_like(values), replies[0].how, bounds)


def interval(
    reply: Reply, draws: Float[Tensor, "draws m k"] | None, confidence: float
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]]:
    """Quantiles of the draws, else the error of the reply, else NaN."""
    tail = torch.tensor((1 - confidence) / 2, dtype=torch.float64)
    if draws is not None:
        return draws.quantile(tail, 0), draws.quantile(1 - tail, 0)
    if not bool((reply.errors > 0).any()):
        nothing = torch.full_like(reply.values, torch.nan)
        return nothing, nothing
    half = -torch.special.ndtri(tail) * reply.errors
    return reply.values - half, reply.values + half


def check(model: Model, options: Options) -> None:
    """Refuses options that have no answer."""
    confidence, refits = options.confidence, options.refits
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it lies between 0 and 1, such as 0.95.")
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
    if options.data is not None and model.note is not None:
        raise ValueError(
            f"The model carries a note ({model.note}), and refits on data= would use the data "
            "beyond what it says. Leave data= out: the interval is then of the draws alone."
        )
    if isinstance(options.posterior, str) and options.posterior != "bootstrap":
        _check_method(model, options)


def _check_method(model: Model, options: Options) -> None:
    if not isinstance(model, SCM) or options.data is None or options.refit is not None:
        raise ValueError(
            f"posterior={options.posterior!r} is over the parameters of an SCM's mechanisms, given "
            "the rows data=, and trains no copies with refit=. Pass an SCM and data=; for another "
            "model pass the Posterior of pgm.inference over its latent sites, or models."
        )


def _redraw(
    model: Model, options: Options, seeds: list[int]
) -> tuple[str, Iterator[tuple[Model, Shared]]]:
    """Where the uncertainty of the parameters comes from, and draws of them."""
    data, refits, refit = options.data, options.refits, options.refit
    if not isinstance(options.posterior, str):
        return _given(model, options)
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
        if options.posterior == "bootstrap":
            drawn = bootstrap(model, batch, seeds=seeds[1::3])
            return f"Bayesian bootstrap of {n} rows, {refits} times", ((scm, {}) for scm in drawn)
        posterior = parameters(model, batch, method=options.posterior, draws=refits, seed=seeds[0])
        return posterior.source, ((scm, {}) for scm in posterior)
    if refit is None:
        raise ValueError(
            f"There is no closed form for {type(model).__name__}: say how a copy is trained on "
            "resampled rows, refit={'steps': 500, 'learning_rate': 1e-3}, as you trained the model."
        )
    return f"{refits} refits on resampled rows", _refits(model, data, refit, seeds)


def _given(model: Model, options: Options) -> tuple[str, Iterator[tuple[Model, Shared]]]:
    """Draws that the caller has: of shared sites by a posterior, or models."""
    if options.data is not None:
        raise ValueError("posterior= already holds draws, which saw their data: leave data= out.")
    if isinstance(options.posterior, Posterior):
        draws = options.posterior.draws
        names = [name for name in _shared(model) if name in draws]
        if not names:
            raise ValueError(
                f"The posterior has draws of {listing(list(draws))}, but the sites of "
                f"{type(model).__name__} outside the rows are {listing(_shared(model)) or 'none'}."
            )
        flat = {name: draws[name].flatten(0, 1) for name in names}
        total = len(flat[names[0]])
        chosen = torch.linspace(0, total - 1, min(options.refits, total)).long().tolist()
        like = {k: s.value for k, s in (sites_of(model, 2) or {}).items()}
        values = ({k: v[i].to(like[k]) for k, v in flat.items()} for i in chosen)
        how = f"{len(chosen)} draws of {listing(names)} by {options.posterior.method}"
        return how, ((model, each) for each in values)
    models = [m for m in options.posterior if isinstance(m, Model)]
    if len(models) < 2:
        raise ValueError(
            "posterior= is 'bootstrap', 'laplace', 'svi', 'nuts', a Posterior of pgm.inference, or "
            "a list of models, one a draw of the parameters; two or more of them make an interval."
        )
    return f"{len(models)} models", ((m, {}) for m in models)


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
        with torch.enable_grad():
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


def _is_latent(model: Model, options: Options) -> bool:
    """Whether the draws are those of a posterior of latent sites, or models of the caller's."""
    return not isinstance(options.posterior, str) or (options.data is None and bool(_shared(model)))


def _best(query: Query, model: Model, options: Options, seed: int) -> Float[Tensor, "m k"]:
    """The effects at the maximum of the likelihood."""
    best = copy.deepcopy(model)
    assert isinstance(best, SCM)
    estimate(best, options.data)
    with torch.no_grad():
        return query(best, {}, seed).values


def _warn_if_unfinished(
    difference: Float[Tensor, "m k"],
    best: Float[Tensor, "m k"],
    width: Float[Tensor, "m k"],
    *,
    tolerance: float,
) -> None:
    rounding = 1e-6 * difference.abs().max()
    gap = (difference - best).abs() - tolerance * width - rounding
    if bool((gap > 0).any()):
        i = int(gap.argmax())
        warnings.warn(
            f"Under the model's own parameters the effect is {float(difference.flatten()[i]):.4g}, "
            f"but {float(best.flatten()[i]):.4g} under parameters fitted to these data, as those "
            "behind the interval are: the model is not at the maximum of the likelihood. Train it "
            "longer or with a larger learning rate, on these rows; causal.estimate(scm, data) sets "
            "an SCM there at once.",
            RuntimeWarning,
            stacklevel=4,
        )


def _seeds(seed: int | None, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(fresh_seed() if seed is None else seed)
    return torch.randint(2**31 - 1, (count,), generator=generator).tolist()
