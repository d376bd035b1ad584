"""Two outcomes of one noise: their joint law under a named coupling, and its extremes.

An outcome that has law p in one world and q in another has a joint law with these margins, which no
data tell (Frechet 1951). *Monotone*, the same quantile in both: the overlap of the intervals of
[0, 1] that p and q give to i and j. *Gumbel*, x = argmax_k log p_k + u_k (Oberst & Sontag 2019):
with exponential races E_k = exp(-u_k) and r the ratio of the two winning times,

    P(i, j) = int dr / (sum_k max(p_k / p_i, r q_k / q_j))^2,  p_j / p_i <= r <= q_j / q_i,

and P(i, i) = 1 / sum_k max(p_k / p_i, q_k / q_i).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Law = Float[Tensor, "*batch k"]
Joint = Float[Tensor, "*batch k k"]


def joint_law(p: Law, q: Law, coupling: str) -> Joint:
    """P(i, j) with margins p and q, of shape (..., k, k).

    Args:
        p: probabilities in one world.
        q: in the other.
        coupling: "gumbel" or "monotone".

    Example:
        >>> p, q = torch.tensor([0.2, 0.8]).double(), torch.tensor([0.5, 0.5]).double()
        >>> joint_law(p, q, "gumbel")
        tensor([[0.2000, 0.0000],
                [0.3000, 0.5000]], dtype=torch.float64)
    """
    return _monotone(p, q) if coupling == "monotone" else _gumbel(p, q)


def least(cost: Joint, p: Law, q: Law, same: Bool[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The least of sum_ij P(i, j) cost_ij over all joint laws with margins p and q.

    Args:
        cost: what each pair of outcomes costs.
        p: probabilities in one world.
        q: in the other.
        same: where both worlds give the mechanism the same arguments, so that the outcomes agree.

    Example:
        >>> p, q = torch.tensor([0.2, 0.8]).double(), torch.tensor([0.5, 0.5]).double()
        >>> differ = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double()
        >>> float(least(differ, p, q, torch.tensor(False))), float(-least(-differ, p, q,
        ...     torch.tensor(False)))
        (0.0, 0.2)
    """
    alike = (cost.diagonal(dim1=-2, dim2=-1) * p).sum(-1)
    apart = _binary(cost, p, q) if p.shape[-1] == 2 else _programme(cost, p, q)
    return torch.where(same, alike, apart)


def _monotone(p: Law, q: Law) -> Joint:
    upper, over = p.cumsum(-1)[..., :, None], q.cumsum(-1)[..., None, :]
    lower, under = upper - p[..., :, None], over - q[..., None, :]
    return (torch.minimum(upper, over) - torch.maximum(lower, under)).clamp(min=0)


def _gumbel(p: Law, q: Law) -> Joint:
    k = p.shape[-1]
    p, q = torch.broadcast_tensors(p.clamp(min=1e-300), q.clamp(min=1e-300))
    joint = torch.empty(*p.shape, k, dtype=p.dtype, device=p.device)
    for i in range(k):
        for j in range(k):
            a, b = p / p[..., i, None], q / q[..., j, None]
            if i == j:
                joint[..., i, i] = 1 / torch.maximum(a, b).sum(-1)
            else:
                joint[..., i, j] = _race(a, b, a[..., j], 1 / b[..., i])
    return joint


def _race(a: Law, b: Law, low: Any, high: Any) -> Float[Tensor, "*batch"]:
    """The integral of 1 / (sum_k max(a_k, r b_k))^2 over low <= r <= high, piece by piece.

    On a piece where the sum is linear in r, it is the width over the product of both ends' sums.
    """
    high = torch.maximum(low, high)
    knots = torch.cat([(a / b).clamp(low[..., None], high[..., None]), low[..., None]], -1)
    r = torch.cat([knots, high[..., None]], -1).sort(-1).values
    total = torch.maximum(a[..., None, :], r[..., None] * b[..., None, :]).sum(-1)
    return (r.diff(dim=-1) / total[..., 1:] / total[..., :-1]).sum(-1)


def _binary(cost: Joint, p: Law, q: Law) -> Float[Tensor, "*batch"]:
    """P(1, 1) lies between max(0, p + q - 1) and min(p, q), and the cost is linear in it."""
    one, other = torch.broadcast_tensors(p[..., 1], q[..., 1])
    slope = cost[..., 1, 1] + cost[..., 0, 0] - cost[..., 1, 0] - cost[..., 0, 1]
    both = torch.where(slope > 0, (one + other - 1).clamp(min=0), torch.minimum(one, other))
    rest = cost[..., 0, 0] * (1 - one - other) + cost[..., 1, 0] * one + cost[..., 0, 1] * other
    return rest + slope * both


def _programme(cost: Joint, p: Law, q: Law) -> Float[Tensor, "*batch"]:
    """The transport problem as a linear programme, one block for each element of the batch."""
    import numpy as np
    from scipy import sparse
    from scipy.optimize import linprog

    k, shape = p.shape[-1], cost.shape[:-2]
    c = cost.reshape(-1, k, k).cpu().numpy()
    margins = torch.cat([p.expand(*shape, k), q.expand(*shape, k)], -1).reshape(-1, 2 * k)
    one, eye = np.ones((1, k)), np.eye(k)
    block = sparse.csr_matrix(np.vstack([np.kron(eye, one), np.kron(one, eye)]))
    rows = sparse.block_diag([block] * len(c), format="csr")
    solved = linprog(c.reshape(-1), A_eq=rows, b_eq=margins.cpu().numpy().reshape(-1))
    if solved.x is None:
        raise ValueError(f"The bounds over couplings were not found: {solved.message}")
    found = (c * solved.x.reshape(c.shape)).sum((1, 2))
    return torch.as_tensor(found, dtype=cost.dtype, device=cost.device).reshape(shape)
