"""The tour's chapter on interventions: Sachs' cells (Sachs et al. 2005), before and after."""

from collections.abc import Iterator

import matplotlib.pyplot as plt

import pgm
import pgm.data
from causal import SCM, Effect, draw_graph, draw_outcome, effect, estimate
from pgm.report import Chapter, Picture, Table, code, picture


def chapters(effort: float) -> Iterator[Chapter]:
    """The effect of activating PKA on Akt; its tables have a closed form, whatever the effort."""
    scm, found = interventions()
    yield Chapter(
        "An intervention",
        "5400 human T cells, eleven signalling proteins, and the causal graph that was published "
        "for them: what becomes of Akt when PKA is set to high? The tables are fitted in closed "
        "form; pgm.fit comes to the same by steps.",
        code(interventions),
        [_graphs(scm), _outcome(found), _differences(found)],
    )


def interventions() -> tuple[SCM, Effect]:
    """Fits tables to the published graph and asks for an effect with its interval."""
    data = pgm.data.load("sachs")
    schema = pgm.Schema.infer(data.frame, site=None)
    cells = schema.encode(data.frame) | {"clamped": data.clamped}
    scm = SCM(data.graph("published"), schema=schema)
    estimate(scm, cells)
    found = effect(scm, "Akt", do={"PKA": "high"}, data=cells, seed=0)
    return scm, found


def _graphs(scm: SCM) -> Picture:
    figure, (before, after) = plt.subplots(1, 2, figsize=(9.0, 4.4), layout="constrained")
    draw_graph(scm.graph, ax=before)
    draw_graph(scm.graph, do=["PKA"], ax=after)
    before.set_title("left alone", fontsize=10)
    after.set_title("PKA is set", fontsize=10)
    return picture(
        figure,
        "Setting PKA severs the arrows into it (dashed) and leaves all other mechanisms alone. The "
        "graph is the one that the paper reports; the answer is no better than the graph.",
    )


def _outcome(found: Effect) -> Picture:
    figure, ax = plt.subplots(figsize=(4.6, 2.4), layout="constrained")
    draw_outcome(found, ax=ax)
    ax.spines[["top", "right"]].set_visible(False)
    return picture(figure, "The level of Akt in cells left alone, and with PKA set to high.")


def _differences(found: Effect) -> Table:
    columns = (found.control, found.treated, found.difference, found.lower, found.upper)
    rows = [
        [str(level), *(f"{float(column[i]):.3f}" for column in columns)]
        for i, level in enumerate(found.levels)
    ]
    ends = [f"{(1 + sign * found.confidence) / 2:.1%}" for sign in (-1, 1)]
    return Table(
        ["Akt", "left alone", "PKA high", "difference", *ends],
        rows,
        f"Probabilities of each level. Interval of the difference: {found.source}.",
    )
