"""The density of what was seen where the rest is linear-Gaussian: unseen cells integrated out.

Let T be the unseen nodes and their children. If all of T are linear-Gaussian, the terms of T are
one quadratic form in the unseen values z of a row,

    prod_T p(x_j | pa_j) = exp(c - (r + A z)' D (r + A z) / 2),    A = I - W,  D = diag(1 / s^2)

with r the residuals of the row where z = 0; so that z given what was seen is normal with precision
P = A'DA and mean -P^-1 A'Dr (both on the unseen nodes), and the integral is its normaliser
(Anderson 2003, sec. 2.5). The terms outside T have nothing unseen in them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from causal.mechanisms import LinearGaussian
from causal.mechanisms.predictor import part
from causal.structural import Structural
from pgm.batch import SEEN

_LOOSE = 1e-6
"""The precision of an unseen value of which no term speaks."""


@dataclass(frozen=True, eq=False)
class Unseen:
    """The unseen values z of each row given what was seen, over the t nodes of T.

    Attributes:
        nodes: T.
        mean: of z, shape (n, t); zero where a node was seen.
        precision: of z, shape (n, t, t); the identity where a node was seen.
        log_integral: log of the integral of the terms of T over z, shape (n,).
    """

    nodes: tuple[str, ...]
    mean: Float[Tensor, "n t"]
    precision: Float[Tensor, "n t t"]
    log_integral: Float[Tensor, " n"]

    def covariance(self, names: list[str]) -> Float[Tensor, "n k k"]:
        """The covariance of some of the nodes."""
        i = [self.nodes.index(name) for name in names]
        return torch.linalg.inv(self.precision)[:, i][:, :, i]


def entangled(model: Structural, unseen: Iterable[str]) -> list[str] | None:
    """T, the unseen nodes and their children; None if they are not all linear-Gaussian.

    Example:
        >>> from causal import SCM
        >>> entangled(SCM("A -> B -> C -> D"), ["B"])
        ['B', 'C']
    """
    hidden = set(unseen)
    found = [v for v in model.nodes if v in hidden or hidden.intersection(model.parents(v))]
    plain = all(type(model.mechanism(v)) is LinearGaussian for v in found)
    return found if plain else None


def integrate(model: Structural, batch: Mapping[str, Tensor], nodes: list[str], n: int) -> Unseen:
    """The law of the unseen values of the nodes T, in float64.

    Args:
        model: a structural model; T are linear-Gaussian. Where a parent outside T was not seen,
            the term of its child is left out, as it is where the child was set.
        batch: what was seen, with masks `x_seen`, and `clamped`.
        nodes: T.
        n: the number of rows.
    """
    x, seen = _values(model, batch, nodes, n)
    b, W, log_s = _system(model, batch, nodes, n)
    free = _free(model, batch, nodes, n).to(x.dtype)
    A = torch.eye(len(nodes), dtype=x.dtype, device=x.device) - W
    D, r = free * (-2 * log_s).exp(), x - b - x @ W.mT
    open_ = (~seen).to(x.dtype)
    P = torch.einsum("ki,nk,kj->nij", A, D, A) * open_[:, :, None] * open_[:, None, :]
    P = P + torch.diag_embed(seen.to(x.dtype) + _LOOSE * open_ * (1 - free))
    g = (D * r) @ A * open_
    L = torch.linalg.cholesky(P)
    half = torch.linalg.solve_triangular(L, g[..., None], upper=False)
    mean = -torch.linalg.solve_triangular(L.mT, half, upper=True)[..., 0]
    log_2pi = math.log(2 * math.pi)
    exponent = -0.5 * ((D * r.square()).sum(-1) - half.square().sum((-2, -1)))
    scale = -(free * (log_s + 0.5 * log_2pi)).sum(-1) + 0.5 * log_2pi * open_.sum(-1)
    log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return Unseen(tuple(nodes), mean, P, exponent + scale - log_det)


def observed_log_prob(
    model: Structural, batch: Mapping[str, Tensor], nodes: list[str], n: int
) -> Float[Tensor, " n"]:
    """Log density of what was seen of each row, exact: the integral over T, and all other terms."""
    total = integrate(model, batch, nodes, n).log_integral
    for node in model.nodes:
        if node in nodes:
            continue
        fn = model.mechanism(node).dist({p: batch[p] for p in model.parents(node)})
        free = _free(model, batch, [node], n)[:, 0]
        total = total + fn.mask(free).log_prob(batch[node])
    return total.to(model.dtype)


def _values(
    model: Structural, batch: Mapping[str, Tensor], nodes: list[str], n: int
) -> tuple[Float[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """The values of T, zero where they were not seen, and where they were."""
    zero = torch.zeros(n, dtype=torch.float64, device=model.device)
    every = torch.ones(n, dtype=torch.bool, device=model.device)
    seen = torch.stack([batch.get(v + SEEN, every) if v in batch else ~every for v in nodes], 1)
    x = torch.stack([batch[v].double() if v in batch else zero for v in nodes], 1)
    return x.masked_fill(~seen, 0.0), seen


def _system(
    model: Structural, batch: Mapping[str, Tensor], nodes: list[str], n: int
) -> tuple[Float[Tensor, "n t"], Float[Tensor, "t t"], Float[Tensor, " t"]]:
    """b, with the part of parents outside T; the weights inside T; and log s."""
    b, rows, log_s = [], [], []
    for node in nodes:
        mechanism = model.mechanism(node)
        assert isinstance(mechanism, LinearGaussian)
        w = mechanism.weight.double().split([kind.width for kind in mechanism.inputs.values()])
        row = {name: torch.zeros_like(mechanism.intercept.double()) for name in nodes}
        own = mechanism.intercept.double().expand(n)
        for (name, kind), wp in zip(mechanism.inputs.items(), w, strict=False):
            if name in row:
                row[name] = wp[0]
            else:
                own = own + part(batch[name], wp, kind).double()
        b.append(own)
        rows.append(torch.stack(list(row.values())))
        log_s.append(mechanism.log_scale.double())
    return torch.stack(b, 1), torch.stack(rows), torch.stack(log_s)


def _free(
    model: Structural, batch: Mapping[str, Tensor], nodes: list[str], n: int
) -> Bool[Tensor, "n t"]:
    """Where nothing set the nodes, and all their parents outside T were seen."""
    every = torch.ones(n, dtype=torch.bool, device=model.device)
    found = []
    for node in nodes:
        free = ~batch["clamped"][:, model.nodes.index(node)] if "clamped" in batch else every
        for parent in model.parents(node):
            if parent not in nodes and parent + SEEN in batch:
                free = free & batch[parent + SEEN].reshape(n, -1).all(1)
        found.append(free)
    return torch.stack(found, 1)
