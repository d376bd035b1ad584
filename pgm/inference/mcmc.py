"""Markov chain Monte Carlo: Pyro's No-U-Turn Sampler on the joint program given all of the data.

NUTS (Hoffman & Gelman 2014) with multinomial weights and windowed adaptation of step size and mass
matrix (Betancourt 2017) moves through the unconstrained latents, shared and by row. Discrete
latents marked for enumeration are summed out, so that the chains run over what is left.
"""

import time
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro.infer import NUTS
from torch import Tensor

from pgm.inference.constrain import constrain
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.progress import bar, warn
from pgm.inference.runs import read
from pgm.inference.unconstrained import LogJoint, log_joint
from pgm.model import Model
from pgm.randomness import fresh_seed, seeded


def mcmc(
    model: Model,
    data: Any,
    *,
    draws: int = 1000,
    warmup: int = 500,
    chains: int = 4,
    seed: int | None = None,
    progress: bool | None = None,
    target_accept: float = 0.8,
    max_tree_depth: int = 10,
    dense_mass: bool = False,
) -> Posterior:
    """Draws from the posterior of all latents of a model by NUTS, in float64.

    The parameters of the model (nn.Parameter) stay as they are; only sites are sampled, and no
    guide is needed. Sites that the data leave out altogether are latents like any other. Single
    cells that are missing are left out of the density; where other sites depend on them, the model
    is refused. Chains run one after the other.

    Args:
        model: any model with continuous latents; it is not changed.
        data: all rows, in any form.
        draws: kept draws a chain.
        warmup: draws a chain that adapt the sampler and are thrown away.
        chains: how many, from different random points.
        seed: of starts and moves; chain i is the same whatever the number of chains.
        progress: whether a bar is shown; by default where the output is a terminal.
        target_accept: acceptance that the step size is tuned to; higher takes smaller steps.
        max_tree_depth: doublings of a trajectory, at most.
        dense_mass: whether correlations between latents are adapted to, and not scales alone.

    Returns:
        The draws, with ArviZ's statistics: diverging, acceptance_rate, energy, lp (log density of
        the unconstrained draw), n_steps, tree_depth, reached_max_treedepth, step_size.

    Raises:
        ValueError: options out of range, no continuous latent, or data that do not fit the model.
        BadStart: no start with a finite density; the message names the site.
        Unsupported: discrete latents that are not enumerated, or a density that is itself random.

    Warns:
        InferenceWarning: divergences, chains that disagree, trajectories cut short.

    Example:
        >>> from pgm import rows
        >>> class Mean(Model):
        ...     def model(self, n):
        ...         mu = pyro.sample("mu", pyro.distributions.Normal(0.0, 10.0))
        ...         with rows(n):
        ...             pyro.sample("y", pyro.distributions.Normal(mu, 1.0))
        >>> data = {"y": torch.tensor([1.0, 2.0, 3.0])}
        >>> posterior = mcmc(Mean(), data, draws=400, warmup=200, chains=1, seed=0)
        >>> posterior
        Posterior of Mean (nuts): 1 chain of 400 draws of mu
        >>> float(posterior.draws["mu"].mean())
        2.0
    """
    _check_options(draws, warmup, chains, target_accept, max_tree_depth)
    start = time.perf_counter()
    batch = read(model, data)
    base = fresh_seed() if seed is None else seed
    options = {"target_accept_prob": target_accept, "full_mass": dense_mass}
    with (
        double(model, batch) as (precise, rows),
        bar(chains * (warmup + draws), shown=progress) as progress_bar,
        seeded(base),
    ):
        density = log_joint(precise, rows)
        sampled = []
        for i, seed_of_chain in enumerate(_seeds(base, chains)):
            progress_bar.set_description(f"{type(model).__name__}, chain {i + 1} of {chains}")
            kernel = _Kernel(density, max_tree_depth=max_tree_depth, **options)
            with seeded(seed_of_chain):
                sampled.append(_chain(kernel, draws, warmup, progress_bar))
        values, dims = constrain(density, torch.stack([chain.u for chain in sampled]))
    posterior = Posterior(
        draws=values,
        sample_stats=_stack([chain.stats for chain in sampled]),
        model=model,
        batch=batch,
        seconds=time.perf_counter() - start,
        method="nuts",
        dims=dims,
    )
    return warn(posterior)


