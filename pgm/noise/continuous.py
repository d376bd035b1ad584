"""Noise forms of continuous distributions: x is an increasing function of u, and so u of x.

Location-scale families take the standard member as noise, x = mu + sigma u. Exponential, Weibull,
Pareto and Kumaraswamy grow from a standard exponential, which keeps both tails in float32.
Gamma, Chi2, Beta, StudentT and Dirichlet have the noise N(0, 1): x = Q(Phi(u)), with their quantile
function Q from SciPy and implicit gradients (`pgm.noise.quantiles`).
"""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import (
    Beta,
    Cauchy,
    Dirichlet,
    Distribution,
    Exponential,
    Gamma,
    GeneralizedPareto,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Kumaraswamy,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
)

from pgm.noise import draws
from pgm.noise.form import register
from pgm.noise.quantiles import normal_score, quantile

Draw = Callable[[Size, Tensor], Tensor]
Multivariate = MultivariateNormal | LowRankMultivariateNormal


def standard(draw: Draw, parameter: str) -> Callable[[Distribution, Size], Tensor]:
    """The rule `noise(fn, shape)` that fills the shape of x, in the dtype of a parameter."""
    return lambda fn, shape: draw(shape + fn.batch_shape + fn.event_shape, getattr(fn, parameter))


def folded(draw: Draw) -> Draw:
    """The absolute value of a draw."""
    return lambda shape, like: draw(shape, like).abs()


# x = mu + sigma u
LOCATION_SCALE: dict[type[Distribution], Draw] = {
    Normal: draws.normal,
    Laplace: draws.laplace,
    Cauchy: draws.cauchy,
    Gumbel: draws.gumbel,
    dist.Logistic: draws.logistic,
    dist.SoftLaplace: draws.soft_laplace,
}
for kind, draw in LOCATION_SCALE.items():
    register(
        kind,
        noise=standard(draw, "loc"),
        push=lambda fn, u: fn.loc + fn.scale * u,
        pull=lambda fn, x: (x - fn.loc) / fn.scale,
    )

# x = sigma |u|: the noise is the folded standard, so that x fixes it
for kind, draw in {HalfNormal: draws.normal, HalfCauchy: draws.cauchy}.items():
    register(
        kind,
        noise=standard(folded(draw), "scale"),
        push=lambda fn, u: fn.scale * u,
        pull=lambda fn, x: x / fn.scale,
    )

register(
    Uniform,
    noise=standard(draws.uniform, "low"),
    push=lambda fn, u: fn.low + (fn.high - fn.low) * u,
    pull=lambda fn, x: (x - fn.low) / (fn.high - fn.low),
)
register(
    Exponential,
    noise=standard(draws.exponential, "rate"),
    push=lambda fn, u: u / fn.rate,
    pull=lambda fn, x: fn.rate * x,
)
# P(X > x) = (1 - x^a)^b = exp(-u)
register(
    Kumaraswamy,
    noise=standard(draws.exponential, "concentration1"),
    push=lambda fn, u: (-torch.expm1(-u / fn.concentration0)) ** (1 / fn.concentration1),
    pull=lambda fn, x: -fn.concentration0 * torch.log1p(-(x**fn.concentration1)),
)


# P(X > x) = (1 + k (x - mu) / sigma)^(-1/k) = exp(-u); exponential at k = 0
def pareto_from_noise(fn: GeneralizedPareto, u: Tensor) -> Tensor:
    """x = mu + sigma (exp(k u) - 1) / k."""
    k, flat = without_zeros(fn.concentration)
    return fn.loc + fn.scale * torch.where(flat, u, torch.expm1(k * u) / k)


def pareto_to_noise(fn: GeneralizedPareto, x: Tensor) -> Tensor:
    """u = log(1 + k (x - mu) / sigma) / k."""
    k, flat = without_zeros(fn.concentration)
    z = (x - fn.loc) / fn.scale
    return torch.where(flat, z, torch.log1p(k * z) / k)


def without_zeros(k: Tensor) -> tuple[Tensor, Tensor]:
    """K with 1 in place of zeros, so that no gradient divides by them, and where they were."""
    flat = k.abs() < torch.finfo(k.dtype).tiny
    return torch.where(flat, 1.0, k), flat


register(
    GeneralizedPareto,
    noise=standard(draws.exponential, "loc"),
    push=pareto_from_noise,
    pull=pareto_to_noise,
)


