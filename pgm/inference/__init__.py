"""Posterior inference: draws of a model's latents given all of its data, and their diagnostics."""

from pgm.inference.approximate.laplace import NoMode, laplace
from pgm.inference.approximate.pathfinder import pathfinder
from pgm.inference.approximate.tempering import tempering
from pgm.inference.approximate.weighed import evidence, resample
from pgm.inference.calibration import calibrate, refitted
from pgm.inference.checks import loo_pit, predictive_check
from pgm.inference.comparison import compare, loo
from pgm.inference.diagnosis import diagnose
from pgm.inference.diagnostics import pareto_k, summary
from pgm.inference.hmc.chees import chees
from pgm.inference.improper import ImproperPosterior
from pgm.inference.mcmc import mcmc
from pgm.inference.nutpie import nutpie
from pgm.inference.posterior import InferenceWarning, Posterior
from pgm.inference.reparameterisation import reparameterise
from pgm.inference.resumption import resume
from pgm.inference.sensitivity import sensitivity
from pgm.inference.sgld import sgld
from pgm.inference.unconstrained import BadStart
from pgm.inference.variational import variational

__all__ = [
    "BadStart",
    "ImproperPosterior",
    "InferenceWarning",
    "NoMode",
    "Posterior",
    "calibrate",
    "chees",
    "compare",
    "diagnose",
    "evidence",
    "laplace",
    "loo",
    "loo_pit",
    "mcmc",
    "nutpie",
    "pareto_k",
    "pathfinder",
    "predictive_check",
    "refitted",
    "reparameterise",
    "resample",
    "resume",
    "sensitivity",
    "sgld",
    "summary",
    "tempering",
    "variational",
]
