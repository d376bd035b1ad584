"""Which causal graphs a table speaks for: posteriors over graphs, and single graphs by tests.

`discover` gives every arrow a probability, by exact sums over all graphs or by Markov chains. `pc`
and `fci` take conditional independences one by one; `notears` descends on weights. All speak of
what is in the table: only FCI allows for unseen common causes.
"""

from causal.discovery.agreement import Agreement
from causal.discovery.constraint import fci, pc
from causal.discovery.continuous import LinearGraph, notears
from causal.discovery.discrete import BIC, BDeu, BDs
from causal.discovery.draws import GraphDraws
from causal.discovery.gaussian import BGe, GaussianBIC
from causal.discovery.marks import MarkedGraph
from causal.discovery.posterior import GraphPosterior, Probability
from causal.discovery.search import discover

__all__ = [
    "BIC",
    "Agreement",
    "BDeu",
    "BDs",
    "BGe",
    "GaussianBIC",
    "GraphDraws",
    "GraphPosterior",
    "LinearGraph",
    "MarkedGraph",
    "Probability",
    "discover",
    "fci",
    "notears",
    "pc",
]
