"""What may be done to a site, checked before anything is computed, and brought to its shape.

A value is a number or label in the user's words, a tensor in the model's numbers, a Distribution or
a function of the parents' values.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Distribution, constraints

from causal.outcomes import categories, is_binary
from pgm import Model, Schema
from pgm.model import arguments
from pgm.randomness import seeded
from pgm.schema.columns import listing, suggestion
from pgm.sites import Run, Site

Action = Tensor | Distribution | Callable[..., Any]


def checked(model: Model, wanted: Mapping[str, Any]) -> dict[str, Action]:
    """The interventions in the model's numbers, each checked against its site.

    Where the program needs context, its sites are not known yet; it then checks when it runs.

    Raises:
        ValueError: no such site, or a value that the site cannot take.
        TypeError: a value of no known kind.
    """
    for name in wanted:
        if name in model.context:
            raise ValueError(
                f"{name!r} is context of {type(model).__name__}: its program is conditional on it "
                "and has no mechanism to replace. Pass it as context= or in the batch."
            )
    coded = {name: _coded(model, name, value) for name, value in wanted.items()}
    lengths = [len(v) for v in coded.values() if isinstance(v, Tensor) and v.dim()]
    sites = sites_of(model, max([2, *lengths]))
    if sites is None:
        return coded
    for name, value in coded.items():
        if name not in sites:
            raise ValueError(
                f"{type(model).__name__} has no site {name!r} to intervene on."
                f"{suggestion(name, sites)} Its sites are: {listing(list(sites))}."
            )
        _check(name, value, sites[name])
    return coded


def sites_of(model: Model, n: int) -> dict[str, Site] | None:
    """The sites of one run of the program; None if it needs context to run."""
    with Run() as run, asking(model, 0):
        try:
            model.model(n, **arguments(model, "model", {}))
        except (TypeError, ValueError):
            if model.context:
                return None
            raise
    return run.sites


@contextmanager
def asking(model: Model, seed: int | None) -> Iterator[None]:
    """Evaluation mode, no gradients and seeded draws, as a verb has them."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), seeded(seed):
            yield
    finally:
        for module in training:
            module.training = True


def fill(name: str, value: Any, fn: Any) -> Tensor:
    """The value of an intervention for every element of the batch shape of a site.

    Raises:
        ValueError: its shape is neither the event shape nor that with the rows in front.
    """
    event, batch = tuple(fn.event_shape), tuple(fn.batch_shape)
    x = torch.as_tensor(value).to(dtype_of(fn))
    tail = x.dim() - len(event)
    try:
        full = torch.broadcast_shapes(x.shape[: max(tail, 0)], batch)
    except RuntimeError:
        full = torch.Size()
    rows = batch[-1:]
    if tuple(x.shape[max(tail, 0) :]) != event or full[-1:] != rows or (tail > 0 and not rows):
        per_row = (
            f", or {('n', *event)} with one for each of the n = {rows[0]} rows" if rows else ""
        )
        raise ValueError(
            f"The value for site {name!r} has shape {tuple(x.shape)}; it needs shape {event}, the "
            f"same for all rows{per_row}. (Values by row hold for just these rows; where a "
            "verb draws several particles a row, use a function of the parents.)"
        )
    return x.expand(full + event)


def show(schema: Schema | None, name: str, value: Action) -> str:
    """An intervention in a few words, those of the schema where there is one."""
    if isinstance(value, Distribution):
        return f"a {type(value).__name__} draw"
    if not isinstance(value, Tensor):
        return "a function of its parents"
    if value.numel() != 1:
        return f"values of shape {tuple(value.shape)}"
    if schema is not None and name in schema.columns:
        label = schema.label(name, value.item())
        return f"{label:g}" if isinstance(label, float) else str(label)
    return f"{value.item():g}"


def dtype_of(fn: Any) -> torch.dtype:
    """The dtype of a site's values."""
    if categories(fn) and not is_binary(fn):
        return torch.int64
    return next((t.dtype for t in _parameters(fn)), torch.get_default_dtype())


def policy(name: str, function: Callable[..., Any], parents: Mapping[str, Tensor]) -> Any:
    """What a function of the parents says: a number, tensor or Distribution.

    Raises:
        ValueError: it reads a site that is not upstream.
        TypeError: it gives something else.
    """
    said = function(_Parents(name, parents))
    if isinstance(said, Tensor | int | float | TorchDistributionMixin):
        return said
    raise TypeError(
        f"The function for site {name!r} gave a {type(said).__name__}. It takes the parents' "
        "values by name and gives a number, a tensor with one value a row, or a Distribution of "
        "Pyro."
    )


