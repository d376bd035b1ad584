"""Linear-Gaussian models as one system, x = b + W x + s u with u ~ N(0, I), and its conditioning.

With A = (I - W)^-1 every node is x = A (b + s u), jointly normal with mean A b and covariance
A diag(s^2) A'. Given some nodes M, u is normal with mean G_M S_MM^-1 (x_M - m_M) and covariance
I - G_M S_MM^-1 G_M', where G = diag(s) A' is the covariance of u and x (Anderson 2003, thm. 2.5.1).
An intervention changes b, W and s; the noise stays, so that the same u gives the counterfactual.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from causal.interventions.handler import unwrap
from causal.mechanisms import LinearGaussian, Mechanism
from causal.structural import Structural
from pgm import Model

Rows = Float[Tensor, "n d"]


@dataclass(frozen=True, eq=False)
class System:
    """x = b + W x + s u in float64 on the CPU; nodes that are set have no noise.

    Attributes:
        nodes: the d nodes.
        b: shape (n, d), or (1, d) where it is the same for all rows.
        W: W[i, j] is the weight of node j in node i.
        s: standard deviations of the noises; zero where a node is set.
    """

    nodes: tuple[str, ...]
    b: Rows
    W: Float[Tensor, "d d"]
    s: Float[Tensor, " d"]

    @property
    def response(self) -> Float[Tensor, "d d"]:
        """A = (I - W)^-1."""
        return torch.linalg.inv(torch.eye(len(self.s), dtype=self.W.dtype) - self.W)

    def solve(self, u: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k n d"]:
        """x = A (b + s u)."""
        return (self.b + self.s * u) @ self.response.mT


@dataclass(frozen=True, eq=False)
class Normals:
    """A normal law a row: mean (n, d), covariance (n, d, d), by node.

    Attributes:
        nodes: the d nodes.
        mean: shape (n, d).
        covariance: shape (n, d, d).
    """

    nodes: tuple[str, ...]
    mean: Rows
    covariance: Float[Tensor, "n d d"]

    def of(self, node: str) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Mean and variance of one node, by row."""
        i = self.nodes.index(node)
        return self.mean[:, i], self.covariance[:, i, i].clamp(min=0)  # zero to rounding


def system(model: Model) -> System | None:
    """The linear system of a model, under its interventions; None if it is not linear-Gaussian.

    Example:
        >>> from causal import SCM, do
        >>> scm = SCM("A -> B", B=LinearGaussian({"A": 2.0}, scale=0.5))
        >>> system(do(scm, A=1.0)).s.tolist()
        [0.0, 0.5]
    """
    base, values = unwrap(model)
    if not isinstance(base, Structural) or not _plain(values):
        return None
    nodes, d = base.nodes, len(base.nodes)
    rows = max([len(v) for v in values.values() if isinstance(v, Tensor) and v.dim()], default=1)
    b = torch.zeros(rows, d, dtype=torch.float64)
    W, s = torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    for i, node in enumerate(nodes):
        action = values.get(node)
        if isinstance(action, Tensor):
            if base.mechanism(node).kind.size is not None:
                return None
            b[:, i] = action.double().cpu()
            continue
        mechanism = action or base.mechanism(node)
        if type(mechanism) is not LinearGaussian or not all(
            kind.is_number for kind in mechanism.inputs.values()
        ):
            return None
        b[:, i] = mechanism.intercept.double().cpu()
        s[i] = mechanism.log_scale.double().exp().cpu()
        for parent, w in zip(mechanism.inputs, mechanism.weight.double(), strict=True):
            if isinstance(heard := values.get((parent, node)), Tensor):
                b[:, i] = b[:, i] + (w * heard.double()).cpu()
            else:
                W[i, nodes.index(parent)] = w
    return System(nodes, b.detach(), W.detach(), s.detach())


def posterior(
    factual: System, x: Rows, seen: Bool[Tensor, "n d"]
) -> tuple[Rows, Float[Tensor, "n d d"]]:
    """Mean and covariance of the noise u of every row, given its seen nodes."""
    A, n, d = factual.response, len(x), len(factual.s)
    G = factual.s[:, None] * A.mT
    S = G.mT @ G
    residual = x - factual.b @ A.mT
    mean = torch.empty(n, d, dtype=torch.float64)
    covariance = torch.empty(n, d, d, dtype=torch.float64)
    patterns, which = torch.unique(seen & (S.diagonal() > 0), dim=0, return_inverse=True)
    for k, known in enumerate(patterns):
        i = which == k
        gain = torch.linalg.solve(S[known][:, known], G[:, known].mT).mT
        mean[i] = residual[i][:, known] @ gain.mT
        covariance[i] = torch.eye(d, dtype=torch.float64) - gain @ G[:, known].mT
    return mean, covariance


def draw(
    mean: Rows, covariance: Float[Tensor, "n d d"], particles: int
) -> Float[Tensor, "particles n d"]:
    """Draws of the noise from its posterior, which has no spread in some directions."""
    value, vector = torch.linalg.eigh(covariance)
    root = vector * value.clamp(min=0).sqrt()[:, None, :]
    eps = torch.randn(particles, *mean.shape, dtype=mean.dtype)
    return mean + (root @ eps[..., None])[..., 0]


def law(world: System, mean: Rows, covariance: Float[Tensor, "n d d"]) -> Normals:
    """The law of all nodes in a world, under a normal law of the noise."""
    root = world.response * world.s
    return Normals(world.nodes, world.solve(mean), root @ covariance @ root.mT)


def _plain(values: Mapping[Any, Any]) -> bool:
    """Whether all interventions are numbers, or linear mechanisms."""
    return all(isinstance(v, Tensor | Mechanism) for v in values.values())
