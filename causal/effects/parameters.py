"""The posterior over the parameters of an SCM's mechanisms, mechanism by mechanism, in float64.

Given complete rows the likelihood is a product over nodes, and with priors of their own so is the
posterior. A table has a Dirichlet prior of one observation on each configuration of the parents,
and its posterior is drawn exactly. The parameters theta of any other mechanism have a weak prior,
normal around the estimate with the information of one row, variance n / H_jj (unit information,
Kass & Wasserman 1995), H the Hessian of the log-likelihood. *Laplace*: N(theta*, H*^-1) at the
maximum of the density (Tierney & Kadane 1986). *SVI*: a normal guide fitted to the bound. *NUTS*.
"""

import copy
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import torch
from jaxtyping import Float
from pyro.distributions import MultivariateNormal
from torch import Tensor, nn

from causal.fitting.estimation import free_rows
from causal.mechanisms import CategoricalTable, Mechanism
from causal.scm import SCM
from pgm import Model, fit
from pgm.batch import Batch, move, rows_of, take
from pgm.randomness import seeded
from pgm.verb import Unsupported

Method = Literal["bootstrap", "laplace", "svi", "nuts"]

_LARGEST = 1000
"""Parameters of one mechanism, above which its Hessian is not formed."""

_STEPS = 300
_WARMUP, _KEPT = 100, 250


@dataclass(frozen=True, eq=False)
class Parameters:
    """Draws of an SCM from the posterior of its mechanisms' parameters.

    Iterating gives one copy of the SCM, whose parameters are set anew for every draw.

    Attributes:
        scm: the SCM that is copied.
        batch: the complete rows.
        thetas: by node, flat parameters, shape (draws, d); nodes of tables have none.
        seeds: of the tables, one a draw.
        source: what the draws are, in words.
    """

    scm: SCM
    batch: Batch
    thetas: Mapping[str, Float[Tensor, "draws d"]]
    seeds: list[int]
    source: str

    def __iter__(self) -> Iterator[SCM]:
        free = free_rows(self.scm, self.batch)
        drawn = copy.deepcopy(self.scm)
        for i, seed in enumerate(self.seeds):
            with seeded(seed), torch.no_grad():
                for node in drawn.nodes:
                    mechanism = drawn.mechanism(node)
                    if node in self.thetas:
                        nn.utils.vector_to_parameters(
                            self.thetas[node][i].to(self.scm.dtype), mechanism.parameters()
                        )
                        continue
                    x, parents = _columns(self.scm, self.batch, node, free[node])
                    weight = torch.empty(len(x), device=self.scm.device).exponential_()
                    mechanism.resample(x, parents, weight)
            yield drawn


def parameters(scm: SCM, batch: Batch, *, method: Method, draws: int, seed: int) -> Parameters:
    """Draws from the posterior of all parameters.

    Args:
        scm: at, or near, the maximum of the likelihood; it is not changed.
        batch: complete rows.
        method: "laplace", "svi" or "nuts".
        draws: how many.
        seed: of the draws.

    Raises:
        Unsupported: a mechanism with too many parameters for a Hessian.
        ValueError: rows that leave parameters open, an unknown method.
    """
    rule = {"laplace": _laplace, "svi": _svi, "nuts": _nuts}.get(method)
    if rule is None:
        raise ValueError(
            f"posterior is {method!r}; it is 'bootstrap', 'laplace', 'svi', 'nuts', a Posterior of "
            "pgm.inference, or a list of models."
        )
    precise = copy.deepcopy(scm).double()
    rows = move(batch, device=scm.device, dtype=torch.float64)
    modes = {}
    for node, i in free_rows(scm, batch).items():
        if not isinstance(scm.mechanism(node), CategoricalTable):
            modes[node] = _mode(node, precise.mechanism(node), *_columns(scm, rows, node, i))
    generator = torch.Generator().manual_seed(seed)
    seeds = torch.randint(2**31 - 1, (draws + 1,), generator=generator).tolist()
    with seeded(seeds[0]):
        thetas = rule(precise, rows, modes, draws) if modes else {}
    how = {"laplace": "Laplace's approximation", "svi": "a normal guide", "nuts": "NUTS"}[method]
    if len(modes) < len(scm.nodes):
        how = f"{how}, tables exact" if modes else "exact Dirichlet posteriors of tables"
    source = f"{draws} draws of the mechanisms' parameters given {rows_of(batch)} rows: {how}"
    return Parameters(scm, batch, thetas, seeds[1:], source)


