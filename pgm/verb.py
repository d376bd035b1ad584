"""Verbs: questions that any model can be asked, with one generic answer and better ones by family.

A verb is a function dispatched on the type of the model. Its generic answer is computed from the
two programs alone; a family registers its own rule beside its class, or a refusal that explains
what to use instead. `abilities` reads these tables, so that they cannot lie.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, cast

import torch

from pgm.batch import Batch, as_batch, move
from pgm.model import Model, first_tensor, modules_of
from pgm.randomness import seeded

P = ParamSpec("P")
R = TypeVar("R")
Rule = TypeVar("Rule", bound=Callable[..., Any])


class Unsupported(TypeError):
    """A model was asked a question that it has no answer to; the message says what to use."""


class Verb(Generic[P, R]):
    """A question to a model: `verb(model, ...)` runs the rule of the model's type.

    The function it decorates is the generic answer. What holds for every rule is done here once:
    a parameter called `batch` takes data in any form and reaches the rule as a checked `Batch`;
    `seed` sets the random numbers; without `grad`, the model is in evaluation mode and no
    gradient is kept.

    Args:
        generic: the answer computed from the two programs.
        needs: says, of a model, why the generic answer does not exist (None if it does).
        grad: whether the answer is differentiated.

    Attributes:
        generic: the answer computed from the two programs.
    """

    __name__: str
    every: ClassVar[list["Verb[Any, Any]"]] = []

    def __init__(
        self,
        generic: Callable[P, R],
        *,
        needs: Callable[[Model], str | None] | None = None,
        grad: bool = False,
    ) -> None:
        functools.update_wrapper(self, generic)
        self._rules = functools.singledispatch(generic)
        self.generic, self._grad = generic, grad
        self._needs: dict[Any, Callable[[Any], str | None] | None] = {generic: needs}
        self._takes_batch = "batch" in inspect.signature(generic).parameters
        Verb.every.append(self)

    def register(
        self, cls: type[Model], *, needs: Callable[[Any], str | None] | None = None
    ) -> Callable[[Rule], Rule]:
        """Makes a function the answer for models of type `cls` (decorator).

        Args:
            cls: the family.
            needs: says, of a model of that type, why this answer does not exist (None if it does).
        """

        def register(rule: Rule) -> Rule:
            if rule is not self.generic:
                self._needs[rule] = needs
            return cast(Rule, self._rules.register(cls, rule))

        return register

    def refuse(self, cls: type[Model], why: str) -> None:
        """Declares that models of type `cls` have no answer, `why`, and what to use instead."""
        self._rules.register(cls, _Refusal(why))

    def refusal(self, model: Model) -> str | None:
        """Why `model` cannot be asked this; None if it can."""
        rule = self._rules.dispatch(type(model))
        if isinstance(rule, _Refusal):
            return rule.why
        if rule is not self.generic and (why := self._outgrown(type(model), rule)):
            return why
        needs = self._needs.get(rule)
        return needs(model) if needs else None

    def _outgrown(self, cls: type[Model], rule: Any) -> str | None:
        """Why an inherited answer does not hold: a subclass wrote anew what it was derived for."""
        for ancestor in cls.__mro__:
            if self._rules.registry.get(ancestor) is rule:
                return None
            if written := {"model", "guide"} & vars(ancestor).keys():
                family = next(c for c in cls.__mro__ if self._rules.registry.get(c) is rule)
                verb, sub = f"pgm.{self.__name__}", ancestor.__name__
                return (
                    f"{sub} writes {' and '.join(sorted(written))} anew, but the answer of "
                    f"{family.__name__} was derived for its own programs, and would be wrong "
                    f"without notice. Use the answer that is computed from the programs, "
                    f"{verb}.register({sub})({verb}.generic), or register one of its own."
                )
        return None

    def answer(self, model: Model) -> str:
        """`"own"`, `"generic"`, or the refusal."""
        rule = self._rules.dispatch(type(model))
        return self.refusal(model) or ("generic" if rule is self.generic else "own")

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> R:
        """Answers for `model`, a `Model`.

        Raises:
            Unsupported: the model's type refuses, or its programs lack what the answer needs.
            TypeError: the first argument is no model.
        """
        name = self.__name__
        if not isinstance(model, Model):
            came = (
                f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
            )
            raise TypeError(
                f"{name} asks a pgm.Model, but {came} came. Build one of a class, subclass "
                "pgm.Model, or wrap an ordinary Pyro function with pgm.from_pyro."
            )
        if why := self.refusal(model):
            raise Unsupported(f"{type(model).__name__} cannot {name}: {why}")
        if self._takes_batch:
            args, kwargs = _batch_first(name, model, args, kwargs)
        rule = self._rules.dispatch(type(model))
        with seeded(kwargs.pop("seed", None)), nullcontext() if self._grad else _answering(model):
            return rule(model, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<verb {self.__name__}>"


def verb(
    *, needs: Callable[[Model], str | None] | None = None, grad: bool = False
) -> Callable[[Callable[P, R]], Verb[P, R]]:
    """Makes a function the generic answer of a new verb (decorator)."""
    return lambda generic: Verb(generic, needs=needs, grad=grad)


def abilities(model: Model) -> dict[str, str]:
    """What `model` can be asked: verb -> "own", "generic", or why not.

    Example:
        >>> from pgm.families.kde import KDE
        >>> abilities(KDE(torch.tensor([[0.0], [1.0]])))["log_prob"]
        'own'
    """
    return {verb.__name__: verb.answer(model) for verb in Verb.every}


def needs_guide(model: Model) -> str | None:
    """The requirement of verbs that speak of latent sites."""
    if model.latent:
        return None
    return (
        "it has no latent sites to speak of (its class has no guide). Use a model with latents, "
        "such as pgm.families.vae.VAE or pgm.families.factor.PPCA."
    )


def prepare(model: Model, data: Any) -> Batch:
    """The data as a checked batch on the model's device, in its dtype."""
    if isinstance(data, Batch):
        return data
    like = first_tensor(model)
    return move(as_batch(data, schema=model.schema), device=like.device, dtype=like.dtype)


class _Refusal:
    def __init__(self, why: str) -> None:
        self.why = why

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise Unsupported(self.why)


def _batch_first(
    name: str, model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (prepare(model, args[0]), *args[1:]), kwargs
    if "batch" not in kwargs:
        raise TypeError(f"{name} asks about data: {name}(model, batch). Pass the rows.")
    return args, kwargs | {"batch": prepare(model, kwargs["batch"])}


@contextmanager
def _answering(model: Model) -> Iterator[None]:
    """Evaluation mode without gradients, and the modes as they were afterwards."""
    training = [module for module in modules_of(model) if module.training]
    if training:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
