"""Graphs from conditional independences: PC, and FCI, which allows for unseen common causes.

PC in its order-independent form (Spirtes, Glymour & Scheines 2000, sec. 5.4.2; Colombo & Maathuis
2014, JMLR 15) with the rules of Meek (1995). FCI with the rules R1-R4 and R8-R10 of Zhang (2008,
Artificial Intelligence 172); R5-R7 are for selection bias, which is taken not to be there. Both
stand on single tests, of which one that errs can turn many arrows: `discover` weighs whole graphs.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causal.assess.dependence import independence
from causal.discovery.marks import ARROW, CIRCLE, NONE, TAIL, MarkedGraph
from causal.discovery.zhang import complete

if TYPE_CHECKING:
    import pandas

Test = Callable[[str, str, tuple[str, ...]], float]
"""The p-value of x _||_ y | given."""


def pc(
    frame: "pandas.DataFrame | None" = None,
    *,
    alpha: float = 0.01,
    most: int | None = None,
    test: Test | None = None,
    names: Sequence[str] | None = None,
) -> MarkedGraph:
    """The equivalence class of graphs without unseen common causes, by tests of independence.

    Args:
        frame: rows in which nothing was set; the test is chosen by the kinds of the columns, as in
            `causal.assess`.
        alpha: p-values above it are taken for independence.
        most: the largest number of columns to condition on; None for no limit.
        test: p-values by another way, in place of the frame.
        names: the nodes, where there is no frame.

    Returns:
        Arrows that all graphs of the class share, and edges `--` that go either way.

    Raises:
        ValueError: neither rows nor a test, or an alpha that is none.

    Example:
        >>> from causal.graph import parse, separated
        >>> graph = parse("A -> C; B -> C; C -> D")
        >>> print(pc(test=lambda x, y, z: float(separated(graph, x, y, z)), names=list(graph)))
        3 edges, PC at level 0.01 (17 tests)
          A -> C
          B -> C
          C -> D
    """
    search = _Search(frame, alpha, most, test, names)
    search.thin()
    marks = np.where(search.joined, TAIL, NONE)
    for a, b, c in search.colliders():
        if marks[b, a] == TAIL and marks[b, c] == TAIL:  # where two disagree, the first holds
            marks[a, b] = marks[c, b] = ARROW
    _meek(marks)
    return search.result(marks, "PC")


def fci(
    frame: "pandas.DataFrame | None" = None,
    *,
    alpha: float = 0.01,
    most: int | None = None,
    test: Test | None = None,
    names: Sequence[str] | None = None,
) -> MarkedGraph:
    """The equivalence class of graphs that may have unseen common causes.

    Args:
        frame: as in `pc`.
        alpha: as in `pc`.
        most: as in `pc`.
        test: as in `pc`.
        names: as in `pc`.

    Returns:
        `A -> B` says that A is a cause of B, `A <-> B` that neither is one of the other and that
        they share an unseen one, and a circle that the tests cannot tell.

    Raises:
        ValueError: neither rows nor a test, or an alpha that is none.

    Example:
        >>> from causal.graph import parse, separated
        >>> graph = parse("A -> B; B <-> C; D -> C")
        >>> test = lambda x, y, z: float(separated(graph, x, y, z))
        >>> print(fci(test=test, names=["A", "B", "C", "D"]))
        3 edges, FCI at level 0.01 (15 tests)
          A o-> B
          B <-> C
          D o-> C
    """
    search = _Search(frame, alpha, most, test, names)
    search.thin()
    marks = search.circled()
    for i, j in search.pairs():
        for start, end in ((i, j), (j, i)):
            if search.joined[i, j]:
                search.separate(i, j, sorted(_possible(marks, start) - {start, end}))
    marks = search.circled()
    complete(marks, search.separators)
    return search.result(marks, "FCI")


class _Search:
    """The edges that are left, and what made the others superfluous."""

    def __init__(
        self,
        frame: Any,
        alpha: float,
        most: int | None,
        test: Test | None,
        names: Sequence[str] | None,
    ) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha={alpha}: the level of a test lies between 0 and 1.")
        if frame is None and (test is None or names is None):
            raise ValueError("Pass rows, or a test and the names of the nodes.")
        self.names = tuple(map(str, frame if names is None else names))
        self.test = test or (lambda x, y, given: independence(frame, x, y, given).p)
        self.alpha, self.most, self.tests = alpha, most, 0
        n = len(self.names)
        self.joined = ~np.eye(n, dtype=bool)
        self.separators: dict[frozenset[int], tuple[int, ...]] = {}
        self._known: dict[tuple[frozenset[int], frozenset[int]], bool] = {}

    def pairs(self) -> list[tuple[int, int]]:
        """The edges, as pairs i < j."""
        return [(int(i), int(j)) for i, j in np.argwhere(np.triu(self.joined))]

    def thin(self) -> None:
        """Takes out edges by conditions of rising size; those of one size see the same graph."""
        for size in range(len(self.names) - 1 if self.most is None else self.most + 1):
            before = self.joined.copy()
            if size > before.sum(1).max() - 1:
                break
            for i, j in self.pairs():
                for start, end in ((i, j), (j, i)):
                    near = [int(k) for k in np.flatnonzero(before[start]) if k != end]
                    if self.joined[i, j] and len(near) >= size:
                        self.separate(i, j, near, size)

    def separate(self, i: int, j: int, among: Sequence[int], size: int | None = None) -> None:
        """Takes the edge out if some of the nodes make its ends independent."""
        largest = len(among) if self.most is None else min(self.most, len(among))
        for k in range(1, largest + 1) if size is None else [size]:
            for given in itertools.combinations(among, k):
                if self._independent(i, j, given):
                    self.joined[i, j] = self.joined[j, i] = False
                    self.separators[frozenset((i, j))] = given
                    return

    def colliders(self) -> Iterator[tuple[int, int, int]]:
        """a - b - c, a and c apart, b being nothing that separates them: a -> b <- c."""
        for b in range(len(self.names)):
            for a, c in itertools.combinations(map(int, np.flatnonzero(self.joined[b])), 2):
                apart = self.separators.get(frozenset((a, c)))
                if not self.joined[a, c] and apart is not None and b not in apart:
                    yield a, b, c

    def circled(self) -> np.ndarray:
        """All ends open, but for the colliders."""
        marks = np.where(self.joined, CIRCLE, NONE)
        for a, b, c in self.colliders():
            marks[a, b] = marks[c, b] = ARROW
        return marks

    def result(self, marks: np.ndarray, how: str) -> MarkedGraph:
        """The graph with the names of its nodes."""
        named = {
            frozenset(self.names[k] for k in pair): tuple(self.names[k] for k in given)
            for pair, given in self.separators.items()
        }
        return MarkedGraph(self.names, marks, named, self.tests, f"{how} at level {self.alpha:g}")

    def _independent(self, i: int, j: int, given: tuple[int, ...]) -> bool:
        key = frozenset((i, j)), frozenset(given)
        if key not in self._known:
            self.tests += 1
            p = self.test(self.names[i], self.names[j], tuple(self.names[k] for k in given))
            self._known[key] = p > self.alpha
        return self._known[key]


def _possible(marks: np.ndarray, start: int) -> set[int]:
    """Possible-D-SEP: reached by paths on which every inner node is a collider or in a triangle."""
    found, todo = set[int](), [(start, int(k)) for k in np.flatnonzero(marks[start])]
    seen = set(todo)
    while todo:
        a, b = todo.pop()
        found.add(b)
        for c in map(int, np.flatnonzero(marks[b])):
            collider = marks[a, b] == ARROW and marks[c, b] == ARROW
            if c not in (a, start) and (collider or marks[a, c]) and (b, c) not in seen:
                seen.add((b, c))
                todo.append((b, c))
    return found


def _meek(marks: np.ndarray) -> None:
    """Turns edges of which one direction would make a new collider or a cycle (Meek 1995)."""
    changed = True
    while changed:
        changed = False
        for a, b in np.argwhere((marks == TAIL) & (marks.T == TAIL)):
            if _forced(marks, int(a), int(b)):
                marks[a, b], changed = ARROW, True


def _forced(marks: np.ndarray, a: int, b: int) -> bool:
    """Whether a -- b must be a -> b, by rules 1 to 3."""
    into = (marks == ARROW) & (marks.T == TAIL)
    open_ = (marks == TAIL) & (marks.T == TAIL)
    apart = marks == NONE
    if bool((into[:, a] & apart[:, b] & (np.arange(len(marks)) != b)).any()):
        return True
    if bool((into[a] & into[:, b]).any()):
        return True
    middle = np.flatnonzero(open_[a] & into[:, b])
    return any(apart[c, d] for c, d in itertools.combinations(middle, 2))
