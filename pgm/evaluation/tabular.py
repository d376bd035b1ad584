"""Is a synthetic table as good as the real one? Distances of marginals, and what can be learned.

The total variation distance of two marginals is half the sum of the differences of their shares:
the largest difference in the probability of anything that can be said of these columns. A
classifier that is trained on synthetic rows and tested on real ones (Esteban, Hyland & Rätsch 2017)
shows whether what is learned from the one holds for the other.

Both look at real rows without noise. Under differential privacy they are for whoever may see the
rows; a figure that is published is computed on rows that need no protection.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pgm.schema import Categorical, Schema

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class TableDistances:
    """Total variation distances between a real and a synthetic table.

    Attributes:
        columns: by column.
        pairs: by pair of columns, of their joint shares; empty for a table of one column.
    """

    columns: Mapping[str, float]
    pairs: Mapping[tuple[str, str], float]

    @property
    def mean(self) -> float:
        """Over all pairs; of the one column if there is no other."""
        return float(np.mean(list((self.pairs or self.columns).values())))

    @property
    def worst(self) -> tuple[tuple[str, str], float]:
        """The pair that differs most, and by how much."""
        pair = max(self.pairs, key=self.pairs.__getitem__)
        return pair, self.pairs[pair]

    def __str__(self) -> str:
        one = np.array(list(self.columns.values()))
        text = f"total variation of columns: mean {one.mean():.3f}, largest {one.max():.3f}"
        if not self.pairs:
            return text
        (a, b), most = self.worst
        return f"{text}\n  of pairs: mean {self.mean:.3f}, largest {most:.3f} ({a} x {b})"


@dataclass(frozen=True)
class Transfer:
    """How well a classifier trained on synthetic rows ranks real ones.

    Attributes:
        auroc: area under the ROC curve on the real rows; 0.5 is guessing.
        error: its standard error (Hanley & McNeil 1982).
        rows: trained on, and real rows tested on.
    """

    auroc: float
    error: float
    rows: tuple[int, int]

    def __str__(self) -> str:
        n, m = self.rows
        return (
            f"trained on {n} rows, tested on {m} real ones: "
            f"AUROC {self.auroc:.3f} ± {self.error:.3f}"
        )


def table_distances(
    real: "pandas.DataFrame", synthetic: "pandas.DataFrame", schema: Schema, *, bins: int = 20
) -> TableDistances:
    """Total variation distances of all columns and all pairs of columns.

    Columns of numbers are cut at quantiles of the real rows, so that each of the `bins` cells has
    about as many; a value that many rows share has a cell of its own. Missing cells are a level.
    Two samples of one distribution differ too, the more so the fewer rows and the more cells.

    Args:
        real: the table to compare with.
        synthetic: the other one.
        schema: of both.
        bins: cells of a column of numbers.

    Raises:
        ValueError: tables that are not of this schema, or no bins.

    Example:
        >>> import pandas as pd
        >>> schema = Schema({"a": Categorical((0, 1)), "b": Categorical((0, 1))})
        >>> real = pd.DataFrame({"a": [0, 0, 1, 1], "b": [0, 0, 1, 1]})
        >>> other = pd.DataFrame({"a": [0, 0, 1, 1], "b": [0, 1, 0, 1]})
        >>> print(table_distances(real, other, schema))
        total variation of columns: mean 0.000, largest 0.000
          of pairs: mean 0.500, largest 0.500 (a x b)
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; a column of numbers is cut into one cell or more.")
    x, y = _numbers(real, schema), _numbers(synthetic, schema)
    edges = {name: _edges(schema, name, x[name], bins) for name in x}
    cells = [{k: _cells(t[k], edges[k]) for k in edges} for t in (x, y)]
    sizes = {name: int(max(t[name].max() for t in cells)) + 1 for name in edges}
    columns = {name: _distance(cells, sizes, (name,)) for name in edges}
    pairs = {pair: _distance(cells, sizes, pair) for pair in combinations(edges, 2)}
    return TableDistances(columns, pairs)


