"""What a replayed step costs beside Pyro's SVI and beside plain torch, and what compiling costs.

Prints microseconds of processor time a step, all sides by turns in one process on one thread, and
the median ratios of the turns; the seconds that the first replayed step took, compilation and all
(wall clock: the C++ compiler is another process). The whole data are one minibatch but for the VAE.
The last line is the log density of eight schools and its gradient, 32 chains a call.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import pgm
from pgm.data import load
from pgm.families.hierarchical import Hierarchical
from pgm.families.vae import VAE
from pgm.inference.traced import log_density

RATE = 1e-2
COMPONENTS = 4


def main() -> None:
    """The table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'a step of':<30}{'replayed':>10}{'Pyro':>10}{'torch':>10}   against each   compiling")
    for n in (1000, 10_000):
        with_logistic(n)
    with_mixture(1000)
    with_vae(steps=10)
    with_chains()


def with_logistic(n: int) -> None:
    """Bayesian logistic regression on 20 covariates, a normal guide for each weight."""
    x = torch.randn(n, 20)
    y = (torch.rand(n) < torch.sigmoid(x @ torch.randn(20))).float()

    def loss(location: Tensor, log_scale: Tensor) -> Tensor:
        q = torch.distributions.Normal(location, log_scale.exp(), validate_args=False)
        w = q.rsample()
        prior = torch.distributions.Normal(0.0, 1.0, validate_args=False).log_prob(w).sum()
        misfit = binary_cross_entropy_with_logits(x @ w, y, reduction="sum")
        return (misfit - prior + q.log_prob(w).sum()) / n

    data = {"x": x, "y": y}
    by_pyro = pyro_steps(OrdinaryLogistic(), Trace_ELBO(), x, y)
    plain = plain_steps(loss, torch.zeros(20), torch.full((20,), -2.0))
    compare(f"logistic regression {n} x 20", replayed(Logistic(), data, n), by_pyro, plain)


def with_mixture(n: int) -> None:
    """A mixture whose labels are summed out; a normal guide for each mean."""
    y = torch.randn(n) + 3.0 * torch.randint(COMPONENTS, (n,))

    def loss(location: Tensor, log_scale: Tensor, logits: Tensor) -> Tensor:
        q = torch.distributions.Normal(location, log_scale.exp(), validate_args=False)
        mu = q.rsample()
        prior = torch.distributions.Normal(0.0, 5.0, validate_args=False).log_prob(mu).sum()
        cell = torch.distributions.Normal(mu, 1.0, validate_args=False).log_prob(y[:, None])
        fit = (logits.log_softmax(-1) + cell).logsumexp(-1).sum()
        return (q.log_prob(mu).sum() - prior - fit) / n

    start = torch.linspace(0.0, 9.0, COMPONENTS)
    by_pyro = pyro_steps(OrdinaryMixture(), TraceEnum_ELBO(max_plate_nesting=1), y)
    plain = plain_steps(loss, start, torch.full_like(start, -2.0), torch.zeros(COMPONENTS))
    compare(f"mixture of {COMPONENTS}, {n} rows", replayed(Mixture(), {"y": y}, n), by_pyro, plain)


def with_vae(steps: int) -> None:
    """The variational autoencoder 784-400-20 in minibatches of 128 (Kingma & Welling 2014)."""
    x = torch.rand(1280, 784).round()
    model = VAE(784, latents=20, hidden=(400,))
    twin = VAE(784, latents=20, hidden=(400,))

    def loss() -> Tensor:
        batch = x[torch.randperm(len(x))[:128]]
        mu, log_sigma = twin.encoder(batch).chunk(2, -1)
        z = mu + log_sigma.exp() * torch.randn_like(mu)
        misfit = binary_cross_entropy_with_logits(twin.decoder(z), batch, reduction="sum")
        divergence = 0.5 * (mu**2 + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum()
        return (misfit + divergence) / 128

    optimiser = torch.optim.Adam(twin.parameters(), lr=1e-3, fused=True)
    plain = descend(loss, optimiser)
    compare("VAE 784-400-20, batch 128", replayed(model, x, 128, skip=10), None, plain, steps=steps)


class Logistic(pgm.Model):
    """w ~ N(0, I), y ~ Bernoulli(sigmoid(x w))."""

    def __init__(self) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.zeros(20))
        self.log_scale = nn.Parameter(torch.full((20,), -2.0))

    def model(self, n: int, x: Tensor) -> None:
        """The joint program."""
        w = pyro.sample("w", dist.Normal(torch.zeros(20), 1.0).to_event(1))
        with pgm.rows(n):
            pyro.sample("y", dist.Bernoulli(logits=x @ w))

    def guide(self, n: int) -> None:
        """A normal for each weight."""
        pyro.sample("w", dist.Normal(self.location, self.log_scale.exp()).to_event(1))


