"""The latent space model of a network: nodes that are near one another are likely to be linked.

    z_i ~ N(0, s^2 I),  a ~ N(0, 5^2),  logit p(y_ij = 1 | z, a) = a - |z_i - z_j|

Hoff, Raftery & Handcock 2002, Latent space approaches to social network analysis, eqs 1 and 2, with
no covariates. Distances do not change when all nodes are turned, mirrored or moved together.
"""

import networkx as nx
import torch
from jaxtyping import Float, Int
from pyro import distributions as dist
from torch import Tensor, nn

from pgm.dyads import Dyadic, dyads
from pgm.families import Example
from pgm.verbs.coding import decode, encode

__all__ = ["LatentSpace"]


class LatentSpace(Dyadic):
    """Positions of nodes, from which edges follow by distance; the guide is normal, by coordinate.

    A row is a dyad: the context `pair`, shape (n, 2), and the edge `y`, shape (n,). See
    `pgm.dyads.dyads`.

    Args:
        nodes: how many there are.
        latents: the dimension of a position.
        scale: prior sd of a coordinate, in logits.
        start: positions that training starts from; by default drawn from the prior. `of` takes
            those of multidimensional scaling, from which training seldom ends in a lesser mode.
        seed: of the draw.

    Raises:
        ValueError: fewer than two nodes, no dimension, or a scale that is not positive.

    Example:
        >>> import pgm
        >>> two = nx.disjoint_union(nx.complete_graph(6), nx.complete_graph(6))
        >>> model = LatentSpace.of(two)
        >>> run = pgm.fit(model, dyads(two), steps=300, learning_rate=0.05, seed=0)
        >>> within, across = model.probabilities(torch.tensor([[0, 1], [0, 6]]), seed=0)
        >>> bool(within > 0.6), bool(across < 0.3)
        (True, True)
    """

    def __init__(
        self,
        nodes: int,
        latents: int = 2,
        *,
        scale: float = 2.0,
        start: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(nodes, latents, scale=scale)
        if start is None:
            g = torch.Generator().manual_seed(seed)
            start = scale * torch.randn(nodes, latents, generator=g)
        else:
            self.keeps = "where its nodes started from, which may be the graph's own distances"
        self.location = nn.Parameter(start.clone())
        self.log_scale = nn.Parameter(torch.full((nodes, latents), -1.5))

    @classmethod
    def of(cls, graph: nx.Graph, latents: int = 2, *, scale: float = 2.0) -> "LatentSpace":
        """The model of a graph, whose nodes start as far apart as it takes steps between them."""
        start = scale * _scaled(graph, latents)
        return cls(len(graph), latents, scale=scale, start=start)

    def logits(
        self, z: Float[Tensor, "*draws nodes latents"], pair: Int[Tensor, "n 2"]
    ) -> Float[Tensor, "*draws n"]:
        """-|z_i - z_j|."""
        apart = z[..., pair[..., 0], :] - z[..., pair[..., 1], :]
        return -(apart.square().sum(-1) + _TINY).sqrt()

    def propose(self) -> dist.Independent:
        """A normal a coordinate."""
        return dist.Normal(self.location, self.log_scale.exp()).to_event(2)


def _scaled(graph: nx.Graph, latents: int) -> Tensor:
    """Classical multidimensional scaling of the numbers of steps, brought to unit variance.

    Torgerson 1952; where no path leads, one step more than the longest there is.
    """
    steps = torch.full((len(graph), len(graph)), torch.nan)
    place = {node: i for i, node in enumerate(graph)}
    for a, lengths in nx.all_pairs_shortest_path_length(graph):
        for b, length in lengths.items():
            steps[place[a], place[b]] = length
    steps = steps.nan_to_num(float(steps[~steps.isnan()].max()) + 1)
    squares = -0.5 * steps.square()
    centred = squares - squares.mean(0) - squares.mean(1, keepdim=True) + squares.mean()
    values, vectors = torch.linalg.eigh(centred.double())
    z = vectors[:, -latents:] * values[-latents:].clamp(min=0).sqrt()
    return (z / z.std().clamp(min=1e-9)).float()


_TINY = 1e-12
"""Added to squared distances, whose root has no slope at zero."""

encode.refuse(
    LatentSpace,
    "its latents belong to nodes, and a row is a pair of them. Use model.embedding(), or "
    "pgm.inference.variational or mcmc for their posterior.",
)
decode.refuse(
    LatentSpace,
    "its latents belong to nodes, and a row is a pair of them. Use pgm.sample with "
    "context={'pair': ...}, or model.probabilities(pair).",
)


def example() -> Example:
    """Zachary's karate club (1977): 34 members, 78 friendships."""
    return Example(
        LatentSpace(34),
        dict(dyads(nx.karate_club_graph())),
        fit={"batch_size": 561, "steps": 300, "learning_rate": 0.05, "schedule": "cosine"},
        discrete=True,
    )
