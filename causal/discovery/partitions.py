"""Markov chains over ordered partitions, for more nodes than exact sums allow.

Kuipers & Moffa (2017, JASA 112, 282-299): every acyclic graph falls into layers in one way (see
`causal.discovery.layers`), and the weight of all graphs with given layers is prod_i D_i(S, R), S
being the layers before that of i and R the last of them. Chains over layers have exactly the
uniform prior over graphs, unlike those over orders; parents are drawn given the layers.

Moves, after their sec. 4: a node goes to any place, into a layer or between two, by weight; two
nodes of different layers change places; a layer is split, or joined with the next. Besides, arrows
are turned round (`causal.discovery.reversals`). A chain warms up several times, each time cooled
down from a high temperature, and goes on from the best, so that it does not begin in any hollow.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from causal.discovery.layered import Layers, Weights, nodes_of
from causal.discovery.layers import draw_parents
from causal.discovery.reversals import walked
from causal.discovery.subsets import bits
from pgm.inference.diagnostics import ESS_PER_CHAIN, R_HAT, chain_summary

_TRIES = 3
"""The warm-ups of a chain: on all of Sachs' cells one in five ends fifty nats too low."""

_ERROR = 0.05
"""The standard error of an arrow's probability above which it is called uncertain."""


@dataclass(frozen=True, eq=False)
class Chains:
    """What the chains found.

    Attributes:
        parents: graphs, one for each layers that were kept; (chains, draws, n) sets as bits.
        probability: of every parent set, averaged over the kept layers, (n, m).
        error: the standard error of the probability of every arrow, (n, n).
        problems: reasons not to trust them.
    """

    parents: Int[Tensor, "chains draws n"]
    probability: Float[Tensor, "n m"]
    error: Float[Tensor, "n n"]
    problems: tuple[str, ...]


