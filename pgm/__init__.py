"""Probabilistic generative models: two Pyro programs over rows, and verbs that question them."""

import pyro as _pyro

_pyro.settings.set(module_local_params=True)

from pgm.batch import as_batch  # noqa: E402
from pgm.check import BrokenModel, check  # noqa: E402
from pgm.checkpoint import load, save  # noqa: E402
from pgm.history import Fit, Step  # noqa: E402
from pgm.inference.choice import posterior  # noqa: E402
from pgm.loop import NonFiniteLoss, fit, training  # noqa: E402
from pgm.model import Model, rows  # noqa: E402
from pgm.objectives import IWAE, objective  # noqa: E402
from pgm.programs import from_pyro  # noqa: E402
from pgm.randomness import seeded  # noqa: E402
from pgm.schema import Categorical, Continuous, Count, Schema  # noqa: E402
from pgm.verb import Unsupported, Verb, abilities, verb  # noqa: E402
from pgm.verbs import (  # noqa: E402
    Imputation,
    LogProb,
    decode,
    encode,
    impute,
    interpolate,
    log_prob,
    sample,
    surprise,
)
from pgm.weights import log_weight  # noqa: E402

__all__ = [
    "IWAE",
    "BrokenModel",
    "Categorical",
    "Continuous",
    "Count",
    "Fit",
    "Imputation",
    "LogProb",
    "Model",
    "NonFiniteLoss",
    "Schema",
    "Step",
    "Unsupported",
    "Verb",
    "abilities",
    "as_batch",
    "check",
    "decode",
    "encode",
    "fit",
    "from_pyro",
    "impute",
    "interpolate",
    "load",
    "log_prob",
    "log_weight",
    "objective",
    "posterior",
    "rows",
    "sample",
    "save",
    "seeded",
    "surprise",
    "training",
    "verb",
]
