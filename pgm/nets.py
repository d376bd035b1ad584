"""Small neural networks: the multilayer perceptron that families share, by sizes.

h_0 = x, h_l = a(W_l h_{l-1} + b_l), y = W_L h_{L-1} + b_L. The rows, and whatever else comes
before the last axis, broadcast; nothing here mixes rows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

from torch import nn
from torch.distributions import Distribution

Activation = Literal["relu", "silu", "tanh", "elu", "softplus"]
"""The name of a nonlinearity, so that a model's arguments can be written to a file."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}


def mlp(
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    *,
    activation: Activation = "relu",
    dropout: float = 0.0,
) -> nn.Sequential:
    """A multilayer perceptron from (..., inputs) to (..., outputs).

    Args:
        inputs: size of the last axis that comes in.
        hidden: sizes of the hidden layers; none makes a single linear layer.
        outputs: size of the last axis that goes out.
        activation: nonlinearity after each hidden layer.
        dropout: share of each hidden layer that is silenced at random in training (Srivastava et
            al. 2014).

    Raises:
        ValueError: a size below 1, an unknown activation, or a dropout outside [0, 1).

    Example:
        >>> net = mlp(784, (400,), 20)
        >>> sum(p.numel() for p in net.parameters())
        322020
        >>> import torch
        >>> net(torch.zeros(5, 2, 784)).shape
        torch.Size([5, 2, 20])
    """
    sizes = [inputs, *hidden, outputs]
    if min(sizes) < 1:
        raise ValueError(
            f"The layers would have sizes {sizes}; each has at least one unit. Leave a layer out "
            "of hidden= instead of giving it size 0."
        )
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes[:-1]):
        layers += [nn.Linear(before, after), *nonlinearity(activation, dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], outputs))


def nonlinearity(activation: Activation, dropout: float = 0.0) -> list[nn.Module]:
    """The modules between two linear layers: the activation, and dropout where there is any.

    Raises:
        ValueError: an unknown activation, or a dropout outside [0, 1).

    Example:
        >>> nonlinearity("tanh", 0.5)
        [Tanh(), Dropout(p=0.5, inplace=False)]
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"There is no activation {activation!r}; there are {', '.join(ACTIVATIONS)}."
        )
    if not 0 <= dropout < 1:
        raise ValueError(
            f"dropout is {dropout}; it is the share of units that is silenced, from 0 up to but "
            "not including 1."
        )
    return [ACTIVATIONS[activation](), *([nn.Dropout(dropout)] if dropout else [])]


@contextmanager
def checks_kept() -> Iterator[None]:
    """Keeps the argument checks of distributions as they are, around an import of zuko.

    At its import zuko switches them off for all of torch's distributions, those of other models
    among them, whose data out of range would then get a density.

    Example:
        >>> before = Distribution._validate_args
        >>> with checks_kept():
        ...     import zuko
        >>> Distribution._validate_args == before
        True
    """
    before = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
