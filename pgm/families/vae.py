"""The variational autoencoder: a deep latent variable model with an amortised posterior.

    z ~ N(0, I),    x | z ~ p(x; decoder(z)),    q(z | x) = N(mu(x), diag sigma(x)^2)

(Kingma & Welling 2014, "Auto-encoding variational Bayes"; Rezende et al. 2014). Everything else,
the bound, importance-weighted densities, imputation, is asked of these two programs. Missing cells
reach the encoder as zeros, which leaves every weight right (Mattei & Frellsen 2019, "MIWAE").
"""

from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pgm.data import load
from pgm.families import Example
from pgm.model import Model, rows
from pgm.nets import Activation, mlp

__all__ = ["VAE", "example"]

Likelihood = Literal["bernoulli", "gaussian", "categorical"]
"""The distribution of a cell given the code."""

_MIN_LOG_SCALE = -6.0


class VAE(Model):
    """A variational autoencoder of flat rows (Kingma & Welling 2014).

    Args:
        features: d, the cells of a row.
        latents: k, the size of the code.
        hidden: sizes of the hidden layers of the encoder; the decoder has them reversed.
        likelihood: "bernoulli" for 0 and 1, "gaussian" with a learned noise for each feature,
            "categorical" for whole numbers 0 .. levels - 1.
        levels: of the categorical likelihood.
        activation: nonlinearity of both networks.
        dropout: share of hidden units silenced in training.

    Raises:
        ValueError: a size below 1, an unknown likelihood, or levels that do not fit it.

    Example:
        >>> import pgm
        >>> model = VAE(784, latents=20, hidden=(400,))
        >>> x = torch.zeros(2, 784)
        >>> pgm.log_prob(model, x, particles=10, seed=0).kind
        'bound'
        >>> pgm.encode(model, x)["z"].shape, pgm.sample(model, 3, seed=0)["x"].shape
        (torch.Size([2, 20]), torch.Size([3, 784]))
    """

    def __init__(
        self,
        features: int,
        *,
        latents: int,
        hidden: tuple[int, ...] = (400,),
        likelihood: Likelihood = "bernoulli",
        levels: int | None = None,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(features, latents, likelihood, levels)
        self.likelihood, self.levels, self.latents = likelihood, levels or 2, latents
        outputs = features * self.levels if likelihood == "categorical" else features
        options: dict[str, Any] = {"activation": activation, "dropout": dropout}
        self.encoder = mlp(features, hidden, 2 * latents, **options)
        self.decoder = mlp(latents, hidden[::-1], outputs, **options)
        if likelihood == "gaussian":
            self.log_noise = nn.Parameter(torch.zeros(features))

    def model(self, n: int) -> None:
        """z ~ N(0, I), x ~ p(x; decoder(z))."""
        zero = torch.zeros(n, self.latents, device=self.device, dtype=self.dtype)
        with rows(n):
            z = pyro.sample("z", dist.Normal(zero, torch.ones_like(zero)).to_event(1))
            pyro.sample("x", self.cells(z))

    def guide(
        self,
        n: int,
        x: Shaped[Tensor, "n d"],
        x_seen: Bool[Tensor, "n d"] | None = None,
    ) -> None:
        """q(z | x) = N(mu(x), diag sigma(x)^2); missing cells are zeros."""
        scaled = x / (self.levels - 1) if self.likelihood == "categorical" else x
        mu, log_sigma = self.encoder(scaled.to(self.dtype)).chunk(2, -1)
        with rows(n):
            pyro.sample("z", dist.Normal(mu, log_sigma.exp()).to_event(1))

    def cells(self, z: Float[Tensor, "*n k"]) -> Any:
        """The distribution of a row given its code; event shape (d,)."""
        out = self.decoder(z)
        if self.likelihood == "bernoulli":
            return BlackAndWhite(dist.Bernoulli(logits=out), 1)
        if self.likelihood == "categorical":
            return dist.Categorical(logits=out.unflatten(-1, (-1, self.levels))).to_event(1)
        return dist.Normal(out, self.log_noise.clamp(min=_MIN_LOG_SCALE).exp()).to_event(1)


class BlackAndWhite(dist.Independent):
    """Independent Bernoulli cells, whose log densities are summed before their sign is turned.

    The same numbers as `Bernoulli(...).to_event(1)`, for one pass over all cells less.

    Example:
        >>> BlackAndWhite(dist.Bernoulli(logits=torch.zeros(2)), 1).log_prob(torch.ones(2))
        tensor(-1.3863)
    """

    def log_prob(self, x: Shaped[Tensor, "*n d"]) -> Float[Tensor, "*batch"]:
        """log p(x) = -sum_i of the cross entropies, in nats."""
        if self.base_dist._validate_args:
            self.base_dist._validate_sample(x)
        logits, x = torch.broadcast_tensors(self.base_dist.logits, x)
        return -binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


def _check(features: int, latents: int, likelihood: str, levels: int | None) -> None:
    if features < 1 or latents < 1:
        raise ValueError(f"features is {features} and latents {latents}; both count from 1.")
    if likelihood not in ("bernoulli", "gaussian", "categorical"):
        raise ValueError(
            f"There is no likelihood {likelihood!r}: use 'bernoulli' for 0 and 1, 'gaussian' for "
            "real numbers, 'categorical' with levels= for whole numbers."
        )
    if (likelihood == "categorical") != (levels is not None) or (levels or 2) < 2:
        raise ValueError(
            f"levels is {levels} with a {likelihood} likelihood; levels, at least 2, belong to "
            "likelihood='categorical'."
        )


def example() -> Example:
    """Two moons with a Gaussian likelihood."""
    model = VAE(2, latents=2, hidden=(32,), likelihood="gaussian", activation="silu")
    x = load("two_moons", n=500, seed=0).x
    return Example(model, x, {"steps": 400, "learning_rate": 0.005})