def run(
    sets: Int[Tensor, "n m"],
    scores: Float[Tensor, "n m"],
    *,
    steps: int,
    chains: int,
    seed: int,
    keep: int = 500,
) -> Chains:
    """Runs several chains from random starts, and throws their first third away.

    Args:
        sets: parent sets of each node, as bits.
        scores: their logarithmic scores.
        steps: of each chain.
        chains: how many; two or more tell whether they agree.
        seed: of all of them.
        keep: layers kept of each chain, evenly spaced.

    Raises:
        ValueError: too few steps or chains.
    """
    if steps < 100 or chains < 1:
        raise ValueError(f"steps={steps} and chains={chains}: 100 steps and a chain, at least.")
    weights, generator = Weights(sets, scores), torch.Generator().manual_seed(seed)
    warmup = steps // 3
    every = max(1, (steps - warmup) // keep)
    kept = [
        _chain(weights, len(sets), random.Random(f"{seed} {k}"), steps, warmup, every)
        for k in range(chains)
    ]
    states = [layers for chain in kept for layers in chain]
    before, last = _places(states, len(sets))
    drawn = draw_parents(sets, scores, before, last, generator).reshape(chains, -1, len(sets))
    log = torch.tensor([[weights.total(layers) for layers in chain] for chain in kept])
    error, problems = _diagnosed(drawn, log)
    return Chains(drawn, _averaged(weights, before, last), error, problems)


def _chain(
    weights: Weights, n: int, dice: random.Random, steps: int, warmup: int, every: int
) -> list[Layers]:
    """The layers kept of one chain, which goes on from the best of its warm-ups."""
    kept = list[Layers]()
    tries = [_cooled(weights, n, dice, warmup // _TRIES) for _ in range(_TRIES)]
    layers = max(tries, key=weights.total)
    for step in range(steps - warmup):
        layers = _stepped(weights, layers, n, 1.0, dice)
        if step % every == every - 1:
            kept.append(layers)
    return kept


def _cooled(weights: Weights, n: int, dice: random.Random, steps: int) -> Layers:
    """A chain from a random start, cooled down from a high temperature."""
    layers = _start(weights, n, dice)
    hot = max(1.0, -weights.total(layers) / n)
    for step in range(steps):
        heat = max(1.0, hot ** (1 - step / (0.8 * steps)))
        layers = _stepped(weights, layers, n, heat, dice)
    return layers


def _stepped(weights: Weights, layers: Layers, n: int, heat: float, dice: random.Random) -> Layers:
    """One move at a temperature."""
    if (u := dice.random()) < 0.5:
        return _relocated(weights, layers, n, heat, dice)
    if u < 0.6 and heat == 1:
        return walked(weights, layers, n, dice)
    new, ratio = (_swap if dice.random() < 0.5 else _split_or_join)(layers, dice)
    gain = weights.total(new) - weights.total(layers)
    return new if math.log(dice.random() + 1e-300) < gain / heat + ratio else layers


def _start(weights: Weights, n: int, dice: random.Random) -> Layers:
    """A random order of single nodes if knowledge allows it, else one found node by node."""
    nodes = list(range(n))
    dice.shuffle(nodes)
    layers: list[int] = []
    placed = 0
    while nodes:
        last = layers[-1] if layers else 0
        free = next((v for v in nodes if weights.weigh(v, placed, 0) > -math.inf), None)
        assert free is not None, "required arrows have no cycle, so that some node is free"
        nodes.remove(free)
        if layers and weights.weigh(free, placed, last) == -math.inf:
            layers = _inserted(weights, layers, free)
        else:
            layers.append(1 << free)
        placed |= 1 << free
    return tuple(layers)


def _inserted(weights: Weights, layers: list[int], node: int) -> list[int]:
    """The node in the first layer in which its parents allow it to stand."""
    placed = last = 0
    for k, layer in enumerate(layers):
        if weights.weigh(node, placed, last) > -math.inf:
            return [*layers[:k], layer | 1 << node, *layers[k + 1 :]]
        placed, last = placed | layer, layer
    raise AssertionError("a node with parents among those placed has a layer")


def _relocated(
    weights: Weights, layers: Layers, n: int, heat: float, dice: random.Random
) -> Layers:
    """A node goes to one of all its 2 k + 1 places beside the k layers of the others, by weight."""
    node = 1 << dice.randrange(n)
    rest = [kept for layer in layers if (kept := layer & ~node)]
    places: list[Layers] = [(*rest[:k], node, *rest[k:]) for k in range(len(rest) + 1)]
    places += [(*rest[:k], rest[k] | node, *rest[k + 1 :]) for k in range(len(rest))]
    found = [weights.total(place) for place in places]
    top = max(found)
    return dice.choices(places, [math.exp((w - top) / heat) for w in found])[0]


def _swap(layers: Layers, dice: random.Random) -> tuple[Layers, float]:
    """Two nodes of different layers change places: symmetric."""
    if len(layers) < 2:
        return layers, 0.0
    sizes = [layer.bit_count() for layer in layers]
    while True:  # a pair of nodes, uniformly, until their layers differ
        a, b = dice.choices(range(len(layers)), weights=sizes, k=2)
        if a != b:
            break
    x, y = (1 << dice.choice(nodes_of(layers[k])) for k in (a, b))
    new = list(layers)
    new[a], new[b] = new[a] ^ x | y, new[b] ^ y | x
    return tuple(new), 0.0


def _split_or_join(layers: Layers, dice: random.Random) -> tuple[Layers, float]:
    """One of all ways to split a layer in two or to join two that are neighbours, uniformly."""
    ways = _ways(layers)
    chosen = dice.randrange(ways) if ways else 0
    if not ways:
        return layers, 0.0
    if chosen < len(layers) - 1:
        joined = layers[chosen] | layers[chosen + 1]
        new = (*layers[:chosen], joined, *layers[chosen + 2 :])
    else:
        chosen -= len(layers) - 1
        k = 0
        while chosen >= (more := (1 << layers[k].bit_count()) - 2):
            chosen, k = chosen - more, k + 1
        first = sum(1 << v for p, v in enumerate(nodes_of(layers[k])) if (chosen + 1) >> p & 1)
        new = (*layers[:k], first, layers[k] ^ first, *layers[k + 1 :])
    return new, math.log(ways) - math.log(_ways(new))


def _ways(layers: Layers) -> int:
    """How many ways there are to split or join: 2^k - 2 for a layer of k nodes, and the joints."""
    return len(layers) - 1 + sum((1 << layer.bit_count()) - 2 for layer in layers)


def _places(states: list[Layers], n: int) -> tuple[Int[Tensor, "k n"], Int[Tensor, "k n"]]:
    """Of every node in every state, what is placed before it, and the last layer of that."""
    before, final = (torch.zeros(len(states), n, dtype=torch.long) for _ in range(2))
    for row, layers in enumerate(states):
        placed = last = 0
        for layer in layers:
            nodes = nodes_of(layer)
            before[row, nodes], final[row, nodes] = placed, last
            placed, last = placed | layer, layer
    return before, final


def _averaged(
    weights: Weights, before: Int[Tensor, "k n"], last: Int[Tensor, "k n"]
) -> Float[Tensor, "n m"]:
    """The probability of every parent set given the layers, averaged over the states."""
    found = np.zeros(weights.scores.shape)
    for i in range(len(found)):
        places = torch.stack([before[:, i], last[:, i]], 1)
        for (placed, layer), count in zip(*_counted(places), strict=True):
            fits = weights.fitting(i, placed, layer)
            logs = weights.scores[i][fits] - weights.weigh(i, placed, layer)
            found[i, fits] += np.exp(logs) * count
    return torch.from_numpy(found / len(before))


def _counted(places: Tensor) -> tuple[list[list[int]], list[int]]:
    values, counts = places.unique(dim=0, return_counts=True)
    return values.tolist(), counts.tolist()


def _diagnosed(
    drawn: Int[Tensor, "chains draws n"], log: Float[Tensor, "chains draws"]
) -> tuple[Float[Tensor, "n n"], tuple[str, ...]]:
    """Standard errors of the arrows, and whether the chains agree."""
    chains, _, n = drawn.shape
    arrows = bits(drawn, n).mT.double()
    values = {"log weight": log} | {
        f"{i} {j}": arrows[:, :, i, j] for i in range(n) for j in range(n)
    }
    table = chain_summary(values)
    error = torch.tensor(table["mcse_mean"].to_numpy()[1:].copy()).reshape(n, n)
    problems = []
    if table["r_hat"]["log weight"] > R_HAT:
        problems.append(
            f"R-hat of the log weight is {table['r_hat']['log weight']:.3f} (above {R_HAT}): the "
            "chains disagree. Raise steps; if it stays, forbid what cannot be or lower max_parents."
        )
    if table["ess_bulk"]["log weight"] < ESS_PER_CHAIN * chains:
        problems.append(
            f"The effective number of draws of the log weight is "
            f"{table['ess_bulk']['log weight']:.0f}, below {ESS_PER_CHAIN} a chain. Raise steps."
        )
    worst = float(error.max())
    if worst > _ERROR:
        problems.append(
            f"The probability of an arrow has a standard error of {worst:.2f}: the chains have "
            "hardly moved between graphs with and without it. Raise steps."
        )
    return error, tuple(problems)
