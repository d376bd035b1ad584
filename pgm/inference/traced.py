"""The log joint density and its gradient for many chains at once, without Pyro in the way.

The joint program is run once, at one point of the unconstrained space, and recorded together with
its gradient; the record is laid out over the chains (vmap) and compiled (`pgm.tracing`). A program
whose structure depends on where it is run is not replayed but run, chain by chain, and says why.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pyro
import torch
from jaxtyping import Float
from torch import Tensor
from torch.fx import GraphModule

from pgm.inference.precision import double
from pgm.inference.runs import read
from pgm.inference.unconstrained import LogJoint, log_joint, singular
from pgm.model import Model
from pgm.tracing import Backend, Trace, Untraceable, best_backend, close, record
from pgm.tracing.backends import batched
from pgm.tracing.program import compile_record, count, drop_unused, simplify

ValueAndGrad = tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]


class Density:
    """log p(z(u), x) + log |dz/du| and its gradient, at the points of many chains; in float64.

    Args:
        density: the log joint, of a model and a batch in float64 (see `pgm.inference.precision`).
        backend: "inductor", "ts", "graph" or "eager"; "auto" is the fastest that runs here.

    Attributes:
        density: the log joint of one point.
        backend: what computes it: "eager" after a fall-back.
        why: why the program is run instead of replayed; None if it is replayed.
        seconds: what recording and compiling took so far.
    """

    def __init__(self, density: LogJoint, *, backend: Backend | Literal["auto"] = "auto") -> None:
        self.density = density
        self.backend: Backend = best_backend() if backend == "auto" else backend
        self.why: str | None = None
        self.seconds = 0.0
        self._traces: dict[int, Trace] = {}

    @property
    def d(self) -> int:
        """The length of a point: the unconstrained coordinates of all latents."""
        return sum(shape.numel() for shape in self.density.shapes.values())

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user must know: that the program could not be replayed."""
        if self.why is None:
            return ()
        name = type(self.density.model).__name__
        return (f"{name} was run at every step instead of replayed, which is slow: {self.why}.",)

    def __call__(self, u: Float[Tensor, "chains d"]) -> ValueAndGrad:
        """The log density in nats, one a chain, and its gradient.

        It is compiled for a number of chains when that number first comes. At a point where a
        matrix of the program has no factor, the density is zero.

        Raises:
            ValueError: points of another length, or not in float64.
        """
        if u.shape[1:] != (self.d,) or u.dtype != torch.float64:
            raise ValueError(
                f"Points of shape {tuple(u.shape)} and {u.dtype} came; the density of "
                f"{type(self.density.model).__name__} takes one row of {self.d} coordinates a "
                "chain, in torch.float64."
            )
        chains = len(u)
        if self.backend != "eager" and chains not in self._traces:
            self._compile(u)
        try:
            if self.backend == "eager":
                return self._run(u)
            log_p, gradient = self._traces[chains](u)
        except RuntimeError as error:
            if not singular(error):
                raise
            return self._apart(u)
        return log_p, gradient

    def __repr__(self) -> str:
        why = f": {self.why}" if self.why else ""
        return f"Density of {type(self.density.model).__name__}, d = {self.d} ({self.backend}{why})"

    def _compile(self, u: Float[Tensor, "chains d"]) -> None:
        """Records and compiles for as many chains; falls back, with the reason, if that fails."""
        start = time.perf_counter()
        try:
            with _float64():
                trace = self._traced(u.detach())
            self._traces[len(u)] = trace
        except Untraceable as error:
            self.why, self.backend = str(error), "eager"
        self.seconds += time.perf_counter() - start

    def _traced(self, u: Float[Tensor, "chains d"]) -> Trace:
        start = time.perf_counter()
        one, other = u[0], u[-1] + 0.1 * torch.linspace(-1.0, 1.0, self.d)
        single = record(self._one, [one], [other])
        graph = _over_chains(single, u)
        trace = Trace(compile_record(graph, self.backend, [u]), self.backend, count(graph), 0.0)
        for points in (u, u.flip(0) + 0.1 * torch.linspace(-1.0, 1.0, self.d)):
            self._check(trace, points)
        return Trace(trace.program, self.backend, trace.calls, time.perf_counter() - start)

    def _check(self, trace: Trace, u: Float[Tensor, "chains d"]) -> None:
        """A replay that does not agree with the program is thrown away."""
        for what, expected, found in zip(
            ("log density", "gradient"), self._run(u[:_CHECKED]), trace(u), strict=True
        ):
            if not close(expected, found[:_CHECKED]):
                raise Untraceable(f"the {what} of the replay differs from that of the program")

    def _run(self, u: Float[Tensor, "chains d"]) -> ValueAndGrad:
        with _float64():
            pairs = [self._one(point) for point in u]
        return torch.stack([log_p for log_p, _ in pairs]), torch.stack([g for _, g in pairs])

    def _apart(self, u: Float[Tensor, "chains d"]) -> ValueAndGrad:
        """Point by point, where one at which the program fails would take the others along."""
        log_p, gradient = torch.full((len(u),), -torch.inf, dtype=u.dtype), torch.zeros_like(u)
        for i, point in enumerate(u):
            if not bool(point.isfinite().all()):
                continue
            try:
                log_p[i : i + 1], gradient[i : i + 1] = self._run(point[None])
            except RuntimeError as error:
                if not singular(error):
                    raise
        return log_p, gradient

    def _one(self, u: Float[Tensor, " d"]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            log_p = self.density(u)
            (gradient,) = torch.autograd.grad(log_p, u)
        return log_p.detach(), gradient


_CHECKED = 4
"""Chains at which a replay is held against the program."""


def log_density(model: Model, data: Any, *, backend: Backend | Literal["auto"] = "auto") -> Density:
    """The log joint density of a model's latents given data, ready for many chains.

    Args:
        model: any model with continuous latents; a float64 copy is used.
        data: all rows, in any form.
        backend: as in `Density`.

    Raises:
        ValueError: no continuous latent, or data that do not fit the model.
        BadStart: no point with a finite density; the message names the site.
        Unsupported: discrete latents that are not enumerated, or a density that is itself random.

    Example:
        >>> from pgm.families.regression import Regression
        >>> data = {"x": torch.zeros(3, 2), "y": torch.zeros(3)}
        >>> density = log_density(Regression(2), data, backend="graph")
        >>> log_p, gradient = density(torch.zeros(5, density.d, dtype=torch.float64))
        >>> log_p
        tensor([-8.988, -8.988, -8.988, -8.988, -8.988], dtype=torch.float64)
        >>> gradient.shape, density
        (torch.Size([5, 4]), Density of Regression, d = 4 (graph))
    """
    with double(model, read(model, data)) as (precise, batch):
        density = log_joint(precise, batch)
        density.start()
        return Density(density, backend=backend)


def _over_chains(graph: GraphModule, u: Float[Tensor, "chains d"]) -> GraphModule:
    """The record of one chain for all chains at once.

    What the program drew without using it is left out: the draws of missing cells, for one.
    """
    drop_unused(graph)
    try:
        return simplify(batched(graph, [u.clone()]))
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise Untraceable(f"it cannot be laid out over chains: {first[:200]}") from error


@contextmanager
def _float64() -> Iterator[None]:
    """As inside `double`: float64 by default, distributions that do not check their arguments."""
    outer = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        torch.set_default_dtype(outer)
