"""The linear-Gaussian mechanism: x = b + sum_p w_p x_p + sigma u, u ~ N(0, 1).

A parent with levels enters through one weight a level (one-hot). The estimate is weighted least
squares, which maximises the likelihood.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from pyro.distributions import Normal
from torch import Tensor, nn

from causal.mechanisms.mechanism import Mechanism, Values, design, part


class LinearGaussian(Mechanism):
    """x ~ N(b + sum_p w_p x_p, sigma^2).

    Args:
        coefficients: w_p by parent: a number, or one number a level for a parent with levels.
        intercept: b.
        scale: sigma.

    Raises:
        ValueError: a scale that is not positive, or levels fewer than two.

    Example:
        >>> C = LinearGaussian({"A": 1.0, "B": -0.8})
        >>> C.dist({"A": torch.tensor([0.0, 1.0]), "B": torch.tensor([1.0, 1.0])}).mean
        tensor([-0.8000, 0.2000], grad_fn=<AddBackward0>)
        >>> LinearGaussian({"dose": [0.0, 1.5, 2.0]}, scale=0.1).inputs
        {'dose': 3}
    """

    def __init__(
        self,
        coefficients: Mapping[str, float | Sequence[float]] | None = None,
        *,
        intercept: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(
                f"scale is {scale}; the standard deviation of the noise is positive. For a node "
                "that follows from its parents without noise there is no density: leave it out."
            )
        flat = {name: _list(name, w) for name, w in (coefficients or {}).items()}
        self.inputs = {name: len(w) for name, w in flat.items()}
        weight = torch.tensor([w for ws in flat.values() for w in ws])
        self.weight = nn.Parameter(weight, requires_grad=bool(flat))
        self.intercept = nn.Parameter(torch.tensor(float(intercept)))
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())

    @classmethod
    def start(cls, inputs: Mapping[str, int], levels: int) -> "LinearGaussian":
        """The standard normal, whatever the parents."""
        return cls({name: 0.0 if k == 1 else [0.0] * k for name, k in inputs.items()})

    def dist(self, parents: Values) -> Any:
        """N(b + sum_p w_p x_p, sigma^2)."""
        weights = self.weight.split(list(self.inputs.values())) if self.inputs else ()
        mu: Tensor = self.intercept
        for name, w in zip(self.inputs, weights, strict=True):
            mu = mu + part(parents[name], w)
        return Normal(mu, self.log_scale.exp())

    def estimate(
        self, x: Float[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Weighted least squares; sigma^2 is the weighted mean of the squared residuals."""
        X, y = design(self.inputs, parents, len(x), torch.float64), x.double()
        root = weight.double().sqrt()
        unit = X.square().mean(0).sqrt().clamp(min=1e-300)
        solved = torch.linalg.lstsq(
            root[:, None] * (X / unit), (root * y)[:, None], driver="gelsd", rcond=1e-10
        )
        _check_rank(int(solved.rank), self.inputs, parents, len(x))
        beta = solved.solution[:, 0] / unit
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
        for name, k in self.inputs.items():
            here, w = w[:k], w[k:]
            shown = f"{here[0]:.3g}" if k == 1 else "[" + " ".join(f"{v:.3g}" for v in here) + "]"
            terms.append(f"{shown} {name}")
        return " + ".join([*terms, f"{self.log_scale.exp().item():.3g} u"])


def _list(name: str, w: float | Sequence[float]) -> list[float]:
    if isinstance(w, int | float):
        return [float(w)]
    if len(w) < 2:
        raise ValueError(
            f"The coefficients of {name!r} are {list(w)}: a parent that is a number has one "
            "number, not in a list; a parent with levels has one a level, at least two."
        )
    return [float(v) for v in w]


def _check_rank(rank: int, inputs: Mapping[str, int], parents: Values, n: int) -> None:
    """Refuses a design that leaves a weight open; the one-hot columns add up to the ones."""
    free = 1 + sum(k - 1 if k > 1 else 1 for k in inputs.values())
    if rank >= free and n > free:
        return
    reasons = [f"{n} rows for {free} weights"] if n <= free else []
    for name, k in inputs.items():
        seen = parents[name].unique()
        if k == 1 and len(seen) == 1:
            reasons.append(f"{name!r} is constant")
        if k > 1 and len(seen) < k:
            absent = sorted(set(range(k)) - {int(v) for v in seen})
            reasons.append(f"levels {absent} of {name!r} never occur")
    raise ValueError(
        f"The rows do not determine the weights of {', '.join(inputs) or 'the mean'}: "
        f"{'; '.join(reasons) or 'the parents are linearly dependent'}. Any effect read off them "
        "would be arbitrary. Drop a parent, merge levels, or get rows in which it varies."
    )
