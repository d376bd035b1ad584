"""What is asked of a frame before any of its cells is looked at."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pgm.schema.columns import Column, listing, suggestion

if TYPE_CHECKING:
    import pandas


def check_frame(frame: object) -> None:
    """Refuses what is no frame, an empty one, and names that occur twice."""
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"A pandas DataFrame is needed, but a {type(frame).__name__} came. Tensors are batches "
            "already and need no schema; other tables become frames by pandas.DataFrame(...)."
        )
    repeated = frame.columns[frame.columns.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"Column names occur more than once: {listing([str(name) for name in repeated])}. "
            "A column becomes a site, and a site has one value: rename or drop the others."
        )
    if 0 in frame.shape:
        raise ValueError(
            f"The table is empty: {frame.shape[0]} rows and {frame.shape[1]} columns. "
            "Was it filtered, or joined on a key that never matched?"
        )


def check_names(frame: "pandas.DataFrame", columns: Mapping[str, Column]) -> None:
    """Refuses columns that the frame lacks or that the schema does not know."""
    known, came = list(columns), list(frame.columns)
    absent = [name for name in known if name not in came]
    unknown = [name for name in came if name not in known]
    complaints = []
    if absent:
        hints = "".join(suggestion(name, unknown) for name in absent[:3])
        complaints.append(f"The frame lacks columns of the schema: {listing(absent)}.{hints}")
    if unknown:
        hints = "".join(suggestion(name, known) for name in unknown[:3]) if not absent else ""
        complaints.append(
            f"The frame has columns that the schema does not know: {listing(unknown)}.{hints}"
        )
    if complaints:
        raise ValueError(
            " ".join(complaints) + " Rename or drop columns of the frame, or take a part of the "
            "schema: schema.select([...])."
        )


_LEVELS, _SHARE = 50, 0.2
"""Text with more different values than these, and than this share of the rows, is no label."""


def refuse_free_text(frame: "pandas.DataFrame") -> None:
    """Refuses columns of text whose cells hardly repeat: numbers with a slip, names, sentences.

    Read as levels, every one of their values would be a parameter with next to no rows behind it.
    """
    import pandas as pd

    for name in frame.columns:
        cells = frame[name]
        if pd.api.types.infer_dtype(cells) != "string":
            continue
        n, k = int(cells.notna().sum()), int(cells.nunique())
        if k > max(_LEVELS, _SHARE * n):
            held = f'Column "{name}" holds text with {k} different values in {n} rows'
            raise ValueError(f"{held}{_slips(cells, n)}")


def _slips(cells: "pandas.Series", n: int) -> str:
    """What is wrong with a column of text: a few cells that are no numbers, or all."""
    import pandas as pd

    wrong = (pd.to_numeric(cells, errors="coerce").isna() & cells.notna()).to_numpy()
    if 2 * wrong.sum() > n:
        return (
            ", as names, dates and sentences do: hardly any two rows share a level. Make a number "
            "or coarser levels of it, or drop it."
        )
    if not wrong.any():
        return "; all of it can be read as numbers: pandas.to_numeric(column)."
    first = [f"{cells.iloc[i]!r} (row {i})" for i in wrong.nonzero()[0][:3]]
    return (
        "; a number was expected. First cells that are no numbers, rows counted from 0: "
        f"{listing(first)}. Mend them, or make them missing: "
        'pandas.to_numeric(column, errors="coerce").'
    )


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Refuses a word that is not among the choices, which would else pass for one of them."""
    if value not in choices:
        raise ValueError(f"{argument}={value!r}: say one of {listing([repr(c) for c in choices])}.")


def refuse_all_missing(names: Sequence[str]) -> None:
    """Refuses the named columns, which hold no value at all."""
    if names:
        raise ValueError(
            f"Columns without a single value: {listing(names)}. Nothing can be learnt from them: "
            "drop them, or mend the join or file they came from. If they are to be imputed, say "
            'schema.encode(frame, all_missing="keep").'
        )
