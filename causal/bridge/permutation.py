"""Is a graph better than one with its names shuffled? The test of Eulig et al. (2023).

A graph is rejected only if it violates as many of its local Markov conditions in the data as graphs
with permuted nodes do, and if such a comparison can tell at all: if few permutations imply the same
independences. DoWhy's `falsify_graph`, with tests of ours. `causal.falsify` says which implied
independences fail.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causal.assess.dependence import independence
from causal.bridge.late import dowhy
from causal.bridge.refuters import numpy_seeded
from causal.graph import GraphLike, as_graph, latents
from pgm.randomness import fresh_seed
from pgm.schema.columns import listing

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Permutation:
    """A graph against graphs with its names shuffled.

    Attributes:
        violations: of its local Markov conditions in the data.
        tests: how many conditions there are.
        p: the share of permuted graphs that violate no larger share.
        p_informative: the share of permuted graphs that imply the same independences; where it is
            large, no data could tell.
        alpha: the level of both.
    """

    violations: int
    tests: int
    p: float
    p_informative: float
    alpha: float

    @property
    def informative(self) -> bool:
        """Whether the comparison can tell."""
        return self.p_informative <= self.alpha

    @property
    def rejected(self) -> bool:
        """Whether the graph is no better than chance, where that can be told."""
        return self.informative and self.p > self.alpha

    def __str__(self) -> str:
        if not self.tests:
            return "The graph has no local Markov condition to test."
        verdict = "REJECTED" if self.rejected else "not rejected"
        can = "" if self.informative else "; the comparison cannot tell, as too many imply the same"
        return (
            f"{self.violations} of {self.tests} local Markov conditions violated; "
            f"{self.p:.0%} of graphs with shuffled names do no worse: {verdict}{can}"
        )


def falsify_by_permutation(
    graph: GraphLike,
    frame: "pandas.DataFrame",
    *,
    permutations: int = 100,
    test: str | None = None,
    alpha: float = 0.05,
    rows: int = 300,
    seed: int | None = None,
) -> Permutation:
    """Compares a graph's violations with those of graphs with permuted names.

    Args:
        graph: without latent nodes, which DoWhy's test does not know.
        frame: the data, with a column for each node; it is not changed.
        permutations: how many graphs.
        test: as in `causal.assess.independence`.
        alpha: the level.
        rows: for the kernel test.
        seed: of the permutations.

    Raises:
        ValueError: latent nodes, or a node without a column.
    """
    config, falsify = dowhy("gcm.config"), dowhy("gcm.falsify")
    full = as_graph(graph)
    if hidden := latents(full):
        raise ValueError(
            f"{listing(hidden)} was not observed, and this test is for graphs without latent "
            "nodes: it would take their absence for a violation. Use causal.falsify."
        )
    absent = [node for node in full if node not in frame]
    if absent:
        raise ValueError(f"The frame has no column {listing(absent)}; every node needs one.")
    ours, bars = _test(test, rows), config.show_progress_bars
    try:
        config.show_progress_bars = False
        with numpy_seeded(fresh_seed() if seed is None else seed):
            found = falsify.falsify_graph(
                full,
                frame[list(full)].copy(),
                independence_test=ours,
                conditional_independence_test=ours,
                significance_level=alpha,
                n_permutations=permutations,
                n_jobs=1,
                allow_data_subset=False,
            ).summary
    finally:
        config.show_progress_bars = bars
    key = falsify.FalsifyConst
    local, same = found[key.VALIDATE_LMC], found[key.VALIDATE_TPA]
    numbers = (int(local[key.GIVEN_VIOLATIONS]), int(local[key.N_TESTS]))
    return Permutation(*numbers, float(local[key.P_VALUE]), float(same[key.P_VALUE]), alpha)


def _test(test: str | None, rows: int) -> Callable[..., float]:
    """A test of ours on gcm's arrays."""
    import pandas as pd

    def p(x: Any, y: Any, z: Any = None) -> float:
        parts = [np.asarray(v).reshape(len(x), -1) for v in (x, y, z) if v is not None]
        arrays = [column for part in parts for column in part.T]
        frame = pd.DataFrame(dict(enumerate(arrays))).infer_objects()
        frame.columns = [f"c{i}" for i in range(len(arrays))]
        names = [str(name) for name in frame]
        return independence(frame, names[0], names[1], names[2:], test=test, rows=rows).p

    return p
