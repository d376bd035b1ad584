"""Factors: log tables over named discrete variables, and surgery on those that are conditional."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pgm.schema.columns import listing, suggestion

Scope = tuple[str, ...]
"""The variables of a table, one an axis."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A log-potential over named variables.

    Args:
        scope: the variables, an axis of the table each.
        log_value: in nats, shape (levels of each variable); or with the rows first, (n, levels of
            each variable), where every row has a table of its own (soft evidence).
        child: the variable over which the table sums to one whatever the others are, where it is a
            conditional table p(child | others). What nobody asks about is then left out unsummed.

    Raises:
        ValueError: a variable twice, a table whose axes are not those of the scope, or a child
            that is not in it.

    Example:
        >>> p = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> Factor(("rain", "wet"), p.log(), child="wet")
        Factor(wet | rain: 2 x 2)
    """

    scope: Scope
    log_value: Tensor
    child: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope", tuple(self.scope))
        if len(set(self.scope)) < len(self.scope):
            raise ValueError(
                f"The scope {self.scope} names a variable twice: an axis belongs to one variable. "
                "Take the diagonal of the table instead."
            )
        if self.log_value.dim() - len(self.scope) not in (0, 1):
            raise ValueError(
                f"The table of the factor over {self.scope} has shape "
                f"{tuple(self.log_value.shape)}: it needs an axis for each of the "
                f"{len(self.scope)} variables, and may have one for the rows in front."
            )
        if self.child is not None and self.child not in self.scope:
            raise ValueError(f"The child {self.child!r} is not in the scope {self.scope}.")

    @property
    def batched(self) -> bool:
        """Whether every row has a table of its own."""
        return self.log_value.dim() > len(self.scope)

    @property
    def levels(self) -> tuple[int, ...]:
        """How many levels each variable of the scope has."""
        return tuple(self.log_value.shape[-len(self.scope) :]) if self.scope else ()

    def __repr__(self) -> str:
        others = ", ".join(name for name in self.scope if name != self.child)
        about = others if self.child is None else f"{self.child} | {others}".rstrip(" |")
        return f"Factor({about}: {' x '.join(map(str, self.levels)) or 'a number'})"


def sizes(factors: Sequence[Factor]) -> dict[str, int]:
    """The number of levels of every variable.

    Raises:
        ValueError: no factor, or factors that disagree.
    """
    if not factors:
        raise ValueError("No factor came: without one there is no distribution. Pass at least one.")
    found: dict[str, int] = {}
    for factor in factors:
        for name, k in zip(factor.scope, factor.levels, strict=True):
            if found.setdefault(name, k) != k:
                raise ValueError(
                    f"{name!r} has {found[name]} levels in one factor and {k} in {factor!r}: the "
                    "axes of a variable are of one length in all tables. Is an axis out of order?"
                )
    return found


def check_known(names: Sequence[str], known: Sequence[str], *, what: str) -> None:
    """Refuses a name that is no variable.

    Raises:
        ValueError: the first such name.
    """
    for name in names:
        if name not in known:
            raise ValueError(
                f"{what} names {name!r}, which is no variable.{suggestion(name, known)} The "
                f"variables are {listing(list(known))}."
            )


def intervene(factors: Sequence[Factor], do: Mapping[str, int | Tensor]) -> list[Factor]:
    """The factors under do(): the table of each variable that is set becomes a point mass.

    That is the truncated factorisation (Pearl 2009, Causality, eq. 3.10), which speaks of
    conditional tables: potentials without a child have no mechanism to replace.

    Args:
        factors: conditional tables, those of the variables that are set at least; not changed.
        do: the level of each variable, or levels by row, shape (n,).

    Returns:
        New factors; tables of the others are shared.

    Raises:
        ValueError: a variable without a conditional table, or a level that it does not have.

    Example:
        >>> rain = Factor(("rain",), torch.tensor([0.7, 0.3]).log(), child="rain")
        >>> p = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> wet = Factor(("rain", "wet"), p.log(), child="wet")
        >>> intervene([rain, wet], {"wet": 1})
        [Factor(rain: 2), Factor(wet: 2)]
    """
    tables = {factor.child: factor for factor in factors if factor.child is not None}
    check_known(list(do), list(sizes(factors)), what="do")
    for name in do:
        if name not in tables:
            raise ValueError(
                f"do sets {name!r}, which has no conditional table (a Factor with "
                f"child={name!r}): potentials have no direction, so that setting a variable and "
                "seeing it cannot be told apart. Pass the value in `given` if it was seen."
            )
    return [
        f if f.child not in do or f.child is None else _point_mass(f, f.child, do[f.child])
        for f in factors
    ]


def _point_mass(factor: Factor, name: str, level: int | Tensor) -> Factor:
    k = factor.levels[factor.scope.index(name)]
    at = torch.as_tensor(level, device=factor.log_value.device)
    if at.dim() > 1 or at.is_floating_point() or bool(((at < 0) | (at >= k)).any()):
        raise ValueError(
            f"do sets {name!r} to {level}; it has {k} levels, coded 0 .. {k - 1}. Pass one of "
            "them, or one a row, shape (n,), as whole numbers."
        )
    mass = torch.nn.functional.one_hot(at, k).to(factor.log_value.dtype)
    return Factor((name,), mass.log(), child=name)
