"""The bridge to DoWhy: its estimators, refuters and graphical models, on graphs and models of ours.

DoWhy is imported when a function needs it. Identification is ours.
"""

from causal.bridge.adjustment import Adjusted, adjust
from causal.bridge.overlap import Overlap
from causal.bridge.refuters import Refutation, refute, refute_scm
from causal.bridge.strategy import Strategy
from causal.bridge.unmeasured import Sensitivity, sensitivity

__all__ = [
    "Adjusted",
    "Overlap",
    "Refutation",
    "Sensitivity",
    "Strategy",
    "adjust",
    "refute",
    "refute_scm",
    "sensitivity",
]
