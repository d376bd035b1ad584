"""Shifts: what a site becomes as a function of what it would have been, x = f(v, parents).

v is the natural value, drawn from the site's own mechanism; such modified treatment policies
(Haneuse & Rotnitzky 2013) ask what a little more of a dose does without setting it for everyone.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pyro.distributions import TorchDistribution
from torch import Size, Tensor

from pgm import noise
from pgm.verb import Unsupported


class Shifted(TorchDistribution):
    """The law of f(v) with v from a base distribution.

    It can be drawn from and has a noise form, that of the base; it has no density.

    Args:
        base_dist: the law of the natural value.
        change: f, a function of the value alone; the parents are bound in it.
        site: the name of the site, for messages.

    Example:
        >>> import torch
        >>> from pyro.distributions import Normal
        >>> noise.push(Shifted(Normal(1.0, 2.0), lambda v: v + 10, "dose"), torch.tensor(0.5))
        tensor(12.)
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch reads it from the class)

    def __init__(self, base_dist: Any, change: Callable[[Tensor], Tensor], site: str) -> None:
        self.base_dist, self.change, self.site = base_dist, change, site
        self.has_rsample = bool(base_dist.has_rsample)
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the base: a shift gives values that the site can take."""
        return self.base_dist.support

    def sample(self, sample_shape: Sequence[int] = Size()) -> Tensor:
        """f(v)."""
        return self.change(self.base_dist.sample(Size(sample_shape)))

    def rsample(self, sample_shape: Sequence[int] = Size()) -> Tensor:
        """f(v), with gradients."""
        return self.change(self.base_dist.rsample(Size(sample_shape)))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Shifted":
        """The same shift for each of a batch."""
        return Shifted(self.base_dist.expand(Size(batch_shape)), self.change, self.site)

    def log_prob(self, value: Tensor) -> Tensor:
        """Refused: the density of f(v) is not known from f."""
        raise Unsupported(
            f"Site {self.site!r} is shifted, x = f(v), and the density of what it became is not "
            "known from a function. Leave the site out of the batch: it is then drawn."
        )


@noise.noise.register(Shifted)
def _noise(fn: Any, shape: tuple[int, ...] = (), *, coupling: str | None = None) -> Any:
    return noise.noise(fn.base_dist, shape, coupling=coupling)


@noise.push.register(Shifted)
def _push(fn: Any, u: Any, *, coupling: str | None = None) -> Tensor:
    return fn.change(noise.push(fn.base_dist, u, coupling=coupling))


@noise.couplings.register(Shifted)
def _couplings(fn: Any) -> tuple[str, ...]:
    return noise.couplings(fn.base_dist)


@noise.pull.register(Shifted)
def _pull(fn: Any, x: Tensor, *, coupling: str | None = None) -> Any:
    raise Unsupported(
        f"Site {fn.site!r} was shifted when the evidence came about: what it would have been, and "
        "so its noise, is not known. Ask about rows in which it was left alone."
    )
