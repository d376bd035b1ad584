"""Two engines, one answer: an SCM is walked node by node, its program run by a handler."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro import distributions as dist
from scipy.optimize import linprog
from torch import Tensor

import causal
import pgm
from causal import SCM, CategoricalTable, LinearGaussian, LinearSoftmax, compare, counterfactual
from causal.counterfactuals.couplings import _fill

GRAPH = "A -> {B K}; B -> C; K -> C; C -> Y; K -> Y; A -> Y"


def mixed() -> SCM:
    return SCM(
        GRAPH,
        A=LinearGaussian(intercept=0.5),
        B=LinearGaussian({"A": 0.5}, scale=0.7),
        K=LinearSoftmax({"A": [0.0, 1.0, -1.0]}, intercept=[0.1, 0.0, 0.3]),
        C=LinearGaussian({"B": 1.0, "K": [0.0, 2.0, -1.0]}),
        Y=LinearGaussian({"C": -0.5, "K": [1.0, 0.0, 0.0], "A": 1.0}, scale=0.2),
    ).double()


class AsProgram(pgm.Model):
    """The same joint program, without a graph that anyone could walk."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mixed()

    def model(self, n: int) -> None:
        self.inner.model(n)


ACTIONS: list[dict[Any, Any]] = [
    {"A": 1.0},
    {"B": torch.linspace(-1, 1, 40).double()},
    {"K": 2},
    {"B": 0.0, "K": 0},
    {"C": lambda parents: parents["B"] + 1},
    {"B": lambda value, parents: value + parents["A"]},
    {"A": lambda value, parents: value * 2, "C": 0.5},
]


@pytest.mark.parametrize("done", ACTIONS, ids=range(len(ACTIONS)))
def test_the_walk_and_the_program_agree(done: dict[Any, Any]) -> None:
    """Equal where noise is fixed; of discrete sites the same law, as both name its bounds."""
    scm, program = mixed(), AsProgram()
    seen = pgm.sample(scm, 40, seed=0)
    walked = counterfactual(scm, seen, do=done, particles=300, seed=0)
    ran = counterfactual(program, seen, do=done, particles=300, seed=0)
    discrete = any("not identified" in way for way in walked.how.values())
    for name in seen:
        first, second = walked.mean()[name], ran.mean()[name]
        assert torch.allclose(first, second.to(first), atol=0.35 if discrete else 1e-9), name
    if discrete:
        assert walked.bounds is not None
        for name, (low, high) in walked.bounds.items():
            assert torch.allclose(low, ran.bounds[name][0], atol=1e-6)
            assert torch.allclose(high, ran.bounds[name][1], atol=1e-6)


def test_what_is_not_downstream_stays_as_it_was() -> None:
    scm = mixed()
    seen = pgm.sample(scm, 30, seed=0)
    found = counterfactual(scm, seen, do={"C": 0.0})
    assert found.exact
    for name in ("A", "B", "K"):
        assert torch.equal(found.draws[name][0], seen[name])
        assert found.how[name] == "as it was seen"


def test_another_mechanism_keeps_the_noise(linear: SCM) -> None:
    """u_C = -1 - 1 + 1.6 = -.4; C' = 3 A + 1 + u_C, and D and E follow."""
    seen = {k: torch.tensor([v]).double() for k, v in zip("ABCDE", (1, 2, -1, 0.5, 3), strict=True)}
    found = counterfactual(linear, seen, do={"C": LinearGaussian({"A": 3.0}, intercept=1.0)})
    C = 3.0 + 1.0 - 0.4
    D = 0.7 * 2 + 0.5 * C + (0.5 - 1.4 + 0.5)
    assert torch.allclose(found.draws["C"], torch.tensor([[C]]).double())
    assert torch.allclose(found.draws["D"], torch.tensor([[D]]).double())
    with pytest.raises(ValueError, match="is a Categorical, but in the"):
        counterfactual(
            SCM("A -> B"), {"A": torch.zeros(1), "B": torch.zeros(1)}, do={"B": _wrong_kind()}
        )


