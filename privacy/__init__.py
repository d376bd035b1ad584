"""Differentially private training of the models of `pgm`, with its accounting and audits."""

from privacy.accounting import calibrate, compose, epsilon
from privacy.approximate import Approximate
from privacy.budget import Budget, BudgetExceeded, odometer
from privacy.chain import BrokenChain
from privacy.compatibility import SelfCheck, check
from privacy.fit import PrivateTraining, fit
from privacy.gradients import per_row_gradients
from privacy.ledger import Ledger, Release
from privacy.record import PrivateFit, PrivateValue
from privacy.report import PrivacyReport

__all__ = [
    "Approximate",
    "BrokenChain",
    "Budget",
    "BudgetExceeded",
    "Ledger",
    "PrivacyReport",
    "PrivateFit",
    "PrivateTraining",
    "PrivateValue",
    "Release",
    "SelfCheck",
    "calibrate",
    "check",
    "compose",
    "epsilon",
    "fit",
    "odometer",
    "per_row_gradients",
]
