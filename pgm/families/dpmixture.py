"""Dirichlet-process mixture of Gaussians: as many clusters as the rows speak for.

    v_t ~ Beta(1, alpha),  pi_t = v_t prod_{s<t} (1 - v_s),  k ~ Categorical(pi)
    tau ~ Gamma(a, b),  mu | tau ~ N(m, 1 / (kappa tau)),  x | k ~ N(mu_k, 1 / tau_k)

(Ferguson 1973; stick breaking by Sethuraman 1994), every cell of a row on its own given k, broken
after T sticks, v_T = 1 (Ishwaran & James 2001), which is next to the whole process where the last
sticks stay empty. The guide is the factorised posterior of Blei & Jordan (2006), "Variational
inference for Dirichlet process mixtures", in closed form: coordinate ascent (their eqs 18-22) and
`pgm.fit` climb one bound, to local optima; merges and splits lead out (Ueda & Ghahramani 2002).
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pgm.batch import Batch, as_batch, cells, chunks, rows_of
from pgm.data import load
from pgm.families import Example
from pgm.inference.clusters import kmeans, merge_and_split, standard_units
from pgm.inference.sticks import (
    check_prior,
    expected_logs,
    gamma_divergence,
    normal_gamma_divergence,
    normal_gamma_posterior,
    stick_breaking,
    stick_divergence,
)
from pgm.model import Model, rows
from pgm.objectives import objective, public
from pgm.randomness import fresh_seed, seeded
from pgm.verb import prepare
from pgm.verbs import Imputation, LogProb, decode, encode, impute, interpolate, log_prob

__all__ = ["DPMixture", "coordinate_ascent", "example"]

_AT_ONCE, _HALF_LOG_TAU = 2**22, 0.5 * math.log(2 * math.pi)


class DPMixture(Model):
    """A truncated Dirichlet-process mixture with a normal-gamma base.

    Densities, completions and clusters are those of the posterior predictive under the guide.

    Args:
        features: d, the cells of a row.
        components: T, where the sticks end: more than there are clusters.
        concentration: alpha; None to learn it under a Gamma(1, 1) prior.
        location: m, the prior mean of a cluster's mean, one number a feature; by default 0.
        scale: prior scale of a cluster, one number a feature, b = (a - 1) scale^2; by default 1.
        strength: kappa, how many rows the prior of the means is worth.
        shape: a, above 1; half the rows the prior of the precisions is worth. A large one keeps
            clusters as wide as `scale`, and few.

    Attributes:
        log_sticks: log of the two parameters of q(v_t), shape (T - 1, 2).
        means, log_strengths, log_shapes, log_rates: q(mu, tau) of every component, shape (T, d).
        log_alpha: log shape and rate of q(alpha), if it is learned, shape (2,).

    Raises:
        ValueError: fewer than two components, no feature, a prior parameter that is not positive,
            a shape of at most 1, or one of another length than the features.

    Example:
        >>> x = torch.cat([torch.randn(40, 1) - 5, torch.randn(40, 1) + 5])
        >>> model = DPMixture.from_data(x, components=10, seed=0)
        >>> int(model.occupied(x, seed=0).argmax()) + 1
        2
    """

    def __init__(
        self,
        features: int,
        components: int,
        *,
        concentration: float | None = None,
        location: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        strength: float = 0.1,
        shape: float = 1.2,
    ) -> None:
        super().__init__()
        check_prior(features, components, concentration, location, scale, strength, shape)
        self.components, self.concentration = components, concentration
        self.strength, self.shape = strength, shape
        m, s = torch.tensor(location or [0.0] * features), torch.tensor(scale or [1.0] * features)
        self.register_buffer("location", m)
        self.register_buffer("rate", (shape - 1) * s.square())
        like = torch.zeros(components, features)
        self.log_sticks = nn.Parameter(torch.zeros(components - 1, 2))
        self.means = nn.Parameter(m + s * torch.randn(components, features))
        self.log_strengths = nn.Parameter(like + math.log(strength + 1))
        self.log_shapes = nn.Parameter(like + math.log(shape + 0.5))
        self.log_rates = nn.Parameter(like + self.rate.log())
        if concentration is None:
            self.log_alpha = nn.Parameter(torch.zeros(2))

    def model(self, n: int) -> None:
        """Sticks and clusters, shared; then a cluster and a row."""
        one, (m, _, a, b) = self.rate.new_ones(()), self.prior
        alpha = one if self.concentration is None else one * self.concentration
        if self.concentration is None:
            alpha = pyro.sample("alpha", dist.Gamma(one, one))
        sticks = dist.Beta(one, alpha).expand([self.components - 1]).to_event(1)
        v = pyro.sample("v", sticks)
        shape = [self.components, len(m)]
        tau = pyro.sample("tau", dist.Gamma(a, b).expand(shape).to_event(2))
        mu = pyro.sample("mu", dist.Normal(m, (self.strength * tau).rsqrt()).to_event(2))
        with rows(n):
            pi = dist.Categorical(logits=stick_breaking(v.log(), (-v).log1p()))
            k = pyro.sample("k", pi, infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(mu[k], tau[k].rsqrt()).to_event(1))

    def guide(self, n: int) -> None:
        """q(alpha) q(v) q(mu, tau) (Blei & Jordan 2006, eq. 16)."""
        if self.concentration is None:
            pyro.sample("alpha", dist.Gamma(*self.log_alpha.exp()))
        a, b = self.log_sticks.exp().unbind(-1)
        pyro.sample("v", dist.Beta(a, b).to_event(1))
        gamma = dist.Gamma(self.log_shapes.exp(), self.log_rates.exp())
        tau = pyro.sample("tau", gamma.to_event(2))
        spread = (self.log_strengths.exp() * tau).rsqrt()
        pyro.sample("mu", dist.Normal(self.means, spread).to_event(2))

    @property
    def prior(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """m, kappa, a, b of the base."""
        kappa, a = self.rate.new_tensor(self.strength), self.rate.new_tensor(self.shape)
        return self.location, kappa, a, self.rate

    def base(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """m, kappa, a, b of every component under the guide, shape (T, d)."""
        logs = self.log_strengths, self.log_shapes, self.log_rates
        kappa, a, b = (part.exp() for part in logs)
        return self.means, kappa, a, b

    @classmethod
    def from_data(
        cls,
        x: Any,
        components: int = 20,
        *,
        sweeps: int = 500,
        moves: int = 100,
        tolerance: float = 1e-7,
        seed: int | None = None,
        **prior: Any,
    ) -> "DPMixture":
        """The posterior of a model whose prior has the location and scale of the columns.

        Coordinate ascent from k-means++ clusters, then merges and splits of clusters while the
        bound rises, without noise: it is not private.

        Args:
            x: rows, shape (n, d); NaN where cells are missing.
            components: T, at most n.
            sweeps: the most sweeps of `coordinate_ascent`.
            moves: the most merges and splits that are kept; 0 for coordinate ascent alone.
            tolerance: where it stops, in nats a row.
            seed: of the clusters.
            **prior: concentration, strength and shape of the model.

        Raises:
            ValueError: x that is no matrix, fewer rows than components, or a constant column.
        """
        batch = as_batch(x)
        units, m, s = standard_units(batch, components)
        base = {"location": m.tolist(), "scale": s.tolist(), **prior}
        with seeded(0):
            model = cls(len(m), components, **base).to(m)
        label = kmeans(units, components, fresh_seed() if seed is None else seed)
        start = F.one_hot(label, components)  # some are empty where few rows differ
        coordinate_ascent(model, batch, start, sweeps=sweeps, moves=moves, tolerance=tolerance)
        return model

    @property
    def weights(self) -> Float[Tensor, " T"]:
        """E[pi] under the guide."""
        a, b = self.log_sticks.unbind(-1)
        total = torch.logaddexp(a, b)
        return stick_breaking(a - total, b - total).exp()

    def occupied(
        self, x: Any, *, draws: int = 1000, seed: int | None = None
    ) -> Float[Tensor, " T"]:
        """The posterior of how many components have a row: probabilities of 1, 2, ..., T.

        Args:
            x: the rows that were learned from.
            draws: of all assignments, from q(k) of every row.
            seed: of the draws.
        """
        count = torch.zeros(self.components).to(self.means)
        with torch.no_grad(), seeded(seed):
            r = _log_joint(self, *_cells(self, prepare(self, x))).softmax(-1)
            for _ in range(draws):
                occupied = len(torch.multinomial(r, 1).unique())
                count[occupied - 1] += 1
        return count / draws

    def bound(self, x: Any) -> Float[Tensor, ""]:
        """The evidence lower bound of all rows, in nats (Blei & Jordan 2006, eq. 15)."""
        log_joint = _log_joint(self, *_cells(self, prepare(self, x)))
        return log_joint.logsumexp(-1).sum() - _divergence(self)


def coordinate_ascent(
    model: DPMixture,
    x: Any,
    start: Tensor | None = None,
    *,
    sweeps: int = 500,
    moves: int = 0,
    tolerance: float = 1e-7,
) -> list[float]:
    """Climbs the bound one factor of the guide after the other, in place (Blei & Jordan, 18-22).

    Args:
        model: whose guide is changed.
        x: all the rows.
        start: responsibilities to begin with, shape (n, T); by default those of the guide.
        sweeps: the most sweeps.
        moves: the most merges and splits of clusters kept after that, each tried for ten sweeps.
        tolerance: it stops where a sweep raises the bound by less, in nats a row.

    Returns:
        The bound after every sweep, in nats; those of the moves that were not kept are left out.
    """
    dtype, (x, seen) = model.dtype, _cells(model.double(), prepare(model, x))
    climb = partial(_climb, model, x, seen, least=tolerance * len(x))
    with torch.no_grad():
        r = _log_joint(model, x, seen).softmax(-1) if start is None else start.to(x)
        history, r = climb(r, most=sweeps)
        if moves and sweeps:
            units = (x - model.location) / model.rate.sqrt() * seen
            tried = partial(climb, most=10)
            kept, r = merge_and_split(tried, units, r, history[-1], moves, tolerance * len(x))
            history += kept + climb(r, most=sweeps)[0]
    model.to(dtype)
    return history


def example() -> Example:
    """Two moons covered by as many ellipses as it takes."""
    x = load("two_moons", n=500).x
    model = DPMixture.from_data(x, components=12, sweeps=5, seed=0)
    return Example(model, x, fit={"steps": 60, "learning_rate": 0.02})


@objective.register(DPMixture)
def _loss(model: DPMixture, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """Minus the bound of each row with q(k) at its optimum; the divergences are public."""
    n = rows_of(batch) if size is None else size
    bound = _log_joint(model, *_cells(model, batch)).logsumexp(-1)
    return -bound + public(_divergence(model) / n)


@log_prob.register(DPMixture)
def _density(model: DPMixture, batch: Batch, *, particles: int = 100) -> LogProb:
    """log of the posterior predictive under the guide, exact: a mixture of Student's t."""
    each = [_log_predictive(model, *_cells(model, p)) for p in _pieces(model, batch)]
    value = torch.cat(each).logsumexp(-1)
    return LogProb(value, torch.zeros_like(value), "exact")


