"""What training minimises: a loss for every row, in nats.

The generic objective is the negative evidence lower bound of each row, -E[log p(x, z) - log q(z|x)]
(Kingma & Welling 2014, eq. 3), estimated from one draw; the terms of shared sites enter as one N-th
in each of the N rows. Draws without a reparameterised gradient get the score-function term
(Ranganath et al. 2014, eq. 2), whose value is zero. A family registers its surrogate.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import Batch, repeat, rows_of
from pgm.model import Model
from pgm.verb import verb
from pgm.weights import log_weight


@runtime_checkable
class Objective(Protocol):
    """A loss by row: the verb `objective`, or an object such as `IWAE(8)`."""

    def __call__(self, model: Model, batch: Batch, *, size: int) -> Tensor:
        """The loss of every row in nats, differentiable, shape (n,)."""


@verb(grad=True)
def objective(model: Model, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """The loss of every row, in nats: what `fit` minimises.

    Args:
        model: any model.
        batch: the rows of a minibatch.
        size: the number N of rows of the whole data, of which shared terms take one N-th a row;
            by default the rows of `batch` are all there are.

    Returns:
        Losses, shape (n,); their mean is an estimate of the loss of the whole data over N.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import torch
        >>> from pgm.families.kde import KDE
        >>> model = KDE(torch.tensor([[-1.0], [1.0]]), bandwidth=1.0)
        >>> objective(model, torch.tensor([[0.0]]))
        tensor([1.4189], grad_fn=<NegBackward0>)
    """
    weight = log_weight(model, batch)
    return _loss(
        weight.rows,
        weight.shared / _checked(size, rows_of(batch)),
        score_rows=weight.score_rows,
        score_shared=weight.score_shared,
    )


@dataclass(frozen=True)
class IWAE:
    """The importance-weighted bound with K particles (Burda, Grosse & Salakhutdinov 2016, eq. 8).

    All particles of a row share one draw of the shared sites, whose terms enter as in the evidence
    lower bound: with one draw a particle, the rows would be bounded one by one, as if each had
    shared sites of its own, and their sum could pass the evidence of the data. Draws without a
    reparameterised gradient get the score-function term of the whole bound (Mnih & Rezende 2016,
    eq. 5).

    Attributes:
        particles: K; with 1 it is the evidence lower bound.

    Example:
        >>> import torch
        >>> from pgm.families.factor import PPCA
        >>> IWAE(8)(PPCA(3, 1), Batch(x=torch.zeros(2, 3)), size=2).shape
        torch.Size([2])
    """

    particles: int

    def __post_init__(self) -> None:
        if self.particles < 1:
            raise ValueError(f"particles is {self.particles}; the bound is a mean over 1 or more.")

    def __call__(self, model: Model, batch: Batch, *, size: int) -> Float[Tensor, " n"]:
        """The loss of every row in nats."""
        K, n = self.particles, rows_of(batch)
        weight = log_weight(model, repeat(batch, K))
        rows = weight.rows.reshape(K, n).logsumexp(0) - math.log(K)
        return _loss(
            rows,
            weight.shared / _checked(size, n),
            score_rows=weight.score_rows.reshape(K, n).sum(0),
            score_shared=weight.score_shared,
        )


def public(term: Tensor) -> Tensor:
    """Marks a term of a loss by row that no row enters; returns it, or zeros under `parted`.

    What stands outside `rows`, and the draws of a generator, say nothing of the data: a private fit
    takes their gradient as it is, and clips and noises the rest.

    Args:
        term: one number for each row, shape (n,), or one for all, shape ().
    """
    if not _parted:
        return term
    _parted[-1].append(term.mean())
    return torch.zeros_like(term)


@contextmanager
def parted() -> Iterator[list[Tensor]]:
    """Takes the public terms out of the losses that are computed within the block.

    Yields:
        The terms taken out, each a mean over the rows: the mean loss is that of what is left plus
        their sum.

    Example:
        >>> with parted() as terms:
        ...     loss = torch.ones(2) + public(torch.tensor([2.0, 4.0]))
        >>> loss, terms
        (tensor([1., 1.]), [tensor(3.)])
    """
    _parted.append([])
    try:
        yield _parted[-1]
    finally:
        _parted.pop()


_parted: list[list[Tensor]] = []


def _loss(rows: Tensor, shared: Tensor, *, score_rows: Tensor, score_shared: Tensor) -> Tensor:
    """Minus the bound of each row; the terms that only shared draws enter are public."""
    own = _with_score(rows, score_rows + score_shared)
    return -own + public(-_with_score(shared, score_shared))


def _with_score(bound: Tensor, score: Tensor) -> Tensor:
    """Adds the score-function gradient, whose value is zero."""
    if not score.requires_grad:
        return bound
    return bound + (score - score.detach()) * bound.detach()


def _checked(size: int | None, n: int) -> int:
    if size is not None and size < 1:
        raise ValueError(
            f"size is {size}; it is the number of rows of the whole data, of which shared terms "
            "take one part a row."
        )
    return n if size is None else size
