"""Markov random fields against enumeration, closed forms, the transfer matrix and chains."""

import itertools
import math
import time

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

import pgm
from pgm.families.markov import Ising, MarkovRandomField, lattice, log_partition, score
from pgm.inference.pairwise import conditionals, gibbs
from pgm.randomness import seeded

RING = [(i, (i + 1) % 5) for i in range(5)]


def random_field(seed: int, *, states: int = 3, scale: float = 1.0) -> MarkovRandomField:
    """Five nodes in a ring with a chord."""
    field = MarkovRandomField(5, [*RING, (0, 2)], states=states)
    with torch.no_grad(), seeded(seed):
        for parameter in field.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return field.double()


def every_state(field: MarkovRandomField) -> Tensor:
    codes = itertools.product(range(field.states), repeat=field.nodes)
    return field.values(torch.tensor(list(codes)))


def test_the_ising_lattice_has_its_published_constant() -> None:
    field = Ising(16, lattice(4, 4), coupling=torch.tensor(1.0, dtype=torch.float64))
    assert log_partition(field).value == pytest.approx(24.817644410413, abs=1e-11)


@pytest.mark.parametrize("J", [-0.7, 0.3, 2.0])
def test_chains_and_rings_have_their_closed_forms(J: float) -> None:
    """Z = 2 (2 cosh J)^(n-1) and (2 cosh J)^n + (2 sinh J)^n (Ising 1925)."""
    c, s = 2 * math.cosh(J), 2 * math.sinh(J)
    chain, ring = Ising(9, lattice(9), coupling=J), Ising(9, lattice(9, periodic=True), coupling=J)
    assert log_partition(chain).value == pytest.approx(math.log(2) + 8 * math.log(c), rel=1e-6)
    assert log_partition(ring).value == pytest.approx(math.log(c**9 + s**9), rel=1e-6)


def transfer(rows: int, columns: int, J: float, h: float) -> float:
    """log Z of an open lattice, row by row: the textbook matrix of 2^columns states."""
    spins = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=columns))).double()
    inside = J * (spins[:, 1:] * spins[:, :-1]).sum(-1) + h * spins.sum(-1)
    between = J * spins @ spins.T
    log_v = inside
    for _ in range(rows - 1):
        log_v = (log_v[:, None] + between).logsumexp(0) + inside
    return float(log_v.logsumexp(0))


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (12, 7)])
def test_elimination_agrees_with_the_transfer_matrix(rows: int, columns: int) -> None:
    field = Ising(rows * columns, lattice(rows, columns), coupling=0.4, field=0.1)
    expected = transfer(rows, columns, field.coupling[0].item(), field.field[0].item())
    assert log_partition(field).value == pytest.approx(expected, rel=1e-10)


def test_a_long_strip_costs_what_the_transfer_matrix_costs() -> None:
    assert Ising(400, lattice(40, 10)).cost.largest <= 2**11


@over(st.integers(0, 10**6))
def test_densities_are_those_of_enumeration(seed: int) -> None:
    field = random_field(seed)
    x = every_state(field)
    p = pgm.log_prob(field, x)
    assert p.kind == "exact"
    assert torch.allclose(p.value, score(field, x) - score(field, x).logsumexp(0), atol=1e-10)
    hidden = x[:6].double()
    hidden[::2, 1] = hidden[1::2, 3] = math.nan
    agrees = (x[None] == hidden[:, None]) | hidden.isnan()[:, None]
    expected = p.value.expand(6, -1).masked_fill(~agrees.all(-1), -torch.inf).logsumexp(-1)
    assert torch.allclose(pgm.log_prob(field, hidden).value, expected, atol=1e-10)
    assert torch.allclose(-pgm.objective(field, hidden), expected, atol=1e-10)


def test_draws_and_completions_follow_the_density() -> None:
    field = random_field(1, states=2)
    x, N = every_state(field), 40000
    p = pgm.log_prob(field, x).value.exp()
    place = 2 ** torch.arange(5).flip(0)
    drawn = pgm.sample(field, N, seed=0)["x"] @ place
    frequency = torch.bincount(drawn, minlength=32) / N
    assert ((frequency - p).abs() < 5 * (p * (1 - p) / N).sqrt() + 1e-4).all()
    row = torch.tensor([[1.0, math.nan, 0.0, math.nan, 1.0]])
    agrees = ((x == row) | row.isnan()).all(-1)
    done = pgm.impute(field, row, draws=N, seed=0).draws["x"][:, 0] @ place
    conditional = torch.where(agrees, p, 0.0) / p[agrees].sum()
    frequency = torch.bincount(done, minlength=32) / N
    error = (conditional * (1 - conditional) / N).sqrt()
    assert ((frequency - conditional).abs() < 5 * error + 1e-4).all()


