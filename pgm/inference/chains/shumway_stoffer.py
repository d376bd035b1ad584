"""Maximum likelihood of a linear-Gaussian state space model by expectation maximisation.

Each step smooths the states, takes the expectations of the sums that complete data would have,

    S_11 = sum_t E z_t z_t',  S_10 = sum_t E z_t z_{t-1}',  S_00 = sum_t E z_{t-1} z_{t-1}',

and solves two regressions: A = S_10 S_00^-1, and C and d of what is seen on the states (Shumway &
Stoffer 1982; Ghahramani & Hinton 1996). The likelihood never falls. Missing cells of a step that
was seen in part are latent like the states: given both the state and the cells that were seen they
are normal around B x + (I - B) (C z + d), B = R M (M R M + I - M)^-1 M. Steps where nothing was
seen are left out of the second regression, those after the last that was seen out of both.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pgm.inference.chains.baum_welch import Climb
from pgm.inference.chains.kalman import System, gains, kalman_filter, normals, shown, smoother

__all__ = ["Part", "climb"]

Part = Literal["transition", "observation", "initial"]
"""What is learned beside the noises: A; C and d; m_0 and the diagonal of P_0."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Expected sums of squares and products, a state with a 1 below it where it is seen.

    Attributes:
        S11, S10, S00: of the moves, (k, k).
        moves: how many there were.
        xx: of what is seen, (d, d).
        xz: of what is seen with the states, (d, k + 1).
        zz: of those states, (k + 1, k + 1).
        steps: how many were seen.
        mean, scatter: of the first states, (k,), and the covariance around it, (k, k).
    """

    S11: Float[Tensor, "k k"]
    S10: Float[Tensor, "k k"]
    S00: Float[Tensor, "k k"]
    moves: Float[Tensor, ""]
    xx: Float[Tensor, "d d"]
    xz: Float[Tensor, "d h"]
    zz: Float[Tensor, "h h"]
    steps: Float[Tensor, ""]
    mean: Float[Tensor, " k"]
    scatter: Float[Tensor, "k k"]


def climb(
    system: System,
    x: Float[Tensor, "n T d"],
    seen: Bool[Tensor, "n T d"] | None,
    *,
    learned: Collection[Part],
    covariance: Literal["diagonal", "full"],
    steps: int,
    tolerance: float,
) -> tuple[System, Climb]:
    """The system after steps of expectation maximisation, and how it went.

    Args:
        system: where it starts.
        x: sequences.
        seen: which cells were seen; None for all.
        learned: the parts that change; the noises always do.
        covariance: the shape of the noises' covariances.
        steps: at most so many.
        tolerance: stop when a step gains less than this, in nats a sequence.
    """
    trail: list[float] = []
    with torch.no_grad():
        while True:
            sums, value = expected_sums(system, x, seen)
            trail.append(value)
            done = len(trail) > 1 and trail[-1] - trail[-2] < tolerance * len(x)
            if done or len(trail) > steps:
                return system, Climb(tuple(trail), done)
            system = maximum(system, sums, learned, covariance)


def expected_sums(
    system: System, x: Float[Tensor, "n T d"], seen: Bool[Tensor, "n T d"] | None
) -> tuple[Sums, float]:
    """The sums given all that was seen, and its log-likelihood."""
    known = kalman_filter(system, x, seen)
    states = normals(smoother(system, known))
    m, P = states.mean, states.covariance
    seconds = P + _outer(m, m)
    J = [G.expand(len(x), -1, -1) for G in gains(system, known)]
    lagged = P[:, 1:] @ torch.stack([*J, P[:, 0]], 1)[:, :-1].mT + _outer(m[:, 1:], m[:, :-1])
    some = x.new_ones(x.shape[:2]) if seen is None else seen.any(-1).to(x)
    until = some.flip(1).cummax(1).values.flip(1)  # 1 up to the last step that was seen
    w = until[:, 1:, None, None]
    first = until[:, :1] / until[:, 0].sum().clamp(min=1)
    mean = (first * m[:, 0]).sum(0)
    scatter = (first.unsqueeze(-1) * (P[:, 0] + _outer(m[:, 0] - mean, m[:, 0] - mean))).sum(0)
    sums = Sums(
        (w * seconds[:, 1:]).sum((0, 1)),
        (w * lagged).sum((0, 1)),
        (w * seconds[:, :-1]).sum((0, 1)),
        until[:, 1:].sum(),
        *_seen_sums(system, x, seen, m, P, some),
        some.sum(),
        mean,
        scatter,
    )
    return sums, float(known.log_likelihood.sum())


def maximum(
    system: System, sums: Sums, learned: Collection[Part], covariance: Literal["diagonal", "full"]
) -> System:
    """The system of the highest expected log-likelihood of complete data."""
    if sums.moves > 0:
        if "transition" in learned:
            system = replace(system, A=torch.linalg.solve(sums.S00, sums.S10.mT).mT)
        Q = _residual(sums.S11, sums.S10, sums.S00, system.A) / sums.moves
        system = replace(system, Q=_shaped(Q, covariance))
    if "observation" in learned:
        full = torch.linalg.solve(sums.zz, sums.xz.mT).mT
        system = replace(system, C=full[:, :-1], offset=full[:, -1])
    full = torch.cat([system.C, system.offset.unsqueeze(-1)], -1)
    R = _residual(sums.xx, sums.xz, sums.zz, full) / sums.steps
    system = replace(system, R=_shaped(R, covariance))
    if "initial" in learned:
        system = replace(system, m0=sums.mean, P0=_shaped(sums.scatter, "diagonal"))
    return system


def _seen_sums(
    system: System,
    x: Float[Tensor, "n T d"],
    seen: Bool[Tensor, "n T d"] | None,
    m: Float[Tensor, "n T k"],
    P: Float[Tensor, "n T k k"],
    some: Float[Tensor, "n T"],
) -> tuple[Tensor, Tensor, Tensor]:
    """xx', xz' and zz' summed over the steps of which something was seen.

    Given a state z, what was hidden of x is e + F z with covariance V, and what was seen itself.
    """
    h = torch.cat([m, torch.ones_like(m[..., :1])], -1)
    hh = _outer(h, h)
    hh[..., :-1, :-1] += P
    w = some[..., None, None]
    if seen is None:
        return (w * _outer(x, x)).sum((0, 1)), (w * _outer(x, h)).sum((0, 1)), (w * hh).sum((0, 1))
    M = seen.to(x)
    MR = M.unsqueeze(-1) * system.R
    B = torch.cholesky_solve(MR, torch.linalg.cholesky(shown(system, M)[1])).mT * M.unsqueeze(-2)
    free = torch.eye(x.shape[-1]).to(x) - B
    F = free @ torch.cat([system.C, system.offset.unsqueeze(-1)], -1)
    e = (B @ (M * x).unsqueeze(-1)).squeeze(-1)
    eh, Fhh = _outer(e, h), F @ hh
    xx = _outer(e, e) + eh @ F.mT + F @ eh.mT + Fhh @ F.mT + free @ system.R
    return (w * xx).sum((0, 1)), (w * (eh + Fhh)).sum((0, 1)), (w * hh).sum((0, 1))


def _residual(yy: Tensor, yz: Tensor, zz: Tensor, W: Tensor) -> Tensor:
    """sum E (y - W z)(y - W z)'."""
    cross = W @ yz.mT
    return yy - cross - cross.mT + W @ zz @ W.mT


def _shaped(S: Float[Tensor, "k k"], covariance: Literal["diagonal", "full"]) -> Tensor:
    """A covariance, kept from falling to zero by rounding."""
    variances = S.diagonal().clamp(min=1e-12)
    S = 0.5 * (S + S.mT) if covariance == "full" else torch.zeros_like(S)
    return S - torch.diag_embed(S.diagonal()) + torch.diag_embed(variances)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a.unsqueeze(-1) * b.unsqueeze(-2)
