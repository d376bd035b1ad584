"""`discover`: from a table to the posterior of causal graphs."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import Tensor

from causal.discovery import dags, orders, partitions
from causal.discovery.cells import Unseen, read_cells
from causal.discovery.discrete import BDeu
from causal.discovery.families import Families, Score, tabulate
from causal.discovery.gaussian import BGe
from causal.discovery.knowledge import Arrows, Knowledge, constrain
from causal.discovery.posterior import GraphPosterior, Prior
from causal.discovery.targets import check_apart, read_clamped, read_conditions, take_column

Method = Literal["auto", "exact", "mcmc"]
_UNIFORM = 16
"""Nodes above which the 3^n terms of a uniform prior take minutes."""


def discover(
    data: Any,
    *,
    score: Score | None = None,
    clamped: Any = None,
    conditions: Any = None,
    prior: Prior = "uniform",
    max_parents: int = 3,
    forbidden: Arrows = (),
    required: Arrows = (),
    tiers: Sequence[Iterable[str]] = (),
    names: Sequence[str] | None = None,
    unseen: Unseen = "refuse",
    method: Method = "auto",
    memory: float = 2.0,
    steps: int = 20_000,
    chains: int = 4,
    seed: int = 0,
) -> GraphPosterior:
    """The posterior of causal graphs over the columns of a table.

    Exact sums over all graphs: O(n^2 2^n) under the order-modular prior, to 21 nodes in 2
    GiB; O(n 3^n) under the uniform one, to 16 nodes. Above, Markov chains over ordered partitions.

    It rests on there being no unseen common cause of two columns, and no cycle. From rows in which
    nothing was set, graphs that say the same independences cannot be told apart: their arrows then
    share the probability.

    Args:
        data: complete rows: a pandas frame, a mapping from names to tensors (int64 codes of levels
            or floats), or a tensor (rows, n).
        score: `BDeu`, `BDs` or `BIC` for levels, `BGe` or `GaussianBIC` for numbers; None takes
            BDeu() or BGe() by the columns.
        clamped: what experiments set: booleans (rows, n), as in `SCM`; a frame or mapping of
            booleans by node; for each row a node, several, or None; or the name of the column that
            says it, which is then no node. A row does not count for the nodes that were set in it.
        conditions: experiments of which it is not known what they act upon: one label a row, None
            where nothing was done, or booleans by condition. They count among the parents.
        prior: "uniform" over acyclic graphs, or "order", by the number of their causal orders.
        max_parents: of any node.
        forbidden: arrows (cause, effect) that are not there.
        required: arrows that are there.
        tiers: groups of nodes in the order of time.
        names: the columns of a tensor.
        unseen: "refuse" or "keep" levels that are declared and that no row shows.
        method: "exact", "mcmc", or "auto" for exact sums where they are quick.
        memory: what the sums may take, in GiB.
        steps: of each Markov chain, the first third of which is thrown away.
        chains: how many Markov chains.
        seed: of the Markov chains; exact sums have no randomness.

    Raises:
        ValueError: columns, targets or knowledge that make no sense; the message says why.
        MemoryError: more nodes than `memory` has room for.

    Example:
        >>> import pgm.data
        >>> cells = pgm.data.load("sachs")
        >>> found = discover(cells.frame, clamped=cells.clamped)
        >>> found.probability("PKA", "Akt"), found.probability("Akt", "PKA")
        (1.00, 0.00)
        >>> print(found.compare(cells.graph("published")).right[0])
        ('Raf', 'Mek')
    """
    data, clamped = take_column(data, clamped)
    cells = read_cells(
        data, kinds=None if score is None else score.kinds, names=names, unseen=unseen
    )
    rows, n = cells.x.shape
    fixed = read_clamped(clamped, cells.names, rows)
    experiments = read_conditions(conditions, rows)
    check_apart(cells, fixed, experiments)
    score = score or (BDeu() if cells.labels else BGe())
    most = _most(max_parents, n + len(experiments[0]))
    method = _method(method, prior, n, memory)
    families = constrain(
        tabulate(cells, score, clamped=fixed, conditions=experiments, most=most),
        Knowledge(forbidden, required, tiers),
    )
    solve = _chains if method == "mcmc" else _orders if prior == "order" else _uniform
    options = (steps, chains, seed) if method == "mcmc" else ()
    return GraphPosterior(
        cells.names, prior=prior, score=score, most=most, families=families, cells=cells,
        clamped=fixed, conditions=experiments[0], **solve(families, *options),
    )  # fmt: skip


def _orders(families: Families) -> dict[str, Any]:
    scores, top = _scaled(families.scores)
    found, total = orders.parent_sets(families.sets, scores)
    free = orders.forward(orders.parent_sums(families.sets, families.counts()))[-1]
    return {
        "edges": families.edges(found),
        "targets": families.targets(found),
        "log_evidence": total + top - float(free),
        "how": "exact sums over orders",
    }


def _uniform(families: Families) -> dict[str, Any]:
    scores, top = _scaled(families.scores)
    found, ancestors, total = dags.parent_sets(families.sets, scores)
    free = dags.weigh(orders.parent_sums(families.sets, families.counts()))[-1]
    return {
        "edges": families.edges(found),
        "targets": families.targets(found),
        "ancestors": ancestors,
        "log_evidence": total + top - float(free),
        "how": "exact sums over graphs",
    }


def _chains(families: Families, steps: int, chains: int, seed: int) -> dict[str, Any]:
    scores, _ = _scaled(families.scores)
    found = partitions.run(families.sets, scores, steps=steps, chains=chains, seed=seed)
    return {
        "edges": families.edges(found.probability),
        "targets": families.targets(found.probability),
        "log_evidence": math.nan,
        "chains": found.parents,
        "how": f"{chains} Markov chains over partitions, {steps} steps each",
        "error": found.error,
        "remarks": found.problems,
    }


def _scaled(scores: Tensor) -> tuple[Tensor, float]:
    """Scores with the best of every node at zero, and what was taken off."""
    top = scores.amax(1, keepdim=True)
    return scores - top, float(top.sum())


def _most(max_parents: int, columns: int) -> int:
    if max_parents < 1:
        raise ValueError(f"max_parents={max_parents}: without parents there is nothing to find.")
    return min(max_parents, columns - 1)


def _method(method: Method, prior: Prior, n: int, memory: float) -> Method:
    """Which way to go; refuses where memory does not allow it."""
    if prior not in ("uniform", "order"):
        raise ValueError(f"prior={prior!r}: there are 'uniform' and 'order'.")
    if method not in ("auto", "exact", "mcmc"):
        raise ValueError(f"method={method!r}: there are 'auto', 'exact' and 'mcmc'.")
    if method == "mcmc" and prior == "order":
        raise ValueError(
            "The Markov chains are over partitions, and their prior is uniform over graphs. Say "
            "prior='uniform', or method='exact'."
        )
    if method == "mcmc" or (method == "auto" and prior == "uniform" and n > _UNIFORM):
        return "mcmc"
    need = orders.needed(n) if prior == "order" else dags.needed(n)
    if need > memory:
        raise MemoryError(
            f"Exact sums over the sets of {n} nodes need {need:.3g} GiB, and memory={memory:g}. "
            "Use method='mcmc', which needs hardly any, fewer columns, or allow memory="
            f"{math.ceil(need)} if the machine has it."
        )
    return "exact"
