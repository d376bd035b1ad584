"""Noise forms of counts: the monotone coupling, x the smallest count with F(x) >= Phi(u).

The noise u ~ N(0, 1) is kept in float64, for there may be little room between two counts. Given x
it is a normal truncated to (Phi^{-1} F(x - 1), Phi^{-1} F(x)], its exact posterior. The tails are
SciPy's (`pgm.noise.tails`); there are no gradients.
"""

from collections.abc import Callable
from typing import Any

from pyro.distributions import GammaPoisson
from torch import Size, Tensor, float64
from torch.distributions import Binomial, Geometric, NegativeBinomial, Poisson

from pgm.noise import draws
from pgm.noise.discrete import truncated_normal
from pgm.noise.form import choose_coupling, couplings, noise, pull, push, require_support
from pgm.noise.quantiles import elementwise

# class -> name in pgm.noise.tails, and the parameters of its tails
Parameters = Callable[[Any], tuple[Tensor, ...]]
FAMILIES: dict[Any, tuple[str, Parameters]] = {
    Poisson: ("poisson", lambda fn: (fn.rate,)),
    Binomial: ("binomial", lambda fn: (fn.total_count, fn.probs)),
    Geometric: ("geometric", lambda fn: (fn.probs,)),
    NegativeBinomial: ("negative_binomial", lambda fn: (fn.total_count, fn.probs)),
    GammaPoisson: ("negative_binomial", lambda fn: (fn.concentration, 1 / (1 + fn.rate))),
}


def register_counts(kind: Any, family: str, parameters: Parameters) -> None:
    """Give a class of counts its monotone coupling."""

    def theta(fn: Any) -> list[Tensor]:
        return [parameter.detach().to(float64) for parameter in parameters(fn)]

    def drawn(fn: Any, shape: tuple[int, ...] = (), *, coupling: str | None = None) -> Tensor:
        choose_coupling(fn, coupling)
        return draws.normal(Size(shape) + fn.batch_shape, fn.mean.to(float64))

    def pushed(fn: Any, u: Tensor, *, coupling: str | None = None) -> Tensor:
        choose_coupling(fn, coupling)
        guess = [fn.mean.detach().to(float64), fn.variance.detach().to(float64).sqrt()]
        x = elementwise("quantile", family, [u.to(float64), *guess, *theta(fn)])
        return x.to(fn.mean.dtype)

    def pulled(fn: Any, x: Tensor, *, coupling: str | None = None) -> Tensor:
        choose_coupling(fn, coupling)
        require_support(fn, x)
        high = elementwise("normal_score", family, [x.to(float64), *theta(fn)])
        low = elementwise("normal_score", family, [x.to(float64) - 1, *theta(fn)])
        return truncated_normal(low, high, x)

    couplings.register(kind, lambda fn: ("monotone",))
    noise.register(kind, drawn)
    push.register(kind, pushed)
    pull.register(kind, pulled)


for kind, (family, parameters) in FAMILIES.items():
    register_counts(kind, family, parameters)