class OrdinaryLogistic(PyroModule):
    """The same as Pyro's tutorials write it."""

    def forward(self, x: Tensor, y: Tensor) -> None:
        """The joint program."""
        w = pyro.sample("w", dist.Normal(torch.zeros(20), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


class Mixture(pgm.Model):
    """mu_k ~ N(0, 25), y ~ sum_k pi_k N(mu_k, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.linspace(0.0, 9.0, COMPONENTS))
        self.log_scale = nn.Parameter(torch.full((COMPONENTS,), -2.0))
        self.logits = nn.Parameter(torch.zeros(COMPONENTS))

    def model(self, n: int) -> None:
        """The joint program."""
        mu = pyro.sample("mu", dist.Normal(torch.zeros(COMPONENTS), 5.0).to_event(1))
        with pgm.rows(n):
            labels = dist.Categorical(logits=self.logits)
            k = pyro.sample("k", labels, infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(mu[k], 1.0))

    def guide(self, n: int) -> None:
        """A normal for each mean."""
        pyro.sample("mu", dist.Normal(self.location, self.log_scale.exp()).to_event(1))


class OrdinaryMixture(PyroModule):
    """The same as Pyro's tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = PyroParam(torch.zeros(COMPONENTS))

    def forward(self, y: Tensor) -> None:
        """The joint program."""
        mu = pyro.sample("mu", dist.Normal(torch.zeros(COMPONENTS), 5.0).to_event(1))
        with pyro.plate("data", len(y)):
            labels = dist.Categorical(logits=self.logits)
            k = pyro.sample("k", labels, infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(mu[k], 1.0), obs=y)


def replayed(model: pgm.Model, data: Any, rows: int, skip: int = 1) -> tuple[float, Iterator[Any]]:
    """Our loop after its first replayed step, and the seconds that this step took."""
    options: dict[str, Any] = {"batch_size": rows, "learning_rate": RATE, "compile": "inductor"}
    steps = iter(pgm.training(model, data, steps=10**7, seed=0, **options))
    for _ in repeat(None, skip):  # the first epoch is not replayed
        next(steps)
    start = time.perf_counter()
    next(steps)
    return time.perf_counter() - start, steps


def pyro_steps(model: PyroModule, elbo: Any, *data: Tensor) -> Iterator[float]:
    """Pyro's own loop with its guide of normals, with its checks as they come."""
    guide = AutoNormal(pyro.poutine.block(model, hide=["k"]))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": RATE}), elbo)
    while True:
        yield svi.step(*data)


def plain_steps(loss: Callable[..., Tensor], *start: Tensor) -> Iterator[float]:
    """The loop that a reader of the paper would write."""
    parameters = [nn.Parameter(value.clone()) for value in start]
    return descend(lambda: loss(*parameters), torch.optim.Adam(parameters, lr=RATE, fused=True))


def descend(loss: Callable[[], Tensor], optimiser: torch.optim.Optimizer) -> Iterator[float]:
    while True:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
        yield value.item()


def compare(
    title: str,
    ours: tuple[float, Iterator[Any]],
    by_pyro: Iterator[Any] | None,
    plain: Iterator[Any],
    *,
    steps: int = 100,
) -> None:
    """One line: three sides by turns."""
    compiling, first = ours
    sides = {"ours": first, "torch": plain} | ({"Pyro": by_pyro} if by_pyro else {})
    for side in sides.values():
        seconds(side, steps)
    turns = [{name: seconds(side, steps) for name, side in sides.items()} for _ in range(9)]
    cell = {name: f"{statistics.median(t[name] for t in turns) * 1e6:.0f} us" for name in sides}
    ratio = {name: statistics.median(t[name] / t["ours"] for t in turns) for name in sides}
    against = " ".join(f"{ratio[name]:.1f}x" for name in ("Pyro", "torch") if name in sides)
    print(
        f"{title:<30}{cell['ours']:>10}{cell.get('Pyro', ''):>10}{cell['torch']:>10}"
        f"   {against:<15}{compiling:.1f} s",
        flush=True,
    )


def with_chains() -> None:
    """The log density of eight schools and its gradient, 32 chains at once."""
    data = dict(load("eight_schools").tensors)
    density = log_density(Hierarchical(), data)
    program = log_density(Hierarchical(), data, backend="eager")
    u = torch.randn(32, density.d, dtype=torch.float64)
    density(u)
    fast = seconds((density(u) for _ in repeat(None)), 1000) * 1e6
    slow = seconds((program(u) for _ in repeat(None)), 5) * 1e6
    print(f"{'eight schools, 32 chains':<30}{fast:>7.0f} us{slow:>7.0f} us", end="")
    print(f"{'':>10}   {slow / fast:<14.0f} {density.seconds:.1f} s   (beside the program itself)")


def seconds(side: Iterator[Any], steps: int) -> float:
    """Processor time of a step, over so many of them."""
    start = time.process_time()
    for _ in repeat(None, steps):
        next(side)
    return (time.process_time() - start) / steps


if __name__ == "__main__":
    main()