def test_gibbs_chains_end_in_the_same_distribution() -> None:
    field = random_field(2, states=3, scale=0.7)
    x, N = every_state(field), 20000
    unary, pair = field.potentials()
    with seeded(0):
        ends = gibbs(torch.zeros(N, 5, dtype=torch.long), unary, pair, field.edges, 60)
    p = pgm.log_prob(field, x).value.exp()
    frequency = torch.bincount(ends @ 3 ** torch.arange(5).flip(0), minlength=243) / N
    assert ((frequency - p).abs() < 5 * (p * (1 - p) / N).sqrt() + 1e-4).all()


def test_annealing_agrees_with_elimination_within_its_error() -> None:
    field = Ising(36, lattice(6, 6), coupling=0.3, field=0.1)
    exact = log_partition(field)
    found = log_partition(field, method="annealing", temperatures=200, seed=0)
    assert found.kind == "estimate"
    assert 0 < found.error < 0.2
    assert abs(found.value - exact.value) < 4 * found.error


def test_training_matches_the_moments() -> None:
    """At the maximum likelihood the model's pair frequencies are those of the data."""
    true = Ising(6, lattice(2, 3), coupling=0.5, field=0.2)
    x = pgm.sample(true, 3000, seed=0)["x"]
    field = Ising(6, lattice(2, 3))
    pgm.fit(field, x, steps=100, batch_size=3000, learning_rate=0.05, seed=0, progress=False)
    every = every_state(field)
    p = pgm.log_prob(field, every).value.exp()
    i, j = torch.tensor(field.edges).T
    assert torch.allclose(p @ (every[:, i] * every[:, j]), (x[:, i] * x[:, j]).mean(0), atol=5e-3)
    assert torch.allclose(p @ every, x.mean(0), atol=5e-3)


def large() -> Ising:
    """A torus whose cliques are too large to sum."""
    return Ising(400, lattice(20, 20, periodic=True), coupling=0.2, sweeps=5)


def test_a_field_too_large_refuses_its_density_and_says_what_to_do() -> None:
    field, x = large(), torch.ones(3, 400)
    assert not field.summable
    with pytest.raises(pgm.Unsupported, match=r"cliques of .* cells.*method='annealing'"):
        pgm.log_prob(field, x)
    assert torch.allclose(pgm.surprise(field, x), torch.full((3,), -0.2 * 800))
    hidden = x.clone()
    hidden[0, 0] = math.nan
    with pytest.raises(pgm.Unsupported, match=r"pgm\.impute"):
        pgm.objective(field, hidden)
    assert pgm.impute(field, hidden, draws=2, seed=0).draws["x"].shape == (2, 3, 400)
    with pytest.raises(MemoryError, match="GiB"):
        log_partition(field, method="elimination")


def test_pseudo_likelihood_recovers_a_large_field() -> None:
    field = large()
    x = pgm.sample(field, 40, seed=0)["x"]
    found = Ising(400, lattice(20, 20, periodic=True))
    pgm.fit(found, x, steps=60, batch_size=40, learning_rate=0.02, seed=0, progress=False)
    assert found.coupling.mean().item() == pytest.approx(0.2, abs=0.05)


@settings(max_examples=5)
@over(st.integers(0, 10**6))
def test_the_pseudo_likelihood_is_the_sum_of_the_conditionals(seed: int) -> None:
    field = random_field(seed)
    x = every_state(field)[::17]
    found = conditionals(x, *field.potentials(), field.edges).log_softmax(-1)
    for i in range(5):
        others = torch.stack(
            [
                torch.cat([x[:, :i], torch.full_like(x[:, :1], k), x[:, i + 1 :]], 1)
                for k in range(3)
            ],
            1,
        )
        expected = score(field, others.flatten(0, 1)).reshape(-1, 3).log_softmax(-1)
        assert torch.allclose(found[:, i], expected, atol=1e-10)


def test_a_lattice_of_twelve_is_summed_in_seconds() -> None:
    start = time.perf_counter()
    assert math.isfinite(log_partition(Ising(144, lattice(12, 12), coupling=0.44)).value)
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MarkovRandomField(2, [(0, 2)], states=2), r"\(0, 2\) is no edge"),
        (lambda: MarkovRandomField(2, [(0, 1), (1, 0)], states=2), "twice"),
        (lambda: MarkovRandomField(2, [], states=0), "states is 0"),
        (lambda: Ising(3, lattice(3), coupling=[0.1] * 3), "it is one number, or 2"),
    ],
)
def test_bad_fields_are_errors(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        build()


def test_values_that_are_no_states_are_errors_or_impossible() -> None:
    field = Ising(2, [(0, 1)])
    with pytest.raises(ValueError, match=r"A cell of 'x' is 0.*-1\.0 \.\. 1\.0"):
        pgm.log_prob(field, torch.tensor([[0.0, 1.0]]))
    assert pgm.objective(field, torch.tensor([[0.0, 1.0]])).item() == math.inf
