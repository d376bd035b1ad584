"""`posterior`: draws by the method that suits a model, and why it was chosen."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from pgm.batch import Batch
from pgm.inference.approximate.laplace import laplace
from pgm.inference.approximate.pathfinder import pathfinder
from pgm.inference.approximate.quadratic import exact_normal, normal_law
from pgm.inference.approximate.tempering import tempering
from pgm.inference.hmc.chees import chees
from pgm.inference.mcmc import mcmc
from pgm.inference.nutpie import nutpie
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.runs import read
from pgm.inference.sgld import sgld
from pgm.inference.traced import Density
from pgm.inference.unconstrained import log_joint
from pgm.inference.variational import variational
from pgm.model import Model
from pgm.randomness import fresh_seed, seeded

Named = Literal["exact", "chees", "nuts", "nutpie", "pathfinder", "laplace", "smc", "sgld"]
Choice = Literal["auto", "variational"] | Named

MANY = 20_000
"""Unconstrained coordinates beyond which no chain is run without being asked for."""
_SMALL = 2_000
"""Rows up to which a program that cannot be replayed is still run at every step."""


def posterior(
    model: Model, data: Any, *, method: Choice = "auto", seed: int | None = None, **options: Any
) -> Posterior:
    """Draws from the posterior of a model's latents.

    By "auto" a posterior that is normal is found exactly (conjugate regressions, linear-Gaussian
    models of any form); else ChEES-HMC is run where the density can be replayed, and NUTS where
    the program must be run itself; where there are too many latents for chains, the guide is asked
    if there is one, and Pathfinder else. Discrete latents that are marked for enumeration are
    summed out; the marginals of a discrete network are `net.marginals`.

    Args:
        model: any model with continuous latents; it is not changed.
        data: all rows, in any form.
        method: "auto", or what to use.
        seed: of the draws.
        **options: of the method's own function in `pgm.inference`; with "auto" they are refused,
            since it is not known beforehand whose they are.

    Returns:
        The draws; `how` says which method was used, and why.

    Raises:
        ValueError: an unknown method, options with "auto", no continuous latent, or data that do
            not fit the model.
        Unsupported: the method does not apply.

    Warns:
        InferenceWarning: reasons not to trust the draws.

    Example:
        >>> import pyro, torch
        >>> from pgm import rows
        >>> class Mean(Model):
        ...     def model(self, n):
        ...         mu = pyro.sample("mu", pyro.distributions.Normal(torch.tensor(0.0), 10.0))
        ...         with rows(n):
        ...             pyro.sample("y", pyro.distributions.Normal(mu, 1.0))
        >>> posterior(Mean(), {"y": torch.tensor([1.0, 2.0, 3.0])}, seed=0).how
        'exact: the log density is a quadratic of its coordinates (1): the posterior is normal'
    """
    if method != "auto" and method not in _METHODS:
        raise ValueError(f"method is {method!r}; it is 'auto' or one of {', '.join(_METHODS)}.")
    batch = read(model, data)
    seed = fresh_seed() if seed is None else seed
    if method != "auto":
        return _METHODS[method](model, batch, seed=seed, **options)
    if options:
        raise ValueError(
            f"Options {', '.join(options)} came with method='auto', which chooses by itself. Name "
            "the method they belong to."
        )
    chosen, why = choose(model, batch, seed=seed)
    found = _METHODS[chosen](model, batch, seed=seed)
    return replace(found, how=f"{chosen}: {why}")


def choose(model: Model, batch: Batch, *, seed: int) -> tuple[str, str]:
    """The method that suits a model, and why."""
    with double(model, batch) as (precise, rows), seeded(seed):
        density = log_joint(precise, rows)
        density.start()
        d = sum(shape.numel() for shape in density.shapes.values())
        if normal_law(density) is not None:
            return "exact", (
                f"the log density is a quadratic of its coordinates ({d}): the posterior is normal"
            )
        if d > MANY:
            if model.latent:
                return "variational", f"{d} coordinates are too many for chains; its guide is asked"
            return "pathfinder", f"{d} coordinates are too many for chains, and there is no guide"
        probe = Density(density)
        if probe.backend != "eager":
            probe(density.start().repeat(4, 1))
        n = len(next(iter(batch.values())))
        if probe.backend != "eager":
            return "chees", f"{d} coordinates, and a density that is replayed ({probe.backend})"
        if n > _SMALL and model.latent:
            return "variational", f"the program cannot be replayed ({probe.why}) for {n} rows"
        return "nuts", f"the program cannot be replayed: {probe.why}"


def _smc(model: Model, data: Any, **options: Any) -> Posterior:
    found = tempering(model, data, **options)
    return replace(found.posterior, how=f"smc: log evidence {found.log_evidence:.3f} nats")


_METHODS: Mapping[str, Callable[..., Posterior]] = {
    "exact": exact_normal,
    "chees": chees,
    "nuts": mcmc,
    "nutpie": nutpie,
    "pathfinder": pathfinder,
    "laplace": laplace,
    "smc": _smc,
    "sgld": sgld,
    "variational": variational,
}
