"""Passes: the rows in pieces whose tables fit memory, each with what is left of them to sum."""

from collections.abc import Collection, Iterator, Sequence

from pgm.inference.exact.evidence import Evidence, Table, tables
from pgm.inference.exact.factors import Factor, Scope, sizes
from pgm.inference.exact.order import Plan, make_plan
from pgm.schema.columns import listing

MEMORY = 2**30
"""Bytes that the tables of one pass may take, unless said otherwise."""

_COPIES = 4
_CACHE = 2**25


def passes(
    factors: Sequence[Factor],
    evidence: Evidence,
    *,
    together: tuple[Scope, ...] = (),
    prune: bool = True,
    keep: bool = True,
    memory: int,
) -> Iterator[tuple[Plan, list[Table], Evidence]]:
    """Plans once, then gives piece after piece: the plan, the tables left, the rows' evidence.

    Args:
        factors: the model.
        evidence: of all rows.
        together: variables that shall stand in one clique.
        prune: whether barren tables are left out.
        keep: whether all cliques are in memory together.
        memory: bytes that a pass may take.

    Raises:
        MemoryError: one row takes more than that.
    """
    known = evidence.known
    left = [tuple(v for v in f.scope if v not in known) for f in factors]
    left += [(name,) for name in evidence.seen]
    plan = plan_left(factors, left, unknown(together, known), prune=prune)
    cells = plan.cells if keep else 2 * plan.largest
    one = cells * _COPIES * factors[0].log_value.element_size()
    _check_memory(plan, one, memory)
    at_once = max(1, min(memory, _CACHE) // max(one, 1))
    for start in range(0, evidence.n, at_once):
        rows = slice(start, start + at_once)
        part = evidence.take(rows)
        yield plan, tables([_take(f, rows) for f in factors], part), part


def plan_left(
    factors: Sequence[Factor],
    left: Sequence[Scope],
    together: tuple[Scope, ...],
    *,
    prune: bool,
) -> Plan:
    """The plan for what evidence leaves of the scopes; scopes behind those of factors are its own.

    Args:
        factors: the model.
        left: what is left of their scopes, then those of further tables.
        together: as in `passes`, without what is known.
        prune: as in `passes`.
    """
    children = [f.child for f in factors] + [None] * (len(left) - len(factors))
    levels = tuple(sizes(factors).items())
    return make_plan(tuple(left), tuple(children), levels, together, prune=prune)


def unknown(together: tuple[Scope, ...], known: Collection[str]) -> tuple[Scope, ...]:
    """What is asked about and not known."""
    return tuple(tuple(v for v in scope if v not in known) for scope in together)


def _take(factor: Factor, rows: slice) -> Factor:
    """The tables of some rows, where each has its own."""
    if not factor.batched or len(factor.log_value) == 1:
        return factor
    return Factor(factor.scope, factor.log_value[rows], factor.child)


def _check_memory(plan: Plan, one: int, memory: int) -> None:
    if one > memory:
        step = max(plan.steps, key=lambda step: len(step.scope))
        raise MemoryError(
            f"Exact inference would take {one / 2**30:,.3g} GiB for one row, and "
            f"{memory / 2**30:.3g} GiB are allowed: the largest clique has {plan.largest:,} cells "
            f"(such as {listing(list(step.scope))}). See more of these variables, merge their "
            "levels, drop tables that join them, or pass a larger memory=; beyond that, sample: "
            "Gibbs chains of a Markov random field, or pgm.sample of a network."
        )
