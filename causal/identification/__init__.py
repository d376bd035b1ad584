"""Identification: what an effect is in terms of what is observed, or why it is none, and bounds."""

from causal.identification import bounds
from causal.identification.adjustment import (
    adjustment_sets,
    is_adjustment_set,
    is_back_door_set,
)
from causal.identification.criterion import Criterion
from causal.identification.estimand import Estimand
from causal.identification.expressions import Expression, Probability, Product, Ratio, Sum
from causal.identification.frontdoor import front_door_sets, is_front_door_set
from causal.identification.hedge import Hedge, NotIdentifiable
from causal.identification.identify import identify
from causal.identification.instruments import Instrument, instruments, is_instrument
from causal.identification.networks import Network, as_network, random_network
from causal.identification.optimal import optimal_adjustment_set
from causal.identification.tables import Table, tabulate
from causal.identification.verify import Verification, verify
from causal.identification.witness import witnesses

__all__ = [
    "Criterion",
    "Estimand",
    "Expression",
    "Hedge",
    "Instrument",
    "Network",
    "NotIdentifiable",
    "Probability",
    "Product",
    "Ratio",
    "Sum",
    "Table",
    "Verification",
    "adjustment_sets",
    "as_network",
    "bounds",
    "front_door_sets",
    "identify",
    "instruments",
    "is_adjustment_set",
    "is_back_door_set",
    "is_front_door_set",
    "is_instrument",
    "optimal_adjustment_set",
    "random_network",
    "tabulate",
    "verify",
    "witnesses",
]
