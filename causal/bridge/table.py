"""A frame as the estimators need it: a copy of the columns that are read, in numbers.

A treatment of two values becomes 0 and 1, truth values numbers, levels one 0/1 column each but the
first, and covariates that are numbers are standardised, which changes no estimate. What cannot be
estimated from is refused here, before anything is computed.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causal.bridge.strategy import Strategy
from pgm.schema.columns import listing, suggestion

if TYPE_CHECKING:
    import pandas

TREATMENT, OUTCOME = "treatment", "outcome"


@dataclass(frozen=True, eq=False)
class Table:
    """The rows in numbers.

    Attributes:
        frame: columns `treatment`, `outcome`, and those of `covariates`, `mediators` and
            `instruments`; its index counts the rows.
        covariates: the columns that are adjusted for.
        mediators: those of the front door.
        instruments: those of the instruments.
        do: the value of the treatment whose effect is asked for, as a number.
        versus: the value that it is compared with.
        binary: whether the treatment takes these two values and no other.
    """

    frame: "pandas.DataFrame"
    covariates: tuple[str, ...]
    mediators: tuple[str, ...]
    instruments: tuple[str, ...]
    do: float
    versus: float
    binary: bool

    @property
    def treated(self) -> Any:
        """Whether each row was treated, for a treatment of two values, (n,)."""
        return self.frame[TREATMENT].to_numpy() == 1

    def rows(self, index: Any) -> "Table":
        """The table with the rows of an index or mask, counted anew."""
        return self.with_frame(self.frame.iloc[index].reset_index(drop=True))

    def with_frame(self, frame: "pandas.DataFrame") -> "Table":
        """The table with another frame of the same columns."""
        return replace(self, frame=frame)


def tabulate(frame: "pandas.DataFrame", strategy: Strategy, do: Any, versus: Any) -> Table:
    """The columns of a strategy, checked and coded.

    Args:
        frame: the data; it is not changed.
        strategy: which columns are read.
        do: the value of the treatment whose effect is asked for.
        versus: the value that it is compared with.

    Raises:
        ValueError: a column that is absent or has missing cells, an outcome that is no number, a
            contrast that never occurs.
    """
    import pandas as pd

    _check(frame, strategy)
    treatment, low, high, binary = _treatment(frame[strategy.treatment], do, versus)
    made = {TREATMENT: treatment, OUTCOME: _outcome(frame[strategy.outcome])}
    sets = []
    for names in (strategy.adjust, strategy.through, strategy.instruments):
        coded = {k: v for name in names for k, v in _covariate(name, frame[name]).items()}
        made |= coded
        sets.append(tuple(coded))
    covariates, mediators, instruments = sets
    return Table(pd.DataFrame(made), covariates, mediators, instruments, high, low, binary)


def _treatment(column: Any, do: Any, versus: Any) -> tuple[Any, float, float, bool]:
    """The treatment in numbers, the contrast in the same numbers, whether it has two values."""
    import pandas as pd

    values = list(pd.unique(column))
    if do == versus:
        raise ValueError(f"do and versus are both {do!r}: there is nothing to compare.")
    if len(values) == 2 and {do, versus} == set(values):
        return (column == do).to_numpy().astype(float), 0.0, 1.0, True
    if len(values) == 1:
        raise ValueError(
            f"{column.name!r} is {_shown(values)} in every row: what the other value does was "
            "never seen. Add rows with it."
        )
    if not _is_number(column) or isinstance(do, str):
        known = _shown(values)
        raise ValueError(
            f"{column.name!r} has the values {known}, but do={do!r} and versus={versus!r} came: "
            "name the two of them that are compared, and keep the rows that have either."
        )
    if len(values) == 2:
        raise ValueError(
            f"{column.name!r} takes the values {_shown(values)}, but do={do!r} "
            f"and versus={versus!r} came, which no row has. Name the two values."
        )
    return column.to_numpy().astype(float), float(versus), float(do), False


def _shown(values: list[Any]) -> str:
    return listing([repr(getattr(v, "item", lambda v=v: v)()) for v in values])


def _outcome(column: Any) -> Any:
    if not _is_number(column):
        raise ValueError(
            f"The outcome {column.name!r} is no number ({column.dtype}), and has no mean. For the "
            "probability of a level pass its 0/1 column: "
            f"frame.assign({column.name}=frame[{column.name!r}] == level)."
        )
    return column.to_numpy().astype(float)


def _covariate(name: str, column: Any) -> dict[str, Any]:
    """A covariate as one or more columns of numbers."""
    import pandas as pd

    if _is_number(column):
        x = column.to_numpy().astype(float)
        std = x.std()
        return {f"of {name}": (x - x.mean()) / std} if std > 0 else {}
    levels = pd.Categorical(column).remove_unused_categories()
    if len(levels.categories) > max(20, len(column) / 10):
        raise ValueError(
            f"{name!r} ({column.dtype}) has {len(levels.categories)} levels in {len(column)} rows, "
            "as names and dates do: hardly any row shares its level with one of the other arm. "
            "Make a number of it, or coarser levels."
        )
    return {
        f"of {name} = {level}": (levels == level).astype(float) for level in levels.categories[1:]
    }


def _is_number(column: Any) -> bool:
    return bool(np.issubdtype(_dtype(column), np.number) or _dtype(column) == np.bool_)


def _dtype(column: Any) -> Any:
    dtype = column.dtype
    return dtype if isinstance(dtype, np.dtype) else getattr(dtype, "numpy_dtype", np.dtype(object))


def _check(frame: Any, strategy: Strategy) -> None:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"A {type(frame).__name__} came; the data are a pandas DataFrame.")
    if len(frame) < 4:
        raise ValueError(f"The frame has {len(frame)} rows; that is too few to compare anything.")
    for name in strategy.columns:
        if name not in frame:
            raise ValueError(
                f"The frame has no column {name!r}, which the effect is read off "
                f"({strategy}).{suggestion(name, list(map(str, frame)))} Add it, or mark the node "
                "as latent in the graph."
            )
    used = frame[list(strategy.columns)]
    holes = [str(name) for name, some in used.isna().any().items() if some]
    if holes:
        raise ValueError(
            f"Cells of {listing(holes)} are missing, in {int(used.isna().any(axis=1).sum())} of "
            f"{len(frame)} rows. Dropping them changes whom the effect is about, and is not done "
            "in silence: drop the rows yourself, or complete them several times with pgm.impute."
        )
    wild = [n for n in used if _is_number(used[n]) and not np.isfinite(used[n].astype(float)).all()]
    if wild:
        raise ValueError(f"{listing(list(map(str, wild)))} holds values that are not finite.")
