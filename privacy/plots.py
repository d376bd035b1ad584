"""Pictures of what privacy costs; every function takes a matplotlib `ax`, draws, and returns it."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def utility(
    scores: Mapping[float, Sequence[float]],
    *,
    references: Mapping[str, float] | None = None,
    label: str = "utility",
    ax: "Axes | None" = None,
) -> Any:
    """Draws utility against epsilon, on a logarithmic axis: each repeat, and the mean of them.

    Repeats differ by their noise, and a single one says little. The band is the 95 % interval of
    the mean over repeats (Student's t); a single repeat has none. Scores of private models that
    were computed from the private rows are as secret as these.

    Args:
        scores: the scores of all repeats, by epsilon.
        references: scores to compare with, by name, such as that of a fit without privacy.
        label: what the scores are, with their unit.
        ax: where to draw; by default a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: no score, an epsilon that is not positive, or a score that is no number.

    Example:
        >>> ax = utility({0.5: [0.71, 0.74], 2.0: [0.80, 0.81]}, references={"open": 0.85})
        >>> ax.get_xscale(), [text.get_text() for text in ax.get_legend().get_texts()]
        ('log', ['mean of 2 repeats', 'open'])
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    from pgm.plots import ACCENT, INK

    epsilons = _checked(scores)
    means = np.array([np.mean(scores[e]) for e in epsilons])
    half = np.array([_half_width(scores[e]) for e in epsilons])
    repeats = sorted({len(scores[e]) for e in epsilons})
    ax = ax or plt.subplots()[1]
    for e in epsilons:
        ax.plot([e] * len(scores[e]), scores[e], "o", color=INK, alpha=0.35, markersize=4)
    name = f"mean of {' to '.join(map(str, {repeats[0]: 0, repeats[-1]: 0}))} repeats"
    ax.plot(epsilons, means, color=INK, label=name)
    ax.fill_between(epsilons, means - half, means + half, color=INK, alpha=0.12, linewidth=0)
    for style, (name, score) in zip(
        ("--", ":", "-.") * 9, (references or {}).items(), strict=False
    ):
        ax.axhline(score, linestyle=style, color=ACCENT, label=name)
    ax.set_xscale("log")
    ax.set_xticks(epsilons, [f"{e:g}" for e in epsilons])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="epsilon", ylabel=label)
    ax.legend(frameon=False)
    return ax


def _checked(scores: Mapping[float, Sequence[float]]) -> list[float]:
    """The epsilons, sorted."""
    if not scores or not all(len(each) for each in scores.values()):
        raise ValueError(
            "There is nothing to draw: pass the scores of one or more repeats for each epsilon, "
            "such as {1.0: [0.81, 0.79, 0.83]}."
        )
    for epsilon, each in scores.items():
        if not (0 < epsilon < math.inf):
            raise ValueError(
                f"An epsilon is {epsilon}; on the logarithmic axis it is positive and finite. The "
                "score without privacy is a reference: references={'open': score}."
            )
        if not np.isfinite(each).all():
            raise ValueError(f"The scores at epsilon {epsilon:g} are {list(each)}: not all finite.")
    return sorted(scores)


def _half_width(each: Sequence[float]) -> float:
    """Of the 95 % interval of the mean; 0 for a single repeat."""
    from scipy.stats import t

    n = len(each)
    return float(t.ppf(0.975, n - 1) * np.std(each, ddof=1) / math.sqrt(n)) if n > 1 else 0.0
