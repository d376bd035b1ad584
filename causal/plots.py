"""Pictures: the graph before and after an intervention, an outcome in both worlds, an effect.

Every function takes and returns matplotlib axes.
"""

import itertools
import random
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import torch

from causal.effects.results import Effect, Effects
from causal.graph import GraphLike, as_graph, check_nodes, latents
from causal.graph.latent import ends

Place: TypeAlias = tuple[float, float]
Places: TypeAlias = "np.ndarray[Any, np.dtype[np.complex128]]"

_BEFORE, _AFTER = "tab:gray", "tab:blue"
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
        look = severed if done & {a, b} else {"edge_color": _BEFORE, "style": "dashed"}
        bend = {"arrowstyle": "<|-|>", "connectionstyle": f"arc3,rad={_bend(place, a, b)}"}
        nx.draw_networkx_edges(plain, place, edgelist=[(a, b)], **style | look | bend)
    _draw_nodes(plain, place, done, ax)
    ax.set_axis_off()
    ax.margins(0.1)
    return ax


def draw_outcome(effect: Effect, *, ax: Any = None) -> Any:
    """Draws the distribution of the outcome in both worlds.

    Args:
        effect: an answer of `causal.effect`.
        ax: matplotlib axes; new ones by default.

    Raises:
        ValueError: an effect of some units, which has no draws.
    """
    import matplotlib.pyplot as plt

    if effect.samples is None:
        raise ValueError(
            f"The effect is {effect.units}, and holds no draws of the outcome. Draw those of the "
            "units from causal.counterfactual or causal.condition, or plot the effect itself."
        )
    ax = ax or plt.subplots()[1]
    after, before = effect.worlds
    if effect.levels:
        place = torch.arange(len(effect.levels)).numpy()
        ax.bar(place - 0.2, effect.control.numpy(), 0.4, color=_BEFORE, label=before)
        ax.bar(place + 0.2, effect.treated.numpy(), 0.4, color=_AFTER, label=after)
        ax.set_xticks(place, [str(level) for level in effect.levels])
        ax.set_ylabel("probability")
    else:
        both = torch.cat(effect.samples).cpu()
        low, high = both.quantile(both.new_tensor([0.001, 0.999])).tolist()
        bins = torch.linspace(low, high, 61).tolist()
        for x, colour, label in zip(
            effect.samples, (_AFTER, _BEFORE), (after, before), strict=True
        ):
            ax.hist(x.cpu().numpy(), bins, density=True, alpha=0.6, color=colour, label=label)
        ax.set_ylabel("density")
    ax.set_xlabel(effect.outcome)
    ax.legend(frameon=False)
    return ax


def draw_effect(effect: Effect, *, ax: Any = None) -> Any:
    """Draws the differences with their intervals.

    Args:
        effect: an answer of `causal.effect`.
        ax: matplotlib axes; new ones by default.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots()[1]
    labels = [str(level) for level in effect.levels] or ["mean"]
    ends = torch.stack([effect.difference - effect.lower, effect.upper - effect.difference])
    height = list(range(len(labels)))
    ax.errorbar(
        effect.difference.numpy(), height, xerr=ends.clamp(min=0).numpy(), fmt="o",
        color=_AFTER, capsize=4,
    )  # fmt: skip
    ax.axvline(0.0, color=_BEFORE, lw=0.8)
    ax.set_yticks(height, labels)
    ax.set(xlabel=f"difference, {effect.confidence:.0%} interval", ylabel=effect.outcome)
    ax.set_title(" versus ".join(effect.worlds), fontsize=10)
    ax.margins(y=0.4)
    return ax


def draw_effects(effects: Effects, *, ax: Any = None) -> Any:
    """Draws several effects with their intervals.

    Args:
        effects: an answer of `causal.mediation`, `causal.path_effect` or `causal.causation`.
        ax: matplotlib axes; new ones by default.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots()[1]
    value, lower, upper = (
        t.flatten().flip(0) for t in (effects.values, effects.lower, effects.upper)
    )
    error = torch.stack([value - lower, upper - value]).nan_to_num(0.0).clamp(min=0)
    height = list(range(len(value)))
    ax.errorbar(value.numpy(), height, xerr=error.numpy(), fmt="o", color=_AFTER, capsize=4)
    ax.axvline(0.0, color=_BEFORE, lw=0.8)
    ax.set_yticks(height, effects.labels[::-1])
    ax.set(xlabel=f"{effects.confidence:.0%} interval", ylabel=effects.outcome)
    ax.set_title(effects.title, fontsize=10, wrap=True)
    ax.margins(y=0.4)
    return ax


def _draw_nodes(graph: nx.DiGraph, place: Mapping[str, Place], done: set[str], ax: Any) -> None:
    """White circles; grey dashed ones for latent nodes, blue squares for those that are set."""
    hidden = [v for v in latents(graph) if v not in done]
    seen = [v for v in graph if v not in done and v not in hidden]
    for nodes, shape, colour, edge in (
        (seen, "o", "white", "black"),
        (hidden, "o", "whitesmoke", _BEFORE),
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
