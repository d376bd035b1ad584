"""Simplifying keeps the value: every rule against plain evaluation on a random joint."""

import random

import pytest
import torch

from causal.graph import order, parse
from causal.identification import Table, random_network
from causal.identification.evaluation import evaluate
from causal.identification.expressions import (
    ONE,
    Expression,
    Probability,
    Product,
    Ratio,
    Sum,
    free,
    latex,
    text,
)
from causal.identification.simplify import divide, multiply, reduce, sum_out
from causal.identification.tables import spread

NAMES = ("a", "b", "c", "d")
PLACE = {name: i for i, name in enumerate(NAMES)}
P = Probability


def same(first: Expression, second: Expression, joint: Table) -> bool:
    one, two = evaluate(first, joint), evaluate(second, joint)
    levels = {**one.levels, **two.levels}
    return torch.allclose(*torch.broadcast_tensors(spread(one, levels), spread(two, levels)))


def some_probability(draw: random.Random) -> Probability:
    names = draw.sample(NAMES, draw.randint(1, 4))
    cut = draw.randint(1, len(names))
    of, given = (tuple(sorted(part)) for part in (names[:cut], names[cut:]))
    return P(of, given)


@pytest.fixture
def joint() -> Table:
    network = random_network(parse("a -> b -> c -> d; a -> {c d}; b -> d"), seed=0)
    return network.joint()


@pytest.mark.parametrize("seed", range(60))
def test_products_sums_and_ratios_keep_their_value(seed: int, joint: Table) -> None:
    draw = random.Random(seed)
    plain = Product(tuple(some_probability(draw) for _ in range(draw.randint(1, 3))))
    assert same(multiply(plain.factors, PLACE), plain, joint)
    over = tuple(sorted(draw.sample(sorted(free(plain)), 1)))
    summed = Sum(over, plain)
    assert same(sum_out(over, plain, PLACE), summed, joint)
    other = Product(tuple(some_probability(draw) for _ in range(2)))
    assert same(divide(plain, other, PLACE), Ratio(plain, other), joint)


def test_chains_merge_and_what_sums_to_one_goes() -> None:
    chain = [P(("c",), ("a", "b")), P(("b",), ("a",)), P(("a",))]
    assert multiply(chain, PLACE) == P(("a", "b", "c"))
    assert sum_out(["b", "c"], multiply(chain, PLACE), PLACE) == P(("a",))
    assert sum_out(["a"], P(("a",), ("b",)), PLACE) == ONE
    assert divide(multiply(chain, PLACE), P(("a",)), PLACE) == P(("b", "c"), ("a",))


def test_independence_is_that_of_the_graph() -> None:
    graph = parse("a -> b -> c; a <-> c")
    place = {v: i for i, v in enumerate(order(graph))}
    kept = P(("c",), ("a", "b"))
    assert reduce(kept, graph, place) == kept
    assert reduce(kept, parse("a -> b -> c"), place) == P(("c",), ("b",))


def test_a_bound_name_gets_a_prime_where_it_is_taken() -> None:
    inner = Sum(("a",), Product((P(("c",), ("a", "b")), P(("a",)))))
    expression = Product((P(("b",), ("a",)), inner))
    assert text(expression) == "P(b | a) Σ_a' P(c | a', b) P(a')"
    assert text(inner) == "Σ_a P(c | a, b) P(a)"
    assert text(inner, ["a"]) == "Σ_a' P(c | a', b) P(a')"
    assert latex(expression) == r"P(b \mid a) \sum_{a'} P(c \mid a', b) P(a')"
    nested = Sum(("a",), Product((P(("b",), ("a",)), inner)))
    assert text(nested, ["a"]) == "Σ_a' P(b | a') Σ_a'' P(c | a'', b) P(a'')"


def test_ratios_and_sums_stand_in_brackets_where_they_must() -> None:
    ratio = Ratio(P(("a",)), Sum(("b",), Product((P(("c",), ("b",)), P(("b",))))))
    assert text(ratio) == "P(a) / [Σ_b P(c | b) P(b)]"
    assert text(Product((ratio, P(("d",))))) == "[P(a) / [Σ_b P(c | b) P(b)]] P(d)"
    assert text(ONE) == "1"
    sums = Product((Sum(("a",), P(("b",), ("a",))), P(("d",))))
    assert text(sums) == "[Σ_a P(b | a)] P(d)"


def test_undefined_times_zero_is_zero_and_otherwise_undefined() -> None:
    never = Table(torch.tensor([[0.5, 0.5], [0.0, 0.0]]), {"a": (0, 1), "b": (0, 1)})
    weighted = Sum(("a",), Product((P(("b",), ("a",)), P(("a",)))))
    assert torch.allclose(evaluate(weighted, never).values, torch.tensor([0.5, 0.5]).double())
    assert evaluate(P(("b",), ("a",)), never).at(a=1).values.isnan().all()
    unweighted = Sum(("a",), Product((P(("b",), ("a",)), P(("b",)))))
    assert evaluate(unweighted, never).values.isnan().all()
