"""What a node of an SCM gets where no mechanism was given: by its column, or by its kind.

Linear-Gaussian for a number, negative binomial for a count, a table for levels whose parents all
have levels, else a linear softmax, and a vector with a linear mean.
"""

import copy
import functools
from typing import Any

from causal.mechanisms import (
    NUMBER,
    CategoricalTable,
    Inputs,
    Kind,
    LinearGaussian,
    LinearSoftmax,
    LinearVector,
    Mechanism,
    NegativeBinomial,
    build,
)
from pgm import Categorical, Count
from pgm.schema.columns import listing


def kind_of(node: str, column: Any, given: Any) -> Kind | None:
    """What its column says of a node, or what was passed for it; None where nothing does.

    Raises:
        ValueError: the two contradict each other.
    """
    said = given if isinstance(given, Kind) else None
    if column is None:
        return said
    kind = Kind(levels=len(column.levels)) if isinstance(column, Categorical) else NUMBER
    if said not in (None, kind):
        raise ValueError(
            f"Node {node!r} was passed as {said}, but its column in the schema is {kind}. Leave "
            "one of the two out."
        )
    return kind


def default(column: Any, kind: Kind, inputs: Inputs) -> type[Mechanism]:
    """The class of mechanism for a node of some kind.

    Example:
        >>> default(None, Kind(levels=2), {"a": Kind()}).__name__
        'LinearSoftmax'
    """
    if kind.size is not None:
        return LinearVector
    if kind.levels > 1 or isinstance(column, Categorical):
        return CategoricalTable if all(k.levels > 1 for k in inputs.values()) else LinearSoftmax
    return NegativeBinomial if isinstance(column, Count) else LinearGaussian


def start(node: str, made: Any, inputs: Inputs, kind: Kind) -> Mechanism:
    """The untrained mechanism of a class, or of a `functools.partial` of one."""
    options: dict[str, Any] = {}
    if isinstance(made, functools.partial):
        made, options = made.func, made.keywords
    try:
        return made.start(inputs, kind, **options)
    except (TypeError, ValueError) as error:
        raise type(error)(f"The mechanism of {node!r}: {error}") from error


def read_given(node: str, value: Any) -> Any:
    """What was passed for a node: a copy of a mechanism, a class, or a description from a file."""
    if isinstance(value, dict) and "mechanism" in value:
        return build(value)
    if isinstance(value, Mechanism):
        return copy.deepcopy(value)
    made = value.func if isinstance(value, functools.partial) else value
    if isinstance(value, Kind) or (isinstance(made, type) and issubclass(made, Mechanism)):
        return value
    raise TypeError(
        f"The mechanism of {node!r} is {value!r}. Pass a mechanism, such as "
        "LinearGaussian({'A': 0.5}), or the class of one that is to be trained: LinearGaussian, "
        "or functools.partial(AdditiveNoise, hidden=(64,))."
    )


def fix_scale(mechanism: Mechanism) -> None:
    """A latent number has no scale of its own: mean 0 and variance 1 given parents at 0."""
    for name, parameter in mechanism.named_parameters():
        if mechanism.levels == 1 and name != "weight":
            parameter.requires_grad_(False)


def check_fit(node: str, mechanism: Mechanism, inputs: Inputs, own: Kind) -> None:
    """Refuses a mechanism that is made for another node.

    Raises:
        ValueError: it listens to other parents, or to parents or a node of other kinds.
    """
    if set(mechanism.inputs) != set(inputs):
        raise ValueError(
            f"The mechanism of {node!r} listens to {listing(list(mechanism.inputs)) or 'nothing'}, "
            f"but its parents in the graph are {listing(list(inputs)) or 'none'}. Each arrow "
            "stands for one argument: mend the mechanism or the graph."
        )
    if mechanism.kind != own or dict(mechanism.inputs) != dict(inputs):
        heard = listing([f"{p} {kind}" for p, kind in mechanism.inputs.items()]) or "nothing"
        there = listing([f"{p} {kind}" for p, kind in inputs.items()]) or "nothing"
        raise ValueError(
            f"The mechanism of {node!r} ({type(mechanism).__name__}) makes {mechanism.kind} of "
            f"{heard}, but the node is {own} and its parents are {there}. Pass the schema, or a "
            "mechanism made for these."
        )
