"""Restricted Boltzmann machine: binary cells and binary hidden units, joined in pairs.

p(x, h) = exp(x^T b + h^T c + h^T W x) / Z, so that p(x) = exp(-F(x)) / Z with the free energy
F(x) = -b^T x - sum_j softplus(c_j + W_j x) (Smolensky 1986). Z is a sum over 2^min(visible, hidden)
states; training does without it, by contrastive divergence (Hinton 2002, eq. 5).
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import constraints

from pgm.batch import SEEN, Batch, rows_of
from pgm.evaluation.annealing import LogPartition, anneal
from pgm.families import Example
from pgm.model import Model, rows
from pgm.objectives import objective
from pgm.randomness import seeded
from pgm.verb import Unsupported
from pgm.verbs import Imputation, LogProb, decode, impute, log_prob, surprise

__all__ = ["RBM", "example", "log_partition"]

ENUMERABLE = 16
"""The most units of the smaller layer over whose states Z is summed."""

_AT_ONCE = 2**12


class RBM(Model):
    """A restricted Boltzmann machine over binary rows (Smolensky 1986; Hinton 2002).

    F(x) = -b^T x - sum_j softplus(c_j + W_j x), p(x) = exp(-F(x)) / Z. The site "x" of the program
    has the log density -F(x), without Z: bounds computed from the program are off by log Z, and
    the verb `log_prob` supplies it. Draws of "x" are the ends of Gibbs chains of `sweeps` sweeps,
    which are the model's own only once the chains have mixed.

    Args:
        visible: cells of a row, each 0 or 1.
        hidden: hidden units.
        cd_steps: k of CD-k, the sweeps by which training contrasts a row with the model.
        sweeps: of the chains behind `sample` and `impute`.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> model = RBM(visible=4, hidden=2)
        >>> with torch.no_grad():
        ...     print(model.weight.zero_().shape)
        torch.Size([2, 4])
        >>> x = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
        >>> surprise(model, x)
        tensor([-1.3863])
        >>> print(log_partition(model))
        log Z = 4.159 ± 0.000 nats (exact)
        >>> print(log_prob(model, x))
        log p = -2.773 ± 0.000 nats a row (exact, 1 rows)
    """

    def __init__(self, visible: int, hidden: int, *, cd_steps: int = 1, sweeps: int = 1000) -> None:
        super().__init__()
        _check_sizes(visible=visible, hidden=hidden, cd_steps=cd_steps, sweeps=sweeps)
        self.visible, self.hidden, self.cd_steps, self.sweeps = visible, hidden, cd_steps, sweeps
        self.weight = nn.Parameter(0.01 * torch.randn(hidden, visible))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    def model(self, n: int) -> None:
        """x ~ exp(-F(x)) / Z, then h | x, which together are the joint density of both layers."""
        with rows(n):
            x = pyro.sample("x", Boltzmann(self, n))
            pyro.sample("h", dist.Bernoulli(logits=self.hidden_logits(x)).to_event(1))

    def guide(self, n: int, x: Tensor, x_seen: Tensor | None = None) -> None:
        """The exact posterior p(h | x) = prod_j Bernoulli(h_j | sigmoid(c_j + W_j x))."""
        if x_seen is not None:
            raise Unsupported(_MISSING)
        with rows(n):
            pyro.sample("h", dist.Bernoulli(logits=self.hidden_logits(x)).to_event(1))

    def free_energy(self, x: Float[Tensor, "*n visible"]) -> Float[Tensor, "*n"]:
        """F(x) = -log sum_h exp(x^T b + h^T c + h^T W x), in nats."""
        return -(x @ self.visible_bias + nn.functional.softplus(self.hidden_logits(x)).sum(-1))

    def hidden_logits(self, x: Float[Tensor, "*n visible"]) -> Float[Tensor, "*n hidden"]:
        """The log odds of each hidden unit given the cells."""
        return nn.functional.linear(x, self.weight, self.hidden_bias)

    def visible_logits(self, h: Float[Tensor, "*n hidden"]) -> Float[Tensor, "*n visible"]:
        """The log odds of each cell given the hidden units."""
        return nn.functional.linear(h, self.weight.T, self.visible_bias)


class Boltzmann(dist.TorchDistribution):
    """p(x) = exp(-F(x)) / Z for n rows: log densities without log Z, draws by Gibbs sampling."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, rbm: RBM, n: int, *, validate_args: bool | None = None) -> None:
        self.rbm = rbm
        super().__init__(torch.Size([n]), torch.Size([rbm.visible]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Boltzmann":
        """The same density for another number of rows."""
        return Boltzmann(self.rbm, *batch_shape, validate_args=self._validate_args)

    def log_prob(self, x: Tensor) -> Tensor:
        """-F(x), and -inf where a cell is neither 0 nor 1."""
        if self._validate_args:
            _check_binary(x)
        binary = ((x == 0) | (x == 1)).all(-1)
        return torch.where(binary, -self.rbm.free_energy(x), -torch.inf)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """The ends of independent chains."""
        shape = self._extended_shape(sample_shape)
        start = self.rbm.visible_bias.detach().sigmoid().expand(shape)
        return gibbs(self.rbm, torch.bernoulli(start), self.rbm.sweeps)


@torch.no_grad()
def gibbs(
    model: RBM,
    x: Float[Tensor, "*n visible"],
    sweeps: int,
    *,
    beta: float = 1.0,
    clamp: tuple[Tensor, Tensor] | None = None,
) -> Float[Tensor, "*n visible"]:
    """Sweeps over h | x and x | h, which leave exp(x^T b) prod_j (1 + exp(beta (c_j + W_j x))).

    Args:
        model: the machine.
        x: where the chains start.
        sweeps: how many.
        beta: inverse temperature of all but the visible biases; 1 for the model itself.
        clamp: (seen, values), the cells to hold fixed.
    """
    W, b, c = beta * model.weight, model.visible_bias, beta * model.hidden_bias
    for _ in range(sweeps):
        h = torch.bernoulli(torch.sigmoid(x @ W.T + c))
        x = torch.bernoulli(torch.sigmoid(h @ W + b))
        if clamp is not None:
            x = torch.where(*clamp, x)
    return x


def log_partition(
    model: RBM,
    *,
    method: Literal["enumeration", "annealing"] | None = None,
    particles: int = 100,
    temperatures: int = 1000,
    seed: int | None = None,
) -> LogPartition:
    """log Z: summed over the smaller layer's states, or by annealed importance sampling.

    The walk starts at independent cells with the model's visible biases and brings in W and c
    (Salakhutdinov & Murray 2008, Sec. 4.1).

    Args:
        model: the machine.
        method: by default "enumeration" where a layer has at most 16 units, else "annealing".
        particles: of the annealing.
        temperatures: of the annealing.
        seed: of the annealing.

    Raises:
        ValueError: enumeration of a machine whose smaller layer has more than 24 units.

    Example:
        >>> model = RBM(4, 2)
        >>> exact = log_partition(model)
        >>> found = log_partition(model, method="annealing", temperatures=100, seed=0)
        >>> abs(found.value - exact.value) < 4 * found.error + 1e-4
        True
    """
    least = min(model.visible, model.hidden)
    method = method or ("enumeration" if least <= ENUMERABLE else "annealing")
    with torch.no_grad():
        if method == "enumeration":
            return LogPartition(_enumerate(model), 0.0, "exact")
        b, c = model.visible_bias, model.hidden_bias
        log_z0 = model.hidden * math.log(2) + float(nn.functional.softplus(b.double()).sum())

        def log_f(x: Tensor, beta: float) -> Tensor:
            hidden = beta * nn.functional.linear(x, model.weight, c)
            return x @ b + nn.functional.softplus(hidden).sum(-1)

        with seeded(seed):
            x = torch.bernoulli(b.sigmoid().expand(particles, -1))
            move = lambda x, beta: gibbs(model, x, 1, beta=beta)  # noqa: E731
            return anneal(x, log_f, move, log_z0=log_z0, temperatures=temperatures)


def _enumerate(model: RBM) -> float:
    """log Z as the sum over all states of the smaller layer, in double precision."""
    W, b, c = (p.double() for p in (model.weight, model.visible_bias, model.hidden_bias))
    if model.hidden > model.visible:
        W, b, c = W.T, c, b
    units = len(c)
    if units > 24:
        raise ValueError(
            f"Enumeration would sum over 2^{units} states. Use method='annealing', or a machine "
            f"with a layer of at most {ENUMERABLE} units."
        )
    index = torch.arange(2**units, device=W.device)
    pieces = []
    for piece in index.split(_AT_ONCE):
        h = (piece[:, None] >> torch.arange(units, device=W.device) & 1).double()
        log_f = h @ c + nn.functional.softplus(h @ W + b).sum(-1)
        pieces.append(log_f.logsumexp(0))
    return float(torch.stack(pieces).logsumexp(0))


@objective.register(RBM)
def _contrast(model: RBM, batch: Batch, *, size: int | None = None) -> Tensor:
    """CD-k: F(x) - F(x_k), x_k the end of a chain from x that is taken as given (Hinton 2002).

    Its gradient is that of -log p(x) as k grows; its value is a contrast, no bound of anything.
    """
    x = _cells(model, batch)
    x_k = gibbs(model, x, model.cd_steps)
    log_f = Boltzmann(model, len(x), validate_args=False).log_prob
    return log_f(x_k) - log_f(x)


@log_prob.register(RBM)
def _log_prob(
    model: RBM, batch: Batch, *, particles: int = 100, temperatures: int = 1000
) -> LogProb:
    """-F(x) - log Z; where log Z is estimated, its error is common to all rows."""
    energy = model.free_energy(_binary(model, batch))
    log_z = log_partition(model, particles=particles, temperatures=temperatures)
    return LogProb(-energy - log_z.value, torch.full_like(energy, log_z.error), log_z.kind)


@surprise.register(RBM)
def _surprise(model: RBM, batch: Batch, *, particles: int = 100) -> Tensor:
    """The free energy: -log p(x) less log Z, which is the same for all rows of this model."""
    return model.free_energy(_binary(model, batch))


@decode.register(RBM)
def _decode(model: RBM, z: Any, *, context: Any = None) -> Batch:
    """p(x = 1 | h) of every cell; probabilities of h stand for h as in a mean field."""
    codes = dict(z) if isinstance(z, Mapping) else {"h": z}
    if set(codes) != {"h"}:
        raise ValueError(
            f"Codes for {', '.join(map(repr, codes)) or 'no site'} came; an RBM has one latent "
            f"site, 'h', of shape (n, {model.hidden})."
        )
    h = torch.as_tensor(codes["h"]).to(model.device, model.dtype)
    return Batch(x=model.visible_logits(h).sigmoid())


@impute.register(RBM)
def _impute(
    model: RBM, batch: Batch, *, draws: int = 5, particles: int = 200, sweeps: int | None = None
) -> Imputation:
    """Gibbs sampling of the missing cells with the seen ones held fixed, a chain a completion.

    Draws are the ends of finite chains (`sweeps`, by default the model's): they follow p(missing |
    seen) as far as the chains have mixed. There are no particles to weigh; `ess` counts the chains.
    """
    x, seen = _cells(model, batch, missing=True), batch.get("x" + SEEN)
    seen = torch.ones_like(x, dtype=torch.bool) if seen is None else seen
    _check_binary(x.masked_fill(~seen, 0.0))
    x, seen = x.expand(draws, *x.shape), seen.expand(draws, *seen.shape)
    start = torch.where(seen, x, torch.bernoulli(torch.full_like(x, 0.5)))
    done = gibbs(model, start, model.sweeps if sweeps is None else sweeps, clamp=(seen, x))
    return Imputation(Batch(x=done), torch.full((rows_of(batch),), float(draws)))


_MISSING = (
    "Cells of 'x' are missing, and the density and the codes of an RBM are those of whole rows. "
    "Use pgm.impute to complete the rows by Gibbs sampling, and ask again of each completion."
)


def _cells(model: RBM, batch: Batch, *, missing: bool = False) -> Tensor:
    """The rows of a batch that holds them, and nothing else, in the shape of the model."""
    unknown = [key for key in batch if key not in ("x", "x" + SEEN)]
    if unknown or "x" not in batch:
        raise ValueError(
            f"The batch has {', '.join(map(repr, batch))}; an RBM has one observed site, 'x'. "
            "Rename the key, or leave it out."
        )
    if "x" + SEEN in batch and not missing:
        raise Unsupported(_MISSING)
    x = batch["x"]
    if x.shape[1:] != (model.visible,):
        raise ValueError(
            f"Data for 'x' have shape {tuple(x.shape)}, but the machine has {model.visible} "
            f"visible units: pass (n, {model.visible})."
        )
    return x.to(model.dtype)


def _binary(model: RBM, batch: Batch) -> Tensor:
    x = _cells(model, batch)
    _check_binary(x)
    return x


def _check_binary(x: Tensor) -> None:
    if not bool(((x == 0) | (x == 1)).all()):
        other = x[(x != 0) & (x != 1)][0]
        raise ValueError(
            f"A cell is {float(other):g}, but a cell of an RBM is 0 or 1: anything else has "
            "probability zero. Binarise the data first, such as x > threshold."
        )


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it counts from 1.")


def _bars_and_stripes(side: int) -> Float[Tensor, "n cells"]:
    """All images of full rows or of full columns (MacKay 2003, Sec. 43.2), 2^(side + 1) - 2."""
    lines = torch.tensor(list(itertools.product([0.0, 1.0], repeat=side)))
    stripes = lines[:, :, None].expand(-1, -1, side)
    return torch.cat([stripes, stripes.mT]).flatten(1).unique(dim=0)


def example() -> Example:
    """Bars and stripes of 4 x 4 cells: 30 images out of 65536."""
    return Example(
        RBM(visible=16, hidden=16, cd_steps=10, sweeps=200),
        _bars_and_stripes(4).repeat(10, 1),
        fit={"steps": 400, "batch_size": 100, "learning_rate": 0.1, "schedule": "cosine"},
        discrete=True,
        loss_falls=False,
        bound_applies=False,
    )
