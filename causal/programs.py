"""Programs with a graph: any Pyro program as a structural causal model.

The graph is recovered twice. Provenance: which sites' values reach the distribution of a site
through torch's operations (`pyro.infer.inspect.get_dependencies`; Webb et al. 2018). Perturbation:
which sites' distributions change when one value is exchanged and all others are held, which also
finds what `.item()` or NumPy hide from the first. A mechanism is read off the program: the
distribution of a node, with its parents' values in place.
"""

import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import networkx as nx
import torch
from pyro.infer.inspect import get_dependencies
from pyro.poutine import block
from torch import Tensor

from causal.graph import GraphLike, as_graph, check_nodes
from causal.interventions.sites import asking
from causal.mechanisms import Kind, Mechanism
from causal.outcomes import categories
from causal.structural import Arrow, Structural
from pgm import Model, from_pyro
from pgm.handlers import Handled
from pgm.model import arguments
from pgm.schema.columns import listing
from pgm.sites import Run, Site
from pgm.verb import Unsupported, prepare

_ROWS, _TRIES = 16, 4


class ProgramSCM(Handled, Structural):
    """A program and its causal graph; made by `SCM.from_program`.

    Args:
        base: the program.
        graph: over its random sites; those that the guide proposes carry `latent`.
    """

    walked = False

    def __init__(self, base: Model, graph: GraphLike) -> None:
        super().__init__(base)
        self.graph = nx.freeze(as_graph(graph))

    def handler(self, program: str) -> AbstractContextManager[Any]:
        """None: the programs are run as they are."""
        return nullcontext()

    def mechanism(self, node: str) -> Mechanism:
        """The distribution of a node given its parents, read off the program.

        Raises:
            ValueError: no such node.
            Unsupported: the program has latent sites outside the rows, or needs context.
        """
        check_nodes(self.graph, [node])
        return ProgramMechanism(self, node)


class ProgramMechanism(Mechanism):
    """The mechanism of one site of a program; it runs the program to say its distribution.

    Args:
        scm: the program with its graph.
        node: the site.
    """

    def __init__(self, scm: ProgramSCM, node: str) -> None:
        super().__init__()
        sites = _sites(scm.base, {}, 2)
        if scm.base.context or any(not s.rows and not s.deterministic for s in sites.values()):
            raise Unsupported(
                f"The mechanism of {node!r} cannot be read off {type(scm.base).__name__}: its "
                "program needs context, or has latent sites outside the rows. Intervene on sites "
                "by value, law or policy instead of on arrows and mechanisms."
            )
        self.node, self._program = node, [scm.base]  # a list: not a submodule
        self.inputs = {p: _kind(sites[p].fn) for p in scm.parents(node)}
        self.kind = _kind(sites[node].fn)

    def dist(self, parents: Mapping[str, Tensor]) -> Any:
        """The distribution of the site, with the values of its parents in place."""
        last = {name: -1 if kind.size is None else -2 for name, kind in self.inputs.items()}
        wide = [x.shape[last[name]] for name, x in parents.items() if x.dim() >= -last[name]]
        n = max(wide, default=1)  # in front of the rows stand levels that are summed out
        return _sites(self._program[0], parents, n)[self.node].fn


def _kind(fn: Any) -> Kind:
    """What the values of a site are."""
    event = fn.event_shape.numel() if fn.event_shape else None
    return Kind(levels=categories(fn) or 1) if event is None else Kind(size=event)


def from_program(
    program: Any,
    graph: Any = None,
    *,
    context: Any = None,
    seed: int = 0,
) -> ProgramSCM:
    """A program as a structural causal model, with the graph that it has.

    Args:
        program: a `Model`, or a Pyro function of `n` with its plate `pgm.rows(n)`.
        graph: the graph that it should have; by default the one that is found.
        context: rows of what the program is conditional on, where it is.
        seed: of the values that are tried.

    Returns:
        The model with its graph; it shares the program's parameters.

    Raises:
        ValueError: the program has an arrow that the declared graph does not have, or other sites.

    Warns:
        RuntimeWarning: a dependence that is hidden from torch, where no graph is declared.

    Example:
        >>> import pyro
        >>> from pyro import distributions as dist
        >>> from pgm import rows
        >>> def program(n):
        ...     with rows(n):
        ...         dose = pyro.sample("dose", dist.Normal(0.0, 1.0))
        ...         pyro.sample("response", dist.Normal(2 * dose, 1.0))
        >>> list(from_program(program).graph.edges)
        [('dose', 'response')]
    """
    model = program if isinstance(program, Model) else from_pyro(program, rows="rows")
    given = prepare(model, context) if context is not None else {}
    with asking(model, seed):
        n = len(next(iter(given.values()))) if given else _ROWS
        kwargs = arguments(model, "model", given)
        sites = _sites(model, {}, n, kwargs)
        nodes = [name for name, s in sites.items() if not s.deterministic and s.rows]
        latent = _proposed(model, sites, given, n)
        known = _traced(model, n, kwargs, nodes)
        felt = _perturbed(model, n, kwargs, nodes, sites)
    found: nx.DiGraph[str] = nx.DiGraph()
    found.add_nodes_from((name, {"latent": True} if name in latent else {}) for name in nodes)
    found.add_edges_from(sorted(known | felt, key=lambda a: (nodes.index(a[0]), nodes.index(a[1]))))
    if graph is None:
        _warn_of_hidden(felt - known)
        return ProgramSCM(model, found)
    declared = as_graph(graph)
    _check_declared(declared, nodes, known | felt, felt - known)
    nx.set_node_attributes(declared, dict.fromkeys(latent, True), "latent")
    return ProgramSCM(model, declared)


