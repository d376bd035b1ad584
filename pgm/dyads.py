"""Networks as data: a row is a dyad, a pair of nodes, and its site says whether there is an edge.

The nodes' positions z are latents that all dyads share, so that minibatches are draws of dyads,
dyads that were never looked at are rows that are left out, and privacy is that of a dyad.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import pyro
import torch
from jaxtyping import Float, Int
from pyro import distributions as dist
from torch import Tensor, nn

from pgm.batch import Batch
from pgm.model import Model, rows
from pgm.noise.form import require
from pgm.randomness import seeded
from pgm.sites import Run

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

INTERCEPT_SCALE = 5.0
"""Prior sd of the intercept, in logits: vague."""


def dyads(graph: nx.Graph) -> Batch:
    """Every pair of nodes once, and whether there is an edge between them.

    Args:
        graph: undirected; weights are not read.

    Returns:
        `pair`, shape (n, 2), the places of two nodes in `list(graph)`; `y`, shape (n,), 0 or 1.

    Raises:
        ValueError: a directed graph or one of fewer than two nodes, loops, or parallel edges.

    Example:
        >>> dyads(nx.path_graph(3))
        Batch(pair (3, 2), y (3,))
    """
    _check_graph(graph)
    first, second = torch.triu_indices(len(graph), len(graph), offset=1)
    y = torch.zeros(len(graph), len(graph), dtype=torch.bool)
    place = {node: i for i, node in enumerate(graph)}
    for a, b in graph.edges:
        y[place[a], place[b]] = y[place[b], place[a]] = True
    y = y[first, second]
    return Batch(pair=torch.stack([first, second], -1), y=y.to(torch.get_default_dtype()))


def hold_out(
    graph: nx.Graph, fraction: float = 0.1, *, seed: int = 0
) -> tuple[nx.Graph, Batch, Batch]:
    """Parts the dyads: some edges, and as many pairs without one, are set aside as a test.

    Args:
        graph: as in `dyads`.
        fraction: of the edges.
        seed: of the choice.

    Returns:
        The graph without the edges set aside, the dyads to train on, and those set aside.

    Raises:
        ValueError: a fraction that sets aside no edge, or all of them.
    """
    batch = dyads(graph)
    edges, none = (batch["y"] == 1).nonzero()[:, 0], (batch["y"] == 0).nonzero()[:, 0]
    k = round(fraction * len(edges))
    if not 0 < k < len(edges) or k > len(none):
        raise ValueError(
            f"A fraction {fraction} of {len(edges)} edges is {k}, with {len(none)} pairs without "
            "an edge to set beside them: a test needs some of both, and training the rest."
        )
    g = torch.Generator().manual_seed(seed)
    aside = torch.cat([each[torch.randperm(len(each), generator=g)[:k]] for each in (edges, none)])
    kept = torch.ones(len(batch["y"]), dtype=torch.bool)
    kept[aside] = False
    names: list[Any] = list(graph)
    rest: nx.Graph[Any] = nx.Graph(graph)
    rest.remove_edges_from([(names[i], names[j]) for i, j in batch["pair"][aside[:k]].tolist()])
    train, test = ({key: x[i] for key, x in batch.items()} for i in (kept, aside))
    return rest, Batch(train), Batch(test)


class Dyadic(Model):
    """Edges given the positions of their nodes; subclass it and write `logits` and `propose`.

    Args:
        nodes: how many there are.
        latents: the dimension of a position.
        scale: prior sd of a coordinate.

    Raises:
        ValueError: fewer than two nodes, no dimension, or a scale that is not positive.
    """

    turns_only = False
    """Whether `logits` knows an origin, so that it stays the same under turns and mirrors alone."""

    def __init__(self, nodes: int, latents: int = 2, *, scale: float = 1.0) -> None:
        super().__init__()
        if nodes < 2 or latents < 1 or scale <= 0:
            raise ValueError(
                f"nodes is {nodes}, latents {latents} and scale {scale}: a network has two nodes "
                "or more, a position one coordinate or more, and its prior sd is above zero."
            )
        self.nodes, self.latents, self.scale = nodes, latents, scale
        self.intercept_location = nn.Parameter(torch.zeros(()))
        self.intercept_log_scale = nn.Parameter(torch.tensor(-2.0))

    def logits(
        self, z: Float[Tensor, "*draws nodes latents"], pair: Int[Tensor, "n 2"]
    ) -> Float[Tensor, "*draws n"]:
        """The log odds of an edge between the two nodes of each pair, but for the intercept."""
        raise NotImplementedError(f"{type(self).__name__} has no logits(z, pair): write it.")

    def propose(self) -> Any:
        """The guide's distribution of z, of event shape (nodes, latents)."""
        raise NotImplementedError(f"{type(self).__name__} has no propose(): write it.")

    def model(self, n: int, pair: Int[Tensor, "n 2"]) -> None:
        """Positions and intercept, shared; an edge or none, a dyad."""
        zero = self.intercept_location.new_zeros(())
        prior = dist.Normal(zero, self.scale).expand([self.nodes, self.latents]).to_event(2)
        z = pyro.sample("z", prior)
        intercept = pyro.sample("intercept", dist.Normal(zero, INTERCEPT_SCALE))
        logits = intercept.unsqueeze(-1) + self.logits(z, _inside(pair, self.nodes))
        with rows(n):
            pyro.sample("y", dist.Bernoulli(logits=logits))

    def guide(self, n: int) -> None:
        """The posterior of positions and intercept."""
        pyro.sample("z", self.propose())
        scale = self.intercept_log_scale.exp()
        pyro.sample("intercept", dist.Normal(self.intercept_location, scale))

    def probabilities(
        self, pair: Int[Tensor, "n 2"], *, particles: int = 200, seed: int | None = None
    ) -> Float[Tensor, " n"]:
        """The probability of an edge between each pair, averaged over the guide.

        Args:
            pair: places of two nodes each.
            particles: draws of the positions.
            seed: of the draws.

        Raises:
            ValueError: a place outside the nodes, or a node with itself.
        """
        if bool((pair[..., 0] == pair[..., 1]).any()):
            raise ValueError("A node was paired with itself; a dyad is two different nodes.")
        pair = _inside(pair, self.nodes)
        with torch.no_grad(), seeded(seed):
            each = [self._drawn() for _ in range(particles)]
            made = [torch.sigmoid(b + self.logits(z, pair)) for z, b in each]
        return torch.stack(made).mean(0)

    def embedding(self, *, particles: int = 200, seed: int | None = None) -> "Embedding":
        """Where the nodes are, and how surely: draws of the guide, turned onto its mean."""
        with torch.no_grad(), seeded(seed):
            z = torch.stack([self._drawn()[0] for _ in range(particles)])
        turned = align(z, z.mean(0), moves=not self.turns_only)
        return Embedding(turned.mean(0), turned.std(0))

    def _drawn(self) -> tuple[Tensor, Tensor]:
        with Run() as run:
            self.guide(1)
        return run.sites["z"].value, run.sites["intercept"].value


