"""Mechanisms chosen by held-out log-density, node by node.

The log-likelihood of complete rows is a sum over nodes, so that each is chosen by itself: every
candidate is estimated on all folds of its rows but one and scored on that one (Stone 1974,
Cross-validatory choice). Of the candidates, simplest first, the first is taken that is within one
standard error of the best (Breiman et al. 1984, sec. 3.4.3, here that of the paired difference).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from causal.defaults import start
from causal.fitting.estimation import complete, estimate, free_rows
from causal.fitting.scores import Score, Selection, paired
from causal.graph import GraphLike
from causal.mechanisms import (
    AdditiveNoise,
    CategoricalTable,
    KernelRoot,
    LinearGaussian,
    LinearSoftmax,
    LinearVector,
    LocationScale,
    Mechanism,
    MixtureRoot,
    NegativeBinomial,
    NetworkSoftmax,
    Ordinal,
    Poisson,
    PostNonlinear,
    SplineNoise,
)
from causal.scm import SCM
from pgm import Categorical, Count, Schema
from pgm.batch import Batch, rows_of
from pgm.randomness import seeded


def auto(
    graph: GraphLike,
    data: Any,
    *,
    schema: Schema | None = None,
    candidates: Mapping[str, Sequence[Any]] | None = None,
    folds: int = 5,
    seed: int | None = None,
) -> tuple[SCM, Selection]:
    """An SCM whose mechanisms are chosen by held-out log-density, and estimated from all rows.

    Args:
        graph: the causal graph, all its nodes observed.
        data: complete rows, a frame or a batch; `clamped` says what an experiment set.
        schema: the kinds of the columns; by default inferred from a frame.
        candidates: by node, classes of mechanisms or `functools.partial` of them, simplest first;
            by default those of `candidates_of`.
        folds: the number of parts that are held out in turn.
        seed: of the order of the rows.

    Returns:
        The SCM and the record of the choice.

    Raises:
        Unsupported: missing cells or latent nodes.
        ValueError: fewer than two folds or than two rows a fold; a node that no candidate fits.

    Example:
        >>> u = torch.randn(200, generator=torch.Generator().manual_seed(0))
        >>> record = auto("x", {"x": u + 4 * u.sign()}, folds=2, seed=0)[1]
        >>> print(record)
        Held-out log-density, nats a row, 2 folds (difference to the best)
          x              LinearGaussian     -2.99  (-1.39 ± 0.05)
                       * MixtureRoot        -1.60  (0.000 ± 0.000)
                         KernelRoot         -2.27  (-0.67 ± 0.04)
          against the simplest at every node: +1.39 ± 0.05 nats a row
    """
    if schema is None and type(data).__module__.partition(".")[0] == "pandas":
        schema = Schema.infer(data)
    scm = SCM(graph, schema=schema)
    batch = complete(scm, data)
    parts = _parts(rows_of(batch), folds, seed)
    scores, classes = {}, {}
    free = free_rows(scm, batch)
    for node in scm.nodes:
        options = (candidates or {}).get(node) or candidates_of(scm, node)
        tried = [_score(scm, node, made, batch, free[node], parts) for made in options]
        scores[node] = tuple(tried)
        classes[node] = options[tried.index(_simplest(node, tried))]
    chosen = {node: name_of(made) for node, made in classes.items()}
    fitted = SCM(graph, schema=schema, **classes)
    with seeded(seed):
        estimate(fitted, batch)
    return fitted, Selection(scores, chosen, folds)


def candidates_of(scm: SCM, node: str) -> list[type[Mechanism]]:
    """The classes that are tried for a node, simplest first, by its kind and those of its parents.

    Example:
        >>> [made.__name__ for made in candidates_of(SCM("A -> B"), "A")]
        ['LinearGaussian', 'MixtureRoot', 'KernelRoot']
    """
    inputs, kind = scm.mechanism(node).inputs, scm.mechanism(node).kind
    column = scm.schema.columns.get(node) if scm.schema else None
    if kind.size is not None:
        return [LinearVector]
    if isinstance(column, Count):
        return [Poisson, NegativeBinomial]
    if kind.levels > 1 or isinstance(column, Categorical):
        if not inputs:
            return [CategoricalTable]
        ordered = isinstance(column, Categorical) and column.ordered
        first: list[type[Mechanism]] = [Ordinal] if ordered else []
        levels = all(k.levels > 1 for k in inputs.values())
        last = CategoricalTable if levels else NetworkSoftmax
        return [*first, LinearSoftmax, last]
    if not inputs:
        return [LinearGaussian, MixtureRoot, KernelRoot]
    return [LinearGaussian, AdditiveNoise, LocationScale, PostNonlinear, SplineNoise]


def name_of(made: Any) -> str:
    """What a candidate is called."""
    cls = made if isinstance(made, type) else made.func
    options = {} if isinstance(made, type) else made.keywords
    shown = ", ".join(f"{k}={v}" for k, v in options.items())
    return f"{cls.__name__}({shown})" if shown else str(cls.__name__)


def _simplest(node: str, tried: list[Score]) -> Score:
    """The first that is within one standard error of the best."""
    best = max(tried, key=lambda score: score.mean)
    if not best.mean > -torch.inf:
        reasons = "; ".join(f"{s.name}: {s.reason or 'density zero'}" for s in tried)
        raise ValueError(f"No candidate fits node {node!r}. {reasons}")
    for score in tried:
        m, e = paired(score, best)
        if score is best or m >= -e:
            return score
    return best


def _score(
    scm: SCM, node: str, made: Any, batch: Batch, free: Tensor, parts: Float[Tensor, " n"]
) -> Score:
    """The held-out log-density of the rows in which nothing set the node."""
    x, parts = batch[node][free], parts[free]
    heard = {p: batch[p][free] for p in scm.parents(node)}
    found = torch.empty(len(x), dtype=torch.float64)
    old = scm.mechanism(node)
    try:
        for part in parts.unique():
            out = parts == part
            mechanism = start(node, made, old.inputs, old.kind).to(scm.device, scm.dtype)
            rows = {p: v[~out] for p, v in heard.items()}
            mechanism.estimate(x[~out], rows, torch.ones(len(x), device=x.device)[~out])
            with torch.no_grad():
                fn = copy.deepcopy(mechanism).eval().dist({p: v[out] for p, v in heard.items()})
                found[out.cpu()] = fn.log_prob(x[out]).double().cpu()
    except ValueError as error:
        return Score(name_of(made), None, str(error).split(". ")[0])
    if not bool(torch.isfinite(found).all()):
        return Score(name_of(made), None, "a held-out row has density zero")
    return Score(name_of(made), found)


def _parts(n: int, folds: int, seed: int | None) -> Float[Tensor, " n"]:
    """The part of each row, at random."""
    if folds < 2 or n < 2 * folds:
        raise ValueError(
            f"folds is {folds} for {n} rows: each part has two rows or more, and one is held out "
            "while the others are learned from, so that there are two parts or more."
        )
    with seeded(seed):
        order = torch.randperm(n)
    return (order % folds).float()
