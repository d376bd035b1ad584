"""`identify`: can the effect be computed from what is observed, and by which expression?

The decision is that of ID and IDC (`causal.identification.algorithms`), which are complete; the
expression is simplified by the rules of probability and the independences of the graph. DoWhy's
ID algorithm plays no part.
"""

import networkx as nx

from causal.graph import GraphLike, Nodes, as_graph, check_nodes, latents, order, project
from causal.identification.algorithms import idc
from causal.identification.estimand import Estimand
from causal.identification.hedge import NotIdentifiable
from causal.identification.instruments import Instrument, instruments
from causal.identification.simplify import reduce
from causal.identification.strategy import recognise


def identify(graph: GraphLike, outcome: Nodes, *, do: Nodes, given: Nodes = ()) -> Estimand:
    """P(outcome | do, given) as an expression in probabilities of the observed variables.

    Args:
        graph: a causal graph in any form; bidirected edges and latent nodes are unseen causes.
        outcome: one node or several.
        do: what is set, one node or several.
        given: what is conditioned on as it is under the intervention.

    Returns:
        The estimand: it prints, is evaluated on tables, rows or a discrete SCM, and verifies
        itself on random models.

    Raises:
        NotIdentifiable: no such expression exists; it carries the hedge that shows why.
        ValueError: a node that is not there or not observed, or one that is named twice.

    Example:
        >>> print(identify("X -> Z -> Y; X <-> Y", "Y", do="X"))
        P(Y | do(X)) = Σ_Z P(Z | X) Σ_X' P(Y | X', Z) P(X')
          strategy: front door through Z
        >>> identify("X -> Y; X <-> Y", "Y", do="X")
        Traceback (most recent call last):
        causal.identification.hedge.NotIdentifiable: P(Y | do(X)) is not identified. Unseen...
    """
    whole = as_graph(graph)
    y, x, z = (_names(nodes) for nodes in (outcome, do, given))
    for what, names in (("The outcome", y), ("The intervened node", x), ("The given node", z)):
        check_nodes(whole, names, what=what)
        _check_observed(whole, what, names)
    _check_disjoint(y, x, z)
    projected = project(whole)
    place = {v: i for i, v in enumerate(order(projected))}
    try:
        expression = reduce(idc(projected, y, x, z), projected, place)
    except NotIdentifiable as error:
        found = _instruments(projected, y, x) if not z else ()
        raise NotIdentifiable(error.question, error.hedge, found) from None
    outcomes, done, held = (tuple(sorted(s, key=place.__getitem__)) for s in (y, x, z))
    return recognise(Estimand(outcomes, done, held, expression, "general", graph=projected))


def _instruments(graph: nx.DiGraph, y: list[str], x: list[str]) -> tuple[Instrument, ...]:
    """What identifies the effect where it is linear."""
    return tuple(instruments(graph, x[0], y[0])) if len(x) == len(y) == 1 else ()


def _names(nodes: Nodes) -> list[str]:
    return [nodes] if isinstance(nodes, str) else list(nodes)


def _check_observed(graph: nx.DiGraph, what: str, names: list[str]) -> None:
    if hidden := [v for v in latents(graph) if v in names]:
        raise ValueError(
            f"{what} {hidden[0]!r} is latent: no data hold it, so that nothing can be said of it "
            "or of setting it. Ask about observed nodes, or mark it as observed."
        )


def _check_disjoint(y: list[str], x: list[str], z: list[str]) -> None:
    if not y or not x:
        raise ValueError(
            "identify() needs an outcome and at least one node to set: identify(graph, 'Y', "
            "do='X')."
        )
    names = [*y, *x, *z]
    if twice := [v for v in names if names.count(v) > 1]:
        raise ValueError(
            f"{twice[0]!r} stands twice in outcome, do and given. Under do(x) the value of x is "
            "what it is set to: name every node once."
        )
