"""Causal models and questions over `pgm`: interventions, counterfactuals, effects, discovery."""
