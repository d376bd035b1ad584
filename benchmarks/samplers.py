"""What an effective draw costs: ChEES-HMC and NUTS beside NumPyro's and nutpie's NUTS, and Pyro's.

Prints the smallest bulk effective sample size a second of processor time, warm-up included, and
the seconds that compiling took beside, those of the C++ compiler's own processes too, with an empty
cache on disk. Ours is compiled first for ChEES and again for single points; nutpie takes over the
latter. All sides take turns in one process on one thread; peers that are not installed are left
out. PEERS in the environment names a folder that holds them.
"""

import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
sys.path.extend(filter(None, os.environ.get("PEERS", "").split(os.pathsep)))

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pgm
from pgm.data import load
from pgm.families.hierarchical import Hierarchical
from pgm.inference.hmc.chain import Chain, Options
from pgm.inference.hmc.chees import start
from pgm.inference.precision import double
from pgm.inference.traced import log_density

ROUNDS = int(os.environ.get("ROUNDS", "3"))
Side = Callable[[int], "Cost"]


@dataclass
class Cost:
    """The smallest effective sample size, and the processor seconds for it."""

    ess: float
    seconds: float

    @property
    def rate(self) -> float:
        """Effective draws a second."""
        return self.ess / self.seconds


def main(names: list[str]) -> None:
    """The table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{'':<22}{'':<16}{'ESS/s':>9}{'ratio':>8}{'ESS':>8}{'CPU s':>8}{'compile s':>11}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool, whose time nobody sees
        for name, case in CASES.items():
            if not names or name in names:
                compare(name, *case())


def compare(name: str, model: pgm.Model, data: dict[str, Tensor], twin: Any) -> None:
    """All sides by turns on one posterior."""
    makers = {"chees": chees, "nuts": nuts}
    makers |= {"numpyro": numpyro_nuts, "numpyro x64": numpyro_double}
    makers |= {"nutpie": nutpie_nuts, "pyro": pyro_nuts}
    sides, compiling = {}, {}
    for label, make in makers.items():
        before = sum(os.times()[:4])
        try:
            sides[label] = make(model, data, twin)
        except ImportError:
            continue
        compiling[label] = sum(os.times()[:4]) - before
    costs: dict[str, list[Cost]] = {label: [] for label in sides}
    for seed in range(ROUNDS):
        for label, side in sides.items():
            if label != "pyro" or seed == 0:  # slow
                costs[label].append(side(seed))
    ours = statistics.median(cost.rate for cost in costs["chees"])
    for label, seen in costs.items():
        rate = statistics.median(cost.rate for cost in seen)
        ess, seconds = (statistics.median(getattr(c, k) for c in seen) for k in ("ess", "seconds"))
        line = f"{rate:>9.0f}{ours / rate:>8.2f}{ess:>8.0f}{seconds:>8.2f}{compiling[label]:>11.2f}"
        print(f"{name:<22}{label:<16}{line}", flush=True)


def chees(model: pgm.Model, data: dict[str, Tensor], _: Any) -> Side:
    """32 chains of 200 + 500; the density is compiled beforehand."""
    density = log_density(model, data)
    u = torch.zeros(32, density.d, dtype=torch.float64).uniform_(-1, 1)
    density(u)

    def side(seed: int) -> Cost:
        generator = torch.Generator().manual_seed(seed)
        with double(model, density.density.batch):
            before = time.process_time()
            options = {"target_accept": 0.8, "max_steps": 1000, "dense": None}
            sampler = start(density, generator, chains=32, **options)
            for _ in sampler.warm_up(200):
                pass
            u = torch.stack([sampler.step().move.state.u for _ in range(500)], 1)
            seconds = time.process_time() - before
        return Cost(smallest({"u": u.numpy()}), seconds)

    return side


def nuts(model: pgm.Model, data: dict[str, Tensor], _: Any) -> Side:
    """4 chains of 500 + 1000, one after the other; the density is compiled beforehand."""
    density = log_density(model, data)
    density(torch.zeros(1, density.d, dtype=torch.float64).uniform_(-1, 1))

    def side(seed: int) -> Cost:
        with double(model, density.density.batch), pgm.seeded(seed):
            before = time.process_time()
            draws = []
            for i in range(4):
                noise = np.random.default_rng([seed, i])
                chain = Chain(density, density.density.start(), noise, Options())
                for _ in chain.warm_up(500):
                    pass
                draws.append(np.stack([chain.step().point.u for _ in range(1000)]))
            seconds = time.process_time() - before
        return Cost(smallest({"u": np.stack(draws)}), seconds)

    return side


def numpyro_double(model: pgm.Model, data: dict[str, Tensor], twin: Any) -> Side:
    """NumPyro in float64, as ours is."""
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        return numpyro_nuts(model, data, twin, double_precision=True)
    finally:
        jax.config.update("jax_enable_x64", False)


def numpyro_nuts(
    _: pgm.Model, data: dict[str, Tensor], twin: Any, *, double_precision: bool = False
) -> Side:
    """4 chains of 500 + 1000, one after the other, by one compiled loop.

    `numpyro.infer.MCMC` would compile its starts and its transforms at every run.
    """
    import jax
    import numpyro

    arrays = {
        k: v.double().numpy() if v.is_floating_point() else v.numpy() for k, v in data.items()
    }
    kernel = numpyro.infer.NUTS(twin)

    def step(state: Any, _: Any) -> Any:
        state = kernel.sample(state, (), arrays)
        return state, state.z

    @jax.jit
    def run(state: Any) -> Any:
        state = jax.lax.fori_loop(0, 500, lambda _, s: step(s, None)[0], state)
        return jax.lax.scan(step, state, None, length=1000)[1]

    def starts(seed: int) -> list[Any]:
        keys = jax.random.split(jax.random.PRNGKey(seed), 4)
        return [kernel.init(key, 500, None, (), arrays) for key in keys]

    states = [starts(seed) for seed in range(ROUNDS)]
    jax.block_until_ready(run(states[0][0]))

    def side(seed: int) -> Cost:
        jax.config.update("jax_enable_x64", double_precision)
        before = time.process_time()
        chains = [jax.block_until_ready(run(state)) for state in states[seed]]
        seconds = time.process_time() - before
        jax.config.update("jax_enable_x64", False)
        draws = {name: np.stack([np.asarray(c[name]) for c in chains]) for name in chains[0]}
        return Cost(smallest(draws), seconds)

    return side


def nutpie_nuts(model: pgm.Model, data: dict[str, Tensor], _: Any) -> Side:
    """nutpie over the density that ours is compiled to, 4 chains of 300 + 1000."""
    import nutpie

    density = log_density(model, data)
    density(torch.zeros(1, density.d, dtype=torch.float64).uniform_(-1, 1))

    def make() -> Callable[[Any], tuple[float, Any]]:
        def logp(u: Any) -> tuple[float, Any]:
            log_p, gradient = density(torch.from_numpy(np.array(u))[None])
            return float(log_p), gradient[0].numpy()

        return logp

    compiled = nutpie.compiled_pyfunc.from_pyfunc(
        density.d, make, lambda *_: lambda u: {"u": u}, [np.dtype("float64")], [(density.d,)], ["u"]
    )

    def side(seed: int) -> Cost:
        before = time.process_time()
        options = {"tune": 300, "draws": 1000, "chains": 4, "cores": 1, "progress_bar": False}
        trace = nutpie.sample(compiled, seed=seed, **options)
        seconds = time.process_time() - before
        return Cost(smallest({"u": trace.posterior["u"].values}), seconds)

    return side


def pyro_nuts(model: pgm.Model, data: dict[str, Tensor], _: Any) -> Side:
    """Pyro's own NUTS on the program, one short chain: it is slow."""

    def side(seed: int) -> Cost:
        from pyro.infer import MCMC, NUTS

        from pgm.inference.unconstrained import log_joint

        with double(model, pgm.as_batch(data)) as (precise, batch), pgm.seeded(seed):
            density = log_joint(precise, batch)
            kernel = NUTS(potential_fn=lambda z: -density(z["u"]))
            mcmc = MCMC(kernel, 60, 60, initial_params={"u": density.start()}, disable_progbar=True)
            before = time.process_time()
            mcmc.run()
            seconds = time.process_time() - before
        return Cost(smallest({"u": mcmc.get_samples()["u"][None].numpy()}), seconds)

    return side