def _wrong_kind() -> Any:
    class Odd(LinearGaussian):
        def dist(self, parents: Any) -> Any:
            return dist.Categorical(logits=torch.zeros(1, 1))

    return Odd({"A": 1.0})


def test_an_arrow_is_heard_by_one_effect_alone(linear: SCM) -> None:
    """do(A -> C = 0): C' = -1 - 1 = -2, B keeps 2."""
    seen = {k: torch.tensor([v]).double() for k, v in zip("ABCDE", (1, 2, -1, 0.5, 3), strict=True)}
    found = counterfactual(linear, seen, do={("A", "C"): 0.0})
    assert float(found.draws["C"]) == pytest.approx(-2.0)
    assert float(found.draws["B"]) == 2.0
    assert found.do == {"A -> C": "0"}
    doubled = counterfactual(linear, seen, do={("A", "C"): lambda a: 2 * a})
    assert float(doubled.draws["C"]) == pytest.approx(0.0)
    drawn = pgm.sample(causal.do(linear, {("A", "C"): 10.0}), 4000, seed=0)
    assert abs(float(drawn["C"].mean()) - 10) < 0.1
    assert abs(float(drawn["A"].mean())) < 0.1


@pytest.mark.parametrize(
    ("arrow", "value", "message"),
    [
        (("A", "E"), 0.0, "no arrow A -> E"),
        (("A", "C"), dist.Normal(0.0, 1.0), "a Normal came"),
        (("A", "C"), torch.zeros(3, 2), "one value, or one for each row"),
    ],
)
def test_arrows_that_cannot_be_set(
    linear: SCM, arrow: tuple[str, str], value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        causal.do(linear, {arrow: value})


def test_a_shift_is_drawn_and_has_no_density(linear: SCM) -> None:
    world = causal.do(linear, B=lambda value, parents: value + 1)
    drawn = pgm.sample(world, 20_000, seed=0)
    assert abs(float(drawn["B"].mean()) - 1) < 0.04
    assert abs(float(drawn["B"].var()) - 1.25) < 0.05
    with pytest.raises(pgm.Unsupported, match="Leave the site out of the batch"):
        pgm.log_prob(world, drawn)
    without = {k: v for k, v in drawn.items() if k != "B"}
    assert pgm.log_prob(world, without, particles=5).kind == "bound"


def test_mechanisms_keep_the_graph_acyclic_and_the_kinds(linear: SCM) -> None:
    with pytest.raises(ValueError, match="cycle"):
        causal.do(linear, B=LinearGaussian({"D": 1.0}))
    with pytest.raises(ValueError, match="one of 2 levels"):
        causal.do(linear, B=CategoricalTable([0.5, 0.5]))
    world = causal.do(linear, D=LinearGaussian({"A": 5.0}))
    assert sorted(world.graph.predecessors("D")) == ["A"]
    assert abs(float(pgm.sample(world, 5000, seed=0)["D"].var()) - 26) < 2


def test_scenarios_share_their_noise() -> None:
    scm = mixed()
    seen = pgm.sample(scm, 20, seed=0)
    scenarios = {"low": {"A": -1.0}, "high": {"A": 1.0}, "low again": {"A": -1.0}}
    found = compare(scm, seen, do=scenarios, particles=50, seed=0)
    assert found.stack("K").shape == (3, 50, 20)
    assert torch.equal(found["low"].draws["K"], found["low again"].draws["K"])
    alone = counterfactual(scm, seen, do={"A": -1.0}, particles=50, seed=0)
    assert torch.equal(found["low"].draws["Y"], alone.draws["Y"])
    assert list(found.frame().index.names) == ["scenario", "particle", "row"]
    with pytest.raises(KeyError, match="No scenario 'none'"):
        found["none"]


@given(
    st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    st.integers(0, 2),
)
def test_bounds_of_one_site_are_those_of_the_program_over_couplings(
    p: list[float], q: list[float], seen: int
) -> None:
    """The extremes of P(would be j | was i) over joint laws with both marginals, by an LP."""
    before, after = (torch.tensor(v).double() / sum(v) for v in (p, q))
    if (before - after).abs().max() < 1e-3:
        return
    scm = SCM(
        "x -> y",
        x=CategoricalTable([0.5, 0.5]),
        y=CategoricalTable(torch.stack([before, after]), parents=["x"]),
    ).double()
    row = {"x": torch.tensor([0]), "y": torch.tensor([seen])}
    found = counterfactual(scm, row, do={"x": 1}, particles=50, seed=0)
    assert found.bounds is not None
    low, high = (end[0] for end in found.bounds["y"])
    marginals = torch.zeros(6, 9)
    for i in range(3):
        for j in range(3):
            marginals[i, 3 * i + j] = marginals[3 + j, 3 * i + j] = 1.0
    total = torch.cat([before, after]).numpy()
    for j in range(3):
        target = torch.zeros(9)
        target[3 * seen + j] = 1 / float(before[seen])
        for sign, bound in ((1, low[j]), (-1, high[j])):
            best = linprog((sign * target).numpy(), A_eq=marginals[:5].numpy(), b_eq=total[:5])
            assert abs(sign * best.fun - float(bound)) < 1e-4
    for coupling in ("gumbel", "monotone"):
        drawn = counterfactual(scm, row, do={"x": 1}, coupling=coupling, particles=1000, seed=0)
        mean = drawn.mean()["y"][0]
        assert bool(((mean > low - 0.08) & (mean < high + 0.08)).all())


def test_bounds_pass_through_what_follows() -> None:
    """A chain x -> y -> z: the extremes of z by trying all vertices of both sites' choices."""
    y = torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    z = torch.tensor([[0.8, 0.2], [0.1, 0.9]])
    scm = SCM(
        "x -> y -> z",
        x=CategoricalTable([0.5, 0.5]),
        y=CategoricalTable(y, parents=["x"]),
        z=CategoricalTable(z, parents=["y"]),
    )
    row = {"x": torch.tensor([0]), "y": torch.tensor([0]), "z": torch.tensor([0])}
    found = counterfactual(scm, row, do={"x": 1}, particles=10, seed=0)
    # y: was 0 (p = .6), q = (.3, .7): P(y' = 1) in [.5, 1]. z given y' = 1: was 0 (p = .8), q =
    # (.1, .9), P(z' = 1) in [.875, 1]; given y' = 0 nothing changed, and z' = 0.
    assert torch.allclose(found.bounds["y"][0][0], torch.tensor([0.0, 0.5]))
    assert torch.allclose(found.bounds["z"][0][0], torch.tensor([0.0, 0.4375]))
    assert torch.allclose(found.bounds["z"][1][0], torch.tensor([0.5625, 1.0]))
    assert "Bounds over all couplings" in str(found)


def test_the_caps_are_filled_from_the_largest() -> None:
    value, cap = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[1.0, 0.5, 0.25]])
    filled: Tensor = _fill(value[:, None], cap[:, None])
    assert float(filled) == pytest.approx(0.5 * 3 + 0.25 * 2 + 0.25 * 1)


