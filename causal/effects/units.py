"""Of whom an effect is: of all, of units like some evidence, or in worlds that show some evidence.

E[Y(a) - Y(b)] over all; E[Y(a) - Y(b) | e] over the units of which e was seen as they were, a
counterfactual (on the treated: e says that they were treated); E[Y | do(a), e] - E[Y | do(b), e],
with e seen in either world. The last two agree where e is upstream of what is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from causal.counterfactuals.answers import Draws
from causal.counterfactuals.conditioning import condition, evidence_rows
from causal.counterfactuals.scenarios import compare
from causal.effects.enumeration import extremes, mean
from causal.effects.question import Question, Shared, means, sampled
from causal.effects.remarks import coupled, witnesses
from causal.effects.twins import Twins, World
from causal.effects.uncertainty import Reply
from causal.interventions.actions import Target
from causal.interventions.handler import Intervened
from causal.scm import SCM
from causal.structural import Structural
from pgm import Model
from pgm.batch import SEEN, Batch, rows_of
from pgm.noise import NoNoiseForm
from pgm.randomness import seeded
from pgm.verb import prepare

_ROWS = 64
"""Different rows of evidence, above which nothing is enumerated."""

Bounds = tuple[Float[Tensor, " k"], Float[Tensor, " k"]]


@dataclass(frozen=True, eq=False)
class Everyone:
    """The effect over all."""

    question: Question
    words: str = ""
    open: tuple[str, ...] = ()

    def __call__(self, model: Model, shared: Shared, seed: int) -> Reply:
        """The mean outcomes in both worlds."""
        q = self.question
        worlds = (q.do, q.versus)
        try:
            found, drawn = means(q, model, shared, [({}, w) for w in worlds], seed)
        except (NoNoiseForm, ValueError):  # without common noise the worlds are drawn apart
            return self._apart(model, shared, seed)
        difference = found[0] - found[1]
        error = torch.zeros_like(difference)
        if drawn is not None:
            error = (drawn[0] - drawn[1]).std(0) / drawn.shape[1] ** 0.5
        return Reply(found[:, None], difference[None], error[None])

    def bounds(self, model: Model, seed: int) -> Bounds | None:
        """None: no coupling is asked about."""
        return None

    def _apart(self, model: Model, shared: Shared, seed: int) -> Reply:
        q, drawn = self.question, []
        for i, done in enumerate((q.do, q.versus)):
            with seeded(seed + i):
                x = sampled(q, model, shared, done)
            drawn.append(q.coded(x) if q.levels else x[:, None])
        found = torch.stack([x.mean(0) for x in drawn])
        error = torch.stack([x.std(0) / len(x) ** 0.5 for x in drawn]).square().sum(0).sqrt()
        return Reply(found[:, None], (found[0] - found[1])[None], error[None])


@dataclass(frozen=True, eq=False)
class Evidence:
    """The effect in the units, or the worlds, that show some evidence.

    Attributes:
        question: what is asked.
        batch: the evidence.
        words: what it is.
        counterfactual: whether it was seen in the units as they were.
        open: the nodes whose coupling the effect depends on.
    """

    question: Question
    batch: Batch
    words: str
    counterfactual: bool
    open: tuple[str, ...] = ()

    def __call__(self, model: Model, shared: Shared, seed: int) -> Reply:
        """The mean outcomes in both worlds, by row of the evidence."""
        exact = self._enumerated(model)
        if exact is not None:
            difference = (exact[0] - exact[1]).mean(0)
            zero = torch.zeros_like(difference)
            return Reply(exact, difference[None], zero[None], "evidence by enumeration, exact")
        if self.counterfactual:
            return self._units(model, shared, seed)
        return self._conditioned(model, shared, seed)

    def bounds(self, model: Model, seed: int) -> Bounds | None:
        """The extremes of the effect over all couplings."""
        if not coupled(self.question, self.open):
            return None
        found = self._extremes(model)
        if found is None:
            answers = self._compared(model, {}, seed)
            name = self.question.outcome
            ranges = [a.bounds.get(name) if a.bounds else None for a in answers]
            if ranges[0] is None or ranges[1] is None:
                nothing = torch.full((len(self.question.labels),), torch.nan).double()
                return nothing, nothing
            ends = [self.question.in_units(end.double()) for pair in ranges for end in pair]  # type: ignore[union-attr]
            found = torch.stack(ends).mean(1).reshape(2, 2, -1)
        return found[0, 0] - found[1, 1], found[0, 1] - found[1, 0]

    def _units(self, model: Model, shared: Shared, seed: int) -> Reply:
        """Counterfactuals of the rows, on one abduction of their noise."""
        q, drawn, exact = self.question, [], True
        for answer in self._compared(model, shared, seed):
            if answer.law is not None:
                drawn.append(q.in_units(answer.law.of(q.outcome)[0].double())[None, :, None])
                continue
            exact = exact and answer.size[0] == 1
            drawn.append(q.coded(answer.draws[q.outcome]))
            ess = float(answer.ess.mean()) if answer.ess is not None else answer.size[0]
        worlds = torch.stack([x.mean(0) for x in drawn])
        difference = (worlds[0] - worlds[1]).mean(0)
        error = torch.zeros_like(difference)
        if len(drawn[0]) > 1 and not exact:
            error = (drawn[0] - drawn[1]).mean(1).std(0) / ess**0.5
        return Reply(worlds, difference[None], error[None], _how(answer))

    def _compared(self, model: Model, shared: Shared, seed: int) -> Any:
        q, was = self.question, model
        if q.before or shared:  # a draw of the parameters is held by setting them to it
            was = Intervened(model, _held(q.before, shared))
        do = [self._new(model, w) for w in (q.do, q.versus)]
        return compare(
            was, self.batch, do=do, particles=q.draws_a_row, coupling=q.coupling, seed=seed
        )

    def _new(self, model: Model, world: World) -> World:
        """What is done in a world; where nothing is, something that changes nothing."""
        before = self.question.before
        new = {t: v for t, v in world.items() if before.get(t) is not v}
        if new:
            return new
        site = next(t if isinstance(t, str) else t[1] for t in self.question.do)
        if isinstance(model, SCM) and site not in before:
            return {site: model.mechanism(site)}
        return {site: lambda value, parents: value}

    def _conditioned(self, model: Model, shared: Shared, seed: int) -> Reply:
        """The means in either world given what it shows."""
        q, found, errors = self.question, [], []
        for i, done in enumerate((q.do, q.versus)):
            acted = Intervened(model, _held(done, shared)) if done or shared else model
            answer = condition(acted, self.batch, particles=q.draws_a_row, seed=seed + i)
            if answer.law is not None:
                x = q.in_units(answer.law.of(q.outcome)[0].double())[:, None]
                found.append(x)
                errors.append(torch.zeros(1, dtype=torch.float64))
                continue
            if q.outcome in answer.probabilities:
                found.append(answer.probabilities[q.outcome].double())
                errors.append(torch.zeros(q.levels, dtype=torch.float64))
                continue
            x = q.coded(answer.draws[q.outcome])
            ess = float(answer.ess.mean()) if answer.ess is not None else len(x)
            found.append(x.mean(0))
            errors.append(x.mean(1).std(0) / ess**0.5 if len(x) > 1 else 0 * x[0, 0])
        worlds = torch.stack(found)
        error = torch.stack(errors).square().sum(0).sqrt()
        return Reply(worlds, (worlds[0] - worlds[1]).mean(0)[None], error[None], _how(answer))

    def _enumerated(self, model: Model) -> Float[Tensor, "2 n k"] | None:
        """Exact means of both worlds, where evidence and outcome have tables upstream."""
        q, worlds = self.question, []
        coded = self._codes(model)
        if coded is None or not isinstance(model, SCM):
            return None
        rows, which = coded
        for done in (q.do, q.versus):
            twins = Twins(model, q.before if self.counterfactual else {}, done)
            seen = 0 if self.counterfactual else 1
            found = []
            for row in rows:
                evidence = {twins.copy(name, seen): code for name, code in row.items()}
                y = twins.copy(q.outcome, 1)
                m = mean(twins, y, evidence=evidence, coupling=q.coupling)
                if m is None:
                    return None
                found.append(q.in_units(m))
            worlds.append(torch.stack(found)[which])
        return torch.stack(worlds)

    def _extremes(self, model: Model) -> Float[Tensor, "2 2 k"] | None:
        """Lower and upper bounds of the means of both worlds, averaged over the rows."""
        q, coded = self.question, self._codes(model)
        if coded is None or not isinstance(model, SCM) or not q.levels:
            return None
        rows, which = coded
        table = torch.empty(2, 2, len(rows), q.levels, dtype=torch.float64)
        for i, done in enumerate((q.do, q.versus)):
            twins = Twins(model, q.before, done)
            for j, row in enumerate(rows):
                evidence = {twins.copy(name, 0): code for name, code in row.items()}
                for level, weight in enumerate(torch.eye(q.levels, dtype=torch.float64)):
                    ends = extremes(twins, [twins.copy(q.outcome, 1)], weight, evidence=evidence)
                    if ends is None:
                        return None
                    table[i, :, j, level] = torch.tensor(ends, dtype=torch.float64)
        return table[:, :, which].mean(2)

    def _codes(self, model: Model) -> tuple[list[dict[str, int]], Tensor] | None:
        """The different rows of evidence as levels, and which row is which."""
        if not isinstance(model, SCM) or any(name.endswith(SEEN) for name in self.batch):
            return None
        if any(n not in model.nodes or model.mechanism(n).kind.levels == 1 for n in self.batch):
            return None
        table = torch.stack([x.long() for x in self.batch.values()], 1)
        different, which = torch.unique(table, dim=0, return_inverse=True)
        if len(different) > _ROWS:
            return None
        rows = [dict(zip(self.batch, row, strict=True)) for row in different.tolist()]
        return rows, which


def of_whom(question: Question, among: Any, given: Any) -> Everyone | Evidence:
    """The units that a question is about.

    Raises:
        ValueError: both kinds of evidence at once.
    """
    if among is not None and given is not None:
        raise ValueError(
            "among= says who the units were before anything was done, given= what is seen in the "
            "worlds of the interventions; the answer to both at once is not offered. Pass one."
        )
    if among is None and given is None:
        return Everyone(question)
    evidence, counterfactual = (given, False) if among is None else (among, True)
    batch = prepare(question.model, evidence_rows(question.model, evidence))
    words = f"{'among' if counterfactual else 'given'} {_in_words(evidence, batch)}"
    open_: list[str] = [question.outcome] if counterfactual and question.levels else []
    if counterfactual and isinstance(question.model, Structural):
        seen = [(name, 0) for name in batch if name in question.model.nodes]
        pairs = [(question.before, w) for w in (question.do, question.versus)]
        open_ = witnesses(question, pairs, seen)
    return Evidence(question, batch, words, counterfactual, tuple(open_))


def _held(world: World, shared: Shared) -> dict[Target, Any]:
    """A world in which the sites outside the rows have the values of one draw."""
    held: dict[Target, Any] = dict(world)
    for name, value in shared.items():
        held.setdefault(name, value)
    return held


def _how(answer: Draws) -> str:
    """By which rung evidence was taken in, and how far it can be trusted."""
    exact = ", exact" if answer.law is not None or answer.size[0] == 1 else ""
    words = f"evidence by {answer.rung}{exact}"
    if answer.ess is not None:
        words += f"; effective particles a row at least {float(answer.ess.min()):.0f}"
    if answer.k is not None and not bool(answer.k.isnan().all()):
        words += f", k-hat at most {float(answer.k[~answer.k.isnan()].max()):.2f}"
    return words


def _in_words(evidence: Any, batch: Batch) -> str:
    if isinstance(evidence, Mapping) and rows_of(batch) == 1:
        values = {k: v.item() if isinstance(v, Tensor) else v for k, v in evidence.items()}
        return ", ".join(
            f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items()
        )
    return f"{rows_of(batch)} rows"
