"""Hamiltonian Monte Carlo for many chains at once: `chees.py` is the face, the rest its parts."""
