"""Is x independent of y given z, in a table? The test by the kinds of the columns.

Levels: the G-test. Numbers: partial correlation, which sees straight lines alone, or the kernel
test, which sees any dependence and costs n^3. A mixture of levels and numbers: the kernel test, a
level being a 0/1 column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causal.assess.contingency import contingency
from causal.assess.kernel import hsic, kci
from pgm.schema.columns import listing, suggestion

if TYPE_CHECKING:
    import pandas

TESTS = ("partial correlation", "kernel", "G", "chi-square")


@dataclass(frozen=True)
class IndependenceTest:
    """The result of one test.

    Attributes:
        x: one column.
        y: the other.
        given: the columns in the condition.
        test: which one it was.
        statistic: its value.
        p: the probability of one as large, were they independent.
        n: the rows that were used.
        note: what should be known of the computation; empty if nothing.
    """

    x: str
    y: str
    given: tuple[str, ...]
    test: str
    statistic: float
    p: float
    n: int
    note: str = ""

    def __str__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return (
            f"{claim(self.x, self.y, self.given)}: {self.test} {self.statistic:.4g}, "
            f"p = {self.p:.3g} ({self.n} rows{note})"
        )


def claim(x: str, y: str, given: Sequence[str]) -> str:
    """The statement that is tested."""
    return f"{x} _||_ {y}" + (f" | {', '.join(given)}" if given else "")


def independence(
    frame: "pandas.DataFrame",
    x: str,
    y: str,
    given: Sequence[str] = (),
    *,
    test: str | None = None,
    rows: int = 500,
    seed: int = 0,
) -> IndependenceTest:
    """Tests x _||_ y | given.

    Args:
        frame: the data; truth values, labels and categoricals are levels, all else numbers.
        x: a column.
        y: another.
        given: the columns in the condition.
        test: "partial correlation", "kernel", "G" or "chi-square"; None takes the G-test where all
            are levels, partial correlation where all are numbers, else the kernel test.
        rows: at most so many, drawn at random, for the kernel test.
        seed: of that draw, and of shuffles in the G-test.

    Raises:
        ValueError: a column that is absent, named twice, or has missing cells; a test for the other
            kind of columns; too few rows.

    Example:
        >>> import pandas as pd
        >>> z, a, b = np.random.default_rng(0).normal(size=(3, 300))
        >>> frame = pd.DataFrame({"x": z + a, "y": z + b, "z": z})
        >>> print(independence(frame, "x", "y"))
        x _||_ y: partial correlation 0.5801, p = 2.27e-28 (300 rows)
        >>> independence(frame, "x", "y", ["z"]).p > 0.05
        True
    """
    names = (x, y, *given)
    _check(frame, names, test)
    levels = {name: is_levels(frame[name]) for name in names}
    chosen = test or _usual(levels)
    if chosen in ("G", "chi-square") and not all(levels.values()):
        numbers = listing([name for name in names if not levels[name]])
        raise ValueError(
            f"The {chosen} test is for levels, but {numbers} holds numbers. Use the kernel test, "
            "or make levels of them: pandas.cut, .astype('category')."
        )
    if chosen == "partial correlation" and any(levels[name] for name in (x, y)):
        raise ValueError(
            f"{listing([n for n in (x, y) if levels[n]])} holds levels, which have no correlation. "
            "Use the G-test among levels, and the kernel test between levels and numbers."
        )
    rule = {"partial correlation": _partial, "kernel": _by_kernel}.get(chosen, _by_table)
    statistic, p, n, note = rule(frame, names, chosen, rows, seed)
    return IndependenceTest(x, y, tuple(given), chosen, statistic, p, n, note)


def is_levels(column: Any) -> bool:
    """Whether a column holds levels and not numbers."""
    import pandas as pd

    return bool(pd.api.types.is_bool_dtype(column)) or not pd.api.types.is_numeric_dtype(column)


def numbers(frame: "pandas.DataFrame", names: Sequence[str]) -> Any:
    """The columns as numbers, a level as 0/1 columns, one fewer than there are, (n, d)."""
    import pandas as pd

    parts = []
    for name in names:
        if is_levels(frame[name]):
            codes = pd.Categorical(frame[name]).remove_unused_categories()
            parts.append(np.eye(len(codes.categories))[codes.codes][:, 1:])
        else:
            parts.append(frame[name].to_numpy(dtype=float)[:, None])
    return np.column_stack(parts) if parts else np.empty((len(frame), 0))


Found = tuple[float, float, int, str]


def _partial(frame: Any, names: Sequence[str], test: str, rows: int, seed: int) -> Found:
    """r sqrt(df / (1 - r^2)) is t with df = n - 2 - k (Fisher 1924)."""
    from scipy.stats import t

    n = len(frame)
    Z = np.column_stack([np.ones(n), numbers(frame, names[2:])])
    both = numbers(frame, names[:2])
    scaled = both / np.maximum(both.std(0), 1e-300)
    left = scaled - Z @ np.linalg.lstsq(Z, scaled, rcond=None)[0]
    df = n - 1 - int(np.linalg.matrix_rank(Z))
    if df < 1:
        raise ValueError(f"{n} rows are too few to test {claim(names[0], names[1], names[2:])}.")
    norms = np.sqrt((left**2).sum(0))
    if norms.min() <= 1e-7 * np.sqrt(n):
        note = "one of them is a linear function of the condition, and nothing is left to test"
        return 0.0, 1.0, n, note
    r = float(np.clip(left[:, 0] @ left[:, 1] / norms.prod(), -1, 1))
    value = abs(r) * np.sqrt(df / max(1 - r**2, 1e-300))
    return r, float(2 * t.sf(value, df)), n, ""


def _by_kernel(frame: Any, names: Sequence[str], test: str, rows: int, seed: int) -> Found:
    n, note = len(frame), ""
    if n > rows:
        chosen = np.random.default_rng(seed).choice(n, size=rows, replace=False)
        frame, note = frame.iloc[chosen], f"drawn from {n}, as the cost is n^3"
    x, y, z = (numbers(frame, part) for part in (names[:1], names[1:2], names[2:]))
    statistic, p = kci(x, y, z) if z.shape[1] else hsic(x, y)
    return statistic, p, len(frame), note


def _by_table(frame: Any, names: Sequence[str], test: str, rows: int, seed: int) -> Found:
    import pandas as pd

    x, y = (pd.Categorical(frame[name]).codes for name in names[:2])
    z = frame.groupby(list(names[2:]), observed=True).ngroup().to_numpy() if names[2:] else None
    kind: Any = test
    statistic, df, p, shuffled = contingency(x, y, z, statistic=kind, seed=seed)
    note = f"{df} degrees of freedom"
    if df == 0:
        note = "no stratum has two levels of both, and nothing is left to test"
    return statistic, p, len(frame), note + (", shuffled, as counts are small" if shuffled else "")


def _usual(levels: dict[str, bool]) -> str:
    if all(levels.values()):
        return "G"
    return "kernel" if any(levels.values()) else "partial correlation"


def _check(frame: Any, names: Sequence[str], test: str | None) -> None:
    if test not in (None, *TESTS):
        raise ValueError(f"test={test!r}: there are {', '.join(map(repr, TESTS))}.")
    if len(set(names)) < len(names):
        raise ValueError(f"A column is named twice in {claim(names[0], names[1], names[2:])}.")
    for name in names:
        if name not in frame:
            raise ValueError(
                f"The frame has no column {name!r}.{suggestion(name, list(map(str, frame)))}"
            )
    holes = [name for name in names if frame[name].isna().any()]
    if holes:
        raise ValueError(
            f"Cells of {listing(holes)} are missing. A test on the complete rows alone answers for "
            "those: drop the others first, if that is what you want."
        )
    if len(frame) < 4:
        raise ValueError(f"{len(frame)} rows are too few for a test.")
