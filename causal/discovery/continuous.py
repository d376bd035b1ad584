"""NOTEARS: a linear graph by continuous optimisation, and what its scale gives away.

min |X - X W|^2 / 2n + penalty |W|_1 subject to tr exp(W * W) = d, which holds for acyclic W alone
(Zheng, Aragam, Ravikumar & Xing 2018). Its squared error reads the order of the nodes off their
variances, which in simulated data grow along the arrows (Reisach, Seiler & Weichwald 2021): columns
are standardised here unless it is asked not to, and the result says how far variances agree with
it. What directions it then gives are no evidence of causes; `discover` gives probabilities.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import torch

from causal.discovery.cells import read_cells
from causal.discovery.draws import as_digraph

_H, _RHO, _ROUNDS, _FAR = 1e-8, 1e16, 100, 1e100


@dataclass(frozen=True, eq=False, repr=False)
class LinearGraph:
    """A linear graph that was found by descent.

    Attributes:
        names: of the nodes.
        weights: of every arrow, the row being the cause; in standard deviations where columns were
            standardised; shape (n, n).
        varsortability: the share of directed paths along which the variance of the columns grows; 1
            or 0 means that an order by variance alone would give these directions.
        standardised: whether columns were.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    varsortability: float
    standardised: bool

    def graph(self) -> "nx.DiGraph[str]":
        """The arrows with their `weight`."""
        graph = as_digraph(self.names, torch.from_numpy(self.weights != 0))
        for a, b in graph.edges:
            graph.edges[a, b]["weight"] = self.weights[self.names.index(a), self.names.index(b)]
        return graph

    def __str__(self) -> str:
        graph = self.graph()
        arrows = [(a, b, graph.edges[a, b]["weight"]) for a, b in graph.edges]
        scale = "standardised columns" if self.standardised else "columns as they came"
        lines = [
            f"{len(arrows)} arrows by NOTEARS on {scale}; varsortability {self.varsortability:.2f}",
            *(f"  {w:+.2f}  {a} -> {b}" for a, b, w in arrows),
            "  directions are no evidence of causes: see causal.discovery.discover",
        ]
        return "\n".join(lines)

    __repr__ = __str__


def notears(
    data: Any,
    *,
    penalty: float = 0.1,
    threshold: float = 0.3,
    standardise: bool = True,
    names: Any = None,
) -> LinearGraph:
    """A linear graph by NOTEARS.

    Args:
        data: complete rows of numbers, as in `discover`.
        penalty: on the sum of absolute weights.
        threshold: absolute weights below it are dropped.
        standardise: whether columns are divided by their standard deviation.
        names: the columns of a tensor.

    Raises:
        ValueError: levels, missing cells or constant columns.

    Warns:
        UserWarning: columns that are not standardised, and directions that an order by variance
            alone would give.

    Example:
        >>> import torch
        >>> x = torch.randn(500, generator=torch.Generator().manual_seed(0))
        >>> noise = torch.randn(500, generator=torch.Generator().manual_seed(1))
        >>> found = notears({"x": x, "y": x + 0.5 * noise})
        >>> float(abs(found.weights).max())
        0.8
    """
    cells = read_cells(data, kinds="numbers", names=names, unseen="refuse")
    X = cells.x.numpy()
    spread = X.std(0)
    X = (X - X.mean(0)) / (spread if standardise else 1.0)
    W = _descend(X, penalty)
    W = _acyclic(np.where(np.abs(W) < threshold, 0.0, W))
    sorted_ = varsortability(W, spread**2)
    if not standardise and abs(sorted_ - 0.5) > 0.25:
        warnings.warn(
            f"An order by variance alone would give {max(sorted_, 1 - sorted_):.0%} of these "
            "directions (varsortability): they tell of units, and not of causes. Leave "
            "standardise=True, and see what is left of them.",
            stacklevel=2,
        )
    return LinearGraph(cells.names, W, sorted_, standardise)


def varsortability(weights: np.ndarray, variances: np.ndarray) -> float:
    """The share of directed paths whose end has the larger variance, ties counting half.

    Args:
        weights: of arrows, the row being the cause; shape (n, n).
        variances: of the columns, shape (n,).

    Example:
        >>> varsortability(np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]]), np.array([1.0, 2.0, 1.5]))
        0.667
    """
    edges = (weights != 0).astype(float)
    paths, larger, all_ = edges.copy(), 0.0, 0.0
    for _ in range(len(edges) - 1):
        starts, ends = np.nonzero(paths)
        grown = np.sign(variances[ends] - variances[starts])
        larger += float(((1 + grown) / 2).sum())
        all_ += len(starts)
        paths = paths @ edges
    return larger / all_ if all_ else 0.5


def _descend(X: np.ndarray, penalty: float) -> np.ndarray:
    """The augmented Lagrangian, its inner problems by L-BFGS-B over W = P - N, P, N >= 0."""
    from scipy.linalg import expm
    from scipy.optimize import minimize

    n, d = X.shape
    gram = X.T @ X / n
    rho, alpha, h = 1.0, 0.0, np.inf

    def constraint(W: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(over="ignore", invalid="ignore"):  # trial steps may go far
            E = np.nan_to_num(expm(W * W), nan=_FAR, posinf=_FAR)
        return float(np.trace(E) - d), E.T * W * 2

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        P, N = w.reshape(2, d, d)
        W = P - N
        rest = np.eye(d) - W
        loss = 0.5 * float(np.sum(rest * (gram @ rest)))
        value, slope = constraint(W)
        total = loss + 0.5 * rho * value**2 + alpha * value + penalty * float(w.sum())
        gradient = -gram @ rest + (rho * value + alpha) * slope
        return total, np.concatenate([(gradient + penalty).ravel(), (penalty - gradient).ravel()])

    bounds = [(0.0, 0.0 if i == j else None) for _ in range(2) for i in range(d) for j in range(d)]
    w = 0.1 * np.random.default_rng(0).random(2 * d * d)  # at zero, both ways of an arrow tie
    w[[k for k, bound in enumerate(bounds) if bound[1] == 0.0]] = 0.0
    for _ in range(_ROUNDS):
        while rho < _RHO:
            new = minimize(objective, w, method="L-BFGS-B", jac=True, bounds=bounds).x
            now = constraint(new[: d * d].reshape(d, d) - new[d * d :].reshape(d, d))[0]
            if now <= 0.25 * h:
                break
            rho *= 10
        w, h = new, now
        alpha += rho * h
        if h <= _H or rho >= _RHO:
            break
    P, N = w.reshape(2, d, d)
    return np.asarray(P - N)


def _acyclic(W: np.ndarray) -> np.ndarray:
    """What is left of a cycle loses its weakest arrows."""
    W = W.copy()
    while not nx.is_directed_acyclic_graph(nx.DiGraph(W != 0)):
        cycle = nx.find_cycle(nx.DiGraph(W != 0))
        i, j = min(cycle, key=lambda edge: abs(W[edge[0], edge[1]]))[:2]
        W[i, j] = 0.0
    return W
