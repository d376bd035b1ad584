"""The guide of an SCM's latent nodes, q(latents | what was seen of a row).

Where the unseen nodes and their children are linear-Gaussian it is the exact posterior under the
current parameters, node by node: its weights are all p(x), and nothing is to be trained. Elsewhere
it is a diagonal normal whose moments a network reads off the row (Kingma & Welling 2014), seen
cells and which they are. Latent nodes with levels are summed out, and not proposed.
"""

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro.distributions import Normal
from torch import Tensor, nn

from causal.latent.marginal import entangled, integrate
from causal.mechanisms import Kind
from causal.mechanisms.additive import bounded_exp
from causal.mechanisms.predictor import columns
from causal.structural import Structural
from pgm.batch import SEEN
from pgm.nets import mlp
from pgm.randomness import seeded


class Encoder(nn.Module):
    """The moments of the latent nodes given a row: N(m(x), s(x)^2) for each number.

    Args:
        inputs: the kind of each observed node.
        latents: the kind of each latent node.
        hidden: sizes of the hidden layers.

    Example:
        >>> encode = Encoder({"X": Kind(), "Y": Kind()}, {"U": Kind()})
        >>> laws = encode(2, {"X": torch.zeros(2), "Y": torch.zeros(2)})
        >>> laws["U"].batch_shape
        torch.Size([2])
    """

    def __init__(
        self,
        inputs: Mapping[str, Kind],
        latents: Mapping[str, Kind],
        *,
        hidden: tuple[int, ...] = (64, 64),
    ) -> None:
        super().__init__()
        self.inputs, self.latents = dict(inputs), dict(latents)
        widths = [kind.width for kind in self.latents.values()]
        with seeded(0):
            features = sum(kind.width + 1 for kind in self.inputs.values())
            self.net = mlp(features, hidden, 2 * sum(widths), activation="silu")
        self.widths = widths

    def forward(self, n: int, given: Mapping[str, Tensor]) -> dict[str, Any]:
        """The law of each latent node for each of n rows."""
        like = next(self.net.parameters())
        parts = [self._features(name, kind, n, given, like) for name, kind in self.inputs.items()]
        m, eta = self.net(torch.cat(parts, -1)).chunk(2, -1)
        laws = {}
        for (name, kind), loc, free in zip(
            self.latents.items(), m.split(self.widths, -1), eta.split(self.widths, -1), strict=True
        ):
            s = bounded_exp(free)
            laws[name] = (
                Normal(loc[..., 0], s[..., 0]) if kind.is_number else Normal(loc, s).to_event(1)
            )
        return laws

    def _features(
        self, name: str, kind: Kind, n: int, given: Mapping[str, Tensor], like: Tensor
    ) -> Float[Tensor, "n k"]:
        if name not in given:
            return like.new_zeros(n, kind.width + 1)
        seen = given.get(name + SEEN, torch.ones(n, dtype=torch.bool, device=like.device))
        whole = seen.reshape(n, -1).all(-1, keepdim=True).to(like.dtype)
        return torch.cat([columns({name: kind}, given, like.dtype) * whole, whole], -1)


def propose(
    model: Structural,
    latents: list[str],
    encoder: nn.Module | None,
    n: int,
    given: Mapping[str, Tensor],
) -> None:
    """Samples the latent nodes by the encoder, or without one from their exact posterior."""
    if encoder is not None:
        for name, fn in encoder(n, given).items():
            pyro.sample(name, fn)
        return
    hidden = [v for v in model.nodes if v not in given or v + SEEN in given]
    nodes = entangled(model, hidden) or entangled(model, latents)
    assert nodes is not None
    found = integrate(model, given, nodes, n)
    mean = found.mean[:, [nodes.index(name) for name in latents]]
    L = torch.linalg.cholesky(found.covariance(latents))
    u: list[Tensor] = []
    for i, name in enumerate(latents):
        loc, scale = mean[:, i], L[:, i, i]
        for j, before in enumerate(u):
            loc = loc + L[:, i, j] * before
        x = pyro.sample(name, Normal(loc.to(model.dtype), scale.to(model.dtype)))
        u.append((x - loc) / scale)
