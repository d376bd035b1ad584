"""Learning conditional tables from rows with missing cells: expected counts, and EM over them.

    N(x, u) = sum_i p(x, u | row i),    theta(x | u) = (N(x, u) + a) / sum_x (N(x, u) + a)

(Lauritzen 1995, "The EM algorithm for graphical association models with missing data"). The counts
are the gradient of the log likelihood in the log tables, and those of complete rows are the plain
ones. The pseudo-counts a are those of a Dirichlet prior of equivalent sample size alpha,
a = alpha / (cells of the table) (Heckerman, Geiger & Chickering 1995, BDeu).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import SEEN, Batch, rows_of
from pgm.inference.exact.elimination import eliminate
from pgm.inference.exact.evidence import check_possible, read
from pgm.inference.exact.factors import Factor
from pgm.inference.exact.passes import MEMORY, passes
from pgm.randomness import seeded


@dataclass(frozen=True)
class Estimate:
    """How tables were estimated.

    Attributes:
        log_posterior: before each step, log p(seen cells) plus the log prior up to a constant, in
            nats; it never falls. Of complete rows there is one, of what was estimated.
        converged: whether the last step raised it by less than the tolerance.
    """

    log_posterior: tuple[float, ...]
    converged: bool

    def __str__(self) -> str:
        steps, last = len(self.log_posterior), self.log_posterior[-1]
        if steps == 1 and self.converged:
            return f"counted in complete rows; log posterior {last:.3f} nats"
        end = "converged" if self.converged else "not converged: raise steps"
        return f"{steps} steps of EM, {end}; log posterior {last:.3f} nats"


def expected_counts(
    factors: Sequence[Factor], given: Mapping[str, Any] | None = None, *, memory: int = MEMORY
) -> tuple[list[Tensor], Float[Tensor, " n"]]:
    """How often every cell of every table is expected to occur in the rows, given what was seen.

    Args:
        factors: the model.
        given: the rows, as in `log_partition`.
        memory: bytes that the tables of one pass may take.

    Returns:
        A count for every cell, by factor, in the shape of its table; and log Z of every row.

    Raises:
        ValueError: a row of probability zero; and as `log_partition`.
        MemoryError: a clique too large to sum.

    Example:
        >>> rain = Factor(("rain",), torch.tensor([0.7, 0.3]).log())
        >>> expected_counts([rain], {"rain": torch.tensor([0.0, torch.nan])})[0]
        [tensor([1.7000, 0.3000])]
    """
    leaves = [Factor(f.scope, f.log_value.detach().requires_grad_()) for f in factors]
    tables = [leaf.log_value for leaf in leaves]
    counts, log_z, start = [torch.zeros_like(t) for t in tables], [], 0
    evidence = read(leaves, given)
    with torch.enable_grad():
        for plan, left, part in passes(leaves, evidence, memory=memory):
            value = eliminate(left, plan)[0].expand(part.n)
            check_possible(value, start)
            found = torch.autograd.grad(value.sum(), tables)
            counts = [count + more for count, more in zip(counts, found, strict=True)]
            log_z.append(value.detach())
            start += part.n
    return [count.detach() for count in counts], torch.cat(log_z)


def expectation_maximisation(
    factors: Sequence[Factor],
    batch: Batch,
    *,
    prior: float,
    steps: int,
    tolerance: float,
    seed: int | None,
    memory: int = MEMORY,
) -> tuple[list[Tensor], Estimate]:
    """Conditional tables of the highest posterior: in one step of complete rows, else by EM.

    EM starts at the counts of the rows that are complete in a table's variables; a table without
    any starts at random. It climbs to a local maximum.

    Args:
        factors: the shapes: a factor a variable, which is its child and its last axis.
        batch: the rows; missing cells, and variables that are left out, are summed over.
        prior: alpha, how many observations the prior is worth, spread evenly over each table.
        steps: the most that are taken.
        tolerance: the rise of the log posterior, in nats a row, below which it stops.
        seed: of the random starts.
        memory: bytes that the tables of one pass may take.

    Returns:
        Log tables, and how they were found.

    Raises:
        ValueError: with `prior=0`, a configuration of parents that no row has.
    """
    pseudo = [prior / f.log_value.numel() for f in factors]
    complete = all(f.child in batch and f"{f.child}{SEEN}" not in batch for f in factors)
    factors = [Factor(f.scope, f.log_value.double(), f.child) for f in factors]
    tables = _start(factors, batch, seed)
    trace: list[float] = []
    converged = False
    while not converged and len(trace) < (1 if complete else steps):
        model = [Factor(f.scope, t) for f, t in zip(factors, tables, strict=True)]
        counts, log_p = expected_counts(model, batch, memory=memory)
        trace.append(float(log_p.sum()) + _log_prior(tables, pseudo))
        tables = [_maximum(f, N, a) for f, N, a in zip(factors, counts, pseudo, strict=True)]
        rise = trace[-1] - trace[-2] if len(trace) > 1 else math.inf
        converged = rise < tolerance * rows_of(batch)
    if complete:
        own = sum(float((N * t).nan_to_num(0.0).sum()) for N, t in zip(counts, tables, strict=True))
        return tables, Estimate((own + _log_prior(tables, pseudo),), True)
    return tables, Estimate(tuple(trace), converged)


def _maximum(factor: Factor, counts: Tensor, pseudo: float) -> Tensor:
    """log of the relative frequencies over the last axis."""
    total = (counts + pseudo).sum(-1, keepdim=True)
    never = int((total <= 0).sum())
    if never:
        raise ValueError(
            f"{never} of the {total.numel()} configurations of the parents of {factor.child!r} "
            f"({', '.join(factor.scope[:-1]) or 'none'}) occur in no row, and with prior=0 nothing "
            "says what follows from them. Use prior=1, or drop parents."
        )
    return ((counts + pseudo) / total).log()


def _start(factors: Sequence[Factor], batch: Batch, seed: int | None) -> list[Tensor]:
    """Tables from the rows that are complete in their variables, with one observation in all."""
    with seeded(seed):
        return [_available(factor, batch) for factor in factors]


def _available(factor: Factor, batch: Batch) -> Tensor:
    like = factor.log_value
    if all(name in batch for name in factor.scope):
        masks = [batch[name + SEEN] for name in factor.scope if name + SEEN in batch]
        rows = torch.stack(masks).all(0) if masks else slice(None)
        given = {name: batch[name][rows] for name in factor.scope}
        if rows_of(given):
            counts = expected_counts([Factor(factor.scope, torch.zeros_like(like))], given)[0][0]
            counts = counts + 1 / like.numel()
            return (counts / counts.sum(-1, keepdim=True)).log()
    return torch.log_softmax(torch.rand_like(like), -1)


def _log_prior(tables: Sequence[Tensor], pseudo: Sequence[float]) -> float:
    terms = [a * float(t.sum()) for t, a in zip(tables, pseudo, strict=True) if a > 0]
    return sum(terms)
