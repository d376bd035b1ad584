"""The linear-Gaussian mechanism: x = b + sum_p w_p x_p + sigma u, u ~ N(0, 1).

A parent with levels enters through one weight a level (one-hot), a vector through one a component.
The estimate is weighted least squares, which maximises the likelihood.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from pyro.distributions import Normal
from torch import Tensor, nn

from causal.mechanisms.kind import Kind
from causal.mechanisms.mechanism import Inputs, Mechanism, Values, refuse_kind
from causal.mechanisms.predictor import blocks_of, design, part, vectors_of, zeros


class LinearGaussian(Mechanism):
    """x ~ N(b + sum_p w_p x_p, sigma^2).

    Args:
        coefficients: w_p by parent: a number, or one number a level for a parent with levels, or
            one a component for a vector.
        intercept: b.
        scale: sigma.
        vectors: the parents that are vectors.

    Raises:
        ValueError: a scale that is not positive, or levels fewer than two.

    Example:
        >>> C = LinearGaussian({"A": 1.0, "B": -0.8})
        >>> C.dist({"A": torch.tensor([0.0, 1.0]), "B": torch.tensor([1.0, 1.0])}).mean
        tensor([-0.8000, 0.2000], grad_fn=<AddBackward0>)
        >>> print(LinearGaussian({"dose": [0.0, 1.5, 2.0]}, scale=0.1).inputs["dose"])
        one of 3 levels
    """

    def __init__(
        self,
        coefficients: Mapping[str, float | Sequence[float]] | None = None,
        *,
        intercept: float = 0.0,
        scale: float = 1.0,
        vectors: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(
                f"scale is {scale}; the standard deviation of the noise is positive. For a node "
                "that follows from its parents without noise there is no density: leave it out."
            )
        self.inputs, blocks = blocks_of(coefficients, 1, vectors)
        self.plain = all(kind.is_number for kind in self.inputs.values())
        weight = torch.cat([torch.zeros(0, 1), *blocks.values()])[:, 0]
        self.weight = nn.Parameter(weight, requires_grad=bool(blocks))
        self.intercept = nn.Parameter(torch.tensor(float(intercept)))
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "LinearGaussian":
        """The standard normal, whatever the parents."""
        if not kind.is_number:
            refuse_kind(cls, kind, "a number", "CategoricalTable, LinearSoftmax or LinearVector")
        return cls(zeros(inputs, 1), vectors=vectors_of(inputs), **options)

    @classmethod
    def example(cls) -> "LinearGaussian":
        """A number, a parent with levels and a vector."""
        coefficients: dict[str, Any] = {"a": 0.7, "t": [0.0, 1.0, -0.5], "v": [0.3, -0.4]}
        return cls(coefficients, intercept=0.2, scale=0.6, vectors=["v"])

    def mean(self, parents: Values) -> Tensor:
        """b + sum_p w_p x_p."""
        mu: Tensor = self.intercept
        if self.plain:
            for name, w in zip(self.inputs, self.weight.unbind(), strict=True):
                mu = mu + w * parents[name]
            return mu
        weights = self.weight.split([kind.width for kind in self.inputs.values()])
        for (name, kind), w in zip(self.inputs.items(), weights, strict=False):
            mu = mu + part(parents[name], w, kind)
        return mu

    def dist(self, parents: Values) -> Any:
        """N(b + sum_p w_p x_p, sigma^2)."""
        return Normal(self.mean(parents), self.log_scale.exp())

    def draw(self, parents: Values, n: int) -> Tensor:
        """b + sum_p w_p x_p + sigma u, u ~ N(0, 1)."""
        mu = self.mean(parents)
        u = torch.randn(n, dtype=mu.dtype, device=mu.device)
        x: Tensor = mu + self.log_scale.exp() * u
        return x

    def carry(self, now: Values, was: Values, x: Tensor) -> Tensor:
        """x + sum_p w_p (now_p - was_p): noise adds, and cancels where parents move.

        That is push(now, pull(was, x)), for parents that are all numbers.
        """
        for name, w in zip(self.inputs, self.weight.unbind(), strict=True):
            if now[name] is not was[name]:
                x = x + w * (now[name] - was[name])
        return x

    def push(self, parents: Values, u: Any, *, coupling: str | None = None) -> Tensor:
        """b + sum_p w_p x_p + sigma u."""
        x: Tensor = self.mean(parents) + self.log_scale.exp() * u
        return x

    def pull(self, parents: Values, x: Tensor, *, coupling: str | None = None) -> Tensor:
        """(x - b - sum_p w_p x_p) / sigma."""
        return (x - self.mean(parents)) / self.log_scale.exp()

    def estimate(
        self, x: Float[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Weighted least squares; sigma^2 is the weighted mean of the squared residuals."""
        X, y = design(self.inputs, parents, x), x.double()
        beta = least_squares(X, y[:, None], weight.double(), self.inputs, parents)[:, 0]
        variance = (weight.double() * (y - X @ beta).square()).sum() / weight.double().sum()
        if float(variance) <= 1e-20 * float(y.square().mean().clamp(min=1e-300)):
            raise ValueError(
                f"The parents ({', '.join(self.inputs) or 'none'}) give every value without a "
                "residual: the noise has no variance, and so the node no density. Was it computed "
                "from them, or is it constant? Leave it out of the graph."
            )
        with torch.no_grad():
            self.intercept.copy_(beta[0])
            self.weight.copy_(beta[1:])
            self.log_scale.copy_(0.5 * variance.log())

    def extra_repr(self) -> str:
        """The equation."""
        w = self.weight.tolist()
        terms = [f"{self.intercept.item():.3g}"]
        for name, kind in self.inputs.items():
            here, w = w[: kind.width], w[kind.width :]
            each = " ".join(f"{v:.3g}" for v in here)
            shown = each if kind.is_number else f"[{each}]"
            terms.append(f"{shown} {name}")
        return " + ".join([*terms, f"{self.log_scale.exp().item():.3g} u"])


