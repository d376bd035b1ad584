"""Evaluation: how well samples and densities agree with data that the model has not seen."""

from pgm.evaluation.likelihood import BitsPerDimension, bits_per_dimension, dequantise
from pgm.evaluation.samples import C2ST, MMD, c2st, mmd

__all__ = [
    "C2ST",
    "MMD",
    "BitsPerDimension",
    "bits_per_dimension",
    "c2st",
    "dequantise",
    "mmd",
]
