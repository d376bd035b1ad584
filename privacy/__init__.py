"""Differentially private training of the models of `pgm`, with its accounting and audits."""

from privacy.accounting import calibrate, compose, epsilon
from privacy.approximate import Approximate
from privacy.attacks import lira, loss_attack
from privacy.auditing import audit_fits, audit_run, audit_steps, audit_training
from privacy.budget import Budget, BudgetExceeded, odometer
from privacy.chain import BrokenChain
from privacy.clipping import AdaptiveClip, LayerClip
from privacy.compatibility import SelfCheck, check
from privacy.counts import categories, count, histogram
from privacy.engine import make_private_with_epsilon
from privacy.fit import PrivateTraining, fit
from privacy.gradients import per_row_gradients
from privacy.ledger import Ledger, Release
from privacy.preprocessing import Moments, moments, quantiles, standardise
from privacy.record import PrivateFit, PrivateValue
from privacy.report import PrivacyReport
from privacy.svi import DPSVI
from privacy.synthesis import SynthesisReport, Synthetic, synthesize

__all__ = [
    "DPSVI",
    "AdaptiveClip",
    "Approximate",
    "BrokenChain",
    "Budget",
    "BudgetExceeded",
    "LayerClip",
    "Ledger",
    "Moments",
    "PrivacyReport",
    "PrivateFit",
    "PrivateTraining",
    "PrivateValue",
    "Release",
    "SelfCheck",
    "SynthesisReport",
    "Synthetic",
    "audit_fits",
    "audit_run",
    "audit_steps",
    "audit_training",
    "calibrate",
    "categories",
    "check",
    "compose",
    "count",
    "epsilon",
    "fit",
    "histogram",
    "lira",
    "loss_attack",
    "make_private_with_epsilon",
    "moments",
    "odometer",
    "per_row_gradients",
    "quantiles",
    "standardise",
    "synthesize",
]
