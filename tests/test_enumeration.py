"""Variable elimination against brute force: every factor of every plate index handed to einsum."""

import itertools
import random
import string

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from pgm.enumeration import Factor, draw_variables, sum_product

ROWS = 3
PLATES = {-2: 2, -3: 3}
NESTED = (frozenset(), frozenset({-2}), frozenset({-2, -3}))
SIDE_BY_SIDE = (frozenset(), frozenset({-2}), frozenset({-3}))
LETTERS = string.ascii_letters
Variables = dict[int, frozenset[int]]


def random_graph(seed: int) -> tuple[list[Factor], Variables, dict[int, int]]:
    """Variables in random plates; every factor's variables stand in plates that hold each other."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    where = rng.choice((NESTED, SIDE_BY_SIDE))
    variables = {-5 - i: rng.choice(where) for i in range(rng.randint(2, 4))}
    sizes = {dim: rng.randint(1, 3) for dim in variables}
    scopes: list[tuple[frozenset[int], list[int]]] = [(p, [d]) for d, p in variables.items()]
    for _ in range(rng.randint(2, 5)):
        plates = rng.choice(where)
        inside = [d for d, p in variables.items() if p <= plates]
        scopes.append((plates, rng.sample(inside, min(len(inside), rng.randint(1, 3)))))
    factors = []
    for plates, scope in scopes:
        axes = {-1: ROWS} | {p: PLATES[p] for p in plates} | {d: sizes[d] for d in scope}
        shape = [axes.get(d, 1) for d in range(min(axes), 0)]
        log_value = torch.randn(shape, generator=generator, dtype=torch.float64)
        factors.append(Factor(log_value, plates))
    return factors, variables, sizes


def brute_force(factors: list[Factor], variables: Variables) -> Tensor:
    """The same sum with one variable an index of its plates, and nothing eliminated by us."""
    return torch.stack([einsum(factors, variables, row) for row in range(ROWS)]).log()


def einsum(factors: list[Factor], variables: Variables, row: int) -> Tensor:
    letters: dict[tuple[int, ...], str] = {}
    terms, operands = [], []
    for log_value, plates in factors:
        scope = [d for d in dims(log_value) if d in variables and log_value.shape[d] > 1]
        for place in itertools.product(*[range(PLATES[p]) for p in plates]):
            at = dict(zip(plates, place, strict=True)) | {-1: row}
            copies = [(d, *(at[p] for p in sorted(variables[d]))) for d in scope]
            terms.append("".join(letters.setdefault(c, LETTERS[len(letters)]) for c in copies))
            index = [slice(None) if d in scope else at.get(d, 0) for d in dims(log_value)]
            operands.append(log_value[tuple(index)].exp())
    return torch.einsum(",".join(terms) + "->", *operands)


def dims(log_value: Tensor) -> range:
    return range(-log_value.dim(), 0)


@settings(max_examples=60)
@given(st.integers(0, 10_000))
def test_the_sum_is_that_of_brute_force(seed: int) -> None:
    factors, variables, _ = random_graph(seed)
    assert torch.allclose(sum_product(factors, variables), brute_force(factors, variables))


@given(st.integers(0, 10_000))
def test_gradients_are_those_of_brute_force(seed: int) -> None:
    factors, variables, _ = random_graph(seed)
    leaves = [f.log_value.requires_grad_() for f in factors]
    weight = torch.arange(1.0, 1.0 + ROWS, dtype=torch.float64)
    ours = torch.autograd.grad((weight * sum_product(factors, variables)).sum(), leaves)
    theirs = torch.autograd.grad((weight * brute_force(factors, variables)).sum(), leaves)
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_long_chain_is_the_forward_algorithm() -> None:
    """Forward recursion of a Markov chain (Rabiner 1989, eqs 19 and 20), in log space."""
    generator = torch.Generator().manual_seed(0)
    steps, states = 20, 3
    start = torch.randn(states, generator=generator).log_softmax(0)
    move = torch.randn(states, states, generator=generator).log_softmax(1)
    emit = torch.randn(steps, states, ROWS, generator=generator)
    alpha = start[:, None] + emit[0]
    for t in range(1, steps):
        alpha = (alpha[:, None] + move[:, :, None]).logsumexp(0) + emit[t]
    variables: Variables = {-5 - t: frozenset() for t in range(steps)}
    factors = [Factor(along({-5: start}))]
    factors += [Factor(along({-5 - t: move.mT, -4 - t: None})) for t in range(1, steps)]
    factors += [Factor(along({-5 - t: None}, emit[t])) for t in range(steps)]
    assert torch.allclose(sum_product(factors, variables), alpha.logsumexp(0), atol=1e-4)


def along(axes: dict[int, Tensor | None], by_row: Tensor | None = None) -> Tensor:
    """A factor's tensor with its values along the given (neighbouring) dimensions."""
    value = next((v for v in axes.values() if v is not None), by_row)
    assert value is not None
    if by_row is None:
        value = value.unsqueeze(-1).expand(*value.shape, ROWS)
    return value.reshape(*value.shape[:-1], *[1] * (-max(axes) - 2), ROWS)


