"""Posterior inference: draws of a model's latents given all of its data, and their diagnostics."""

from pgm.inference.diagnostics import pareto_k, summary
from pgm.inference.mcmc import mcmc
from pgm.inference.posterior import InferenceWarning, Posterior
from pgm.inference.unconstrained import BadStart
from pgm.inference.variational import variational

__all__ = [
    "BadStart",
    "InferenceWarning",
    "Posterior",
    "mcmc",
    "pareto_k",
    "summary",
    "variational",
]
