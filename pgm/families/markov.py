"""Pairwise Markov random fields, and the Ising model among them.

    p(x) = 1/Z exp(sum_i u_i(x_i) + sum_ij w_ij(x_i, x_j))

over nodes with K states each (Ising 1925; Besag 1974; Koller & Friedman 2009, Sec. 4.4). Z is
summed exactly by bucket elimination where the graph allows it, which across a lattice is the
transfer matrix (Kramers & Wannier 1941), and estimated by annealed importance sampling elsewhere.
Training climbs the likelihood where Z is at hand, else the pseudo-likelihood (Besag 1975).
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributions import constraints

from pgm.batch import Batch, cells
from pgm.evaluation.annealing import LogPartition, anneal
from pgm.families import Example
from pgm.inference.exact import Factor, Plan, draw
from pgm.inference.exact import log_partition as summed
from pgm.inference.pairwise import (
    check_edges,
    conditionals,
    elimination,
    gibbs,
    lattice,
    pair_score,
)
from pgm.model import Model, rows
from pgm.objectives import objective, public
from pgm.randomness import seeded
from pgm.verb import Unsupported
from pgm.verbs import Imputation, LogProb, impute, log_prob, surprise

__all__ = ["Ising", "MarkovRandomField", "example", "lattice", "log_partition"]

SUMMABLE = 2**21
"""The most cells of all cliques together over which Z is summed in densities and training."""
LARGEST = 2**22
"""The most cells of the largest clique over which `log_partition` sums."""


class MarkovRandomField(Model):
    """A pairwise field over nodes with the same number of states (Besag 1974).

    The site "x", shape (nodes,), holds the state of every node as a code 0 .. K-1. Where Z can be
    summed the density is exact and draws are independent; elsewhere the density of the site is
    without its constant, `log_prob` is refused, and draws are the ends of Gibbs chains, which are
    the model's own only once the chains have mixed.

    Args:
        nodes: how many.
        edges: pairs of nodes, such as `lattice(4, 4)`.
        states: K, of every node.
        sweeps: of the chains behind `sample` and `impute` where Z cannot be summed.

    Attributes:
        unary: u_i(x_i), shape (nodes, K).
        pair: w_ij(x_i, x_j), shape (edges, K, K).

    Raises:
        ValueError: a number below 1, or an edge that is none.

    Example:
        >>> field = MarkovRandomField(3, [(0, 1), (1, 2)], states=2)
        >>> print(log_partition(field))
        log Z = 2.079 ± 0.000 nats (exact)
        >>> print(log_prob(field, torch.tensor([[0, 1, 1]])))
        log p = -2.079 ± 0.000 nats a row (exact, 1 rows)
    """

    def __init__(
        self, nodes: int, edges: Sequence[Sequence[int]], states: int, *, sweeps: int = 1000
    ) -> None:
        super().__init__()
        self.edges = check_edges(nodes, edges)
        _check_counts(nodes=nodes, states=states, sweeps=sweeps)
        self.nodes, self.states, self.sweeps = nodes, states, sweeps
        self._set_potentials()

    def _set_potentials(self) -> None:
        self.unary = nn.Parameter(torch.zeros(self.nodes, self.states))
        self.pair = nn.Parameter(torch.zeros(len(self.edges), self.states, self.states))

    def potentials(self) -> tuple[Float[Tensor, "*n d K"], Float[Tensor, "*n e K K"]]:
        """u and w."""
        return self.unary, self.pair

    def codes(self, x: Tensor) -> tuple[Int[Tensor, "*n d"], Bool[Tensor, "*n d"]]:
        """The states of values, and whether they are any."""
        code = x.clamp(0, self.states - 1).long()
        return code, code == x

    def values(self, codes: Int[Tensor, "*n d"]) -> Tensor:
        """What states look like in the data."""
        return codes

    def model(self, n: int) -> None:
        """x ~ p."""
        with rows(n):
            pyro.sample("x", Field(self, n))

    def factors(self) -> list[Factor]:
        """The potentials as factors over variables "0", "1", ..., for `pgm.inference.exact`."""
        unary, pair = self.potentials()
        found = [Factor((str(i),), unary[..., i, :]) for i in range(self.nodes)]
        for e, (i, j) in enumerate(self.edges):
            found.append(Factor((str(i), str(j)), pair[..., e, :, :]))
        return found

    @property
    def cost(self) -> Plan:
        """What summing over all states takes."""
        return elimination(self.nodes, self.edges, self.states)

    @property
    def summable(self) -> bool:
        """Whether Z is summed in densities and training."""
        return self.cost.cells <= SUMMABLE


class Ising(MarkovRandomField):
    """Spins -1 and 1: p(x) = 1/Z exp(sum_i h_i x_i + sum_ij J_ij x_i x_j) (Ising 1925).

    Args:
        nodes: how many.
        edges: pairs of nodes.
        coupling: J, one for all edges or one each; positive where neighbours align.
        field: h, one for all nodes or one each.
        sweeps: as in `MarkovRandomField`.

    Attributes:
        coupling: J, shape (edges,).
        field: h, shape (nodes,).

    Example:
        >>> print(log_partition(Ising(16, lattice(4, 4), coupling=1.0)))
        log Z = 24.818 ± 0.000 nats (exact)
    """

    def __init__(
        self,
        nodes: int,
        edges: Sequence[Sequence[int]],
        *,
        coupling: Any = 0.0,
        field: Any = 0.0,
        sweeps: int = 1000,
    ) -> None:
        super().__init__(nodes, edges, 2, sweeps=sweeps)
        dtype = torch.get_default_dtype()
        J, h = (torch.as_tensor(v) for v in (coupling, field))
        J, h = (v if v.is_floating_point() else v.to(dtype) for v in (J, h))
        self.coupling = nn.Parameter(_one_each("coupling", J, len(self.edges)))
        self.field = nn.Parameter(_one_each("field", h, nodes))

    def _set_potentials(self) -> None:
        """None: they are made of J and h."""

    def potentials(self) -> tuple[Float[Tensor, "*n d K"], Float[Tensor, "*n e K K"]]:
        """h_i x_i and J_ij x_i x_j."""
        s = self.field.new_tensor([-1.0, 1.0])
        return self.field[..., None] * s, self.coupling[..., None, None] * torch.outer(s, s)

    def codes(self, x: Tensor) -> tuple[Int[Tensor, "*n d"], Bool[Tensor, "*n d"]]:
        """0 for -1 and 1 for 1."""
        return (x > 0).long(), (x == 1) | (x == -1)

    def values(self, codes: Int[Tensor, "*n d"]) -> Tensor:
        """-1 and 1."""
        return (2 * codes - 1).to(self.field.dtype)


class Field(dist.TorchDistribution):
    """p(x) for n rows; without Z, and drawn by Gibbs chains, where Z cannot be summed."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.independent(constraints.real, 1)

    def __init__(
        self, field: MarkovRandomField, n: int, *, validate_args: bool | None = None
    ) -> None:
        self.field = field
        super().__init__(torch.Size([n]), torch.Size([field.nodes]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Field":
        """The same density for another number of rows."""
        return Field(self.field, *batch_shape, validate_args=self._validate_args)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), less log Z where it cannot be summed; -inf where a value is no state."""
        if self._validate_args:
            _check_states(self.field, x)
        value = score(self.field, x)
        return value - summed(self.field.factors()) if self.field.summable else value

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Independent draws, or the ends of independent chains."""
        field = self.field
        shape = self._extended_shape(sample_shape)
        n = math.prod(shape[:-1])
        if field.summable:
            drawn = draw([Factor(f.scope, f.log_value.detach()) for f in field.factors()], n)
            codes = torch.stack([drawn[str(i)][:, 0] for i in range(field.nodes)], -1)
        else:
            unary, pair = field.potentials()
            start = dist.Categorical(logits=unary.detach()).sample((n,))
            codes = gibbs(start, unary, pair, field.edges, field.sweeps)
        return field.values(codes).reshape(shape)


def log_partition(
    model: MarkovRandomField,
    *,
    method: Literal["elimination", "annealing"] | None = None,
    particles: int = 100,
    temperatures: int = 1000,
    seed: int | None = None,
) -> LogPartition:
    """log Z: summed exactly, or by annealed importance sampling from independent nodes.

    Args:
        model: the field.
        method: by default "elimination" where the largest clique has at most 2^22 cells (a lattice
            21 wide of two states), else "annealing".
        particles: of the annealing.
        temperatures: of the annealing, one sweep each.
        seed: of the annealing.

    Raises:
        MemoryError: elimination of a field whose cliques do not fit memory.

    Example:
        >>> field = Ising(16, lattice(4, 4), coupling=0.3)
        >>> exact = log_partition(field)
        >>> found = log_partition(field, method="annealing", temperatures=100, seed=0)
        >>> abs(found.value - exact.value) < 4 * found.error + 1e-4
        True
    """
    method = method or ("elimination" if model.cost.largest <= LARGEST else "annealing")
    with torch.no_grad():
        if method == "elimination":
            factors = [Factor(f.scope, f.log_value.double()) for f in model.factors()]
            return LogPartition(float(summed(factors)), 0.0, "exact")
        unary, pair = (t.double() for t in model.potentials())

        def log_f(codes: Tensor, beta: float) -> Tensor:
            return pair_score(codes, unary, beta * pair, model.edges)

        with seeded(seed):
            start = dist.Categorical(logits=unary).sample((particles,))
            return anneal(
                start,
                log_f,
                lambda codes, beta: gibbs(codes, unary, pair, model.edges, 1, beta=beta),
                log_z0=float(unary.logsumexp(-1).sum()),
                temperatures=temperatures,
            )


_NO_CONSTANT = (
    "its log Z is a sum over the states of all nodes together, in cliques of {cells:,} cells, and "
    "an estimate of it would pass for a density. Use markov.log_partition with method='annealing' "
    "for an estimate with its error, pgm.surprise to compare rows under this model, or a graph "
    "with fewer loops."
)


def _needs_constant(model: MarkovRandomField) -> str | None:
    return None if model.summable else _NO_CONSTANT.format(cells=model.cost.cells)


@log_prob.register(MarkovRandomField, needs=_needs_constant)
def _log_prob(model: MarkovRandomField, batch: Batch, *, particles: int = 100) -> LogProb:
    """log p of the cells that were seen, exact."""
    x, seen = cells(batch, "x", (model.nodes,))
    _check_states(model, x, seen)
    value = _log_score(model, x, seen) - summed(model.factors())
    return LogProb(value, torch.zeros_like(value), "exact")


@surprise.register(MarkovRandomField)
def _surprise(model: MarkovRandomField, batch: Batch, *, particles: int = 100) -> Tensor:
    """-log p(x); where Z cannot be summed less log Z, which is the same for all rows."""
    if model.summable:
        return -_log_prob(model, batch).value
    x, seen = cells(batch, "x", (model.nodes,))
    _check_states(model, x, seen)
    return -score(model, _whole(x, seen))


@objective.register(MarkovRandomField)
def _loss(model: MarkovRandomField, batch: Batch, *, size: int | None = None) -> Tensor:
    """-log p(x), exact; where Z cannot be summed the negative log pseudo-likelihood (Besag 1975).

    The latter, -sum_i log p(x_i | neighbours), has its minimum at the true field as rows grow.
    """
    x, seen = cells(batch, "x", (model.nodes,))
    if model.summable:
        return public(summed(model.factors())[0]) - _log_score(model, x, seen)
    code, valid = model.codes(_whole(x, seen))
    logits = conditionals(code, *model.potentials(), model.edges)
    each = logits.log_softmax(-1).gather(-1, code[..., None])[..., 0]
    return -torch.where(valid, each, -torch.inf).sum(-1)


@impute.register(MarkovRandomField)
def _impute(
    model: MarkovRandomField, batch: Batch, *, draws: int = 5, particles: int = 200
) -> Imputation:
    """Exact joint draws given the seen cells; by Gibbs chains of `sweeps` where Z is not summed.

    There are no particles to weigh: `ess` counts them where draws are exact, chains elsewhere.
    """
    x, seen = cells(batch, "x", (model.nodes,))
    seen = torch.ones_like(x, dtype=torch.bool) if seen is None else seen
    _check_states(model, x, seen)
    code, _ = model.codes(x)
    if model.summable:
        drawn = draw(model.factors(), draws, _evidence(code, seen))
        codes = torch.stack([drawn[str(i)] for i in range(model.nodes)], -1)
    else:
        unary, pair = model.potentials()
        start = dist.Categorical(logits=unary).sample((draws * len(x),))
        clamp = seen.repeat(draws, 1), code.repeat(draws, 1)
        start = torch.where(*clamp, start)
        ends = gibbs(start, unary, pair, model.edges, model.sweeps, clamp=clamp)
        codes = ends.reshape(draws, *code.shape)
    count = float(particles if model.summable else draws)
    return Imputation(Batch(x=model.values(codes)), torch.full((len(x),), count))


def example() -> Example:
    """A Potts model of three states on a 3 x 3 lattice, from 300 draws of one that aligns."""
    true = MarkovRandomField(9, lattice(3, 3), states=3)
    with torch.no_grad(), seeded(0):
        true.pair.copy_(torch.eye(3).expand(12, 3, 3))
        x = Field(true, 300).sample()
    field = MarkovRandomField(9, lattice(3, 3), states=3)
    return Example(field, x, fit={"steps": 100, "learning_rate": 0.05}, discrete=True)


def score(model: MarkovRandomField, x: Tensor) -> Tensor:
    """sum_i u_i(x_i) + sum_ij w_ij(x_i, x_j) by row: log p(x) + log Z; -inf off the states."""
    code, valid = model.codes(x)
    value = pair_score(code, *model.potentials(), model.edges)
    return torch.where(valid.all(-1), value, -torch.inf)


def _log_score(model: MarkovRandomField, x: Tensor, seen: Tensor | None) -> Tensor:
    """log of the sum of exp(score) over the cells that were not seen."""
    if seen is None:
        return score(model, x)
    code, valid = model.codes(x)
    value = summed(model.factors(), _evidence(code, seen))
    return torch.where((valid | ~seen).all(-1), value, -torch.inf)


def _evidence(code: Tensor, seen: Tensor) -> dict[str, Tensor]:
    columns = {str(i): code[:, i] for i in range(code.shape[1])}
    return columns | {f"{i}_seen": seen[:, i] for i in range(code.shape[1])}


def _whole(x: Tensor, seen: Tensor | None) -> Tensor:
    if seen is not None:
        raise Unsupported(
            "Cells of 'x' are missing, and this field is too densely tied to sum over them. Use "
            "pgm.impute to complete the rows by Gibbs sampling, and ask again of each completion."
        )
    return x


def _check_states(model: MarkovRandomField, x: Tensor, seen: Tensor | None = None) -> None:
    _, valid = model.codes(x)
    bad = x[~valid if seen is None else ~valid & seen]
    if len(bad):
        states = model.values(torch.arange(model.states)).tolist()
        raise ValueError(
            f"A cell of 'x' is {float(bad[0]):g}, but a node is in one of the states "
            f"{states[0]} .. {states[-1]}; anything else has probability zero."
        )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; it counts from 1.")


def _one_each(name: str, value: Tensor, count: int) -> Tensor:
    if value.dim() > 1 or value.numel() not in (1, count):
        raise ValueError(f"{name} has shape {tuple(value.shape)}; it is one number, or {count}.")
    return value.detach().expand(count).clone()
