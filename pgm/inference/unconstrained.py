"""The log joint density of a model's continuous latents, as a function of one unconstrained vector.

Each latent site takes z = T(u) with T the bijection from R^d onto its support, and the density of u
is p(z, x) |dT/du| (Carpenter et al. 2017, sec. 2.3). T is looked up while the program runs, so that
a support may depend on other latents. Discrete latents marked for enumeration are summed out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to, constraints

from pgm.batch import SEEN, Batch, rows_of
from pgm.check import shapes
from pgm.inference.runs import log_rows, log_shared, run_joint, terms
from pgm.model import Model
from pgm.randomness import seeded
from pgm.sites import Run
from pgm.verb import Unsupported
from pgm.weights import check_keys

RADIUS = 2.0
"""Chains start uniformly in (-2, 2) on the unconstrained space, as Stan's do."""
_TRIES = 100


class BadStart(ValueError):
    """No point with a finite density was found to start from; the message names the site."""


class Unconstrained(Run):
    """Runs a joint program with its continuous latents at a point of the unconstrained space.

    Args:
        point: the unconstrained value of every latent; None draws them, uniformly.
        observed: the batch.
        enumerate_sites: whether sites marked for enumeration take all their values at once, or one
            that is drawn.

    Attributes:
        point: the unconstrained values that were taken.
        log_det: log |dz/du| of every latent, summed over its elements.
    """

    def __init__(
        self,
        point: Mapping[str, Tensor] | None = None,
        *,
        observed: Mapping[str, Tensor],
        enumerate_sites: bool = True,
    ) -> None:
        super().__init__(observed=observed, enumerate_sites=enumerate_sites)
        self.given, self.point = point, dict(point or {})
        self.log_det: list[Tensor] = []

    def _pyro_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        known = site_is_subsample(msg) or msg["is_observed"] or name in self.observed
        if known or msg["infer"].get("enumerate") == "parallel":
            super()._pyro_sample(msg)
            return
        transform = _bijection(name, fn)
        if self.given is None:
            shape = transform.inverse_shape(fn.shape()) if transform else fn.shape()
            self.point[name] = torch.empty(shape).uniform_(-RADIUS, RADIUS)
        u = self._coordinates(name)
        value = transform(u) if transform else u
        if value.shape != fn.shape():
            raise _varying(name)
        if transform:
            self.log_det.append(transform.log_abs_det_jacobian(u, value).sum())
        msg["value"], msg["done"] = value, True
        msg["infer"] = msg["infer"] | {"_drawn": None}

    def _coordinates(self, name: str) -> Tensor:
        if name not in self.point:
            raise _varying(name)
        return self.point[name]


@dataclass(frozen=True, eq=False)
class LogJoint:
    """log p(z(u), x) + log |dz/du| as a function of one vector u; built by `log_joint`.

    Attributes:
        model: the model, its parameters held fixed.
        batch: the data.
        shapes: the unconstrained shape of every latent, in the order of the program.
    """

    model: Model
    batch: Batch
    shapes: dict[str, torch.Size]

    def __call__(self, u: Float[Tensor, " d"]) -> Float[Tensor, ""]:
        """The log density at `u`, in nats."""
        run = self.run(u)
        sites = terms(run)
        log_p = log_rows(sites, rows_of(self.batch)).sum() + log_shared(sites)
        return sum(run.log_det, start=log_p)

    def run(self, u: Float[Tensor, " d"]) -> Unconstrained:
        """The joint program at `u`."""
        parts = u.split([shape.numel() for shape in self.shapes.values()])
        named = zip(self.shapes.items(), parts, strict=True)
        return _run(self.model, self.batch, {k: part.reshape(s) for (k, s), part in named})

    def start(self) -> Float[Tensor, " d"]:
        """A random point at which the density and its gradient are finite.

        Raises:
            BadStart: a hundred draws found none.
            Unsupported: the density there is another one each time.
        """
        why = ""
        for _ in range(_TRIES):
            try:
                run = _run(self.model, self.batch, None)
                u = torch.cat([value.flatten() for value in run.point.values()]).requires_grad_()
                log_p = self(u)
                (gradient,) = torch.autograd.grad(log_p, u)
            except RuntimeError as error:
                if not singular(error):
                    raise
                why = f"a matrix has no factor there ({str(error).splitlines()[0]})."
                continue
            if bool(log_p.isfinite()) and bool(gradient.isfinite().all()):
                _check_steady(self, u.detach())
                return u.detach()
            why = _blame(run)
        raise BadStart(
            f"{_TRIES} points drawn uniformly from (-{RADIUS:g}, {RADIUS:g}) on the unconstrained "
            f"space all have a density or a gradient that is not finite: {why} Look at the "
            "priors and at the scale of the data; standardise the data, bound scales away from "
            "zero, or give the site a distribution that reaches its value."
        )


