"""Noise forms of distributions on finitely many outcomes, under a named coupling.

`"gumbel"` (Maddison, Tarlow and Minka 2014; Oberst and Sontag 2019, sec. 3): outcome i of k is
argmax_i (log p_i + u_i), u_i ~ Gumbel(0, 1). Given the outcome, the largest sum is
Gumbel(log sum p) and the others are Gumbels truncated at it, whence the exact posterior of u.
It is *stable*: outcome i becomes j only if the odds of j against i rise.

`"monotone"`: outcome i if F(i - 1) < Phi(u) <= F(i), u ~ N(0, 1), in float64. Given the outcome, u
is a truncated normal. It takes the order of the outcomes as meant: `OrderedLogistic`'s default.

With two outcomes they are one: x = 1 if logit p + u > 0, u ~ Logistic(0, 1).
"""

from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from pyro.distributions import OrderedLogistic
from torch import Size, Tensor
from torch.distributions import Bernoulli, Categorical, OneHotCategorical
from torch.nn.functional import logsigmoid

from pgm.noise import draws
from pgm.noise.form import (
    choose_coupling,
    couplings,
    noise,
    pull,
    push,
    require,
    require_support,
)

BOTH = ("gumbel", "monotone")

for kind in (Bernoulli, Categorical, OneHotCategorical):
    couplings.register(kind, lambda fn: BOTH)
couplings.register(OrderedLogistic, lambda fn: BOTH[::-1])


@noise.register(Categorical)
@noise.register(OneHotCategorical)
def categorical_noise(
    fn: Any, shape: tuple[int, ...] = (), *, coupling: str | None = None
) -> Tensor:
    """k Gumbels, or one normal score in float64."""
    full = Size(shape) + fn.batch_shape
    if choose_coupling(fn, coupling) == "gumbel":
        return draws.gumbel(full + fn.probs.shape[-1:], fn.probs)
    return draws.normal(full, fn.probs.double())


@push.register(Categorical)
def categorical_push(fn: Categorical, u: Tensor, *, coupling: str | None = None) -> Tensor:
    """The outcome, an integer."""
    if choose_coupling(fn, coupling) == "monotone":
        return (u.unsqueeze(-1) > cuts(fn.probs)[..., 1:-1]).sum(-1)
    if u.shape[-1:] != fn.probs.shape[-1:]:
        raise ValueError(
            f"{type(fn).__name__} of {fn.probs.shape[-1]} outcomes got noise of shape "
            f"{tuple(u.shape)}; the 'gumbel' coupling needs one Gumbel variable for each outcome "
            "in its last axis. Is it noise of another coupling, or of another distribution?"
        )
    return (log_mass(fn) + u).argmax(-1)


@pull.register(Categorical)
def categorical_pull(fn: Categorical, x: Tensor, *, coupling: str | None = None) -> Tensor:
    """One draw of u from its exact posterior given the outcome."""
    require_support(fn, x)
    if choose_coupling(fn, coupling) == "monotone":
        cut = cuts(fn.probs)
        return truncated_normal(choose(cut, x.long()), choose(cut, x.long() + 1), x)
    return gumbels_given_largest(log_mass(fn), x.long())


@push.register(OneHotCategorical)
def one_hot_push(fn: OneHotCategorical, u: Tensor, *, coupling: str | None = None) -> Tensor:
    """The outcome, as a one-hot vector."""
    index = push(index_of(fn), u, coupling=coupling)
    return is_outcome(index, fn.probs.shape[-1]).to(fn.probs)


@pull.register(OneHotCategorical)
def one_hot_pull(fn: OneHotCategorical, x: Tensor, *, coupling: str | None = None) -> Any:
    """As for Categorical."""
    require_support(fn, x)
    return pull(index_of(fn), x.argmax(-1), coupling=coupling)


@noise.register(Bernoulli)
def bernoulli_noise(
    fn: Bernoulli, shape: tuple[int, ...] = (), *, coupling: str | None = None
) -> Tensor:
    """One logistic: the difference of the two Gumbels."""
    choose_coupling(fn, coupling)
    return draws.logistic(Size(shape) + fn.batch_shape, fn.logits)


@push.register(Bernoulli)
def bernoulli_push(fn: Bernoulli, u: Tensor, *, coupling: str | None = None) -> Tensor:
    """x = 1 if logit p + u > 0."""
    choose_coupling(fn, coupling)
    return (log_odds(fn) + u > 0).to(fn.probs.dtype)


@pull.register(Bernoulli)
def bernoulli_pull(fn: Bernoulli, x: Tensor, *, coupling: str | None = None) -> Tensor:
    """A logistic variable truncated to the side of -logit p that x is on."""
    require_support(fn, x)
    choose_coupling(fn, coupling)
    logit, sign = log_odds(fn), 2 * x - 1
    log_p = logsigmoid(sign * logit)
    require(log_p > -torch.inf, x, impossible(fn))
    log_tail = log_p - draws.exponential(log_p.shape, log_p)  # uniform on (0, p)
    u = torch.log1p(-log_tail.exp()) - log_tail
    return sign * torch.maximum(u, -sign * logit + rounding(fn.logits))


