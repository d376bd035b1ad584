"""Estimates of conditional Gaussian networks: closed form, or EM where cells are missing.

The tables are counts and the numbers regressions on their parents. Where cells are missing, both
are taken of the exact posterior moments of the rows (Dempster, Laird & Rubin 1977; Lauritzen 1995,
"The EM algorithm for graphical association models with missing data").
"""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.inference.cg.law import ConditionalGaussian, condition
from pgm.inference.cg.network import Line, Structure, joint
from pgm.inference.cg.rows import Evidence


def expectation_maximisation(
    structure: Structure,
    start: ConditionalGaussian,
    evidence: Callable[[ConditionalGaussian], Iterable[Evidence]],
    *,
    complete: bool,
    prior: float,
    steps: int,
    tolerance: float,
) -> tuple[list[Tensor], list[Line], list[float]]:
    """The parameters of the highest likelihood, and the mean log-likelihood before every step.

    Args:
        structure: the arrows.
        start: the law to begin with.
        evidence: the rows, piece by piece, under a law.
        complete: whether no cell is missing, so that one step is the answer.
        prior: observations the Dirichlet prior of each table is worth.
        steps: the most steps.
        tolerance: nats a row; a smaller change ends it.
    """
    law, history = start, list[float]()
    log_tables, lines = list[Tensor](), list[Line]()
    while True:
        S, log_p = statistics(structure, evidence(law))
        history.append(log_p)
        settled = len(history) > 2 and abs(history[-1] - history[-2]) < tolerance
        if (complete and len(history) > 1) or settled or len(history) > steps:
            return log_tables, lines, history[1:]
        log_tables = [log_table(structure, name, S, prior) for name in structure.levels]
        lines = [regression(structure, name, S) for name in structure.numbers]
        law = joint(structure, log_tables, lines)


def statistics(
    structure: Structure, pieces: Iterable[Evidence]
) -> tuple[Float[Tensor, "K p p"], float]:
    """sum of E[v v' | row] by configuration, v = (1, y), and the mean log-likelihood of a row."""
    d, K = len(structure.numbers), len(structure.configurations)
    S, total, n = torch.zeros(K, d + 1, d + 1, dtype=torch.float64), 0.0, 0
    for rows in pieces:
        found, log_p = condition(rows.law, rows.y, rows.seen, rows.allowed)
        v = torch.nn.functional.pad(found.mean, (1, 0), value=1.0)
        second = v.unsqueeze(-1) * v.unsqueeze(-2)
        second = second + torch.nn.functional.pad(found.covariance, (1, 0, 1, 0))
        weighed = found.log_p.exp()[..., None, None] * second
        S.index_add_(0, rows.which.expand(weighed.shape[:2]).flatten(), weighed.flatten(0, 1))
        total, n = total + float(log_p.sum()), n + len(log_p)
    return S, total / n


def log_table(
    structure: Structure, name: str, S: Float[Tensor, "K p p"], prior: float
) -> Float[Tensor, "..."]:
    """log (count + a) / (total + sum of a), the posterior mean of a table.

    Raises:
        ValueError: a configuration of the parents that no row has, without a prior.
    """
    shape = (*structure.axes(name), structure.levels[name])
    count = torch.zeros(shape, dtype=torch.float64)
    count = count.index_put(structure.at(*structure.above(name), name), S[:, 0, 0], accumulate=True)
    count = count + prior / count.numel()
    if bool((total := count.sum(-1) == 0).any()):
        raise ValueError(
            f"No row has {_words(structure, name, total.nonzero()[0])}: the table of {name!r} has "
            "no estimate there. Give it a prior, such as prior=1."
        )
    return (count / count.sum(-1, keepdim=True)).log()


def regression(structure: Structure, name: str, S: Float[Tensor, "K p p"]) -> Line:
    """Least squares of a number on its parents, in every configuration of the discrete ones.

    Raises:
        ValueError: too few rows there, dependent parents, or no residual.
    """
    axes, above = structure.axes(name), structure.above(name)
    G = torch.zeros(*axes, *S.shape[1:], dtype=torch.float64)
    G = G.index_put(structure.at(*above), S, accumulate=True) if above else S.sum(0)
    N = G[..., 0, 0]
    x, j = [place + 1 for place in structure.places(name)], structure.numbers.index(name) + 1
    if bool((few := (N - len(x)) <= 1).any()):
        where = few.nonzero()[0]
        raise ValueError(
            f"{float(N[tuple(where)]):.3g} rows have {_words(structure, name, where)}, too few for "
            f"the {len(x) + 1} coefficients and the scale of {name!r}. Merge levels, drop a "
            "parent, or get more rows."
        )
    mean = G[..., 0, :] / N.unsqueeze(-1)
    C = G / N[..., None, None] - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    weights = _solved(structure, name, C[..., x, :][..., x], C[..., x, :][..., j])
    variance = C[..., j, j] - (weights * C[..., x, :][..., j]).sum(-1)
    if bool((variance <= 1e-12 * G[..., j, j] / N).any()):
        raise ValueError(
            f"{name!r} follows from its parents without a residual "
            f"({_words(structure, name, (variance <= 1e-12 * G[..., j, j] / N).nonzero()[0])}), or "
            "is constant: the node has no density. Leave it out of the graph."
        )
    intercept = mean[..., j] - (weights * mean[..., x]).sum(-1)
    return Line(torch.cat([intercept.unsqueeze(-1), weights], -1), variance.sqrt())


def _solved(
    structure: Structure, name: str, C: Float[Tensor, "*levels p p"], c: Float[Tensor, "*levels p"]
) -> Float[Tensor, "*levels p"]:
    """C^-1 c, through the correlations, which tell whether the parents are independent enough."""
    sd = C.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).sqrt()
    R = C / sd.unsqueeze(-1) / sd.unsqueeze(-2)
    if C.shape[-1] and bool((dependent := torch.linalg.eigvalsh(R)[..., 0] < 1e-9).any()):
        raise ValueError(
            f"The numbers among the parents of {name!r} are constant or linearly dependent "
            f"({_words(structure, name, dependent.nonzero()[0])}), so that the rows leave their "
            "weights open. Drop a parent, or get rows in which it varies."
        )
    return torch.linalg.solve(R, (c / sd).unsqueeze(-1)).squeeze(-1) / sd


def _words(structure: Structure, name: str, where: Tensor) -> str:
    """A configuration of the discrete parents, in words."""
    above = zip(structure.above(name), where.tolist(), strict=False)
    return ", ".join(f"{parent} = {level}" for parent, level in above) or "any value"