def train_on_synthetic(
    synthetic: "pandas.DataFrame",
    test: "pandas.DataFrame",
    target: str,
    schema: Schema,
    *,
    classifier: Literal["boosting", "logistic"] | Any = "boosting",
    seed: int = 0,
) -> Transfer:
    """Trains a classifier on synthetic rows, and tests it on real ones.

    Args:
        synthetic: what is trained on; pass real rows to see how well these would do.
        test: real rows, of which none went into the synthetic table.
        target: a column of two levels, the second of which is to be found; not missing.
        schema: of both.
        classifier: "boosting" (histogram gradient boosting), "logistic" (on standardised numbers
            and indicators of levels), or any scikit-learn classifier for such indicators.
        seed: of the boosting.

    Raises:
        ValueError: a target that has not two levels, or one that occurs in none of the rows.

    Example:
        >>> import pandas as pd
        >>> schema = Schema({"x": Categorical((0, 1)), "y": Categorical((False, True))})
        >>> rows = pd.DataFrame({"x": [0, 0, 0, 1, 1, 1] * 9, "y": [0, 0, 1, 0, 1, 1] * 9})
        >>> train_on_synthetic(rows.astype({"y": bool}), rows.astype({"y": bool}), "y", schema,
        ...                    classifier="logistic").auroc
        0.667
    """
    from sklearn.metrics import roc_auc_score

    _check_target(schema, target)
    x, y = _numbers(synthetic, schema), _numbers(test, schema)
    for name, table in {"synthetic": x, "test": y}.items():
        if set(table[target]) != {0.0, 1.0}:
            raise ValueError(
                f'The {name} rows hold the codes {sorted(set(table[target]))} of "{target}": both '
                "levels must occur and no cell be missing, else there is nothing to tell apart."
            )
    model = _classifier(classifier, schema, target, seed)
    model.fit(_matrix(x, target), x[target])
    auroc = float(roc_auc_score(y[target], model.predict_proba(_matrix(y, target))[:, 1]))
    positive = int(y[target].sum())
    error = _error(auroc, positive, len(y[target]) - positive)
    return Transfer(auroc, error, (len(x[target]), len(y[target])))


def _numbers(frame: "pandas.DataFrame", schema: Schema) -> dict[str, Any]:
    """Codes and numbers by column, as float64, NaN where missing."""
    from pgm.schema.checks import check_frame, check_names

    check_frame(frame)
    check_names(frame, schema.columns)
    return {name: kind.encode(name, frame[name]) for name, kind in schema.columns.items()}


def _edges(schema: Schema, name: str, x: Any, bins: int) -> Any:
    """Where the cells of a column begin."""
    kind = schema.columns[name]
    if isinstance(kind, Categorical):
        return np.arange(len(kind.levels))
    seen = x[~np.isnan(x)]
    if not len(seen):
        return np.zeros(1)
    quantiles = np.quantile(seen, np.arange(bins) / bins, method="inverted_cdf")
    edges, times = np.unique(quantiles, return_counts=True)
    behind = np.nextafter(edges[times > 1], np.inf)
    return np.unique(np.concatenate([edges, behind]))


def _cells(x: Any, edges: Any) -> Any:
    """The number of the cell; the first for what is missing."""
    return np.where(np.isnan(x), 0, 1 + np.searchsorted(edges, x, side="right")).astype(np.int64)


def _distance(cells: list[dict[str, Any]], sizes: Mapping[str, int], scope: Any) -> float:
    shape = [sizes[name] for name in scope]
    shares = []
    for table in cells:
        index = np.ravel_multi_index([table[name] for name in scope], shape)
        shares.append(np.bincount(index, minlength=math.prod(shape)) / len(index))
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _check_target(schema: Schema, target: str) -> None:
    kind = schema.select([target]).columns[target]
    if not isinstance(kind, Categorical) or len(kind.levels) != 2:
        raise ValueError(
            f'The target "{target}" is {kind.kind} ({kind}); a ROC curve tells two levels apart. '
            "Make a column of two levels of it."
        )


def _matrix(x: Mapping[str, Any], target: str) -> Any:
    return np.stack([column for name, column in x.items() if name != target], axis=1)


def _classifier(classifier: Any, schema: Schema, target: str, seed: int) -> Any:
    """The classifier with what must be done to the codes before it."""
    from sklearn.base import clone
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    kinds = [kind for name, kind in schema.columns.items() if name != target]
    levels = [isinstance(kind, Categorical) for kind in kinds]
    if classifier == "boosting":
        few = [isinstance(kind, Categorical) and len(kind.levels) < 255 for kind in kinds]
        return HistGradientBoostingClassifier(categorical_features=few, random_state=seed)
    last = LogisticRegression(max_iter=1000) if classifier == "logistic" else clone(classifier)
    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    before = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), np.flatnonzero(levels)),
        (numbers, np.flatnonzero(~np.array(levels))),
    )
    return make_pipeline(before, last)


def _error(auroc: float, positive: int, negative: int) -> float:
    """Hanley & McNeil (1982), eq. 1."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = (
        auroc * (1 - auroc) + (positive - 1) * (q1 - auroc**2) + (negative - 1) * (q2 - auroc**2)
    ) / (positive * negative)
    return math.sqrt(max(variance, 0.0))
