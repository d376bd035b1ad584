"""Bucket elimination against the enumeration of all states, on random models and evidence."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from pgm.inference.exact import (
    Factor,
    draw,
    intervene,
    log_partition,
    marginals,
    most_probable,
    plan,
)

NAMES = ("a", "b", "c", "d", "e")
ROWS = 3


def random_model(seed: int) -> list[Factor]:
    """One to six potentials over up to five variables with one to three levels, some -inf."""
    g = torch.Generator().manual_seed(seed)

    def pick(high: int) -> int:
        return int(torch.randint(high, (), generator=g))

    levels = {name: 1 + pick(3) for name in NAMES}
    factors = []
    for _ in range(1 + pick(6)):
        scope = tuple(NAMES[i] for i in torch.randperm(5, generator=g)[: 1 + pick(3)].tolist())
        shape = [levels[name] for name in scope]
        table = 2 * torch.randn([ROWS, *shape] if pick(4) == 0 else shape, generator=g).double()
        factors.append(Factor(scope, table))
    return factors


def random_network(seed: int) -> list[Factor]:
    """A table given up to two of the earlier ones, for each of five variables; some zeros."""
    g = torch.Generator().manual_seed(seed)
    levels = [2 + int(torch.randint(2, (), generator=g)) for _ in NAMES]
    factors = []
    for i, name in enumerate(NAMES):
        parents = torch.randperm(i, generator=g)[: int(torch.randint(3, (), generator=g))].tolist()
        shape = [levels[j] for j in (*parents, i)]
        p = torch.rand(shape, generator=g).double() + 1e-3
        p = p * (torch.rand(shape, generator=g) > 0.15) + 1e-9 * (torch.arange(levels[i]) == 0)
        scope = (*(NAMES[j] for j in parents), name)
        factors.append(Factor(scope, (p / p.sum(-1, keepdim=True)).log(), child=name))
    return factors


def random_evidence(factors: list[Factor], seed: int) -> dict[str, Tensor]:
    """Some variables seen in all rows, some in a few."""
    g = torch.Generator().manual_seed(seed)
    found = {}
    for name, k in levels_of(factors).items():
        x = torch.randint(k, (ROWS,), generator=g)
        kind = int(torch.randint(4, (), generator=g))
        if kind == 0:
            found[name] = x
        elif kind == 1:
            hidden = torch.rand(ROWS, generator=g) < 0.5
            found[name] = x.double().masked_fill(hidden, math.nan)
    return found


def levels_of(factors: list[Factor]) -> dict[str, int]:
    return {v: k for f in factors for v, k in zip(f.scope, f.levels, strict=True)}


def enumerated(factors: list[Factor], given: dict[str, Tensor]) -> tuple[list[str], Tensor]:
    """The log of the product at every state, shape (n, levels ...), -inf where evidence forbids."""
    levels = levels_of(factors)
    names = list(levels)
    n = ROWS if given or any(f.batched for f in factors) else 1
    total = torch.zeros(n, *levels.values(), dtype=torch.float64)
    for f in factors:
        table = f.log_value if f.batched else f.log_value[None]
        table = table.permute(0, *(1 + f.scope.index(v) for v in names if v in f.scope))
        total = (
            total + table[(slice(None), *(slice(None) if v in f.scope else None for v in names))]
        )
    for name, x in given.items():
        shape = [n, *(k if v == name else 1 for v, k in levels.items())]
        agrees = (torch.arange(levels[name]) == x[:, None]) | x.isnan()[:, None]
        total = total.masked_fill(~agrees.reshape(shape), -torch.inf)
    return names, total


def summed(p: Tensor, names: list[str], scope: tuple[str, ...]) -> Tensor:
    out = [1 + i for i, name in enumerate(names) if name not in scope]
    kept = [name for name in names if name in scope]
    p = p.sum(out) if out else p
    return p.permute(0, *(1 + kept.index(name) for name in scope))


BUILDERS = {"potentials": random_model, "network": random_network}
seeds = st.integers(0, 10**6)
kinds = st.sampled_from(sorted(BUILDERS))


@over(kinds, seeds, seeds)
def test_sums_and_marginals_are_those_of_enumeration(kind: str, model: int, seed: int) -> None:
    factors = BUILDERS[kind](model)
    given = random_evidence(factors, seed)
    names, total = enumerated(factors, given)
    log_z = total.flatten(1).logsumexp(1)
    assert torch.allclose(log_partition(factors, given), log_z, atol=1e-12)
    pair = tuple(reversed(names))[:2]
    if bool((log_z == -torch.inf).any()):
        with pytest.raises(ValueError, match="probability zero"):
            marginals(factors, given=given)
        return
    p = (total - log_z.reshape(-1, *[1] * len(names))).exp()
    found = marginals(factors, [*names, pair], given)
    for target in (*names, pair):
        scope = (target,) if isinstance(target, str) else target
        assert torch.allclose(found[target], summed(p, names, scope), atol=1e-12)


@over(kinds, seeds, seeds)
def test_the_most_probable_state_attains_the_maximum(kind: str, model: int, seed: int) -> None:
    factors = BUILDERS[kind](model)
    given = random_evidence(factors, seed)
    names, total = enumerated(factors, given)
    best = total.flatten(1).amax(1)
    if bool((best == -torch.inf).any()):
        with pytest.raises(ValueError, match="probability zero"):
            most_probable(factors, given)
        return
    state, value = most_probable(factors, given)
    assert torch.allclose(value, best, atol=1e-12)
    rows = torch.arange(len(total))
    assert torch.equal(total[(rows, *(state[name] for name in names))], best)


@over(kinds, seeds)
def test_the_gradient_of_log_z_is_the_expected_counts(kind: str, seed: int) -> None:
    factors = BUILDERS[kind](seed)
    leaves = [f.log_value.clone().requires_grad_() for f in factors]
    model = [Factor(f.scope, x) for f, x in zip(factors, leaves, strict=True)]  # nothing barren
    log_z = log_partition(model)
    if bool((log_z == -torch.inf).any()):
        return
    log_z.sum().backward()
    expected = marginals(factors, [f.scope for f in factors])
    for f, x in zip(factors, leaves, strict=True):
        p = expected[f.scope]
        assert x.grad is not None
        assert torch.allclose(x.grad, p.expand_as(x) if f.batched else p.sum(0), atol=1e-12)


def test_marginals_are_differentiable() -> None:
    factors = random_model(7)
    leaf = factors[0].log_value.clone().requires_grad_()

    def first(table: Tensor) -> Any:
        model = [Factor(factors[0].scope, table), *factors[1:]]
        return tuple(marginals(model, given={}).values())

    assert torch.autograd.gradcheck(first, leaf)


def test_barren_tables_change_nothing_and_cost_nothing() -> None:
    factors = random_network(1)
    blind = [Factor(f.scope, f.log_value) for f in factors]
    given = {"a": torch.tensor([0, 1])}
    assert torch.allclose(log_partition(factors, given), log_partition(blind, given), atol=1e-12)
    assert plan(factors, seen=["a"]).cells == 0 < plan(blind, seen=["a"]).cells


def test_a_conditional_table_alone_still_counts_the_levels_of_its_parent() -> None:
    table = Factor(("a", "b"), torch.full((3, 2), 0.5).log(), child="b")
    assert log_partition([table]).exp().item() == pytest.approx(3.0)


def test_draws_follow_the_posterior() -> None:
    factors = random_network(5)
    given = {"e": torch.tensor([0, 1, 1]), "c": torch.tensor([math.nan, math.nan, 0.0])}
    names, total = enumerated(factors, given)
    p = (total - total.flatten(1).logsumexp(1).reshape(-1, *[1] * 5)).exp().flatten(1)
    N = 20000
    drawn = draw(factors, N, given, seed=0)
    code = torch.zeros(N, ROWS, dtype=torch.long)
    for name in names:
        code = code * levels_of(factors)[name] + drawn[name]
    counts = torch.stack([torch.bincount(code[:, i], minlength=p.shape[1]) for i in range(ROWS)])
    assert (counts[p == 0] == 0).all()
    deviation = (counts / N - p).abs() / (p * (1 - p) / N).sqrt().clamp(min=1e-4)
    assert deviation.max() < 5
    assert torch.equal(drawn["e"], given["e"].expand(N, 3))


def test_draws_depend_on_the_seed_alone() -> None:
    factors, before = random_network(5), torch.get_rng_state()
    first, second = (draw(factors, 9, {"e": torch.tensor([0, 1])}, seed=4) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in NAMES)
    assert torch.equal(torch.get_rng_state(), before)
    assert draw(factors, 9)["a"].shape == (9, 1)


@settings(max_examples=8)
@over(seeds, st.integers(1, 40))
def test_pieces_of_any_size_give_the_same(seed: int, rows: int) -> None:
    factors = random_network(seed)
    given = {"a": torch.arange(20) % 2, "d": (torch.arange(20) % 3).double()}
    given["d"] = given["d"].masked_fill(given["d"] == 2, math.nan)
    small = log_partition(factors, given, memory=plan(factors, list(NAMES)).cells * 32 * rows)
    assert torch.equal(small, log_partition(factors, given))


def test_do_is_surgery() -> None:
    """p(b | do(a)) of b <- c -> a, a -> b by the adjustment formula (Pearl 2009, eq. 3.19)."""
    c, a, b = torch.tensor([0.3, 0.7]), torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.rand(2, 2, 3)
    b = b / b.sum(-1, keepdim=True)
    model = [Factor(("c",), c.log(), "c"), Factor(("c", "a"), a.log(), "a")]
    model.append(Factor(("c", "a", "b"), b.log(), "b"))
    done = intervene(model, {"a": torch.tensor([0, 1])})
    found = marginals(done, ["b", "c"])
    assert torch.allclose(found["b"], torch.einsum("c,cab->ab", c, b), atol=1e-6)
    assert torch.allclose(found["c"], c.expand(2, 2), atol=1e-6)


def chain(n: int, levels: int = 2) -> list[Factor]:
    return [Factor((f"x{i}", f"x{i + 1}"), torch.zeros(levels, levels)) for i in range(n)]


def test_a_chain_is_summed_in_the_size_of_its_tables() -> None:
    assert plan(chain(200)).largest == 4
    assert log_partition(chain(200)).item() == pytest.approx(201 * math.log(2), rel=1e-5)


def test_large_potentials_do_not_underflow() -> None:
    """What the largest cell forbids leaves the others, however small they are beside it."""
    strong = Factor(("a", "b"), torch.tensor([[0.0, -5000.0], [-5000.0, -9000.0]]).double())
    assert log_partition([strong], {"b": 1}).item() == pytest.approx(-5000.0)
    forbids = Factor(("a", "b"), torch.tensor([[-torch.inf, 0.0], [-torch.inf, 0.0]]).double())
    p = marginals([strong, forbids], ["a"])["a"]
    assert torch.allclose(p, torch.tensor([[1.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x9": 0}, "x9"),
        ({"x0": 2}, "2 levels, coded 0 .. 1, but the evidence holds 2"),
        ({"x0": torch.tensor([0.5])}, r"holds 0\.5"),
        ({"x0": torch.tensor([0, 1]), "x1": torch.tensor([0, 1, 1])}, "Different numbers of rows"),
    ],
)
def test_bad_evidence_is_an_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_partition(chain(3), given)


def test_evidence_of_probability_zero_names_its_row() -> None:
    never = Factor(("a",), torch.tensor([0.0, -torch.inf]), child="a")
    seen = {"a": torch.tensor([0, 1])}
    assert log_partition([never], seen).tolist() == [0.0, -math.inf]
    for ask in (marginals, most_probable):
        with pytest.raises(ValueError, match="row 1 has probability zero"):
            ask([never], given=seen)
    with pytest.raises(ValueError, match="row 1 has probability zero"):
        draw([never], 2, seen)


def test_too_much_memory_is_refused_before_anything_is_summed() -> None:
    everyone = [f"v{i}" for i in range(40)]
    pairs = [Factor((a, b), torch.zeros(4, 4)) for a in everyone for b in everyone if a < b]
    with pytest.raises(MemoryError, match=r"GiB for one row, and 1 GiB are allowed.*Gibbs"):
        log_partition(pairs)


@pytest.mark.parametrize(
    ("scope", "shape", "child", "message"),
    [
        (("a", "a"), (2, 2), None, "twice"),
        (("a",), (2, 2, 2), None, "an axis for each"),
        (("a",), (2,), "b", "not in the scope"),
    ],
)
def test_bad_factors_are_errors(
    scope: tuple[str, ...], shape: tuple[int, ...], child: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Factor(scope, torch.zeros(shape), child)


def test_factors_that_disagree_are_an_error() -> None:
    with pytest.raises(ValueError, match="has 2 levels in one factor and 3"):
        log_partition([Factor(("a",), torch.zeros(2)), Factor(("a",), torch.zeros(3))])
    with pytest.raises(ValueError, match="No factor came"):
        log_partition([])


@pytest.mark.parametrize(
    ("do", "message"), [({"b": 0}, "no conditional table"), ({"a": 5}, "2 levels"), ({"z": 0}, "z")]
)
def test_bad_surgery_is_an_error(do: dict[str, int], message: str) -> None:
    model = [Factor(("a",), torch.zeros(2), "a"), Factor(("a", "b"), torch.zeros(2, 2))]
    with pytest.raises(ValueError, match=message):
        intervene(model, do)
