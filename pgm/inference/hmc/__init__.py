"""Hamiltonian Monte Carlo for many chains at once: `chees.py` is the face, the rest its parts."""

from pgm.inference.hmc.chees import chees

__all__ = ["chees"]
