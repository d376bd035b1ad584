"""Whether a graph, a model and its counterfactuals stand up to data."""

from causal.assess.falsification import Falsification, falsify
from causal.assess.independence import Independence, independence

__all__ = ["Falsification", "Independence", "falsify", "independence"]