@dataclass(frozen=True, eq=False)
class Embedding:
    """Positions of nodes, in the order of the graph.

    Attributes:
        mean: shape (nodes, latents).
        sd: the posterior standard deviations, of the same shape.
    """

    mean: Float[Tensor, "nodes latents"]
    sd: Float[Tensor, "nodes latents"]

    def frame(self, graph: nx.Graph) -> "pandas.DataFrame":
        """A row a node, by its name: `z_0`, ..., `sd_0`, ..."""
        import pandas as pd

        both = {"z": self.mean, "sd": self.sd}
        columns = {f"{k}_{j}": x[:, j].tolist() for k, x in both.items() for j in range(x.shape[1])}
        return pd.DataFrame(columns, index=pd.Index(list(graph), name="node"))

    def plot(self, graph: nx.Graph, ax: "Axes | None" = None, *, colour: Any = None) -> "Axes":
        """The first two coordinates with their edges; an ellipse is one standard deviation."""
        import matplotlib.pyplot as plt
        from matplotlib.patches import Ellipse

        if self.mean.shape[1] < 2:
            raise ValueError("The positions have one coordinate; the plot shows two.")
        ax = plt.subplots()[1] if ax is None else ax
        at = dict(zip(graph, self.mean[:, :2].tolist(), strict=True))
        nx.draw_networkx_edges(graph, at, ax=ax, alpha=0.2)
        for (x, y), (width, height) in zip(at.values(), self.sd[:, :2].tolist(), strict=True):
            ax.add_patch(Ellipse((x, y), 2 * width, 2 * height, alpha=0.15))
        nx.draw_networkx_nodes(graph, at, ax=ax, node_size=40, node_color=colour)
        nx.draw_networkx_labels(graph, at, ax=ax, font_size=6, verticalalignment="bottom")
        ax.set(xlabel="z_0", ylabel="z_1")
        ax.tick_params(left=True, bottom=True, labelleft=True, labelbottom=True)
        return ax

    def __str__(self) -> str:
        nodes, latents = self.mean.shape
        return (
            f"Embedding of {nodes} nodes in {latents} dimensions: root mean square "
            f"{float(self.mean.square().mean().sqrt()):.2f}, mean posterior sd "
            f"{float(self.sd.mean()):.2f}"
        )


def align(
    z: Float[Tensor, "draws nodes latents"],
    to: Float[Tensor, "nodes latents"],
    *,
    moves: bool = True,
) -> Float[Tensor, "draws nodes latents"]:
    """Turns, mirrors and moves each draw onto `to`, since the density cannot tell them apart.

    The orthogonal Procrustes problem (Schönemann 1966): Q = U V' of the singular value
    decomposition of z' to. Draws are compared by Hoff, Raftery & Handcock (2002, sec. 3.2) so.

    Args:
        z: positions of all nodes, by draw.
        to: where they are turned to.
        moves: whether a shift of all nodes leaves the density as it is, too.

    Example:
        >>> z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> turned = z @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]]) + 3.0
        >>> align(turned[None], z)[0].round(decimals=4).abs()
        tensor([[0., 0.],
                [1., 0.],
                [0., 2.]])
    """
    centre = to.mean(0) if moves else torch.zeros_like(to[0])
    here = z - z.mean(1, keepdim=True) if moves else z
    u, _, vh = torch.linalg.svd(here.mT @ (to - centre))
    return here @ (u @ vh) + centre


def _inside(pair: Tensor, nodes: int) -> Tensor:
    """Pairs of nodes that there are.

    Raises:
        ValueError: a place outside the nodes.
    """
    inside = ((pair >= 0) & (pair < nodes)).all(-1)
    require(inside, pair, f"The places of a pair are at least 0 and below {nodes}, the nodes.")
    return pair


def _check_graph(graph: nx.Graph) -> None:
    if graph.is_directed() or graph.is_multigraph():
        raise ValueError(
            "The graph is directed or has parallel edges, and a dyad here has one edge or none. "
            "Pass nx.Graph(graph), which forgets direction and number."
        )
    loops = list(nx.selfloop_edges(graph))
    if loops or len(graph) < 2:
        raise ValueError(
            f"The graph has {len(graph)} nodes and loops at {[a for a, _ in loops]}: a dyad is two "
            "different nodes. Remove the loops, graph.remove_edges_from(nx.selfloop_edges(graph))."
        )
