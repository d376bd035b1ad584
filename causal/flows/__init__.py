"""Causal flows, and the published structural equations that they are measured against."""