def smallest(draws: dict[str, Any]) -> float:
    """The smallest bulk effective sample size of all elements."""
    import arviz as az

    return min(
        float(az.ess(column))
        for value in draws.values()
        for column in np.moveaxis(value.reshape(*value.shape[:2], -1).astype("float64"), 2, 0)
        if column.std() > 0
    )


def schools() -> tuple[pgm.Model, dict[str, Tensor], Any]:
    """Eight schools, non-centred."""

    def twin(y: Any, sigma: Any) -> None:
        import numpyro
        import numpyro.distributions as nd

        mu = numpyro.sample("mu", nd.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", nd.HalfCauchy(5.0))
        with numpyro.plate("rows", len(y)):
            eta = numpyro.sample("eta", nd.Normal(0.0, 1.0))
            numpyro.sample("y", nd.Normal(mu + tau * eta, sigma), obs=y)

    return Hierarchical(), dict(load("eight_schools").tensors), twin


class Logistic(pgm.Model):
    """Logistic regression with standard normal weights."""

    def model(self, n: int, x: Tensor) -> None:
        """Weights, intercept, and a label a row."""
        w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[-1]), 1.0).to_event(1))
        b = pyro.sample("b", dist.Normal(torch.zeros(()), 1.0))
        with pgm.rows(n):
            pyro.sample("y", dist.Bernoulli(logits=x @ w + b))


