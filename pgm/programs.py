"""Ordinary Pyro functions, with `obs=`, `pyro.param` and a plate of their own, as models."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyro.infer.autoguide import AutoGuide
from pyro.params.param_store import _MODULE_NAMESPACE_DIVIDER
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from pgm.model import ROWS, Model

Program = Callable[..., Any]


def from_pyro(
    model: Program,
    guide: Program | type[AutoGuide] | None = None,
    *,
    rows: str,
    observed: Mapping[str, str] | None = None,
    modules: Iterable[nn.Module] = (),
) -> Model:
    """Makes a `Model` of an ordinary Pyro model and guide.

    Args:
        model: a Pyro function. A parameter `n` receives the number of rows; parameters in
            `observed` receive None, and their sites take the data by name; others are context.
        guide: a function of the same parameters (where it receives the data), an autoguide, or,
            where the model has a `pyro.param` of its own, the autoguide's class.
        rows: the name of the plate over the examples, which must have dim=-1.
        observed: which parameter is passed to the `obs=` of which site.
        modules: networks that the functions call; their parameters are trained. Parameters made
            with `pyro.param` are found by themselves.

    Returns:
        A model whose batches are keyed by site and by context.

    Raises:
        ValueError: a parameter in `observed` that the function does not have, or that cannot be
            None.

    Example:
        >>> import pyro, torch
        >>> from pyro import distributions as dist
        >>> def model(x, y=None):
        ...     slope = pyro.param("slope", torch.tensor(0.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("obs", dist.Normal(slope * x, 1.0), obs=y)
        >>> line = from_pyro(model, rows="data", observed={"y": "obs"})
        >>> line.context
        ('x',)
    """
    given = dict(observed or {})
    parameters = _parameters(model)
    for name in given:
        if name not in parameters:
            raise ValueError(
                f"observed= names the parameter {name!r}, but {_name(model)} takes "
                f"{', '.join(parameters) or 'nothing'}."
            )
        if parameters[name].default is not None:
            raise ValueError(
                f"{_name(model)} needs data for {name!r}; without data it could not be sampled "
                f"from. Give the parameter the default None and take the number of rows from a "
                "parameter n, or from a covariate."
            )
    return FromPyro(model, guide, rows, given, tuple(modules))


class FromPyro(Model):
    """A model made of ordinary Pyro functions; see `from_pyro`."""

    def __init__(
        self,
        model: Program,
        guide: Program | type[AutoGuide] | None,
        rows: str,
        observed: dict[str, str],
        modules: tuple[nn.Module, ...],
    ) -> None:
        super().__init__()
        self._rows, self._observed = rows, observed
        self.networks = nn.ModuleList(modules)
        self.learned = _Learned()
        if isinstance(guide, type):
            guide = guide(self._ordinary(model))
        self._programs = (model, guide)
        if isinstance(guide, nn.Module):
            self.autoguide = guide

    def model(self, n: int, **context: Any) -> Any:
        """Runs the function with its observed parameters left to the batch."""
        program = self._programs[0]
        return self._ordinary(program)(**self._pass(n, context, {}))

    def guide(self, n: int, **data: Any) -> Any:
        """Runs the guide on the data."""
        program = self._programs[1]
        if program is None:
            return None
        sites = {name: data.get(site) for name, site in self._observed.items()}
        return self._ordinary(program)(**self._pass(n, data, sites))

    @property
    def latent(self) -> bool:
        """Whether there is a guide."""
        return self._programs[1] is not None

    @property
    def context(self) -> tuple[str, ...]:
        """The parameters that are neither the number of rows nor observed."""
        names = _parameters(self._programs[0])
        return tuple(name for name in names if name != "n" and name not in self._observed)

    @property
    def wants(self) -> tuple[str, ...]:
        """The guide is called like the model: with the context and the data."""
        return (*self.context, *self._observed.values())

    def _ordinary(self, program: Program) -> Program:
        """The function with its plate and its loose parameters taken in."""
        rows, learned = self._rows, self.learned

        @functools.wraps(program)
        def run(*args: Any, **kwargs: Any) -> Any:
            with _Ordinary(rows, learned):
                return program(*args, **kwargs)

        return run

    def _pass(self, n: int, data: Mapping[str, Any], sites: Mapping[str, Any]) -> dict[str, Any]:
        arguments = {name: data[name] for name in self.context if name in data}
        arguments |= {name: sites.get(name) for name in self._observed}
        return arguments | ({"n": n} if "n" in _parameters(self._programs[0]) else {})


class _Learned(nn.Module):
    """Holds what the functions make with `pyro.param`, unconstrained."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.ParameterDict()

    def __contains__(self, name: str) -> bool:
        return _key(name) in self.values

    def value(self, name: str, initial: Any = None, *, constraint: Any) -> Tensor:
        """The constrained value of a parameter, made from `initial` the first time."""
        key = _key(name)
        if key not in self.values:
            start = initial() if callable(initial) else initial
            if isinstance(start, nn.Parameter):
                return start
            unconstrained = transform_to(constraint).inv(start.detach().clone())
            self.values[key] = nn.Parameter(unconstrained)
        value: Tensor = transform_to(constraint)(self.values[key])
        return value


class _Ordinary(Messenger):
    """Calls the functions' plate `rows`, and takes their loose parameters in."""

    def __init__(self, rows: str, learned: _Learned) -> None:
        super().__init__()
        self.rows, self.learned = rows, learned

    def _pyro_param(self, msg: Any) -> None:
        name, *initial = msg["args"]
        if initial and _MODULE_NAMESPACE_DIVIDER in name:  # of a module, which holds it
            msg["value"] = initial[0]
            msg["done"] = msg["stop"] = True
            return
        if not initial and name not in self.learned:
            return
        constraint = initial[1:] or [msg["kwargs"].get("constraint", constraints.real)]
        msg["value"] = self.learned.value(name, *initial[:1], constraint=constraint[0])
        msg["done"] = msg["stop"] = True

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample) and msg["name"] == self.rows:
            whole, part = msg["fn"].size, msg["fn"].subsample_size
            self._refuse_parts(-1, whole if part is None else part, whole)
        msg["cond_indep_stack"] = tuple(map(self._rename, msg["cond_indep_stack"]))

    def _rename(self, frame: Any) -> Any:
        if frame.name != self.rows:
            return frame
        self._refuse_parts(frame.dim, frame.size, frame.full_size)
        return frame._replace(name=ROWS)

    def _refuse_parts(self, dim: int, size: int, full: int | None) -> None:
        if dim != -1 or full not in (None, size):
            raise ValueError(
                f"The plate {self.rows!r} has dim {dim} and {size} of {full} rows. Rows are "
                "dimension -1, and pgm.fit makes the minibatches: write pyro.plate(name, n, "
                "dim=-1) without subsampling."
            )


def _key(name: str) -> str:
    return name.replace(".", "__")


def _parameters(program: Program) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(program).parameters


def _name(program: Program) -> str:
    return str(getattr(program, "__name__", type(program).__name__))