def log_joint(model: Model, batch: Batch) -> LogJoint:
    """The log joint of the model's continuous latents given the batch.

    Raises:
        ValueError: there is no continuous latent, or the data do not have the shape of their site,
            or lie outside its support, or the model does not know them.
        Unsupported: a discrete latent that is not enumerated, or a program of varying structure.

    Example:
        >>> from pgm.families.regression import Regression
        >>> batch = Batch(x=torch.zeros(3, 2), y=torch.zeros(3))
        >>> density = log_joint(Regression(2), batch)
        >>> density.shapes
        {'weights': torch.Size([2]), 'intercept': torch.Size([]), 'noise': torch.Size([])}
        >>> float(density(torch.zeros(4)))
        -8.988
    """
    run, name = _first_run(model, batch), type(model).__name__
    if problems := list(shapes(run, batch)):
        raise ValueError(f"{name} does not fit these data. " + " ".join(problems))
    check_keys(model, batch, run)
    _check_supports(run)
    if not run.point:
        raise ValueError(
            f"{name} has no continuous latent site given {', '.join(map(repr, batch))}: there is "
            "no posterior to sample. Give the quantities whose posterior you want a prior, with "
            "pyro.sample; parameters (nn.Parameter) are learned by pgm.fit instead."
        )
    return LogJoint(model, batch, {name: u.shape for name, u in run.point.items()})


def _first_run(model: Model, batch: Batch) -> Unconstrained:
    """The joint at a random point; another one, where a matrix of the program has no factor."""
    for _ in range(_TRIES):
        try:
            return run_joint(model, batch, Unconstrained(observed=batch, enumerate_sites=False))
        except RuntimeError as error:
            if not singular(error):
                raise
            why = str(error).splitlines()[0]
    raise BadStart(
        f"{type(model).__name__} could not be run at any of {_TRIES} points: a matrix has no "
        f"factor there ({why}). Add a small number to the diagonal of the covariance, or pass "
        "scale_tril."
    )


def singular(error: RuntimeError) -> bool:
    """Whether a program failed because a matrix has no factor; TorchScript wraps such errors."""
    return "linalg." in str(error)


def _run(model: Model, batch: Batch, point: Mapping[str, Tensor] | None) -> Unconstrained:
    return run_joint(model, batch, Unconstrained(point, observed=batch))


def _bijection(name: str, fn: Any) -> Any:
    """From R^d onto the support of a distribution; None for the identity."""
    support = fn.support
    inner = support
    while isinstance(inner, constraints.independent):
        inner = inner.base_constraint
    if inner is constraints.real:
        return None
    if support.is_discrete:
        raise Unsupported(
            f"Site {name!r} is a discrete latent ({type(fn).__name__}), which has no gradient to "
            "follow. Mark it infer={'enumerate': 'parallel'} to have it summed out"
            + ("." if fn.has_enumerate_support else ", with a distribution of finite support.")
        )
    return biject_to(support)


def _varying(name: str) -> Unsupported:
    return Unsupported(
        f"Site {name!r} appears, or changes its shape, with the values of other sites: the "
        "program's structure depends on its draws, so that there is no joint density over fixed "
        "latents. Sample the site always, in one shape, and use of it what is needed."
    )


def _check_supports(run: Run) -> None:
    """Outside its support a density is no number, and may pass for one where nobody validates."""
    for site in run.sites.values():
        if not site.observed or site.deterministic or site.name not in run.observed:
            continue
        try:
            inside = site.fn.support.check(site.value)
        except NotImplementedError:
            continue
        if not bool(inside.all()):
            raise ValueError(
                f"Data for site {site.name!r} lie outside the support of its "
                f"{type(site.fn).__name__}, where it has no density. Recode or transform the data, "
                "or choose a distribution over their range."
            )


def _check_steady(density: LogJoint, u: Tensor) -> None:
    """Whether the density stays the same under other random numbers."""
    values = []
    for seed in (1, 2, 3):
        with seeded(seed):
            values.append(density(u))
    if all(bool(value == values[0]) for value in values):
        return
    missing = [key.removesuffix(SEEN) for key in density.batch if key.endswith(SEEN)]
    why = (
        f"other sites depend on the missing cells of {', '.join(map(repr, missing))}, which would "
        "have to be latents themselves. Drop those rows, or complete them several times with "
        "pgm.impute and pool the posteriors."
        if missing
        else "the program draws random numbers besides its sites, by subsampling, noise or an "
        "estimated density. Make every draw a pyro.sample site."
    )
    raise Unsupported(
        f"The joint density of {type(density.model).__name__} is {float(values[0]):.6g} nats once "
        f"and {float(values[1]):.6g} the next time at the same point: no chain can be right. "
        f"Probably {why}"
    )


def _blame(run: Run) -> str:
    """Names the first site whose value or density is not finite."""
    for site in run.sites.values():
        for what, tensor in {"value": site.value, "log density": site.log_prob()}.items():
            bad = ~torch.isfinite(tensor)
            if bool(bad.any()):
                role = "observed" if site.observed else "latent"
                return (
                    f"{role} site {site.name!r} ({type(site.fn).__name__}) has {what} "
                    f"{float(tensor[bad][0])}."
                )
    return "the density of every site is finite, so that it is the gradient which is not."
