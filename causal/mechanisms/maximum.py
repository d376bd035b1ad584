"""The maximum of a mechanism's weighted likelihood where there is no closed form.

Few parameters and a smooth likelihood: L-BFGS in float64 on all rows. A network: a one-node model
trained by `pgm.fit` with a part of the rows held out, its best weights kept.
"""

import copy
import math
from typing import Any

import pyro
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

import pgm
from causal.mechanisms.mechanism import Mechanism, Values

_PRIOR = 30.0
"""The standard deviation of a prior on every parameter, which keeps the maximum finite."""


def maximise(
    mechanism: Mechanism, x: Shaped[Tensor, "n *d"], parents: Values, weight: Float[Tensor, " n"]
) -> None:
    """Sets the parameters to their weighted maximum by L-BFGS, from where they are.

    A prior N(0, 30^2) on each keeps it finite where levels separate.
    """
    search_on = copy.deepcopy(mechanism).double()
    wide = {name: _wide(value) for name, value in parents.items()}
    x, w = _wide(x), weight.double()
    free = [p for p in search_on.parameters() if p.requires_grad]
    search = torch.optim.LBFGS(
        free, max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9
    )

    def loss() -> Tensor:
        search.zero_grad()
        fit = (w * search_on.dist(wide).log_prob(x)).sum()
        prior = sum(p.square().sum() for p in free) / (2 * _PRIOR**2)
        value: Tensor = (prior - fit) / w.sum()
        value.backward()
        return value

    with torch.enable_grad():
        search.step(loss)
    _check_finite(free)
    mechanism.load_state_dict(search_on.state_dict())


def train(
    mechanism: Mechanism,
    x: Shaped[Tensor, "n *d"],
    parents: Values,
    weight: Float[Tensor, " n"],
    *,
    seed: int,
) -> None:
    """Trains a mechanism by `pgm.fit` for at most 2000 updates; a tenth of the rows says when."""
    batch = {"x": x, "weight": weight / weight.mean()}
    batch |= {_HEARD + name: parents[name] for name in mechanism.inputs}
    size = min(256, max(32, len(x) // 8))
    steps = min(2000, max(800, 80 * math.ceil(0.9 * len(x) / size)))
    pgm.fit(
        OneNode(mechanism),
        batch,
        steps=steps,
        batch_size=size,
        learning_rate=1e-2,
        schedule="cosine",
        clip=10.0,
        validation=0.1 if len(x) >= 20 else None,
        patience=20 if len(x) >= 20 else None,
        seed=seed,
        device=x.device,
        progress=False,
    )


class OneNode(pgm.Model):
    """A mechanism as a model of its node alone: parents are context, and rows have weights.

    Args:
        mechanism: trained in place.
    """

    def __init__(self, mechanism: Mechanism) -> None:
        super().__init__()
        self.mechanism = mechanism

    @property
    def context(self) -> tuple[str, ...]:
        """The parents, and the weights of the rows."""
        return (*(_HEARD + name for name in self.mechanism.inputs), "weight")

    def model(self, n: int, *, weight: Any = 1.0, **heard: Tensor) -> None:
        """x ~ p(x | parents), its density to the power of the row's weight."""
        parents = {name.removeprefix(_HEARD): value for name, value in heard.items()}
        with pgm.rows(n), pyro.poutine.scale(scale=weight):
            pyro.sample("x", self.mechanism.dist(parents))


_HEARD = "parent "


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _check_finite(parameters: list[Any]) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in parameters):
        raise ValueError(
            "The likelihood has no finite maximum, or the search lost it: a parameter became "
            "infinite. Rescale the columns, drop a parent, or take a simpler mechanism."
        )
