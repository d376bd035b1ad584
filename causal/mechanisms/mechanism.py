"""What a mechanism is: the distribution of a node given its direct causes, p(x | parents).

A structural causal model is one mechanism a node (Pearl 2009, Causality, def. 7.1.1); each stays as
it is when another is replaced. Its noise form x = push(dist, u) is that of its distribution
(`pgm.noise`), which is what makes counterfactuals.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from pyro.nn import PyroModule
from torch import Tensor

from pgm import noise

Values = Mapping[str, Tensor]


class Mechanism(PyroModule):
    """p(x | parents); subclass it and write `dist`, `start` and, where there is one, `estimate`.

    Attributes:
        inputs: the levels of each parent, in order; 1 for a parent that is a number.
        levels: the levels of the node itself; 1 for a number.
    """

    inputs: dict[str, int]
    levels: int = 1
    _arguments: ClassVar[tuple[tuple[Any, ...], dict[str, Any]]] = ((), {})

    def __new__(cls, *args: Any, **kwargs: Any) -> "Mechanism":
        """Remembers the arguments, from which a saved SCM builds the mechanism again."""
        self = super().__new__(cls)
        object.__setattr__(self, "_arguments", (args, kwargs))
        return self

    @classmethod
    def start(cls, inputs: Mapping[str, int], levels: int) -> "Mechanism":
        """The untrained mechanism of a node with `levels` for parents with so many levels each."""
        raise NotImplementedError(f"{cls.__name__} has no start: write one, or pass an instance.")

    def dist(self, parents: Values) -> Any:
        """The distribution of the node, given the values of its parents by name."""
        raise NotImplementedError(f"{type(self).__name__} has no dist(parents).")

    def push(self, parents: Values, u: Any, *, coupling: str | None = None) -> Tensor:
        """The value that noise u makes, x = push(dist(parents), u) (`pgm.noise`)."""
        return noise.push(self.dist(parents), u, coupling=coupling)

    def pull(self, parents: Values, x: Tensor, *, coupling: str | None = None) -> Any:
        """The noise that made x: abduction (`pgm.noise`)."""
        return noise.pull(self.dist(parents), x, coupling=coupling)

    def estimate(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Sets the parameters to their maximum of sum_i weight_i log p(x_i | parents_i).

        Raises:
            NotImplementedError: the mechanism has no such rule; `pgm.fit` trains it.
            ValueError: the rows do not determine the parameters.
        """
        raise NotImplementedError(f"{type(self).__name__} has no estimate: use pgm.fit.")

    def resample(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Sets the parameters to a draw from their posterior, given standard exponential weights.

        The Bayesian bootstrap (Rubin 1981): the estimate under random weights of the rows.
        """
        self.estimate(x, parents, weight)


def describe(mechanism: Mechanism) -> dict[str, Any]:
    """The JSON-able description from which `build` makes an untrained mechanism."""
    args, kwargs = mechanism._arguments
    return {"mechanism": type(mechanism).__name__, "args": list(args), "kwargs": dict(kwargs)}


def build(described: Mapping[str, Any]) -> Mechanism:
    """The mechanism of a description.

    Raises:
        ValueError: no imported mechanism has that name.
    """
    known = {cls.__name__: cls for cls in _subclasses(Mechanism)}
    name = described["mechanism"]
    if name not in known:
        raise ValueError(
            f"The file holds a mechanism {name!r}, whose class is not imported here (imported are "
            f"{', '.join(known)}). Import the module that defines it first."
        )
    return known[name](*described["args"], **described["kwargs"])


def part(x: Tensor, weight: Float[Tensor, "k *out"]) -> Tensor:
    """What one parent adds to a linear predictor: its weight times x, or the weight of its level.

    A parent with k levels is coded one-hot, so that its part is row x of the weights.
    """
    if len(weight) > 1:
        return weight[x.long()]
    return x.reshape(x.shape + (1,) * (weight.dim() - 1)) * weight[0]


def design(
    inputs: Mapping[str, int], parents: Values, n: int, dtype: torch.dtype
) -> Float[Tensor, "n p"]:
    """The columns of a linear predictor: ones, numbers, and one-hot codes of levels."""
    columns = []
    for name, k in inputs.items():
        x = parents[name]
        levels = torch.arange(k, device=x.device)
        columns.append((x.long()[:, None] == levels).to(dtype) if k > 1 else x.to(dtype)[:, None])
    device = columns[0].device if columns else None
    return torch.cat([torch.ones(n, 1, dtype=dtype, device=device), *columns], 1)


def check_codes(name: str, x: Tensor, levels: int) -> None:
    """Refuses codes that are no level.

    Raises:
        ValueError: a code below 0, of `levels` or above, or between two whole numbers.
    """
    wrong = (x < 0) | (x >= levels) | (x != x.round())
    if bool(wrong.any()):
        raise ValueError(
            f"{name} has {levels} levels, coded 0 .. {levels - 1}, but holds {x[wrong][0].item()} "
            f"({int(wrong.sum())} such cells). Encode labels with the schema that the SCM has."
        )


def _subclasses(cls: type[Mechanism]) -> list[type[Mechanism]]:
    return [deep for sub in cls.__subclasses__() for deep in (sub, *_subclasses(sub))]