@encode.register(DPMixture)
def _cluster(model: DPMixture, batch: Batch, *, draws: int | None = None) -> Batch:
    """p(k | x) of a new row as "k", shape (n, T); draws are one-hot, (draws, n, T)."""
    r = _log_predictive(model, *_cells(model, batch)).softmax(-1)
    if draws is not None:
        r = F.one_hot(dist.Categorical(probs=r).sample((draws,)), r.shape[-1]).to(r)
    return Batch(k=r)


@impute.register(DPMixture)
def _complete(
    model: DPMixture, batch: Batch, *, draws: int = 5, particles: int = 200
) -> Imputation:
    """Exact draws of the predictive: a cluster given the seen cells, then a t for each missing."""
    x, seen = _cells(model, batch)
    k = dist.Categorical(logits=_log_predictive(model, x, seen)).sample((draws,))
    df, scale = (part[k] for part in _predictive(model))
    drawn = dist.StudentT(df, model.means[k], scale).sample()
    return Imputation(Batch(x=torch.where(seen, x, drawn)), x.new_full((len(x),), particles))


decode.refuse(
    DPMixture, "a cluster stands for its mean: use model.means[k], or encode(model, x)['k'] @ them."
)
interpolate.refuse(
    DPMixture,
    "there is no path from one cluster to another. Use a model with continuous codes, such as "
    "pgm.families.factor.PPCA.",
)


