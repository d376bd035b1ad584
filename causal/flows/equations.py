"""Structural equations that are known: x_j = f_j(u_j, parents of j), with u_j ~ one law, unseen.

A causal model as it is defined (Pearl 2009, Causality, def. 7.1.1), with nothing to estimate. It
answers every question exactly, by its own equations and not by the engine, so that the errors of
models fitted to its rows are measured against the truth.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import networkx as nx
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution

from causal.graph import check_acyclic, check_nodes, order
from pgm.randomness import seeded

Rows: TypeAlias = dict[str, Float64[Tensor, " n"]]
"""A value of every node in every row."""


class Equation(NamedTuple):
    """One equation: x = push(u, *parents) and its inverse u = pull(x, *parents).

    Attributes:
        parents: the names of the nodes whose values both functions take, in that order.
        push: the value that noise makes.
        pull: the noise that made a value.
    """

    parents: tuple[str, ...]
    push: Callable[..., Tensor]
    pull: Callable[..., Tensor]


def additive(mean: Callable[..., Any], scale: float = 1.0) -> Equation:
    """x = mean(parents) + scale u; the parameters of `mean` are the parents.

    Example:
        >>> equation = additive(lambda x1, x2: x1 * x2, scale=-2.0)
        >>> equation.parents, equation.push(1.0, 2.0, 3.0), equation.pull(4.0, 2.0, 3.0)
        (('x1', 'x2'), 4.0, 1.0)
    """
    return Equation(
        tuple(inspect.signature(mean).parameters),
        lambda u, *parents: mean(*parents) + scale * u,
        lambda x, *parents: (x - mean(*parents)) / scale,
    )


@dataclass(frozen=True, eq=False)
class Equations:
    """A causal model in closed form, computed in double precision.

    Attributes:
        name: what it is called.
        equations: by node, in the order of the graph.
        law: of the noise u_j of every node, independent of each other.

    Example:
        >>> from torch.distributions import Normal
        >>> equations = {"x": additive(lambda: 0.0), "y": additive(lambda x: 2 * x)}
        >>> known = Equations("doubling", equations, Normal(0.0, 1.0))
        >>> list(known.graph.edges)
        [('x', 'y')]
        >>> seen = {"x": torch.tensor([1.0]), "y": torch.tensor([3.0])}
        >>> known.counterfactual(seen, do={"x": 0.0})["y"]
        tensor([1.], dtype=torch.float64)
    """

    name: str
    equations: Mapping[str, Equation]
    law: Distribution

    @property
    def graph(self) -> nx.DiGraph:
        """Read off the equations.

        Raises:
            ValueError: a parameter that is no node, or a cycle.
        """
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.equations)
        for node, equation in self.equations.items():
            check_nodes(graph, equation.parents, what="A parent")
            graph.add_edges_from((parent, node) for parent in equation.parents)
        check_acyclic(graph)
        return graph

    def noise(self, n: int, *, seed: int | None = None) -> Rows:
        """Draws of u."""
        with seeded(seed):
            return {node: self.law.sample((n,)).double() for node in self.equations}

    def solve(self, u: Mapping[str, Tensor], *, do: Mapping[str, Any] | None = None) -> Rows:
        """The values that noise makes.

        Args:
            u: by node, shape (n,).
            do: by node, what stands in the place of its equation: a number, values by row, or a
                function of its parents' values by name.
        """
        done, n = do or {}, len(next(iter(u.values())))
        check_nodes(self.graph, done)
        x: Rows = {}
        for node in order(self.graph):
            heard = {parent: x[parent] for parent in self.equations[node].parents}
            if node in done:
                value = done[node](heard) if callable(done[node]) else done[node]
                x[node] = torch.as_tensor(value, dtype=torch.float64).expand(n)
            else:
                x[node] = self.equations[node].push(u[node].double(), *heard.values())
        return {node: x[node] for node in self.equations}

    def abduct(self, x: Mapping[str, Tensor]) -> Rows:
        """The noise that made the values: the inverse of `solve`."""
        seen = {node: x[node].double() for node in self.equations}
        return {node: self._pull(node, seen) for node in self.equations}

    def sample(
        self, n: int, *, do: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> Rows:
        """Draws of all nodes, under an intervention if there is one.

        Example:
            >>> from causal.flows.synthetic import published
            >>> triangle = published("triangle")
            >>> triangle.sample(10_000, do={"x1": 0.5}, seed=0)["x2"].mean()
            tensor(5.0, dtype=torch.float64)
        """
        return self.solve(self.noise(n, seed=seed), do=do)

    def counterfactual(self, x: Mapping[str, Tensor], *, do: Mapping[str, Any]) -> Rows:
        """The very rows as they would have been: abduction, action, prediction."""
        return self.solve(self.abduct(x), do=do)

    def log_prob(self, x: Mapping[str, Tensor]) -> Float64[Tensor, " n"]:
        """log p(x) = sum_j log p(u_j) + log |d u_j / d x_j|, in nats."""
        total = torch.zeros((), dtype=torch.float64)
        for node in self.equations:
            seen = {name: value.double() for name, value in x.items()}
            seen[node] = seen[node].detach().requires_grad_()
            with torch.enable_grad():
                u = self._pull(node, seen)
                (slope,) = torch.autograd.grad(u.sum(), seen[node])
            total = total + self.law.log_prob(u.detach()) + slope.abs().log()
        return total

    def _pull(self, node: str, x: Mapping[str, Tensor]) -> Tensor:
        parents, _, pull = self.equations[node]
        return pull(x[node], *(x[parent] for parent in parents))
