"""Exact inference in conditional Gaussian networks: joint laws, evidence, draws and estimates.

A model is a list of tables and lines over the arrows of a `Structure`; its joint law is a normal
for every configuration of the discrete variables (Lauritzen & Wermuth 1989).
"""

from pgm.inference.cg.estimation import expectation_maximisation
from pgm.inference.cg.law import ConditionalGaussian, condition, divergence
from pgm.inference.cg.network import Line, Structure, joint
from pgm.inference.cg.rows import Evidence, check_possible, draw, evidence_of

__all__ = [
    "ConditionalGaussian",
    "Evidence",
    "Line",
    "Structure",
    "check_possible",
    "condition",
    "divergence",
    "draw",
    "evidence_of",
    "expectation_maximisation",
    "joint",
]
