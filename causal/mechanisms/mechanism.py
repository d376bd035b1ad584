"""What a mechanism is: the distribution of a node given its direct causes, p(x | parents).

A structural causal model is one mechanism a node (Pearl 2009, Causality, def. 7.1.1); each stays as
it is when another is replaced. Its noise form x = push(dist, u) is that of its distribution
(`pgm.noise`), which is what makes counterfactuals.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float, Shaped
from pyro.nn import PyroModule
from torch import Tensor

from causal.mechanisms.kind import NUMBER, Kind
from pgm import noise

Values = Mapping[str, Tensor]
Inputs = Mapping[str, Kind]

_KIND = "Kind(levels, size)"
"""How a file marks a kind."""


class Mechanism(PyroModule):
    """p(x | parents); subclass it and write `dist`, `start` and, where there is one, `estimate`.

    Every tensor of `dist` broadcasts over whatever stands before the last axis of its parents, so
    that a parent may be enumerated, and no step of it looks at values, so that rows can be vmapped.

    Attributes:
        inputs: what each parent is, in order.
        kind: what the node itself is.
    """

    inputs: dict[str, Kind]
    kind: Kind = NUMBER
    _arguments: ClassVar[tuple[tuple[Any, ...], dict[str, Any]]] = ((), {})

    def __new__(cls, *args: Any, **kwargs: Any) -> "Mechanism":
        """Remembers the arguments, from which a saved SCM builds the mechanism again."""
        self = super().__new__(cls)
        object.__setattr__(self, "_arguments", (args, kwargs))
        return self

    def __getattr__(self, name: str) -> Any:
        """Outside Pyro's context a parameter is just itself, and told without Pyro's detour."""
        state = self.__dict__
        if "_pyro_context" in state and not state["_pyro_context"].active:
            found = state["_parameters"].get(name)
            if found is not None:
                return found
        return super().__getattr__(name)

    @property
    def levels(self) -> int:
        """The levels of the node; 1 for numbers and vectors."""
        return self.kind.levels

    @property
    def ready(self) -> bool:
        """Whether it has a distribution before it is estimated."""
        return True

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "Mechanism":
        """The untrained mechanism of a node of some kind, for parents of these kinds.

        Raises:
            ValueError: the mechanism is for nodes, or for parents, of another kind.
        """
        raise NotImplementedError(f"{cls.__name__} has no start: write one, or pass an instance.")

    @classmethod
    def example(cls) -> "Mechanism":
        """A mechanism with something to it: what every mechanism promises is tested on it."""
        raise NotImplementedError(f"{cls.__name__} has no example: write one, and it is tested.")

    def dist(self, parents: Values) -> Any:
        """The distribution of the node, given the values of its parents by name."""
        raise NotImplementedError(f"{type(self).__name__} has no dist(parents).")

    def draw(self, parents: Values, n: int) -> Tensor:
        """Values for n rows, drawn given their parents."""
        x: Tensor = self.dist(parents).expand((n,)).sample()
        return x

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
    written = {"args": list(args), "kwargs": dict(kwargs)}
    return {"mechanism": type(mechanism).__name__, **_written(written)}


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
    return known[name](*_read(described["args"]), **_read(described["kwargs"]))


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


def refuse_kind(cls: type[Mechanism], kind: Kind, wanted: str, instead: str) -> None:
    """Refuses a node of another kind than a mechanism is for."""
    raise ValueError(
        f"{cls.__name__} is a mechanism for {wanted}, but the node is {kind}. Use {instead}."
    )


def _written(value: Any) -> Any:
    """Arguments with kinds as plain dicts, which files hold."""
    if isinstance(value, Kind):
        return {_KIND: [value.levels, value.size]}
    if isinstance(value, Mapping):
        return {key: _written(v) for key, v in value.items()}
    return [_written(v) for v in value] if isinstance(value, list | tuple) else value


def _read(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Kind(*value[_KIND]) if _KIND in value else {k: _read(v) for k, v in value.items()}
    return [_read(v) for v in value] if isinstance(value, list) else value


def _subclasses(cls: type[Mechanism]) -> list[type[Mechanism]]:
    return [deep for sub in cls.__subclasses__() for deep in (sub, *_subclasses(sub))]