def test_equal_probabilities_of_other_parents_leave_the_outcome_open() -> None:
    """y is a coin whatever x says; y = x xor u is such a mechanism, and would turn it over."""
    coin = torch.full((2, 2), 0.5)
    scm = SCM("x -> y", x=CategoricalTable([0.5, 0.5]), y=CategoricalTable(coin, parents=["x"]))
    row = {"x": torch.tensor([0]), "y": torch.tensor([0])}
    found = counterfactual(scm, row, do={"x": 1}, particles=10, seed=0)
    assert torch.equal(found.bounds["y"][0][0], torch.tensor([0.0, 0.0]))
    assert torch.equal(found.bounds["y"][1][0], torch.tensor([1.0, 1.0]))


def test_bounds_follow_the_order_of_the_other_world() -> None:
    """With another mechanism a listens to b, which used to come after it."""
    scm = SCM(
        "a -> c; b",
        a=CategoricalTable([0.5, 0.5]),
        b=CategoricalTable([0.4, 0.6]),
        c=CategoricalTable([[0.7, 0.3], [0.2, 0.8]], parents=["a"]),
    )
    swap = CategoricalTable([[0.9, 0.1], [0.3, 0.7]], parents=["b"])
    row = {name: torch.tensor([0]) for name in "abc"}
    found = counterfactual(scm, row, do={"a": swap}, particles=10, seed=0)
    # b stays 0, so that q = (.9, .1) against p = (.5, .5): P(a' = 1) in [0, .2]; c follows a'.
    assert torch.allclose(found.bounds["a"][1][0], torch.tensor([1.0, 0.2]))
    assert torch.allclose(found.bounds["c"][1][0], torch.tensor([1.0, 0.2]))


