"""Published structural equations, on which causal models are compared.

Those of Javaloy, Sanchez-Martin & Valera (2023), "Causal normalizing flows: from theory to
practice", app. D; the triangle is from Sanchez-Martin, Rateike & Valera (2022, VACA), Simpson and
the large backdoor are from Geffner et al. (2022, DECI). u ~ N(0, 1), but U(0, 1) in the backdoor.
"""

import math
from difflib import get_close_matches

import torch
from torch import Tensor
from torch.distributions import Normal, Uniform
from torch.nn.functional import softplus

from causal.flows.equations import Equation, Equations, additive

__all__ = ["NAMES", "published"]


def published(name: str) -> Equations:
    """The published equations of a name, one of `NAMES`.

    Raises:
        ValueError: no such name.

    Example:
        >>> known = published("triangle_nonlinear")
        >>> rows = known.sample(3, seed=0)
        >>> rows["x2"] - 2 * rows["x1"] ** 2 - known.abduct(rows)["x2"]
        tensor([0., 0., 0.], dtype=torch.float64)
    """
    if name not in _MODELS:
        near = get_close_matches(name, _MODELS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There are no equations {name!r}.{hint} There are {', '.join(NAMES)}.")
    law = Uniform(0.0, 1.0) if name == "large_backdoor" else Normal(0.0, 1.0)
    return Equations(name, _MODELS[name], law)


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))


def _simpson() -> dict[str, Equation]:
    def middle(x1: Tensor, x2: Tensor) -> Tensor:
        return torch.tanh(2 * x2) + 1.5 * x1 - 1

    return {
        "x1": additive(lambda: 0.0),
        "x2": additive(lambda x1: softplus(1 - x1), math.sqrt(3 / 20)),
        "x3": Equation(
            ("x1", "x2"),
            lambda u, x1, x2: middle(x1, x2) + torch.tanh(u),
            lambda x, x1, x2: torch.atanh(x - middle(x1, x2)),
        ),
        "x4": additive(lambda x3: (x3 - 4) / 5 + 3, 1 / math.sqrt(10)),
    }


def _soft(parent: str) -> Equation:
    """x = softplus(parent + 1) + softplus(1/2 + u) - 3."""
    return Equation(
        (parent,),
        lambda u, x: softplus(x + 1) + softplus(0.5 + u) - 3,
        lambda y, x: _inverse_softplus(y + 3 - softplus(x + 1)) - 0.5,
    )


def _large_backdoor() -> dict[str, Equation]:
    def centre(x7: Tensor, x8: Tensor) -> Tensor:
        return 2 - softplus((1.3 * x7 + x8) / 3 + 1)

    laplace = torch.distributions.Laplace(torch.zeros((), dtype=torch.float64), 0.6)
    return {
        "x1": Equation(
            (), lambda u: softplus(1.8 * u) - 1, lambda x: _inverse_softplus(x + 1) / 1.8
        ),
        "x2": additive(lambda x1: 1.5 * (softplus(x1 + 1) + math.log1p(math.exp(0.5)) - 3), 0.25),
        "x3": _soft("x1"),
        "x4": _soft("x2"),
        "x5": _soft("x3"),
        "x6": _soft("x4"),
        "x7": _soft("x5"),
        "x8": additive(lambda x6: softplus(x6 + 1) - 1, 0.3),
        "x9": Equation(
            ("x7", "x8"),
            lambda u, x7, x8: centre(x7, x8) + laplace.icdf(u),
            lambda x, x7, x8: laplace.cdf(x - centre(x7, x8)),
        ),
    }


_MODELS: dict[str, dict[str, Equation]] = {
    "chain": {
        "x1": additive(lambda: 0.0),
        "x2": additive(lambda x1: 10 * x1, -1),
        "x3": additive(lambda x2: 0.25 * x2, 2),
    },
    "chain_nonlinear": {
        "x1": additive(lambda: 0.0),
        "x2": additive(lambda x1: torch.exp(x1 / 2), 1 / 4),
        "x3": additive(lambda x2: (x2 - 5) ** 3 / 15),
    },
    "chain_of_4": {
        "x1": additive(lambda: 0.0),
        "x2": additive(lambda x1: 5 * x1, -1),
        "x3": additive(lambda x2: -0.5 * x2, -1.5),
        "x4": additive(lambda x3: x3),
    },
    "chain_of_5": {
        "x1": additive(lambda: 0.0),
        "x2": additive(lambda x1: 10 * x1, -1),
        "x3": additive(lambda x2: 0.25 * x2, 2),
        "x4": additive(lambda x3: x3),
        "x5": additive(lambda x4: -x4),
    },
    "collider": {
        "x1": additive(lambda: 0.0),
        "x2": additive(lambda: 2.0, -1),
        "x3": additive(lambda x1, x2: 0.25 * x2 - 0.5 * x1, 0.5),
    },
    "fork": {
        "x1": additive(lambda: 0.0),
        "x2": additive(lambda: 2.0, -1),
        "x3": additive(lambda x1, x2: 0.25 * x2 - 1.5 * x1, 0.5),
        "x4": additive(lambda x3: x3, 0.25),
    },
    "fork_nonlinear": {
        "x1": additive(lambda: 0.0),
        "x2": additive(lambda: 0.0),
        "x3": additive(lambda x1, x2: 4 * torch.sigmoid(x1 + x2) - x2**2, 1 / 2),
        "x4": additive(lambda x3: 20 * torch.sigmoid(x3 - x3**2 / 2)),
    },
    "large_backdoor": _large_backdoor(),
    "simpson": _simpson(),
    "simpson_symmetric": {
        "x1": additive(lambda: 0.0),
        "x2": additive(lambda x1: 2 * torch.tanh(2 * x1), 1 / math.sqrt(10)),
        "x3": additive(lambda x1, x2: x1 * x2 / 2, 1 / math.sqrt(2)),
        "x4": additive(lambda x1: torch.tanh(1.5 * x1), math.sqrt(3 / 10)),
    },
    "triangle": {
        "x1": additive(lambda: 1.0),
        "x2": additive(lambda x1: 10 * x1, -1),
        "x3": additive(lambda x1, x2: 0.5 * x2 + x1),
    },
    "triangle_nonlinear": {
        "x1": additive(lambda: 0.0),
        "x2": additive(lambda x1: 2 * x1**2),
        "x3": additive(lambda x1, x2: 20 * torch.sigmoid(x2**2 - x1)),
    },
}

NAMES = tuple(_MODELS)
"""The names of the published equations."""
