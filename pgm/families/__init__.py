"""One file a family: its class, its own answers to verbs, and an `example()`; found by listing."""

import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import Any

from pgm.model import Model


@dataclass(frozen=True)
class Example:
    """A small model with data, on which every verb and law is tried.

    Attributes:
        model: an untrained model.
        data: what it is trained on, in any form.
        fit: options of `pgm.fit` that train it in a second or two.
        discrete: whether the data are whole numbers, which have probabilities and no density.
        loss_falls: whether the objective is a loss; the value of a game or a contrast need not
            fall.
        bound_applies: whether the two programs bound the family's own density.
    """

    model: Model
    data: Any
    fit: dict[str, Any] = field(default_factory=dict)
    discrete: bool = False
    loss_falls: bool = True
    bound_applies: bool = True


def names() -> list[str]:
    """The families there are, by file.

    Example:
        >>> "kde" in names()
        True
    """
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def example(name: str) -> Example:
    """The example of a family, built anew.

    Raises:
        ValueError: there is no such family.
    """
    if name not in names():
        raise ValueError(f"There is no family {name!r}; there are {', '.join(names())}.")
    made = importlib.import_module(f"{__name__}.{name}").example()
    assert isinstance(made, Example)
    return made
