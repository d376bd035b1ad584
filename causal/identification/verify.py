"""Is an estimand right? Random discrete models over the graph, in which the truth is enumerated.

Every model draws levels and positive tables for all nodes, latent ones too; P(y | do(x), z) by the
truncated factorisation (Pearl 2009, eq. 3.10) is compared with the estimand on the joint
distribution of what is observed. A wrong expression is off in almost every model.
"""

from dataclasses import dataclass

import torch

from causal.graph import GraphLike, as_graph, check_nodes
from causal.identification.estimand import Estimand
from causal.identification.evaluation import evaluate
from causal.identification.expressions import variables
from causal.identification.networks import Network, random_network
from causal.identification.tables import spread


@dataclass(frozen=True)
class Verification:
    """How far an estimand is from the truth in random models.

    Attributes:
        question: the effect.
        error: the largest absolute difference of probabilities.
        models: how many models were drawn.
        tolerance: below which the estimand counts as right.
    """

    question: str
    error: float
    models: int
    tolerance: float = 1e-9

    @property
    def right(self) -> bool:
        """Whether the estimand agreed in all models."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        word = "verified" if self.right else "WRONG"
        return (
            f"{self.question}: {word}, largest error {self.error:.1e} over {self.models} random "
            "discrete models"
        )


def verify(
    estimand: Estimand, graph: GraphLike | None = None, *, models: int = 20, seed: int = 0
) -> Verification:
    """Compares an estimand with the truth in random models.

    Args:
        estimand: what is checked.
        graph: over which the models are drawn; None means the estimand's own. Another one says
            whether the estimand would still be right if that were the truth.
        models: how many.
        seed: of the first; the others follow.

    Raises:
        ValueError: a node of the question is not in the graph.

    Example:
        >>> from causal.identification import identify
        >>> estimand = identify("X -> Z -> Y; X <-> Y", "Y", do="X")
        >>> verify(estimand).right, verify(estimand, "X -> Z -> Y; X <-> Y; X <-> Z").right
        (True, False)
    """
    whole = estimand.graph if graph is None else as_graph(graph)
    named = variables(estimand.expression).union(estimand.outcome, estimand.do, estimand.given)
    check_nodes(whole, sorted(named))
    networks = [random_network(whole, seed=seed + i) for i in range(models)]
    error = max(largest_error(estimand, network) for network in networks)
    return Verification(estimand.question, error, models)


def largest_error(estimand: Estimand, network: Network) -> float:
    """The largest difference from the truth, at all values, the arbitrary ones too."""
    truth = network.conditional(estimand.outcome, do=estimand.do, given=estimand.given)
    value = evaluate(estimand.expression, network.joint())
    levels = {**truth.levels, **value.levels}
    difference = (spread(value, levels) - spread(truth, levels)).abs().max()
    return float(torch.nan_to_num(difference, nan=torch.inf))
