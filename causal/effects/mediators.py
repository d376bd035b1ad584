"""Direct and indirect effects, and effects along paths: Y(x, M(x')), one world heard in another.

With x against x' (Pearl 2001, Direct and indirect effects): the natural direct effect
Y(x, M(x')) - Y(x') lets everything but the mediators M answer to x; the natural indirect one
Y(x', M(x)) - Y(x') the mediators alone. What both leave of the total effect is the interaction
through M (VanderWeele 2013). The effect along some arrows (Avin, Shpitser & Pearl 2005, def. 3)
lets every node hear the value under x through them, and the value under x' through all others. All
worlds share the noise.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor

from causal.counterfactuals.answers import world_in_words
from causal.counterfactuals.worlds import Coupling
from causal.effects.enumeration import extremes
from causal.effects.question import Pair, Question, Shared, ask, means, shown
from causal.effects.remarks import coupled, remarks, witnesses
from causal.effects.results import Effects
from causal.effects.twins import BEFORE, Twins, World
from causal.effects.uncertainty import Options, Reply, Source, spread
from causal.graph import ancestors, check_nodes, descendants, parse
from causal.scm import SCM
from causal.structural import Arrow, Structural
from pgm import Model
from pgm.randomness import fresh_seed
from pgm.schema.columns import listing
from pgm.verb import Unsupported

_NAMES = ("total", "natural direct", "natural indirect", "interaction")


def mediation(
    model: Model,
    outcome: str,
    *,
    do: Mapping[Any, Any],
    versus: Mapping[Any, Any],
    through: Sequence[str] | None = None,
    data: Any = None,
    posterior: Source = "bootstrap",
    level: Any = None,
    confidence: float = 0.95,
    draws: int = 10_000,
    refits: int = 200,
    refit: Mapping[str, Any] | None = None,
    coupling: Coupling = None,
    seed: int | None = None,
) -> Effects:
    """The total effect, parted into natural direct and indirect effects.

    Args:
        model: as in `causal.effect`.
        outcome: as in `causal.effect`.
        do: x, the intervention.
        versus: x', what it is compared with.
        through: the mediators M; by default all nodes on a directed path from what is done to the
            outcome.
        data: as in `causal.effect`, like all that follow.
        posterior: how the parameters are drawn given `data`.
        level: the one level of the outcome to report.
        confidence: of the intervals.
        draws: rows sampled, all of them seen in every world.
        refits: draws of the parameters.
        refit: options of `pgm.fit` for other models than SCMs.
        coupling: of discrete sites, where a node matters in two worlds at once.
        seed: of all draws.

    Returns:
        "total", "natural direct", "natural indirect" and "interaction", which add up. Where another
        node than the mediators answers to x and causes mediator and outcome, their joint law in two
        worlds decides, which nothing identifies: the answer names it.

    Raises:
        ValueError: mediators that are none, or none in the graph.
        Unsupported: a model without a graph and no `through`.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> m, y = LinearGaussian({"x": 2.0}), LinearGaussian({"x": 1.0, "m": 3.0})
        >>> scm = SCM("x -> m -> y; x -> y", x=LinearGaussian(), m=m, y=y)
        >>> print(mediation(scm, "y", do={"x": 1.0}, versus={"x": 0.0}))
        Effect of do(x=1) versus do(x=0) on y through m
                            value  95% interval
          total             7      none
          natural direct    1      none
          natural indirect  6      none
          interaction       0      none
          interval: none; the parameters are taken as known: pass data= for their uncertainty
    """
    question = ask(model, outcome, do=do, versus=versus, draws=draws, coupling=coupling)
    mediators = _mediators(question, through)
    held: dict[Any, Any] = dict.fromkeys(mediators, BEFORE)
    pairs: list[Pair] = [
        ({}, question.do),
        ({}, question.versus),
        (question.versus, {**question.do, **held}),
        (question.do, {**question.versus, **held}),
    ]
    options = Options(data, posterior, confidence, refits, refit, _seed(seed))
    parted = torch.tensor([[1, -1, 0, 0], [0, -1, 1, 0], [0, -1, 0, 1], [1, 1, -1, -1]])
    query = Contrasts(question, tuple(pairs), parted.double())
    title = f"{_title(question)} through {listing(mediators)}"
    return _answer(query, title, _NAMES, options, level)


def path_effect(
    model: Model,
    outcome: str,
    *,
    do: Mapping[Any, Any],
    versus: Mapping[Any, Any],
    along: str | Iterable[Arrow],
    data: Any = None,
    posterior: Source = "bootstrap",
    level: Any = None,
    confidence: float = 0.95,
    draws: int = 10_000,
    refits: int = 200,
    refit: Mapping[str, Any] | None = None,
    coupling: Coupling = None,
    seed: int | None = None,
) -> Effects:
    """The effect that some arrows carry: all others carry what they would have without it.

    Args:
        model: a model with a graph.
        outcome: as in `causal.effect`, like all arguments but `along`.
        do: the intervention.
        versus: what it is compared with.
        along: the arrows that answer to `do`, `[("x", "m"), ("m", "y")]`, or paths,
            `"x -> m -> y"`, parted by semicolons.
        data: the rows that the model was fitted to.
        posterior: how the parameters are drawn given `data`.
        level: the one level of the outcome to report.
        confidence: of the intervals.
        draws: rows sampled, all of them seen in both worlds.
        refits: draws of the parameters.
        refit: options of `pgm.fit` for other models than SCMs.
        coupling: of discrete sites, where a node matters in two worlds at once.
        seed: of all draws.

    Returns:
        The effect "along", the "total" one, and the effect along all "other" arrows that is left
        when those answer already, total - along. A recanting witness, from which paths of both
        kinds go on to the outcome, makes it unidentified by any experiment; the answer names it.

    Raises:
        ValueError: an arrow that the graph does not have, or arrows without a path from what is
            done to the outcome.
        Unsupported: a model without a graph.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> m, y = LinearGaussian({"x": 2.0}), LinearGaussian({"x": 1.0, "m": 3.0})
        >>> scm = SCM("x -> m -> y; x -> y", x=LinearGaussian(), m=m, y=y)
        >>> found = path_effect(scm, "y", do={"x": 1.0}, versus={"x": 0.0}, along="x -> m -> y")
        >>> found["along"]
        tensor([6.], dtype=torch.float64)
    """
    question = ask(model, outcome, do=do, versus=versus, draws=draws, coupling=coupling)
    active = _active(question, along)
    pairs: list[Pair] = [
        ({}, question.do),
        ({}, question.versus),
        (question.versus, {**question.do, **_held(question, active)}),
    ]
    options = Options(data, posterior, confidence, refits, refit, _seed(seed))
    parted = torch.tensor([[0.0, -1, 1], [1, -1, 0], [1, 0, -1]]).double()
    query = Contrasts(question, tuple(pairs), parted)
    title = f"{_title(question)} along {listing([' -> '.join(arrow) for arrow in active])}"
    return _answer(query, title, ("along", "total", "other"), options, level)


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Linear combinations of the mean outcomes of several pairs of worlds.

    Attributes:
        question: what is asked.
        pairs: the worlds.
        weight: one row a combination.
    """

    question: Question
    pairs: tuple[Pair, ...]
    weight: Float[Tensor, "m w"]

    def __call__(self, model: Model, shared: Shared, seed: int) -> Reply:
        """The combinations, on the noise of the same rows."""
        found, drawn = means(self.question, model, shared, self.pairs, seed)
        values = self.weight @ found
        errors = torch.zeros_like(values)
        if drawn is not None:
            each = torch.einsum("mw,wnk->mnk", self.weight, drawn)
            errors = each.std(1) / each.shape[1] ** 0.5
        return Reply(found[:, None], values, errors)

    def bounds(self, model: Model) -> tuple[Tensor, Tensor]:
        """Extremes over all couplings of every combination: the sum of those of its worlds.

        NaN where no coupling is asked about.
        """
        decided = [not witnesses(self.question, [pair]) for pair in self.pairs]
        ends = torch.stack([self._extremes(model, pair) for pair in self.pairs])
        weight = self.weight[:, :, None]
        low, high = (torch.where(weight == 0, 0.0, weight * ends[:, i]) for i in (0, 1))
        found = torch.minimum(low, high).sum(1), torch.maximum(low, high).sum(1)
        plain = (self.weight[:, ~torch.tensor(decided)] == 0).all(1, keepdim=True)
        return found[0].masked_fill(plain, torch.nan), found[1].masked_fill(plain, torch.nan)

    def _extremes(self, model: Model, pair: Pair) -> Float[Tensor, "2 k"]:
        """NaN where they cannot be enumerated."""
        q, k = self.question, len(self.question.labels)
        if not witnesses(q, [pair]):
            found = means(q, model, {}, [pair], 0)[0]
            return found.expand(2, k)
        nothing = torch.full((2, k), torch.nan, dtype=torch.float64)
        if not isinstance(model, SCM) or not q.levels:
            return nothing
        twins = Twins(model, *pair)
        y = [twins.copy(q.outcome, 1)]
        for level, weight in enumerate(torch.eye(k, dtype=torch.float64)):
            ends = extremes(twins, y, weight, evidence={})
            if ends is None:
                return nothing
            nothing[:, level] = torch.tensor(ends, dtype=torch.float64)
        return nothing


