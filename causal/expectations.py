"""Exact means of an SCM under an intervention, where its mechanisms allow them."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from causal.actions import Action, Target
from causal.effects.enumeration import mean
from causal.effects.twins import Twins
from causal.scm import SCM

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
        >>> from causal import LinearGaussian
        >>> scm = SCM("A -> B; A -> C; B -> C", C=LinearGaussian({"A": 1.0, "B": -0.8}))
        >>> expectation(scm, {"B": torch.tensor(2.0)}, "C")
        tensor([-1.6000])
    """
    with torch.no_grad():
        twins = Twins(scm, {}, values)
        found = mean(twins, twins.copy(node, 1))
    return None if found is None else found.to(scm.dtype)
