"""MADE: the masked autoencoder for distribution estimation, an autoregression in one pass.

    p(x) = prod_i p(x_i | x_{<i}),    logits_i = V_i h(x_{<i}) + A_i x_{<i} + c_i

(Germain, Gregor, Murray & Larochelle 2015, eq. 1, 7-13: masks on the weights keep logits_i from
every cell that does not come before i; A are the direct connections of eq. 14.) A density costs one
pass of the network, a sample one pass a cell. The whole row is ONE site with a distribution of its
own: a chain of one site a cell would pay for the network at every cell.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float, Int, Shaped
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from pgm.batch import SEEN, Batch, cells, chunks, rows_of
from pgm.data import load
from pgm.families import Example
from pgm.model import Model, rows
from pgm.nets import Activation, checks_kept, nonlinearity
from pgm.verbs.coding import decode, encode
from pgm.verbs.imputation import Imputation, impute

with checks_kept():
    from zuko.nn import MaskedLinear, MaskedMLP

__all__ = ["MADE", "Autoregressive", "example"]

Ordering = Literal["natural", "random"] | Sequence[int]
"""In which order the cells are drawn: as they stand, shuffled by a seed, or as listed."""

_AT_ONCE = 2**13


class MADE(Model):
    """A masked autoregression over cells with a few levels each (Germain et al. 2015).

    Args:
        features: d, the cells of a row, at least 2.
        levels: values of a cell, 0 .. levels - 1; with 2 a cell is Bernoulli, else categorical. The
            levels are read as numbers, so that neighbouring grey levels say nearly the same.
        hidden: sizes of the masked hidden layers.
        ordering: "natural", "random" (a permutation drawn from `seed`), or the cells as listed.
        seed: of a random ordering.
        activation: nonlinearity of the network.
        dropout: share of hidden units silenced in training.

    Raises:
        ValueError: fewer than 2 features or levels, or an ordering that is no permutation.

    Example:
        >>> import pgm
        >>> model = MADE(3, levels=2, hidden=(16,))
        >>> every = torch.cartesian_prod(*[torch.arange(2.0)] * 3)
        >>> pgm.log_prob(model, every).value.exp().sum()
        tensor(1.0000)
    """

    order: Int[Tensor, " d"]

    def __init__(
        self,
        features: int,
        *,
        levels: int = 2,
        hidden: Sequence[int] = (500,),
        ordering: Ordering = "natural",
        seed: int = 0,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        order = _order(features, levels, hidden, ordering, seed)
        self.features, self.levels = features, levels
        self.register_buffer("order", order)
        rank = order.argsort()
        before = rank[:, None] > rank
        earlier = before.repeat_interleave(1 if levels == 2 else levels, 0)
        self.net = MaskedMLP(
            earlier, hidden, activation=lambda: nn.Sequential(*nonlinearity(activation, dropout))
        )
        self.direct = MaskedLinear(earlier, bias=False)
        nn.init.zeros_(self.direct.weight)

    def model(self, n: int) -> None:
        """x_i ~ p(x_i | x_{<i}), all cells in one site."""
        with rows(n):
            pyro.sample("x", Autoregressive(self.logits, self.cells, self.order, self._support))

    def logits(self, x: Shaped[Tensor, "*n d"]) -> Float[Tensor, "*n d k"]:
        """The logits of every cell given the cells before it; k is 1 for two levels."""
        scaled = x.to(self.direct.weight.dtype) / (self.levels - 1)
        out: Tensor = self.net(scaled) + self.direct(scaled)
        return out.unflatten(-1, (self.features, -1))

    def cells(self, logits: Float[Tensor, "*n k"]) -> Any:
        """The distribution of cells with these logits; batch shape (*n,)."""
        if self.levels == 2:
            return dist.Bernoulli(logits=logits.squeeze(-1))
        return dist.Categorical(logits=logits)

    @property
    def _support(self) -> constraints.Constraint:
        if self.levels == 2:
            return constraints.boolean
        return constraints.integer_interval(0, self.levels - 1)


class Autoregressive(TorchDistribution):
    """The distribution of a row whose cells are drawn one after the other.

    Args:
        logits: from rows (..., d) to the parameters (..., d, k) of every cell given those before.
        cells: from parameters (..., k) to distributions of cells with batch shape (...).
        order: the cells as they are drawn.
        support: of one cell.
        batch_shape: as of any distribution.

    Example:
        >>> independent = Autoregressive(
        ...     lambda x: torch.zeros(*x.shape, 1),
        ...     lambda logits: dist.Bernoulli(logits=logits.squeeze(-1)),
        ...     torch.arange(2),
        ... )
        >>> independent.log_prob(torch.ones(2))
        tensor(-1.3863)
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch reads it from the class)

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        cells: Callable[[Tensor], Any],
        order: Int[Tensor, " d"],
        support: constraints.Constraint = constraints.boolean,
        *,
        batch_shape: Sequence[int] = (),
    ) -> None:
        self.logits, self.cells, self.order, self.cell_support = logits, cells, order, support
        super().__init__(Size(batch_shape), order.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Rows of cells."""
        return constraints.independent(self.cell_support, 1)

    def log_prob(self, x: Shaped[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """log p(x) = sum_i log p(x_i | x_{<i}): one pass; -inf where a cell is no level."""
        level = self.cell_support.check(x)
        logits = self.logits(torch.where(level, x, 0))
        cells = self.cells(logits)
        if cells._validate_args:
            _check_levels(x, self.cell_support)
        log_prob: Tensor = cells.log_prob(torch.where(level, x, 0).to(logits.dtype)).sum(-1)
        log_prob = torch.where(level.all(-1), log_prob, -torch.inf)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = Size()) -> Shaped[Tensor, "*n d"]:
        """A row, cell by cell: d passes."""
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        x = self.order.new_zeros(shape)
        with torch.no_grad():
            for i in self.order.tolist():
                x = _put(x, i, self.cells(self.logits(x)[..., i, :]).sample())
        return x

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Autoregressive":
        """The same distribution for each of a batch of rows."""
        return Autoregressive(
            self.logits, self.cells, self.order, self.cell_support, batch_shape=batch_shape
        )


@impute.register(MADE)
def _impute(model: MADE, batch: Batch, *, draws: int = 5, particles: int = 200) -> Imputation:
    """Sequential importance resampling in the order of the autoregression (Gordon et al. 1993).

    Cell after cell, a missing one is drawn from p(x_i | x_{<i}) and a seen one weighs the particles
    by it. Exact when all missing cells come after the seen ones, else in the limit of particles.
    """
    x, seen = cells(batch, "x", (model.features,))
    _check_levels(x if seen is None else x.masked_fill(~seen, 0), model._support)
    pieces = [
        _complete(model, piece, draws, particles)
        for piece in chunks(batch, max(1, _AT_ONCE // particles))
    ]
    completed, ess = zip(*pieces, strict=True)
    return Imputation(Batch(x=torch.cat(completed, 1)), torch.cat(ess))


for verb in (encode, decode):
    verb.refuse(
        MADE,
        "it has no latent code: a row is drawn cell by cell, each given the cells before it. Use a "
        "model with latents, such as pgm.families.vae.VAE or pgm.families.flow.SplineFlow.",
    )


def _complete(
    model: MADE, batch: Batch, draws: int, particles: int
) -> tuple[Shaped[Tensor, "draws n d"], Float[Tensor, " n"]]:
    """Completions of the rows, and the effective number of particles behind them."""
    n = rows_of(batch)
    seen = batch.get("x" + SEEN, torch.ones_like(batch["x"], dtype=torch.bool))
    x = batch["x"].masked_fill(~seen, 0).repeat(particles, 1, 1)
    log_w = torch.zeros(particles, n, device=x.device)
    lineage = torch.arange(particles, device=x.device)[:, None].expand(particles, n)
    order = model.order.tolist()
    missing = [at for at, i in enumerate(order) if not bool(seen[:, i].all())]
    weighed = 0
    for at in missing:
        i = order[at]
        logits = model.logits(x)
        log_w = log_w + _evidence(model, logits, x, seen, order[weighed:at])
        weighed = at
        x, logits, log_w, lineage = _resample(x, logits[..., i, :], log_w, lineage)
        draw = model.cells(logits).sample().to(x.dtype)
        x = _put(x, i, torch.where(seen[:, i], x[..., i], draw))
    log_w = log_w + _evidence(model, model.logits(x), x, seen, order[weighed:])
    w = log_w.softmax(0)
    chosen = torch.multinomial(w.T, draws, replacement=True).T
    founders = torch.zeros_like(w).scatter_add(0, lineage, w)
    return x[chosen, torch.arange(n, device=x.device)], 1 / founders.square().sum(0)


def _evidence(
    model: MADE,
    logits: Float[Tensor, "particles n d k"],
    x: Shaped[Tensor, "particles n d"],
    seen: Bool[Tensor, "n d"],
    cells: list[int],
) -> Float[Tensor, "particles n"]:
    """log p of those of the cells that were seen, given what comes before them."""
    if not cells:
        return logits.new_zeros(x.shape[:-1])
    log_prob = model.cells(logits[..., cells, :]).log_prob(x[..., cells])
    total: Tensor = torch.where(seen[:, cells], log_prob, 0.0).sum(-1)
    return total


def _resample(
    x: Shaped[Tensor, "particles n d"],
    logits: Float[Tensor, "particles n k"],
    log_w: Float[Tensor, "particles n"],
    lineage: Int[Tensor, "particles n"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draws particles anew by their weights in the rows where fewer than half are effective."""
    w = log_w.softmax(0)
    particles, n = w.shape
    poor = 1 / w.square().sum(0) < particles / 2
    anew = torch.multinomial(w.T, particles, replacement=True).T
    index = torch.where(poor, anew, torch.arange(particles, device=w.device)[:, None])
    row = torch.arange(n, device=w.device)
    return x[index, row], logits[index, row], log_w.masked_fill(poor, 0.0), lineage[index, row]


def _put(x: Tensor, i: int, cell: Tensor) -> Tensor:
    """x with cell i replaced, out of place."""
    here = torch.arange(x.shape[-1], device=x.device) == i
    return torch.where(here, cell.unsqueeze(-1).to(x.dtype), x)


def _check_levels(x: Tensor, support: Any) -> None:
    level = support.check(x)
    if not bool(level.all()):
        top = 1 if support is constraints.boolean else support.upper_bound
        raise ValueError(
            f"A cell holds {float(x[~level][0]):g}, but the model knows the levels 0 .. {top}: a "
            "value between or beyond them has probability zero. Round and shift the data, or "
            "build the model with levels= as many as there are."
        )


def _order(
    features: int, levels: int, hidden: Sequence[int], ordering: Ordering, seed: int
) -> Tensor:
    """The cells as they are drawn."""
    if features < 2 or levels < 2:
        raise ValueError(
            f"features is {features} and levels {levels}; an autoregression takes at least two "
            "cells of at least two levels."
        )
    if not hidden or min(hidden) < 1:
        raise ValueError(
            f"hidden is {tuple(hidden)}; give at least one layer of at least one unit."
        )
    if ordering == "natural":
        return torch.arange(features)
    if ordering == "random":
        return torch.randperm(features, generator=torch.Generator().manual_seed(seed))
    if sorted(ordering) != list(range(features)):
        raise ValueError(
            f"ordering is {ordering!r}; it is 'natural', 'random', or each of the cells 0 .. "
            f"{features - 1} once, in the order in which they are drawn."
        )
    return torch.tensor(list(ordering))


def example() -> Example:
    """Digits of 4 x 4 cells, light or dark."""
    pixels = load("digits").train.x.reshape(-1, 1, 8, 8)
    x = (nn.functional.avg_pool2d(pixels, 2) >= 8).flatten(1).float()
    return Example(MADE(16, hidden=(64,)), x, {"epochs": 30, "learning_rate": 3e-3}, discrete=True)
