"""Gaussian mixture: a component is picked, then the row is drawn from its Gaussian.

    k ~ Categorical(pi),    x | k ~ N(mu_k, Sigma_k),    p(x) = sum_k pi_k N(x; mu_k, Sigma_k)

(Pearson 1894; Bishop 2006, Sec. 9.2). The component is enumerated, so that the density is exact and
training climbs it by gradients. Missing cells are integrated out component by component; given the
others they are Gaussian (Ghahramani & Jordan 1994, "Supervised learning from incomplete data").
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor, nn
from torch.nn import functional as F

from pgm.batch import SEEN, Batch, as_batch, cells, chunks
from pgm.data import load
from pgm.families import Example
from pgm.inference import normal
from pgm.inference.clusters import kmeans
from pgm.model import Model, rows
from pgm.objectives import objective
from pgm.randomness import fresh_seed, seeded
from pgm.verbs import Imputation, LogProb, decode, encode, impute, interpolate, log_prob

__all__ = ["Covariance", "GaussianMixture", "example"]

Covariance = Literal["diagonal", "full"]
"""The shape of every component's covariance."""

_AT_ONCE = 2**21


class GaussianMixture(Model):
    """A mixture of Gaussians (Bishop 2006, Sec. 9.2).

    The likelihood of a mixture is unbounded where a component shrinks onto one row (Sec. 9.2.1);
    `floor` bounds it. Random means start far from a good fit: see `from_data`. A batch may hold
    labels "k", shape (n,), which are then observed. Every verb takes missing cells; `pgm.fit` does
    where the covariance is diagonal.

    Args:
        features: d, the cells of a row.
        components: K.
        covariance: "diagonal" or "full".
        floor: the smallest scale, in the units of the data (its square is scikit-learn's
            `reg_covar`).

    Attributes:
        logits: log weights up to a constant, shape (K,).
        means: mu_k, shape (K, d), drawn at random to begin with.
        log_scales: log of the scales above the floor, shape (K, d).
        lower: for "full", what stands below the diagonal of the Cholesky factors, (K, d, d).

    Raises:
        ValueError: a size below 1, an unknown covariance, or a floor that is not positive.

    Example:
        >>> model = GaussianMixture(features=1, components=2, floor=1e-6)
        >>> with torch.no_grad():
        ...     _ = model.means.copy_(torch.tensor([[-1.0], [1.0]]))
        >>> log_prob(model, torch.zeros(1, 1)).value  # log N(1; 0, 1)
        tensor([-1.4189])
        >>> encode(model, torch.tensor([[0.0], [1.0]]))["k"]
        tensor([[0.5000, 0.5000], [0.1192, 0.8808]])
    """

    def __init__(
        self,
        features: int,
        components: int,
        *,
        covariance: Covariance = "diagonal",
        floor: float = 1e-3,
    ) -> None:
        super().__init__()
        _check(features, components, covariance, floor)
        self.covariance, self.floor = covariance, floor
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, features))
        self.log_scales = nn.Parameter(torch.zeros(components, features))
        if covariance == "full":
            self.lower = nn.Parameter(torch.zeros(components, features, features))

    @property
    def weights(self) -> Float[Tensor, " K"]:
        """The weights pi of the components."""
        return self.logits.softmax(-1)

    @property
    def scales(self) -> Float[Tensor, "K d"]:
        """The standard deviations, or the diagonals of the Cholesky factors."""
        return self.floor + self.log_scales.exp()

    @property
    def scale_trils(self) -> Float[Tensor, "K d d"]:
        """The Cholesky factors of the covariances."""
        diagonal = torch.diag_embed(self.scales)
        return diagonal if self.covariance == "diagonal" else diagonal + self.lower.tril(-1)

    def component(self, k: Real[Tensor, "*n"]) -> Any:
        """The Gaussians of components: a distribution whose events are rows."""
        k = k.long()
        if self.covariance == "diagonal":
            return dist.Normal(self.means[k], self.scales[k]).to_event(1)
        return dist.MultivariateNormal(self.means[k], scale_tril=self.scale_trils[k])

    def model(self, n: int) -> None:
        """k ~ Categorical(pi), x ~ N(mu_k, Sigma_k)."""
        with rows(n):
            weights = dist.Categorical(logits=self.logits)
            k = pyro.sample("k", weights, infer={"enumerate": "parallel"})
            pyro.sample("x", self.component(k))

    @classmethod
    def from_data(
        cls,
        x: Any,
        components: int,
        *,
        covariance: Covariance = "diagonal",
        floor: float = 1e-3,
        seed: int | None = None,
    ) -> "GaussianMixture":
        """A mixture that starts from k-means++ clusters of the rows (Arthur & Vassilvitskii 2007).

        Means and weights are those of the clusters, the covariance is the one within clusters, the
        same for all. They are computed from the rows without noise, so a model made here is not
        private, however it is trained afterwards.

        Args:
            x: complete rows, shape (n, d).
            components: K, at most n.
            covariance: "diagonal" or "full".
            floor: the smallest scale.
            seed: of the clustering.

        Raises:
            ValueError: missing cells, x that is no matrix, or fewer rows than components.
        """
        x = _complete_rows(x, components)
        with seeded(0):
            model = cls(x.shape[1], components, covariance=covariance, floor=floor).to(x)
        label = kmeans(x, components, fresh_seed() if seed is None else seed)
        member = F.one_hot(label, components).to(x)
        count = member.sum(0)
        means = member.T @ x / count.clamp(min=1).unsqueeze(-1)
        means = torch.where(count.unsqueeze(-1) > 0, means, x.mean(0))  # few rows differ
        within = (x - means[label]).T @ (x - means[label]) / len(x)
        with torch.no_grad():
            model.logits.copy_(((count + 1) / (len(x) + components)).log())
            model.means.copy_(means)
            _set_covariance(model, within)
        return model


