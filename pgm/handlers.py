"""Handlers: Model -> Model. `Handled` is a model whose programs run under a handler of effects.

It shares the parameters, the schema and the note of the model that it is made of, so that every
verb takes it, and handlers stack.
"""

from contextlib import AbstractContextManager
from typing import Any

from pgm.model import Model, arguments
from pgm.schema import Schema


class Handled(Model):
    """A model under a handler; subclass it and write `handler`.

    Args:
        base: the model; its parameters are shared, and it stays as it is.

    Example:
        >>> from pyro.infer.reparam import LocScaleReparam
        >>> from pyro.poutine import reparam
        >>> class Decentred(Handled):
        ...     def handler(self, program):
        ...         return reparam(config={"theta": LocScaleReparam(0.0)})
        >>> Decentred.__mro__[1].__name__
        'Handled'
    """

    def __init__(self, base: Model) -> None:
        super().__init__()
        # Not by attribute: PyroModule would rename the sites of the user's model.
        self._modules["base"] = base
        self.training = base.training
        self.keeps = base.keeps

    def handler(self, program: str) -> AbstractContextManager[Any]:
        """What the program called `program`, "model" or "guide", runs under."""
        raise TypeError(f"{type(self).__name__} has no `handler(self, program)`: write one.")

    @property
    def base(self) -> Model:
        """The model before the handler."""
        base = self._modules["base"]
        assert isinstance(base, Model)
        return base

    @property
    def schema(self) -> Schema | None:
        """That of the base."""
        return self.base.schema

    @schema.setter
    def schema(self, schema: Schema | None) -> None:
        self.base.schema = schema

    @property
    def note(self) -> str | None:
        """That of the base."""
        return self.base.note

    @note.setter
    def note(self, note: str | None) -> None:
        self.base.note = note

    @property
    def latent(self) -> bool:
        """As the base."""
        return self.base.latent

    @property
    def context(self) -> tuple[str, ...]:
        """As the base."""
        return self.base.context

    @property
    def wants(self) -> tuple[str, ...]:
        """As the base."""
        return self.base.wants

    def joint(self, n: int, **context: Any) -> Any:
        """The joint program that runs under the handler: that of the base."""
        return self.base.model(n, **context)

    def model(self, n: int, **context: Any) -> Any:
        """The joint program under the handler."""
        with self.handler("model"):
            return self.joint(n, **arguments(self.base, "model", context))

    def guide(self, n: int, **data: Any) -> Any:
        """The guide of the base under the handler."""
        with self.handler("guide"):
            return self.base.guide(n, **arguments(self.base, "guide", data))
