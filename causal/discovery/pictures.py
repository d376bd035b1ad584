"""Pictures of posteriors of graphs: the probability of every arrow as a matrix."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causal.discovery.posterior import GraphPosterior


def draw_edges(posterior: "GraphPosterior", *, ax: Any = None) -> Any:
    """Draws causes down, effects across, and probabilities from white to black.

    Args:
        posterior: of graphs.
        ax: matplotlib axes; new ones by default.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(layout="constrained")[1]
    names = list(posterior.names)
    picture = ax.imshow(posterior.edges.numpy(), cmap="Greys", vmin=0, vmax=1)
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("effect")
    ax.set_ylabel("cause")
    ax.figure.colorbar(picture, ax=ax, label="probability of the arrow")
    return ax
