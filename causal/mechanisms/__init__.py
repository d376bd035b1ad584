"""Mechanisms p(x | parents), one a node of a structural causal model."""

from causal.mechanisms.categorical import CategoricalTable, LinearSoftmax
from causal.mechanisms.linear import LinearGaussian
from causal.mechanisms.mechanism import Mechanism, build, describe

__all__ = [
    "CategoricalTable",
    "LinearGaussian",
    "LinearSoftmax",
    "Mechanism",
    "build",
    "describe",
]
