"""Draws from an approximation with their weights p / q, and what these say of the evidence."""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import Batch
from pgm.inference.constrain import constrain
from pgm.inference.diagnostics import smooth
from pgm.inference.posterior import Method, Posterior
from pgm.inference.progress import warn
from pgm.inference.unconstrained import LogJoint
from pgm.model import Model
from pgm.randomness import seeded


def weighed(
    model: Model,
    batch: Batch,
    density: LogJoint,
    u: Float[Tensor, "draws d"],
    log_weight: Float[Tensor, " draws"],
    *,
    method: Method,
    began: float,
    held: tuple[str, ...] = (),
) -> Posterior:
    """A posterior of one chain whose statistic `log_weight` is log p - log q of each draw."""
    values, dims = constrain(density, u[None])
    return warn(
        Posterior(
            draws=values,
            sample_stats={"log_weight": log_weight[None]},
            model=model,
            batch=batch,
            seconds=time.perf_counter() - began,
            method=method,
            dims=dims,
            held=held,
        ),
        stacklevel=4,
    )


def resample(
    posterior: Posterior, *, draws: int | None = None, seed: int | None = None
) -> Posterior:
    """The draws chosen anew by their Pareto-smoothed weights, with equal weights from then on.

    Args:
        posterior: of `laplace`, `pathfinder` or `variational` with shared latents.
        draws: how many, with replacement; by default as many as there are.
        seed: of the choice.

    Raises:
        ValueError: draws without weights, or with weights of each row.

    Example:
        >>> from pgm.data import load
        >>> from pgm.families.hierarchical import Hierarchical
        >>> from pgm.inference import pathfinder
        >>> import warnings; warnings.simplefilter("ignore")  # k-hat is above 0.7 here
        >>> schools = dict(load("eight_schools").tensors)
        >>> found = pathfinder(Hierarchical(), schools, draws=500, seed=0, backend="graph")
        >>> resample(found, draws=100, seed=0).size
        (1, 100)
    """
    log_w, _ = smooth(_log_weight(posterior))
    with seeded(seed):
        chosen = torch.multinomial(log_w.exp(), draws or len(log_w), replacement=True)
    values = {name: value[:, chosen] for name, value in posterior.draws.items()}
    return replace(posterior, draws=values, sample_stats={})


def evened(posterior: Posterior, *, seed: int | None = None) -> Posterior:
    """Draws with equal weights: those of an approximation of all latents, chosen anew."""
    log_weight = posterior.sample_stats.get("log_weight")
    if log_weight is None or log_weight.dim() != 2:
        return posterior
    return resample(posterior, seed=seed)


def log_weight_by_row(posterior: Posterior) -> Float[Tensor, "#n draws"]:
    """log p - log q of every draw, of all latents or of each row's own; zero if even."""
    log_weight = posterior.sample_stats.get("log_weight")
    if log_weight is None:
        return torch.zeros(1, posterior.size[0] * posterior.size[1], dtype=torch.float64)
    flat = log_weight.flatten(0, 1).double()
    return flat[None] if flat.dim() == 1 else flat.T


@dataclass(frozen=True)
class Evidence:
    """log p(x), in nats.

    Attributes:
        value: the estimate.
        error: its standard error, by the spread of the weights; too small where k-hat is large.
        k: the Pareto k-hat of the weights.
    """

    value: float
    error: float
    k: float

    def __str__(self) -> str:
        said = f"log evidence {self.value:.3f} +- {self.error:.3f} nats (k-hat {self.k:.2f})"
        if self.k > 0.7:
            said += ": not to be trusted, the approximation misses part of the posterior"
        return said


def evidence(posterior: Posterior) -> Evidence:
    """log p(x) = log E_q[p(x, z) / q(z)], by the weights of an approximation.

    Args:
        posterior: as in `resample`.

    Raises:
        ValueError: as in `resample`, or latents that were held at one value.
    """
    if posterior.held:
        raise ValueError(
            f"{', '.join(posterior.held)} were held at one value, and not integrated out: these "
            "weights say nothing of log p(x). Spread all sites, or use pgm.inference.tempering."
        )
    log_weight = _log_weight(posterior).double()
    n = len(log_weight)
    value = float(log_weight.logsumexp(0)) - math.log(n)
    relative = (log_weight - value).exp()
    return Evidence(value, float(relative.std()) / n**0.5, float(smooth(log_weight)[1]))


def _log_weight(posterior: Posterior) -> Tensor:
    log_weight: Any = posterior.sample_stats.get("log_weight")
    if log_weight is None or log_weight.dim() != 2:
        raise ValueError(
            f"Draws by {posterior.method} have no weight of all latents together: "
            + (
                "each row has its own, since no latent is shared."
                if log_weight is not None
                else "they are weighed equally already, or come from a sampler."
            )
            + " Use laplace, pathfinder, or variational over shared latents."
        )
    return log_weight.flatten()
