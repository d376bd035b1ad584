"""Generative adversarial network: a generator that a critic cannot tell from the data.

z ~ N(0, 1), x = G(z). The critic D(x) is the log odds that x is data; the generator raises the
critic's odds of its own rows (Goodfellow et al. 2014, the non-saturating game of Sec. 3). At the
optimum D(x) = log p_data(x) / p_G(x): the critic estimates a density ratio, and no density.
"""

import functools
from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad

from pgm.batch import Batch
from pgm.families import Example
from pgm.model import Model, rows
from pgm.nets import mlp
from pgm.objectives import objective, public
from pgm.verb import Unsupported, prepare
from pgm.verbs import encode, impute, log_prob

__all__ = ["GAN", "example", "log_ratio"]


class GAN(Model):
    """A generative adversarial network over real-valued rows (Goodfellow et al. 2014).

    z ~ N(0, 1), x = G(z). It samples and decodes, but has no density on the data space: verbs that
    need one refuse. Both players learn at once, each from its own part of `objective`:

        critic     softplus(-D(x)) + softplus(D(G(z))) + penalty / 2 |grad D(x)|^2
        generator  softplus(-D(G(z)))

    The gradient penalty on the data keeps the game from circling (Mescheder, Geiger & Nowozin 2018,
    eq. 9). An average of the weights (`ema=` of `pgm.fit`) and Adam without momentum help; where
    modes are missing, raise the penalty. `example()` shows options that work.

    Args:
        features: numbers in a row.
        latents: numbers in a code z.
        hidden: sizes of the hidden layers of both networks.
        penalty: weight of the gradient penalty, for data of about unit scale; 0 for none.

    Raises:
        ValueError: no feature, no latent, or a negative penalty.

    Example:
        >>> import pgm
        >>> model = GAN(features=2, latents=3, hidden=(8,))
        >>> pgm.decode(model, torch.zeros(4, 3))["x"].shape
        torch.Size([4, 2])
        >>> pgm.log_prob(model, torch.zeros(1, 2))
        Traceback (most recent call last):
        ...
        pgm.verb.Unsupported: GAN cannot log_prob: it has no density on the data space...
    """

    def __init__(
        self,
        features: int,
        latents: int,
        *,
        hidden: Sequence[int] = (128, 128),
        penalty: float = 1.0,
    ) -> None:
        super().__init__()
        if features < 1 or latents < 1:
            raise ValueError(
                f"features is {features} and latents {latents}; rows and codes have at least one "
                "number."
            )
        if not 0 <= penalty < float("inf"):
            raise ValueError(f"penalty is {penalty}; it weighs a squared gradient: 0 or more.")
        self.features, self.latents, self.penalty = features, latents, penalty
        self.generator = mlp(latents, hidden, features)
        self.critic = mlp(features, hidden, 1, activation="silu")

    def model(self, n: int) -> None:
        """z ~ N(0, 1), x = G(z): "x" is a site that can be drawn and has no density."""
        with rows(n):
            zeros = next(self.generator.parameters()).new_zeros(self.latents)
            z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
            pyro.sample("x", dist.Delta(self.generator(z), event_dim=1).mask(False))

    def guide(self, n: int, x: Tensor, x_seen: Tensor | None = None) -> None:
        """The prior of z, for want of a posterior: x says nothing about z that can be used."""
        if x_seen is not None:
            raise Unsupported(_MISSING)
        with rows(n):
            pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))


def log_ratio(model: GAN, x: object) -> Float[Tensor, " n"]:
    """The critic's estimate of log p_data(x) / p_G(x) of every row, in nats.

    It is good where the critic has seen data and draws; the gradient penalty pulls it to zero.

    Example:
        >>> log_ratio(GAN(2, 2), torch.zeros(3, 2)).shape
        torch.Size([3])
    """
    with torch.no_grad():
        return _judge(model.critic, _cells(model, prepare(model, x)))[1]


@objective.register(GAN)
def _game(model: GAN, batch: Batch, *, size: int | None = None) -> Tensor:
    """The two players' losses by row; the gradient of each reaches its own network alone.

    The value is that of a game: it need not fall, and is 3 log 2 where neither player wins. Only
    the critic sees rows, in two of its three terms; what is asked of draws is public.
    """
    x = _cells(model, batch)
    fake = model.generator(torch.randn(len(x), model.latents, device=x.device, dtype=x.dtype))
    slope, real = grad(lambda x: _judge(model.critic, x), has_aux=True)(x)
    fixed = {name: p.detach() for name, p in model.critic.named_parameters()}
    fooled = functional_call(model.critic, fixed, (fake,)).squeeze(-1)
    softplus = nn.functional.softplus
    unmasked = softplus(model.critic(fake.detach()).squeeze(-1))
    penalty = model.penalty / 2 * slope.square().sum(-1)
    return softplus(-real) + penalty + public(unmasked + softplus(-fooled))


def _judge(critic: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the logits, whose gradient is that of each row's own, and the logits."""
    logits = critic(x).squeeze(-1)
    return logits.sum(), logits


_MISSING = (
    "Cells of 'x' are missing, and the critic judges whole rows. Use complete rows, or a model "
    "with a density, such as pgm.families.vae.VAE."
)


def _cells(model: GAN, batch: Batch) -> Tensor:
    """The rows of a batch that holds them, and nothing else, in the shape of the model."""
    if "x_seen" in batch:
        raise Unsupported(_MISSING)
    if set(batch) != {"x"} or batch["x"].shape[1:] != (model.features,):
        shapes = {name: tuple(value.shape) for name, value in batch.items()}
        raise ValueError(
            f"The batch has the shapes {shapes}; a GAN has one observed site, 'x', here of shape "
            f"(n, {model.features})."
        )
    return batch["x"]


log_prob.refuse(
    GAN,
    "it has no density on the data space: rows are G(z), and the chance of any one is zero. Use "
    "pgm.evaluation.mmd or c2st to compare its samples with data, log_ratio for the critic's odds "
    "of a row, or a model with a density, such as pgm.families.flow.SplineFlow.",
)
encode.refuse(
    GAN,
    "nothing in it maps a row to a code, and a row that it cannot generate has none. Use decode on "
    "codes of your own, drawn from N(0, 1), or a model with an encoder, such as "
    "pgm.families.vae.VAE.",
)
impute.refuse(
    GAN,
    "completions are weighed by a density of the seen cells, and it has none. Use a model that has "
    "one, such as pgm.families.vae.VAE or pgm.families.diffusion.Diffusion.",
)


def example() -> Example:
    """Eight Gaussians around a circle of radius 1.4, each of which must be found."""
    from pgm.data import load

    adam = functools.partial(torch.optim.Adam, betas=(0.0, 0.99))
    return Example(
        GAN(features=2, latents=4, hidden=(64, 64)),
        load("eight_gaussians", n=2000).x / 2,
        fit={"steps": 600, "learning_rate": 3e-3, "optimiser": adam, "ema": 0.98},
        loss_falls=False,
        bound_applies=False,
    )
