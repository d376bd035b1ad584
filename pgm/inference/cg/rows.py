"""Rows as evidence on a conditional Gaussian network, and draws of their missing cells.

A row whose levels were all seen has one configuration; any other is a mixture of all of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pgm.batch import SEEN, rows_of
from pgm.inference import normal
from pgm.inference.cg.law import ConditionalGaussian, log_joint_of
from pgm.inference.cg.network import Structure


@dataclass(frozen=True, eq=False)
class Evidence:
    """What n rows say.

    Attributes:
        which: the configurations that a row may have, shape (n, 1) or, all of them, (1, K).
        law: the law of these configurations before the row was seen.
        y: the numbers, shape (n, d).
        seen: which of them were seen.
        allowed: whether a configuration agrees with the levels that were seen, (n, 1) or (n, K).
    """

    which: Int[Tensor, "*n K"]
    law: ConditionalGaussian
    y: Float[Tensor, "n d"]
    seen: Bool[Tensor, "n d"]
    allowed: Bool[Tensor, "n K"]

    def log_joint(self) -> Float[Tensor, "n K"]:
        """log p of each configuration and the seen numbers."""
        return log_joint_of(self.law, self.y, self.seen, self.allowed)


def evidence_of(
    structure: Structure, law: ConditionalGaussian, batch: Mapping[str, Tensor]
) -> Evidence:
    """What the rows of a batch say; nodes that it leaves out were not seen."""
    batch = {name: value.cpu() for name, value in batch.items()}
    n = rows_of(batch)
    zero, never = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.bool)
    seen = {v: batch.get(v + SEEN, ~never) if v in batch else never for v in structure.parents}
    which = _which(structure, batch)
    law = replace(
        law,
        configurations=law.configurations[0, which],
        log_p=law.log_p[0, which],
        mean=law.mean[0, which],
        covariance=law.covariance[0, which],
    )
    allowed = torch.ones(n, which.shape[1], dtype=torch.bool)
    for j, name in enumerate(structure.levels):
        if name in batch:
            agrees = law.configurations[..., j] == batch[name].unsqueeze(-1)
            allowed = allowed & (agrees | ~seen[name].unsqueeze(-1))
    return Evidence(
        which,
        law,
        torch.stack([batch.get(v, zero).double() for v in structure.numbers], -1),
        torch.stack([seen[v] for v in structure.numbers], -1),
        allowed,
    )


def draw(evidence: Evidence, draws: int) -> tuple[Int[Tensor, "draws n c"], Float[Tensor, "..."]]:
    """Levels and numbers given what was seen: a configuration, then a conditional normal draw.

    Returns:
        Levels of the discrete nodes, shape (draws, n, discrete nodes), and numbers, (draws, n, d).

    Raises:
        ValueError: a row of probability zero.
    """
    law, log_joint = evidence.law, evidence.log_joint()
    check_possible(log_joint.logsumexp(-1))
    (n, K), row = log_joint.shape, torch.arange(len(log_joint))
    k = dist.Categorical(logits=log_joint).sample((draws,))
    Sigma = law.covariance.expand(n, K, -1, -1)[row, k]
    free = law.mean.expand(n, K, -1)[row, k]
    free = free + (torch.linalg.cholesky(Sigma) @ torch.randn_like(free)[..., None])[..., 0]
    y = normal.conditional_draw(evidence.y, evidence.seen, free, Sigma)
    return law.configurations.expand(n, K, -1)[row, k], y


def check_possible(log_p: Float[Tensor, " n"]) -> None:
    """Refuses rows of probability zero.

    Raises:
        ValueError: there is one.
    """
    if not bool(log_p.isfinite().all()):
        raise ValueError(
            f"What was seen in row {int((~log_p.isfinite()).nonzero()[0])} has probability zero, "
            "and nothing follows from the impossible. Look at the levels of that row."
        )


def _which(structure: Structure, batch: Mapping[str, Tensor]) -> Int[Tensor, "*n K"]:
    if any(name not in batch or name + SEEN in batch for name in structure.levels):
        return torch.arange(math.prod(structure.levels.values()))[None]
    index = torch.zeros(rows_of(batch), dtype=torch.int64)
    for name, k in structure.levels.items():
        index = index * k + batch[name].long().clamp(0, k - 1)
    return index.unsqueeze(-1)
