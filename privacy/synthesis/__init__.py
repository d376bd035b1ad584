"""Synthetic tables under differential privacy: noisy marginals, the field behind them, draws."""

from privacy.synthesis.result import SynthesisReport, Synthetic
from privacy.synthesis.tables import synthesize

__all__ = ["SynthesisReport", "Synthetic", "synthesize"]
