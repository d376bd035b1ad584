"""A normal hierarchical model with known standard errors: effects of groups that borrow strength.

    mu ~ N(0, a^2),  tau ~ HalfCauchy(b),  eta_j ~ N(0, 1),  theta_j = mu + tau eta_j,
    y_j ~ N(theta_j, sigma_j^2)

It is the model of the eight schools (Rubin 1981; Gelman et al. 2013, sec. 5.5) in non-centred form
(Betancourt & Girolami 2015), in which a small tau makes no funnel.
"""

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pgm.data import load
from pgm.families import Example
from pgm.model import Model, rows

__all__ = ["Hierarchical"]


class Hierarchical(Model):
    """Effects `theta` of n groups, from their estimates `y` and the standard errors `sigma`.

    A row is a group; `y` and the context `sigma` have shape (n,). Sites: mu and tau, shared; eta
    and the deterministic theta, by row. The guide is normal in (mu, log tau) and exact in eta:

        eta_j | mu, tau, y_j ~ N(v tau (y_j - mu) / sigma_j^2, v),  1 / v = 1 + tau^2 / sigma_j^2

    Args:
        mean_scale: prior sd a of the mean effect mu.
        spread_scale: scale b of the half-Cauchy prior of tau, the sd of the effects.

    Raises:
        ValueError: a scale that is not positive.

    Example:
        >>> from pgm.verbs import encode
        >>> schools = load("eight_schools").tensors
        >>> encode(Hierarchical(), dict(schools))["eta"]
        tensor([ 0.4769,  0.2819, -0.0453,  0.2091, -0.0421,  0.0299,  0.6342,  0.1451])
    """

    def __init__(self, *, mean_scale: float = 5.0, spread_scale: float = 5.0) -> None:
        super().__init__()
        if min(mean_scale, spread_scale) <= 0:
            raise ValueError(
                f"mean_scale is {mean_scale} and spread_scale {spread_scale}; both are scales of "
                "priors, above zero, in the units of y."
            )
        self.mean_scale, self.spread_scale = mean_scale, spread_scale
        self.mu_location = nn.Parameter(torch.zeros(()))
        self.mu_log_scale = nn.Parameter(torch.tensor(0.5 * mean_scale).log())
        self.tau_location = nn.Parameter(torch.tensor(0.5 * spread_scale).log())
        self.tau_log_scale = nn.Parameter(torch.zeros(()))

    def model(self, n: int, sigma: Float[Tensor, " n"]) -> None:
        """The effects around their mean, and the estimates around the effects."""
        zero = self.mu_location.new_zeros(())
        mu = pyro.sample("mu", dist.Normal(zero, self.mean_scale))
        tau = pyro.sample("tau", dist.HalfCauchy(zero + self.spread_scale))
        with rows(n):
            eta = pyro.sample("eta", dist.Normal(zero, 1.0))
            theta = pyro.deterministic("theta", mu + tau * eta, event_dim=0)
            pyro.sample("y", dist.Normal(theta, sigma))

    def guide(
        self,
        n: int,
        y: Float[Tensor, " n"],
        sigma: Float[Tensor, " n"],
        y_seen: Bool[Tensor, " n"] | None = None,
    ) -> None:
        """A normal for mu, a log-normal for tau, and the exact conditional of eta."""
        mu = pyro.sample("mu", dist.Normal(self.mu_location, self.mu_log_scale.exp()))
        tau = pyro.sample("tau", dist.LogNormal(self.tau_location, self.tau_log_scale.exp()))
        seen = 1.0 if y_seen is None else y_seen.to(sigma.dtype)
        v = 1 / (1 + seen * (tau / sigma).square())
        with rows(n):
            mean = seen * v * tau * (y - mu) / sigma.square()
            pyro.sample("eta", dist.Normal(mean, v.sqrt()))


def example() -> Example:
    """The eight schools: effects of coaching on test scores."""
    return Example(
        Hierarchical(),
        dict(load("eight_schools").tensors),
        fit={"steps": 500, "learning_rate": 0.05, "schedule": "cosine"},
    )