class _Parents(dict[str, Tensor]):
    """The parents' values; says what may be read when something else is."""

    def __init__(self, site: str, values: Mapping[str, Tensor]) -> None:
        super().__init__(values)
        self.site = site

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(
            f"The function for site {self.site!r} reads {name!r}, which is not one of its parents "
            f"({listing(list(self)) or 'it has none'}): a policy knows only what comes before it."
        )


def _coded(model: Model, name: str, value: Any) -> Action:
    """A value in the model's numbers."""
    if isinstance(value, Tensor):
        value = value.detach().to(model.device)
    elif isinstance(value, TorchDistributionMixin):
        return value
    elif isinstance(value, Distribution):
        raise TypeError(
            f"The distribution for site {name!r} is torch's {type(value).__name__}. Use the one of "
            "the same name in pyro.distributions, which can be masked and conditioned."
        )
    elif callable(value):
        return value
    elif model.schema is not None and name in model.schema.columns and not model.schema.site:
        value = torch.tensor(model.schema.code(name, value), device=model.device)
    elif isinstance(value, bool | int | float):
        value = torch.tensor(value, device=model.device)
    else:
        raise TypeError(
            f"do({name}={value!r}): a {type(value).__name__} came. Pass a number, a tensor, a "
            "Distribution of Pyro or a function of the parents; labels are understood where the "
            "model has a schema for the column."
        )
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise ValueError(
            f"do({name}=...) holds values that are not finite; nothing can be set to those."
        )
    return value


def _check(name: str, value: Action, site: Site) -> None:
    if isinstance(value, Tensor):
        x = fill(name, value, site.fn)
        if not site.deterministic:
            _check_support(name, value, x, site.fn)
    elif isinstance(value, Distribution):
        _check_law(name, value, site.fn)


def _check_support(name: str, value: Tensor, x: Tensor, fn: Any) -> None:
    """Refuses levels that do not exist; warns of numbers that the mechanism never makes."""
    k = categories(fn)
    if k:
        given = value.flatten().double()
        wrong = given[(given < 0) | (given >= k) | (given != given.round())]
        if len(wrong):
            raise ValueError(
                f"do({name}={wrong[0].item():g}): the site has {k} levels, coded 0 .. {k - 1}, and "
                "what depends on it knows no other. With a schema, levels are set by their names."
            )
        return
    support = _fixed(fn)
    if support is not None and not bool(support.check(x).all()):
        warnings.warn(
            f"do({name}=...) sets a value outside the support of the site's {type(fn).__name__} "
            f"({support}): no data can have shown what follows from it, so that the answer rests "
            "on the form of the mechanisms downstream alone.",
            RuntimeWarning,
            stacklevel=4,
        )


def _fixed(fn: Any) -> Any:
    """The support of a distribution, if it is the same for all parameters."""
    try:
        support = fn.support
    except NotImplementedError:
        return None
    bounds = support
    while isinstance(bounds, constraints.independent):
        bounds = bounds.base_constraint
    open_ = any(isinstance(v, Tensor) and v.numel() > 1 for v in vars(bounds).values())
    return None if open_ else support


def _check_law(name: str, law: Any, fn: Any) -> None:
    if law.event_shape != fn.event_shape:
        raise ValueError(
            f"The Distribution for site {name!r} has event shape {tuple(law.event_shape)}, the "
            f"site {tuple(fn.event_shape)}. Use .to_event(k), or other shapes of its parameters."
        )
    ours, its = categories(fn), categories(law)
    if ours != its:
        what = {0: "a number"}
        raise ValueError(
            f"The Distribution for site {name!r} draws {what.get(its, f'one of {its} levels')}, "
            f"but the site is {what.get(ours, f'one of {ours} levels')}, and what depends on it "
            "knows no other."
        )


def _parameters(fn: Any) -> list[Tensor]:
    """The floating-point parameters of a distribution, through its wrappers."""
    found = [v for v in vars(fn).values() if isinstance(v, Tensor) and v.is_floating_point()]
    inner = vars(fn).get("base_dist")
    return found or ([] if inner is None else _parameters(inner))
