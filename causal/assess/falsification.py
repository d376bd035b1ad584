"""What a graph implies, put to the data: the independences that must hold, each tested.

Two nodes that no arrow joins are independent given some set of others (Pearl 2009, Causality,
thm. 1.2.4); the data can contradict it. So many tests at once reject some by chance: p-values are
corrected by Holm (1979), so that the chance of any false rejection is alpha, or by Benjamini &
Hochberg (1995), so that the share of false ones among the rejections is.

A graph that survives is not thereby right: every graph with the same independences survives too.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causal.assess.dependence import IndependenceTest, independence
from causal.graph import GraphLike, as_graph
from causal.graph.independences import independences

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Falsification:
    """The independences that a graph implies, tested.

    Attributes:
        tests: one result each.
        adjusted: their p-values, corrected for how many they are.
        alpha: the level.
        correction: "holm" or "bh".
    """

    tests: tuple[IndependenceTest, ...]
    adjusted: tuple[float, ...]
    alpha: float
    correction: str

    @property
    def rejected(self) -> tuple[IndependenceTest, ...]:
        """The tests that contradict the graph."""
        pairs = zip(self.tests, self.adjusted, strict=True)
        return tuple(test for test, p in pairs if p <= self.alpha)

    @property
    def falsified(self) -> bool:
        """Whether the data contradict the graph."""
        return bool(self.rejected)

    def __str__(self) -> str:
        n, bad = len(self.tests), len(self.rejected)
        name = {"holm": "Holm", "bh": "Benjamini & Hochberg"}[self.correction]
        if not n:
            return "The graph implies no independence among what was seen: no data contradict it."
        head = f"{bad} of {n} implied independences rejected at {self.alpha:g} ({name})"
        lines = [f"  {test}" for test in self.rejected]
        if not bad:
            lines = ["  The data do not contradict the graph; they cannot confirm it either."]
        return "\n".join([head, *lines])


def falsify(
    graph: GraphLike,
    frame: "pandas.DataFrame",
    *,
    test: str | None = None,
    alpha: float = 0.05,
    correction: str = "holm",
    rows: int = 500,
    seed: int = 0,
) -> Falsification:
    """Tests all independences that a graph implies between two of its observed nodes.

    Args:
        graph: a DiGraph, or text for `causal.parse`; nodes may be latent.
        frame: the data.
        test: as in `causal.assess.independence`; None goes by the columns of each test.
        alpha: the level.
        correction: "holm" or "bh".
        rows: for the kernel test.
        seed: for draws of rows and shuffles.

    Raises:
        ValueError: an observed node without a column.

    Example:
        >>> import pandas as pd
        >>> a, b, c = np.random.default_rng(1).normal(size=(3, 300))
        >>> frame = pd.DataFrame({"x": a, "m": a + b, "y": a + b + c})
        >>> print(falsify("x -> m -> y", frame))
        0 of 1 implied independences rejected at 0.05 (Holm)
          The data do not contradict the graph; they cannot confirm it either.
        >>> print(falsify("x -> m; y -> m", frame))
        1 of 1 implied independences rejected at 0.05 (Holm)
          x _||_ y: partial correlation 0.5289, p = 5.02e-23 (300 rows)
    """
    if correction not in ("holm", "bh"):
        raise ValueError(f"correction={correction!r}: there are 'holm' and 'bh'.")
    tests = tuple(
        independence(frame, claim.x[0], claim.y[0], claim.given, test=test, rows=rows, seed=seed)
        for claim in independences(as_graph(graph))
    )
    adjusted = adjust_p([t.p for t in tests], correction)
    return Falsification(tests, tuple(adjusted), alpha, correction)


def adjust_p(p: list[float], correction: str) -> list[float]:
    """P-values corrected for their number.

    Example:
        >>> adjust_p([0.01, 0.04, 0.03], "holm")
        [0.03, 0.06, 0.06]
        >>> adjust_p([0.01, 0.04, 0.03], "bh")
        [0.03, 0.04, 0.04]
    """
    m, order = len(p), np.argsort(p)
    ranked: Any = np.asarray(p, dtype=float)[order]
    if correction == "holm":
        ranked = np.maximum.accumulate(ranked * np.arange(m, 0, -1))
    else:
        ranked = np.minimum.accumulate((ranked * m / np.arange(1, m + 1))[::-1])[::-1]
    out = np.empty(m)
    out[order] = np.minimum(ranked, 1.0)
    return [float(value) for value in out]
