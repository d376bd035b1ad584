"""ChEES-HMC: Hamiltonian Monte Carlo for many chains as one batch.

All chains take the same number of leapfrog steps, so that a step of all of them is one call of the
recorded density (`pgm.inference.traced`), and adapt step size, trajectory length and metric
together (Hoffman, Radul & Sountsov 2021, "An adaptive MCMC scheme for setting trajectory lengths in
Hamiltonian Monte Carlo").
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pgm.batch import Batch
from pgm.inference.constrain import constrain
from pgm.inference.hmc.sampler import Draw, Sampler
from pgm.inference.improper import refuse_improper
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.progress import bar, warn
from pgm.inference.runs import read
from pgm.inference.starts import from_paths, uniform
from pgm.inference.traced import Density
from pgm.inference.unconstrained import log_joint
from pgm.model import Model
from pgm.randomness import fresh_seed, seeded
from pgm.tracing import Backend


def chees(
    model: Model,
    data: Any,
    *,
    draws: int = 500,
    warmup: int = 200,
    chains: int = 32,
    seed: int | None = None,
    progress: bool | None = None,
    target_accept: float = 0.8,
    max_steps: int = 1000,
    dense_mass: bool | None = None,
    backend: Backend | None = None,
) -> Posterior:
    """Draws from the posterior of all latents of a model by ChEES-HMC, in float64.

    As `mcmc`, but with many short chains that move together: the choice where the density is cheap
    and smooth. Chains start at draws from Pathfinder's normals. Interrupted from the keyboard, it
    returns the draws so far.

    Args:
        model: any model with continuous latents; it is not changed.
        data: all rows, in any form.
        draws: kept draws a chain.
        warmup: transitions that adapt the sampler and are thrown away.
        chains: how many; they share what they learn.
        seed: of starts and moves.
        progress: whether a bar is shown; by default where the output is a terminal.
        target_accept: harmonic mean over chains of the acceptance that the step size is tuned to.
        max_steps: leapfrog steps of a trajectory, at most.
        dense_mass: whether correlations between latents are adapted to, and not scales alone; by
            default where up to 256 coordinates have draws enough.
        backend: what replays the density; by default the fastest that runs here.

    Returns:
        The draws, with ArviZ's statistics: diverging, acceptance_rate, energy, lp (log density of
        the unconstrained draw), n_steps, step_size, and trajectory_length in scaled coordinates.

    Raises:
        ValueError: options out of range, no continuous latent, or data that do not fit the model.
        BadStart: no start with a finite density; the message names the site.
        ImproperPosterior: the density is flat along some direction.
        Unsupported: discrete latents that are not enumerated, or a density that is itself random.

    Warns:
        InferenceWarning: divergences, chains that disagree, a program that could not be replayed.

    Example:
        >>> import pyro
        >>> from pgm import rows
        >>> class Mean(Model):
        ...     def model(self, n):
        ...         mu = pyro.sample("mu", pyro.distributions.Normal(torch.tensor(0.0), 10.0))
        ...         with rows(n):
        ...             pyro.sample("y", pyro.distributions.Normal(mu, 1.0))
        >>> data = {"y": torch.tensor([1.0, 2.0, 3.0])}
        >>> posterior = chees(Mean(), data, draws=100, warmup=50, seed=0, backend="graph")
        >>> posterior
        Posterior of Mean (chees): 32 chains of 100 draws of mu
        >>> float(posterior.draws["mu"].mean())
        2.0
    """
    _check_options(draws, warmup, chains, target_accept, max_steps)
    began = time.perf_counter()
    batch = read(model, data)
    base = fresh_seed() if seed is None else seed
    with double(model, batch) as (precise, rows), seeded(base):
        density = Density(log_joint(precise, rows), backend=backend or "auto")
        generator = torch.Generator().manual_seed(base)
        sampler = start(
            density,
            generator,
            chains=chains,
            target_accept=target_accept,
            max_steps=max_steps,
            dense=dense_mass,
        )
        with bar(warmup + draws, shown=progress) as progress_bar:
            progress_bar.set_description(f"{type(model).__name__}, {chains} chains")
            for _ in sampler.warm_up(warmup):
                progress_bar.update()
            posterior = _draw(model, batch, density, sampler, draws, progress_bar)
    return warn(replace(posterior, seconds=time.perf_counter() - began))


@dataclass(frozen=True, eq=False)
class ChEESState:
    """What ChEES-HMC needs to go on.

    Attributes:
        density: of all chains.
        sampler: where they are, and what they learned.
    """

    density: Density
    sampler: Sampler

    def go_on(self, posterior: Posterior, draws: int, *, progress: bool | None) -> Posterior:
        """More draws of the same chains, after those of `posterior`."""
        model, batch = posterior.model, posterior.batch
        with double(model, batch), bar(draws, shown=progress) as progress_bar:
            return _draw(model, batch, self.density, self.sampler.copy(), draws, progress_bar)


def start(density: Density, generator: torch.Generator, *, chains: int, **options: Any) -> Sampler:
    """Chains at draws from Pathfinder's normals, and a metric from these; `options` of `Sampler`.

    Raises:
        BadStart: no start with a finite density.
        ImproperPosterior: the density is flat along some direction.
    """
    u = uniform(density.density, density, chains, generator)
    state, metric, paths = from_paths(density, u, generator)
    refuse_improper(density.density, paths.gradient.flatten(0, 1))
    return Sampler(density, state, metric, generator=generator, **options)


def _draw(
    model: Model, batch: Batch, density: Density, sampler: Sampler, draws: int, progress_bar: Any
) -> Posterior:
    """The draws after the warm-up; fewer than were asked for after an interruption."""
    kept: list[Draw] = []
    remarks = list(density.remarks)
    try:
        for _ in range(draws):
            kept.append(sampler.step())
            progress_bar.update()
    except KeyboardInterrupt:
        if len(kept) < _FEWEST:
            raise
        remarks.append(
            f"Interrupted after {len(kept)} of {draws} draws a chain, which are here; "
            "pgm.inference.resume(posterior) goes on."
        )
    values, dims = constrain(density.density, torch.stack([d.move.state.u for d in kept], 1))
    return Posterior(
        draws=values,
        sample_stats=_statistics(kept, sampler),
        model=model,
        batch=batch,
        seconds=0.0,
        method="chees",
        dims=dims,
        remarks=tuple(remarks),
        state=ChEESState(density, sampler),
    )


def _statistics(kept: list[Draw], sampler: Sampler) -> dict[str, Tensor]:
    """ArviZ's statistics, shape (chains, draws); what chains share is repeated."""
    moves = [draw.move for draw in kept]
    steps = torch.tensor([draw.steps for draw in kept]).expand(len(moves[0].energy), -1)
    size = torch.full(steps.shape, sampler.step_size, dtype=torch.float64)
    return {
        "acceptance_rate": torch.stack([m.acceptance for m in moves], 1),
        "diverging": torch.stack([m.diverging for m in moves], 1),
        "energy": torch.stack([m.energy for m in moves], 1),
        "lp": torch.stack([m.state.log_p for m in moves], 1),
        "n_steps": steps.clone(),
        "step_size": size,
        "trajectory_length": size * steps,
    }


_FEWEST = 4
"""Draws a chain that quantiles and diagnostics take."""


def _check_options(
    draws: int, warmup: int, chains: int, target_accept: float, max_steps: int
) -> None:
    least = {"draws": _FEWEST, "warmup": 20, "chains": 4, "max_steps": 1}
    came = {"draws": draws, "warmup": warmup, "chains": chains, "max_steps": max_steps}
    for name, value in came.items():
        if value < least[name]:
            raise ValueError(
                f"{name} is {value}; ChEES-HMC takes {least[name]} or more. For a few long chains "
                "use pgm.inference.mcmc."
            )
    if not 0 < target_accept < 1:
        raise ValueError(
            f"target_accept is {target_accept}; it is a probability strictly between 0 and 1. Pass "
            "0.8, or 0.95 to 0.99 where trajectories diverge."
        )