def example() -> Example:
    """Two moons covered by eight ellipses."""
    x = load("two_moons", n=500).x
    return Example(
        GaussianMixture.from_data(x, 8, covariance="full", seed=0),
        x,
        fit={"steps": 100, "learning_rate": 0.03},
    )


@objective.register(GaussianMixture)
def _loss(model: GaussianMixture, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """-log p(x), exact, without draws for missing cells; the generic bound has the same value."""
    return -_log_joint(model, batch).logsumexp(-1)


@log_prob.register(GaussianMixture)
def _density(model: GaussianMixture, batch: Batch, *, particles: int = 100) -> LogProb:
    """log p(x), exact; missing cells are integrated out."""
    _check_labels(model, batch)
    value = torch.cat([_log_joint(model, piece).logsumexp(-1) for piece in _pieces(model, batch)])
    return LogProb(value, torch.zeros_like(value), "exact")


@encode.register(GaussianMixture)
def _responsibilities(model: GaussianMixture, batch: Batch, *, draws: int | None = None) -> Batch:
    """p(k | x) as "k", shape (n, K) (Bishop 2006, eq. 9.13); draws are one-hot, (draws, n, K)."""
    _check_labels(model, batch)
    r = torch.cat([_log_joint(model, piece).softmax(-1) for piece in _pieces(model, batch)])
    if draws is None:
        return Batch(k=r)
    k = dist.Categorical(probs=r).sample((draws,))
    return Batch(k=F.one_hot(k, r.shape[-1]).to(r))


@decode.register(GaussianMixture)
def _means(model: GaussianMixture, z: Any, *, context: Any = None) -> Batch:
    """The mean of x given components, shape (n,), or given how probable each is, shape (n, K)."""
    given = dict(z) if isinstance(z, Mapping) else {"k": z}
    if set(given) != {"k"} or context is not None:
        raise ValueError(
            f"A mixture decodes the site 'k' without context, but {', '.join(map(repr, given))} "
            "came. Pass components, shape (n,), or their probabilities, shape (n, K)."
        )
    k, K = torch.as_tensor(given["k"]).to(model.device), len(model.means)
    labels = k.dim() == 1 and not k.is_floating_point() and bool(((k >= 0) & (k < K)).all())
    if labels:
        return Batch(x=model.means[k.long()])
    if k.dim() == 2 and k.shape[1] == K and _are_probabilities(k):
        return Batch(x=k.to(model.dtype) @ model.means)
    raise ValueError(
        f"k of shape {tuple(k.shape)} and dtype {k.dtype} are neither components 0 to {K - 1}, "
        f"shape (n,), nor their probabilities, shape (n, {K}), each row adding up to 1."
    )


@impute.register(GaussianMixture)
def _complete(
    model: GaussianMixture, batch: Batch, *, draws: int = 5, particles: int = 200
) -> Imputation:
    """Exact draws: a component from p(k | x_seen), then the missing cells from its conditional."""
    _check_labels(model, batch)
    pieces = [_draw(model, piece, draws) for piece in _pieces(model, batch, draws)]
    completed = Batch({name: torch.cat([p[name] for p in pieces], 1) for name in pieces[0]})
    return Imputation(completed, model.means.new_full((completed["x"].shape[1],), particles))


def _draw(model: GaussianMixture, batch: Batch, draws: int) -> Batch:
    """Completions (draws, n, ...) of the sites in the batch."""
    x, seen = _cells(model, batch)
    k = dist.Categorical(logits=_log_joint(model, batch)).sample((draws,))
    y = model.component(k).sample()
    if seen is None:
        y = x.expand_as(y)
    elif model.covariance == "full":
        Sigma = (model.scale_trils @ model.scale_trils.mT)[k]
        y = normal.conditional_draw(x, seen, y, Sigma)
    drawn = Batch(x=y if seen is None else torch.where(seen, x, y))
    return Batch(drawn | {"k": k.to(batch["k"].dtype)}) if "k" in batch else drawn


def _log_joint(model: GaussianMixture, batch: Batch) -> Float[Tensor, "n K"]:
    """log p(k, x_seen) of every component; -inf where a label says that it was another."""
    x, seen = _cells(model, batch)
    log_joint = model.logits.log_softmax(-1) + _log_components(model, x, seen)
    if "k" not in batch:
        return log_joint
    k = batch["k"].unsqueeze(-1)
    known = batch.get("k" + SEEN, torch.ones_like(batch["k"], dtype=torch.bool)).unsqueeze(-1)
    other = known & (torch.arange(len(model.means), device=k.device) != k)
    return log_joint.masked_fill(other, -torch.inf)


def _log_components(
    model: GaussianMixture, x: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"] | None
) -> Float[Tensor, "n K"]:
    """log N(x_seen; mu_k, Sigma_k)."""
    every = torch.arange(len(model.means), device=x.device)
    if seen is None:
        log_p: Tensor = model.component(every).log_prob(x.unsqueeze(-2))
        return log_p
    if model.covariance == "diagonal":
        log_cells = dist.Normal(model.means, model.scales).log_prob(x.unsqueeze(-2))
        return torch.where(seen.unsqueeze(-2), log_cells, 0.0).sum(-1)
    Sigma = model.scale_trils @ model.scale_trils.mT
    return normal.log_density(x.unsqueeze(-2), seen.unsqueeze(-2), model.means, Sigma)


def _cells(
    model: GaussianMixture, batch: Batch
) -> tuple[Float[Tensor, "n d"], Bool[Tensor, "n d"] | None]:
    x, seen = cells(batch, "x", tuple(model.means.shape[1:]), others=("k",))
    return x.to(model.dtype), seen


def _check_labels(model: GaussianMixture, batch: Batch) -> None:
    k, K = batch.get("k", torch.zeros(1)), len(model.means)
    if k.dim() != 1 or bool(((k < 0) | (k >= K) | (k != k.round())).any()):
        raise ValueError(
            f"The labels 'k' have shape {tuple(k.shape)} and lie in {k.min()} to {k.max()}; they "
            f"are components, shape (n,), whole numbers from 0 to {K - 1}."
        )


def _pieces(model: GaussianMixture, batch: Batch, times: int = 1) -> Any:
    """The rows in pieces of which a covariance a component fits memory."""
    size = model.scale_trils if model.covariance == "full" else model.means
    return chunks(batch, max(1, _AT_ONCE // (size.numel() * times)))


def _are_probabilities(k: Tensor) -> bool:
    k = k.to(torch.get_default_dtype())
    return bool((k >= 0).all() and ((k.sum(-1) - 1).abs() < 1e-3).all())


def _set_covariance(model: GaussianMixture, within: Float[Tensor, "d d"]) -> None:
    """Gives every component the covariance `within`, with scales above the floor."""
    within = within + (2 * model.floor) ** 2 * torch.eye(len(within)).to(within)
    L = torch.linalg.cholesky(within)
    scales = L.diagonal() if model.covariance == "full" else within.diagonal().sqrt()
    model.log_scales.copy_((scales - model.floor).log().expand_as(model.log_scales))
    if model.covariance == "full":
        model.lower.copy_(L.tril(-1).expand_as(model.lower))


def _complete_rows(data: Any, components: int) -> Float[Tensor, "n d"]:
    batch = as_batch(data)
    x = batch.get("x")
    if x is None or "x" + SEEN in batch or x.dim() != 2:
        raise ValueError(
            f"Clusters are found in complete rows of shape (n, d), but {batch} came. Build the "
            "mixture from the rows without missing cells."
        )
    if len(x) < components:
        raise ValueError(
            f"{components} components were asked for, but only {len(x)} rows came, and every "
            "component starts from a cluster of them. Use fewer components."
        )
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _check(features: int, components: int, covariance: str, floor: float) -> None:
    if features < 1 or components < 1:
        raise ValueError(
            f"features is {features} and components {components}; a mixture has at least one of "
            "each."
        )
    if covariance not in ("diagonal", "full"):
        raise ValueError(f"There is no covariance {covariance!r}; there are 'diagonal' and 'full'.")
    if not 0 < floor < math.inf:
        raise ValueError(
            f"floor is {floor}; it is the smallest scale, positive and finite: without one a "
            "component can shrink onto a single row, where the likelihood is infinite."
        )


interpolate.refuse(
    GaussianMixture,
    "its code is one of a few components, and there is no path from one to another. Use a model "
    "with continuous codes, such as pgm.families.factor.PPCA or pgm.families.vae.VAE.",
)