def logistic(n: int) -> tuple[pgm.Model, dict[str, Tensor], Any]:
    """Twenty covariates."""

    def twin(x: Any, y: Any) -> None:
        import numpyro
        import numpyro.distributions as nd

        w = numpyro.sample("w", nd.Normal(np.zeros(x.shape[1]), 1.0).to_event(1))
        b = numpyro.sample("b", nd.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", nd.Bernoulli(logits=x @ w + b), obs=y)

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 20, generator=generator)
    w = torch.randn(20, generator=generator) * 0.5
    y = (torch.rand(n, generator=generator) < (x @ w).sigmoid()).float()
    return Logistic(), {"x": x, "y": y}, twin


class Radon(pgm.Model):
    """Households in counties: intercepts around their mean, one slope."""

    def __init__(self, counties: int) -> None:
        super().__init__()
        self.counties = counties

    def model(self, n: int, county: Tensor, floor: Tensor) -> None:
        """Counties around a mean, and a level a house."""
        zero = torch.zeros(())
        mu = pyro.sample("mu", dist.Normal(zero, 5.0))
        tau = pyro.sample("tau", dist.HalfNormal(zero + 1.0))
        beta = pyro.sample("beta", dist.Normal(zero, 5.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(zero + 1.0))
        alpha = pyro.sample("alpha", dist.Normal(mu, tau).expand([self.counties]).to_event(1))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(alpha[county] + beta * floor, sigma))


def radon() -> tuple[pgm.Model, dict[str, Tensor], Any]:
    """Synthetic, of the size of the Minnesota data: 900 households, 85 counties."""
    counties, n = 85, 900

    def twin(county: Any, floor: Any, y: Any) -> None:
        import numpyro
        import numpyro.distributions as nd

        mu = numpyro.sample("mu", nd.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", nd.HalfNormal(1.0))
        beta = numpyro.sample("beta", nd.Normal(0.0, 5.0))
        sigma = numpyro.sample("sigma", nd.HalfNormal(1.0))
        alpha = numpyro.sample("alpha", nd.Normal(mu, tau).expand([counties]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", nd.Normal(alpha[county] + beta * floor, sigma), obs=y)

    generator = torch.Generator().manual_seed(0)
    county = torch.randint(counties, (n,), generator=generator)
    floor = (torch.rand(n, generator=generator) < 0.2).float()
    alpha = 1.5 + 0.35 * torch.randn(counties, generator=generator)
    y = alpha[county] - 0.65 * floor + 0.75 * torch.randn(n, generator=generator)
    return Radon(counties), {"county": county, "floor": floor, "y": y}, twin


class Correlated(pgm.Model):
    """A normal whose neighbouring coordinates correlate by 0.9; its one row says nothing."""

    def model(self, n: int) -> None:
        """One vector."""
        lag = (torch.arange(100)[:, None] - torch.arange(100)).abs()
        factor = torch.linalg.cholesky(0.9 ** lag.to(torch.float64))
        pyro.sample("u", dist.MultivariateNormal(torch.zeros(100), scale_tril=factor))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(torch.zeros(()), 1.0))


def correlated() -> tuple[pgm.Model, dict[str, Tensor], Any]:
    """A hundred coordinates."""

    def twin(y: Any) -> None:
        import numpyro
        import numpyro.distributions as nd

        lag = np.abs(np.arange(100)[:, None] - np.arange(100))
        factor = np.linalg.cholesky(0.9**lag)
        numpyro.sample("u", nd.MultivariateNormal(np.zeros(100), scale_tril=factor))
        numpyro.sample("y", nd.Normal(0.0, 1.0), obs=y)

    return Correlated(), {"y": torch.zeros(1)}, twin


CASES: dict[str, Callable[[], tuple[pgm.Model, dict[str, Tensor], Any]]] = {
    "eight schools": schools,
    "logistic 1000 x 20": lambda: logistic(1000),
    "logistic 10000 x 20": lambda: logistic(10000),
    "radon 900, 85": radon,
    "normal 100": correlated,
}

if __name__ == "__main__":
    main(sys.argv[1:])
