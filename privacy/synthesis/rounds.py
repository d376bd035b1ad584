"""Select, measure, estimate: the rounds in which a table's marginals are learned.

All columns are measured. Then, in each round, a pair of columns is chosen whose marginal is far
from what is known of it, measured, and the distribution fitted to all that was measured (McKenna,
Mullins, Sheldon & Miklau 2022, Alg. 4, with noise that is fixed beforehand). The utility of a pair
with c cells,

    || M(rows) - n mu ||_1 - sqrt(2 / pi) sigma c,

is what measuring it would mend less what its noise would spoil. Pairs with which exact inference
would become too large are no candidates.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import torch

from pgm.inference.exact import Factor
from pgm.inference.exact import plan as cost
from pgm.inference.exact.factors import Scope
from privacy.synthesis.cells import Cells
from privacy.synthesis.curator import Curator
from privacy.synthesis.estimation import Estimate, estimate, number_of_rows
from privacy.synthesis.merging import Merging, merge, merged
from privacy.synthesis.plan import Plan

STEPS = 60
"""Of mirror descent in a round, from the estimate of the last."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned of a table.

    Attributes:
        cells: the columns, all cut.
        mergings: which of their cells are counted together.
        pairs: that were measured, in order.
        estimate: the distribution, over the groups of cells.
    """

    cells: Mapping[str, Cells]
    mergings: Mapping[str, Merging]
    pairs: tuple[Scope, ...]
    estimate: Estimate


def learn(curator: Curator, cells: Mapping[str, Cells], plan: Plan, *, largest: int) -> Learned:
    """Asks the curator for all that was planned.

    Args:
        curator: of the rows.
        cells: the columns; those without cuts are cut.
        plan: the uses, and their noise.
        largest: cells of all cliques together.
    """
    open_columns = [name for name, column in cells.items() if column.cuts is None]
    depth = plan.cuts // max(1, len(open_columns))
    cells = dict(cells)
    for name in open_columns:
        cuts = curator.cuts(cells[name], depth=depth, epsilon=plan.epsilon_choice)
        cells[name] = replace(cells[name], cuts=cuts)
    curator.code(cells)
    columns = [curator.measure((name,), sigma=plan.sigma_columns) for name in cells]
    rows = number_of_rows(columns)
    mergings = {name: merge(cells[name], m) for name, m in zip(cells, columns, strict=True)}
    curator.code(cells, {name: merging.group for name, merging in mergings.items()})
    measured = [merged(m, mergings[m.scope[0]]) for m in columns]
    found = estimate(measured, rows=rows)
    pairs: list[Scope] = []
    for _ in range(plan.pairs):
        known = _candidates(found, mergings, pairs, largest)
        if not known:
            break
        less = {
            pair: math.sqrt(2 / math.pi) * plan.sigma_pairs * t.numel() for pair, t in known.items()
        }
        pairs.append(curator.choose(known, less, epsilon=plan.epsilon_choice))
        measured.append(curator.measure(pairs[-1], sigma=plan.sigma_pairs))
        found = estimate(measured, rows=rows, start=found.factors, steps=STEPS)
    found = estimate(measured, rows=rows, start=found.factors)
    return Learned(cells, mergings, tuple(pairs), found)


def _candidates(
    found: Estimate, mergings: Mapping[str, Merging], taken: list[Scope], largest: int
) -> dict[Scope, torch.Tensor]:
    """The pairs that may be measured, with the counts that are expected of them."""
    known: dict[Scope, torch.Tensor] = {}
    for pair in combinations(mergings, 2):
        table = Factor(pair, torch.zeros([mergings[name].groups for name in pair]))
        if pair not in taken and cost([*found.factors, table]).cells <= largest:
            known[pair] = found.counts(pair)
    return known
