"""Bounds: the range that a graph and data leave where the answer itself is not identified."""

from causal.identification.bounds.answer import Bounds
from causal.identification.bounds.causation import Causation, causation
from causal.identification.bounds.effect import effect
from causal.identification.bounds.frechet import conjunction, disjunction
from causal.identification.bounds.natural import natural

__all__ = [
    "Bounds",
    "Causation",
    "causation",
    "conjunction",
    "disjunction",
    "effect",
    "natural",
]