def least_squares(
    X: Float[Tensor, "n p"],
    Y: Float[Tensor, "n d"],
    weight: Float[Tensor, " n"],
    inputs: Inputs,
    parents: Values,
) -> Float[Tensor, "p d"]:
    """The weighted least-squares weights of the columns of X, of least norm.

    Raises:
        ValueError: the rows do not determine them.
    """
    root = weight.sqrt()[:, None]
    unit = X.square().mean(0).sqrt().clamp(min=1e-300)
    solved = torch.linalg.lstsq(root * (X / unit), root * Y, driver="gelsd", rcond=1e-10)
    check_rank(int(solved.rank), inputs, parents, len(X))
    return solved.solution / unit[:, None]


def check_rank(rank: int, inputs: Inputs, parents: Values, n: int) -> None:
    """Refuses a design that leaves a weight open; the one-hot columns add up to the ones.

    Raises:
        ValueError: a rank below the number of free weights, or fewer rows than weights.
    """
    free = 1 + sum(k.levels - 1 if k.levels > 1 else k.width for k in inputs.values())
    if rank >= free and n > free:
        return
    reasons = [f"{n} rows for {free} weights"] if n <= free else []
    for name, kind in inputs.items():
        seen = parents[name].unique()
        if kind.levels == 1 and len(seen) == 1:
            reasons.append(f"{name!r} is constant")
        if kind.levels > 1 and len(seen) < kind.levels:
            absent = sorted(set(range(kind.levels)) - {int(v) for v in seen})
            reasons.append(f"levels {absent} of {name!r} never occur")
    raise ValueError(
        f"The rows do not determine the weights of {', '.join(inputs) or 'the mean'}: "
        f"{'; '.join(reasons) or 'the parents are linearly dependent'}. Any effect read off them "
        "would be arbitrary. Drop a parent, merge levels, or get rows in which it varies."
    )
