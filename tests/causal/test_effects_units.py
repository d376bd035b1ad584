"""Effects in some units, or in worlds that show some evidence: enumeration by hand, and paths."""

import itertools
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import causal
import pgm
from causal import SCM, CategoricalTable, LinearGaussian, LinearSoftmax, effect

DO: dict[str, Any] = {"do": {"x": 1}, "versus": {"x": 0}}


def rows(probs: list[float]) -> list[list[float]]:
    return [[1 - p, p] for p in probs]


@pytest.fixture
def confounded() -> SCM:
    """z -> x -> y, z -> y, all binary."""
    return SCM(
        "z -> x -> y; z -> y",
        z=CategoricalTable([0.7, 0.3]),
        x=CategoricalTable(rows([0.2, 0.9]), parents=["z"]),
        y=CategoricalTable([rows([0.1, 0.4]), rows([0.3, 0.8])], parents=["z", "x"]),
    )


def test_on_the_treated_and_the_controls(confounded: SCM) -> None:
    """E[Y(x') | x] = sum_z P(z | x) P(y | x', z) where z is all that confounds (Pearl 2009)."""
    y = torch.tensor([[0.1, 0.4], [0.3, 0.8]]).double()  # by z, x
    for x, seen in ((1, [0.7 * 0.2, 0.3 * 0.9]), (0, [0.7 * 0.8, 0.3 * 0.1])):
        p = torch.tensor(seen).double()
        p = p / p.sum()
        found = effect(confounded, "y", among={"x": x}, level=1, **DO)
        assert float(found.treated) == pytest.approx(float(p @ y[:, 1]), abs=1e-6)
        assert float(found.control) == pytest.approx(float(p @ y[:, 0]), abs=1e-6)
        assert found.bounds is None, "no coupling decides it"
        assert f"among x={x}" in str(found)
    everyone = effect(confounded, "y", level=1, **DO)
    assert float(everyone.difference) == pytest.approx(0.7 * 0.3 + 0.3 * 0.5, abs=1e-6)


def test_by_group_and_by_both_kinds_of_evidence_upstream(confounded: SCM) -> None:
    """Upstream of what is done, `among` and `given` are one: .3 for z = 0 and .5 for z = 1."""
    for kind in ("among", "given"):
        groups: dict[str, Any] = {kind: {"z": torch.tensor([0, 1])}}
        found = effect(confounded, "y", level=1, **groups, **DO)
        assert found.by_row.flatten().tolist() == pytest.approx([0.3, 0.5], abs=1e-6)
    with pytest.raises(ValueError, match="Pass one"):
        effect(confounded, "y", among={"z": 1}, given={"z": 1}, **DO)


def test_the_treated_of_a_mixed_model_by_draws() -> None:
    """z ~ N(0, 1), x softmax of z, y = z + 2 x + u: nothing is enumerated, and the effect is 2."""
    scm = SCM(
        "z -> x -> y; z -> y",
        z=LinearGaussian(),
        x=LinearSoftmax({"z": [0.0, 2.0]}, intercept=[0.0, 0.0]),
        y=LinearGaussian({"z": 1.0, "x": [0.0, 2.0]}),
    )
    found = effect(scm, "y", among={"x": 1}, draws=1000, seed=0, **DO)
    assert float(found.difference) == pytest.approx(2.0, abs=1e-4)
    assert float(found.control) > 0.3, "the treated have a higher z"


def test_evidence_downstream_of_what_is_done(confounded: SCM) -> None:
    """P(z | do(x), y): given= the evidence of either world; among= that of the world as it was."""
    joint = {
        (z, x): [0.7, 0.3][z] * [[0.1, 0.4], [0.3, 0.8]][z][x]
        for z, x in itertools.product((0, 1), (0, 1))
    }
    high = [joint[1, x] / (joint[0, x] + joint[1, x]) for x in (0, 1)]
    found = effect(confounded, "z", given={"y": 1}, level=1, **DO)
    assert float(found.difference) == pytest.approx(high[1] - high[0], abs=1e-6)
    assert float(effect(confounded, "z", among={"y": 1}, level=1, **DO).difference) == 0.0


