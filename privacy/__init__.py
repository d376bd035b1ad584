"""Differentially private training of the models of `pgm`, with its accounting and audits."""
