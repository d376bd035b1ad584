"""The dependence of a copula: correlations of scores, densities of the Gaussian and the t copula.

With normal scores z of the columns, and w = T_nu^-1(Phi(z)) the same scores of Student's t,

    log c(z) = log N(z; 0, R) - sum_j log phi(z_j)
    log c(w) = log t_nu(w; 0, R) - sum_j log t_nu(w_j)

(Joe 2014, Sec. 4.3 and 4.13). Kendall's tau is 2 / pi arcsin(rho) for both (Lindskog, McNeil &
Schmock 2003), which turns rank correlations into a start for the maximum of the likelihood.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pgm.inference import normal
from pgm.inference.copulas.marginals import log_student_density

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def unit_rows(below: Float[Tensor, " k"], d: int) -> Float[Tensor, "d d"]:
    """The Cholesky factor L of a correlation: free numbers below the diagonal, rows of norm 1.

    Example:
        >>> unit_rows(torch.tensor([0.75]), 2)
        tensor([[1.0000, 0.0000],
                [0.6000, 0.8000]])
    """
    L = torch.eye(d).to(below).index_put(tuple(torch.tril_indices(d, d, -1)), below)
    return L / L.norm(dim=-1, keepdim=True)


def log_gaussian(
    z: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"], R: Float[Tensor, "d d"]
) -> Float[Tensor, " n"]:
    """log density of the Gaussian copula at the seen normal scores, in their dtype."""
    R = R.to(z)
    joint = normal.log_density(z, seen, torch.zeros_like(z), R.expand(len(z), -1, -1))
    return joint + torch.where(seen, 0.5 * z.square() + _HALF_LOG_TAU, 0.0).sum(-1)


def log_student(
    w: Float[Tensor, "n d"],
    seen: Bool[Tensor, "n d"],
    R: Float[Tensor, "d d"],
    df: Float[Tensor, ""],
) -> Float[Tensor, " n"]:
    """log density of the t copula at the seen scores of Student's t, in their dtype."""
    R, df = R.to(w), df.to(w)
    root = normal.seen_root(R.expand(len(w), -1, -1), seen)
    squares, d = normal.whitened(w, seen, root).square().sum(-1), seen.to(w.dtype).sum(-1)
    joint = (
        torch.lgamma((df + d) / 2)
        - torch.lgamma(df / 2)
        - d / 2 * (math.pi * df).log()
        - normal.log_determinant(root)
        - (df + d) / 2 * torch.log1p(squares / df)
    )
    return joint - torch.where(seen, log_student_density(w, df), 0.0).sum(-1)


def from_kendall(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """R = sin(pi tau / 2) by pairs of seen cells, brought to a correlation of full rank.

    Rousseeuw & Molenberghs (1993): negative eigenvalues are raised, and the diagonal made 1 again.
    """
    from scipy.stats import kendalltau

    d, columns = x.shape[1], x.double().numpy()
    R = torch.eye(d, dtype=torch.float64)
    for i in range(d):
        for j in range(i):
            tau = kendalltau(columns[:, i], columns[:, j], nan_policy="omit").statistic
            R[i, j] = R[j, i] = math.sin(math.pi / 2 * float(tau)) if tau == tau else 0.0
    value, vector = torch.linalg.eigh(R)
    R = vector * value.clamp(min=1e-4) @ vector.T
    root = R.diagonal().sqrt()
    return R / root / root[:, None]


def below_of(R: Float[Tensor, "d d"]) -> Float[Tensor, " k"]:
    """The free numbers of a correlation: `unit_rows` gives its Cholesky factor back."""
    L = torch.linalg.cholesky(R)
    return (L / L.diagonal().unsqueeze(-1))[tuple(torch.tril_indices(len(R), len(R), -1))]


def maximise(value: Callable[[], Float[Tensor, ""]], climbed: Mapping[Tensor, float]) -> None:
    """Climbs a mean log-likelihood by L-BFGS-B (Byrd et al. 1995), in place.

    Args:
        value: the log-likelihood under the parameters as they stand.
        climbed: the parameters, each with the largest magnitude it may take.
    """
    from scipy.optimize import minimize

    parameters = list(climbed)
    sizes = [p.numel() for p in parameters]

    def put(flat: Any) -> None:
        with torch.no_grad():
            for p, part in zip(parameters, torch.from_numpy(flat).split(sizes), strict=True):
                p.copy_(part.reshape(p.shape))

    def loss(flat: Any) -> tuple[float, Any]:
        put(flat)
        mean = -value()
        slopes = torch.autograd.grad(mean, parameters)
        return mean.item(), torch.cat([g.flatten() for g in slopes]).numpy()

    begin = torch.cat([p.detach().flatten() for p in parameters]).numpy()
    bounds = [(-most, most) for p, most in climbed.items() for _ in range(p.numel())]
    put(minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds).x)
