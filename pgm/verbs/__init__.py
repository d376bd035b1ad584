"""Verbs: the questions that every model can be asked."""

from pgm.verbs.anomaly import surprise
from pgm.verbs.coding import decode, encode
from pgm.verbs.density import LogProb, log_prob
from pgm.verbs.imputation import Imputation, impute
from pgm.verbs.interpolation import interpolate
from pgm.verbs.sampling import sample

__all__ = [
    "Imputation",
    "LogProb",
    "decode",
    "encode",
    "impute",
    "interpolate",
    "log_prob",
    "sample",
    "surprise",
]
