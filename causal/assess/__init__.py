"""Whether a graph, a model and its counterfactuals stand up to data."""

from causal.assess.axioms import Soundness, soundness
from causal.assess.dependence import IndependenceTest, independence
from causal.assess.falsification import Falsification, falsify
from causal.assess.fit import Fit, NodeFit, evaluate

__all__ = [
    "Falsification",
    "Fit",
    "IndependenceTest",
    "NodeFit",
    "Soundness",
    "evaluate",
    "falsify",
    "independence",
    "soundness",
]
