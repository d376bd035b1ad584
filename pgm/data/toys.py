"""Densities in the plane that are easy to see and hard to fit.

Each set has `x` (n, 2) and `labels` (n,), the part of the shape that each point belongs to. The
shapes are those by which flows are usually compared (Grathwohl et al., FFJORD, 2019), the pinwheel
that of Johnson et al. (2016).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from pgm.data.dataset import Dataset, dataset

LICENCE = "generated"


@dataset(licence=LICENCE, source="two half circles, as scikit-learn's make_moons")
def two_moons(n: int = 1000, *, noise: float = 0.1, seed: int | None = 0) -> Dataset:
    """Two interleaved half circles of radius 1, blurred by Gaussian noise.

    Args:
        n: rows.
        noise: standard deviation of the blur.
        seed: of the draws; None draws from torch's global state.
    """
    generator = _generator(n, noise, seed)
    labels = torch.randint(2, (n,), generator=generator)
    angle = math.pi * torch.rand(n, generator=generator)
    upper = _circle(angle)
    lower = torch.tensor([1.0, 0.5]) - upper
    x = torch.where(labels.unsqueeze(-1) == 0, upper, lower)
    return _blurred(x, labels, noise, generator)


@dataset(licence=LICENCE, source="concentric circles (Grathwohl et al., FFJORD, 2019)")
def rings(n: int = 1000, *, noise: float = 0.08, seed: int | None = 0) -> Dataset:
    """Four concentric circles of radius 0.75, 1.5, 2.25 and 3, each with a quarter of the mass.

    Args:
        n: rows.
        noise: standard deviation of the blur.
        seed: of the draws; None draws from torch's global state.
    """
    generator = _generator(n, noise, seed)
    labels = torch.randint(4, (n,), generator=generator)
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    x = 0.75 * (1 + labels).unsqueeze(-1) * _circle(angle)
    return _blurred(x, labels, noise, generator)


@dataset(licence=LICENCE, source="eight Gaussians (Grathwohl et al., FFJORD, 2019)")
def eight_gaussians(n: int = 1000, *, noise: float = 0.35, seed: int | None = 0) -> Dataset:
    """Eight equal Gaussians around a circle of radius 2 sqrt(2).

    Args:
        n: rows.
        noise: standard deviation of each Gaussian.
        seed: of the draws; None draws from torch's global state.
    """
    generator = _generator(n, noise, seed)
    labels = torch.randint(8, (n,), generator=generator)
    x = math.sqrt(8) * _circle(math.pi / 4 * labels)
    return _blurred(x, labels, noise, generator)


@dataset(licence=LICENCE, source="a checkerboard (Grathwohl et al., FFJORD, 2019)")
def checkerboard(n: int = 1000, *, seed: int | None = 0) -> Dataset:
    """The black squares of a 4 x 4 board over [-4, 4] x [-4, 4]: density 1/32 there, else 0.

    Args:
        n: rows.
        seed: of the draws; None draws from torch's global state.
    """
    generator = _generator(n, 0.0, seed)
    labels = torch.randint(8, (n,), generator=generator)
    column, pair = labels // 2, labels % 2
    corner = torch.stack([column, 2 * pair + column % 2], -1)
    x = 2 * (corner + torch.rand(n, 2, generator=generator)) - 4
    return Dataset({"x": x, "labels": labels})


@dataset(licence=LICENCE, source="M. Johnson et al., Structured VAEs (2016)")
def pinwheel(n: int = 1000, *, arms: int = 5, noise: float = 0.1, seed: int | None = 0) -> Dataset:
    """Arms of a wheel, each a Gaussian bent by turning points the further the farther out.

    Args:
        n: rows.
        arms: how many.
        noise: standard deviation across an arm; it is 0.3 along it.
        seed: of the draws; None draws from torch's global state.
    """
    if arms < 1:
        raise ValueError(f"arms={arms}: a wheel has at least one arm.")
    generator = _generator(n, noise, seed)
    labels = torch.randint(arms, (n,), generator=generator)
    along, across = (torch.tensor([0.3, noise]) * torch.randn(n, 2, generator=generator)).T
    along = 1 + along
    angle = 2 * math.pi / arms * labels + 0.25 * torch.exp(along)
    outward = _circle(angle)
    sideways = torch.stack([-outward[:, 1], outward[:, 0]], -1)
    x = 2 * (along.unsqueeze(-1) * outward + across.unsqueeze(-1) * sideways)
    return Dataset({"x": x, "labels": labels})


def _generator(n: int, noise: float, seed: int | None) -> Generator | None:
    if n < 1:
        raise ValueError(f"n={n}: a set has at least one row.")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise={noise}: a standard deviation is finite and at least 0.")
    return None if seed is None else Generator().manual_seed(seed)


def _circle(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    return torch.stack([angle.cos(), angle.sin()], -1)


def _blurred(
    x: Float[Tensor, "n 2"], labels: Int[Tensor, " n"], noise: float, generator: Generator | None
) -> Dataset:
    return Dataset({"x": x + noise * torch.randn(x.shape, generator=generator), "labels": labels})
