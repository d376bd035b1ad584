"""Graphs whose ends carry marks: what tests of independence can tell, and what they leave open.

A tail says "is a cause of", an arrowhead "is no cause of", a circle that neither can be told. With
tails and arrowheads alone it is the equivalence class of an acyclic graph (CPDAG), an edge with two
tails going either way; with circles it is that of graphs with unseen common causes (PAG).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np

NONE, CIRCLE, ARROW, TAIL = range(4)
_LEFT, _RIGHT = {CIRCLE: "o", ARROW: "<", TAIL: "-"}, {CIRCLE: "o", ARROW: ">", TAIL: "-"}


@dataclass(frozen=True, eq=False, repr=False)
class MarkedGraph:
    """A graph with a mark at each end of its edges.

    Attributes:
        names: of the nodes.
        marks: `marks[i, j]` is the mark at j of the edge between i and j; 0 where there is none.
        separators: what makes two nodes independent, by pair, where something does.
        tests: how many independences were tested.
        how: by what, in words.

    Example:
        >>> marks = np.array([[NONE, ARROW], [TAIL, NONE]])
        >>> print(MarkedGraph(("dose", "recovery"), marks, {}, 1, "by hand"))
        1 edges, by hand (1 tests)
          dose -> recovery
    """

    names: tuple[str, ...]
    marks: np.ndarray
    separators: dict[frozenset[str], tuple[str, ...]]
    tests: int
    how: str

    def directed(self) -> "nx.DiGraph[str]":
        """The arrows that are certain, tail to head; what is left open is left out."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.names)
        sure = (self.marks == ARROW) & (self.marks.T == TAIL)
        graph.add_edges_from((self.names[i], self.names[j]) for i, j in np.argwhere(sure))
        return graph

    def edges(self) -> Iterator[str]:
        """Every edge in words: `A -> B`, `A -- B`, `A o-> B`, `A <-> B`, `A o-o B`."""
        for i, j in np.argwhere(np.triu(self.marks != NONE)):
            left, right = int(self.marks[j, i]), int(self.marks[i, j])
            if left == ARROW and right != ARROW:
                i, j, left, right = j, i, right, left
            ends = _LEFT[left] + "-" + _RIGHT[right]
            shown = {"---": "--", "-->": "->", "--o": "-o", "o--": "o-"}.get(ends, ends)
            yield f"{self.names[i]} {shown} {self.names[j]}"

    def __str__(self) -> str:
        lines = [f"  {edge}" for edge in self.edges()]
        return "\n".join([f"{len(lines)} edges, {self.how} ({self.tests} tests)", *lines])

    __repr__ = __str__