def test_linear_units_keep_their_noise(linear: SCM) -> None:
    """E of unit (1, 2, -1, .5, 3) is 4 under do(B = 0); of A = 1, E = 3 alone, 3.152778."""
    unit = {k: torch.tensor([v]).double() for k, v in zip("ABCDE", (1, 2, -1, 0.5, 3), strict=True)}
    found = effect(linear, "E", do={"B": 0.0}, among=unit)
    assert float(found.treated) == pytest.approx(4.0, abs=1e-6)
    assert float(found.control) == pytest.approx(3.0, abs=1e-6)
    found = effect(linear, "E", do={"B": 0.0}, versus={"B": 1.0}, among={"A": 1.0, "E": 3.0})
    assert float(found.treated) == pytest.approx(3.152778, abs=1e-6)
    assert float(found.difference) == pytest.approx(0.5, abs=1e-6)
    ett = effect(linear, "E", do={"B": 1.0}, versus={"B": 0.0}, among={"B": 1.0})
    assert float(ett.treated) == pytest.approx(0.1, abs=1e-6), "E[E | B = 1]"
    assert float(ett.difference) == pytest.approx(-0.5, abs=1e-6)


def test_firing_squad() -> None:
    """Pearl (2009, sec. 7.1.2): court U, captain C, riflemen A (nervous, W) and B, prisoner D.

    P(D would live, had A not shot | D is dead) = (1 - p) q / (1 - (1 - p)(1 - q)).
    """
    p, q = 0.6, 0.3
    copy = [[1.0, 0.0], [0.0, 1.0]]
    either = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
    scm = SCM(
        "U -> C; C -> {A B}; W -> A; {A B} -> D",
        U=CategoricalTable([1 - p, p]),
        W=CategoricalTable([1 - q, q]),
        C=CategoricalTable(copy, parents=["U"]),
        A=CategoricalTable(either, parents=["C", "W"]),
        B=CategoricalTable(copy, parents=["C"]),
        D=CategoricalTable(either, parents=["A", "B"]),
    )
    found = effect(scm, "D", do={"A": 0}, among={"D": 1}, level=0)
    dead = 1 - (1 - p) * (1 - q)
    assert float(found.treated) == pytest.approx((1 - p) * q / dead, abs=1e-6)
    assert found.bounds is None, "nothing but the roots is random"
    found = effect(scm, "D", do={"C": 0}, given={"A": 1}, level=1)
    assert float(found.treated) == pytest.approx(1.0), "A shot without an order, and D is dead"


@settings(max_examples=2)
@given(st.integers(0, 1000))
def test_bounds_of_a_unit_hold_its_couplings_and_are_sharp(seed: int) -> None:
    """Of x -> y with y seen: P(y' | y) lies between Frechet's ends, both couplings inside."""
    g = torch.Generator().manual_seed(seed)
    table = torch.rand(2, 3, generator=g).softmax(-1)
    scm = SCM("x -> y", x=CategoricalTable([0.5, 0.5]), y=CategoricalTable(table, parents=["x"]))
    p, q = table.double()
    for j in range(3):
        low = max(0.0, float(p[0] + q[j] - 1)) / float(p[0])
        high = min(1.0, float(q[j] / p[0]))
        for coupling in ("gumbel", "monotone"):
            found = effect(
                scm, "y", do={"x": 1}, among={"x": 0, "y": 0}, level=j, coupling=coupling
            )
            assert found.bounds is not None
            gap = float(found.control)
            assert float(found.bounds[0]) == pytest.approx(low - gap, abs=1e-5)
            assert float(found.bounds[1]) == pytest.approx(high - gap, abs=1e-5)
            assert low - 1e-6 <= float(found.treated) <= high + 1e-6
            assert f"y in two worlds at once, by {coupling} coupling" in str(found)


def test_enumeration_and_the_ladder_agree() -> None:
    """The value under a coupling, by closed form and by particles of the noise."""
    g = torch.Generator().manual_seed(3)
    scm = SCM(
        "z -> x -> y; z -> y",
        z=CategoricalTable(torch.rand(2, generator=g).softmax(-1)),
        x=CategoricalTable(torch.rand(2, 2, generator=g).softmax(-1), parents=["z"]),
        y=CategoricalTable(3 * torch.rand(2, 2, 3, generator=g).softmax(-1) / 3, ["z", "x"]),
    )
    seen = {"x": torch.tensor([0]), "y": torch.tensor([2])}
    for coupling in ("gumbel", "monotone"):
        found = effect(scm, "y", do={"x": 1}, among=seen, coupling=coupling)
        drawn = causal.counterfactual(
            scm, seen, do={"x": 1}, particles=20_000, coupling=coupling, seed=0
        )
        assert torch.allclose(found.treated, drawn.mean()["y"][0].double(), atol=0.02)


