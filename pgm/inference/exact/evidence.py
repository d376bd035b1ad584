"""Evidence: what was seen of every row, and what it leaves of the tables.

A variable that was seen in all rows leaves the tables: they are read off at its levels, row by row.
One that was seen in some rows stays, with a table of its own that is zero in log where the row
allows a level and -inf where it does not. Tables inside carry the rows last, so that sums over a
few levels run along the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pgm.batch import SEEN, as_batch
from pgm.inference.exact.factors import Factor, Scope, check_known, sizes


@dataclass(frozen=True, eq=False)
class Table:
    """A table with the rows last, shape (levels of the scope, n), or one for all rows, (.., 1)."""

    scope: Scope
    log_value: Tensor


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was seen.

    Attributes:
        n: the number of rows.
        codes: the levels, shape (n,), of every variable that was seen in some row.
        seen: in which rows, shape (n,), of those that were not seen in all.
    """

    n: int
    codes: Mapping[str, Tensor]
    seen: Mapping[str, Tensor]

    @property
    def known(self) -> dict[str, Tensor]:
        """The variables that were seen in every row."""
        return {name: x for name, x in self.codes.items() if name not in self.seen}

    def take(self, rows: slice) -> "Evidence":
        """Some of the rows."""
        codes = {name: x[rows] for name, x in self.codes.items()}
        seen = {name: x[rows] for name, x in self.seen.items()}
        return Evidence(len(range(self.n)[rows]), codes, seen)


def read(factors: Sequence[Factor], given: Mapping[str, Any] | None) -> Evidence:
    """Reads what was seen: levels by variable, NaN or a mask `name_seen` where a row was not.

    Raises:
        ValueError: a name that is no variable, a level that does not exist, or numbers of rows
            that differ.
    """
    levels = sizes(factors)
    if not given:
        return Evidence(_rows({}, factors), {}, {})
    rows_first = {name: torch.atleast_1d(torch.as_tensor(x)) for name, x in given.items()}
    n = _rows({name: len(x) for name, x in rows_first.items()}, factors)
    batch = as_batch({name: x.expand(n) if len(x) == 1 else x for name, x in rows_first.items()})
    names = [
        name for name in batch if not (name.endswith(SEEN) and name.removesuffix(SEEN) in batch)
    ]
    check_known(names, list(levels), what="given")
    device = factors[0].log_value.device
    codes, seen = {}, {}
    for name in names:
        x, mask = batch[name], batch.get(name + SEEN)
        _check_levels(name, x if mask is None else x[mask], levels[name])
        if mask is None or bool(mask.any()):
            codes[name] = x.long().to(device)
        if mask is not None and bool(mask.any()) and not bool(mask.all()):
            seen[name] = mask.to(device)
    return Evidence(n, codes, seen)


def tables(factors: Sequence[Factor], evidence: Evidence) -> list[Table]:
    """The tables that the evidence leaves: those of the factors in their order, then its own."""
    known = evidence.known
    left = [_read_off(factor, known) for factor in factors]
    levels, like = sizes(factors), factors[0].log_value
    return left + [
        Table((name,), _allowed(evidence.codes[name], mask, levels[name], like))
        for name, mask in evidence.seen.items()
    ]


def check_possible(log_z: Tensor, start: int) -> None:
    """Refuses rows whose evidence has probability zero.

    Args:
        log_z: of the rows.
        start: the number of the first of them.

    Raises:
        ValueError: the first such row, or tables that hold NaN.
    """
    bad = (log_z == -torch.inf).nonzero().flatten()
    if len(bad):
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise ValueError(
            f"The evidence of row {start + int(bad[0])}{more} has probability zero under the "
            "model: nothing can be said given what cannot happen. "
            "Check its codes, leave the row out (log_partition is -inf there), or fit tables with "
            "a prior, which leaves no level at zero."
        )
    if bool(log_z.isnan().any()):
        raise ValueError("log Z is NaN: a table holds NaN or +inf. Log tables are finite or -inf.")


def _allowed(x: Tensor, seen: Tensor, levels: int, like: Tensor) -> Tensor:
    """log 1 where a level agrees with what was seen, log 0 where it does not, shape (levels, n)."""
    other = (torch.arange(levels, device=like.device)[:, None] != x) & seen
    return torch.zeros_like(other, dtype=like.dtype).masked_fill(other, -torch.inf)


def _read_off(factor: Factor, known: Mapping[str, Tensor]) -> Table:
    """The table at the levels that were seen, which are no axes any more."""
    log_value = factor.log_value.movedim(0, -1) if factor.batched else factor.log_value[..., None]
    at = [i for i, name in enumerate(factor.scope) if name in known]
    if not at:
        return Table(factor.scope, log_value)
    free = [i for i in range(len(factor.scope)) if i not in at]
    index, shape = torch.zeros((), dtype=torch.long, device=log_value.device), []
    for i in at:
        index = index * factor.levels[i] + known[factor.scope[i]]
        shape.append(factor.levels[i])
    rows_last = log_value.permute(*free, *at, -1).flatten(len(free), -2)
    if factor.batched:
        row = torch.arange(log_value.shape[-1], device=index.device)
        picked = rows_last[..., index, row]
    else:
        picked = rows_last[..., index, 0]
    return Table(tuple(factor.scope[i] for i in free), picked)


def _rows(lengths: Mapping[str, int], factors: Sequence[Factor]) -> int:
    """The number of rows, in which one row stands for all."""
    lengths = dict(lengths) | {repr(f): len(f.log_value) for f in factors if f.batched}
    several = {name: k for name, k in lengths.items() if k != 1}
    if len(set(several.values())) > 1:
        raise ValueError(
            f"Different numbers of rows came: {several}. Row i of all evidence, and of tables by "
            "row, belongs to one question."
        )
    return next(iter(several.values()), 1)


def _check_levels(name: str, x: Tensor, levels: int) -> None:
    bad = x[(x < 0) | (x >= levels) | (x != x.round())] if x.is_floating_point() else None
    bad = x[(x < 0) | (x >= levels)] if bad is None else bad
    if len(bad):
        raise ValueError(
            f"{name!r} has {levels} levels, coded 0 .. {levels - 1}, but the evidence holds "
            f"{float(bad[0]):g}. Pass the codes of its levels, and NaN (or a mask {name + SEEN!r}) "
            "where a row was not seen."
        )
