"""The noise form of a distribution: x = push(fn, u), where u has a fixed law free of parameters.

`pull(fn, x)` is the inverse, abduction in the words of Pearl (2009, Causality, sec. 7.1): the
noise that made x. Where x fixes u (continuous distributions) it is exact; where many u make the
same x (discrete ones, mixtures) it is a draw from the exact posterior p(u | x), so that push gives
x back in every case. `noise` draws u from its law, out of place, so that it may stand under
`torch.func.vmap(..., randomness="different")`. Draws come from torch's global generator.

A discrete distribution does not say how its outcome depends on u: that is a *coupling*, it changes
counterfactuals, and no data can tell which is right. It has a name, and all three functions must
be given the same one.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Shaped
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from pgm.noise.draws import uniform


class NoNoiseForm(TypeError):
    """No noise form is known for this distribution; a fresh draw in its place would be wrong."""


class MixtureNoise(NamedTuple):
    """The noise of a mixture: that of the choice, and that of every component (not only of one).

    Attributes:
        component: Noise of the mixing distribution.
        kernel: Noise of the component distribution, with the components' axis in its batch shape.
    """

    component: Any
    kernel: Any


Noise = Tensor | MixtureNoise


@singledispatch
def push(fn: Distribution, u: Noise, *, coupling: str | None = None) -> Tensor:
    """Turn noise into a value, x = push(fn, u): a function of u and of the parameters of `fn`.

    Gradients reach the parameters of continuous distributions (and the selected component of a
    mixture, never its weights); they do not exist for discrete ones.

    Args:
        fn: A distribution of torch, Pyro or zuko. A subclass inherits its parent's noise form; one
            that samples otherwise has to `register` its own.
        u: Noise from `noise` or `pull`, perhaps of another `fn` of the same class. It broadcasts:
            `(*batch, *rest)` against the batch shape of `fn`.
        coupling: One of `couplings(fn)`, the same as in `noise` or `pull`; default the first.

    Returns:
        The value, of the batch shape of `fn` broadcast with that of `u`, and the event shape.

    Raises:
        NoNoiseForm: No noise form is known for `fn`.
        ValueError: `fn` has no such coupling.

    Example:
        Seen x = 1 and y = 3 where y ~ Normal(2x, 1). Had x been 0, y would have been 1:

        >>> from pyro.distributions import Normal
        >>> u = pull(Normal(2.0, 1.0), torch.tensor(3.0))
        >>> push(Normal(0.0, 1.0), u)
        tensor(1.)
    """
    if _has_late_rule(push, fn):
        return push(fn, u, coupling=coupling)
    return _with_inverse_cdf(fn, coupling).icdf(u)


@singledispatch
def pull(fn: Distribution, x: Tensor, *, coupling: str | None = None) -> Noise:
    """Abduct the noise that made x: push(fn, pull(fn, x)) is x.

    Exact for continuous distributions. For discrete ones and mixtures it is random: one draw from
    the exact posterior p(u | x), independent over the elements of x.

    Args:
        fn: A distribution of torch, Pyro or zuko.
        x: A value, `(*sample, *batch, *event)`.
        coupling: One of `couplings(fn)`; default the first.

    Returns:
        The noise, `(*sample, *batch, *rest)`; a `MixtureNoise` for a mixture.

    Raises:
        NoNoiseForm: No noise form is known for `fn`.
        ValueError: x cannot have come from `fn`, or `fn` has no such coupling.

    Example:
        >>> from pyro.distributions import Exponential
        >>> pull(Exponential(2.0), torch.tensor(3.0))
        tensor(6.)
    """
    if _has_late_rule(pull, fn):
        return pull(fn, x, coupling=coupling)
    univariate = _with_inverse_cdf(fn, coupling)
    require_support(fn, x)
    u = univariate.cdf(x)
    back = univariate.icdf(u)
    near = (back - x).abs() <= 1e-4 * (1 + x.abs())
    advice = "its cdf is rounded to 0 or 1 there, and the noise is lost; compute in float64"
    require(near, x, f"{type(fn).__name__}: pull got a value too far in the tail: {advice}.")
    return u


@singledispatch
def noise(fn: Distribution, shape: tuple[int, ...] = (), *, coupling: str | None = None) -> Noise:
    """Draw noise for `fn` from its fixed law, which no parameter changes.

    Args:
        fn: A distribution of torch, Pyro or zuko; only its class, shapes, dtype and device count.
        shape: Sample shape in front of the batch shape.
        coupling: One of `couplings(fn)`; default the first.

    Returns:
        The noise, `(*shape, *batch, *rest)`. `rest` is the event shape, but: one axis of k Gumbel
        variables for the `"gumbel"` coupling of k categories, nothing for `"monotone"`, k - 1
        normal scores for a Dirichlet of k parts. A `MixtureNoise` for a mixture.

    Raises:
        NoNoiseForm: No noise form is known for `fn`.
        ValueError: `fn` has no such coupling.

    Example:
        >>> from pyro.distributions import Categorical
        >>> noise(Categorical(torch.ones(4, 3)), (2,)).shape
        torch.Size([2, 4, 3])
    """
    if _has_late_rule(noise, fn):
        return noise(fn, shape, coupling=coupling)
    median = _with_inverse_cdf(fn, coupling).icdf(torch.tensor(0.5))
    return uniform(Size(shape) + fn.batch_shape, median)


@singledispatch
def couplings(fn: Distribution) -> tuple[str, ...]:
    """Name the couplings that `fn` can take, default first; none where the noise form is unique.

    `"gumbel"`: x = argmax(log p + u) with standard Gumbel u, the Gumbel-max mechanism (Oberst and
    Sontag 2019, sec. 3). `"monotone"`: x is the smallest value with F(x) >= Phi(u), u ~ N(0, 1),
    the inverse CDF. Counterfactuals under either are not identified by data.

    Example:
        >>> from pyro.distributions import Normal, OneHotCategorical, Poisson
        >>> couplings(OneHotCategorical(torch.ones(3)))
        ('gumbel', 'monotone')
        >>> couplings(Poisson(1.0)), couplings(Normal(0.0, 1.0))
        (('monotone',), ())
    """
    return ()


def sample(
    fn: Distribution, shape: tuple[int, ...] = (), *, coupling: str | None = None
) -> Shaped[Tensor, "..."]:
    """Draw from `fn` by way of its noise: push(fn, noise(fn, shape)), out of place.

    Args:
        fn: A distribution of torch, Pyro or zuko.
        shape: Sample shape in front of the batch and event shapes.
        coupling: One of `couplings(fn)`; it changes the draws and not their law.

    Example:
        >>> from pyro.distributions import Poisson
        >>> sample(Poisson(torch.ones(3)), (5,)).shape
        torch.Size([5, 3])
    """
    return push(fn, noise(fn, shape, coupling=coupling), coupling=coupling)


def register(
    kind: type[Distribution],
    *,
    noise: Callable[[Any, Size], Any],
    push: Callable[[Any, Any], Tensor],
    pull: Callable[[Any, Tensor], Any],
) -> None:
    """Give the distributions of a class their noise form.

    Args:
        kind: The class; its subclasses inherit the form.
        noise: `noise(fn, shape)` draws u with `shape` in front of the batch shape of `fn`.
        push: `push(fn, u)` gives x; differentiable, and vmap-safe where `sample` is to be.
        pull: `pull(fn, x)` gives u. It is called with values inside the support only.

    Example:
        >>> from pyro.distributions import Normal
        >>> class Brownian(Normal):
        ...     "Normal, but with its noise in other units."
        >>> register(
        ...     Brownian,
        ...     noise=lambda fn, shape: 2 * torch.randn(shape + fn.batch_shape),
        ...     push=lambda fn, u: fn.loc + fn.scale * u / 2,
        ...     pull=lambda fn, x: 2 * (x - fn.loc) / fn.scale,
        ... )
        >>> pull(Brownian(1.0, 1.0), torch.tensor(2.0))
        tensor(2.)
    """
    push_rule, pull_rule, noise_rule = push, pull, noise

    def pushed(fn: Any, u: Noise, *, coupling: str | None = None) -> Tensor:
        _single_form(fn, coupling)
        return push_rule(fn, u)

    def pulled(fn: Any, x: Tensor, *, coupling: str | None = None) -> Noise:
        _single_form(fn, coupling)
        require_support(fn, x)
        return pull_rule(fn, x)

    def drawn(fn: Any, shape: tuple[int, ...] = (), *, coupling: str | None = None) -> Noise:
        _single_form(fn, coupling)
        return noise_rule(fn, Size(shape))

    _PUSH.register(kind, pushed)
    _PULL.register(kind, pulled)
    _NOISE.register(kind, drawn)


_PUSH, _PULL, _NOISE = push, pull, noise  # `register` has arguments of these names


def choose_coupling(fn: Distribution, coupling: str | None) -> str:
    """The coupling asked for, the first of `couplings(fn)` if none was, an error if unknown."""
    known = couplings(fn)
    if coupling is not None and coupling not in known:
        names = " or ".join(map(repr, known))
        raise ValueError(
            f"{type(fn).__name__} has no coupling {coupling!r}. A coupling says how a discrete "
            f"outcome depends on its noise, and its counterfactuals depend on it. Use {names}."
        )
    return known[0] if coupling is None else coupling


def require_support(fn: Distribution, x: Shaped[Tensor, "..."]) -> None:
    """Raise if an element of x lies outside the support of `fn`, where that is declared."""
    try:
        support = fn.support
    except NotImplementedError:
        return
    if support in (None, constraints.real, constraints.real_vector):
        return  # NaN stays NaN
    inside = support.check(x)
    require(
        inside,
        x.broadcast_to(inside.shape + fn.event_shape),
        f"{type(fn).__name__}: pull got a value outside the support ({type(support).__name__}). "
        "This distribution cannot have made it, so there is no noise to find. Check the value, or "
        "the distribution of this site.",
    )


def require(holds: Bool[Tensor, "*batch"], x: Shaped[Tensor, "*batch_event"], message: str) -> None:
    """Raise ValueError(message) with the first offending element of x; works under vmap, too."""
    _Require.apply(holds, x, message)


class _Require(torch.autograd.Function):
    @staticmethod
    def forward(holds: Tensor, x: Tensor, message: str) -> Tensor:
        if not bool(holds.all()):
            raise ValueError(f"{message} The first such value: {x[~holds][0].tolist()}.")
        return holds.all()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, holds: Tensor, x: Tensor, message: str
    ) -> tuple[Tensor, None]:
        holds, x = (
            a.expand(info.batch_size, *a.shape) if dim is None else a.movedim(dim, 0)
            for a, dim in zip((holds, x), in_dims[:2], strict=True)
        )
        return _Require.apply(holds, x, message), None


def _has_late_rule(function: Any, fn: Distribution) -> bool:
    """Whether a rule is there now; that of zuko's classes is imported when one turns up."""
    if any(kind.__module__ == "zuko.distributions" for kind in type(fn).__mro__):
        import pgm.noise.flows  # noqa: F401
    return function.dispatch(type(fn)) is not function.dispatch(object)


def _single_form(fn: Distribution, coupling: str | None) -> None:
    if coupling is not None:
        raise ValueError(
            f"{type(fn).__name__} has one noise form, and coupling={coupling!r} was asked for. "
            "Couplings are for discrete distributions and mixtures: leave it out here (see "
            "pgm.noise.couplings)."
        )


def _with_inverse_cdf(fn: Any, coupling: str | None) -> Any:
    """The same `fn`, if it is univariate and continuous with both a CDF and its inverse."""
    _single_form(fn, coupling)
    kind = type(fn)
    if isinstance(fn, Distribution):
        whole = kind.cdf is not Distribution.cdf and kind.icdf is not Distribution.icdf
        if whole and not fn.event_shape and not (fn.support and fn.support.is_discrete):
            return fn
    raise NoNoiseForm(
        f"{kind.__module__}.{kind.__name__} has no known noise form x = push(fn, u): it has no "
        "inverse CDF and no rule. A fresh draw in its place would make counterfactuals wrong "
        "without a sign. Use a distribution that has one, or teach it: "
        f"pgm.noise.register({kind.__name__}, noise=..., push=..., pull=...)."
    )
