"""Audits: lower bounds on epsilon from what a mechanism did, beside the claim from above.

An audit can refute a claim and never prove it: it looks with one attacker's eyes. It trains again
on the rows and looks at what came of them without noise, so that its numbers are computed from the
rows and no budget covers them: audit on made-up rows, or keep the numbers to yourself. It takes no
ledger and spends nothing, because nothing of it is released.
"""

from privacy.auditing.bounds import Audit, audit_scores, clopper_pearson, step_epsilon
from privacy.auditing.fits import audit_fits
from privacy.auditing.one_run import (
    OneRunAudit,
    audit_guesses,
    audit_run,
    epsilon_of_guesses,
    p_value,
)
from privacy.auditing.steps import StepAudit, audit_steps, audit_training

__all__ = [
    "Audit",
    "OneRunAudit",
    "StepAudit",
    "audit_fits",
    "audit_guesses",
    "audit_run",
    "audit_scores",
    "audit_steps",
    "audit_training",
    "clopper_pearson",
    "epsilon_of_guesses",
    "p_value",
    "step_epsilon",
]
