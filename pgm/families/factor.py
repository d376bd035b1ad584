"""Factor analysis and probabilistic PCA: a Gaussian whose covariance is low-rank plus noise.

    z ~ N(0, I),    x | z ~ N(W z + mu, Psi)

with Psi diagonal (factor analysis; Rubin & Thayer 1982) or sigma^2 I (Tipping & Bishop 1999, eq.
2). The posterior of z is Gaussian (eq. 6) also where cells of x are missing, and it is the guide:
every importance weight is log p(x) itself, whatever z was drawn. PPCA has its maximum likelihood
in closed form (eqs 7 and 8), and so has W given Psi, after which Psi is found by L-BFGS-B (Joreskog
1967, "Some contributions to maximum likelihood factor analysis").
"""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pgm.batch import SEEN, Batch, as_batch, cells
from pgm.data import load
from pgm.families import Example
from pgm.model import Model, rows
from pgm.objectives import objective
from pgm.randomness import seeded
from pgm.verbs import LogProb, log_prob

__all__ = ["PPCA", "FactorAnalysis", "example"]

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class FactorAnalysis(Model):
    """Factor analysis (Rubin & Thayer 1982; Murphy 2022, Sec. 20.2): each feature its own noise.

    The columns of the loading are determined up to a rotation of z. Missing cells are integrated
    out everywhere: in the density, the posterior and the loss.

    Args:
        features: d, the cells of a row.
        latents: q, at most d.

    Attributes:
        mean: mu, shape (d,).
        loading: W, shape (d, q), drawn at random to begin with.
        log_noise: log standard deviation of the noise, shape (d,).

    Raises:
        ValueError: a size below 1, or more latents than features.

    Example:
        >>> model = FactorAnalysis(features=2, latents=1)
        >>> _ = model.load_state_dict(
        ...     {"mean": torch.zeros(2), "loading": torch.ones(2, 1), "log_noise": torch.zeros(2)}
        ... )
        >>> log_prob(model, torch.ones(1, 2)).value  # N([1, 1]; 0, [[2, 1], [1, 2]])
        tensor([-2.7205])
        >>> model.posterior(torch.ones(1, 2))[0]
        tensor([[0.6667]], grad_fn=<SqueezeBackward1>)
    """

    def __init__(self, features: int, latents: int) -> None:
        super().__init__()
        _check_sizes(features, latents)
        self.mean = nn.Parameter(torch.zeros(features))
        self.loading = nn.Parameter(torch.randn(features, latents) / math.sqrt(2 * latents))
        self.log_noise = nn.Parameter(torch.zeros(features))

    @property
    def noise(self) -> Float[Tensor, " d"]:
        """Standard deviation of the noise of every feature: the root of the diagonal of Psi."""
        return self.log_noise.exp().expand(len(self.mean))

    @classmethod
    def from_data(cls, x: Any, latents: int) -> "FactorAnalysis":
        """The model of maximum likelihood, computed without noise: it is not private.

        W is the best one given Psi, so that d numbers are searched (Joreskog 1967). A noise may end
        at its bound, a millionth of the variance of its feature (a Heywood case): the feature is
        then a factor itself, and fewer latents would say as much.

        Args:
            x: complete rows, shape (n, d).
            latents: q, fewer than d.

        Raises:
            ValueError: missing cells, x that is no matrix, a constant column, as many latents as
                features, or no more rows than features.

        Example:
            >>> z = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
            >>> model = FactorAnalysis.from_data(torch.cat([z, z.sin(), z.exp()], 1), latents=1)
            >>> model.loading.shape
            torch.Size([3, 1])
        """
        x = _complete_rows(x)
        n, d = x.shape
        _check_sizes(d, latents)
        mu = x.double().mean(0)
        S = (x - mu).T @ (x - mu) / n
        if latents == d or n <= d or not bool((S.diagonal() > 1e-12 * mu.square()).all()):
            raise ValueError(
                f"{n} rows of {d} features came for {latents} latents. Where a column is constant, "
                "rows are no more than features, or latents as many, the likelihood is unbounded. "
                "Leave the column out, use fewer latents, or more rows."
            )
        W, log_noise = _joreskog(S, latents)
        with seeded(0):
            model = cls(d, latents).to(x)
        model.load_state_dict({"mean": mu, "loading": W, "log_noise": log_noise})
        return model

    def model(self, n: int) -> None:
        """z ~ N(0, I), x ~ N(W z + mu, Psi)."""
        prior = dist.Normal(self.mean.new_zeros(self.loading.shape[1]), 1.0).to_event(1)
        with rows(n):
            z = pyro.sample("z", prior)
            centre = self.mean + z @ self.loading.T
            pyro.sample("x", dist.Normal(centre, self.noise).to_event(1))

    def guide(
        self, n: int, x: Float[Tensor, "n d"], x_seen: Bool[Tensor, "n d"] | None = None
    ) -> None:
        """The posterior of z given the seen cells, exactly."""
        m, scale_tril = self.posterior(x, x_seen)
        with rows(n):
            pyro.sample("z", dist.MultivariateNormal(m, scale_tril=scale_tril))

    def posterior(
        self, x: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"] | None = None
    ) -> tuple[Float[Tensor, "n q"], Float[Tensor, "*n q q"]]:
        """p(z | x) = N(m, S S^T) with precision I + W^T Psi^-1 W (Tipping & Bishop 1999, eq. 6).

        Args:
            x: the rows.
            seen: the cells that were seen; the others are left out.

        Returns:
            Means m, and the lower triangular S: one a row if cells are missing, else one for all.
        """
        W, q = self.loading, self.loading.shape[1]
        weight = self.noise**-2 if seen is None else seen * self.noise**-2
        outer = (W[:, :, None] * W[:, None, :]).flatten(1)
        precision = (weight @ outer).unflatten(-1, (q, q)) + torch.eye(q).to(W)
        S = _inverse_root(precision)
        b = ((x - self.mean) * weight) @ W
        return (S @ (S.mT @ b.unsqueeze(-1))).squeeze(-1), S