def gamma_from_noise(fn: Gamma, u: Tensor) -> Tensor:
    """x = Q(Phi(u); a) / rate."""
    x = quantile("gamma", u, fn.concentration) / fn.rate
    return x.clamp(min=torch.finfo(x.dtype).tiny)


def beta_from_noise(fn: Beta, u: Tensor) -> Tensor:
    """x = Q(Phi(u); a, b), kept off 0 and 1."""
    x = quantile("beta", u, fn.concentration1, fn.concentration0)
    return x.clamp(torch.finfo(x.dtype).tiny, 1 - torch.finfo(x.dtype).eps / 2)


register(
    Gamma,
    noise=standard(draws.normal, "concentration"),
    push=gamma_from_noise,
    pull=lambda fn, x: normal_score("gamma", x * fn.rate, fn.concentration),
)
register(
    Beta,
    noise=standard(draws.normal, "concentration1"),
    push=beta_from_noise,
    pull=lambda fn, x: normal_score("beta", x, fn.concentration1, fn.concentration0),
)
# The noise of Student's t is normal, not t: the law of u must not depend on the degrees of freedom.
register(
    StudentT,
    noise=standard(draws.normal, "loc"),
    push=lambda fn, u: fn.loc + fn.scale * quantile("student", u, fn.df),
    pull=lambda fn, x: normal_score("student", (x - fn.loc) / fn.scale, fn.df),
)


# x = mu + L u with the Cholesky factor L of the covariance
def multivariate_from_noise(fn: Multivariate, u: Tensor) -> Tensor:
    """x = mu + L u."""
    return fn.loc + (cholesky(fn) @ u.unsqueeze(-1)).squeeze(-1)


def multivariate_to_noise(fn: Multivariate, x: Tensor) -> Tensor:
    """Solve L u = x - mu."""
    centred = (x - fn.loc).unsqueeze(-1)
    return torch.linalg.solve_triangular(cholesky(fn), centred, upper=False).squeeze(-1)


def cholesky(fn: Multivariate) -> Tensor:
    """L, without the batch axes that it only repeats."""
    if isinstance(fn, MultivariateNormal):
        return fn._unbroadcasted_scale_tril
    W, D = fn._unbroadcasted_cov_factor, fn._unbroadcasted_cov_diag
    return torch.linalg.cholesky(W @ W.mT + torch.diag_embed(D))


for kind in (MultivariateNormal, LowRankMultivariateNormal):
    register(
        kind,
        noise=standard(draws.normal, "loc"),
        push=multivariate_from_noise,
        pull=multivariate_to_noise,
    )


# Dirichlet by breaking a stick: part i takes a Beta(a_i, a_{i+1} + ... + a_k) fraction of what is
# left. The order of the parts enters, as it does into L above.
def stick(fn: Dirichlet) -> tuple[Tensor, Tensor]:
    """The parameters of the k - 1 beta fractions."""
    a = fn.concentration
    left = a.flip(-1).cumsum(-1).flip(-1)
    return a[..., :-1], left[..., 1:]


def dirichlet_noise(fn: Dirichlet, shape: Size) -> Tensor:
    """One normal score a fraction."""
    a, _ = stick(fn)
    return draws.normal(shape + fn.batch_shape + a.shape[-1:], a)


def dirichlet_from_noise(fn: Dirichlet, u: Tensor) -> Tensor:
    """x_i = f_i (1 - f_1) ... (1 - f_{i-1}); 1 - f is the mirrored quantile, without rounding."""
    a, b = stick(fn)
    fraction, rest = quantile("beta", u, a, b), quantile("beta", -u, b, a)
    one = torch.ones_like(rest[..., :1])
    left = torch.cat([one, rest.cumprod(-1)], -1)
    return torch.cat([fraction, one], -1) * left


def dirichlet_to_noise(fn: Dirichlet, x: Tensor) -> Tensor:
    """Score of f_i = x_i / (x_i + ... + x_k), taken from its smaller side."""
    a, b = stick(fn)
    left = x.flip(-1).cumsum(-1).flip(-1)
    fraction, rest = x[..., :-1] / left[..., :-1], left[..., 1:] / left[..., :-1]
    small = fraction < rest
    u = normal_score(
        "beta",
        torch.where(small, fraction, rest),
        torch.where(small, a, b),
        torch.where(small, b, a),
    )
    return torch.where(small, u, -u)


register(Dirichlet, noise=dirichlet_noise, push=dirichlet_from_noise, pull=dirichlet_to_noise)
