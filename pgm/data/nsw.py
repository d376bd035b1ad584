"""The job training of LaLonde (1986): an experiment, and a survey to which it may be compared."""

from importlib.resources import files

import torch

from pgm.data.dataset import Dataset, Edges, dataset

CAUSES = ("age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75")

ASSUMED: Edges = (
    *((cause, "treat") for cause in CAUSES),
    *((cause, "re78") for cause in CAUSES),
    ("treat", "re78"),
)


@dataset(
    licence="MIT (package causaldata, N. Huntington-Klein)",
    source="R. LaLonde, American Economic Review 76 (1986) 604-620; R. Dehejia, S. Wahba, "
    "J. American Statistical Association 94 (1999) 1053-1062",
)
def nsw() -> Dataset:
    """Job training and earnings: 445 men of an experiment and 15,992 of a survey.

    `frame` has a row a man: `treat` (0/1), what was known before (`age`, `educ` in years, the marks
    `black`, `hisp`, `marr`, `nodegree`, earnings `re74`, `re75`) and the outcome `re78`; `x`
    (16437, 10) holds the same numbers in float64. Splits: "experiment", where treatment was drawn
    by lot; "observed", the trained men of the experiment beside the men of the survey, as a study
    without an experiment would have them. Their effect is known from the experiment: 1794 dollars.

    `graph()`: all that was known before may cause both treatment and earnings. It is assumed.

    Example:
        >>> import pgm.data
        >>> data = pgm.data.load("nsw")
        >>> trial, study = data.split("experiment").frame, data.split("observed").frame
        >>> len(trial), len(study)
        (445, 16177)
        >>> float(trial.groupby("treat").re78.mean().diff()[1])
        1794.34
        >>> float(study.groupby("treat").re78.mean().diff()[1])
        -8497.5
    """
    import pandas as pd

    with (files("pgm.data") / "nsw.csv.gz").open("rb") as file:
        table = pd.read_csv(file, compression="gzip")
    sample, treat = table.pop("sample"), table["treat"]
    order = [
        *(treat[sample == "nsw"].sort_values(kind="stable").index),
        *(table.index[sample == "cps"]),
    ]
    table = table.loc[order].reset_index(drop=True)
    trial = int((sample == "nsw").sum())
    controls = int(((sample == "nsw") & (treat == 0)).sum())
    return Dataset(
        {"x": torch.tensor(table.to_numpy(float))},
        table=table,
        edges={"assumed": ASSUMED},
        splits={"experiment": slice(0, trial), "observed": slice(controls, None)},
    )
