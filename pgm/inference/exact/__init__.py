"""Exact inference in discrete models: sums, marginals, modes and draws by bucket elimination.

A model is a list of `Factor`s, log tables over named variables; they need not be conditional
tables. Evidence comes for many rows at once, and every query is one pass over all of them.

    p(x) = 1/Z prod_f exp(log_value_f(x_f))

(Dechter 1999, "Bucket elimination"; Koller & Friedman 2009, Ch. 9; Darwiche 2003 for all marginals
from one backward pass.)
"""

from pgm.inference.exact.counts import expected_counts
from pgm.inference.exact.factors import Factor, intervene
from pgm.inference.exact.order import Plan
from pgm.inference.exact.queries import (
    draw,
    log_partition,
    marginals,
    marginals_and_log_partition,
    most_probable,
    plan,
)

__all__ = [
    "Factor",
    "Plan",
    "draw",
    "expected_counts",
    "intervene",
    "log_partition",
    "marginals",
    "marginals_and_log_partition",
    "most_probable",
    "plan",
]
