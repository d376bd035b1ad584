"""How often every combination of levels occurs, for all small sets of columns at once."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_CELLS = 2**22
"""Numbers that are held at a time."""


def families(
    x: Int[Tensor, "rows n"],
    levels: Sequence[int],
    clamped: Bool[Tensor, "rows n"],
    *,
    most: int,
) -> Iterator[tuple[Int[Tensor, " k"], Int[Tensor, "k parents"], Float[Tensor, "k q r"]]]:
    """Counts of a child and its parents, for every child and every set of parents.

    Sets with the same numbers of levels are counted together, and the table of a set serves each
    of its members as a child. A row in which a node was set does not count for it.

    Args:
        x: codes.
        levels: how many there are of each column.
        clamped: what was set.
        most: the largest number of parents.

    Yields:
        Children, their parents, and the counts of q configurations of the parents by r levels of
        the child, (k, q, r).
    """
    groups = defaultdict(list)
    for size in range(1, most + 2):
        for nodes in itertools.combinations(range(len(levels)), size):
            ordered = tuple(sorted(nodes, key=levels.__getitem__))
            groups[tuple(levels[i] for i in ordered)].append(ordered)
    set_ever = clamped.any(0)
    for shape, members in groups.items():
        step = max(1, _CELLS // max(len(x), math.prod(shape)))
        for part in torch.tensor(members).split(step):
            total = _tables(x, part, shape)
            for p in range(len(shape)):
                own = _free(total, x, part, shape, p, clamped, set_ever)
                rest = [i for i in range(len(shape)) if i != p]
                by_child = own.movedim(p + 1, -1).reshape(len(part), -1, shape[p])
                yield part[:, p], part[:, rest], by_child


def _tables(
    x: Int[Tensor, "rows n"], sets: Int[Tensor, "k size"], shape: Sequence[int]
) -> Float[Tensor, "k ..."]:
    """The table of each set, (k, *shape)."""
    cells = math.prod(shape)
    code = (torch.arange(len(sets)) * cells)[:, None].expand(-1, len(x)).clone()
    columns, stride = x.T, cells
    for p, count in enumerate(shape):
        stride //= count
        code += columns[sets[:, p]] * stride
    counts = torch.bincount(code.flatten(), minlength=len(sets) * cells)
    return counts.double().reshape(len(sets), *shape)


def _free(
    total: Tensor,
    x: Tensor,
    sets: Tensor,
    shape: Sequence[int],
    p: int,
    clamped: Tensor,
    set_ever: Tensor,
) -> Float[Tensor, "k ..."]:
    """The tables without the rows in which the p-th node of the set was set."""
    children = sets[:, p]
    if not bool(set_ever[children].any()):
        return total
    total = total.clone()
    for node in children[set_ever[children]].unique().tolist():
        mine = children == node
        total[mine] -= _tables(x[clamped[:, node]], sets[mine], shape)
    return total
