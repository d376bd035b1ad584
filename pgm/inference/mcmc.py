"""Markov chain Monte Carlo: the No-U-Turn Sampler on the joint program given all of the data.

NUTS (Hoffman & Gelman 2014) with multinomial weights (Betancourt 2017) moves through the
unconstrained latents, shared and by row; a transition is `pgm.inference.hmc.tree`. The density is
recorded and replayed (`pgm.inference.traced`). Discrete latents marked for enumeration are summed
out, so that the chains run over what is left.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgm.batch import Batch
from pgm.inference.constrain import constrain
from pgm.inference.hmc.chain import Chain, Options
from pgm.inference.hmc.tree import Transition
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.progress import bar, warn
from pgm.inference.runs import read
from pgm.inference.traced import Density
from pgm.inference.unconstrained import log_joint
from pgm.model import Model
from pgm.randomness import fresh_seed, seeded
from pgm.tracing import Backend, best_backend

_RECORDED, _COMPILED = 50, 400
"""Warm-ups from which on a record, and a compiled one, repay what they take."""
_FEWEST = 4
"""Draws a chain that quantiles and diagnostics take."""


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
    backend: Backend | None = None,
) -> Posterior:
    """Draws from the posterior of all latents of a model by NUTS, in float64.

    The parameters of the model (nn.Parameter) stay as they are; only sites are sampled, and no
    guide is needed. Sites that the data leave out altogether are latents like any other. Single
    cells that are missing are left out of the density; where other sites depend on them, the model
    is refused. Chains run one after the other. Interrupted from the keyboard in the draws of its
    first chain, it returns those; later, the chains that are whole.

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
        backend: what replays the density. By default the program itself runs where the warm-up is
            below 50, a record of it below 400, and a compiled record from there on.

    Returns:
        The draws, with ArviZ's statistics: diverging, acceptance_rate, energy, lp (log density of
        the unconstrained draw), n_steps, tree_depth, reached_max_treedepth, step_size.

    Raises:
        ValueError: options out of range, no continuous latent, or data that do not fit the model.
        BadStart: no start with a finite density; the message names the site.
        Unsupported: discrete latents that are not enumerated, or a density that is itself random.

    Warns:
        InferenceWarning: divergences, chains that disagree, trajectories cut short, a program that
            could not be replayed.

    Example:
        >>> import pyro
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
    began = time.perf_counter()
    batch = read(model, data)
    base = fresh_seed() if seed is None else seed
    options = Options(target_accept, max_tree_depth, dense_mass)
    with (
        double(model, batch) as (precise, rows),
        bar(chains * (warmup + draws), shown=progress) as progress_bar,
        seeded(base),
    ):
        density = Density(log_joint(precise, rows), backend=backend or _backend(warmup))
        made, remarks = list[Made](), tuple[str, ...]()
        for i, seed_of_chain in enumerate(_seeds(base, chains)):
            progress_bar.set_description(f"{type(model).__name__}, chain {i + 1} of {chains}")
            with seeded(seed_of_chain):
                u = density.density.start()
            chain = Chain(density, u, np.random.default_rng(seed_of_chain), options)
            kept: list[Transition] = []
            made.append((chain, kept))
            try:
                for _ in chain.warm_up(warmup):
                    progress_bar.update()
                _draw(chain, draws, kept, progress_bar)
            except KeyboardInterrupt:
                made, remarks = _interrupted(made, draws, chains)
                break
        found = _posterior(model, batch, density, made, remarks)
    return warn(replace(found, seconds=time.perf_counter() - began))


@dataclass(frozen=True, eq=False)
class NUTSState:
    """What NUTS needs to go on.

    Attributes:
        density: of a point.
        chains: where they are, and what they learned.
    """

    density: Density
    chains: tuple[Chain, ...]

    def go_on(self, posterior: Posterior, draws: int, *, progress: bool | None) -> Posterior:
        """More draws of the same chains, after those of `posterior`."""
        model, batch = posterior.model, posterior.batch
        made: list[Made] = [(chain.copy(), []) for chain in self.chains]
        with double(model, batch), bar(draws * len(made), shown=progress) as progress_bar:
            for chain, kept in made:
                _draw(chain, draws, kept, progress_bar)
            return _posterior(model, batch, self.density, made)


Made = tuple[Chain, list[Transition]]
"""A chain with the draws that it made."""


def _draw(chain: Chain, draws: int, kept: list[Transition], progress_bar: Any) -> None:
    """The draws after the warm-up."""
    for _ in range(draws):
        kept.append(chain.step())
        progress_bar.update()


def _interrupted(made: list[Made], draws: int, chains: int) -> tuple[list[Made], tuple[str, ...]]:
    """What is kept of a run that was interrupted: whole chains, or the first as far as it came.

    Raises:
        KeyboardInterrupt: it had not come to its draws.
    """
    whole = [each for each in made if len(each[1]) == draws] or made[:1]
    came = len(whole[0][1])
    if came < _FEWEST:
        raise KeyboardInterrupt
    return whole, (
        f"Interrupted: {len(whole)} of {chains} chains are here, with {came} of {draws} draws.",
    )


def _posterior(
    model: Model,
    batch: Batch,
    density: Density,
    made: list[Made],
    remarks: tuple[str, ...] = (),
) -> Posterior:
    points = [np.stack([each.point.u for each in kept]) for _, kept in made]
    values, dims = constrain(density.density, torch.from_numpy(np.stack(points)))
    return Posterior(
        draws=values,
        sample_stats=_statistics(made),
        model=model,
        batch=batch,
        seconds=0.0,
        method="nuts",
        dims=dims,
        remarks=(*density.remarks, *remarks),
        state=NUTSState(density, tuple(chain for chain, _ in made)),
    )


def _statistics(made: list[Made]) -> dict[str, Tensor]:
    """ArviZ's statistics, shape (chains, draws)."""
    columns = {
        "acceptance_rate": lambda _, t: t.acceptance,
        "diverging": lambda _, t: t.diverging,
        "energy": lambda _, t: t.energy,
        "lp": lambda _, t: t.point.log_p,
        "n_steps": lambda _, t: t.steps,
        "reached_max_treedepth": lambda _, t: t.cut_short,
        "step_size": lambda chain, _: chain.step_size,
        "tree_depth": lambda _, t: t.depth,
    }
    return {
        name: torch.tensor([[of(chain, t) for t in kept] for chain, kept in made])
        for name, of in columns.items()
    }


def _backend(warmup: int) -> Backend:
    """By the warm-up alone, so that a chain is the same whatever else is drawn."""
    if warmup < _RECORDED:
        return "eager"
    return "ts" if warmup < _COMPILED else best_backend()


def _seeds(seed: int, chains: int) -> list[int]:
    """A seed for every chain; the first ones do not depend on how many there are."""
    generator = torch.Generator().manual_seed(seed)
    return [int(torch.randint(2**31 - 1, (), generator=generator)) for _ in range(chains)]


def _check_options(
    draws: int, warmup: int, chains: int, target_accept: float, max_tree_depth: int
) -> None:
    counts = {
        "draws": (draws, _FEWEST),
        "chains": (chains, 1),
        "max_tree_depth": (max_tree_depth, 1),
    }
    for name, (value, least) in (counts | {"warmup": (warmup, 1)}).items():
        if value < least:
            raise ValueError(f"{name} is {value}; it takes {least} or more.")
    if not 0 < target_accept < 1:
        raise ValueError(
            f"target_accept is {target_accept}; it is a probability strictly between 0 and 1. Pass "
            "0.8, or 0.95 to 0.99 where trajectories diverge."
        )
