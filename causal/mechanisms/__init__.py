"""Mechanisms p(x | parents), one a node of a structural causal model."""

from causal.mechanisms.additive import AdditiveNoise, LocationScale
from causal.mechanisms.categorical import CategoricalTable, LinearSoftmax
from causal.mechanisms.counts import NegativeBinomial, Poisson
from causal.mechanisms.kind import NUMBER, Kind
from causal.mechanisms.learned import Classifier, Regressor
from causal.mechanisms.linear import LinearGaussian
from causal.mechanisms.mechanism import Inputs, Mechanism, Values, build, describe
from causal.mechanisms.ordinal import Ordinal
from causal.mechanisms.roots import EmpiricalRoot, KernelRoot, MixtureRoot
from causal.mechanisms.softmax import NetworkSoftmax
from causal.mechanisms.spline import PostNonlinear, SplineNoise
from causal.mechanisms.vector import LinearVector

__all__ = [
    "NUMBER",
    "AdditiveNoise",
    "CategoricalTable",
    "Classifier",
    "EmpiricalRoot",
    "Inputs",
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
    "Ordinal",
    "Poisson",
    "PostNonlinear",
    "Regressor",
    "SplineNoise",
    "Values",
    "build",
    "describe",
]
