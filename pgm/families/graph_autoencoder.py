"""The variational graph autoencoder: positions of nodes, proposed by a graph convolution.

    z_i ~ N(0, I),  logit p(y_ij = 1 | z) = a + z_i' z_j,
    q(z_i) = N(mu_i, sigma_i^2),  mu = S H V,  log sigma = S H W,  H = relu(S X U),
    S = D^(-1/2) (A + I) D^(-1/2)

Kipf & Welling 2016, Variational graph auto-encoders, sec. 1. The intercept a is ours: the published
decoder gives two unrelated nodes an even chance of an edge, and its loss is weighed by the share of
edges to make up for it, after which it bounds nothing. This one is the evidence bound.
"""

import networkx as nx
import torch
from jaxtyping import Float, Int
from pyro import distributions as dist
from torch import Tensor, nn

from pgm.dyads import Dyadic, dyads
from pgm.families import Example
from pgm.verbs.coding import decode, encode

__all__ = ["GraphAutoencoder"]


class GraphAutoencoder(Dyadic):
    """Positions of nodes, from which edges follow by inner products.

    A row is a dyad, as in `pgm.dyads.dyads`. The encoder keeps the edges that it looks at, those of
    the graph to train on: edges that are held out must not be among them (`pgm.dyads.hold_out`).

    Args:
        edges: places of two nodes each, every edge once.
        nodes: how many there are.
        latents: the dimension of a position.
        hidden: the width of the first convolution.
        features: what is known of each node, shape (nodes, k); by default nodes are told apart and
            no more.
        seed: of the weights.

    Raises:
        ValueError: edges that are no pairs of nodes, or features of another number of nodes.

    Example:
        >>> import pgm
        >>> graph = nx.karate_club_graph()
        >>> model = GraphAutoencoder.of(graph)
        >>> run = pgm.fit(model, dyads(graph), steps=100, batch_size=561, seed=0)
        >>> model.embedding(particles=10, seed=0).mean.shape
        torch.Size([34, 2])
    """

    turns_only = True
    keeps = "the edges of the graph that its encoder looks at"

    def __init__(
        self,
        edges: list[list[int]],
        nodes: int,
        latents: int = 2,
        *,
        hidden: int = 32,
        features: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(nodes, latents)
        x = torch.eye(nodes) if features is None else features.float()
        if x.dim() != 2 or len(x) != nodes:
            raise ValueError(
                f"features has shape {tuple(x.shape)}; it has a row for each of the {nodes} nodes."
            )
        self.register_buffer("x", x)
        self.register_buffer("spread", _normalised(edges, nodes))
        g = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(_glorot(x.shape[1], hidden, g))
        self.to_mu = nn.Parameter(_glorot(hidden, latents, g))
        self.to_log_sigma = nn.Parameter(_glorot(hidden, latents, g))

    @classmethod
    def of(
        cls, graph: nx.Graph, latents: int = 2, *, hidden: int = 32, seed: int = 0
    ) -> "GraphAutoencoder":
        """The model of a graph, whose edges its encoder looks at."""
        batch = dyads(graph)
        edges = batch["pair"][batch["y"] == 1].tolist()
        return cls(edges, len(graph), latents, hidden=hidden, seed=seed)

    def logits(
        self, z: Float[Tensor, "*draws nodes latents"], pair: Int[Tensor, "n 2"]
    ) -> Float[Tensor, "*draws n"]:
        """z_i' z_j."""
        return (z[..., pair[..., 0], :] * z[..., pair[..., 1], :]).sum(-1)

    def propose(self) -> dist.Independent:
        """Two graph convolutions."""
        h = torch.relu(self.spread @ self.x @ self.first)
        mu, log_sigma = self.spread @ h @ self.to_mu, self.spread @ h @ self.to_log_sigma
        return dist.Normal(mu, log_sigma.exp()).to_event(2)


def _normalised(edges: list[list[int]], nodes: int) -> Float[Tensor, "nodes nodes"]:
    """S = D^(-1/2) (A + I) D^(-1/2)."""
    a = torch.eye(nodes)
    for i, j in edges:
        if not (0 <= i < nodes and 0 <= j < nodes and i != j):
            raise ValueError(
                f"The edge ({i}, {j}) is no pair of two different places below {nodes}. Places "
                "count the nodes in the order of the graph; GraphAutoencoder.of(graph) does it."
            )
        a[i, j] = a[j, i] = 1.0
    root = a.sum(1).rsqrt()
    return root[:, None] * a * root


def _glorot(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Uniform weights that keep the scale of what goes in (Glorot & Bengio 2010, eq. 16)."""
    bound = (6 / (rows + columns)) ** 0.5
    return bound * (2 * torch.rand(rows, columns, generator=generator) - 1)


encode.refuse(
    GraphAutoencoder,
    "its latents belong to nodes, and a row is a pair of them. Use model.embedding(), or "
    "pgm.inference.variational for their posterior.",
)
decode.refuse(
    GraphAutoencoder,
    "its latents belong to nodes, and a row is a pair of them. Use pgm.sample with "
    "context={'pair': ...}, or model.probabilities(pair).",
)


def example() -> Example:
    """Zachary's karate club (1977): 34 members, 78 friendships."""
    graph = nx.karate_club_graph()
    return Example(
        GraphAutoencoder.of(graph),
        dict(dyads(graph)),
        fit={"batch_size": 561, "steps": 300, "learning_rate": 0.02, "schedule": "cosine"},
        discrete=True,
    )
