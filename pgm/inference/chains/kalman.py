"""The Kalman filter, its smoother and draws of paths, over many sequences at once.

    z_0 ~ N(m_0, P_0),    z_t = A z_{t-1} + w,  w ~ N(0, Q),    x_t = C z_t + d + v,  v ~ N(0, R)

(Kalman 1960; Rauch, Tung & Striebel 1965; Murphy 2023, Sec. 8.2). Covariances are updated in
Joseph's form, (I - KC) P (I - KC)' + K R K', which stays symmetric and positive whatever is rounded
(Bucy & Joseph 1968). Missing cells are left out exactly: their rows of C are zero and their noise
is 1, which costs the density nothing. Without missing cells, the covariances are the same for all
sequences and are computed once. Draws are Durbin & Koopman's (2002): a draw from the prior, moved
by the smoother of what it gets wrong.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = [
    "Filtered",
    "Normals",
    "System",
    "after_the_last",
    "draw_paths",
    "draw_prior",
    "gains",
    "kalman_filter",
    "log_likelihood",
    "normals",
    "predicted",
    "shown",
    "smoother",
]

_LOG_TAU = math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class System:
    """The matrices of a linear-Gaussian state space model.

    Attributes:
        A: the state's next mean, (k, k).
        C: what is seen of a state, (d, k).
        offset: d, added to what is seen, (d,).
        Q: covariance of the state's noise, (k, k).
        R: covariance of what is seen, (d, d).
        m0: mean of the first state, (k,), or of each sequence's, (n, k).
        P0: its covariance, (k, k) or (n, k, k).
    """

    A: Float[Tensor, "k k"]
    C: Float[Tensor, "d k"]
    offset: Float[Tensor, " d"]
    Q: Float[Tensor, "k k"]
    R: Float[Tensor, "d d"]
    m0: Float[Tensor, "*n k"]
    P0: Float[Tensor, "*n k k"]


@dataclass(frozen=True, eq=False)
class Normals:
    """Normal distributions of the state at every step.

    Attributes:
        mean: (n, T, k).
        covariance: (n, T, k, k).
    """

    mean: Float[Tensor, "*n T k"]
    covariance: Float[Tensor, "*n T k k"]

    @property
    def scale(self) -> Float[Tensor, "*n T k"]:
        """The standard deviations."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()

    def __str__(self) -> str:
        return f"normal states, mean {tuple(self.mean.shape)}"


@dataclass(frozen=True, eq=False)
class Filtered:
    """What the filter knows; covariances have one row where they are the same for all sequences.

    Attributes:
        log_likelihood: log p(x) of the seen cells, (n,).
        after: of every step, the state given the steps up to it: mean (n, k), covariance
            (n or 1, k, k).
        before: the same given the steps before it.
    """

    log_likelihood: Float[Tensor, " n"]
    after: list[tuple[Tensor, Tensor]]
    before: list[tuple[Tensor, Tensor]]


def log_likelihood(
    system: System, x: Float[Tensor, "*n T d"], seen: Bool[Tensor, "*n T d"] | None
) -> Float[Tensor, "*n"]:
    """log p(x) of the seen cells of every sequence, in nats.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> walk = System(one, one, zero, one, one, zero, one)
        >>> log_likelihood(walk, torch.zeros(1, 1), None)  # log N(0; 0, 2)
        tensor(-1.2655)
    """
    rows, (T, d) = x.shape[:-2], x.shape[-2:]
    flat = None if seen is None else seen.reshape(-1, T, d)
    return kalman_filter(system, x.reshape(-1, T, d), flat).log_likelihood.reshape(rows)


def kalman_filter(
    system: System, x: Float[Tensor, "n T d"], seen: Bool[Tensor, "n T d"] | None
) -> Filtered:
    """The state given the steps so far, and the log-likelihood of all."""
    m = system.m0.expand(len(x), -1)
    P = system.P0.expand(1, -1, -1) if system.P0.dim() == 2 else system.P0
    after, before, terms = [], [], []
    for t in range(x.shape[1]):
        if t:
            m, P = m @ system.A.mT, _symmetric(system.A @ P @ system.A.mT + system.Q)
        before.append((m, P))
        m, P, term = _update(system, m, P, x[:, t], None if seen is None else seen[:, t])
        after.append((m, P))
        terms.append(term)
    return Filtered(torch.stack(terms).sum(0), after, before)


def smoother(system: System, known: Filtered) -> list[tuple[Tensor, Tensor]]:
    """The state at every step given all of them, as in `Filtered.after` (Rauch et al. 1965)."""
    m, P = known.after[-1]
    smoothed = [(m, P)]
    triples = zip(known.after[:-1], known.before[1:], gains(system, known), strict=True)
    for (mean, covariance), (ahead, P_ahead), J in reversed(list(triples)):
        m = mean + _apply(J, m - ahead)
        P = _symmetric(covariance + J @ (P - P_ahead) @ J.mT)
        smoothed.append((m, P))
    return smoothed[::-1]


def gains(system: System, known: Filtered) -> list[Tensor]:
    """J_t = P_t A' P_{t+1}^-1 of all steps but the last; Cov(z_{t+1}, z_t) is P_{t+1} J_t'."""
    pairs = zip(known.after[:-1], known.before[1:], strict=True)
    return [_divide(P @ system.A.mT, P_ahead) for (_, P), (_, P_ahead) in pairs]


def normals(states: list[tuple[Tensor, Tensor]]) -> Normals:
    """States of all steps in one tensor each, every sequence with its own covariances."""
    mean = torch.stack([m for m, _ in states], 1)
    covariance = torch.stack([P.expand(len(m), -1, -1) for m, P in states], 1)
    return Normals(mean, covariance)


