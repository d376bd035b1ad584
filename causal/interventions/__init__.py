"""Interventions: `handler` has `do`, the others what may be done, and to what."""