@dataclass(frozen=True, eq=False)
class Mode:
    """The maximum of the posterior density of one mechanism.

    Attributes:
        theta: the flat parameters there.
        precision: minus the Hessian of the log density.
        scale: of the prior, normal around theta.
    """

    theta: Float[Tensor, " d"]
    precision: Float[Tensor, "d d"]
    scale: Float[Tensor, " d"]

    @functools.cached_property
    def root(self) -> Float[Tensor, "d d"]:
        """A root of Laplace's covariance, the inverse of the precision."""
        root: Tensor = MultivariateNormal(self.theta, precision_matrix=self.precision).scale_tril
        return root

    @functools.cached_property
    def prior_of_z(self) -> Any:
        """The prior, of coordinates z."""
        precision = self.root.mT @ torch.diag(self.scale**-2) @ self.root
        return MultivariateNormal(torch.zeros_like(self.theta), precision_matrix=precision)

    def at(self, z: Float[Tensor, "*draws d"]) -> Float[Tensor, "*draws d"]:
        """theta = theta* + root z."""
        return self.theta + z @ self.root.mT


class Located(Mechanism):
    """A mechanism at other values of its parameters, which keep their gradients.

    Args:
        base: the mechanism.
        theta: the flat parameters.
    """

    def __init__(self, base: Mechanism, theta: Float[Tensor, " d"]) -> None:
        super().__init__()
        self.inputs, self.kind = base.inputs, base.kind
        object.__setattr__(self, "at", (_Law(base), theta))

    def dist(self, parents: Mapping[str, Tensor]) -> Any:
        """That of the base at theta."""
        law, theta = vars(self)["at"]
        named, start = {}, 0
        for name, value in law.named_parameters():
            named[name] = theta[start : start + value.numel()].reshape(value.shape)
            start += value.numel()
        return torch.func.functional_call(law, named, (parents,))


class _Law(nn.Module):
    def __init__(self, base: Mechanism) -> None:
        super().__init__()
        self.base = base

    def forward(self, parents: Mapping[str, Tensor]) -> Any:
        return self.base.dist(parents)


class Lifted(Model):
    """An SCM whose mechanisms' parameters are latent sites z, theta = theta* + root z.

    The root is that of Laplace's covariance, in whose coordinates the posterior is nearly standard
    normal. Tables stay as they are: their part of the posterior is independent, and drawn exactly.

    Args:
        scm: in float64.
        modes: by node, where the posterior has its maximum.
    """

    def __init__(self, scm: SCM, modes: Mapping[str, Mode]) -> None:
        super().__init__()
        self._modules["scm"] = scm.requires_grad_(False)
        self.modes = dict(modes)
        sizes = [len(mode.theta) for mode in modes.values()]
        self.loc = nn.ParameterList([nn.Parameter(torch.zeros(d).double()) for d in sizes])
        self.root = nn.ParameterList([nn.Parameter(torch.eye(d).double()) for d in sizes])

    def model(self, n: int, clamped: Tensor | None = None) -> None:
        """Parameters from their priors, then the rows."""
        scm, located = self._modules["scm"], {}
        assert isinstance(scm, SCM)
        for node, mode in self.modes.items():
            z = pyro.sample(f"p({node})", mode.prior_of_z)
            located[node] = Located(scm.mechanism(node), mode.at(z))
        scm.draw(n, clamped, mechanisms=located)

    def guide(self, n: int) -> None:
        """Normals, independent between mechanisms."""
        for i, node in enumerate(self.modes):
            root = self.root[i].tril()
            pyro.sample(f"p({node})", MultivariateNormal(self.loc[i], scale_tril=root))


