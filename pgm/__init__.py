"""Probabilistic generative models: two Pyro programs over rows, and verbs that question them."""
