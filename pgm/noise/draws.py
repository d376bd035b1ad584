"""Standard noises, drawn out of place: vmap-safe, from torch's global generator."""

from jaxtyping import Float
from torch import Size, Tensor, finfo, rand, randn


def normal(shape: Size, like: Tensor) -> Float[Tensor, "..."]:
    """N(0, 1) in the dtype and on the device of `like`, as all below.

    Example:
        >>> import torch
        >>> normal(Size((2, 3)), torch.zeros(())).shape
        torch.Size([2, 3])
    """
    return randn(shape, dtype=like.dtype, device=like.device)


def uniform(shape: Size, like: Tensor) -> Float[Tensor, "..."]:
    """U(0, 1), open at both ends.

    `torch.rand` gives multiples of eps / 2, and so 0. A second draw fills in the digits below:
    small values, which make the tails of the noises below, are right to full relative precision.
    """
    eps, tiny = finfo(like.dtype).eps, finfo(like.dtype).tiny
    coarse = rand(shape, dtype=like.dtype, device=like.device)
    fine = rand(shape, dtype=like.dtype, device=like.device)
    return (coarse + fine * (eps / 2)).clamp(tiny, 1 - eps / 2)


def exponential(shape: Size, like: Tensor) -> Float[Tensor, "..."]:
    """Exponential of rate 1."""
    return -(-uniform(shape, like)).log1p()


def gumbel(shape: Size, like: Tensor) -> Float[Tensor, "..."]:
    """Gumbel(0, 1): minus the logarithm of an exponential."""
    return -exponential(shape, like).log()


def laplace(shape: Size, like: Tensor) -> Float[Tensor, "..."]:
    """Laplace(0, 1): the difference of two exponentials."""
    return exponential(shape, like) - exponential(shape, like)


def logistic(shape: Size, like: Tensor) -> Float[Tensor, "..."]:
    """Logistic(0, 1): the difference of two Gumbels."""
    return gumbel(shape, like) - gumbel(shape, like)


def cauchy(shape: Size, like: Tensor) -> Float[Tensor, "..."]:
    """Cauchy(0, 1): the ratio of two normals."""
    return normal(shape, like) / normal(shape, like)


def soft_laplace(shape: Size, like: Tensor) -> Float[Tensor, "..."]:
    """SoftLaplace(0, 1), of density 1 / (pi cosh x): log |Cauchy|."""
    return cauchy(shape, like).abs().log()