def _climb(
    model: DPMixture,
    x: Float[Tensor, "n d"],
    seen: Bool[Tensor, "n d"],
    r: Float[Tensor, "n T"],
    *,
    most: int,
    least: float,
) -> tuple[list[float], Float[Tensor, "n T"]]:
    """The bound after every sweep, and the responsibilities then."""
    history = list[float]()
    for _ in range(most):
        _update(model, x, seen, r)
        log_joint = _log_joint(model, x, seen)
        history.append(float(log_joint.logsumexp(-1).sum() - _divergence(model)))
        r = log_joint.softmax(-1)
        if len(history) > 1 and history[-1] - history[-2] < least:
            break
    return history, r


def _update(
    model: DPMixture,
    x: Float[Tensor, "n d"],
    seen: Bool[Tensor, "n d"],
    r: Float[Tensor, "n T"],
) -> None:
    """Every factor at its optimum given the responsibilities, large components first."""
    r = r[:, r.sum(0).argsort(descending=True, stable=True)]  # Kurihara et al. (2007)
    count, (m, *others) = r.sum(0), normal_gamma_posterior(model.prior, x, seen.to(x), r)
    model.means.copy_(m)
    logs = model.log_strengths, model.log_shapes, model.log_rates
    for factor, value in zip(logs, others, strict=True):
        factor.copy_(value.log())
    beyond = count.flip(0).cumsum(0).flip(0)[1:]
    model.log_sticks.copy_(torch.stack([1 + count[:-1], _alpha(model)[0] + beyond], -1).log())
    if model.concentration is None:
        closed = expected_logs(*model.log_sticks.exp().unbind(-1))[1].sum()
        model.log_alpha.copy_(torch.stack([closed.new_tensor(float(len(count))), 1 - closed]).log())


