"""Broken sticks and normal-gamma laws under factorised guides: expectations and divergences.

pi_t = v_t prod_{s<t} (1 - v_s), the last stick being all that is left (Sethuraman 1994; Ishwaran &
James 2001), with q(v_t) = Beta and q(mu, tau) = N(mu; m, 1 / (kappa tau)) Gamma(tau; a, b).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Beta, Gamma, kl_divergence
from torch.nn.functional import pad


def stick_breaking(
    opened: Float[Tensor, "*n t"], closed: Float[Tensor, "*n t"]
) -> Float[Tensor, "*n T"]:
    """log v_t + sum_{s<t} log (1 - v_s) of T = t + 1 components.

    Example:
        >>> stick_breaking(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.5, 0.5]).log()).exp()
        tensor([0.5000, 0.2500, 0.2500])
    """
    return pad(opened, (0, 1)) + pad(closed.cumsum(-1), (1, 0))


def expected_logs(
    a: Float[Tensor, " t"], b: Float[Tensor, " t"]
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    """E log v and E log (1 - v) of Beta(a, b)."""
    total = torch.digamma(a + b)
    return torch.digamma(a) - total, torch.digamma(b) - total


def stick_divergence(
    a: Float[Tensor, " t"],
    b: Float[Tensor, " t"],
    alpha: Float[Tensor, ""],
    log_alpha: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """The mean over alpha of KL(q(v) || Beta(1, alpha)), from E alpha and E log alpha."""
    entropy: Tensor = _of(Beta, a, b).entropy().sum()
    return -entropy - (log_alpha + (alpha - 1) * expected_logs(a, b)[1]).sum()


def normal_gamma_posterior(
    prior: tuple[Tensor, ...],
    x: Float[Tensor, "n d"],
    mask: Float[Tensor, "n d"],
    r: Float[Tensor, "n T"],
) -> tuple[Float[Tensor, "T d"], ...]:
    """m, kappa, a, b of every component given rows weighed by r (Bishop 2006, Sec. 2.3.6)."""
    m0, kappa0, a0, b0 = prior
    y = mask * (x - m0)  # far from zero the squares of x would leave no digits
    N, first, second = r.T @ mask, r.T @ y, r.T @ y.square()
    kappa = kappa0 + N
    b = b0 + 0.5 * (second - first.square() / kappa).clamp(min=0.0)
    return m0 + first / kappa, kappa, a0 + 0.5 * N, b


def normal_gamma_divergence(
    q: tuple[Tensor, ...], prior: tuple[Tensor, ...]
) -> Float[Tensor, "T d"]:
    """KL between normal-gamma laws (m, kappa, a, b), element by element."""
    (m, kappa, a, b), (m0, kappa0, a0, b0) = q, prior
    ratio, far = kappa0 / kappa, kappa0 * a / b * (m - m0).square()
    return gamma_divergence(a, b, a0, b0) + 0.5 * (ratio - 1 - ratio.log() + far)


def gamma_divergence(a: Tensor, b: Tensor, prior_a: Tensor, prior_b: Tensor) -> Tensor:
    """KL(Gamma(a, b) || Gamma(prior_a, prior_b)), element by element."""
    return kl_divergence(_of(Gamma, a, b), _of(Gamma, prior_a, prior_b))


def check_prior(
    features: int,
    components: int,
    concentration: float | None,
    location: Sequence[float] | None,
    scale: Sequence[float] | None,
    strength: float,
    shape: float,
) -> None:
    """The parameters of a `DPMixture` (ValueError)."""
    if features < 1 or components < 2:
        raise ValueError(
            f"features is {features} and components {components}; a stick is broken at least once."
        )
    for name, value in {"location": location, "scale": scale}.items():
        if value is not None and len(value) != features:
            raise ValueError(f"{name} has {len(value)} numbers; it takes one for each feature.")
    positive = {"concentration": 1.0 if concentration is None else concentration}
    positive |= {"strength": strength, "shape - 1": shape - 1, "scale": min(scale or [1.0])}
    for name, number in positive.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} is {number:g}; it is positive and finite.")


def _of(family: Any, *parameters: Tensor) -> Any:
    """Without the checks of arguments, which `torch.func.vmap` cannot run."""
    return family(*parameters, validate_args=False)
