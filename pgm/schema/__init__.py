"""Schemas: the invertible map between pandas frames and batches of tensors."""

from pgm.schema.columns import Categorical, Column, Continuous, Count, Level
from pgm.schema.table import Schema

__all__ = ["Categorical", "Column", "Continuous", "Count", "Level", "Schema"]
