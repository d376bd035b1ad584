"""Identification: what an effect is in terms of what is observed, or why it is none, and bounds."""

from causal.identification import bounds
from causal.identification.estimand import Estimand
from causal.identification.expressions import Expression, Probability, Product, Ratio, Sum
from causal.identification.hedge import Hedge, NotIdentifiable
from causal.identification.identify import identify
from causal.identification.networks import Network, as_network, random_network
from causal.identification.tables import Table, tabulate
from causal.identification.verify import Verification, verify
from causal.identification.witness import witnesses

__all__ = [
    "Estimand",
    "Expression",
    "Hedge",
    "Network",
    "NotIdentifiable",
    "Probability",
    "Product",
    "Ratio",
    "Sum",
    "Table",
    "Verification",
    "as_network",
    "bounds",
    "identify",
    "random_network",
    "tabulate",
    "verify",
    "witnesses",
]