def test_effects_of_an_arrow(linear: SCM) -> None:
    """E hears of C as if it were 1: E = C + D + u with D as it is, so that its mean is 1."""
    found = effect(linear, "E", do={("C", "E"): 1.0}, versus={("C", "E"): 0.0})
    assert float(found.treated) == pytest.approx(1.0, abs=1e-6)
    tables = SCM(
        "x -> y", x=CategoricalTable([0.5, 0.5]), y=CategoricalTable(rows([0.1, 0.9]), ["x"])
    )
    found = effect(tables, "y", do={("x", "y"): 1}, level=1)
    assert float(found.treated) == pytest.approx(0.9, abs=1e-6)
    assert float(found.control) == pytest.approx(0.5, abs=1e-6)


def test_controlled_direct_effect(linear: SCM) -> None:
    """B -> D -> E with C held: .7."""
    found = effect(linear, "E", do={"B": 1.0, "C": 2.0}, versus={"B": 0.0, "C": 2.0})
    assert float(found.difference) == pytest.approx(0.7, abs=1e-6)


def test_individual_effects_have_an_interval_and_draws(linear: SCM) -> None:
    data = pgm.sample(linear, 300, seed=0)
    causal.estimate(linear, data)
    few = {name: x[:3] for name, x in data.items()}
    asked: dict[str, Any] = {"do": {"B": 1.0}, "versus": {"B": 0.0}, "refits": 40, "seed": 0}
    found = effect(linear, "E", among=few, data=data, **asked)
    assert found.by_row.shape == (3, 1)
    assert float(found.lower) < -0.4 and float(found.upper) > -0.6
    draws = found.to_xarray()
    assert dict(draws["E"].sizes) == {"chain": 1, "draw": 40, "world": 2, "rows": 3, "level": 1}
    ends = draws["effect"].quantile([0.025, 0.975], dim=("chain", "draw")).values.ravel()
    assert ends.tolist() == pytest.approx([float(found.lower), float(found.upper)])
    assert found.samples is None


def test_common_noise_makes_the_error_that_of_the_difference() -> None:
    """y = 10 z + x + u with a policy that has no closed form: the difference is 1 in every row."""
    scm = SCM(
        "z -> y; x -> y",
        z=LinearGaussian(),
        x=LinearGaussian(),
        y=LinearGaussian({"z": 10.0, "x": 1.0}),
    )
    shift = {"x": lambda value, parents: value + 1.0}
    found = effect(scm, "y", do=shift, draws=500, seed=0)
    assert float(found.difference) == pytest.approx(1.0, abs=1e-4)
    assert float(found.error) < 1e-4


def test_evidence_of_probability_zero_is_refused() -> None:
    scm = SCM("x -> y", x=CategoricalTable([1.0, 0.0]), y=CategoricalTable(rows([0.1, 0.9]), ["x"]))
    with pytest.raises(ValueError, match="probability zero"):
        effect(scm, "y", do={"x": 0}, given={"x": 1})


def test_a_private_fit_answers_and_says_so() -> None:
    """The note of the ledger is carried by every kind of answer; causal never imports privacy."""
    import privacy

    g = torch.Generator().manual_seed(0)
    x = (torch.rand(400, generator=g) < 0.5).long()
    y = (torch.rand(400, generator=g) < 0.2 + 0.6 * x).long()
    binary = pgm.Categorical((0, 1))
    scm = SCM("x -> y", schema=pgm.Schema({"x": binary, "y": binary}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        privacy.fit(scm, {"x": x, "y": y}, epsilon=5.0, delta=1e-5, steps=10, seed=0)
    assert scm.note is not None
    answers: list[Any] = [
        effect(scm, "y", draws=10, **DO),
        effect(scm, "y", among={"x": 1}, **DO),
        causal.causation(scm, "y", event=1, **DO),
    ]
    for answer in answers:
        assert scm.note in str(answer)
    with pytest.raises(ValueError, match="beyond what it says"):
        causal.causation(scm, "y", event=1, data={"x": x, "y": y}, **DO)