def _laplace(
    scm: SCM, rows: Batch, modes: Mapping[str, Mode], draws: int
) -> dict[str, Float[Tensor, "draws d"]]:
    return {
        node: mode.at(torch.randn(draws, len(mode.theta)).double()) for node, mode in modes.items()
    }


def _svi(
    scm: SCM, rows: Batch, modes: Mapping[str, Mode], draws: int
) -> dict[str, Float[Tensor, "draws d"]]:
    """Draws of a guide that starts from Laplace's approximation."""
    from pgm.inference import variational

    lifted = Lifted(scm, modes)
    options: dict[str, Any] = {"steps": _STEPS, "batch_size": rows_of(rows), "schedule": "cosine"}
    with torch.enable_grad():
        fit(lifted, rows, learning_rate=0.01, progress=False, seed=0, **options)
    found = variational(lifted, rows, draws=max(draws, 4))
    return {node: mode.at(found.draws[f"p({node})"][0, :draws]) for node, mode in modes.items()}


def _nuts(
    scm: SCM, rows: Batch, modes: Mapping[str, Mode], draws: int
) -> dict[str, Float[Tensor, "draws d"]]:
    """Two chains, whose draws are thinned to as many as are wanted."""
    from pgm.inference import mcmc

    kept = max(draws, _KEPT)
    options: dict[str, Any] = {"warmup": _WARMUP, "chains": 2, "progress": False}
    with torch.enable_grad():
        found = mcmc(Lifted(scm, modes), rows, draws=kept, **options)
    chosen = torch.linspace(0, 2 * kept - 1, draws).long()
    z = {node: found.draws[f"p({node})"].flatten(0, 1)[chosen] for node in modes}
    return {node: mode.at(z[node]) for node, mode in modes.items()}


def _mode(node: str, mechanism: Mechanism, x: Tensor, parents: Mapping[str, Tensor]) -> Mode:
    """The maximum of the log density of a mechanism's parameters, by Newton's method."""
    start = nn.utils.parameters_to_vector(mechanism.parameters()).detach()
    if len(start) > _LARGEST:
        raise Unsupported(
            f"Node {node!r} has {len(start)} parameters, too many for a Hessian, which the "
            "posterior starts from. Use posterior='bootstrap' or refit=, or pass models of your "
            "own as posterior=[...]."
        )

    def log_likelihood(theta: Tensor) -> Tensor:
        total: Tensor = Located(mechanism, theta).dist(parents).log_prob(x).sum()
        return total

    theta = _climb(log_likelihood, start)
    information = -_hessian(log_likelihood, theta)
    row = information.diagonal().clamp(min=0) / len(x)
    scale = torch.where(row > 0, row, torch.ones_like(row)).rsqrt()
    precision = information + torch.diag(scale**-2)
    if not bool((torch.linalg.eigvalsh(precision) > 0).all()):
        raise ValueError(
            f"The log-likelihood of the mechanism of {node!r} has no maximum near its parameters: "
            "its Hessian is not negative definite. Train it longer, or use posterior='bootstrap'."
        )
    return Mode(theta, precision, scale)


def _climb(density: Any, start: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """A maximum of a function, by L-BFGS from a point near it, in units of its curvature there."""
    scale = (-_hessian(density, start)).diagonal().clamp(min=1e-12).rsqrt().clamp(max=1e3)
    z = torch.zeros_like(start, requires_grad=True)
    search = torch.optim.LBFGS([z], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value: Tensor = -density(start + scale * z)
        value.backward()
        return value

    with torch.enable_grad():
        search.step(loss)
    return (start + scale * z).detach()


def _hessian(density: Any, theta: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
    with torch.enable_grad():
        found: Tensor = torch.autograd.functional.hessian(density, theta)
    return found


def _columns(scm: SCM, batch: Batch, node: str, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The values of a node and of its parents, in the rows where nothing set it."""
    rows = take({name: batch[name] for name in (node, *scm.parents(node))}, index)
    return rows.pop(node), dict(rows)
