"""Was x necessary for the event, was it sufficient? Probabilities of causation (Pearl 1999).

Of the event Y, with x against x':

    PN  = P(not Y(x') | x, Y),  it would not have come about without x, where both were seen;
    PS  = P(Y(x) | x', not Y),  x would have brought it about, where neither was seen;
    PNS = P(Y(x), not Y(x')),   both, over all.

They are exact where tables allow enumeration, else frequencies of rows that are seen in all worlds.
How outcomes of two worlds go together is decided by a coupling and by no data: bounds over all
couplings are printed. Where the model cannot be enumerated they are Frechet's among the rows that
show x, x' and neither, or those of Tian & Pearl (2000) where P(Y(x') | x) is no matter of one world
alone; they are frequencies of the same rows as the probabilities, which lie between them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from causal.counterfactuals.answers import world_in_words
from causal.counterfactuals.worlds import Coupling
from causal.effects.enumeration import extremes, law
from causal.effects.question import Pair, Question, Shared, ask, play
from causal.effects.remarks import remarks, witnesses
from causal.effects.results import Effects
from causal.effects.twins import Twins, World
from causal.effects.uncertainty import Options, Reply, Source, spread
from causal.outcomes import in_units
from causal.scm import SCM
from causal.structural import Structural
from pgm import Model
from pgm.randomness import fresh_seed
from pgm.schema.columns import listing

_FEW = 10
"""Rows below which a conditional frequency is not reported."""

Event = Callable[[Tensor], Tensor]

Rows = Bool[Tensor, " n"]
"""Of every row that is drawn, whether something holds."""


def causation(
    model: Model,
    outcome: str,
    *,
    do: Mapping[str, Any],
    versus: Mapping[str, Any],
    event: Any,
    data: Any = None,
    posterior: Source = "bootstrap",
    confidence: float = 0.95,
    draws: int = 10_000,
    refits: int = 200,
    refit: Mapping[str, Any] | None = None,
    coupling: Coupling = None,
    seed: int | None = None,
) -> Effects:
    """The probabilities that a cause was necessary, sufficient, or both, for an event.

    Args:
        model: as in `causal.effect`.
        outcome: as in `causal.effect`.
        do: x, the cause, values of discrete sites.
        versus: x', its absence.
        event: the level of the outcome that is the event; of a number, a function of its values, in
            the unit of its column, that gives truth values.
        data: as in `causal.effect`, like all that follow.
        posterior: how the parameters are drawn given `data`.
        confidence: of the intervals.
        draws: rows sampled, where there is no enumeration.
        refits: draws of the parameters.
        refit: options of `pgm.fit` for other models than SCMs.
        coupling: of discrete sites.
        seed: of all draws.

    Returns:
        "PN", "PS" and "PNS".

    Raises:
        ValueError: no such event, or causes that are not the same sites in `do` and `versus`.

    Example:
        >>> from causal import SCM, CategoricalTable
        >>> y = CategoricalTable([[0.7, 0.3], [0.1, 0.9]], parents=["x"])
        >>> scm = SCM("x -> y", x=CategoricalTable([0.5, 0.5]), y=y)
        >>> print(causation(scm, "y", do={"x": 1}, versus={"x": 0}, event=1))
        Causation of y=1 by do(x=1) rather than do(x=0)
               value   95% interval
          PN   0.6667  none
          PS   0.8571  none
          PNS  0.6     none
          interval: none; the parameters are taken as known: pass data= for their uncertainty
          bounds over all couplings: PN [0.6667, 0.7778], PS [0.8571, 1], PNS [0.6, 0.7]
          not identified: y in two worlds at once, by gumbel coupling; no experiment can tell
    """
    question = ask(model, outcome, do=do, versus=versus, draws=draws, coupling=coupling)
    _check_cause(question)
    query = Causation(question, _event(question, event))
    options = Options(
        data, posterior, confidence, refits, refit, fresh_seed() if seed is None else seed
    )
    found = spread(query, question.model, options, [0])
    cause, absence = (world_in_words(w) for w in question.words)
    open_ = witnesses(question, [(question.do, question.versus)], [(outcome, 0)])
    if not isinstance(question.model, Structural):
        open_ = [outcome]
    draws_ = found.draws if found.draws is not None else found.reply.values[None]
    what = f"{outcome}={event}" if question.levels else f"an event of {outcome}"
    return Effects(
        title=f"Causation of {what} by {cause} rather than {absence}",
        outcome=outcome,
        names=("PN", "PS", "PNS"),
        levels=(),
        values=found.reply.values,
        lower=found.lower,
        upper=found.upper,
        error=found.reply.errors,
        bounds=query.bounds(question.model, found.reply),
        draws=draws_,
        confidence=confidence,
        source=found.source,
        remarks=(*_rare(found.reply.values), *remarks(question, open_, worlds=2)),
        note=question.model.note,
    )


@dataclass(frozen=True, eq=False)
class Causation:
    """PN, PS and PNS under one draw of the parameters.

    Attributes:
        question: what is asked.
        event: of values of the outcome in the model's numbers, whether they are the event.
    """

    question: Question
    event: Event

    def __call__(self, model: Model, shared: Shared, seed: int) -> Reply:
        """The three probabilities."""
        exact = self._enumerated(model)
        if exact is not None:
            return Reply(_no_worlds(), exact[:, None], torch.zeros_like(exact)[:, None])
        played = self._played(model, shared, seed)
        x, y, with_, without = played
        both = with_ & ~without
        chosen = [x[0] & y, x[1] & ~y, torch.ones_like(y)]
        asked = zip((~without, with_, both), chosen, strict=True)
        shares = torch.tensor([_share(event, rows) for event, rows in asked], dtype=torch.float64)
        values, errors = shares.T[..., None]
        ends = torch.tensor(self._drawn_bounds(model, *played), dtype=torch.float64)
        ends[values[:, 0].isnan()] = torch.nan
        return Reply(_no_worlds(), values, errors, bounds=(ends[:, :1], ends[:, 1:]))

    def bounds(self, model: Model, reply: Reply) -> tuple[Tensor, Tensor]:
        """Over all couplings, where that can be enumerated, else those of the rows of the reply."""
        if reply.bounds is not None:
            return reply.bounds
        ends = self._extremes(model)
        if ends is None:  # exact probabilities, but too many couplings
            ends = torch.full((3, 2), torch.nan, dtype=torch.float64)
        return ends[:, :1], ends[:, 1:]

    def _twins(self, model: SCM) -> list[tuple[Twins, World, bool]]:
        """By probability, the pair of worlds, what was seen in the first, and whether Y was."""
        q = self.question
        cause = {t: v for t, v in q.do.items() if q.before.get(t) is not v}
        absence = {t: v for t, v in q.versus.items() if q.before.get(t) is not v}
        pairs: list[Pair] = [(q.before, q.versus), (q.before, q.do), (q.do, q.versus)]
        twins = [Twins(model, *pair) for pair in pairs]
        return list(zip(twins, (cause, absence, {}), (True, False, True), strict=True))

    def _weights(self) -> tuple[Float[Tensor, " k"], list[Float[Tensor, "k k"]]]:
        """The event as weights of levels, and what is asked of the levels of both worlds."""
        k = self.question.levels
        y = self.event(torch.arange(k)).double()
        return y, [torch.outer(y, 1 - y), torch.outer(1 - y, y), torch.outer(y, 1 - y)]

    def _enumerated(self, model: Model) -> Float[Tensor, " 3"] | None:
        q = self.question
        if not isinstance(model, SCM) or not q.levels:
            return None
        y, weights = self._weights()
        found = []
        for (twins, seen, event), weight in zip(self._twins(model), weights, strict=True):
            ends = [twins.copy(q.outcome, w) for w in (0, 1)]
            evidence = _codes(twins, seen)
            if evidence is None:
                return None
            joint = law(twins, ends, evidence=evidence, coupling=q.coupling)
            if joint is None:
                return None
            among = (joint.sum(1) * (y if event else 1 - y)).sum() if seen else 1.0
            found.append((joint * weight).sum() / among)
        return torch.stack(found)

    def _extremes(self, model: Model) -> Float[Tensor, "3 2"] | None:
        q = self.question
        if not isinstance(model, SCM) or not q.levels:
            return None
        y, weights = self._weights()
        found = []
        for (twins, seen, event), weight in zip(self._twins(model), weights, strict=True):
            ends = [twins.copy(q.outcome, w) for w in (0, 1)]
            evidence = _codes(twins, seen)
            range_ = None if evidence is None else extremes(twins, ends, weight, evidence=evidence)
            if range_ is None or evidence is None:
                return None
            among = 1.0
            if seen:
                marginal = law(twins, ends[:1], evidence=evidence)
                assert marginal is not None
                among = float((marginal * (y if event else 1 - y)).sum())
            found.append([end / among for end in range_])
        return torch.tensor(found, dtype=torch.float64)

    def _drawn_bounds(
        self, model: Model, x: Sequence[Rows], y: Rows, with_: Rows, without: Rows
    ) -> list[tuple[float, float]]:
        """Bounds that are frequencies of the rows in which the worlds are seen."""
        cause, absence = x
        if self._is_of_one_world(model):
            return frechet(cause, absence, y, with_, without)
        p, q = (float(e.double().mean()) for e in (with_, without))
        xy, xn = (float((cause & e).double().mean()) for e in (y, ~y))
        ay, an = (float((absence & e).double().mean()) for e in (y, ~y))
        return tian_pearl(p, q, seen=(xy, xn, ay, an))

    def _is_of_one_world(self, model: Model) -> bool:
        """Whether P(Y(x') | x) and P(Y(x) | x') need no noise in two worlds at once."""
        if not isinstance(model, Structural):
            return False
        q = self.question
        sites = [t for t in q.do if isinstance(t, str) and q.before.get(t) is not q.do[t]]
        for world in (q.do, q.versus):
            twins = Twins(model, q.before, world)
            copies = [*((t, 0) for t in sites), twins.copy(q.outcome, 1)]
            if twins.doubled(twins.upstream(copies)):
                return False
        return True

    def _played(self, model: Model, shared: Shared, seed: int) -> tuple[Any, ...]:
        """Rows in which cause and absence are seen, and the event as it was and in both worlds."""
        q = self.question
        sites = [t for t in q.do if isinstance(t, str) and q.before.get(t) is not q.do[t]]
        pairs: list[Pair] = [({}, q.before), ({}, q.do), ({}, q.versus)]
        causes = [play(q, model, shared, [({}, q.before)], seed, site=t)[0] for t in sites]
        x = [
            torch.stack([c == w[t] for c, t in zip(causes, sites, strict=True)]).all(0)
            for w in (q.do, q.versus)
        ]
        y = [self.event(v) for v in play(q, model, shared, pairs, seed)]
        return x, y[0], y[1], y[2]


def frechet(
    cause: Rows, absence: Rows, y: Rows, with_: Rows, without: Rows
) -> list[tuple[float, float]]:
    """Bounds on PN, PS and PNS by the shares of Y(x) and Y(x') in rows of x, of x' and of neither.

    In rows that show x, Y is Y(x), so that P(Y(x), not Y(x') | x) lies between
    max(0, P(Y | x) - P(Y(x') | x)) and min(P(Y | x), 1 - P(Y(x') | x)) (Frechet 1951).

    Args:
        cause: whether a row shows x.
        absence: whether it shows x'.
        y: the event as it was.
        with_: the event under x.
        without: the event under x'.

    Example:
        >>> rows = torch.arange(8)
        >>> x, y = rows < 4, rows % 2 == 0  # half of either; Y(x) is Y, nobody has Y(x')
        >>> frechet(x, ~x, x & y, y, rows < 0)
        [(1.0, 1.0), (0.5, 0.5), (0.5, 0.5)]
    """
    n, low, high = len(y), 0, 0
    for rows in (cause, absence, ~cause & ~absence):
        size, p, q = (int(e.sum()) for e in (rows, rows & with_, rows & without))
        low, high = low + max(0, p - q), high + min(p, size - q)
    xy, an = int((cause & y).sum()), int((absence & ~y).sum())
    unharmed, helped = int((cause & ~without).sum()), int((absence & with_).sum())
    spared = int((cause & ~y).sum())
    had = int((absence & y).sum())
    pn = (max(0, unharmed - spared) / xy, min(xy, unharmed) / xy) if xy else (0.0, 1.0)
    ps = (max(0, helped - had) / an, min(an, helped) / an) if an else (0.0, 1.0)
    return [pn, ps, (low / n, high / n)]


def tian_pearl(
    p: float, q: float, *, seen: tuple[float, float, float, float]
) -> list[tuple[float, float]]:
    """Bounds on PN, PS and PNS from experiments and observations (Tian & Pearl 2000, sec. 4.2).

    They are those of two values of the cause; a share of rows with others widens PNS.

    Args:
        p: P(Y) under x.
        q: P(Y) under x'.
        seen: P(x, Y), P(x, not Y), P(x', Y), P(x', not Y).

    Example:
        Pearl (2009, Causality, table 9.2): deaths of 1000 who had to take the drug or not, and of
        1000 who chose either.

        >>> tian_pearl(0.016, 0.014, seen=(0.001, 0.499, 0.014, 0.486))[0]
        (1.0, 1.0)
    """
    xy, xn, ay, an = seen
    rest = max(0.0, 1 - xy - xn - ay - an)
    necessary, sufficient = max(0.0, xy + ay - q), max(0.0, p - 1 + an + xn)
    most = min(p, 1 - q, xy + an + rest, p - q + xn + ay + rest)
    pn = (necessary / xy, min(1.0, (1 - q - an) / xy)) if xy else (0.0, 1.0)
    ps = (sufficient / an, min(1.0, (p - xy) / an)) if an else (0.0, 1.0)
    return [pn, ps, (max(p - q, necessary, sufficient), most)]


def _rare(values: Float[Tensor, "3 1"]) -> list[str]:
    """Says of what there was too little."""
    absent = [n for n, v in zip(("PN", "PS"), values[:2, 0].tolist(), strict=True) if v != v]
    if not absent:
        return []
    return [
        f"{', '.join(absent)}: fewer than {_FEW} of the rows that were drawn show cause and event "
        "as it asks; take more draws="
    ]


def _no_worlds() -> Float[Tensor, "0 1 1"]:
    return torch.empty(0, 1, 1, dtype=torch.float64)


def _share(event: Bool[Tensor, " n"], rows: Bool[Tensor, " n"]) -> tuple[float, float]:
    """The frequency of an event among some rows and its error; NaN where there are few."""
    n = int(rows.sum())
    if n < _FEW:
        return float("nan"), float("nan")
    p = float(event[rows].double().mean())
    return p, max((p * (1 - p) / n) ** 0.5, 1e-12)


def _codes(twins: Twins, seen: World) -> dict[Any, int] | None:
    """What was seen in the first world as levels of copies."""
    found = {}
    for name, value in seen.items():
        if not isinstance(name, str) or twins.scm.mechanism(name).kind.levels == 1:
            return None
        found[twins.copy(name, 0)] = int(value.item())
    return found


def _event(question: Question, event: Any) -> Event:
    if callable(event):

        def holds(x: Shaped[Tensor, " n"]) -> Bool[Tensor, " n"]:
            value = x if question.levels else in_units(question.model.schema, question.outcome, x)
            said: Tensor = torch.as_tensor(event(value))
            if said.shape != x.shape or said.dtype != torch.bool:
                raise ValueError(
                    f"event= gave {said.dtype} of shape {tuple(said.shape)} for values of shape "
                    f"{tuple(x.shape)}: it gives one truth value for each, such as lambda y: y > 3."
                )
            return said

        return holds
    if event not in question.labels or not question.levels:
        what = listing([repr(label) for label in question.labels]) if question.levels else "none"
        raise ValueError(
            f"event={event!r}: the levels of {question.outcome!r} are: {what}. Pass one of them, "
            "or a function of its values, event=lambda y: y > 3."
        )
    code = question.labels.index(event)
    return lambda x: x == code


def _check_cause(question: Question) -> None:
    """A cause and its absence are two values of the same sites."""
    new = [
        {t: v for t, v in w.items() if question.before.get(t) is not v}
        for w in (question.do, question.versus)
    ]
    single = all(isinstance(v, Tensor) and v.numel() == 1 for w in new for v in w.values())
    if set(new[0]) != set(new[1]) or not single or any(isinstance(t, tuple) for t in new[0]):
        raise ValueError(
            "A cause and its absence are two values of the same sites, such as do={'x': 1} and "
            f"versus={{'x': 0}}; do= names {listing([str(t) for t in new[0]])} and versus= "
            f"{listing([str(t) for t in new[1]]) or 'nothing'}."
        )
