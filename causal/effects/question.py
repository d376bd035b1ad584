"""What is asked of a model, checked, and asked again of every draw of its parameters.

A world is a set of interventions. The mean outcome of a world is exact where mechanisms allow it
(`causal.effects.enumeration`), else that of draws on common noise: the same rows, with the same
noise, are seen in every world, so that differences have the error of differences of the same units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from causal.counterfactuals.worlds import Coupling, Units, predict
from causal.effects.enumeration import mean
from causal.effects.twins import BEFORE, Twins, World
from causal.interventions.actions import checked, is_shift, words
from causal.interventions.handler import Intervened, unwrap
from causal.interventions.sites import asking, sites_of
from causal.mechanisms import Mechanism
from causal.outcomes import categories, frequencies, in_units, names
from causal.scm import SCM
from pgm import Model
from pgm.batch import Batch
from pgm.schema.columns import listing, suggestion
from pgm.verb import Unsupported
from pgm.verbs.sampling import draw

Shared = Mapping[str, Tensor]
"""The values of the sites outside the rows."""

Pair = tuple[World, World]
"""What is done in a first world, and in a second that may take values of the first."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of every draw of the parameters.

    Attributes:
        model: the model before all interventions.
        before: what had been done to it.
        outcome: the site.
        levels: how many the outcome has; 0 for a number.
        labels: what the means are called.
        do: the one intervention, with what had been done before.
        versus: the other.
        draws: rows sampled in each world.
        coupling: of discrete sites.
    """

    model: Model
    before: World
    outcome: str
    levels: int
    labels: tuple[Any, ...]
    do: World
    versus: World
    draws: int
    coupling: Coupling = None

    @property
    def words(self) -> tuple[dict[str, str], dict[str, str]]:
        """Both interventions in words."""
        schema = self.model.schema
        return words(schema, dict(self.do)), words(schema, dict(self.versus))

    @property
    def draws_a_row(self) -> int:
        """Particles for each row of evidence."""
        return max(2, min(self.draws, 4000))

    def coded(self, x: Shaped[Tensor, "*n"]) -> Float[Tensor, "*n k"]:
        """Values of the outcome as what is averaged: its unit, or one-hot codes, in float64."""
        if self.levels:
            return frequencies(x, self.levels).double()
        return in_units(self.model.schema, self.outcome, x)[..., None]

    def in_units(self, mean: Float[Tensor, "*n k"]) -> Float[Tensor, "*n k"]:
        """Means of the outcome in its unit; probabilities stay as they are."""
        return mean if self.levels else in_units(self.model.schema, self.outcome, mean)


def ask(
    model: Model,
    outcome: str,
    *,
    do: Mapping[Any, Any],
    versus: Mapping[Any, Any] | None,
    draws: int,
    coupling: Coupling = None,
) -> Question:
    """Checks a question.

    Raises:
        ValueError: an outcome or an intervention that the model does not have.
    """
    if draws < 2:
        raise ValueError(f"draws is {draws}; an average and its error need two or more.")
    base, before = unwrap(model)
    acted = {**before, **checked(base, before, do)}
    other = {**before, **(checked(base, before, versus) if versus else {})}
    k = _levels(base, outcome)
    labels = names(base.schema, outcome, k) if k else ("mean",)
    return Question(base, before, outcome, k, labels, acted, other, draws, coupling)


def shown(question: Question, level: Any) -> list[int]:
    """Which of the means are reported.

    Raises:
        ValueError: no such level.
    """
    if level is None:
        return list(range(len(question.labels)))
    if not question.levels or level not in question.labels:
        what = listing([repr(label) for label in question.labels]) if question.levels else "none"
        raise ValueError(
            f"level={level!r}: the levels of {question.outcome!r} are: {what}."
            f"{suggestion(level, question.labels)} Leave level= out for all of them."
        )
    return [question.labels.index(level)]


def means(
    question: Question, model: Model, shared: Shared, pairs: Sequence[Pair], seed: int
) -> tuple[Float[Tensor, "w k"], Float[Tensor, "w draws k"] | None]:
    """The mean outcome in the second world of each pair, and the draws if it is not exact."""
    exact = [_exact(question, model, pair) for pair in pairs]
    known = [m for m in exact if m is not None]
    if len(known) == len(pairs):
        return torch.stack(known), None
    played = play(question, model, shared, pairs, seed)
    drawn = torch.stack([question.coded(x) for x in played])
    return drawn.mean(1), drawn


def _exact(question: Question, model: Model, pair: Pair) -> Float[Tensor, " k"] | None:
    if not isinstance(model, SCM):
        return None
    with torch.no_grad():
        twins = Twins(model, *pair)
        found = mean(twins, twins.copy(question.outcome, 1), coupling=question.coupling)
    return None if found is None else question.in_units(found)


def play(
    question: Question,
    model: Model,
    shared: Shared,
    pairs: Sequence[Pair],
    seed: int,
    *,
    site: str | None = None,
) -> list[Shaped[Tensor, " draws"]]:
    """Draws of the outcome in the second world of each pair, all on the noise of the same rows.

    Args:
        question: what is asked.
        model: under one draw of the parameters.
        shared: as in `Reply`'s query.
        pairs: of worlds.
        seed: of the rows and their noise.
        site: another site than the outcome.
    """
    was = Intervened(model, question.before) if question.before else model
    with asking(was, seed):
        sites = draw(was, question.draws, latents=shared).sites
        rows = {k: s.value for k, s in sites.items() if s.rows and not s.deterministic}
        rest = {k: s.value for k, s in sites.items() if not s.rows and not s.deterministic}
        units = Units(was, Batch(rows), rest, question.coupling)
        played = []
        for first, second in pairs:
            if BEFORE in second.values():
                second = _resolved(second, world(question, units, first))
            values = world(question, units, second)
            played.append(values[site or question.outcome].expand(question.draws))
    return played


def world(question: Question, units: Units, done: World) -> Mapping[str, Tensor]:
    """The rows in a world."""
    new = {t: v for t, v in done.items() if question.before.get(t) is not v}
    if not new:
        return {**units.batch, **units.latents}
    base = unwrap(units.model)[0]
    fresh = {t for t, v in new.items() if isinstance(t, str) and not _keeps_noise(v)}
    return predict(units, Intervened(base, done), fresh).values


def sampled(
    question: Question, model: Model, shared: Shared, done: World
) -> Shaped[Tensor, " draws"]:
    """Draws of the outcome in one world: numbers in its unit, or levels as codes."""
    acted = Intervened(model, done) if done else model
    given = {name: value for name, value in shared.items() if name not in done}
    with asking(acted, None):
        x = draw(acted, question.draws, latents=given).sites[question.outcome].value
    return x if question.levels else in_units(model.schema, question.outcome, x)


def _resolved(second: World, first: Mapping[str, Tensor]) -> World:
    """A second world in which the values of the first stand by row."""

    def value(target: Any, action: Any) -> Any:
        name = target[0] if isinstance(target, tuple) else target
        return first[name] if action is BEFORE else action

    return {t: value(t, a) for t, a in second.items()}


def _keeps_noise(value: Any) -> bool:
    return isinstance(value, Mechanism) or (
        not isinstance(value, Tensor | Distribution) and is_shift(value)
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
