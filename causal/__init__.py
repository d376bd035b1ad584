"""Causal models and questions over `pgm`: interventions, counterfactuals, effects, discovery."""

from causal import graph
from causal.answers import Comparison, Conditional, Counterfactual, Effect
from causal.conditioning import condition
from causal.counterfactuals import compare, counterfactual
from causal.effects import effect
from causal.estimation import estimate
from causal.graph import as_graph, parse
from causal.identification import Estimand, NotIdentifiable, Table, bounds, identify
from causal.interventions import Intervened, do
from causal.mechanisms import CategoricalTable, LinearGaussian, LinearSoftmax, Mechanism
from causal.plots import draw_effect, draw_graph, draw_outcome
from causal.scm import SCM

__all__ = [
    "SCM",
    "CategoricalTable",
    "Comparison",
    "Conditional",
    "Counterfactual",
    "Effect",
    "Estimand",
    "Intervened",
    "LinearGaussian",
    "LinearSoftmax",
    "Mechanism",
    "NotIdentifiable",
    "Table",
    "as_graph",
    "bounds",
    "compare",
    "condition",
    "counterfactual",
    "do",
    "draw_effect",
    "draw_graph",
    "draw_outcome",
    "effect",
    "estimate",
    "graph",
    "identify",
    "parse",
]
