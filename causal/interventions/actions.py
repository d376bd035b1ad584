"""What may be done to a site, checked before anything is computed, and brought to its shape.

A value is a number or label in the user's words, a tensor in the model's numbers, a Distribution, a
function of the parents' values (a policy) or of the natural value and them (a shift), or another
mechanism. What may be done to an arrow is in `causal.interventions.arrows`.
"""

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import networkx as nx
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Distribution, constraints

from causal.graph import check_acyclic
from causal.interventions.arrows import check_arrow
from causal.interventions.sites import sites_of
from causal.mechanisms import Mechanism
from causal.outcomes import categories, check_levels, is_binary
from causal.shifts import Shifted
from causal.structural import Arrow, Structural, rewired
from pgm import Model, Schema
from pgm.batch import is_finite
from pgm.schema.columns import listing, suggestion
from pgm.sites import Site

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

Action = Tensor | Distribution | Mechanism | Callable[..., Any]
Target = str | Arrow
"""What is intervened on: a site, or an arrow (cause, effect)."""


def checked(
    model: Model, before: Mapping[Target, Action], wanted: Mapping[Any, Any]
) -> dict[Target, Action]:
    """The interventions in the model's numbers, each checked against its site or arrow.

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
    sites = sites_of(model, 2)
    if sites is not None:
        _check_names(model, wanted, sites)
    coded = {
        name: encode(model, name[0] if isinstance(name, tuple) else name, value)
        for name, value in wanted.items()
    }
    if sites is None:
        return coded
    lengths = [len(v) for v in coded.values() if isinstance(v, Tensor) and v.dim()]
    if lengths and max(lengths) > 2:
        sites = sites_of(model, max(lengths)) or sites
    graph = _rewired(model, {**before, **coded})
    for name, value in coded.items():
        if isinstance(name, tuple):
            check_arrow(model, graph, name, value, sites)
            continue
        _check(model, name, value, sites[name])
    return coded


def _check_names(model: Model, wanted: Mapping[Any, Any], sites: Mapping[str, Site]) -> None:
    """Refuses what is no site, before its value is read; arrows have a check of their own."""
    for name in wanted:
        if not isinstance(name, tuple) and name not in sites:
            raise ValueError(
                f"{type(model).__name__} has no site {name!r} to intervene on."
                f"{suggestion(name, sites)} Its sites are: {listing(list(sites))}."
            )


def _rewired(model: Model, values: Mapping[Target, Action]) -> nx.DiGraph:
    """The graph with all mechanisms exchanged; without arrows for a program that has no graph.

    Raises:
        ValueError: together they make a cycle.
    """
    if not isinstance(model, Structural):
        return nx.DiGraph()
    swapped = {t: v for t, v in values.items() if isinstance(v, Mechanism) and isinstance(t, str)}
    graph = rewired(model.graph, swapped)
    if swapped:
        check_acyclic(graph)
    return graph


def fill(name: str, value: Any, fn: Any) -> Tensor:
    """The value of an intervention for every element of the batch shape of a site.

    Raises:
        ValueError: its shape is neither the event shape nor that with the rows in front.
    """
    event, batch = tuple(fn.event_shape), tuple(fn.batch_shape)
    x = torch.as_tensor(value).to(dtype_of(fn))
    if not x.dim() and not event:
        return x.expand(batch)
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


def show(schema: Schema | None, target: Target, value: Action) -> str:
    """An intervention in a few words, those of the schema where there is one."""
    name = target[0] if isinstance(target, tuple) else target
    if isinstance(value, Distribution):
        return f"a {type(value).__name__} draw"
    if isinstance(value, Mechanism):
        return f"another mechanism, {type(value).__name__}({value.extra_repr()})"
    if not isinstance(value, Tensor):
        return "a function of its parents" if isinstance(target, str) else "a function of its cause"
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


def words(schema: Schema | None, values: Mapping[Target, Action]) -> dict[str, str]:
    """Interventions in a few words, by site, or by `cause -> effect`."""
    return {
        " -> ".join(target) if isinstance(target, tuple) else target: show(schema, target, value)
        for target, value in values.items()
    }


def is_shift(value: Any) -> bool:
    """Whether it is a function of the natural value and the parents, and not of these alone."""
    if isinstance(value, Tensor | Distribution | Mechanism) or not callable(value):
        return False
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    return sum(p.kind in _POSITIONAL and p.default is p.empty for p in parameters) == 2


def shifted(name: str, function: Callable[..., Any], fn: Any, parents: Mapping[str, Any]) -> Any:
    """The law of a site under a shift, checked for what comes out."""
    heard = _Parents(name, parents)

    def change(value: Tensor) -> Tensor:
        said = torch.as_tensor(function(value, heard)).to(value.device, value.dtype)
        k = categories(fn)
        if said.shape != value.shape or (k and bool(((said < 0) | (said >= k)).any())):
            what = f"one of {k} levels, coded 0 .. {k - 1}" if k else "a number"
            raise ValueError(
                f"The shift of site {name!r} takes values of shape {tuple(value.shape)} and gave "
                f"{tuple(said.shape)}; each row of it is {what}. It is f(value, parents) and "
                "changes each row's value alone."
            )
        return said

    return Shifted(fn, change, name)


def policy(name: str, function: Callable[..., Any], fn: Any, parents: Mapping[str, Tensor]) -> Any:
    """What a function of the parents says: a number, tensor or Distribution.

    Raises:
        ValueError: it reads a site that is not upstream, or says what is no level of a site that
            has some, whose distribution is `fn`.
        TypeError: it gives something else.
    """
    said = function(_Parents(name, parents))
    if isinstance(said, TorchDistributionMixin):
        _check_law(name, said, fn)
        return said
    if isinstance(said, Tensor | int | float):
        check_levels(name, torch.as_tensor(said), categories(fn))
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


def encode(model: Model, name: str, value: Any) -> Action:
    """A value of a site in the model's numbers.

    Raises:
        TypeError: something that no site can be set to.
        ValueError: a label that the schema does not have, or a value that is not finite.
    """
    if isinstance(value, Tensor):
        value = value.detach().to(model.device)
    elif isinstance(value, TorchDistributionMixin):
        return value
    elif isinstance(value, Distribution):
        raise TypeError(
            f"The distribution for site {name!r} is torch's {type(value).__name__}. Use the one of "
            "the same name in pyro.distributions, which can be masked and conditioned."
        )
    elif isinstance(value, Mechanism):
        return copy.deepcopy(value).to(model.device)
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
    if value.is_floating_point() and not is_finite(value):
        raise ValueError(
            f"do({name}=...) holds values that are not finite; nothing can be set to those."
        )
    return value


def _check(model: Model, name: str, value: Action, site: Site) -> None:
    if isinstance(value, Mechanism):
        _check_mechanism(model, name, value)
    elif isinstance(value, Tensor):
        x = fill(name, value, site.fn)
        if not site.deterministic:
            _check_support(name, value, x, site.fn)
    elif isinstance(value, Distribution):
        _check_law(name, value, site.fn)


def _check_mechanism(model: Model, name: str, value: Mechanism) -> None:
    """A mechanism stands in a graph, takes what its parents give and gives what its node had."""
    if not isinstance(model, Structural):
        raise ValueError(
            f"do({name}=a mechanism) needs a graph that says who hears {name!r}, and "
            f"{type(model).__name__} has none. Use an SCM, or SCM.from_program(program); or pass a "
            "function of the parents that gives a Distribution."
        )
    kinds = {node: model.mechanism(node).kind for node in (name, *value.inputs)}
    wrong = [f"{p} {k}" for p, k in value.inputs.items() if k != kinds[p]]
    if wrong or value.kind != kinds[name]:
        there = listing([f"{node} is {kind}" for node, kind in kinds.items()])
        raise ValueError(
            f"The mechanism for {name!r} makes {value.kind}"
            f"{' of ' + listing(wrong) if wrong else ''}, but in the model {there}."
        )


def _check_support(name: str, value: Tensor, x: Tensor, fn: Any) -> None:
    """Refuses levels that do not exist; warns of numbers that the mechanism never makes."""
    k = categories(fn)
    if k:
        check_levels(name, value, k)
        return
    support = _fixed(fn)
    if support is constraints.real:  # what is not finite has been refused
        return
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
