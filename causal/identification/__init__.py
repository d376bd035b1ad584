"""What can be known of an effect from a graph, before any data are seen."""

from causal.identification.adjustment import (
    adjustment_sets,
    is_adjustment_set,
    is_back_door_set,
)
from causal.identification.criterion import Criterion
from causal.identification.frontdoor import front_door_sets, is_front_door_set
from causal.identification.instruments import Instrument, instruments, is_instrument
from causal.identification.optimal import optimal_adjustment_set

__all__ = [
    "Criterion",
    "Instrument",
    "adjustment_sets",
    "front_door_sets",
    "instruments",
    "is_adjustment_set",
    "is_back_door_set",
    "is_front_door_set",
    "is_instrument",
    "optimal_adjustment_set",
]
