"""Tables of families: the score of every node with every small set of parents.

All priors here are modular, so that a graph's score is the sum of its families' and these tables
are all that sums over graphs need. Conditions, nodes without parents, are summed out of them: the
score of parents U is that of U with any of the conditions, added up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from causal.discovery import counts, gaussian
from causal.discovery.cells import Cells
from causal.discovery.discrete import Discrete
from causal.discovery.gaussian import Gaussian, Scored

Score = Discrete | Gaussian


@dataclass(frozen=True, eq=False)
class Families:
    """The score of every node with every small set of parents.

    Attributes:
        names: of the n nodes.
        sets: m sets of parents of each node, as bits; shape (n, m).
        scores: logarithmic, -inf where knowledge forbids; shape (n, m).
        conditions: the names of c conditions.
        whole_sets: sets of parents with conditions, as bits n, n + 1, ...; shape (n, M).
        whole_scores: shape (n, M).
    """

    names: tuple[str, ...]
    sets: Int[Tensor, "n m"]
    scores: Float[Tensor, "n m"]
    conditions: tuple[str, ...]
    whole_sets: Int[Tensor, "n M"]
    whole_scores: Float[Tensor, "n M"]

    def edges(self, probability: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
        """The probability of every edge, the row being the cause, from those of parent sets."""
        n = len(self.names)
        inside = (self.sets.unsqueeze(-1) >> torch.arange(n)) % 2
        return torch.einsum("im,imj->ji", probability, inside.to(probability.dtype))

    def counts(self) -> Float[Tensor, "n m"]:
        """The scores if the data told nothing: zero, or log of how many conditions may join."""
        free = torch.zeros_like(self.scores)
        for i in range(len(self.names) if self.conditions else 0):
            column = _column(self.sets[i], self.whole_sets[i] % (1 << len(self.names)))
            free[i] = torch.bincount(column, minlength=self.sets.shape[1]).log()
        return free.masked_fill(self.scores == -torch.inf, -torch.inf)

    def targets(self, probability: Float[Tensor, "n m"]) -> Float[Tensor, "c n"]:
        """The probability that every condition acts on every node."""
        n, c = len(self.names), len(self.conditions)
        found = torch.zeros(c, n, dtype=torch.float64)
        for i in range(n if c else 0):
            column = _column(self.sets[i], self.whole_sets[i] % (1 << n))
            weight = probability[i, column] * _share(self.whole_scores[i], self.scores[i, column])
            acts = (self.whole_sets[i].unsqueeze(-1) >> torch.arange(n, n + c)) % 2
            found[:, i] = weight @ acts.to(weight.dtype)
        return found


def tabulate(
    cells: Cells,
    score: Score,
    *,
    clamped: Bool[Tensor, "rows n"],
    conditions: tuple[Sequence[str], Bool[Tensor, "rows c"]],
    most: int,
) -> Families:
    """Scores every node with every set of at most `most` parents, conditions among them."""
    n, names = len(cells.names), tuple(conditions[0])
    columns = torch.cat([cells.x, conditions[1].to(cells.x)], 1)
    free = torch.cat([clamped, torch.zeros_like(conditions[1])], 1)
    found = list(_scored(cells, score, columns, free, most=min(most, columns.shape[1] - 1)))
    child, sets, values = (torch.cat(part) for part in zip(*found, strict=True))
    order = torch.argsort(sets, stable=True)
    order = order[torch.argsort(child[order], stable=True)]
    order = order[child[order] < n]
    sets, values = sets[order].reshape(n, -1), values[order].reshape(n, -1)
    if not names:
        return Families(cells.names, sets, values, (), sets[:, :0], values[:, :0])
    return _folded(cells.names, names, sets, values)


def _scored(
    cells: Cells, score: Score, columns: Tensor, free: Tensor, *, most: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Children, their parents as bits, and scores."""
    found: Iterator[Scored]
    if isinstance(score, Gaussian):
        found = gaussian.families(columns, free, score, most=most)
    else:
        levels = (*cells.levels, *[2] * (columns.shape[1] - len(cells.levels)))
        tables = counts.families(columns, levels, free, most=most)
        found = ((child, parents, score.local(table)) for child, parents, table in tables)
    for child, parents, value in found:
        yield child, (1 << parents).sum(1), value


def _folded(
    nodes: tuple[str, ...], conditions: tuple[str, ...], sets: Tensor, values: Tensor
) -> Families:
    """Sums the conditions out."""
    n = len(nodes)
    few, sums = [], []
    for i in range(n):
        base, column = (sets[i] % (1 << n)).unique(return_inverse=True)
        top = torch.full((len(base),), -torch.inf, dtype=values.dtype)
        top = top.scatter_reduce(0, column, values[i], "amax")
        total = torch.zeros_like(top).index_add_(0, column, (values[i] - top[column]).exp())
        few.append(base)
        sums.append(total.log() + top)
    return Families(nodes, torch.stack(few), torch.stack(sums), conditions, sets, values)


def _column(sets: Tensor, wanted: Tensor) -> Tensor:
    """Where sets stand among others that are in rising order."""
    return torch.searchsorted(sets, wanted)


def _share(part: Tensor, total: Tensor) -> Tensor:
    """exp(part - total); zero where the total is forbidden."""
    return torch.where(total > -torch.inf, (part - total).exp(), 0.0)