def test_impossible_combinations_have_a_finite_gradient() -> None:
    """The second variable is seen to be 0, which a first of 1 cannot give."""
    prior = torch.tensor([0.5, 0.5]).log().reshape(2, 1, 1, 1, 1).expand(-1, 1, 1, 1, 2)
    table = torch.tensor([[0.5, 0.0], [0.5, 1.0]]).log().reshape(2, 2, 1, 1, 1, 1).requires_grad_()
    seen = torch.tensor([0.0, -torch.inf]).reshape(2, 1, 1, 1, 1, 1)
    factors = [Factor(prior), Factor(table + seen)]
    total = sum_product(factors, {-5: frozenset(), -6: frozenset()})
    assert torch.allclose(total.exp(), torch.tensor([0.25, 0.25]))
    (slope,) = torch.autograd.grad(total.sum(), table)
    assert torch.equal(slope.flatten(), torch.tensor([2.0, 0.0, 0.0, 0.0]))


def test_a_row_that_is_impossible_is_minus_infinity_and_leaves_the_others_alone() -> None:
    prior = torch.zeros(2, 1, 1, 1, 2).requires_grad_()
    likelihood = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]]).reshape(2, 1, 1, 1, 2)
    total = sum_product([Factor(prior), Factor(likelihood)], {-5: frozenset()})
    assert total.tolist() == [pytest.approx(0.6931, abs=1e-3), -torch.inf]
    (slope,) = torch.autograd.grad(total[0], prior)
    assert slope.isfinite().all()


def test_a_factor_across_two_plates_that_no_order_can_sum_is_refused() -> None:
    """Pairs of variables of different plates: a restricted Boltzmann machine, not a tree."""
    a, b = frozenset({-2}), frozenset({-3})
    factors = [
        Factor(torch.zeros(2, 1, 1, 2, 1), a),
        Factor(torch.zeros(2, 1, 1, 3, 1, 1), b),
        Factor(torch.zeros(2, 2, 1, 3, 2, 1), a | b),
    ]
    with pytest.raises(ValueError, match="plates"):
        sum_product(factors, {-5: a, -6: b})


def test_it_can_be_vmapped() -> None:
    factors, variables, _ = random_graph(7)
    copies = [torch.stack([f.log_value, 2 * f.log_value]) for f in factors]

    def total(*log_values: Tensor) -> Tensor:
        again = [Factor(v, f.plates) for v, f in zip(log_values, factors, strict=True)]
        return sum_product(again, variables).sum()

    together = torch.vmap(total)(*copies)
    slopes = torch.vmap(torch.func.grad(total))(*copies)
    assert torch.allclose(together[0], brute_force(factors, variables).sum())
    assert torch.allclose(slopes[1], torch.func.grad(total)(*[c[1] for c in copies]))


def test_draws_have_the_frequencies_of_the_posterior() -> None:
    """All variables jointly, one of them twice in a plate; Pearson's chi-square at 1e-4."""
    generator = torch.Generator().manual_seed(3)
    inner, n = frozenset({-2}), 20_000
    log_z = torch.randn(2, 1, 1, 1, 1, generator=generator)
    log_w = torch.randn(3, 2, 1, 1, 2, 1, generator=generator)
    log_v = torch.randn(2, 1, 2, 1, 1, 1, 1, generator=generator)
    factors = [
        Factor(log_z.expand(2, 1, 1, 1, n)),
        Factor(log_w.expand(3, 2, 1, 1, 2, n), inner),
        Factor(log_v.expand(2, 1, 2, 1, 1, 1, n)),
    ]
    variables: Variables = {-5: frozenset(), -6: inner, -7: frozenset()}
    torch.manual_seed(0)
    drawn = draw_variables(factors, variables)
    z, w, v = (drawn[d].reshape(-1, n) for d in variables)
    assert (z.shape, w.shape, v.shape) == ((1, n), (2, n), (1, n))
    z_, w_, v_ = log_z.view(2), log_w.view(3, 2, 2), log_v.view(2, 2)
    joint = torch.stack(
        [
            z_[a] + w_[b, a, 0] + w_[c, a, 1] + v_[d, a]
            for a in range(2)
            for b in range(3)
            for c in range(3)
            for d in range(2)
        ]
    )
    cell = ((z[0] * 3 + w[0]) * 3 + w[1]) * 2 + v[0]
    count = torch.bincount(cell, minlength=36).double()
    test = stats.chisquare(count.numpy(), (n * joint.double().softmax(0)).numpy())
    assert test.pvalue > 1e-4


def test_draws_by_row_follow_each_rows_posterior() -> None:
    log_z = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, -torch.inf, 0.0]]).repeat(1, 2000)
    factor = Factor(log_z.reshape(2, 1, 1, 1, 6000))
    z = draw_variables([factor], {-5: frozenset()})[-5].flatten().reshape(2000, 3)
    assert z[:, 1].sum() == 0
    assert (z[:, 2] == 1).all()
    assert stats.binomtest(int(z[:, 0].sum()), 2000, 0.5).pvalue > 1e-4
