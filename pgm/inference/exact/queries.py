"""Questions to a discrete model: log Z, marginals, the most probable state, draws; given evidence.

Rows are taken in pieces whose tables fit the memory allowed. What one row needs beyond that is an
error before anything is summed, and names the clique.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pgm.inference.exact.elimination import beliefs, eliminate, follow, onto, sample
from pgm.inference.exact.evidence import Evidence, check_possible, read
from pgm.inference.exact.factors import Factor, Scope, check_known, sizes
from pgm.inference.exact.order import Plan
from pgm.inference.exact.passes import MEMORY, passes, plan_left, unknown
from pgm.randomness import seeded

_AT_ONCE = 2**20
"""Draws of a variable that are made together."""


def log_partition(
    factors: Sequence[Factor], given: Mapping[str, Any] | None = None, *, memory: int = MEMORY
) -> Float[Tensor, " n"]:
    """log sum over all that was not seen of the product of the factors, one number a row.

    Of conditional tables it is the log probability of the evidence. It is differentiable in the
    tables: the gradient with respect to a log table are the expected counts of its cells.

    Args:
        factors: the model.
        given: the levels that were seen by variable, a number or shape (n,), with NaN, or a mask
            `name_seen`, for rows in which it was not.
        memory: bytes that the tables of one pass may take.

    Returns:
        Nats, shape (n,), of one row where no evidence came; -inf where the evidence is impossible.

    Raises:
        ValueError: factors that disagree, unknown variables, levels that do not exist.
        MemoryError: a clique too large to sum.

    Example:
        >>> rain = Factor(("rain",), torch.tensor([0.7, 0.3]).log(), child="rain")
        >>> p = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> wet = Factor(("rain", "wet"), p.log(), child="wet")
        >>> log_partition([rain, wet], {"wet": torch.tensor([0, 1])}).exp()
        tensor([0.6900, 0.3100])
    """
    keep = torch.is_grad_enabled() and any(f.log_value.requires_grad for f in factors)
    some = passes(factors, read(factors, given), keep=keep, memory=memory)
    return torch.cat(
        [eliminate(left, way, keep=False)[0].expand(part.n) for way, left, part in some]
    )


def marginals(
    factors: Sequence[Factor],
    targets: Sequence[str | Scope] | None = None,
    given: Mapping[str, Any] | None = None,
    *,
    memory: int = MEMORY,
) -> dict[str | Scope, Tensor]:
    """Posterior marginals of variables, and joint ones of several together, all from one pass.

    Args:
        factors: the model.
        targets: names, and tuples of names for joint marginals; by default every variable.
        given: as in `log_partition`.
        memory: bytes that the tables of one pass may take.

    Returns:
        By target, probabilities of shape (n, levels), or (n, levels of each in the order given).
        They are differentiable in the tables.

    Raises:
        ValueError: evidence of probability zero, whose posterior is not defined; and as
            `log_partition`.
        MemoryError: a clique too large to sum.

    Example:
        >>> rain = Factor(("rain",), torch.tensor([0.7, 0.3]).log(), child="rain")
        >>> p = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> wet = Factor(("rain", "wet"), p.log(), child="wet")
        >>> marginals([rain, wet], ["rain"], {"wet": torch.tensor([0, 1])})["rain"]
        tensor([[0.9130, 0.0870], [0.2258, 0.7742]])
    """
    return marginals_and_log_partition(factors, targets, given, memory=memory)[0]


def marginals_and_log_partition(
    factors: Sequence[Factor],
    targets: Sequence[str | Scope] | None = None,
    given: Mapping[str, Any] | None = None,
    *,
    memory: int = MEMORY,
) -> tuple[dict[str | Scope, Tensor], Float[Tensor, " n"]]:
    """What `marginals` and `log_partition` say, from the same pass."""
    evidence, levels = read(factors, given), sizes(factors)
    wanted = list(levels) if targets is None else [_key(target) for target in targets]
    scopes = {target: (target,) if isinstance(target, str) else target for target in wanted}
    check_known([v for scope in scopes.values() for v in scope], list(levels), what="targets")
    found: dict[str | Scope, list[Tensor]] = {target: [] for target in wanted}
    together, sums, start = tuple(scopes.values()), list[Tensor](), 0
    for way, left, part in passes(factors, evidence, together=together, memory=memory):
        log_z, buckets = eliminate(left, way)
        check_possible(log_z, start)
        hosts = {target: _host(scope, way, part) for target, scope in scopes.items()}
        asked = {i for i in hosts.values() if i is not None}
        p = beliefs(buckets, way, asked, len(left))
        for target, i in hosts.items():
            marginal = None if i is None else (p[i], buckets[i].scope)
            found[target].append(_joint(scopes[target], marginal, part, levels, left[0].log_value))
        sums.append(log_z.expand(part.n))
        start += part.n
    return {target: torch.cat(pieces) for target, pieces in found.items()}, torch.cat(sums)


def most_probable(
    factors: Sequence[Factor], given: Mapping[str, Any] | None = None, *, memory: int = MEMORY
) -> tuple[dict[str, Int[Tensor, " n"]], Float[Tensor, " n"]]:
    """The most probable state of all variables together, given what was seen (MAP, by max-product).

    It is not made of the largest marginals. Of states that tie, one is returned.

    Args:
        factors: the model.
        given: as in `log_partition`.
        memory: bytes that the tables of one pass may take.

    Returns:
        The level of every variable, those seen included, shape (n,); and the sum of the log
        factors there, shape (n,).

    Raises:
        ValueError: evidence of probability zero; and as `log_partition`.
        MemoryError: a clique too large.

    Example:
        >>> rain = Factor(("rain",), torch.tensor([0.7, 0.3]).log(), child="rain")
        >>> p = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> wet = Factor(("rain", "wet"), p.log(), child="wet")
        >>> state, log_value = most_probable([rain, wet])
        >>> state["rain"].item(), state["wet"].item(), log_value.exp().item()
        (0, 0, 0.63)
    """
    evidence, pieces, values, start = read(factors, given), [], [], 0
    for way, left, part in passes(factors, evidence, prune=False, memory=memory):
        log_value, buckets = eliminate(left, way, by="max")
        check_possible(log_value, start)
        pieces.append({**part.known, **follow(buckets, part.n)})
        values.append(log_value.expand(part.n))
        start += part.n
    state = {name: torch.cat([piece[name] for piece in pieces]) for name in sizes(factors)}
    return state, torch.cat(values)


def draw(
    factors: Sequence[Factor],
    draws: int,
    given: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    memory: int = MEMORY,
) -> dict[str, Int[Tensor, "draws n"]]:
    """Independent exact draws of all variables together, given what was seen.

    Args:
        factors: the model.
        draws: how many for each row.
        given: as in `log_partition`.
        seed: of the draws.
        memory: bytes that the tables of one pass may take.

    Returns:
        The level of every variable, those seen included, shape (draws, n); n is 1 where no evidence
        came.

    Raises:
        ValueError: no draw; evidence of probability zero; and as `log_partition`.
        MemoryError: a clique too large.

    Example:
        >>> fair = Factor(("a", "b"), torch.tensor([[0.0, -40.0], [-40.0, 0.0]]))
        >>> drawn = draw([fair], 1000, {"b": torch.tensor([0, 1])}, seed=0)
        >>> drawn["a"].double().mean(0)
        tensor([0., 1.], dtype=torch.float64)
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; at least one is drawn for each row.")
    evidence, pieces, start = read(factors, given), [], 0
    with seeded(seed), torch.no_grad():
        for way, left, part in passes(factors, evidence, prune=False, memory=memory):
            log_z, buckets = eliminate(left, way)
            check_possible(log_z, start)
            most = max(1, _AT_ONCE // part.n)
            some = [min(most, draws - done) for done in range(0, draws, most)]
            drawn = [sample(buckets, k, part.n) for k in some]
            known = {name: x.expand(draws, part.n) for name, x in part.known.items()}
            pieces.append(known | {v: torch.cat([d[v] for d in drawn]) for v in drawn[0]})
            start += part.n
    return {name: torch.cat([piece[name] for piece in pieces], 1) for name in sizes(factors)}


def plan(
    factors: Sequence[Factor],
    targets: Sequence[str | Scope] = (),
    seen: Sequence[str] = (),
) -> Plan:
    """What a question would cost, without answering it.

    Args:
        factors: the model.
        targets: as in `marginals`.
        seen: the variables that are seen in all rows.

    Example:
        >>> chain = [Factor((f"x{i}", f"x{i + 1}"), torch.zeros(2, 2)) for i in range(9)]
        >>> print(plan(chain))
        10 variables to sum, 38 cells a row, the largest clique 4
    """
    levels = sizes(factors)
    check_known([*seen], list(levels), what="seen")
    together = tuple((t,) if isinstance(t, str) else tuple(t) for t in targets)
    check_known([v for scope in together for v in scope], list(levels), what="targets")
    left = [tuple(v for v in f.scope if v not in seen) for f in factors]
    return plan_left(factors, left, unknown(together, seen), prune=True)


def _key(target: str | Sequence[str]) -> str | Scope:
    return target if isinstance(target, str) else tuple(target)


def _host(scope: Scope, way: Plan, evidence: Evidence) -> int | None:
    """The bucket whose clique holds the unknown variables of a scope; None if all are known."""
    known = evidence.known
    place = {name: i for i, name in enumerate(way.order)}
    return min((place[name] for name in scope if name not in known), default=None)


def _joint(
    scope: Scope,
    marginal: tuple[Tensor, Scope] | None,
    evidence: Evidence,
    levels: Mapping[str, int],
    like: Tensor,
) -> Tensor:
    """The marginal of a scope with the rows first; what is known has all its mass on one level."""
    known = evidence.known
    free = tuple(name for name in scope if name not in known)
    if marginal is None:
        p = like.new_ones(evidence.n)
    else:
        belief, clique = marginal
        order = tuple(name for name in clique if name in free)
        p = onto(belief, clique, free)
        p = p.permute(-1, *(order.index(name) for name in free)).expand(
            evidence.n, *[-1] * len(free)
        )
    names = list(free)
    for name in scope:
        if name in known:
            mass = torch.nn.functional.one_hot(known[name], levels[name]).to(p)
            p = p[..., None] * mass.reshape(evidence.n, *[1] * (p.dim() - 1), levels[name])
            names.append(name)
    return p.permute(0, *(1 + names.index(name) for name in scope))
