"""ID and IDC: the effect of an intervention as an expression in observed probabilities, or a hedge.

Shpitser & Pearl (2008), Complete identification methods for the causal hierarchy, JMLR 9, figs. 3
and 5 (first in AAAI 2006 and UAI 2006). Both are complete: where they fail, no expression exists.
The numbers in the comments are the lines of the figures; C(G) are the districts of G, An(Y) the
ancestors of Y and Y itself.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass

import networkx as nx

from causal.graph import (
    ancestors,
    cut_incoming,
    cut_outgoing,
    districts,
    observed,
    order,
    separated,
    subgraph,
)
from causal.identification.expressions import Expression, Probability
from causal.identification.hedge import NotIdentifiable, find_hedge, words
from causal.identification.simplify import Place, divide, multiply, reduce, sum_out


@dataclass(frozen=True)
class Query:
    """What is asked of which graph: P(outcome | do) in `graph`, a projection.

    Attributes:
        graph: the whole graph.
        outcome: y, in the order of the graph.
        do: x.
        place: where every variable stands, causes first.
    """

    graph: nx.DiGraph
    outcome: tuple[str, ...]
    do: tuple[str, ...]
    place: Place


def id_(graph: nx.DiGraph, y: Iterable[str], x: Iterable[str]) -> Expression:
    """P(y | do(x)) by ID (fig. 3).

    Args:
        graph: a projection: its latent nodes are bidirected edges.
        y: outcomes.
        x: intervened nodes.

    Raises:
        NotIdentifiable: with the hedge.

    Example:
        >>> from causal.graph import parse
        >>> print(id_(parse("X -> Z -> Y; X <-> Y"), ["Y"], ["X"]))
        Σ_Z P(Z | X) Σ_X' P(Y | X', Z) P(X')
    """
    y, x = set(y), set(x)
    V = [v for v in order(graph) if v in set(observed(graph))]
    place = {v: i for i, v in enumerate(V)}
    outcome, do = (tuple(v for v in V if v in names) for names in (y, x))
    query = Query(graph, outcome, do, place)
    return _id(y, x, Probability(tuple(V)), graph, query)


def idc(graph: nx.DiGraph, y: Iterable[str], x: Iterable[str], z: Iterable[str] = ()) -> Expression:
    """P(y | do(x), z) by IDC (fig. 5).

    Raises:
        NotIdentifiable: with the hedge of P(y, z | do(x)), z what no rule of do-calculus removes.
    """
    y, x, z = set(y), set(x), set(z)
    for node in sorted(z):
        # 1: if (Y indep. of Z' | X, Z \ {Z'}) where X is cut off and Z' acts on nothing
        cut = cut_outgoing(cut_incoming(graph, x), node)
        if separated(cut, y, node, x | (z - {node})):
            # return IDC(y, x u {z'}, z \ {z'})
            return idc(graph, y, x | {node}, z - {node})
    # 2: else let P' = ID(y u z, x); return P' / sum_y P'
    try:
        joint = id_(graph, y | z, x)
    except NotIdentifiable as error:
        ordered = (tuple(v for v in graph if v in s) for s in (y, x, z))
        raise NotIdentifiable(words(*ordered), error.hedge) from None
    if not z:
        return joint
    place = {v: i for i, v in enumerate(order(graph))}
    return divide(joint, sum_out(y, joint, place), place)


def district_factor(graph: nx.DiGraph, district: Set[str]) -> Expression:
    """Q of a district S: P(s | do(all else)) = prod_{i: V_i in S} P(v_i | v^(i-1)).

    Tian & Pearl (2002, A general identification condition for causal effects); it is a function of
    S and its parents alone.

    Example:
        >>> from causal.graph import parse
        >>> print(district_factor(parse("Z -> X -> Y; X <-> Y"), {"X", "Y"}))
        P(X, Y | Z)
    """
    V = [v for v in order(graph) if v in set(observed(graph))]
    place = {v: i for i, v in enumerate(V)}
    return reduce(_factors(district, Probability(tuple(V)), set(V), place), graph, place)


def _id(y: Set[str], x: Set[str], P: Expression, G: nx.DiGraph, query: Query) -> Expression:
    """ID(y, x, P, G); P is the expression of a distribution over the observed nodes V of G."""
    place = query.place
    V = set(observed(G))
    # 1: if x is empty, return sum_{v \ y} P(v)
    if not x:
        return sum_out(V - y, P, place)
    # 2: if V \ An(Y) is not empty,
    #    return ID(y, x n An(Y), sum_{v \ An(Y)} P, G over An(Y))
    above = ancestors(G, y) & V
    if V - above:
        return _id(y, x & above, sum_out(V - above, P, place), subgraph(G, above), query)
    # 3: let W = (V \ X) \ An(Y) where X is cut off; if W is not empty, return ID(y, x u w, P, G)
    W = (V - x) - ancestors(cut_incoming(G, x), y)
    if W:
        return _id(y, x | W, P, G, query)
    # 4: if C(G \ X) = {S_1, ..., S_k}, return sum_{v \ (y u x)} prod_i ID(s_i, v \ s_i, P, G)
    parts = [set(S) for S in districts(subgraph(G, V - x))]
    if len(parts) > 1:
        effects = [_id(S, V - S, P, G, query) for S in parts]
        return sum_out(V - (y | x), multiply(effects, place), place)
    # if C(G \ X) = {S},
    (S,) = parts
    whole = [set(D) for D in districts(G)]
    # 5:   if C(G) = {G}, throw FAIL(G, G n S)
    if whole == [V]:
        hedge = find_hedge(query.graph, V, S, query.outcome, query.do)
        raise NotIdentifiable(words(query.outcome, query.do), hedge)
    # 6:   if S is in C(G), return sum_{s \ y} prod_{i: V_i in S} P(v_i | v^(i-1))
    if S in whole:
        return sum_out(S - y, _factors(S, P, V, place), place)
    # 7:   if there is S' in C(G) that holds S,
    #      return ID(y, x n S', prod_{i: V_i in S'} P(V_i | V^(i-1) n S', v^(i-1) \ S'), G over S')
    (larger,) = (D for D in whole if S < D)
    return _id(y, x & larger, _factors(larger, P, V, place), subgraph(G, larger), query)


def _factors(S: Set[str], P: Expression, V: Set[str], place: Place) -> Expression:
    """prod_{i: V_i in S} P(v_i | v^(i-1)), each a ratio of two marginals of P."""
    ordered = sorted(V, key=place.__getitem__)
    conditionals = []
    for i, v in enumerate(ordered):
        if v in S:
            joint = sum_out(ordered[i + 1 :], P, place)
            conditionals.append(divide(joint, sum_out([v], joint, place), place))
    return multiply(conditionals, place)
