"""Pictures of graphs, before and after an intervention.

The function takes and returns matplotlib axes; pictures of effects are in `causal.effects`.
"""

import itertools
import random
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import networkx as nx
import numpy as np

from causal.graph import GraphLike, as_graph, check_nodes, latents
from causal.graph.latent import ends

Place: TypeAlias = tuple[float, float]
Places: TypeAlias = "np.ndarray[Any, np.dtype[np.complex128]]"

_GREY = "tab:gray"
_SIZE = 900
_UNTANGLED = 40
"""The most arrows for which places are searched."""


def draw_graph(graph: GraphLike, *, do: Iterable[str] = (), ax: Any = None) -> Any:
    """Draws a graph from causes (top) to effects; arrows that `do` severs are red and dashed.

    Latent nodes are grey dashed circles; X <-> Y is a dashed arrow with two heads.

    Args:
        graph: in any form that `as_graph` reads.
        do: the nodes that are set, drawn as squares.
        ax: matplotlib axes; new ones by default.

    Raises:
        ValueError: a node of `do` that is not in the graph.

    Example:
        >>> ax = draw_graph("A -> B -> C; A -> C", do=["B"])
        >>> len(ax.patches)
        3
    """
    import matplotlib.pyplot as plt

    whole, done = as_graph(graph), set(do)
    check_nodes(whole, done)
    ax = ax or plt.subplots()[1]
    curved = {v: pair for v in whole if v not in done and (pair := ends(whole, v))}
    plain: nx.DiGraph[str] = whole.subgraph(v for v in whole if v not in curved).copy()
    place = _places(plain)
    style: dict[str, Any] = {"ax": ax, "node_size": _SIZE, "arrowsize": 12}
    severed = {"edge_color": "tab:red", "style": "dashed"}
    kept = [(a, b) for a, b in plain.edges if b not in done]
    cut = [(a, b) for a, b in plain.edges if b in done]
    nx.draw_networkx_edges(plain, place, edgelist=kept, **style)
    nx.draw_networkx_edges(plain, place, edgelist=cut, **style | severed)
    for a, b in curved.values():
        look = severed if done & {a, b} else {"edge_color": _GREY, "style": "dashed"}
        bend = {"arrowstyle": "<|-|>", "connectionstyle": f"arc3,rad={_bend(place, a, b)}"}
        nx.draw_networkx_edges(plain, place, edgelist=[(a, b)], **style | look | bend)
    _draw_nodes(plain, place, done, ax)
    ax.set_axis_off()
    ax.margins(0.1)
    return ax


def _draw_nodes(graph: nx.DiGraph, place: Mapping[str, Place], done: set[str], ax: Any) -> None:
    """White circles; grey dashed ones for latent nodes, blue squares for those that are set."""
    hidden = [v for v in latents(graph) if v not in done]
    seen = [v for v in graph if v not in done and v not in hidden]
    for nodes, shape, colour, edge in (
        (seen, "o", "white", "black"),
        (hidden, "o", "whitesmoke", _GREY),
        (sorted(done), "s", "lightskyblue", "black"),
    ):
        drawn = nx.draw_networkx_nodes(
            graph, place, nodelist=nodes, node_shape=shape, node_color=colour,
            edgecolors=edge, node_size=_SIZE, ax=ax,
        )  # fmt: skip
        drawn.set_linestyle("dashed" if nodes is hidden else "solid")
    nx.draw_networkx_labels(graph, place, font_size=8, ax=ax)


def _bend(place: Mapping[str, Place], a: str, b: str) -> float:
    """How far an arc bends, and to which side, so that it keeps clear of the other nodes."""
    start, end = complex(*place[a]), complex(*place[b])
    others = np.array([complex(*at) for v, at in place.items() if v not in (a, b)])
    t = np.linspace(0, 1, 21)[:, None]

    def crowding(bend: float) -> float:
        top = (start + end) / 2 - 1j * bend * (end - start)
        arc = (1 - t) ** 2 * start + 2 * t * (1 - t) * top + t**2 * end
        return float((0.45 - np.abs(arc - others)).clip(0).sum()) + abs(bend)

    return min((0.35, -0.35, 0.6, -0.6, 0.9, -0.9), key=crowding)


def _places(graph: nx.DiGraph) -> dict[str, tuple[float, float]]:
    """Places by generation, top to bottom; small graphs are untangled."""
    starts = range(6 if len(graph.edges) <= _UNTANGLED else 0)
    tried = [_untangled(graph, _rows(graph, random.Random(start))) for start in starts]
    z = min(tried, key=lambda z: _tangle(graph, z), default=_rows(graph, random.Random(0)))
    return {node: (float(at.real), float(at.imag)) for node, at in zip(graph, z, strict=True)}


def _rows(graph: nx.DiGraph, order: random.Random) -> Places:
    """Each generation on a line of its own, in random order; places as x + iy."""
    layers = [list(layer) for layer in nx.topological_generations(graph)]
    slots, place = max(map(len, layers)) + 1, dict[str, complex]()
    for depth, layer in enumerate(layers):
        order.shuffle(layer)
        first = (slots - len(layer)) // 2 + 0.5 * (depth % 2)
        place |= {node: complex(first + i, -depth) for i, node in enumerate(layer)}
    return np.array([place[node] for node in graph])


def _untangled(graph: nx.DiGraph, z: Places) -> Places:
    """Moves nodes along their lines for as long as that helps."""
    slots = int(z.real.max()) + 2
    best, improved = _tangle(graph, z), True
    while improved:
        improved = False
        for i, slot in itertools.product(range(len(z)), range(-1, slots)):
            target = complex(slot + z[i].real % 1, z[i].imag)
            tried = np.where(z == target, z[i], z)
            tried[i] = target
            if (now := _tangle(graph, tried)) < best - 1e-9:
                z, best, improved = tried, now, True
    return z


def _tangle(graph: nx.DiGraph, z: Places) -> float:
    """Nodes that arrows pass too close by, crossings, and the length of the arrows."""
    index = {node: i for i, node in enumerate(graph)}
    a = z[[index[cause] for cause, _ in graph.edges]][:, None]
    b = z[[index[effect] for _, effect in graph.edges]][:, None]
    along = (((z - a) * (b - a).conj()).real / np.abs(b - a) ** 2).clip(0, 1)
    distance = np.abs(a + along * (b - a) - z)
    near = np.where((z == a) | (z == b), 0.0, (0.5 - distance).clip(0)).sum()
    apart = _side(a, b, a.T) * _side(a, b, b.T) < -1e-9  # the ends of one lie beside the other
    return float(30 * near + (apart & apart.T).sum() / 2 + 0.1 * np.abs(b - a).sum())


def _side(a: Places, b: Places, point: Places) -> np.ndarray[Any, np.dtype[np.float64]]:
    """On which side of the line from a to b a point lies."""
    return ((b - a) * (point - a).conj()).imag
