"""Noise forms: every site of a program as x = push(fn, u), and its abduction u = pull(fn, x).

Exact counterfactuals of plain Pyro programs, common random numbers and draws that `torch.func.vmap`
can batch come from here. `pgm.noise.form` holds the functions and what they promise; the rules for
distributions stand in the other files, one kind a file.
"""

from pgm.noise import continuous, counts, discrete, mixture, wrappers
from pgm.noise.form import (
    MixtureNoise,
    Noise,
    NoNoiseForm,
    couplings,
    noise,
    pull,
    push,
    register,
    sample,
)

__all__ = [
    "MixtureNoise",
    "NoNoiseForm",
    "Noise",
    "continuous",
    "counts",
    "couplings",
    "discrete",
    "mixture",
    "noise",
    "pull",
    "push",
    "register",
    "sample",
    "wrappers",
]
