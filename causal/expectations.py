"""Exact means of an SCM under an intervention, where its mechanisms allow them.

The mean of a linear mechanism is linear in its parents' means, a level counting as its one-hot
code. The law of a table is the sum over its ancestors of the product of their tables, which are
tables too: sum-product over the truncated factorisation (Pearl 2009, Causality, eq. 3.10),
contracted by `torch.einsum`.
"""

from collections.abc import Mapping

import networkx as nx
import torch
from jaxtyping import Float
from pyro.distributions import Categorical, Normal
from torch import Tensor

from causal.actions import Action, Target
from causal.mechanisms import CategoricalTable, Kind, LinearGaussian, LinearVector
from causal.scm import SCM

_MOST = 25
"""Ancestors of a table, above which the sum might not fit memory."""

Mean = Float[Tensor, " k"]


def expectation(scm: SCM, values: Mapping[Target, Action], node: str) -> Mean | None:
    """The mean of a node, shape (1,), or the probabilities of its levels, shape (k,).

    Args:
        scm: any SCM.
        values: interventions in the model's numbers, as `causal.do` keeps them.
        node: whose mean; of a vector the mean of each component.

    Returns:
        The mean, or None where there is no closed form: a function of the parents, a softmax of
        numbers, a mechanism of another kind.

    Example:
        >>> scm = SCM("A -> B; A -> C; B -> C", C=LinearGaussian({"A": 1.0, "B": -0.8}))
        >>> expectation(scm, {"B": torch.tensor(2.0)}, "C")
        tensor([-1.6000])
    """
    with torch.no_grad():
        return _mean(scm, values, node)


def _mean(scm: SCM, values: Mapping[Target, Action], node: str) -> Mean | None:
    mechanism = scm.mechanism(node)
    if node in values:
        return _mean_of(values[node], mechanism.kind, scm.dtype)
    if isinstance(mechanism, CategoricalTable):
        return _law(scm, values, node)
    if not isinstance(mechanism, LinearGaussian | LinearVector):
        return None
    weights = mechanism.weight.split([kind.width for kind in mechanism.inputs.values()])
    total = mechanism.intercept.reshape(-1)
    for parent, w in zip(mechanism.inputs, weights, strict=False):
        mean = _mean(scm, values, parent)
        if mean is None:
            return None
        total = total + mean @ w.reshape(len(mean), -1)
    return total


def _mean_of(value: Action, kind: Kind, dtype: torch.dtype) -> Mean | None:
    """The mean of what a node was set to, or of the law that it was given."""
    if kind.size is not None:
        whole = isinstance(value, Tensor) and value.shape == (kind.size,)
        return value.to(dtype) if isinstance(value, Tensor) and whole else None
    if isinstance(value, Tensor) and value.numel() == 1:
        x = value.reshape(1)
        codes = torch.arange(kind.levels, device=x.device)
        return (x == codes if kind.levels > 1 else x).to(dtype)
    if isinstance(value, Categorical) and not value.batch_shape:
        return value.probs.to(dtype)
    if isinstance(value, Normal) and not value.batch_shape:
        return value.mean.reshape(1).to(dtype)
    return None


def _law(scm: SCM, values: Mapping[Target, Action], node: str) -> Mean | None:
    """The probabilities of a table's levels: the product of the tables upstream, summed."""
    cut: nx.DiGraph[str] = nx.DiGraph(scm.graph)
    cut.remove_edges_from([(a, b) for a, b in scm.graph.edges if b in values])
    upstream = [name for name in scm.nodes if name in {node, *nx.ancestors(cut, node)}]
    if len(upstream) > _MOST:
        return None
    place = {name: i for i, name in enumerate(upstream)}
    operands: list[Tensor | list[int]] = []
    for name in upstream:
        mechanism = scm.mechanism(name)
        if name in values:
            table, axes = _mean_of(values[name], mechanism.kind, scm.dtype), [place[name]]
        elif isinstance(mechanism, CategoricalTable):
            table = mechanism.logits.softmax(-1)
            axes = [place[p] for p in (*mechanism.inputs, name)]
        else:
            return None
        if table is None:
            return None
        operands += [table, axes]
    return torch.einsum(*operands, [place[node]])
