"""Causal models and questions over `pgm`: graphs, interventions, counterfactuals, effects."""

from causal import assess, attribution, bridge, discovery, examples, graph
from causal.assess import falsify, soundness
from causal.bridge import adjust, from_gcm, refute, refute_scm, sensitivity, to_gcm
from causal.counterfactuals.answers import Comparison, Conditional, Counterfactual
from causal.counterfactuals.conditioning import condition
from causal.counterfactuals.scenarios import compare, counterfactual
from causal.discovery import GraphPosterior, discover
from causal.effects import Effect, Effects, causation, effect, mediation, path_effect
from causal.effects.pictures import draw_effect, draw_effects, draw_outcome
from causal.fitting.estimation import estimate
from causal.fitting.likelihood import exact_log_prob
from causal.fitting.scores import Selection
from causal.fitting.selection import auto
from causal.flows.equations import Equations
from causal.flows.flow import CausalFlow
from causal.graph import as_graph, parse
from causal.identification import (
    Criterion,
    Estimand,
    Instrument,
    NotIdentifiable,
    Table,
    adjustment_sets,
    bounds,
    front_door_sets,
    identify,
    instruments,
    is_adjustment_set,
    is_back_door_set,
    is_front_door_set,
    is_instrument,
    optimal_adjustment_set,
)
from causal.interventions.handler import Intervened, do
from causal.mechanisms import (
    AdditiveNoise,
    CategoricalTable,
    Classifier,
    EmpiricalRoot,
    KernelRoot,
    Kind,
    LinearGaussian,
    LinearSoftmax,
    LinearVector,
    LocationScale,
    Mechanism,
    MixtureRoot,
    NegativeBinomial,
    NetworkSoftmax,
    Ordinal,
    Poisson,
    PostNonlinear,
    Regressor,
    SplineNoise,
)
from causal.plots import draw_graph
from causal.scm import SCM

__all__ = [
    "SCM",
    "AdditiveNoise",
    "CategoricalTable",
    "CausalFlow",
    "Classifier",
    "Comparison",
    "Conditional",
    "Counterfactual",
    "Criterion",
    "Effect",
    "Effects",
    "EmpiricalRoot",
    "Equations",
    "Estimand",
    "GraphPosterior",
    "Instrument",
    "Intervened",
    "KernelRoot",
    "Kind",
    "LinearGaussian",
    "LinearSoftmax",
    "LinearVector",
    "LocationScale",
    "Mechanism",
    "MixtureRoot",
    "NegativeBinomial",
    "NetworkSoftmax",
    "NotIdentifiable",
    "Ordinal",
    "Poisson",
    "PostNonlinear",
    "Regressor",
    "Selection",
    "SplineNoise",
    "Table",
    "adjust",
    "adjustment_sets",
    "as_graph",
    "assess",
    "attribution",
    "auto",
    "bounds",
    "bridge",
    "causation",
    "compare",
    "condition",
    "counterfactual",
    "discover",
    "discovery",
    "do",
    "draw_effect",
    "draw_effects",
    "draw_graph",
    "draw_outcome",
    "effect",
    "estimate",
    "exact_log_prob",
    "examples",
    "falsify",
    "from_gcm",
    "front_door_sets",
    "graph",
    "identify",
    "instruments",
    "is_adjustment_set",
    "is_back_door_set",
    "is_front_door_set",
    "is_instrument",
    "mediation",
    "optimal_adjustment_set",
    "parse",
    "path_effect",
    "refute",
    "refute_scm",
    "sensitivity",
    "soundness",
    "to_gcm",
]
