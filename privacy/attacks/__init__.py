"""Membership inference: who was among the rows a model was trained on, as an attacker finds out.

An attack gives every row a score, larger for rows that it takes for members; what counts is how
many members it finds at a false-positive rate near zero (Carlini et al. 2022). An attack that fails
proves nothing: a better one may not. Its numbers are computed from the rows and from what was
trained on them, so that no budget covers them: do not publish them.
"""

from privacy.attacks.losses import loss_attack
from privacy.attacks.outcome import Attack, Interval, tpr_bound
from privacy.attacks.shadows import likelihood_ratio, lira

__all__ = ["Attack", "Interval", "likelihood_ratio", "lira", "loss_attack", "tpr_bound"]
