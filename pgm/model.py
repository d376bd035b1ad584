"""A model is two Pyro programs over rows: the joint p(x, z) and the guide q(z | x).

`Model.model(self, n)` is the joint program: no data argument, no `obs=`. What belongs to one
example stands inside `rows(n)`; what stands outside (weights with priors, population parameters)
is shared. `Model.guide(self, n, x)` proposes the latent sites; its keywords are the observed sites
it wants to look at. Everything else, training, densities, imputation, interventions and private
fits, is asked of these two programs by verbs.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pyro
import torch
from pyro.nn import PyroModule

from pgm.batch import SEEN
from pgm.schema import Schema

ROWS = "rows"
"""The name of the plate that holds one example an index."""


def rows(n: int) -> pyro.plate:
    """The plate of the examples: row i of every site inside it belongs to example i.

    A row is the unit of minibatches, per-row densities, missing values and privacy.

    Args:
        n: the number of rows.

    Example:
        >>> with rows(3):
        ...     z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        >>> z.shape
        torch.Size([3])
    """
    return _Rows(ROWS, n, dim=-1)


class Model(PyroModule):
    """A joint program and a guide; subclass it and write `model`, and `guide` if there are latents.

    Attributes:
        schema: how data frames become batches and back; None for models of plain tensors.
        note: what every answer of this model must say, such as the ledger of a private fit.
        keeps: what of the data the model itself holds, in words, which no noise of training hides.

    Example:
        >>> class Gaussian(Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.mu = torch.nn.Parameter(torch.zeros(2))
        ...     def model(self, n):
        ...         with rows(n):
        ...             pyro.sample("x", pyro.distributions.Normal(self.mu, 1.0).to_event(1))
        >>> Gaussian().latent, Gaussian().context
        (False, ())
    """

    schema: Schema | None = None
    note: str | None = None
    keeps: str | None = None
    _arguments: ClassVar[tuple[tuple[Any, ...], dict[str, Any]]] = ((), {})

    def __new__(cls, *args: Any, **kwargs: Any) -> "Model":
        """Remembers the arguments, from which `save` writes how to build the model again."""
        self = super().__new__(cls)
        object.__setattr__(self, "_arguments", (args, kwargs))
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Runs both programs with the priors of `PyroSample` attributes in sight."""
        super().__init_subclass__(**kwargs)
        for name in ("model", "guide"):
            if name in vars(cls):
                setattr(cls, name, _with_priors(vars(cls)[name]))

    def model(self, n: int, *args: Any, **kwargs: Any) -> Any:
        """The joint program over `n` rows; further parameters are context, by name."""
        raise TypeError(
            f"{type(self).__name__} has no `model(self, n)`: write the joint program p(x, z), with "
            "every example inside `with pgm.rows(n):`."
        )

    def guide(self, n: int, *args: Any, **kwargs: Any) -> Any:
        """The proposal for the latent sites; further parameters are observed sites or context."""

    def infer_schema(self, frame: Any) -> Schema:
        """How a data frame is read that comes to a model without a schema."""
        return Schema.infer(frame)

    @property
    def latent(self) -> bool:
        """Whether the model has latent sites that a guide proposes."""
        return type(self).guide is not Model.guide

    @property
    def context(self) -> tuple[str, ...]:
        """The names of the data that the joint program is conditional on."""
        return tuple(_parameters(type(self), "model"))

    @property
    def wants(self) -> tuple[str, ...]:
        """The names of the data that the guide looks at."""
        return tuple(_parameters(type(self), "guide"))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return first_tensor(self).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters."""
        return first_tensor(self).dtype


class _Rows(pyro.plate):
    """Pyro's plate without its message about subsampling, which costs more than the plate."""

    @staticmethod
    def _subsample(name: str, size: int, *_: Any) -> tuple[int, int, None]:  # type: ignore[override]
        return size, size, None

    def __enter__(self) -> torch.Tensor:  # type: ignore[override]
        super().__enter__()
        return self.indices


def arguments(model: Model, program: str, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `batch` that the program called `program` takes by name.

    Raises:
        ValueError: a parameter without a default that the batch does not have, or missing cells of
            context, which has no density to draw them from.
    """
    names = model.context if program == "model" else model.wants
    required = _parameters(type(model), program)
    for name in dict.fromkeys((*required, *names)):
        if required.get(name) and name not in batch:
            raise ValueError(
                f"{type(model).__name__}.{program} takes {name!r}, which the batch does not have "
                f"(it has {', '.join(map(repr, batch)) or 'nothing'}). Pass it under that name, "
                "rows first, or give the parameter a default."
            )
        if program == "model" and name + SEEN in batch and name + SEEN not in names:
            raise ValueError(
                f"Cells of {name!r} are missing, which is context of {type(model).__name__}: it "
                "has no density, and zeros in their place would be taken for data. Drop those "
                f"rows, fill the cells in first, or let `model` take {name + SEEN!r}."
            )
    return {name: batch[name] for name in names if name in batch}


@functools.lru_cache(maxsize=512)
def _parameters(cls: type[Model], program: str) -> dict[str, bool]:
    """The named parameters after `self` and `n`, and whether each is required."""
    parameters = list(inspect.signature(getattr(cls, program)).parameters.values())[2:]
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: p.default is p.empty for p in named}


def _with_priors(program: Callable[..., Any]) -> Callable[..., Any]:
    """Opens Pyro's module context where the model has priors on weights, and only there."""

    @functools.wraps(program)
    def run(self: Model, *args: Any, **kwargs: Any) -> Any:
        if not _has_priors(self):
            return program(self, *args, **kwargs)
        with self._pyro_context:
            return program(self, *args, **kwargs)

    return run


def _has_priors(model: Model) -> bool:
    return any(m._pyro_samples for m in model.modules() if isinstance(m, PyroModule))


def modules_of(module: torch.nn.Module) -> list[torch.nn.Module]:
    """A module and all inside it, a shared one perhaps twice; `modules()` takes thrice as long."""
    found = [module]
    for child in vars(module)["_modules"].values():
        if child is not None:
            found += modules_of(child)
    return found


def tensors_of(model: torch.nn.Module) -> list[torch.Tensor]:
    """The parameters and buffers, those of a shared module perhaps twice."""
    kinds = ("_parameters", "_buffers")
    held = [vars(m)[kind] for m in modules_of(model) for kind in kinds]
    return [t for tensors in held if tensors for t in tensors.values() if t is not None]


def first_tensor(model: Model) -> torch.Tensor:
    """A parameter or, if there is none, a buffer; asked at every question, so a walk of its own."""
    for kind in ("_parameters", "_buffers"):
        found = _first_of(model, kind)
        if found is not None:
            return found
    return torch.empty(0)


def _first_of(module: torch.nn.Module, kind: str) -> torch.Tensor | None:
    for tensor in vars(module)[kind].values():
        if tensor is not None and tensor.is_floating_point():
            return tensor
    for child in vars(module)["_modules"].values():
        found = None if child is None else _first_of(child, kind)
        if found is not None:
            return found
    return None
