"""The rules by which FCI turns circles into tails and arrowheads (Zhang 2008, sec. 3 and 4).

`marks[i, j]` is the mark at j of the edge between i and j. R5 to R7 are left out, as there is taken
to be no selection bias.
"""

from collections.abc import Iterator

import numpy as np

from causal.discovery.marks import ARROW, CIRCLE, NONE, TAIL

Separators = dict[frozenset[int], tuple[int, ...]]


def complete(marks: np.ndarray, separators: Separators) -> None:
    """Applies the rules until none changes a mark, in place."""
    while True:
        before = marks.copy()
        for a, b, c in _triples(marks):
            _rule_1(marks, a, b, c)
            _rule_2(marks, a, b, c)
            _rule_8(marks, a, b, c)
            _rule_3(marks, a, b, c)
        for b, c in np.argwhere(marks.T == CIRCLE):
            _rule_4(marks, int(b), int(c), separators)
        for a, c in np.argwhere((marks == ARROW) & (marks.T == CIRCLE)):
            if _rule_9(marks, int(a), int(c)) or _rule_10(marks, int(a), int(c)):
                marks[c, a] = TAIL
        if (marks == before).all():
            return


def _triples(marks: np.ndarray) -> Iterator[tuple[int, int, int]]:
    for b in range(len(marks)):
        near = [int(k) for k in np.flatnonzero(marks[b])]
        yield from ((a, b, c) for a in near for c in near if a != c)


def _rule_1(marks: np.ndarray, a: int, b: int, c: int) -> None:
    """a *-> b o-* c, a and c apart: b -> c."""
    if marks[a, b] == ARROW and marks[c, b] == CIRCLE and marks[a, c] == NONE:
        marks[c, b], marks[b, c] = TAIL, ARROW


def _rule_2(marks: np.ndarray, a: int, b: int, c: int) -> None:
    """a -> b *-> c or a *-> b -> c, and a *-o c: a *-> c."""
    if marks[a, c] != CIRCLE or marks[a, b] != ARROW or marks[b, c] != ARROW:
        return
    if marks[b, a] == TAIL or marks[c, b] == TAIL:
        marks[a, c] = ARROW


def _rule_3(marks: np.ndarray, a: int, b: int, c: int) -> None:
    """a *-> b <-* c, a *-o d o-* c, a and c apart, d *-o b: d *-> b."""
    if marks[a, b] != ARROW or marks[c, b] != ARROW or marks[a, c] != NONE:
        return
    for d in np.flatnonzero((marks[:, b] == CIRCLE) & (marks[a] == CIRCLE) & (marks[c] == CIRCLE)):
        marks[d, b] = ARROW


def _rule_4(marks: np.ndarray, b: int, c: int, separators: Separators) -> None:
    """On a discriminating path for b: b -> c if b separates its ends, else b is a collider."""
    if marks[c, b] != CIRCLE:
        return
    todo = [
        (int(a), int(a), {int(a), b, c})
        for a in np.flatnonzero((marks[b] == ARROW) & _causes(marks, c))
        if a != c
    ]
    while todo:
        a, first, path = todo.pop(0)
        for d in map(int, np.flatnonzero(marks[:, a] == ARROW)):
            if d in path:
                continue
            if marks[d, c] == NONE:
                if b in separators.get(frozenset((d, c)), ()):
                    marks[c, b], marks[b, c] = TAIL, ARROW
                else:
                    marks[first, b] = marks[b, first] = marks[b, c] = marks[c, b] = ARROW
                return
            if marks[a, d] == ARROW and _causes(marks, c)[d]:
                todo.append((d, first, path | {d}))


def _causes(marks: np.ndarray, c: int) -> np.ndarray:
    """Which nodes have an arrow into c, tail to head."""
    return (marks[:, c] == ARROW) & (marks[c] == TAIL)


def _rule_8(marks: np.ndarray, a: int, b: int, c: int) -> None:
    """a -> b -> c or a -o b -> c, and a o-> c: a -> c."""
    if marks[a, c] == ARROW and marks[c, a] == CIRCLE and marks[b, a] == TAIL:
        into = marks[a, b] in (ARROW, CIRCLE)
        if into and marks[b, c] == ARROW and marks[c, b] == TAIL:
            marks[c, a] = TAIL


def _rule_9(marks: np.ndarray, a: int, c: int) -> bool:
    """a o-> c and an uncovered path a, b, ..., c that may be directed, b and c apart."""
    return any(len(path) > 3 and marks[path[1], c] == NONE for path in _paths(marks, [a], {c}, c))


def _rule_10(marks: np.ndarray, a: int, c: int) -> bool:
    """a o-> c, b -> c <- d, and such paths from a to b and to d that part at once."""
    ends = {int(k) for k in np.flatnonzero(_causes(marks, c)) if k != a}
    starts: dict[int, set[int]] = {end: set() for end in ends}
    for path in _paths(marks, [a], ends, c):
        starts[path[-1]].add(path[1])
    return any(
        m != w and marks[m, w] == NONE
        for b in ends
        for d in ends
        if b < d
        for m in starts[b]
        for w in starts[d]
    )


def _paths(marks: np.ndarray, path: list[int], ends: set[int], c: int) -> Iterator[list[int]]:
    """Paths along which no arrow points back, and whose next but one neighbours are apart."""
    if len(path) > 1 and path[-1] in ends:
        yield path
    if path[-1] == c:
        return
    last = path[-1]
    for k in map(int, np.flatnonzero(marks[last])):
        onward = marks[k, last] != ARROW and marks[last, k] != TAIL
        uncovered = len(path) < 2 or marks[path[-2], k] == NONE
        through = k != c or c in ends
        if k not in path and onward and uncovered and through:
            yield from _paths(marks, [*path, k], ends, c)
