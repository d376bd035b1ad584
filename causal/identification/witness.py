"""Two models that agree on everything observed and differ in the effect, built from a hedge.

Shpitser & Pearl (2006, AAAI), thm. 4: all bidirected edges inside F are fair coins, and every
node of F is the parity of its parents in F and of its coins; in the second model the nodes of F'
hear only what lies inside F'. Observed, the roots have even parity in both, every coin being heard
twice. Set x, and in the first model some coin is heard once, so that the parity is a coin itself.
A second bit carries the roots' bits on to the outcome.
"""

from collections.abc import Collection

import networkx as nx
import torch

from causal.graph import cut_incoming, latents, observed, order, parents
from causal.identification.hedge import Hedge, towards
from causal.identification.networks import Network
from causal.identification.tables import Table, configurations


def witnesses(hedge: Hedge, graph: nx.DiGraph) -> tuple[Network, Network]:
    """Two networks over a projection with the same joint distribution and another P(y | do(x)).

    A node's value is 2 carried + parity. Nodes that play no part are constant.

    Args:
        hedge: of a question about the graph.
        graph: the projection over the observed nodes.

    Example:
        >>> from causal.graph import parse
        >>> from causal.identification.identify import identify
        >>> from causal.identification.hedge import NotIdentifiable
        >>> graph = parse("X -> Y; X <-> Y")
        >>> try:
        ...     identify(graph, "Y", do="X")
        ... except NotIdentifiable as error:
        ...     first, second = witnesses(error.hedge, graph)
        >>> bool((first.joint().values - second.joint().values).abs().max() < 1e-12)
        True
        >>> first.interventional(["Y"], do=["X"]).at(X=0).values
        tensor([0.5000, 0.0000, 0.0000, 0.5000], dtype=torch.float64)
        >>> second.interventional(["Y"], do=["X"]).at(X=0).values
        tensor([1., 0., 0., 0.], dtype=torch.float64)
    """
    return _network(hedge, graph, deaf=False), _network(hedge, graph, deaf=True)


def _network(hedge: Hedge, graph: nx.DiGraph, *, deaf: bool) -> Network:
    """All nodes' tables; where `deaf`, the nodes of F' hear nothing from outside F'."""
    cut = cut_incoming(graph, hedge.do)
    onward = towards(cut.subgraph(observed(graph)), set(hedge.outcome))
    carriers = _carriers(hedge, onward)
    coins = set(latents(graph))
    tables = {}
    for node in order(graph):
        if node in coins:
            tables[node] = Table(torch.tensor([0.5, 0.5]), {node: (0, 1)})
            continue
        carried = [cause for cause in carriers if onward.get(cause) == node]
        heard = _heard(hedge, graph, node, deaf=deaf)
        tables[node] = _table(graph, node, heard, carried, own=node in hedge.roots)
    return Network(graph, tables)


def _table(
    graph: nx.DiGraph, node: str, heard: Collection[str], carried: Collection[str], *, own: bool
) -> Table:
    """P(node | parents), all mass on one value; a root's carried bit starts with its own parity."""
    coins = set(latents(graph))
    levels = {p: (0, 1) if p in coins else (0, 1, 2, 3) for p in parents(graph, node)}
    shape = [len(v) for v in levels.values()]
    zero = torch.zeros(shape, dtype=torch.long)
    value = dict(zip(levels, configurations(shape).T.reshape(-1, *shape), strict=True))
    parity = sum((value[p] % 2 for p in heard), start=zero) % 2
    carry = sum((value[p] // 2 for p in carried), start=parity if own else zero) % 2
    cells = torch.nn.functional.one_hot(2 * carry + parity, 4)
    return Table(cells.double(), {**levels, node: (0, 1, 2, 3)})


def _heard(hedge: Hedge, graph: nx.DiGraph, node: str, *, deaf: bool) -> list[str]:
    """Whose parity a node adds up: its parents by the arrows of F, and its coins."""
    inside = set(hedge.smaller if deaf and node in hedge.smaller else hedge.larger)
    if node not in inside:
        return []
    causes = [a for a, b in hedge.arrows if b == node and a in inside]
    coins = [u for u in latents(graph) if node in graph.succ[u] and set(graph.succ[u]) <= inside]
    return causes + coins


def _carriers(hedge: Hedge, onward: dict[str, str]) -> set[str]:
    """The nodes on the ways from the roots to the outcome."""
    found = set[str]()
    for node in hedge.roots:
        while node not in found:
            found.add(node)
            node = onward.get(node, node)
    return found
