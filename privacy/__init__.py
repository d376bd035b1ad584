"""Differentially private training of the models of `pgm`, with its accounting and audits."""

from privacy.accounting import calibrate, compose, epsilon
from privacy.attacks import lira, loss_attack
from privacy.auditing import audit_fits, audit_run, audit_steps, audit_training
from privacy.compatibility import SelfCheck, check
from privacy.fit import PrivateFit, PrivateTraining, fit
from privacy.gradients import per_row_gradients
from privacy.ledger import Ledger, Release
from privacy.report import PrivacyReport

__all__ = [
    "Ledger",
    "PrivacyReport",
    "PrivateFit",
    "PrivateTraining",
    "Release",
    "SelfCheck",
    "audit_fits",
    "audit_run",
    "audit_steps",
    "audit_training",
    "calibrate",
    "check",
    "compose",
    "epsilon",
    "fit",
    "lira",
    "loss_attack",
    "per_row_gradients",
]
