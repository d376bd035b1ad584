"""The bridge to DoWhy: its estimators, refuters and graphical models, on graphs and models of ours.

DoWhy is imported when a function needs it. Identification is ours.
"""

from causal.bridge.adjustment import Adjusted, adjust
from causal.bridge.gcm import to_gcm
from causal.bridge.imported import from_gcm
from causal.bridge.overlap import Overlap
from causal.bridge.permutation import Permutation, falsify_by_permutation
from causal.bridge.refuters import Refutation, refute, refute_scm
from causal.bridge.strategy import Strategy
from causal.bridge.unmeasured import Sensitivity, sensitivity

__all__ = [
    "Adjusted",
    "Overlap",
    "Permutation",
    "Refutation",
    "Sensitivity",
    "Strategy",
    "adjust",
    "falsify_by_permutation",
    "from_gcm",
    "refute",
    "refute_scm",
    "sensitivity",
    "to_gcm",
]