def gumbels_given_largest(
    log_p: Float[Tensor, "*batch k"], i: Int[Tensor, "*sample"]
) -> Float[Tensor, "*shape k"]:
    """Draw u ~ Gumbel(0, 1)^k given argmax(log_p + u) = i (Maddison et al. 2014, sec. 3)."""
    chosen = is_outcome(i, log_p.shape[-1])
    shape = torch.broadcast_shapes(chosen.shape, log_p.shape)
    own = torch.where(chosen, log_p, 0.0).sum(-1, keepdim=True)
    message = "Categorical: pull got an outcome of probability zero, which has no noise."
    require(own.squeeze(-1) > -torch.inf, i.broadcast_to(shape[:-1]), message)
    largest = draws.gumbel(shape[:-1], log_p).unsqueeze(-1)
    other = -torch.logaddexp(log_p - largest, -draws.gumbel(shape, log_p))
    rival = torch.where(chosen, -torch.inf, log_p + other).amax(-1, keepdim=True)
    # rounding must not let a rival draw level
    top = torch.maximum(largest, rival + rounding(largest.abs() + own.abs()))
    return torch.where(chosen, top - own, other)


def cuts(probs: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k+1"]:
    """Phi^{-1} of F(-1), F(0), ..., F(k - 1) in float64, each from its smaller tail."""
    p = probs.double()
    p = p / p.sum(-1, keepdim=True)
    lower = p.cumsum(-1)[..., :-1]
    upper = p.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    inner = torch.where(lower < upper, torch.special.ndtri(lower), -torch.special.ndtri(upper))
    end = torch.full_like(p[..., :1], torch.inf)
    return torch.cat([-end, inner, end], -1)


def truncated_normal(
    low: Float[Tensor, "*batch"], high: Float[Tensor, "*batch"], x: Shaped[Tensor, "*sample"]
) -> Float[Tensor, "*shape"]:
    """Draw N(0, 1) on (low, high], the normal scores that make x.

    Above zero the mirror image is drawn, where Phi keeps its digits. At either end a millionth of
    the mass is left out, or what rounding can blur if that is more: no neighbour of x comes back.
    """
    mirrored = low > 0
    a, b = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    p, q = normal_cdf(a), normal_cdf(b)
    size = torch.minimum(a.abs(), b.abs()).clamp(max=40)
    blur = 16 * torch.finfo(p.dtype).eps * (1 + size**2) * q
    message = "pull got an outcome of probability zero, or too small for float64: it has no noise."
    require(q - p > 2 * blur, x.broadcast_to(p.shape), message)
    edge = (blur / (q - p)).clamp(min=1e-6)
    v = edge + (1 - 2 * edge) * draws.uniform(p.shape, p)
    u = torch.special.ndtri(p + v * (q - p))
    return torch.where(mirrored, -u, u)


def choose(
    values: Shaped[Tensor, "..."], i: Int[Tensor, "*batch"], event_dim: int = 0
) -> Shaped[Tensor, "..."]:
    """Entry i of values[*batch, k, *event] for each element of the batch; batches broadcast."""
    index = i.reshape(i.shape + (1,) * (event_dim + 1))
    rank = max(values.dim(), index.dim())
    values, index = (a.reshape((1,) * (rank - a.dim()) + a.shape) for a in (values, index))
    return torch.take_along_dim(values, index, -1 - event_dim).squeeze(-1 - event_dim)


def normal_cdf(u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Phi(u), down to u = -38; torch.special.ndtr is 0 below -9."""
    return 0.5 * torch.special.erfc(-(0.5**0.5) * u)


def log_mass(fn: Any) -> Float[Tensor, "*batch k"]:
    """Log p of each outcome, minus infinity where p was given as 0.

    torch keeps the logits of given probabilities finite, about -16 in float32.
    """
    clamped = (fn.probs <= 0) & (fn.logits.exp() > 0)
    return torch.where(clamped, -torch.inf, fn.logits)


def log_odds(fn: Bernoulli) -> Float[Tensor, "*batch"]:
    """Logit p, infinite where p was given as 0 or 1."""
    p = fn.logits.sigmoid()
    never, always = (fn.probs <= 0) & (p > 0), (fn.probs >= 1) & (p < 1)
    return torch.where(never, -torch.inf, torch.where(always, torch.inf, fn.logits))


def index_of(fn: OneHotCategorical) -> Categorical:
    """The distribution of the outcome as an integer."""
    return Categorical(logits=log_mass(fn), validate_args=False)


def is_outcome(i: Int[Tensor, "*batch"], k: int) -> Shaped[Tensor, "*batch k"]:
    """One-hot truth values."""
    return i.unsqueeze(-1) == torch.arange(k, device=i.device)


def rounding(size: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A few units in the last place of numbers of this size."""
    return 4 * torch.finfo(size.dtype).eps * (1 + size.abs())


def impossible(fn: Any) -> str:
    """The message for a value of probability zero."""
    return f"{type(fn).__name__}: pull got an outcome of probability zero, which has no noise."
