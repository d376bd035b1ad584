"""Levels in the user's words as codes: for evidence and interventions on some of the columns."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgm.schema.columns import Categorical, listing, suggestion
from pgm.schema.table import Schema


def codes(schema: Schema, given: Any) -> dict[str, Tensor]:
    """The codes of levels, rows first, NaN where a cell is missing.

    Args:
        schema: of categorical columns.
        given: a frame with some of the columns, or a mapping: a level in the user's words, a list,
            array or column of them, or a tensor of codes as it stands.

    Returns:
        By column, shape (n,); (1,) of a single level.

    Raises:
        ValueError: a column or a level that the schema does not have.

    Example:
        >>> schema = Schema({"dose": Categorical(("low", "high")), "sex": Categorical(("f", "m"))})
        >>> codes(schema, {"dose": "high"})
        {'dose': tensor([1])}
        >>> codes(schema, {"sex": ["m", None]})
        {'sex': tensor([1., nan], dtype=torch.float64)}
    """
    if type(given).__module__.partition(".")[0] == "pandas":
        given = {name: given[name] for name in given.columns}
    found = {}
    for name, value in given.items():
        base = name.removesuffix("_seen")
        if isinstance(value, Tensor):
            column = schema.columns.get(name if name in schema.columns else base)
            _known(schema, name, column)
            found[name] = torch.atleast_1d(value)
            continue
        column = schema.columns.get(name)
        _known(schema, name, column)
        assert isinstance(column, Categorical)
        found[name] = _column(name, column, value)
    return found


def _column(name: str, column: Categorical, value: Any) -> Tensor:
    import pandas as pd

    single = value is None or isinstance(value, str | bool | int | float | np.generic)
    z = column.encode(name, pd.Series([value] if single else value, dtype=object))
    return torch.from_numpy(z if np.isnan(z).any() else z.astype(np.int64)).clone()


def _known(schema: Schema, name: str, column: Any) -> None:
    if not isinstance(column, Categorical):
        raise ValueError(
            f"{name!r} is no variable with levels of this model.{suggestion(name, schema.columns)} "
            f"It has {listing(list(schema.columns))}."
        )
