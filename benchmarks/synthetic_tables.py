"""Adult at epsilon 1: a synthetic table, its marginals, and what a classifier learns from it.

26,000 rows go in and 6,561 are held out; the table is drawn at delta 1e-9, three times with other
noise. "pairs" is the total variation distance of all 105 pairs of columns, numbers cut into 20
cells at quantiles; AUROC is on the held-out rows, which no table has seen. The real rows are the
bound. To reach: pairs at most .07, AUROC .83 or more (what MST has).

Reads tabular/adult.tsv (UCI Adult, levels as numbers) below $HOTPLATE_DATA.
"""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import privacy
from pgm import Categorical, Count, Schema
from pgm.evaluation import table_distances, train_on_synthetic

EPSILON, DELTA, TRAIN = 1.0, 1e-9, 26_000
MISSING = ("workclass", "occup", "nat-count")
LEVELS = {"educ": 16, "mar-stat": 7, "relat": 6, "race": 5, "sex": 2, "Income": 2}
NAMED = {"workclass": 8, "occup": 14, "nat-count": 41}
NUMBERS = {"age": 100, "fnlwgt": 1_500_000, "cap-gain": 100_000, "cap-loss": 5_000, "hrs-wk": 100}


def schema() -> Schema:
    """From the codebook, not from the rows."""
    columns = {name: Categorical(tuple(range(k))) for name, k in LEVELS.items()}
    columns |= {name: Categorical(tuple(map(str, range(k)))) for name, k in NAMED.items()}
    return Schema(
        {"educ-num": Categorical(tuple(range(1, 17)))}
        | columns
        | {name: Count(upper=upper) for name, upper in NUMBERS.items()}
    )


def main() -> None:
    torch.set_num_threads(1)
    path = Path(os.environ.get("HOTPLATE_DATA", ".")) / "tabular" / "adult.tsv"
    if not path.exists():
        print("There is no tabular/adult.tsv below $HOTPLATE_DATA.")
        return
    kinds = schema()
    rows = pd.read_csv(path, sep="\t", na_values="*", dtype=dict.fromkeys(MISSING, "object"))
    rows = rows.iloc[np.random.default_rng(0).permutation(len(rows))].reset_index(drop=True)
    train, test = rows[:TRAIN], rows[TRAIN:].reset_index(drop=True)
    print("            seconds  columns  pairs  largest  logistic  boosting")
    print(f"real rows{'':26}{line(train, train, test, kinds)}")
    for seed in range(3):
        start = time.process_time()
        made = privacy.synthesize(
            train, schema=kinds, epsilon=EPSILON, delta=DELTA, missing=MISSING, seed=seed
        )
        seconds = time.process_time() - start
        print(f"seed {seed}{'':6}{seconds:8.1f}{line(train, made.frame, test, kinds)}", flush=True)


def line(train: pd.DataFrame, table: pd.DataFrame, test: pd.DataFrame, kinds: Schema) -> str:
    """Distances to the real rows, and the AUROC of two classifiers."""
    apart = table_distances(train, table, kinds)
    scores = [
        train_on_synthetic(table, test, "Income", kinds, classifier=name).auroc
        for name in ("logistic", "boosting")
    ]
    columns = np.mean(list(apart.columns.values()))
    far = f"{columns:9.4f}{apart.mean:7.4f}{apart.worst[1]:9.3f}"
    return f"{far if table is not train else ''}{scores[0]:10.4f}{scores[1]:10.4f}"


if __name__ == "__main__":
    main()
