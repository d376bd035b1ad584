"""Non-centred latents: theta = mu + tau eta, eta ~ N(0, 1), in the place of theta ~ N(mu, tau).

Where tau is small the centred form makes a funnel, into whose neck no step size fits (Betancourt &
Girolami 2015, sec. 2; Papaspiliopoulos, Roberts & Sköld 2007). The handler rewrites sites by Pyro's
reparameterisers and leaves the distribution of everything else as it is; theta itself becomes a
deterministic site, so that posteriors still speak of it.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import pyro.poutine as poutine
import torch
from pyro import distributions as dist
from pyro.infer.inspect import TrackProvenance
from pyro.infer.reparam import LocScaleReparam, TransformReparam
from pyro.ops.provenance import get_provenance
from pyro.poutine.reparam_messenger import ReparamMessenger
from torch.distributions import Independent

from pgm.batch import Batch
from pgm.handlers import Handled
from pgm.model import Model, arguments
from pgm.randomness import seeded
from pgm.verb import Unsupported, prepare

_LOC_SCALE = (dist.Normal, dist.StudentT, dist.Cauchy, dist.Laplace, dist.LogNormal)


def reparameterise(
    model: Model, sites: Sequence[str] | Literal["auto"] = "auto", *, data: Any = None
) -> "NonCentred":
    """The same model with some of its latents non-centred, for `pgm.inference.mcmc` and its kin.

    Args:
        model: any model; its parameters are shared, and it stays as it is.
        sites: which; "auto" takes every location-scale site whose scale is computed from another
            latent and on which something else depends, so that it is no data.
        data: rows of context, where the program needs some.

    Returns:
        A model without a guide for those sites. Where data say much of each single theta, the
        centred form is the better one: compare the effective draws of both.

    Raises:
        ValueError: a site that there is not or that has no location and scale; with "auto", no
            site to which it applies.

    Example:
        >>> from pgm.inference import mcmc
        >>> class Schools(Model):
        ...     def model(self, n):
        ...         tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        ...         with pgm.rows(n):
        ...             theta = pyro.sample("theta", dist.Normal(0.0, tau))
        ...             pyro.sample("y", dist.Normal(theta, 10.0))
        >>> import pgm, pyro
        >>> reparameterise(Schools()).sites
        ('theta',)
    """
    found = _sites(model, data)
    if sites == "auto":
        chosen = funnels(model, data)
        if not chosen:
            raise ValueError(
                f"No site of {type(model).__name__} is a latent with a location and a scale that "
                f"is computed from another latent (its sites are {', '.join(found)}), so that "
                "there is no funnel to take away. Name the sites, or leave the model as it is."
            )
        return NonCentred(model, chosen)
    for name in sites:
        if name not in found or not isinstance(found[name][0], _LOC_SCALE):
            what = f"a {type(found[name][0]).__name__}" if name in found else "no site at all"
            raise ValueError(
                f"{name!r} is {what}: only "
                f"{', '.join(kind.__name__ for kind in _LOC_SCALE)} have a location and a scale "
                f"to take out. The sites are {', '.join(found)}."
            )
    return NonCentred(model, tuple(sites))


def funnels(model: Model, data: Any = None) -> tuple[str, ...]:
    """The location-scale latents whose scale is computed from another latent.

    Args:
        model: any model.
        data: rows of context, where the program needs some.
    """
    found = _sites(model, data)
    return tuple(name for name, (_, hangs, used) in found.items() if hangs and used)


class NonCentred(Handled):
    """A model some of whose latents are drawn as standard noise; made by `reparameterise`.

    Args:
        base: the model.
        sites: its latents.
    """

    def __init__(self, base: Model, sites: Sequence[str]) -> None:
        super().__init__(base)
        self.sites = tuple(sites)

    def handler(self, program: str) -> AbstractContextManager[Any]:
        """Takes location and scale out of the sites.

        Raises:
            Unsupported: the guide of the base speaks of the sites as they were.
        """
        if program == "guide" and self.base.latent:
            raise Unsupported(
                f"The guide of {type(self.base).__name__} proposes {', '.join(self.sites)} as the "
                "program draws them, and not as standard noise. Use pgm.inference.mcmc, which "
                "needs no guide, or fit the model as it was."
            )
        config: dict[str, Any] = {}
        for name in self.sites:
            config[name] = _Outside(name)
            config[f"{name}_base"] = LocScaleReparam(0.0)
        return _Reparam(config)

    def extra_repr(self) -> str:
        """The sites."""
        return f"non-centred {', '.join(self.sites)}"


class _Reparam(ReparamMessenger):
    """Pyro's handler; what a site was is computed from its noise, and posteriors say so."""

    def _pyro_sample(self, msg: Any) -> None:
        mine = msg["name"] in dict(self.config)  # type: ignore[arg-type]
        super()._pyro_sample(msg)
        if mine and msg["is_observed"]:
            msg["infer"] = msg["infer"] | {"_deterministic": True}


class _Outside(LocScaleReparam):
    """Takes location and scale out of a site, that of its base if it is transformed."""

    def __init__(self, name: str) -> None:
        super().__init__(0.0)
        self.name = name

    def apply(self, msg: Any) -> Any:
        """The site without them."""
        fn = msg["fn"]
        while isinstance(fn, Independent | dist.torch_distribution.ExpandedDistribution):
            fn = fn.base_dist
        if isinstance(fn, dist.LogNormal):
            return TransformReparam().apply(msg)
        return super().apply(msg)


def _sites(model: Model, data: Any) -> Mapping[str, tuple[Any, bool, bool]]:
    """Each site's distribution, whether its scale hangs on a latent, and whether it is used."""
    batch = Batch() if data is None else prepare(model, data)
    n = len(next(iter(batch.values()))) if batch else 2
    with torch.no_grad(), seeded(0), poutine.trace() as trace, TrackProvenance():
        model.model(n, **arguments(model, "model", batch))
    found: dict[str, tuple[Any, bool, bool]] = {}
    used = set[str]()
    for name, site in trace.trace.nodes.items():
        if (
            site["type"] != "sample"
            or dict(site["infer"] or {}).get("_deterministic")
            or name == "rows"
        ):
            continue
        fn: Any = site["fn"]
        used |= get_provenance(fn.log_prob(site["value"])) - {name}
        while not isinstance(fn, _LOC_SCALE) and "base_dist" in vars(fn):
            fn = fn.base_dist
        hangs = isinstance(fn, _LOC_SCALE) and bool(get_provenance(fn.scale))
        found[name] = (fn, hangs, False)
    return {name: (fn, hangs, name in used) for name, (fn, hangs, _) in found.items()}