def _log_joint(
    model: DPMixture, x: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"]
) -> Float[Tensor, "n T"]:
    """E log pi_k + E log N(x_seen; mu_k, 1 / tau_k) under the guide (Blei & Jordan, eq. 22)."""
    m, kappa, a, b = model.base()
    squares = a / b * (x.unsqueeze(-2) - m).square() + 1 / kappa
    each = 0.5 * (torch.digamma(a) - b.log() - squares) - _HALF_LOG_TAU
    log_x = torch.where(seen.unsqueeze(-2), each, 0.0).sum(-1)
    return stick_breaking(*expected_logs(*model.log_sticks.exp().unbind(-1))) + log_x


def _log_predictive(
    model: DPMixture, x: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"]
) -> Float[Tensor, "n T"]:
    """log E pi_k + sum_j log t(x_j) of the seen cells."""
    df, scale = _predictive(model)
    each = dist.StudentT(df, model.means, scale, validate_args=False).log_prob(x.unsqueeze(-2))
    return model.weights.log() + torch.where(seen.unsqueeze(-2), each, 0.0).sum(-1)


def _predictive(model: DPMixture) -> tuple[Float[Tensor, "T d"], Float[Tensor, "T d"]]:
    """Degrees of freedom and scale of a new cell of every component (Murphy 2007, eq. 110)."""
    _, kappa, a, b = model.base()
    return 2 * a, (b * (kappa + 1) / (a * kappa)).sqrt()


def _divergence(model: DPMixture) -> Float[Tensor, ""]:
    """KL of the shared factors of the guide from their priors."""
    (a, b), (alpha, log_alpha) = model.log_sticks.exp().unbind(-1), _alpha(model)
    total = stick_divergence(a, b, alpha, log_alpha)
    if model.concentration is None:
        one = model.rate.new_ones(())
        shape, rate = model.log_alpha.exp()
        total = total + gamma_divergence(shape, rate, one, one)
    return total + normal_gamma_divergence(model.base(), model.prior).sum()


def _alpha(model: DPMixture) -> tuple[Tensor, Tensor]:
    """E alpha and E log alpha."""
    if model.concentration is not None:
        alpha = model.rate.new_tensor(model.concentration)
        return alpha, alpha.log()
    shape, rate = model.log_alpha.exp()
    return shape / rate, torch.digamma(shape) - rate.log()


def _cells(model: DPMixture, batch: Batch) -> tuple[Float[Tensor, "n d"], Bool[Tensor, "n d"]]:
    x, seen = cells(batch, "x", tuple(model.location.shape))
    x = x.to(model.dtype)
    return x, torch.ones_like(x, dtype=torch.bool) if seen is None else seen


def _pieces(model: DPMixture, batch: Batch) -> Iterator[Batch]:
    return chunks(batch, max(1, _AT_ONCE // model.means.numel()))