class PPCA(FactorAnalysis):
    """Probabilistic principal component analysis (Tipping & Bishop 1999): one noise for all.

    Args:
        features: d, the cells of a row.
        latents: q, at most d.

    Attributes:
        mean: mu, shape (d,).
        loading: W, shape (d, q); at the maximum of the likelihood it spans the first q principal
            axes.
        log_noise: log sigma, shape ().

    Raises:
        ValueError: a size below 1, or more latents than features.

    Example:
        >>> x = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> model = PPCA.closed_form(x, latents=1)
        >>> model.noise**2
        tensor([0.5000, 0.5000], grad_fn=<PowBackward0>)
        >>> print(log_prob(model, x))
        log p = -3.243 ± 0.000 nats a row (exact, 4 rows)
    """

    def __init__(self, features: int, latents: int) -> None:
        super().__init__(features, latents)
        self.log_noise = nn.Parameter(torch.zeros(()))

    @classmethod
    def from_data(cls, x: Any, latents: int) -> "PPCA":
        """As `closed_form`."""
        return cls.closed_form(x, latents)

    @classmethod
    def closed_form(cls, x: Any, latents: int) -> "PPCA":
        """The model of maximum likelihood (Tipping & Bishop 1999, eqs 7 and 8).

        W = U_q (L_q - sigma^2 I)^1/2 with the q largest eigenvalues and their vectors of the
        covariance; sigma^2 is the mean of the others. It is computed from the rows without noise,
        so it is not private.

        Args:
            x: complete rows, shape (n, d).
            latents: q, fewer than d.

        Raises:
            ValueError: missing cells, x that is no matrix, as many latents as features, or rows
                that lie in a q-dimensional plane, where the likelihood is unbounded.
        """
        x = _complete_rows(x)
        d = x.shape[1]
        _check_sizes(d, latents)
        mu = x.double().mean(0)
        eigenvalues, U = torch.linalg.eigh((x - mu).T @ (x - mu) / len(x))
        noise2 = eigenvalues[: d - latents].mean()
        if latents == d or not bool(noise2 > 1e-12 * eigenvalues[-1]):
            raise ValueError(
                f"{len(x)} rows of {d} features leave nothing to the noise beside {latents} "
                "latents, so that the likelihood is unbounded. Use fewer latents, or more rows."
            )
        W = U[:, d - latents :] * (eigenvalues[d - latents :] - noise2).sqrt()
        with seeded(0):
            model = cls(d, latents).to(x)
        parameters = {"mean": mu, "loading": W.flip(-1), "log_noise": noise2.log() / 2}
        model.load_state_dict(parameters)
        return model


def example() -> Example:
    """Two moons as an ellipse: one latent, the noise around it."""
    return Example(
        PPCA(2, 1), load("two_moons", n=500).x, fit={"steps": 200, "learning_rate": 0.03}
    )