def test_what_was_set_need_not_stand_in_the_evidence(linear: SCM) -> None:
    world = causal.do(linear, B=2.0)
    seen = {k: torch.tensor([v]).double() for k, v in zip("ACDE", (1, -1, 0.5, 3), strict=True)}
    found = counterfactual(world, seen, do={"A": 0.0})
    assert float(found.draws["B"]) == 2.0
    assert float(found.draws["C"]) == pytest.approx(-2.0)


def chain() -> SCM:
    return SCM(
        "A -> B -> C",
        B=LinearGaussian({"A": 2.0}),
        C=LinearGaussian({"B": 1.0}),
        A=LinearGaussian(),
    )


@pytest.mark.parametrize(
    "action",
    [
        lambda parents: parents["A"] + 1,
        lambda value, parents: 0 * value + parents["A"] + 1,
        lambda parents: dist.Normal(parents["A"] + 1, 1e-6),
    ],
)
def test_a_policy_hears_what_its_arrow_says_in_both_engines(action: Any) -> None:
    acted = causal.do(chain(), {"B": action, ("A", "B"): 10.0}).eval()
    torch.testing.assert_close(pgm.sample(acted, 3, seed=0)["B"], torch.full((3,), 11.0))
    torch.testing.assert_close(pgm.sample.generic(acted, 3)["B"], torch.full((3,), 11.0))


def test_mechanisms_may_turn_the_order_of_the_nodes_around() -> None:
    """B = u_B, C = B + u_C, A = C + u_A with (u_A, u_B, u_C) = (1, 1, 0.5) of A, B - 2A, C - B."""
    turned = {"A": LinearGaussian({"C": 1.0}), "B": LinearGaussian()}
    seen = {"A": torch.tensor([1.0]), "B": torch.tensor([3.0]), "C": torch.tensor([3.5])}
    found = counterfactual(chain(), seen, do=turned).mean()
    assert [float(found[node]) for node in "BCA"] == [1.0, 1.5, 2.5]
    acted = causal.do(causal.do(chain(), B=turned["B"]), A=turned["A"])
    assert set(pgm.sample(acted, 2, seed=0)) == {"A", "B", "C"}
    scm = SCM("A -> B; C", B=LinearGaussian({"A": 2.0}), A=LinearGaussian(), C=LinearGaussian())
    with pytest.raises(ValueError, match="has a cycle"):
        causal.do(causal.do(scm, A=turned["A"]), C=LinearGaussian({"B": 1.0}))


def test_an_arrow_that_another_mechanism_took_away() -> None:
    with pytest.raises(ValueError, match="no arrow A -> B"):
        causal.do(chain(), {"B": LinearGaussian(), ("A", "B"): 3.0})
    added = {"C": LinearGaussian({"A": 1.0}), ("A", "C"): 3.0}
    seen = {node: torch.zeros(1) for node in "ABC"}
    assert float(counterfactual(chain(), seen, do=added).draws["C"]) == 3.0
