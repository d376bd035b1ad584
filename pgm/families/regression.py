"""Bayesian linear regression: shared weights with priors, and a row's outcome given its covariates.

    w ~ N(0, s_w^2),  b ~ N(0, s_b^2),  sigma ~ HalfNormal(s),  y_i ~ N(x_i w + b, sigma^2)

(Gelman et al. 2013, ch. 14). The guide is a normal with full covariance over w and b, and a
log-normal over sigma. With sigma known the posterior is normal in closed form (Bishop 2006, eqs
3.53 and 3.54), which the tests compare with.
"""

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pgm.families import Example
from pgm.model import Model, rows
from pgm.verbs.coding import decode, encode

__all__ = ["Regression"]


class Regression(Model):
    """Linear regression of `y` on the context `x`, with a posterior over its coefficients.

    `x` has shape (n, features) and `y` shape (n,). The default priors are meant for standardised
    columns. `log_prob` is the log posterior predictive density of y given x, under the guide.

    Args:
        features: covariates.
        intercept: whether there is a site "intercept".
        weight_scale: prior sd s_w of each of the "weights".
        intercept_scale: prior sd s_b of the intercept.
        noise_scale: scale s of the half-normal prior of "noise", the residual sd.

    Raises:
        ValueError: no feature, or a scale that is not positive.

    Example:
        >>> import pgm
        >>> x = torch.linspace(-1.0, 1.0, 50).unsqueeze(-1)
        >>> model, data = Regression(1), {"x": x, "y": 1 + 2 * x.squeeze()}
        >>> options = {"steps": 600, "learning_rate": 0.05, "schedule": "cosine"}
        >>> run = pgm.fit(model, data, seed=0, **options)
        >>> model.location
        Parameter containing:
        tensor([2.0], requires_grad=True)
    """

    def __init__(
        self,
        features: int,
        *,
        intercept: bool = True,
        weight_scale: float = 2.5,
        intercept_scale: float = 2.5,
        noise_scale: float = 1.0,
    ) -> None:
        super().__init__()
        _check(features, weight_scale, intercept_scale, noise_scale)
        self.features, self.intercept = features, intercept
        self.weight_scale, self.intercept_scale = weight_scale, intercept_scale
        self.noise_scale = noise_scale
        self.location = nn.Parameter(torch.zeros(features))
        self.cholesky = nn.Parameter(torch.eye(features) * _START)
        if intercept:
            self.intercept_location = nn.Parameter(torch.zeros(()))
            self.intercept_slope = nn.Parameter(torch.zeros(features))
            self.intercept_log_scale = nn.Parameter(torch.tensor(_START).log())
        self.noise_location = nn.Parameter(torch.tensor(0.5 * noise_scale).log())
        self.noise_log_scale = nn.Parameter(torch.tensor(_START).log())

    def model(self, n: int, x: Float[Tensor, "n features"]) -> None:
        """The coefficients, shared by all rows, and the outcome of each row."""
        zero = self.location.new_zeros(())
        weights = pyro.sample(
            "weights", dist.Normal(zero, self.weight_scale).expand([self.features]).to_event(1)
        )
        mean = x @ weights
        if self.intercept:
            mean = mean + pyro.sample("intercept", dist.Normal(zero, self.intercept_scale))
        noise = pyro.sample("noise", dist.HalfNormal(zero + self.noise_scale))
        with rows(n):
            pyro.sample("y", dist.Normal(mean, noise))

    def guide(self, n: int) -> None:
        """The posterior: a normal over weights and intercept, a log-normal over the noise."""
        factor = self.cholesky.tril(-1) + self.cholesky.diag().abs().diag()
        weights = pyro.sample("weights", dist.MultivariateNormal(self.location, scale_tril=factor))
        if self.intercept:
            centre = self.intercept_location + (weights - self.location) @ self.intercept_slope
            pyro.sample("intercept", dist.Normal(centre, self.intercept_log_scale.exp()))
        pyro.sample("noise", dist.LogNormal(self.noise_location, self.noise_log_scale.exp()))


_START = 0.1
"""The guide's standard deviations before it is fitted."""

encode.refuse(
    Regression,
    "its latents (weights, intercept, noise) are shared by all rows, and no row has a code of its "
    "own. Use pgm.inference.variational or pgm.inference.mcmc for their posterior.",
)
decode.refuse(
    Regression,
    "its latents are shared by all rows: there is no code of a row to decode. Use pgm.sample with "
    "context={'x': ...}, which predicts y under the posterior.",
)


def _check(features: int, *scales: float) -> None:
    if features < 1:
        raise ValueError(f"features is {features}; a regression has at least one covariate.")
    if min(scales) <= 0:
        raise ValueError(
            f"The prior scales are {scales}; each is a standard deviation, above zero. Pass a "
            "large one for a vague prior."
        )


def example() -> Example:
    """Two correlated covariates and an outcome, 200 rows."""
    noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    x = torch.stack([noise[:, 0], 0.6 * noise[:, 0] + 0.8 * noise[:, 1]], -1)
    y = 1.0 + x @ torch.tensor([1.0, -2.0]) + 0.5 * noise[:, 2]
    return Example(
        Regression(2),
        {"x": x, "y": y},
        fit={"batch_size": 200, "steps": 600, "learning_rate": 0.05, "schedule": "cosine"},
    )