@dataclass
class _Chain:
    """The unconstrained draws of one chain, shape (draws, d), and what the sampler said of each."""

    u: Float[Tensor, "draws d"]
    stats: dict[str, Tensor]


class _Kernel(NUTS):
    """Pyro's sampler over one vector `u`; it counts gradients and remembers kinetic energies."""

    def __init__(self, density: LogJoint, *, max_tree_depth: int, **options: Any) -> None:
        self.density, self.gradients, self.kinetic = density, 0, 0.0
        super().__init__(potential_fn=self._potential, max_tree_depth=max_tree_depth, **options)

    @property
    def potential(self) -> float:
        """Minus the log density of the current point, in nats."""
        assert self._potential_energy_last is not None
        return float(self._potential_energy_last)

    @property
    def mean_acceptance(self) -> float:
        """The mean acceptance since the warm-up ended."""
        return float(self._mean_accept_prob)

    @property
    def max_tree_depth(self) -> int:
        """Doublings of a trajectory, at most."""
        return int(self._max_tree_depth)

    def _potential(self, z: dict[str, Tensor]) -> Tensor:
        self.gradients += 1
        return -self.density(z["u"])

    def _sample_r(self, name: str) -> Any:
        r, r_unscaled = super()._sample_r(name)
        self.kinetic = float(self._kinetic_energy(r_unscaled))
        return r, r_unscaled


def _chain(kernel: _Kernel, draws: int, warmup: int, progress_bar: Any) -> _Chain:
    """Runs one chain from a random start."""
    kernel.initial_params = {"u": kernel.density.start()}
    with pyro.poutine.block():
        kernel.setup(warmup)
        z = kernel.initial_params
        for _ in range(warmup):
            z = kernel.sample(z)
            progress_bar.update()
        u, stats = [], []
        for i in range(draws):
            before = kernel.potential, kernel.mean_acceptance * i, kernel.gradients
            z = kernel.sample(z)
            u.append(z["u"].detach())
            stats.append(_statistics(kernel, i, *before))
            progress_bar.update()
    divergent = set(kernel.diagnostics()["divergences"])
    columns = {name: torch.tensor([row[name] for row in stats]) for name in stats[0]}
    columns["diverging"] = torch.tensor([i in divergent for i in range(draws)])
    return _Chain(torch.stack(u), columns)


def _statistics(
    kernel: _Kernel, i: int, potential: float, acceptances: float, gradients: int
) -> dict[str, float | int | bool]:
    """What draw `i` did, from the state of the kernel before and after it."""
    n_steps = kernel.gradients - gradients
    depth = n_steps.bit_length()
    return {
        "acceptance_rate": kernel.mean_acceptance * (i + 1) - (acceptances if i else 0.0),
        "energy": potential + kernel.kinetic,
        "lp": -kernel.potential,
        "n_steps": n_steps,
        "tree_depth": depth,
        "reached_max_treedepth": n_steps >= 2**kernel.max_tree_depth - 1,
        "step_size": float(kernel.step_size),
    }


def _stack(chains: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([chain[name] for chain in chains]) for name in chains[0]}


def _seeds(seed: int, chains: int) -> list[int]:
    """A seed for every chain; the first ones do not depend on how many there are."""
    generator = torch.Generator().manual_seed(seed)
    return [int(torch.randint(2**31 - 1, (), generator=generator)) for _ in range(chains)]


def _check_options(
    draws: int, warmup: int, chains: int, target_accept: float, max_tree_depth: int
) -> None:
    counts = {"draws": (draws, 4), "chains": (chains, 1), "max_tree_depth": (max_tree_depth, 1)}
    for name, (value, least) in (counts | {"warmup": (warmup, 1)}).items():
        if value < least:
            raise ValueError(f"{name} is {value}; it takes {least} or more.")
    if not 0 < target_accept < 1:
        raise ValueError(
            f"target_accept is {target_accept}; it is a probability strictly between 0 and 1. Pass "
            "0.8, or 0.95 to 0.99 where trajectories diverge."
        )