def smoothed_mean(
    system: System, x: Float[Tensor, "n T d"], seen: Bool[Tensor, "n T d"] | None
) -> Float[Tensor, "n T k"]:
    """E[z_t | x_seen]."""
    return torch.stack([m for m, _ in smoother(system, kalman_filter(system, x, seen))], 1)


def draw_prior(system: System, shape: tuple[int, ...], T: int) -> tuple[Tensor, Tensor]:
    """Paths of states and what is seen of them, (*shape, T, k) and (*shape, T, d)."""
    root0, root, root_R = (torch.linalg.cholesky(S) for S in (system.P0, system.Q, system.R))
    u = torch.randn(*shape, T, len(root), dtype=root.dtype, device=root.device)
    v = torch.randn(*shape, T, len(root_R), dtype=root.dtype, device=root.device)
    z = [system.m0 + (root0 @ u[..., 0, :, None]).squeeze(-1)]
    for t in range(1, T):
        z.append(z[-1] @ system.A.mT + u[..., t, :] @ root.mT)
    path = torch.stack(z, -2)
    return path, path @ system.C.mT + system.offset + v @ root_R.mT


def draw_paths(
    system: System, x: Float[Tensor, "n T d"], seen: Bool[Tensor, "n T d"] | None, *, draws: int
) -> tuple[Float[Tensor, "draws n T k"], Float[Tensor, "draws n T d"]]:
    """States and completed sequences from their joint posterior (Durbin & Koopman 2002, Sec. 2)."""
    n, T, d = x.shape
    z, y = draw_prior(system, (draws, n), T)
    every = None if seen is None else seen.expand(draws, n, T, d).reshape(-1, T, d)
    theirs = smoothed_mean(system, y.reshape(-1, T, d), every).reshape(z.shape)
    own = smoothed_mean(system, x, seen)
    z = z + own - theirs
    if seen is None:
        return z, x.expand(draws, n, T, d)
    moved = y + _expected(system, own, x, seen) - _expected(system, theirs, y, seen)
    return z, torch.where(seen, x, moved)


def after_the_last(system: System, known: Filtered) -> System:
    """The system from the step after the last on, its first state as the filter knows it."""
    m, P = known.after[-1]
    P = _symmetric(system.A @ P @ system.A.mT + system.Q)
    return replace(system, m0=m @ system.A.mT, P0=P.expand(len(m), -1, -1))


def predicted(system: System, steps: int) -> tuple[Tensor, Tensor]:
    """Means and variances of what will be seen, (n, steps, d) each."""
    m, P, seen = system.m0, system.P0, []
    for t in range(steps):
        if t:
            m, P = m @ system.A.mT, system.A @ P @ system.A.mT + system.Q
        S = system.C @ P @ system.C.mT + system.R
        seen.append((m @ system.C.mT + system.offset, S.diagonal(dim1=-2, dim2=-1)))
    mean, variance = zip(*seen, strict=True)
    return torch.stack(mean, 1), torch.stack(variance, 1)


def _expected(system: System, z: Tensor, x: Tensor, seen: Tensor) -> Tensor:
    """E[x_t | x_seen] where the state's mean is z: noise that is shared moves the missing cells."""
    mean = z @ system.C.mT + system.offset
    M = seen.to(x.dtype)
    _, R = shown(system, M)
    gap = torch.cholesky_solve((M * (x - mean)).unsqueeze(-1), torch.linalg.cholesky(R))
    return mean + (system.R @ (M.unsqueeze(-1) * gap)).squeeze(-1)


def _update(
    system: System, m: Tensor, P: Tensor, x: Tensor, seen: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The state after a step was seen, and the log density of the step."""
    C, R, count = system.C, system.R, float(x.shape[-1])
    gap = x - (m @ C.mT + system.offset)
    size: Tensor | float = count
    if seen is not None:
        M = seen.to(x.dtype)
        C, R = shown(system, M)
        gap, size = M * gap, M.sum(-1)
    PC = P @ C.mT
    L = torch.linalg.cholesky(_symmetric(C @ PC + R))
    K = torch.cholesky_solve(PC.mT, L).mT
    u = _whiten(L, gap)
    log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    term = -0.5 * (u.square().sum(-1) + log_det + size * _LOG_TAU)
    rest = torch.eye(m.shape[-1], dtype=m.dtype, device=m.device) - K @ C
    return m + _apply(K, gap), _symmetric(rest @ P @ rest.mT + K @ R @ K.mT), term


def shown(system: System, M: Float[Tensor, "*n d"]) -> tuple[Tensor, Tensor]:
    """C and R of the seen cells: M C, and M R M + I - M."""
    R = M.unsqueeze(-1) * system.R * M.unsqueeze(-2) + torch.diag_embed(1 - M)
    return M.unsqueeze(-1) * system.C, R


def _whiten(L: Float[Tensor, "#n d d"], gap: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """L^-1 gap; one factor for all rows takes one solve."""
    if len(L) == 1:
        return torch.linalg.solve_triangular(L[0], gap.mT, upper=False).mT
    return torch.linalg.solve_triangular(L, gap.unsqueeze(-1), upper=False).squeeze(-1)


def _apply(K: Float[Tensor, "#n k d"], gap: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    return gap @ K[0].mT if len(K) == 1 else (K @ gap.unsqueeze(-1)).squeeze(-1)


def _divide(B: Tensor, S: Tensor) -> Tensor:
    """B S^-1 of a symmetric positive S."""
    return torch.cholesky_solve(B.mT, torch.linalg.cholesky(S)).mT


def _symmetric(P: Tensor) -> Tensor:
    return 0.5 * (P + P.mT)
