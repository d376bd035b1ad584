"""Chains in time, exactly: hidden Markov models and linear-Gaussian state spaces as one site each.

A sequence is a row. Its density is one forward pass over time, its posteriors are one backward
pass, and a chain of one site a step would cost dozens of times as much.
"""
