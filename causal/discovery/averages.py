"""Effects averaged over graphs: sum over graphs of p(graph | data) p(y | do(x), graph, data).

Each graph that is drawn is made a structural model, whose tables are drawn from their posterior
under the Dirichlet prior of the score (a linear-Gaussian one: the Bayesian bootstrap), and is asked
for the effect: the interval holds what the data leave open of the graph and of the tables (Madigan
& York 1995; Maathuis, Kalisch & Buhlmann 2009).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor

from causal.discovery.discrete import Discrete
from causal.effects.question import Pair, Question, ask, means
from causal.effects.results import Effect
from causal.fitting.estimation import bootstrap
from causal.mechanisms import CategoricalTable
from causal.scm import SCM
from pgm import Categorical, Continuous, Schema
from pgm.batch import Batch
from pgm.randomness import fresh_seed, seeded

if TYPE_CHECKING:
    from causal.discovery.posterior import GraphPosterior

Fit = Callable[[SCM, Mapping[str, Tensor]], Any]
"""Trains a model in place, from rows in the model's numbers with `clamped` among them."""


def average_effect(
    posterior: "GraphPosterior",
    outcome: str,
    *,
    do: Mapping[str, Any],
    versus: Mapping[str, Any] | None,
    draws: int,
    fit: Fit | None,
    confidence: float,
    seed: int | None,
) -> Effect:
    """The effect of an intervention, averaged over the posterior of graphs and of their tables.

    Args:
        posterior: of the graphs.
        outcome: a node.
        do: the intervention, as in `causal.do`.
        versus: what it is compared with; None for the system left alone.
        draws: graphs, and tables of each.
        fit: trains the model of a graph in place of the draws of its tables, once for each graph
            that differs: `lambda scm, rows: privacy.fit(scm, rows, ...)` makes each fit private,
            and their budgets add up.
        confidence: of the interval.
        seed: of all draws.

    Raises:
        ValueError: a node or level that the table does not have, or too few draws.

    Example:
        >>> from causal.discovery import discover
        >>> import pgm.data
        >>> cells = pgm.data.load("sachs")
        >>> found = discover(cells.frame[::10], clamped=cells.clamped[::10], max_parents=2)
        >>> do, versus = {"PKA": "high"}, {"PKA": "low"}
        >>> effect = found.effect("Akt", do=do, versus=versus, draws=50, seed=0)
        >>> effect.levels[2], effect.difference[2].item()
        ('high', -0.5)
    """
    if draws * (1 - confidence) < 2:
        raise ValueError(f"{draws} draws are too few for an interval of {confidence:.0%}.")
    seed = fresh_seed() if seed is None else seed
    graphs, shares = posterior.sample(draws, seed=seed).distinct()
    counts = (shares * draws).round().long().tolist()
    question: Question | None = None
    found, notes = list[Tensor](), list[str]()
    for graph, count in zip(graphs, counts, strict=True):
        for scm, weight in _models(posterior, graph, count, fit, seed + len(found)):
            if question is None:
                question = ask(scm, outcome, do=do, versus=versus, draws=10_000)
            both: list[Pair] = [({}, question.do), ({}, question.versus)]
            asked = replace(question, model=scm)
            found += [means(asked, scm, {}, both, seed)[0]] * weight
            notes += [scm.note] if scm.note else []
    assert question is not None
    worlds = torch.stack(found)[:, :, None, :]
    source = _source(posterior, len(graphs), draws, fit)
    remarks = _remarks(posterior, outcome, do, seed)
    return _answer(question, worlds, confidence, source, remarks, notes)


def _models(
    posterior: "GraphPosterior", graph: nx.DiGraph, count: int, fit: Fit | None, seed: int
) -> Iterator[tuple[SCM, int]]:
    """Models of one graph, each with how many draws it stands for."""
    rows = {**posterior.cells.batch, "clamped": posterior.clamped}
    scm = SCM(graph, schema=schema_of(posterior)).double()
    if fit is not None:
        plain = SCM(graph, schema=schema_of(posterior))
        fit(plain, rows)
        yield plain, count
    elif isinstance(posterior.score, Discrete):
        with seeded(seed):
            for _ in range(count):
                _draw_tables(scm, rows, posterior.score)
                yield scm, 1
    else:
        for drawn in bootstrap(scm, Batch(rows), seeds=range(seed, seed + count)):
            yield drawn, 1