def _sites(
    model: Model, values: Mapping[str, Tensor], n: int, kwargs: Mapping[str, Any] | None = None
) -> dict[str, Site]:
    with torch.no_grad(), block(), Run(values) as run:
        model.model(n, **(kwargs or {}))
    return run.sites


def _proposed(
    model: Model, sites: Mapping[str, Site], given: Mapping[str, Tensor], n: int
) -> set[str]:
    """The sites that the guide proposes."""
    batch = {name: s.value for name, s in sites.items()} | dict(given)
    with Run() as guide:
        model.guide(n, **arguments(model, "guide", batch))
    return set(guide.sites)


def _traced(model: Model, n: int, kwargs: dict[str, Any], nodes: list[str]) -> set[Arrow]:
    """The arrows that provenance sees."""
    try:
        found: Any = get_dependencies(model.model, (n,), kwargs)["prior_dependencies"]
    except (RuntimeError, TypeError, NotImplementedError):  # an operation that it cannot follow
        return set()
    return {
        (cause, effect)
        for effect, causes in found.items()
        for cause in causes
        if cause != effect and {cause, effect} <= set(nodes)
    }


def _perturbed(
    model: Model, n: int, kwargs: dict[str, Any], nodes: list[str], sites: Mapping[str, Site]
) -> set[Arrow]:
    """The arrows along which a change of the cause alone is felt."""
    fixed = {name: site.value for name, site in sites.items() if not site.deterministic}
    usual, found = _densities(model, fixed, n, kwargs), set[Arrow]()
    for _ in range(_TRIES):
        other = _sites(model, {}, n, kwargs)
        for i, cause in enumerate(nodes):
            changed = _densities(model, fixed | {cause: other[cause].value}, n, kwargs)
            found |= {
                (cause, effect)
                for effect in nodes[i + 1 :]
                if _differ(usual[effect], changed[effect])
            }
    return found


def _densities(
    model: Model, values: Mapping[str, Tensor], n: int, kwargs: dict[str, Any]
) -> dict[str, Tensor]:
    """The density of each site at the usual value, under the values of all others."""
    run = _sites(model, values, n, kwargs)
    return {name: s.log_prob() for name, s in run.items() if not s.deterministic}


def _differ(usual: Tensor, changed: Tensor) -> bool:
    return not torch.allclose(usual, changed, rtol=1e-6, atol=1e-7, equal_nan=True)


def _warn_of_hidden(arrows: Iterable[Arrow]) -> None:
    hidden = [f"{a} -> {b}" for a, b in sorted(arrows)]
    if hidden:
        warnings.warn(
            f"The program hides {listing(hidden)} from torch (through .item(), NumPy or a branch): "
            "the arrows are in the graph, but have no gradient, and one row may be heard by all. "
            "Write them with torch's operations, torch.where among them.",
            RuntimeWarning,
            stacklevel=3,
        )


def _check_declared(
    declared: nx.DiGraph, nodes: list[str], found: set[Arrow], hidden: set[Arrow]
) -> None:
    if set(declared) != set(nodes):
        raise ValueError(
            f"The graph is over {listing(list(declared))}, but the program draws {listing(nodes)}. "
            "Every site that is drawn within the rows is a node."
        )
    extra = [arrow for arrow in found if arrow not in declared.edges]
    if extra:
        shown = [
            f"{a} -> {b}{' (hidden from torch)' if (a, b) in hidden else ''}"
            for a, b in sorted(extra)
        ]
        raise ValueError(
            f"The program has arrows that the graph does not: {listing(shown)}. Answers that rest "
            "on the graph would be wrong. Add them to the graph, or mend the program."
        )
