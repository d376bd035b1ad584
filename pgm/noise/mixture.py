"""Noise forms of what is chosen, then made: mixtures of components, and empirical distributions.

A mixture chooses component i by the coupling of its mixing distribution and pushes u_i, the noise
of that component; the noise of the others is part of u too, for another world may choose them.
Abduction draws i from its posterior p(i | x), then the noise of the choice given i, and inverts
component i; the noises of the others keep their law, since x says nothing of them.
"""

from typing import Any

import torch
from jaxtyping import Shaped
from pyro.distributions import Empirical
from torch import Size, Tensor
from torch.distributions import Categorical, MixtureSameFamily

from pgm.noise.discrete import choose, is_outcome, log_mass
from pgm.noise.form import (
    MixtureNoise,
    choose_coupling,
    couplings,
    noise,
    pull,
    push,
    require,
    sample,
)

couplings.register(MixtureSameFamily, lambda fn: couplings(fn.mixture_distribution))
couplings.register(Empirical, lambda fn: couplings(atoms(fn)[0]))


@noise.register(MixtureSameFamily)
def mixture_noise(
    fn: Any, shape: tuple[int, ...] = (), *, coupling: str | None = None
) -> MixtureNoise:
    """Noise of the choice, noise of every component."""
    choice, component = parts(fn)
    coupling = choose_coupling(fn, coupling)
    return MixtureNoise(noise(choice, shape, coupling=coupling), noise(component, shape))


@push.register(MixtureSameFamily)
def mixture_push(fn: Any, u: MixtureNoise, *, coupling: str | None = None) -> Tensor:
    """Choose, then push the noise of the chosen component."""
    choice, component = parts(fn)
    i = push(choice, u.component, coupling=choose_coupling(fn, coupling))
    return choose(push(component, u.kernel), i, len(fn.event_shape))


@pull.register(MixtureSameFamily)
def mixture_pull(fn: Any, x: Tensor, *, coupling: str | None = None) -> MixtureNoise:
    """One draw from the exact posterior of u given x."""
    choice, component = parts(fn)
    coupling = choose_coupling(fn, coupling)
    event_dim = len(fn.event_shape)
    full = torch.broadcast_shapes(x.shape, fn.batch_shape + fn.event_shape)
    x = x.expand(full).unsqueeze(-1 - event_dim)
    log_joint = log_mass(choice) + component.log_prob(x)
    i = sample(Categorical(logits=log_joint, validate_args=False))
    chosen = is_outcome(i, log_joint.shape[-1])
    chosen = chosen.reshape(chosen.shape + (1,) * event_dim)
    elsewhere = sample(component, full[: len(full) - event_dim - len(fn.batch_shape)])
    return MixtureNoise(
        pull(choice, i, coupling=coupling),
        pull(component, torch.where(chosen, x.to(elsewhere.dtype), elsewhere)),
    )


@noise.register(Empirical)
def empirical_noise(fn: Any, shape: tuple[int, ...] = (), *, coupling: str | None = None) -> Any:
    """Noise of the choice of an atom."""
    return noise(atoms(fn)[0], Size(shape), coupling=choose_coupling(fn, coupling))


@push.register(Empirical)
def empirical_push(fn: Any, u: Any, *, coupling: str | None = None) -> Tensor:
    """The chosen atom."""
    choice, values = atoms(fn)
    i = push(choice, u, coupling=choose_coupling(fn, coupling))
    return choose(values, i, len(fn.event_shape))


@pull.register(Empirical)
def empirical_pull(fn: Any, x: Tensor, *, coupling: str | None = None) -> Any:
    """The noise of one of the atoms equal to x, drawn by their weights."""
    choice, values = atoms(fn)
    event_dim = len(fn.event_shape)
    same = values == x.unsqueeze(-1 - event_dim)
    same = same.flatten(-event_dim).all(-1) if event_dim else same
    log_p = torch.where(same, log_mass(choice), -torch.inf)
    known = (log_p > -torch.inf).any(-1)
    message = "Empirical: pull got a value that is none of its atoms, so it has no noise."
    require(known, x.broadcast_to(known.shape + fn.event_shape), message)
    i = sample(Categorical(logits=log_p, validate_args=False))
    return pull(choice, i, coupling=choose_coupling(fn, coupling))


def parts(fn: MixtureSameFamily) -> tuple[Categorical, Any]:
    """The mixing distribution, of the batch shape of the mixture, and the components."""
    return fn.mixture_distribution.expand(fn.batch_shape), fn.component_distribution


def atoms(fn: Any) -> tuple[Categorical, Shaped[Tensor, "..."]]:
    """The weights of the atoms and the atoms."""
    return Categorical(logits=fn._log_weights, validate_args=False), fn._samples
