"""The kind of a column, read off its cells: what `Schema.infer` says of each."""

from typing import TYPE_CHECKING

import numpy as np

from pgm.schema.columns import Categorical, Column, Continuous, Count, Numbers

if TYPE_CHECKING:
    import pandas

LABELS = ("string", "boolean")
NUMBERS = ("integer", "integer-na", "floating", "mixed-integer-float")


def infer_column(name: str, cells: "pandas.Series", *, standardise: bool) -> Column:
    """The kind of one column, by its dtype or, for objects, by what its cells hold."""
    import pandas as pd

    if isinstance(cells.dtype, pd.CategoricalDtype):
        levels, ordered = cells.dtype.categories, bool(cells.dtype.ordered)
        if pd.api.types.infer_dtype(levels) not in (*LABELS, *NUMBERS):
            raise _unknown_kind(name, levels[0])
        return Categorical(tuple(levels.tolist()), ordered=ordered)
    held = pd.api.types.infer_dtype(cells, skipna=True)
    if held in LABELS:
        return Categorical(tuple(sorted(cells.dropna().unique().tolist())))
    if held not in NUMBERS:
        raise _unknown_kind(name, cells.dropna().iloc[0])
    x = Continuous().encode(name, cells)
    x = x[~np.isnan(x)]
    if held.startswith("integer") and set(x.tolist()) == {0.0, 1.0}:
        return Categorical((0, 1))
    if held.startswith("integer") and x.min() >= 0:
        return Count()
    return _standardised(name, x) if standardise else _resolved(name, x)


def _unknown_kind(name: str, cell: object) -> TypeError:
    return TypeError(
        f'Column "{name}" holds {cell!r} of type {type(cell).__name__} (alone or among others): '
        "a column holds numbers, or strings, or booleans, and missing cells. Make one of them of "
        f'it (a date becomes the days since another), or drop it: frame.drop(columns="{name}").'
    )


def _standardised(name: str, x: Numbers) -> Continuous:
    if x.min() == x.max():
        raise ValueError(
            f'Column "{name}" is constant ({x[0]:g}) and cannot be standardised: its standard '
            "deviation is 0. It tells nothing about any row: drop it, or declare it by hand."
        )
    return Continuous(mean=float(x.mean()), std=float(x.std()))


def _resolved(name: str, x: Numbers) -> Continuous:
    spread = x.max() - x.min()
    if 0 < spread < 2.0**-13 * np.abs(x).max():
        raise ValueError(
            f'Column "{name}" varies by {spread:g} around {x.mean():g}: float32, with its 7 '
            "digits, would blur or merge its values. Say standardise=True, or declare "
            "Continuous(mean=..., std=...)."
        )
    return Continuous()