def _answer(
    query: Contrasts, title: str, names: tuple[str, ...], options: Options, level: Any
) -> Effects:
    question = query.question
    kept = shown(question, level)
    found = spread(query, question.model, options, kept)
    open_ = witnesses(question, query.pairs)
    bounds = query.bounds(question.model) if coupled(question, open_) else None
    draws = found.draws if found.draws is not None else found.reply.values[None]
    return Effects(
        title=title,
        outcome=question.outcome,
        names=names,
        levels=tuple(question.labels[i] for i in kept) if question.levels else (),
        values=found.reply.values[:, kept],
        lower=found.lower[:, kept],
        upper=found.upper[:, kept],
        error=found.reply.errors[:, kept],
        bounds=None if bounds is None else (bounds[0][:, kept], bounds[1][:, kept]),
        draws=draws[..., kept],
        confidence=options.confidence,
        source=found.source,
        remarks=remarks(question, open_, worlds=2),
        note=question.model.note,
    )


def _title(question: Question) -> str:
    do, versus = (world_in_words(w) for w in question.words)
    return f"Effect of {do} versus {versus} on {question.outcome}"


def _seed(seed: int | None) -> int:
    return fresh_seed() if seed is None else seed


def _done(question: Question) -> list[str]:
    """The sites that the two worlds differ in."""
    worlds = (question.do, question.versus)
    if any(isinstance(t, tuple) for w in worlds for t in w):
        raise ValueError(
            "An effect is parted by what carries the change of a site: name sites in do= and "
            "versus=, and no arrows."
        )
    if set(question.do) != set(question.versus):
        raise ValueError(
            f"do= and versus= are two values of the same sites, but name "
            f"{listing([str(t) for t in question.do])} and "
            f"{listing([str(t) for t in question.versus]) or 'nothing'}."
        )
    new = [t for t, v in question.do.items() if question.before.get(t) is not v]
    return [t for t in new if isinstance(t, str)]


