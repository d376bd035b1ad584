"""Schema: the invertible map between pandas frames and batches.

A frame has named columns of cells; a batch is a dict of tensors, rows first. A schema says of every
column what it is (continuous, categorical or count: see `pgm.schema.columns`), and so how a cell
becomes a number, which cells are impossible, and how a number becomes a cell again. What is missing
in the frame is NaN in the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pgm.schema.checks import (
    check_choice,
    check_frame,
    check_names,
    refuse_all_missing,
    refuse_free_text,
)
from pgm.schema.columns import (
    Categorical,
    Column,
    Continuous,
    Count,
    Level,
    Numbers,
    listing,
    suggestion,
)
from pgm.schema.infer import infer_column

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Schema:
    """The columns of a table, and the sites of a model they become.

    With `site=None` each column is a site of its own name and shape (n,): continuous and count
    columns as floats, categorical ones as int64 codes 0..k-1 (floats where cells are missing). With
    `site="x"` all columns, continuous or count, stand side by side in one matrix (n, d) at "x".

    Args:
        columns: the kind of each column by its name, in the order of the table.
        site: the one site that holds the whole table; None gives each column its own.

    Raises:
        ValueError: no column, or a categorical column in a matrix.
        TypeError: a name that is not a string, or a kind that is none of the three.

    Example:
        >>> import pandas as pd
        >>> schema = Schema({
        ...     "age": Continuous(lower=0, upper=120, mean=50, std=20),
        ...     "dose": Categorical(("low", "medium", "high")),
        ...     "visits": Count(),
        ... })
        >>> frame = pd.DataFrame({"age": [30, None], "dose": ["high", "low"], "visits": [4, 0]})
        >>> schema.encode(frame)
        {'age': tensor([-1., nan]), 'dose': tensor([2, 0]), 'visits': tensor([4., 0.])}
        >>> schema.decode(schema.encode(frame))
            age  dose  visits
        0  30.0  high       4
        1   NaN   low       0
        >>> print(schema)
        column  kind         values
        age     continuous   [0, 120], mean 50 std 20
        dose    categorical  low, medium, high
        visits  count        0, 1, 2, ...
    """

    columns: Mapping[str, Column]
    site: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", dict(self.columns))
        if not self.columns:
            raise ValueError("A schema needs at least one column.")
        for name, column in self.columns.items():
            if not isinstance(name, str):
                raise TypeError(
                    f"Column name {name!r} is of type {type(name).__name__}; columns become sites "
                    "of a model, whose names are strings. Rename: frame.rename(columns=str)."
                )
            if not isinstance(column, Column):
                raise TypeError(
                    f'Column "{name}" is declared as {column!r}; a kind is needed: '
                    "Continuous(...), Categorical(levels) or Count(...)."
                )
        _refuse_labels_in_matrix(self.columns, self.site)

    @classmethod
    def infer(
        cls,
        frame: "pandas.DataFrame",
        *,
        standardise: bool = False,
        site: str | None = None,
    ) -> "Schema":
        """Reads the kinds off a frame.

        By the dtype (an object column by what its cells hold): floats are Continuous; integers are
        two levels if they are 0 and 1 alone, Count if none is negative, else Continuous; strings,
        booleans and pandas categoricals are Categorical, with the levels sorted or in the
        categories' order. Other integers that name things (a ward, a code 1/2/3) are not told from
        counts: declare these yourself,
        `Schema({**inferred.columns, "ward": Categorical((1, 2, 3))})`.

        Bounds are never taken from the data. Levels, signs of integers, means and standard
        deviations are: an inferred schema is thus **not private**. Under differential privacy
        write the schema from what is known before the data.

        Args:
            frame: the table; it is read, never changed.
            standardise: whether continuous columns take their mean and (population) standard
                deviation from the frame.
            site: as in `Schema`.

        Raises:
            TypeError: not a frame, or a column of dates, mixtures or objects.
            ValueError: an empty frame, repeated names, infinite cells, a column without a value,
                a constant column under `standardise`, or one that float32 cannot resolve.

        Example:
            >>> import pandas as pd
            >>> Schema.infer(pd.DataFrame({"x": [0.0, 4.0], "y": ["b", "a"]}), standardise=True)
            Schema(columns={'x': Continuous(lower=None, upper=None, mean=2.0, std=2.0),
            'y': Categorical(levels=('a', 'b'), ordered=None)}, site=None)
        """
        check_frame(frame)
        for name in frame.columns:
            if not isinstance(name, str):
                raise TypeError(
                    f"Column name {name!r} is not a string. Rename: frame.rename(columns=str)."
                )
        refuse_all_missing([name for name in frame.columns if frame[name].isna().all()])
        refuse_free_text(frame)
        kinds = {
            name: infer_column(name, frame[name], standardise=standardise) for name in frame.columns
        }
        return cls(kinds, site=site)

    def encode(
        self,
        frame: "pandas.DataFrame",
        *,
        all_missing: Literal["refuse", "keep"] = "refuse",
        dtype: torch.dtype | None = None,
    ) -> dict[str, Tensor]:
        """Maps a frame to a batch.

        The frame's columns may stand in any order; its index is not part of a batch.

        Args:
            frame: the table, with just the schema's columns; it is read, never changed.
            all_missing: what to do with a column without a single value: "refuse" it, as the sign
                of a failed join, or "keep" it, to impute it or for a table of a few rows.
            dtype: of the floating-point tensors; None takes torch's default, float32, which holds
                about 7 digits.

        Returns:
            Tensors (n,) by column, or one (n, d) where the schema has a site.

        Raises:
            TypeError: not a frame, or cells of another type than the kind's.
            ValueError: no rows, missing, unknown or repeated columns, infinite or all-missing
                columns, unknown levels, values out of bounds, counts that are negative, fractional
                or too large for the dtype.

        Example:
            >>> import pandas as pd
            >>> frame = pd.DataFrame({"x": [0.5, 1.5], "y": [2.0, None]})
            >>> Schema.infer(frame, site="x").encode(frame)
            {'x': tensor([[0.5000, 2.0000], [1.5000, nan]])}
        """
        check_choice("all_missing", all_missing, ("refuse", "keep"))
        check_frame(frame)
        check_names(frame, self.columns)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        numbers = {name: kind.encode(name, frame[name]) for name, kind in self.columns.items()}
        if all_missing == "refuse":
            refuse_all_missing([name for name, z in numbers.items() if np.isnan(z).all()])
        tensors = {name: _tensor(name, self.columns[name], z, dtype) for name, z in numbers.items()}
        if self.site is None:
            return tensors
        return {self.site: torch.stack(list(tensors.values()), dim=-1)}

    def decode(
        self,
        batch: Mapping[str, Tensor],
        *,
        counts: Literal["exact", "nearest"] = "exact",
    ) -> "pandas.DataFrame":
        """Maps a batch to a frame: the inverse of `encode`.

        Args:
            batch: tensors (n,) by column, some or all of them, or one (n, d) where the schema has
                a site.
            counts: "exact" refuses what is not a whole number >= 0; "nearest" rounds it and keeps
                it within the bounds, for draws of models that know nothing of counts.

        Returns:
            The columns in the schema's order: continuous as float64, counts as int64 (Int64 with
            missing cells), categorical as labels (or pandas categoricals, if `ordered` is set).
            Continuous values outside the bounds stay as they are.

        Raises:
            TypeError: something else than tensors.
            ValueError: an unknown site, tensors of other shapes, codes without a level, or counts
                that are no counts.

        Example:
            >>> schema = Schema({"dose": Categorical(("low", "high"))})
            >>> schema.decode({"dose": torch.tensor([1, 0])})["dose"].tolist()
            ['high', 'low']
        """
        import pandas as pd

        check_choice("counts", counts, ("exact", "nearest"))
        cells = {}
        for name, z in _split(self, batch).items():
            kind = self.columns[name]
            if counts == "nearest" and isinstance(kind, Count):
                z = kind.nearest(z)
            cells[name] = kind.decode(name, z)
        return pd.DataFrame(cells)

    def code(self, column: str, value: object) -> float | int:
        """The model's number for one value in the user's words.

        Args:
            column: the column's name.
            value: a level, a count, or a number in the column's own unit.

        Raises:
            ValueError: an unknown column or level, or a value out of bounds.
            TypeError: something else than a number for a column of numbers.

        Example:
            >>> Schema({"PKA": Categorical(("low", "medium", "high"))}).code("PKA", "high")
            2
        """
        return self._kind(column).code(column, value)

    def label(self, column: str, code: float | Tensor) -> Level:
        """The value that one of the model's numbers stands for: the inverse of `code`.

        Example:
            >>> Schema({"age": Continuous(mean=50, std=20)}).label("age", 1.5)
            80.0
        """
        return self._kind(column).label(column, float(code))

    def select(self, names: Sequence[str]) -> "Schema":
        """The schema of some of the columns, in the order given.

        Example:
            >>> list(Schema({"a": Count(), "b": Count(), "c": Count()}).select(["c", "a"]).columns)
            ['c', 'a']
        """
        return Schema({name: self._kind(name) for name in names}, site=self.site)

    def to_dict(self) -> dict[str, Any]:
        """The schema in plain lists, dicts, strings and numbers, for JSON.

        Example:
            >>> Schema({"visits": Count(upper=9)}).to_dict()
            {'site': None, 'columns': [{'name': 'visits', 'kind': 'count', 'upper': 9}]}
        """
        columns = [
            {"name": name, "kind": kind.kind, **asdict(kind)} for name, kind in self.columns.items()
        ]
        for column in columns:
            if "levels" in column:
                column["levels"] = list(column["levels"])
        return {"site": self.site, "columns": columns}

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any]) -> "Schema":
        """The schema that `to_dict` wrote.

        Example:
            >>> schema = Schema({"visits": Count(upper=9)})
            >>> Schema.from_dict(schema.to_dict()) == schema
            True
        """
        kinds = {kind.kind: kind for kind in get_args(Column)}
        columns = {}
        for column in spec["columns"]:
            arguments = {key: column[key] for key in column if key not in ("name", "kind")}
            if column["kind"] not in kinds:
                raise ValueError(
                    f'Column "{column["name"]}" is of the unknown kind {column["kind"]!r}; '
                    f"known are {listing(list(kinds))}. Was it written by a newer version?"
                )
            columns[column["name"]] = kinds[column["kind"]](**arguments)
        return cls(columns, site=spec["site"])

    def __str__(self) -> str:
        rows = [("column", "kind", "values")]
        rows += [(name, kind.kind, str(kind)) for name, kind in self.columns.items()]
        wide = [max(len(row[i]) for row in rows) for i in (0, 1)]
        table = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c}" for a, b, c in rows]
        if self.site is not None:
            table.append(f'all in one matrix (n, {len(self.columns)}) at site "{self.site}"')
        return "\n".join(table)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schema):
            return NotImplemented
        return (list(self.columns.items()), self.site) == (list(other.columns.items()), other.site)

    def _kind(self, name: str) -> Column:
        if name not in self.columns:
            raise ValueError(
                f'No column is called "{name}".{suggestion(name, self.columns)} '
                f"The schema's columns are: {listing(list(self.columns))}."
            )
        return self.columns[name]


def _refuse_labels_in_matrix(columns: Mapping[str, Column], site: str | None) -> None:
    labels = [name for name, kind in columns.items() if isinstance(kind, Categorical)]
    if site is not None and labels:
        raise ValueError(
            f'A matrix at site "{site}" holds numbers, but these columns are categorical: '
            f"{listing(labels)}. A code is a name and no quantity. Use site=None, which gives "
            "each column a site of its own, or select the columns of numbers."
        )


def _tensor(name: str, kind: Column, z: Numbers, dtype: torch.dtype) -> Tensor:
    if not dtype.is_floating_point:
        raise TypeError(f"dtype={dtype}: a floating-point type is needed, say torch.float32.")
    if isinstance(kind, Categorical) and not np.isnan(z).any():
        return torch.from_numpy(z.astype(np.int64))
    finfo = torch.finfo(dtype)
    limit = finfo.max if isinstance(kind, Continuous) else 2 / finfo.eps
    if (np.abs(z) >= limit).any():
        raise ValueError(
            f'Column "{name}" reaches {np.nanmax(np.abs(z)):g}; {dtype} is exact for a {kind.kind} '
            f"column below {limit:g} only. Encode with dtype=torch.float64, or declare the column "
            "Continuous(mean=..., std=...), which brings its values near 1."
        )
    return torch.from_numpy(z).to(dtype)


def _split(schema: Schema, batch: Mapping[str, Tensor]) -> dict[str, Numbers]:
    """The batch by columns, in the schema's order, as float64."""
    sites = list(schema.columns) if schema.site is None else [schema.site]
    unknown = [site for site in batch if site not in sites]
    if unknown or not batch:
        raise ValueError(
            f"The batch holds {listing(list(batch)) or 'nothing'}; the schema's sites are: "
            f"{listing(sites)}.{suggestion(unknown[0], sites) if unknown else ''}"
        )
    for site, x in batch.items():
        if not isinstance(x, Tensor):
            raise TypeError(f'Site "{site}" is a {type(x).__name__}; a batch holds tensors.')
    width = () if schema.site is None else (len(schema.columns),)
    rows = {x.shape[:1] for x in batch.values()}
    for site, x in batch.items():
        if x.ndim != 1 + len(width) or x.shape[1:] != width or len(rows) > 1:
            raise ValueError(
                f'Site "{site}" has shape {tuple(x.shape)}, but a table is decoded from shape '
                f"{('n', *width)} with the same n at every site. Of several draws decode one at "
                "a time: {site: x[draw] for site, x in draws.items()}."
            )
    z = {site: x.detach().to("cpu", torch.float64).numpy() for site, x in batch.items()}
    if schema.site is not None:
        return dict(zip(schema.columns, z[schema.site].T, strict=True))
    return {name: z[name] for name in schema.columns if name in z}
