"""Evaluation: how well samples and densities agree with data that the model has not seen."""

from pgm.evaluation.likelihood import BitsPerDimension, bits_per_dimension, dequantise
from pgm.evaluation.samples import C2ST, MMD, c2st, mmd
from pgm.evaluation.tabular import TableDistances, Transfer, table_distances, train_on_synthetic

__all__ = [
    "C2ST",
    "MMD",
    "BitsPerDimension",
    "TableDistances",
    "Transfer",
    "bits_per_dimension",
    "c2st",
    "dequantise",
    "mmd",
    "table_distances",
    "train_on_synthetic",
]
