"""Probabilities of causation: was x necessary for y, sufficient, or both?

PN = P(y' under x' | x, y), PS = P(y under x | x', y') and PNS = P(y under x, y' under x') (Pearl
2009, defs. 9.2.1 to 9.2.3). Every person is of one of eight types: what x she had, and what y would
be under x and under x'. All that data and assumptions say is linear in the types' probabilities, so
that their sharp bounds are linear programs; without assumptions they are those of Tian & Pearl
(2000, Probabilities of causation, Annals of Mathematics and AI 28).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from causal.identification.bounds.answer import Bounds
from causal.identification.bounds.linear import Contradiction, Polytope
from causal.identification.tables import Label, Table, as_table

X, UNDER_X, UNDER_OTHER = (
    torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).double().T
)  # by type: whether she had x, whether y under x, whether y under x'


@dataclass(frozen=True)
class Causation:
    """Bounds of the three probabilities of causation.

    Attributes:
        necessary: PN, of those with x and y: without x, no y.
        sufficient: PS, of those with neither: with x, y.
        both: PNS, of all: y with x and only with x.
    """

    necessary: Bounds
    sufficient: Bounds
    both: Bounds

    def __str__(self) -> str:
        lines = [
            str(bound).split("\n")[0] for bound in (self.necessary, self.sufficient, self.both)
        ]
        return "\n".join([*lines, *str(self.both).split("\n")[1:]])


def causation(
    data: Any,
    outcome: dict[str, Label],
    *,
    do: dict[str, Label],
    versus: dict[str, Label],
    experiment: Any = None,
    monotone: bool = False,
    exogenous: bool = False,
) -> Causation:
    """Bounds of the probabilities that a cause was necessary, sufficient, or both.

    Args:
        data: what was observed without intervention: a `Table`, rows or a discrete SCM.
        outcome: y, as `{"Y": 1}`.
        do: x, as `{"X": 1}`.
        versus: x', as `{"X": 0}`; x and x' are all values of X.
        experiment: the same of an experiment in which x was assigned at random; or the numbers
            P(y | do(x)) and P(y | do(x')).
        monotone: whether it is assumed that x prevents y in nobody.
        exogenous: whether it is assumed that x and y share no causes.

    Raises:
        ValueError: more values of x than two; data that contradict each other or an assumption;
            nobody with x and y, or with neither, in the data.

    Example:
        >>> from causal.identification import Table
        >>> seen = torch.tensor([[0.486, 0.014], [0.499, 0.001]])  # Pearl 2009, table 9.2
        >>> joint = Table(seen, {"drug": (0, 1), "death": (0, 1)})
        >>> print(causation(joint, {"death": 1}, do={"drug": 1}, versus={"drug": 0},
        ...                 experiment=(0.016, 0.014)))
        PN of drug=1 for death=1 in [1, 1]
        PS of drug=1 for death=1 in [0.002058, 0.03086]
        PNS of drug=1 for death=1 in [0.002, 0.016]
          Tian & Pearl (2000); sharp
    """
    joint = as_table(data, [*do, *outcome])
    cells = _cells(joint, outcome, do, versus)
    arms = _arms(experiment, outcome, do, versus)
    polytope = _polytope(cells, arms, monotone=monotone, exogenous=exogenous)
    both = UNDER_X * (1 - UNDER_OTHER)
    parts = {"PN": (both * X, cells[1, 1]), "PS": (both * (1 - X), cells[0, 0])}
    (x,), (y,) = do.items(), outcome.items()
    about = f"of {x[0]}={x[1]} for {y[0]}={y[1]}"
    how = _how(monotone=monotone, exogenous=exogenous)
    found = []
    for name, (c, share) in [*parts.items(), ("PNS", (both, torch.ones(())))]:
        if float(share) == 0.0:
            raise ValueError(
                f"{name} {about} is a share of people of whom the data have none: its condition "
                "has probability zero. Ask about the other probabilities with other data."
            )
        low, high = _range(polytope, c, monotone=monotone, exogenous=exogenous)
        low, high = (min(max(end / float(share), 0.0), 1.0) for end in (low, high))
        found.append(Bounds(f"{name} {about}", low, high, how, rows=joint.rows))
    return Causation(*found)


def _cells(
    joint: Table, outcome: dict[str, Label], do: dict[str, Label], versus: dict[str, Label]
) -> Tensor:
    """P(x, y) of whether X is x and whether Y is y."""
    if len(do) != 1 or set(do) != set(versus) or len(outcome) != 1:
        raise ValueError(
            "Probabilities of causation are of one event for another: pass one outcome, one cause "
            "in do, and its other value in versus."
        )
    ((x, label),), ((y, value),) = do.items(), outcome.items()
    others = set(joint.levels[x]) - {label, versus[x]}
    joint.position(x, versus[x])
    if others or label == versus[x]:
        raise ValueError(
            f"The values of {x!r} are {', '.join(map(repr, joint.levels[x]))}; do and versus "
            "must be two, and all. Merge the others into one of them, or leave their rows out on "
            "purpose."
        )
    wanted = torch.tensor([v == value for v in joint.levels[y]])
    joint.position(y, value)
    rows = [joint.at(**{x: v}).marginal([y]).values for v in (versus[x], label)]
    return torch.stack([torch.stack([row[~wanted].sum(), row[wanted].sum()]) for row in rows])


def _arms(
    experiment: Any, outcome: dict[str, Label], do: dict[str, Label], versus: dict[str, Label]
) -> tuple[float, float] | None:
    """P(y | do(x)) and P(y | do(x'))."""
    if experiment is None:
        return None
    if isinstance(experiment, tuple):
        treated, control = (float(p) for p in experiment)
        if not (0.0 <= treated <= 1.0 and 0.0 <= control <= 1.0):
            raise ValueError(f"The experiment's probabilities are {experiment}: not in [0, 1].")
        return treated, control
    cells = _cells(as_table(experiment, [*do, *outcome]), outcome, do, versus)
    control, treated = (cells[:, 1] / cells.sum(1)).tolist()
    return treated, control


def _polytope(
    cells: Tensor,
    arms: tuple[float, float] | None,
    *,
    monotone: bool,
    exogenous: bool,
) -> Polytope:
    """The types' probabilities that fit the data and the assumptions."""
    y = X * UNDER_X + (1 - X) * UNDER_OTHER  # consistency: what she had is what would be under it
    rows = [
        (had * now, p)
        for had, ps in zip((1 - X, X), cells, strict=True)
        for now, p in zip((1 - y, y), ps, strict=True)
    ]
    if arms is not None:
        treated, control = torch.tensor(arms, dtype=torch.float64)
        rows += [(UNDER_X, treated), (UNDER_OTHER, control)]
    if monotone:
        rows.append(((1 - UNDER_X) * UNDER_OTHER, torch.zeros(())))
    if exogenous:  # P(types | x) is the same with and without x
        share = cells[1].sum()
        for under_x in (0.0, 1.0):
            for other in (0.0, 1.0):
                is_type = ((under_x == UNDER_X) & (other == UNDER_OTHER)).double()
                rows.append((is_type * (X - share), torch.zeros(())))
    A, b = zip(*rows, strict=True)
    return Polytope(torch.stack(A), torch.stack([p.double() for p in b]))


def _range(
    polytope: Polytope, c: Tensor, *, monotone: bool, exogenous: bool
) -> tuple[float, float]:
    try:
        return polytope.range(c)
    except Contradiction as found:
        assumed = [w for w, on in (("monotonicity", monotone), ("exogeneity", exogenous)) if on]
        blame = f" or {' and '.join(assumed)} does not hold" if assumed else ""
        raise ValueError(
            "What was observed, the experiment and the assumptions contradict each other, by at "
            f"least {found.miss:.2g} in some probability: they are of different populations"
            f"{blame}. "
            "P(x, y) <= P(y | do(x)) <= P(x, y) + P(x') always holds. Drop an assumption, or look "
            "for what differs between the two sets of data."
        ) from None


def _how(*, monotone: bool, exogenous: bool) -> str:
    assumed = [w for w, on in (("monotone", monotone), ("exogenous", exogenous)) if on]
    return "Tian & Pearl (2000)" + (f", assumed {' and '.join(assumed)}" if assumed else "")
