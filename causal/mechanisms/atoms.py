"""Finitely many numbers with probabilities, as a distribution whose noise form is the quantile."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from pgm.noise import Noise, couplings, draws, noise, pull, push
from pgm.noise.discrete import truncated_normal
from pgm.noise.form import choose_coupling, require


class Atoms(TorchDistribution):
    """One of m numbers; its density is the probability of each, a mass function.

    Its noise is one normal score u, and x the smallest atom with F(x) >= Phi(u) (the `monotone`
    coupling).

    Args:
        values: increasing, shape (m,).
        probs: their probabilities, shape (m,).
        batch: the batch shape; draws are independent and alike.

    Example:
        >>> law = Atoms(torch.tensor([1.0, 5.0]), torch.tensor([0.25, 0.75]))
        >>> law.log_prob(torch.tensor([5.0, 2.0])).exp(), law.mean
        (tensor([0.7500, 0.0000]), tensor(4.))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch reads it from the class)
    support = constraints.real
    has_rsample = False

    def __init__(
        self, values: Float[Tensor, " m"], probs: Float[Tensor, " m"], batch: Sequence[int] = ()
    ) -> None:
        self.values, self.probs = values, probs
        super().__init__(Size(batch), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return (self.values * self.probs).sum().expand(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        """The variance."""
        centred = self.values - (self.values * self.probs).sum()
        return (centred.square() * self.probs).sum().expand(self.batch_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Atoms":
        """The same law, drawn as many times."""
        return Atoms(self.values, self.probs, batch_shape)

    def sample(self, sample_shape: Any = ()) -> Float[Tensor, "*n"]:
        """Draws of atoms."""
        shape = Size(sample_shape) + self.batch_shape
        i = torch.multinomial(self.probs, max(shape.numel(), 1), replacement=True)
        return self.values[i[: shape.numel()]].reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log of the probability of the atom; minus infinity where there is none."""
        i, same = place(self, value)
        log_p = self.probs.log()[i].masked_fill(~same, -torch.inf)
        return log_p.expand(torch.broadcast_shapes(value.shape, self.batch_shape))


def place(fn: Any, x: Tensor) -> tuple[Tensor, Bool[Tensor, "*n"]]:
    """The index of the atom at x, and whether there is one."""
    i = torch.searchsorted(fn.values, x.contiguous()).clamp(max=len(fn.values) - 1)
    return i, fn.values[i] == x


def edges(fn: Any) -> Float[Tensor, " edges"]:
    """Phi^-1 of F below the first atom, at it, ..., at the last one, in float64."""
    p = fn.probs.double() / fn.probs.double().sum()
    lower, upper = p.cumsum(0)[:-1], p.flip(0).cumsum(0).flip(0)[1:]
    inner = torch.where(lower < upper, torch.special.ndtri(lower), -torch.special.ndtri(upper))
    end = torch.full_like(p[:1], torch.inf)
    return torch.cat([-end, inner, end])


couplings.register(Atoms, lambda fn: ("monotone",))


@noise.register(Atoms)
def atoms_noise(fn: Any, shape: tuple[int, ...] = (), *, coupling: str | None = None) -> Noise:
    """A normal score."""
    choose_coupling(fn, coupling)
    return draws.normal(Size(shape) + fn.batch_shape, fn.probs.double())


@push.register(Atoms)
def atoms_push(fn: Any, u: Tensor, *, coupling: str | None = None) -> Tensor:
    """The atom of a normal score."""
    choose_coupling(fn, coupling)
    return fn.values[torch.searchsorted(edges(fn)[1:-1], u.double().contiguous())]


@pull.register(Atoms)
def atoms_pull(fn: Any, x: Tensor, *, coupling: str | None = None) -> Noise:
    """A draw of the scores that make an atom."""
    choose_coupling(fn, coupling)
    i, same = place(fn, x)
    require(same, x, "Atoms: pull got a value that is none of the atoms, so it has no noise.")
    cut = edges(fn)
    return truncated_normal(cut[i], cut[i + 1], x)
