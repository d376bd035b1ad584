"""Denoising diffusion: noise is taken away from a row step by step, until data are left.

A fixed process q adds noise, x_t = alpha_t x + sigma_t eps, until x_T is nearly N(0, 1); the model
runs back with p(x_{t-1} | x_t), whose mean is that of q(x_{t-1} | x_t, x = xhat(x_t)), the noise in
x_t being predicted by a network (Ho, Jain & Abbeel 2020). The log signal-to-noise ratio falls in
equal steps (Kingma, Salimans, Poole & Ho 2021); the variances are learned (Bao et al. 2022).

There are two programs over one set of weights: the explicit chain of T + 1 sites, which samples,
bounds densities and can be intervened on, and `objective`, which draws one step of it a row.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pgm.batch import SEEN, Batch, chunks, repeat, rows_of
from pgm.families import Example
from pgm.model import Model, rows
from pgm.nets import mlp
from pgm.objectives import objective
from pgm.verb import Unsupported
from pgm.verbs import Imputation, LogProb, decode, encode, impute, log_prob
from pgm.verbs.density import log_mean

__all__ = ["Diffusion", "example"]

_AT_ONCE = 2**13
_FREQUENCIES = (0.5, 1.0, 2.0, 4.0)


class Diffusion(Model):
    """Denoising diffusion (Ho, Jain & Abbeel 2020; Kingma et al. 2021) of real-valued rows.

    p(x, x_1 .. x_T) = N(x_T; 0, 1) prod_t N(x_{t-1}; mu_t(x_t), s_t^2) with x_0 = x. Mean and
    variance are those of independent Gaussians with learned location and scale, corrected by a
    network that is zero at first: an untrained model is N(0, 1). Bring the data to about that
    scale.

    Args:
        features: numbers in a row.
        steps: T. More make the bound tighter and imputation more exact; training costs the same.
        hidden: sizes of the network's hidden layers.
        log_snr: log alpha^2 / sigma^2 at x_T and at x_1. The second one sets the finest detail,
            a standard deviation of exp(-log_snr / 2): 0.03 for 7.

    Raises:
        ValueError: no feature, fewer than 2 steps, or ratios that do not increase.

    Example:
        >>> model = Diffusion(features=2, steps=50)
        >>> print(log_prob(model, torch.zeros(1, 2), particles=10))
        log p = -1.838 ± 0.000 nats a row (bound, 1 rows)
        >>> encode(model, torch.ones(1, 2))["x_50"].shape
        torch.Size([1, 2])
    """

    alpha: Tensor
    sigma: Tensor
    keep: Tensor
    pull: Tensor
    floor: Tensor
    gain: Tensor
    clock: Tensor

    def __init__(
        self,
        features: int,
        *,
        steps: int = 100,
        hidden: Sequence[int] = (128, 128),
        log_snr: tuple[float, float] = (-5.0, 7.0),
    ) -> None:
        super().__init__()
        _check_arguments(features, steps, log_snr)
        self.features, self.steps = features, steps
        for name, table in _schedule(steps, log_snr).items():
            self.register_buffer(name, table.to(torch.get_default_dtype()), persistent=False)
        self.location = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.network = mlp(features + self.clock.shape[-1], hidden, features)
        self.spread = nn.Linear(self.clock.shape[-1], features)
        for layer in (self.network[-1], self.spread):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def model(self, n: int) -> None:
        """The explicit chain x_T, ..., x_1, x."""
        T = self.steps
        with rows(n):
            x = pyro.sample(
                f"x_{T}", dist.Normal(self.alpha.new_zeros(self.features), 1).to_event(1)
            )
            for t in range(T, 0, -1):
                name = f"x_{t - 1}" if t > 1 else "x"
                x = pyro.sample(name, dist.Normal(*self.reverse(x, t)).to_event(1))

    def guide(self, n: int, x: Tensor, x_seen: Tensor | None = None) -> None:
        """The fixed noising q(x_1 | x) ... q(x_T | x_{T-1}), which learns nothing."""
        if x_seen is not None:
            raise Unsupported(_MISSING)
        with rows(n):
            for t in range(1, self.steps + 1):
                x = pyro.sample(f"x_{t}", dist.Normal(*self.forward_step(x, t)).to_event(1))

    def predict_noise(
        self, x_t: Float[Tensor, "*n features"], t: Tensor | int
    ) -> Float[Tensor, "*n features"]:
        """eps_theta(x_t, t): what is expected to be noise in x_t; t is one step, or one a row."""
        alpha, sigma = self.alpha[t, None], self.sigma[t, None]
        signal = alpha * self.log_scale.exp()
        total = torch.sqrt(signal**2 + sigma**2)
        z = (x_t - alpha * self.location) / total
        clock = self.clock[t].expand(*x_t.shape[:-1], -1)
        return sigma / total * z + signal / total * self.network(torch.cat([z, clock], -1))

    def denoise(
        self, x_t: Float[Tensor, "*n features"], t: Tensor | int
    ) -> Float[Tensor, "*n features"]:
        """xhat = (x_t - sigma_t eps_theta) / alpha_t, the row that is expected behind x_t."""
        return (x_t - self.sigma[t, None] * self.predict_noise(x_t, t)) / self.alpha[t, None]

    def variance(self, t: Tensor | int) -> Float[Tensor, "*t features"]:
        """s_t^2 = the variance of q(x_{t-1} | x_t, x) and of its mean, xhat being uncertain.

        The latter is `gain` times the variance of eps given x_t (Bao et al. 2022, Theorem 1): that
        of independent Gaussians, times a learned factor.
        """
        signal, noise = (self.alpha[t, None] * self.log_scale.exp()) ** 2, self.sigma[t, None] ** 2
        unpredicted = signal / (signal + noise) * self.spread(self.clock[t]).exp()
        return self.floor[t, None] + self.gain[t, None] * unpredicted

    def reverse(self, x_t: Float[Tensor, "*n features"], t: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(x_{t-1} | x_t) (Ho et al. 2020, eq. 7)."""
        return self.keep[t] * x_t + self.pull[t] * self.denoise(x_t, t), self.variance(t).sqrt()

    def forward_step(self, x: Float[Tensor, "*n features"], t: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(x_t | x_{t-1}) (Ho et al. 2020, eq. 2)."""
        ratio = self.alpha[t] / self.alpha[t - 1]
        return ratio * x, torch.sqrt(self.sigma[t] ** 2 - (ratio * self.sigma[t - 1]) ** 2)


def _schedule(steps: int, log_snr: tuple[float, float]) -> dict[str, Tensor]:
    """What the two processes need of every t = 0 .. T, in double precision; t = 0 is the data.

    With gamma = -log SNR: alpha^2 = sigmoid(-gamma), sigma^2 = sigmoid(gamma), and q(x_{t-1} | x_t,
    x) has mean keep x_t + pull x and variance floor (Kingma et al. 2021, App. A). With the noise
    unknown, x = (x_t - sigma eps) / alpha, the mean has the variance gain Var(eps).
    """
    gamma = -torch.linspace(log_snr[1], log_snr[0], steps, dtype=torch.float64)
    gamma = torch.cat([gamma.new_tensor([-torch.inf]), gamma])
    alpha, sigma = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
    share = -torch.expm1(gamma[:-1] - gamma[1:])
    keep, pull = (1 - share) * alpha[:-1] / alpha[1:], share * alpha[:-1]
    floor, gain = share * sigma[:-1] ** 2, (pull * sigma[1:] / alpha[1:]) ** 2
    angle = math.pi / 16 * gamma[1:, None] * torch.tensor(_FREQUENCIES, dtype=torch.float64)
    clock = torch.cat([angle.sin(), angle.cos()], -1)
    later = {"keep": keep, "pull": pull, "floor": floor, "gain": gain, "clock": clock}
    padded = {name: torch.cat([torch.zeros_like(v[:1]), v]) for name, v in later.items()}
    return {"alpha": alpha, "sigma": sigma, **padded}


@objective.register(Diffusion)
def _one_timestep(model: Diffusion, batch: Batch, *, size: int | None = None) -> Tensor:
    """The negative bound with the errors of one step t instead of all T: unbiased by row.

    KL(q(x_{t-1} | x_t, x) || p(x_{t-1} | x_t)) is known but for the error of the predicted noise,
    which costs c_t |eps - eps_theta|^2 / 2. So t is drawn in proportion to c_t; it is stratified
    over the rows (Kingma et al. 2021, App. I.1), and any t may fall to any row.
    """
    x, n = _cells(model, batch), rows_of(batch)
    s2 = model.variance(torch.arange(1, model.steps + 1, device=x.device))
    ratio = s2[1:] / model.floor[2:, None]
    known = (ratio.log() + 1 / ratio - 1).sum() + (2 * math.pi * s2[0]).log().sum()
    c = model.gain[1:, None] / s2
    share = c.detach().mean(-1) / c.detach().mean(-1).sum()
    u = (torch.rand((), device=x.device) + torch.arange(n, device=x.device) / n) % 1
    t = 1 + (u[:, None] >= share.cumsum(0)[:-1]).sum(-1)
    eps = torch.randn_like(x)
    x_t = model.alpha[t, None] * x + model.sigma[t, None] * eps
    squared = (eps - model.predict_noise(x_t, t)).square()
    error = (c[t - 1] / share[t - 1, None] * squared).sum(-1)
    alpha_T2, sigma_T2 = model.alpha[-1] ** 2, model.sigma[-1] ** 2
    prior = (alpha_T2 * x.square() + sigma_T2 - 1 - sigma_T2.log()).sum(-1)
    return (prior + known + error) / 2


@log_prob.register(Diffusion)
def _log_prob(model: Diffusion, batch: Batch, *, particles: int = 100) -> LogProb:
    """The importance-weighted bound of the explicit chain, one step in memory at a time."""
    _cells(model, batch)
    pieces = []
    for piece in chunks(batch, max(1, _AT_ONCE // particles)):
        x = _cells(model, repeat(piece, particles))
        pieces.append(log_mean(_log_weight(model, x).reshape(particles, -1)))
    value, error = (torch.cat(part) for part in zip(*pieces, strict=True))
    return LogProb(value, error, "bound")


def _log_weight(model: Diffusion, x: Float[Tensor, "n features"]) -> Float[Tensor, " n"]:
    """log p(x, x_1 .. x_T) - log q(x_1 .. x_T | x) for one draw of the noising."""
    log_w = x.new_zeros(len(x))
    for t in range(1, model.steps + 1):
        q = dist.Normal(*model.forward_step(x, t)).to_event(1)
        x_t = q.sample()
        p = dist.Normal(*model.reverse(x_t, t)).to_event(1)
        log_w, x = log_w + p.log_prob(x) - q.log_prob(x_t), x_t
    return log_w + dist.Normal(torch.zeros_like(x), 1.0).to_event(1).log_prob(x)


@encode.register(Diffusion)
def _encode(model: Diffusion, batch: Batch, *, draws: int | None = None) -> Batch:
    """x_T on the deterministic path of DDIM (Song, Meng & Ermon 2021, eq. 13).

    `decode` runs it back. With `draws`: x_T from the noising, which has all but forgotten x.
    """
    x = _cells(model, batch)
    if draws is not None:
        noise = torch.randn(draws, *x.shape, device=x.device, dtype=x.dtype)
        return Batch({f"x_{model.steps}": model.alpha[-1] * x + model.sigma[-1] * noise})
    x_t = model.alpha[1] * x
    x_t = x_t + model.sigma[1] * model.predict_noise(x_t, 1)
    for t in range(1, model.steps):
        x_t = _glide(model, x_t, t, t + 1)
    return Batch({f"x_{model.steps}": x_t})


@decode.register(Diffusion)
def _decode(model: Diffusion, z: Any, *, context: Any = None) -> Batch:
    """The row at the end of the deterministic path from x_T (DDIM, without fresh noise)."""
    last = f"x_{model.steps}"
    codes = dict(z) if isinstance(z, Mapping) else {last: z}
    if set(codes) != {last}:
        raise ValueError(
            f"Codes for {', '.join(map(repr, codes)) or 'no site'} came; the code of this model is "
            f"{last!r}, of shape (n, {model.features})."
        )
    x_t = torch.as_tensor(codes[last]).to(model.device, model.dtype)
    for t in range(model.steps, 0, -1):
        x_t = _glide(model, x_t, t, t - 1)
    return Batch(x=x_t)


def _glide(model: Diffusion, x_t: Tensor, t: int, to: int) -> Tensor:
    """One step of DDIM: x_to with the same expected row and the same noise as x_t."""
    eps = model.predict_noise(x_t, t)
    xhat = (x_t - model.sigma[t] * eps) / model.alpha[t]
    return model.alpha[to] * xhat + model.sigma[to] * eps


@impute.register(Diffusion)
def _impute(model: Diffusion, batch: Batch, *, draws: int = 5, particles: int = 200) -> Imputation:
    """SMCDiff, a particle filter down the chain (Trippe et al. 2023, Alg. 1).

    The seen cells are noised once; particles of x_t carry that path in the seen cells, are weighed
    by p(its next point | x_t), and drawn anew where less than half of them are effective. It is
    exact for many particles where the model is the reverse of its noising, as it is after training
    with many steps. `ess` is the least effective number of particles on the way.
    """
    x, seen = _cells(model, batch, missing=True), batch.get("x" + SEEN)
    seen = torch.ones_like(x, dtype=torch.bool) if seen is None else seen
    at_once = max(1, _AT_ONCE // particles)
    pairs = zip(x.split(at_once), seen.split(at_once), strict=True)
    done, w, ess = zip(*(_filter(model, *pair, particles) for pair in pairs), strict=True)
    chosen = torch.multinomial(torch.cat(w, 1).T, draws, replacement=True).T
    n = torch.arange(len(x), device=x.device)
    return Imputation(Batch(x=torch.cat(done, 1)[chosen, n]), torch.cat(ess))


def _filter(
    model: Diffusion, x: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"], particles: int
) -> tuple[Float[Tensor, "k n d"], Float[Tensor, "k n"], Float[Tensor, " n"]]:
    """Completed rows by particle, their weights, and the least effective number of particles."""
    path = [x]
    for t in range(1, model.steps + 1):
        path.append(dist.Normal(*model.forward_step(path[-1], t)).sample())
    x_t = torch.randn(particles, *x.shape, device=x.device, dtype=x.dtype)
    log_w, least = x_t.new_zeros(x_t.shape[:2]), x.new_full((len(x),), float(particles))
    same = torch.arange(particles, device=x.device)[:, None]
    n = torch.arange(len(x), device=x.device)
    for t in range(model.steps, 0, -1):
        mean, std = model.reverse(torch.where(seen, path[t], x_t), t)
        log_w = log_w + (dist.Normal(mean, std).log_prob(path[t - 1]) * seen).sum(-1)
        w = log_w.softmax(0)
        ess = 1 / w.square().sum(0)
        few, least = ess < particles / 2, torch.minimum(ess, least)
        chosen = torch.where(few, _systematic(w), same)
        log_w = log_w.masked_fill(few, 0.0)
        x_t = dist.Normal(mean[chosen, n], std).sample()
    return torch.where(seen, x, x_t), log_w.softmax(0), least


def _systematic(w: Float[Tensor, "particles n"]) -> Tensor:
    """Indices drawn in proportion to w: evenly spaced points under one shift a row."""
    particles, n = w.shape
    shift = torch.rand(n, 1, device=w.device, dtype=w.dtype)
    points = (torch.arange(particles, device=w.device) + shift) / particles
    chosen = torch.searchsorted(w.T.cumsum(-1).contiguous(), points)
    return chosen.clamp(max=particles - 1).T


_MISSING = (
    "Cells of 'x' are missing, and the noising of a diffusion starts from whole rows. Use "
    "pgm.impute to complete the rows by a particle filter, and ask again of each completion."
)


def _cells(model: Diffusion, batch: Batch, *, missing: bool = False) -> Tensor:
    """The rows of a batch that holds them, and nothing else, in the shape of the model."""
    unknown = [key for key in batch if key not in ("x", "x" + SEEN)]
    if unknown or "x" not in batch:
        raise ValueError(
            f"The batch has {', '.join(map(repr, batch))}; a Diffusion has one observed site, "
            "'x'. Rename the key, or leave it out."
        )
    if "x" + SEEN in batch and not missing:
        raise Unsupported(_MISSING)
    x = batch["x"]
    if x.shape[1:] != (model.features,):
        raise ValueError(
            f"Data for 'x' have shape {tuple(x.shape)}, but the model has {model.features} "
            f"features: pass (n, {model.features})."
        )
    return x.to(model.dtype)


def _check_arguments(features: int, steps: int, log_snr: tuple[float, float]) -> None:
    if features < 1:
        raise ValueError(f"features is {features}; a row has at least one number.")
    if steps < 2:
        raise ValueError(f"steps is {steps}; a chain has at least 2 steps, and 50 to be of use.")
    if not -math.inf < log_snr[0] < log_snr[1] < math.inf:
        raise ValueError(
            f"log_snr is {log_snr}; it holds the log signal-to-noise ratio of x_T, where nearly "
            "all is noise, and of x_1, where nearly none is: (-5.0, 7.0)."
        )


def example() -> Example:
    """Eight Gaussians around a circle of radius 1.4."""
    from pgm.data import load

    return Example(
        Diffusion(features=2, steps=30, hidden=(64, 64)),
        load("eight_gaussians", n=2000).x / 2,
        fit={"steps": 1000, "batch_size": 128, "learning_rate": 3e-3, "schedule": "cosine"},
    )
