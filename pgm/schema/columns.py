"""The kinds of column a table may have.

A column kind is an invertible map between the cells of a pandas column and numbers,
float64 with NaN where a cell is missing:

    Continuous    z = (x - mean) / std
    Categorical   z = position of x among the levels, 0 .. k-1
    Count         z = x, a whole number >= 0

Bounds belong to the kind, and not to the data: they are what is known of a quantity before any
table is seen, which is what makes them safe to use under differential privacy.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float64

if TYPE_CHECKING:
    import pandas

Level = str | bool | int | float
Numbers = Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class Continuous:
    """A real quantity, standardised by z = (x - mean) / std.

    Args:
        lower: smallest value that may occur; None means no bound.
        upper: largest value that may occur; None means no bound.
        mean: what is subtracted, in the column's own unit.
        std: what it is then divided by, in the column's own unit.

    Raises:
        ValueError: a bound that is not finite, lower >= upper, or std not finite and positive.

    Example:
        >>> Continuous(lower=0, upper=120, mean=50, std=20).code("age", 80)
        1.5
    """

    kind: ClassVar[str] = "continuous"
    lower: float | None = None
    upper: float | None = None
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        for field in ("lower", "upper", "mean", "std"):
            value = getattr(self, field)
            if value is not None:
                object.__setattr__(self, field, _finite(f"Continuous({field}=...)", value))
        if self.std <= 0:
            raise ValueError(
                f"Continuous(std={self.std}): a column is divided by its std, which must be > 0. "
                "A constant column has std 0: leave it out, or keep std=1."
            )
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise ValueError(
                f"Continuous(lower={self.lower}, upper={self.upper}): lower must be below upper."
            )

    def encode(self, name: str, cells: "pandas.Series") -> Numbers:
        """Maps cells to numbers, NaN where missing."""
        x = _numbers(name, cells)
        _refuse_outside(name, x, self.lower, self.upper)
        return (x - self.mean) / self.std

    def decode(self, name: str, numbers: Numbers) -> "pandas.Series":
        """Maps numbers to cells (float64); values outside the bounds stay as they are."""
        import pandas as pd

        x = numbers * self.std + self.mean
        for bound, beyond in ((self.lower, np.less), (self.upper, np.greater)):
            if bound is not None:
                rounding = 2.0**-22 * (abs(bound - self.mean) + abs(bound))
                x = np.where(beyond(x, bound) & (np.abs(x - bound) <= rounding), bound, x)
        return pd.Series(x, name=name)

    def code(self, name: str, value: object) -> float:
        """The number of one value."""
        x = _finite(f'a value of column "{name}"', value)
        _refuse_outside(name, np.array([x]), self.lower, self.upper)
        return (x - self.mean) / self.std

    def label(self, name: str, code: float) -> float:
        """The value of one number."""
        return float(self.decode(name, np.array([float(code)]))[0])

    def __str__(self) -> str:
        lower = "(-inf" if self.lower is None else f"[{self.lower:g}"
        upper = "inf)" if self.upper is None else f"{self.upper:g}]"
        scale = "" if (self.mean, self.std) == (0, 1) else f", mean {self.mean:g} std {self.std:g}"
        return f"{lower}, {upper}{scale}"


@dataclass(frozen=True)
class Categorical:
    """A choice among k named levels, coded 0 .. k-1 in the order given.

    Args:
        levels: the names (strings, booleans or numbers), each once.
        ordered: False or True for a pandas categorical without or with an order; None where the
            frame holds plain labels. It decides only what `decode` gives back.

    Raises:
        ValueError: no level, a level twice, or a missing value among the levels.
        TypeError: a level that is not a string, a boolean or a number.

    Example:
        >>> Categorical(("low", "medium", "high")).code("dose", "high")
        2
    """

    kind: ClassVar[str] = "categorical"
    levels: Sequence[Level]
    ordered: bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.levels, str):
            raise TypeError(
                f"Categorical(levels={self.levels!r}): levels is a sequence of names, and a single "
                f"string would be taken letter by letter. Write levels=({self.levels!r},)."
            )
        levels = tuple(_plain(level) for level in self.levels)
        object.__setattr__(self, "levels", levels)
        for level in levels:
            if not isinstance(level, str | bool | int | float):
                raise TypeError(
                    f"Categorical: level {level!r} is of type {type(level).__name__}; "
                    "levels are strings, booleans or numbers. Convert them, say with str()."
                )
            if level != level:
                raise ValueError(
                    "Categorical: NaN is among the levels. A missing cell is not a level: "
                    'leave it out, or name it, say "unknown", in the frame and in the levels.'
                )
        if not levels:
            raise ValueError("Categorical(levels=()): at least one level is needed.")
        if len(set(levels)) < len(levels):
            twice = sorted({repr(level) for level in levels if levels.count(level) > 1})
            raise ValueError(f"Categorical: each level stands once, but twice: {listing(twice)}.")

    def encode(self, name: str, cells: "pandas.Series") -> Numbers:
        """Maps cells to positions among the levels, NaN where missing."""
        import pandas as pd

        try:
            codes, unique = pd.factorize(cells)
        except TypeError:
            kinds = sorted({type(cell).__name__ for cell in cells})
            raise TypeError(
                f'Column "{name}" is categorical but holds cells of type {listing(kinds)}; '
                "cells are single strings, booleans or numbers."
            ) from None
        position = np.array([self._position(name, level) for level in unique] + [np.nan])
        return position[codes]

    def decode(self, name: str, numbers: Numbers) -> "pandas.Series":
        """Maps positions to labels, NaN to missing."""
        import pandas as pd

        known = ~np.isnan(numbers)
        k = len(self.levels)
        wrong = known & ~(np.isin(numbers, np.arange(k)))
        if wrong.any():
            raise ValueError(
                f'Column "{name}" has {k} levels, coded 0 .. {k - 1}, but the batch holds '
                f"{numbers[wrong][0]:g} ({wrong.sum()} such cells). Decode codes, not "
                "probabilities or logits: take a draw or the argmax first."
            )
        positions = np.where(known, numbers, -1).astype(np.int64)
        if self.ordered is not None:
            dtype = pd.CategoricalDtype(pd.Index(self.levels), ordered=self.ordered)
            return pd.Series(pd.Categorical.from_codes(positions, dtype=dtype), name=name)
        return _labels(name, self.levels, positions)

    def code(self, name: str, value: object) -> int:
        """The position of one level."""
        return self._position(name, value)

    def label(self, name: str, code: float) -> Level:
        """The level at one position."""
        if math.isnan(code):
            raise ValueError(f'Column "{name}": NaN stands for a missing cell and has no label.')
        self.decode(name, np.array([float(code)]))
        return self.levels[int(code)]

    def _position(self, name: str, value: object) -> int:
        level = _plain(value)
        if isinstance(level, str | bool | int | float) and level in self.levels:
            return self.levels.index(level)
        raise ValueError(
            f'Column "{name}" has no level {value!r}. Its levels are: '
            f"{listing([repr(level) for level in self.levels])}.{suggestion(value, self.levels)} "
            "A level that the model has not been told of cannot be given a code."
        )

    def __str__(self) -> str:
        shown = [str(level) for level in self.levels[:6]]
        more = f", ... ({len(self.levels)} levels)" if len(self.levels) > 6 else ""
        return (" < " if self.ordered else ", ").join(shown) + more


@dataclass(frozen=True)
class Count:
    """A number of things: 0, 1, 2, ...

    Args:
        upper: largest count that may occur; None means no bound.

    Raises:
        ValueError: an upper bound that is not a whole number >= 1.

    Example:
        >>> Count(upper=40).code("visits", 3)
        3.0
    """

    kind: ClassVar[str] = "count"
    upper: int | None = None

    def __post_init__(self) -> None:
        if self.upper is None:
            return
        upper = _finite("Count(upper=...)", self.upper)
        if upper < 1 or upper != math.floor(upper):
            raise ValueError(f"Count(upper={self.upper}): the bound is a whole number >= 1.")
        object.__setattr__(self, "upper", int(upper))

    def encode(self, name: str, cells: "pandas.Series") -> Numbers:
        """Maps cells to whole numbers, NaN where missing."""
        x = _numbers(name, cells)
        _refuse_fractions(name, x)
        _refuse_outside(name, x, 0, self.upper)
        return x

    def decode(self, name: str, numbers: Numbers) -> "pandas.Series":
        """Maps whole numbers to int64 cells (nullable Int64 where some are missing)."""
        import pandas as pd

        _refuse_fractions(name, numbers)
        missing = np.isnan(numbers)
        cells = pd.Series(np.where(missing, 0, numbers).astype(np.int64), name=name)
        return cells.astype("Int64").mask(missing) if missing.any() else cells

    def nearest(self, numbers: Numbers) -> Numbers:
        """The count nearest to each number, within 0 and the upper bound."""
        return np.clip(np.round(numbers), 0, self.upper)

    def code(self, name: str, value: object) -> float:
        """The number of one count."""
        x = np.array([_finite(f'a value of column "{name}"', value)])
        _refuse_fractions(name, x)
        _refuse_outside(name, x, 0, self.upper)
        return float(x[0])

    def label(self, name: str, code: float) -> int:
        """The count of one number."""
        z = np.array([_finite(f'the code of column "{name}"', code)])
        _refuse_fractions(name, z)
        return int(z[0])

    def __str__(self) -> str:
        return "0, 1, 2, ..." + ("" if self.upper is None else f", {self.upper}")


Column = Continuous | Categorical | Count


def listing(items: Sequence[str], most: int = 12) -> str:
    """Items joined by commas, the long tail as a number."""
    more = f", ... ({len(items)} in all)" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def suggestion(name: object, known: Iterable[object]) -> str:
    """' Did you mean ...?' where something known is spelt much like name, else ''."""
    spelt = {str(other).casefold(): other for other in known}
    close = get_close_matches(str(name).casefold(), list(spelt), n=1)
    return f" Did you mean {spelt[close[0]]!r}?" if close else ""


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic | torch.Tensor) else value


def _finite(what: str, value: Any) -> float:
    number = _plain(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"{what} is {value!r} of type {type(value).__name__}; a number is needed.")
    if not math.isfinite(number):
        raise ValueError(f"{what} is {number}; a finite number is needed.")
    return float(number)


def _numbers(name: str, cells: "pandas.Series") -> Numbers:
    """The cells as float64, NaN where missing; refuses text, booleans, dates and infinities."""
    import pandas as pd

    held = pd.api.types.infer_dtype(cells, skipna=True)
    if held not in {"integer", "floating", "mixed-integer-float", "integer-na", "empty"}:
        known = cells[cells.notna()]
        raise TypeError(
            f'Column "{name}" is a column of numbers but holds {held} cells'
            + (f", such as {known.iloc[0]!r}." if len(known) else ".")
            + f' Convert it first, say with pandas.to_numeric(frame["{name}"]), or declare it '
            "Categorical."
        )
    if isinstance(cells.dtype, np.dtype) and cells.dtype.kind in "iuf":
        x = cells.to_numpy(dtype=np.float64, copy=True)
    else:
        x = cells.astype(object).where(cells.notna(), np.nan).to_numpy(dtype=np.float64)
    if np.isinf(x).any():
        raise ValueError(
            f'Column "{name}" holds {np.isinf(x).sum()} infinite values (the first in row '
            f"{np.isinf(x).argmax()}). No density is defined there. If they stand for missing "
            f'cells, say so: frame["{name}"].replace([inf, -inf], nan).'
        )
    return x


def _refuse_fractions(name: str, x: Numbers) -> None:
    wrong = (x < 0) | (x >= 2.0**53) | (~np.isnan(x) & (x != np.floor(x)))
    if wrong.any():
        raise ValueError(
            f'Column "{name}" is a count (0, 1, 2, ...) but holds {x[wrong][0]:g} '
            f"({wrong.sum()} such cells, the first in row {wrong.argmax()}). Declare it "
            "Continuous if it is a measurement. Draws of a model that knows nothing of counts "
            'are rounded by schema.decode(batch, counts="nearest").'
        )


def _refuse_outside(name: str, x: Numbers, lower: float | None, upper: float | None) -> None:
    below = x < (-np.inf if lower is None else lower)
    wrong = below | (x > (np.inf if upper is None else upper))
    if wrong.any():
        low = "-inf" if lower is None else f"{lower:g}"
        high = "inf" if upper is None else f"{upper:g}"
        raise ValueError(
            f'Column "{name}" lies in [{low}, {high}] by its schema but holds {x[wrong][0]:g} '
            f"({wrong.sum()} such cells, the first in row {wrong.argmax()}). Correct or clip the "
            "cells, or declare wider bounds; bounds are promises that privacy rests on, and "
            "nothing is clipped silently."
        )


def _labels(
    name: str, levels: Sequence[Level], positions: np.ndarray[Any, np.dtype[np.int64]]
) -> "pandas.Series":
    """Levels at positions (-1: missing) as a column of plain labels in its natural dtype."""
    import pandas as pd

    table = np.array([*levels, None], dtype=object)
    missing = bool((positions < 0).any())
    kinds = {type(level) for level in levels}
    dtype: Any = object
    if kinds == {str}:
        dtype = pd.Series([""]).dtype
    elif kinds == {bool}:
        dtype = "boolean" if missing else "bool"
    elif kinds == {int}:
        dtype = "Int64" if missing else "int64"
    elif kinds <= {int, float}:
        dtype = "float64"
    return pd.Series(table[positions], name=name, dtype=dtype)
