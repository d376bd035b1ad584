"""Bucket elimination over many rows, and what is read off its buckets.

Upwards, each step adds the tables that mention a variable and sums it out in log space. What it
keeps is the distribution of the variable given the rest of its clique and the evidence below,

    q(v | rest) = exp(product - message),   message = log sum_v exp(product),

so that the model comes out as a chain of such conditionals, the last variable first. Downwards, one
pass multiplies them up to the posterior of every clique (the derivative of log Z with respect to
the product: Darwiche 2003), draws from them (backward sampling), or follows the largest of each.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pgm.inference.exact.evidence import Table
from pgm.inference.exact.factors import Scope
from pgm.inference.exact.order import Plan


class Bucket(NamedTuple):
    """One variable, eliminated.

    Attributes:
        scope: the variable, then what it is conditional on.
        conditional: q(v | rest), shape (levels of the scope, n or 1); of a maximum the level that
            attains it, shape (levels of the rest, n or 1).
    """

    scope: Scope
    conditional: Tensor


def eliminate(
    tables: Sequence[Table], plan: Plan, *, by: Literal["sum", "max"] = "sum", keep: bool = True
) -> tuple[Tensor, list[Bucket]]:
    """Removes every variable: log Z of each row, shape (n,) or (1,), and the buckets in order.

    Args:
        tables: what is left of the model.
        plan: of the same.
        by: how a variable goes.
        keep: whether the buckets are kept; without them memory holds one clique at a time.
    """
    values: dict[int, Table] = {i: tables[i] for i in plan.kept}
    constant = [table.log_value for table in values.values() if not table.scope]
    buckets = []
    for i, step in enumerate(plan.steps):
        parts = [_aligned(values.pop(j), step.scope) for j in step.inputs]
        parts.sort(key=Tensor.numel)
        product = parts[0]
        for part in parts[1:]:
            product = product + part
        message, conditional = _sum_out(product) if by == "sum" else product.max(0)
        if keep:
            buckets.append(Bucket(step.scope, conditional))
        if step.scope[1:]:
            values[len(tables) + i] = Table(step.scope[1:], message)
        else:
            constant.append(message)
    total = tables[0].log_value.new_zeros(1)
    for part in constant:
        total = total + part
    return total, buckets


def beliefs(
    buckets: Sequence[Bucket], plan: Plan, wanted: set[int], tables: int
) -> dict[int, Tensor]:
    """p(clique | evidence) of the wanted buckets, by number, axes as in their scopes.

    Args:
        buckets: of a sum.
        plan: of the same.
        wanted: their numbers.
        tables: how many tables there were, from which the messages are counted.
    """
    above = {j - tables: i for i, step in enumerate(plan.steps) for j in step.inputs if j >= tables}
    needed = set(wanted)
    for i in range(len(buckets)):
        if i in needed and i in above:
            needed.add(above[i])
    found: dict[int, Tensor] = {}
    for i in sorted(needed, reverse=True):
        scope, conditional = buckets[i]
        found[i] = conditional
        if i in above:
            j = above[i]
            found[i] = conditional * onto(found[j], buckets[j].scope, scope[1:])
    return found


def onto(belief: Tensor, scope: Scope, names: Scope) -> Tensor:
    """The marginal of a belief over some of its variables, in its order of axes."""
    out = [i for i, name in enumerate(scope) if name not in names]
    return belief.sum(out) if out else belief


def sample(buckets: Sequence[Bucket], draws: int, n: int) -> dict[str, Tensor]:
    """Joint draws, shape (draws, n) each: the variable that went last is drawn first."""
    drawn: dict[str, Tensor] = {}
    for scope, conditional in reversed(buckets):
        p = _at(conditional, scope[1:], drawn)
        below = p.double().cumsum(0)
        u = torch.rand(draws, n, dtype=torch.float64, device=p.device) * below[-1]
        drawn[scope[0]] = (u >= below[:-1]).sum(0).expand(draws, n)
    return drawn


def follow(buckets: Sequence[Bucket], n: int) -> dict[str, Tensor]:
    """The levels that attain a maximum, shape (n,) each."""
    found: dict[str, Tensor] = {}
    for scope, best in reversed(buckets):
        at = _at(best[None], scope[1:], {name: x[None] for name, x in found.items()})
        found[scope[0]] = at[0, 0].expand(n)
    return found


def _at(values: Tensor, names: Scope, drawn: Mapping[str, Tensor]) -> Tensor:
    """Values of shape (k, levels of the names, n or 1) at what was drawn of them: (k, draws, n)."""
    if not names:
        return values[:, None]
    index = drawn[names[0]]
    for name, levels in zip(names[1:], values.shape[2:-1], strict=True):
        index = index * levels + drawn[name]
    cells = values.flatten(1, -2)
    if values.shape[-1] == 1:
        return cells[:, index, 0]
    return cells[:, index, torch.arange(values.shape[-1], device=values.device)]


def _aligned(table: Table, scope: Scope) -> Tensor:
    """The table with the axes of a clique, those that it does not have of length one."""
    log_value = table.log_value
    place = {name: i for i, name in enumerate(table.scope)}
    axes = [place[name] for name in scope if name in place]
    if axes != sorted(axes):
        log_value = log_value.permute(*axes, -1)
    index = tuple(slice(None) if name in place else None for name in scope)
    return log_value[index]


def _sum_out(product: Tensor) -> tuple[Tensor, Tensor]:
    """log sum over the first axis, and the share of each level; no gradient where all are -inf."""
    top = product.detach().amax(0)
    top = top.masked_fill(top == -torch.inf, 0.0)
    share = (product - top).exp()
    total = share.sum(0)
    positive = total.clamp_min(torch.finfo(total.dtype).tiny)
    message = (top + positive.log()).masked_fill(total == 0, -torch.inf)
    return message, share / positive
