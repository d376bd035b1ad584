"""Normal laws with unseen cells: densities, conditional moments and conditional draws.

For x ~ N(mu, Sigma) and the seen cells s of a row,

    x | x_s ~ N(mu + G (x_s - mu_s), Sigma - G Sigma_s.),    G = Sigma_.s Sigma_ss^-1

(Anderson 2003, thm. 2.5.1). Which cells are seen differs from row to row, so nothing is cut out:
Sigma_ss stands in a d x d matrix that is padded by ones, whose Cholesky factor serves every row
at once, inside `torch.func.vmap` too.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def seen_root(
    Sigma: Float[Tensor, "*#n d d"], seen: Bool[Tensor, "*#n d"]
) -> Float[Tensor, "*n d d"]:
    """The Cholesky factor of M Sigma M + I - M: the seen cells' covariance, padded by ones."""
    mask = seen.to(Sigma.dtype)
    block = mask.unsqueeze(-1) * Sigma * mask.unsqueeze(-2)
    return torch.linalg.cholesky(block + torch.diag_embed(1 - mask))


def whitened(
    gap: Float[Tensor, "*#n d"], seen: Bool[Tensor, "*#n d"], root: Float[Tensor, "*#n d d"]
) -> Float[Tensor, "*n d"]:
    """u = L^-1 (x - mu) of the seen cells, zero at the others: |u|^2 is the squared distance."""
    gap = (gap * seen).unsqueeze(-1)
    return torch.linalg.solve_triangular(root, gap, upper=False).squeeze(-1)


def log_determinant(root: Float[Tensor, "*n d d"]) -> Float[Tensor, "*n"]:
    """log det L, half that of the covariance L L'."""
    return root.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def log_density(
    x: Float[Tensor, "*#n d"],
    seen: Bool[Tensor, "*#n d"],
    mean: Float[Tensor, "*#n d"],
    Sigma: Float[Tensor, "*#n d d"],
) -> Float[Tensor, "*n"]:
    """log N of the seen cells of every row, in nats; zero where none was seen.

    Example:
        >>> x, seen = torch.tensor([[0.0, 7.0]]), torch.tensor([[True, False]])
        >>> log_density(x, seen, torch.zeros(1, 2), torch.eye(2)[None])
        tensor([-0.9189])
    """
    root = seen_root(Sigma, seen)
    squares = whitened(x - mean, seen, root).square().sum(-1)
    return -0.5 * squares - log_determinant(root) - _HALF_LOG_TAU * seen.to(squares.dtype).sum(-1)


def conditional(
    x: Float[Tensor, "*#n d"],
    seen: Bool[Tensor, "*#n d"],
    mean: Float[Tensor, "*#n d"],
    Sigma: Float[Tensor, "*#n d d"],
) -> tuple[Float[Tensor, "*n d"], Float[Tensor, "*n d d"]]:
    """Mean and covariance of all cells given the seen ones, which have no spread left.

    Example:
        >>> Sigma = torch.tensor([[[1.0, 0.8], [0.8, 1.0]]])
        >>> x, seen = torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]])
        >>> conditional(x, seen, torch.zeros(1, 2), Sigma)[0]
        tensor([[1.0000, 0.8000]])
    """
    root = seen_root(Sigma, seen)
    half = torch.linalg.solve_triangular(root, seen.unsqueeze(-1) * Sigma, upper=False)
    u = whitened(x - mean, seen, root)
    at = torch.where(seen, x, mean + (half.mT @ u.unsqueeze(-1)).squeeze(-1))
    open_ = (~seen).to(Sigma.dtype)
    spread = (Sigma - half.mT @ half) * open_.unsqueeze(-1) * open_.unsqueeze(-2)
    return at, spread


def conditional_draw(
    x: Float[Tensor, "*#n d"],
    seen: Bool[Tensor, "*#n d"],
    y: Float[Tensor, "*#n d"],
    Sigma: Float[Tensor, "*#n d d"],
) -> Float[Tensor, "*n d"]:
    """A draw given the seen cells from one y ~ N(mu, Sigma) without them; the seen are as in x.

    y + G (x_s - y_s) (Matheron's rule; Journel & Huijbregts 1978).
    """
    root = seen_root(Sigma, seen)
    gap = torch.cholesky_solve((seen * (x - y)).unsqueeze(-1), root)
    return torch.where(seen, x, y + (Sigma @ (seen.unsqueeze(-1) * gap)).squeeze(-1))


def divergence(
    mean: Float[Tensor, "*n d"],
    Sigma: Float[Tensor, "*n d d"],
    other_mean: Float[Tensor, "*n d"],
    other_Sigma: Float[Tensor, "*n d d"],
) -> Float[Tensor, "*n"]:
    """KL(N(mean, Sigma) || N(other_mean, other_Sigma)) in nats (Murphy 2023, eq. 5.77)."""
    root, other = torch.linalg.cholesky(Sigma), torch.linalg.cholesky(other_Sigma)
    ratio = torch.linalg.solve_triangular(other, root, upper=False).square().sum((-2, -1))
    gap = (other_mean - mean).unsqueeze(-1)
    far = torch.linalg.solve_triangular(other, gap, upper=False).square().sum((-2, -1))
    growth = log_determinant(other) - log_determinant(root)
    return 0.5 * (ratio + far - mean.shape[-1]) + growth
