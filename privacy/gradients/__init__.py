"""Gradients by row, their clipped sum, and the routes by which both are computed."""

from privacy.gradients.per_row import PerRow, Route, per_row_gradients
from privacy.gradients.rows import ClippedSum, RowGradients

__all__ = ["ClippedSum", "PerRow", "Route", "RowGradients", "per_row_gradients"]