def _mediators(question: Question, through: Sequence[str] | None) -> list[str]:
    """The mediators, checked, or all of them."""
    done = _done(question)
    if isinstance(through, str):
        through = [through]
    if not isinstance(question.model, Structural):
        if through is None:
            raise Unsupported(
                f"{type(question.model).__name__} has no graph in which mediators could be found: "
                "name them, through=['m'], or use SCM.from_program(program)."
            )
        return list(through)
    graph = question.model.graph
    if question.outcome in done:
        raise ValueError(f"The outcome {question.outcome!r} is what is done.")
    between = descendants(graph, done) & ancestors(graph, question.outcome)
    between -= {*done, question.outcome}
    if through is None:
        found = [node for node in graph if node in between]
    else:
        check_nodes(graph, through, what="The mediator")
        found = list(through)
    if wrong := [node for node in found if node not in between]:
        raise ValueError(
            f"{listing(wrong)} lies on no directed path from {listing(done)} to "
            f"{question.outcome!r}. Mediators here are: {listing(sorted(between)) or 'none'}."
        )
    if not found:
        raise ValueError(
            f"No node lies between {listing(done)} and {question.outcome!r}, so that there is "
            "nothing to part: ask for causal.effect."
        )
    return found


def _active(question: Question, along: str | Iterable[Arrow]) -> list[Arrow]:
    """The arrows that answer to the intervention, in the order of the graph."""
    if not isinstance(question.model, Structural):
        raise Unsupported(
            f"{type(question.model).__name__} has no graph, and so no arrows. Use an SCM, or "
            "SCM.from_program(program)."
        )
    graph, done = question.model.graph, _done(question)
    wanted = parse(along) if isinstance(along, str) else nx.DiGraph(list(along))
    absent = [arrow for arrow in wanted.edges if arrow not in graph.edges]
    if absent:
        raise ValueError(
            f"The graph has no arrow {' -> '.join(absent[0])}. Its arrows are: "
            f"{listing([f'{a} -> {b}' for a, b in graph.edges])}."
        )
    starts = [v for v in done if v in wanted]
    if question.outcome not in wanted or not any(
        nx.has_path(wanted, v, question.outcome) for v in starts
    ):
        raise ValueError(
            f"The arrows of along= make no path from {listing(done)} to {question.outcome!r}, so "
            "that they carry nothing."
        )
    if isinstance(along, str):
        _check_paths(along, wanted, done, question.outcome)
    return [arrow for arrow in graph.edges if arrow in wanted.edges]


def _check_paths(along: str, wanted: nx.DiGraph, done: list[str], outcome: str) -> None:
    """Paths are named one by one; arrows of several may make one that was not named."""
    parts = [part.split("->") for part in along.replace("\n", ";").split(";") if part.strip()]
    groups = [[group.strip(' {}"').split() for group in part] for part in parts]
    said = {path for group in groups for path in itertools.product(*group)}
    made = {tuple(p) for v in done if v in wanted for p in nx.all_simple_paths(wanted, v, outcome)}
    if extra := sorted(made - said):
        raise ValueError(
            f"The arrows of these paths also make {' -> '.join(extra[0])}, which was not named, "
            "and no choice of arrows tells them apart: such a set of paths has no effect of its "
            "own. Name that path too, or other paths; or pass the arrows themselves."
        )


def _held(question: Question, active: Sequence[Arrow]) -> World:
    """The arrows that carry what they would without the intervention."""
    assert isinstance(question.model, Structural)
    graph = question.model.graph
    touched = descendants(graph, _done(question))
    fixed = set(question.do)
    return {
        (a, b): BEFORE
        for a, b in graph.edges
        if a in touched and b not in fixed and (a, b) not in active
    }