def schema_of(posterior: "GraphPosterior") -> Schema:
    """The kinds of the columns of the table."""
    cells = posterior.cells
    if not cells.labels:
        return Schema({name: Continuous() for name in cells.names}, site=None)
    columns = zip(cells.names, cells.labels, strict=True)
    return Schema({name: Categorical(labels) for name, labels in columns}, site=None)


def _draw_tables(scm: SCM, rows: Mapping[str, Tensor], score: Discrete) -> None:
    """Sets every table to a draw of its posterior, Dirichlet(counts + prior)."""
    for j, node in enumerate(scm.nodes):
        mechanism, free = scm.mechanism(node), ~rows["clamped"][:, j]
        assert isinstance(mechanism, CategoricalTable)
        shape, code = mechanism.logits.shape, torch.zeros(int(free.sum()), dtype=torch.long)
        for name, size in zip([*mechanism.inputs, node], shape, strict=True):
            code = code * size + rows[name][free]
        counts = torch.bincount(code, minlength=shape.numel()).double().reshape(shape)
        prior = score.prior(shape[:-1].numel(), shape[-1])
        with torch.no_grad():
            mechanism.logits.copy_(_log_dirichlet(counts + prior))


def _log_dirichlet(a: Float[Tensor, "*k r"]) -> Float[Tensor, "*k r"]:
    """log of a draw, by Gamma(a) = Gamma(a + 1) U^(1/a), which small a do not make zero."""
    gamma = torch.distributions.Gamma(a + 1, torch.ones_like(a)).sample()
    log = gamma.log() + torch.rand_like(a).log() / a
    return log.log_softmax(-1)


def _answer(
    question: Question,
    worlds: Float[Tensor, "draws 2 1 k"],
    confidence: float,
    source: str,
    remarks: tuple[str, ...],
    notes: list[str],
) -> Effect:
    gaps = (worlds[:, 0] - worlds[:, 1])[:, 0]
    ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=gaps.dtype)
    lower, upper = torch.quantile(gaps, ends, dim=0)
    if notes:
        remarks += (
            "each graph had a private fit of its own, and their budgets add up; the graphs were "
            "drawn from the open rows, which no budget covers",
        )
    return Effect(
        outcome=question.outcome,
        do=question.words[0],
        versus=question.words[1],
        levels=question.labels if question.levels else (),
        treated=worlds[:, 0, 0].mean(0),
        control=worlds[:, 1, 0].mean(0),
        difference=gaps.mean(0),
        lower=lower,
        upper=upper,
        confidence=confidence,
        source=source,
        samples=None,
        units="",
        error=gaps.std(0) / len(gaps) ** 0.5,
        bounds=None,
        means=worlds,
        by_row=gaps.mean(0)[None],
        remarks=remarks,
        note=notes[0] if notes else None,
    )


def _source(posterior: "GraphPosterior", graphs: int, draws: int, fit: Fit | None) -> str:
    discrete = isinstance(posterior.score, Discrete)
    within = "of their tables" if discrete else "of their coefficients (Bayesian bootstrap)"
    what = f"and {within}" if fit is None else "alone; one fit for each"
    return f"the posterior of graphs ({graphs} different in {draws} draws) {what}"


def _remarks(
    posterior: "GraphPosterior", outcome: str, do: Mapping[str, Any], seed: int
) -> tuple[str, ...]:
    paths = [
        f"P({x} is a cause of {outcome}) = {posterior.ancestor(x, outcome, seed=seed)}"
        for x in do
        if x in posterior.names
    ]
    return (*paths, "rests on no unseen common cause, no cycle, and the prior of the graphs")
