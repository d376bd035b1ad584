"""From the fitted field to a network that samples, and to a table with as little chance as can be.

Eliminating the variables of a Markov random field one after the other leaves a chain of conditional
tables p(v | rest of its clique): a Bayesian network of the same distribution. Its arrows say in
which order to draw, and nothing of causes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgm.inference.exact.elimination import eliminate
from pgm.inference.exact.evidence import read
from pgm.inference.exact.factors import Factor, Scope
from pgm.inference.exact.passes import MEMORY, passes
from privacy.synthesis.merging import Merging

Tables = dict[str, tuple[Scope, Tensor]]
"""By variable, those drawn first in front: its parents, and p(variable | parents), itself last."""


def conditionals(factors: Sequence[Factor]) -> Tables:
    """The field as a chain of conditional tables."""
    ((way, left, _),) = passes(factors, read(factors, None), prune=False, memory=MEMORY)
    buckets = eliminate(left, way)[1]
    return {
        bucket.scope[0]: (bucket.scope[1:], bucket.conditional[..., 0].movedim(0, -1))
        for bucket in reversed(buckets)
    }


def spread(tables: Tables, mergings: Mapping[str, Merging]) -> Tables:
    """Tables over cells from tables over groups: a cell has its share of the group."""
    found: Tables = {}
    for name, (parents, table) in tables.items():
        for axis, variable in enumerate((*parents, name)):
            table = table.index_select(axis, torch.from_numpy(mergings[variable].group))
        p = table * torch.from_numpy(mergings[name].share).to(table)
        total = p.sum(-1, keepdim=True)
        found[name] = (parents, torch.where(total > 0, p / total, 1.0 / p.shape[-1]))
    return found


def systematic(tables: Tables, n: int, generator: np.random.Generator) -> dict[str, Any]:
    """n rows whose counts are as near to their expectation as whole numbers allow.

    Among the m rows that agree on the parents of a variable, level k is given to m p_k of them,
    rounded up or down at random: the rows, in random order, read the quantiles (i + U) / m. Each
    row by itself is an exact draw; the rows together are not independent.
    """
    drawn: dict[str, Any] = {}
    for name, (parents, table) in tables.items():
        shape = tuple(table.shape[:-1])
        at = [drawn[parent] for parent in parents]
        group = np.ravel_multi_index(at, shape) if parents else np.zeros(n, dtype=np.int64)
        u = _quantiles(group, generator)
        below = table.reshape(-1, table.shape[-1]).double().cumsum(-1).numpy()
        levels = (u[:, None] * below[group, -1:] >= below[group, :-1]).sum(1)
        drawn[name] = levels.astype(np.int64)
    return drawn


def _quantiles(group: Any, generator: np.random.Generator) -> Any:
    """(i + U) / m for the members of each group, in random order, U of the group."""
    order = generator.permutation(len(group))
    order = order[np.argsort(group[order], kind="stable")]
    _, first, inverse, size = np.unique(
        group[order], return_index=True, return_inverse=True, return_counts=True
    )
    u = (
        np.arange(len(group)) - first[inverse] + generator.uniform(size=len(size))[inverse]
    ) / size[inverse]
    found = np.empty(len(group))
    found[order] = u
    return found
