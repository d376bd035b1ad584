"""The record of a choice among mechanisms: held-out log-densities, row by row."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Score:
    """How a mechanism did on rows that it was not estimated from.

    Attributes:
        name: of its class.
        log_prob: held-out log-density of each free row, nats; none where it could not be estimated.
        reason: why not.
    """

    name: str
    log_prob: Float[Tensor, " n"] | None
    reason: str = ""

    @property
    def mean(self) -> float:
        """Nats a row; minus infinity where it could not be estimated."""
        return -torch.inf if self.log_prob is None else float(self.log_prob.mean())


@dataclass(frozen=True, eq=False)
class Selection:
    """The record of a choice; it prints itself as a table.

    Attributes:
        scores: by node, those of all candidates, simplest first.
        chosen: by node, the name of the candidate that was taken.
        folds: the number of parts of the rows.
    """

    scores: Mapping[str, tuple[Score, ...]]
    chosen: Mapping[str, str]
    folds: int

    def gain(self) -> tuple[float, float]:
        """Held-out nats a row over the simplest candidate at every node, and their error.

        Nodes are added up, each with the mean of its own rows.
        """
        parts = [paired(self.taken(node), scores[0]) for node, scores in self.scores.items()]
        return sum(m for m, _ in parts), sum(e**2 for _, e in parts) ** 0.5

    def taken(self, node: str) -> Score:
        """The score of the candidate that was taken."""
        return next(s for s in self.scores[node] if s.name == self.chosen[node])

    def __str__(self) -> str:
        lines = [f"Held-out log-density, nats a row, {self.folds} folds (difference to the best)"]
        width = max(len(s.name) for scores in self.scores.values() for s in scores)
        for node, scores in self.scores.items():
            best = max(scores, key=lambda s: s.mean)
            for score in scores:
                mark = "*" if score.name == self.chosen[node] else " "
                head = f"  {node if score is scores[0] else '':<12} {mark} {score.name:<{width}}"
                if score.log_prob is None:
                    lines.append(f"{head}  not estimated: {score.reason}")
                    continue
                m, e = paired(score, best)
                lines.append(f"{head}  {score.mean:9.3f}  ({m:.3f} ± {e:.3f})")
        m, e = self.gain()
        lines.append(f"  against the simplest at every node: {m:+.3f} ± {e:.3f} nats a row")
        return "\n".join(lines)


def paired(score: Score, other: Score) -> tuple[float, float]:
    """The mean difference of two candidates over the same rows, and its standard error."""
    if score.log_prob is None or other.log_prob is None:
        return torch.nan, torch.nan
    difference = score.log_prob - other.log_prob
    return float(difference.mean()), float(difference.std()) / len(difference) ** 0.5