@objective.register(FactorAnalysis)
def _loss(model: FactorAnalysis, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """-log p(x), exact; the generic bound has the same value and the same gradient."""
    return -_log_marginal(model, *cells(batch, "x", tuple(model.mean.shape)))


@log_prob.register(FactorAnalysis)
def _density(model: FactorAnalysis, batch: Batch, *, particles: int = 100) -> LogProb:
    """log N(x; mu, W W^T + Psi), exact; missing cells are integrated out."""
    value = _log_marginal(model, *cells(batch, "x", tuple(model.mean.shape)))
    return LogProb(value, torch.zeros_like(value), "exact")


def _log_marginal(
    model: FactorAnalysis, x: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"] | None
) -> Float[Tensor, " n"]:
    """log p(x, m) - log p(m | x) at the posterior mean m: Bayes' rule, without d x d matrices."""
    m, S = model.posterior(x, seen)
    residual = (x - model.mean - m @ model.loading.T) / model.noise
    log_p = -0.5 * residual**2 - model.noise.log() - _HALF_LOG_TAU
    log_p = log_p if seen is None else torch.where(seen, log_p, 0.0)
    return log_p.sum(-1) - 0.5 * m.square().sum(-1) + S.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _joreskog(
    S: Float[Tensor, "d d"], latents: int
) -> tuple[Float[Tensor, "d q"], Float[Tensor, " d"]]:
    """W and log noise of the highest likelihood of rows with covariance S.

    With theta the eigenvalues of Psi^-1/2 S Psi^-1/2 and U its vectors, W is Psi^1/2 U_q (theta_q -
    I)^1/2, and -2 log p a row is log |Psi| + sum of log theta + 1 of the q largest and theta of the
    others, up to a constant (Joreskog 1967).
    """
    from scipy.optimize import minimize

    scale = S.diagonal().sqrt()
    R = S / scale / scale.unsqueeze(-1)

    def loss(log_psi: Any) -> tuple[float, Any]:
        at = torch.from_numpy(log_psi).requires_grad_()
        root = (-0.5 * at).exp()
        theta = torch.linalg.eigvalsh(root * R * root.unsqueeze(-1)).flip(0)
        first, rest = theta[:latents].clamp(min=1.0), theta[latents:]
        below = (theta[:latents] - first).sum()  # a factor that explains nothing
        value = at.sum() + (first.log() + 1).sum() + below + rest.sum()
        return value.item(), torch.autograd.grad(value, at)[0].numpy()

    options = {"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-9}
    search: dict[str, Any] = {"jac": True, "method": "L-BFGS-B", "options": options}
    bounds = [(math.log(1e-6), 0.0)] * len(S)
    found = [minimize(loss, at, bounds=bounds, **search) for at in _noises(R, latents)]
    root = torch.from_numpy(0.5 * min(found, key=lambda end: end.fun).x).exp()
    theta, U = torch.linalg.eigh(R / root / root.unsqueeze(-1))
    stretch = (theta.flip(0)[:latents] - 1).clamp(min=0).sqrt()
    W = (scale * root).unsqueeze(-1) * U.flip(1)[:, :latents] * stretch
    return W, (scale * root).log()


def _noises(R: Float[Tensor, "d d"], latents: int) -> list[Any]:
    """Where the search begins, log Psi: the optima are several where one is a Heywood case.

    What the other columns leave of each (Joreskog 1967), what the principal axes leave, and
    all of it.
    """
    alone = 1 / torch.linalg.inv(R + 1e-9 * torch.eye(len(R)).to(R)).diagonal()
    value, U = torch.linalg.eigh(R)
    beside = (U[:, :-latents].square() * value[:-latents]).sum(1)
    starts = [(1 - 0.5 * latents / len(R)) * alone, beside, torch.ones_like(alone)]
    return [psi.clamp(1e-3, 1.0).log().numpy() for psi in starts]


def _inverse_root(precision: Float[Tensor, "*n q q"]) -> Float[Tensor, "*n q q"]:
    """The lower triangular S with S S^T = precision^-1."""
    U = torch.linalg.cholesky(precision.flip(-2, -1)).flip(-2, -1)
    identity = torch.eye(precision.shape[-1]).to(precision)
    return torch.linalg.solve_triangular(U.mT, identity, upper=False)


def _complete_rows(data: Any) -> Float[Tensor, "n d"]:
    batch = as_batch(data)
    if "x" + SEEN in batch or "x" not in batch or batch["x"].dim() != 2:
        raise ValueError(
            f"The closed form takes complete rows of shape (n, d), but {batch} came"
            + (", with missing cells" if "x" + SEEN in batch else "")
            + ". Drop the incomplete rows, or use pgm.fit, which integrates missing cells out."
        )
    x = batch["x"]
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _check_sizes(features: int, latents: int) -> None:
    if not 1 <= latents <= features:
        raise ValueError(
            f"{latents} latents for {features} features: factor analysis explains the features by "
            "1 to as many latents; more would not change the covariance. Use fewer latents."
        )
