"""How far two graphs agree: arrows in common, turned round, missing, and too many."""

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from causal.graph import GraphLike, as_graph

Arrow = tuple[str, str]


@dataclass(frozen=True)
class Agreement:
    """The arrows of a graph that was found, held against those of a reference.

    Attributes:
        right: in both.
        reversed: as they were found; the reference has them the other way round.
        missed: in the reference alone, in neither direction in the other.
        extra: found, and in neither direction in the reference.
    """

    right: tuple[Arrow, ...]
    reversed: tuple[Arrow, ...]
    missed: tuple[Arrow, ...]
    extra: tuple[Arrow, ...]

    @property
    def distance(self) -> int:
        """The structural Hamming distance: a reversed arrow counts once."""
        return len(self.reversed) + len(self.missed) + len(self.extra)

    def __str__(self) -> str:
        total = len(self.right) + len(self.reversed) + len(self.missed)
        lines = [f"{len(self.right)} of {total} arrows found"]
        for word in ("reversed", "missed", "extra"):
            arrows: Sequence[Arrow] = getattr(self, word)
            said = ", ".join(f"{a} -> {b}" for a, b in arrows)
            lines.append(f"{len(arrows)} {word}" + (f": {said}" if said else ""))
        return "\n  ".join(lines)


def compare(found: nx.DiGraph, reference: GraphLike) -> Agreement:
    """Compares the arrows of a graph, which may have cycles, with those of a reference.

    Raises:
        ValueError: other nodes than the reference's.

    Example:
        >>> import networkx as nx
        >>> print(compare(nx.DiGraph([("A", "B"), ("C", "B")]), "A -> B -> C"))
        1 of 2 arrows found
          1 reversed: C -> B
          0 missed
          0 extra
    """
    truth = as_graph(reference)
    if set(found) != set(truth):
        apart = sorted(set(found) ^ set(truth))
        raise ValueError(f"The graphs have different nodes: {', '.join(map(repr, apart))}.")
    ours, theirs = list(found.edges), list(truth.edges)
    turned = [(a, b) for a, b in ours if (b, a) in truth.edges and (a, b) not in truth.edges]
    right = [(a, b) for a, b in ours if (a, b) in truth.edges]
    missed = [(a, b) for a, b in theirs if (a, b) not in found.edges and (b, a) not in found.edges]
    extra = [arrow for arrow in ours if arrow not in right and arrow not in turned]
    return Agreement(tuple(right), tuple(turned), tuple(missed), tuple(extra))
