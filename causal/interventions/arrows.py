"""Interventions on an arrow: one effect hears of another value of its cause, all others as it is.

do(A -> B = a) leaves A alone and puts a in the place of A in the mechanism of B alone (Shpitser &
Tchetgen Tchetgen 2016). Direct and indirect effects are interventions on arrows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import networkx as nx
import torch
from torch import Tensor
from torch.distributions import Distribution

from causal.mechanisms import Mechanism
from causal.outcomes import categories, check_levels
from causal.structural import Arrow
from pgm import Model
from pgm.schema.columns import listing
from pgm.sites import Site


def check_arrow(
    model: Model, graph: nx.DiGraph, arrow: Arrow, value: Any, sites: Mapping[str, Site]
) -> None:
    """Refuses an intervention on an arrow that the model does not have, or that it cannot carry.

    Raises:
        ValueError: no such arrow; a Distribution or a mechanism; a value of another shape.
    """
    if not graph.has_edge(*arrow):
        known = [f"{a} -> {b}" for a, b in graph.edges]
        raise ValueError(
            f"{type(model).__name__} has no arrow {' -> '.join(arrow)} to intervene on. Its arrows "
            f"are: {listing(known) or 'none that it knows of: use SCM.from_program(program)'}."
        )
    if isinstance(value, Distribution | Mechanism):
        raise ValueError(
            f"do({' -> '.join(arrow)}=...) takes a value, values by row or a function of the "
            f"cause, but a {type(value).__name__} came. Draw the values first and pass them by row."
        )
    if isinstance(value, Tensor):
        site = sites[arrow[0]]
        heard(arrow[0], value)(site.value, categories(site.fn))


def heard(cause: str, value: Any) -> Callable[..., Tensor]:
    """What becomes of the value of a cause on its way along an arrow; of levels, a level."""

    def change(x: Tensor, levels: int = 0) -> Tensor:
        said = torch.as_tensor(value(x) if callable(value) else value)
        check_levels(cause, said, levels)
        whole = not (levels or x.is_floating_point())  # numbers that came as whole ones
        dtype = torch.get_default_dtype() if whole else x.dtype
        try:
            return said.to(x.device, dtype).expand(x.shape)
        except RuntimeError as error:
            raise ValueError(
                f"What is heard of {cause!r} has shape {tuple(said.shape)}, and its values "
                f"{tuple(x.shape)}: pass one value, or one for each row."
            ) from error

    return change


def changes(values: Mapping[Any, Any]) -> dict[Arrow, Callable[..., Tensor]]:
    """The interventions on arrows among all, as functions of the causes."""
    return {t: heard(t[0], v) for t, v in values.items() if isinstance(t, tuple)}
