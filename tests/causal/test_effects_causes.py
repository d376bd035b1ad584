"""Probabilities of causation: Tian & Pearl (2000), response types by enumeration, draws."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import causal
import pgm
from causal import SCM, CategoricalTable, LinearGaussian, causation
from causal.effects.causes import tian_pearl

DO: dict[str, Any] = {"do": {"x": 1}, "versus": {"x": 0}}


def binary(p: Any) -> Tensor:
    p = torch.as_tensor(p)
    return torch.stack([1 - p, p], -1)


def randomised(without: float, with_: float) -> SCM:
    """x -> y, nothing confounds."""
    y = CategoricalTable(binary([without, with_]), parents=["x"])
    return SCM("x -> y", x=CategoricalTable([0.5, 0.5]), y=y)


@settings(max_examples=10)
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_exogeneity(q: float, p: float) -> None:
    """Tian & Pearl (2000), thms. 1 to 3: bounds under exogeneity, the values under monotonicity."""
    found = causation(randomised(q, p), "y", event=1, **DO)
    assert found.bounds is not None
    low, high = ([float(v) for v in b] for b in found.bounds)
    assert low == pytest.approx(
        [max(0, (p - q) / p), max(0, (p - q) / (1 - q)), max(0, p - q)], abs=1e-5
    )
    assert high == pytest.approx(
        [min(1, (1 - q) / p), min(1, p / (1 - q)), min(p, 1 - q)], abs=1e-5
    )
    if p > q:  # one threshold for both outcomes: no one is harmed
        assert found.values.flatten().tolist() == pytest.approx(
            [(p - q) / p, (p - q) / (1 - q), p - q], abs=1e-5
        )


def test_excess_risk_of_radiation() -> None:
    """Pearl (2009, sec. 9.3.3): 30 of 69160 exposed children died of leukaemia, 16 of 59026."""
    found = causation(randomised(16 / 59026, 30 / 69160), "y", event=1, **DO)
    assert float(found["PN"]) == pytest.approx(0.375, abs=1e-3)
    assert float(found["PNS"]) == pytest.approx(0.0001625, abs=5e-7)
    assert float(found["PS"]) == pytest.approx(0.0001625, abs=5e-7)


def test_a_legal_case() -> None:
    """Pearl (2009, table 9.2): experiment and choice together make the drug the cause, PN = 1.

    u is whether a man chooses the drug and what would become of him with and without it.
    """
    types = list(itertools.product((0, 1), (0, 1), (0, 1)))  # x, y with, y without
    law = dict.fromkeys(types, 0.0)
    law |= {(1, 1, 0): 0.001, (1, 0, 0): 0.499, (0, 1, 0): 0.004, (0, 1, 1): 0.011}
    law |= {(0, 0, 1): 0.003, (0, 0, 0): 0.482}
    scm = SCM(
        "u -> {x y}; x -> y",
        u=CategoricalTable([law[t] for t in types]),
        x=CategoricalTable(binary([float(x) for x, _, _ in types]), ["u"]),
        y=CategoricalTable(binary([[float(b), float(a)] for _, a, b in types]), ["u", "x"]),
    )
    found = causation(scm, "y", event=1, **DO)
    assert float(found["PN"]) == pytest.approx(1.0, abs=1e-5)
    assert float(found["PS"]) == pytest.approx(0.004 / 0.486, abs=1e-5)
    assert float(found["PNS"]) == pytest.approx(0.005, abs=1e-5)
    assert found.bounds is not None
    assert torch.allclose(*found.bounds), "nothing but u is random"
    pn, ps, pns = tian_pearl(0.016, 0.014, seen=(0.001, 0.499, 0.014, 0.486))
    assert pn == pytest.approx((1.0, 1.0))
    assert pns[0] <= 0.005 <= pns[1] and ps[0] <= 0.004 / 0.486 <= ps[1]
    seen = torch.tensor([[0.486, 0.014], [0.499, 0.001]])
    joint = causal.Table(seen, {"x": (0, 1), "y": (0, 1)})
    solved = causal.bounds.causation(
        joint, {"y": 1}, do={"x": 1}, versus={"x": 0}, experiment=(0.016, 0.014)
    )
    programmes = (solved.necessary, solved.sufficient, solved.both)
    for closed, programme in zip((pn, ps, pns), programmes, strict=True):
        assert closed == pytest.approx((programme.lower, programme.upper), abs=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_bounds_of_experiments_and_observations_hold_the_truth(seed: int) -> None:
    """Response types of a cause with three values, drawn at random."""
    g = torch.Generator().manual_seed(seed)
    types = torch.rand(3, 2, 2, generator=g).pow(3).double()  # x, Y(1), Y(0)
    types = types / types.sum()
    p, q = float(types[:, 1].sum()), float(types[:, :, 1].sum())
    seen = types[1, 1].sum(), types[1, 0].sum(), types[0, :, 1].sum(), types[0, :, 0].sum()
    xy, xn, ay, an = (float(v) for v in seen)
    truth = [types[1, 1, 0] / xy, types[0, 1, 0] / an, types[:, 1, 0].sum()]
    bounds = tian_pearl(p, q, seen=(xy, xn, ay, an))
    for value, (low, high) in zip(truth, bounds, strict=True):
        assert low - 1e-9 <= float(value) <= high + 1e-9


def test_confounded_causes_by_enumeration() -> None:
    """z -> {x y}, x -> y: PN = sum_z P(z | x, y) PN(z), each stratum with one threshold."""
    pz, px = torch.tensor([0.6, 0.4]), torch.tensor([0.3, 0.8])
    py = torch.tensor([[0.2, 0.5], [0.4, 0.7]])
    scm = SCM(
        "z -> {x y}; x -> y",
        z=CategoricalTable(pz),
        x=CategoricalTable(binary(px), ["z"]),
        y=CategoricalTable(binary(py), ["z", "x"]),
    )
    found = causation(scm, "y", event=1, **DO)
    both = py[:, 1] - py[:, 0]
    assert float(found["PNS"]) == pytest.approx(float(pz @ both), abs=1e-6)
    pn = float((pz * px) @ both / ((pz * px) @ py[:, 1]))
    assert float(found["PN"]) == pytest.approx(pn, abs=1e-6)
    ps = float((pz * (1 - px)) @ both / ((pz * (1 - px)) @ (1 - py[:, 0])))
    assert float(found["PS"]) == pytest.approx(ps, abs=1e-6)


def test_draws_where_nothing_is_enumerated() -> None:
    """y = x + u, the event y > 1: PNS = P(0 < u <= 1), by the model's one noise; PN is a share."""
    scm = SCM(
        "x -> y",
        x=CategoricalTable([0.5, 0.5]),
        y=LinearGaussian({"x": [0.0, 1.0]}),
    )
    found = causation(scm, "y", event=lambda y: y > 1, draws=20_000, seed=0, **DO)
    normal = torch.distributions.Normal(0.0, 1.0)
    above, below = 0.5, 1 - float(normal.cdf(torch.tensor(1.0)))
    truth = [(above - below) / above, (above - below) / (1 - below), above - below]
    assert bool(((found.values[:, 0] - torch.tensor(truth)).abs() < 4.5 * found.error[:, 0]).all())
    assert found.bounds is not None
    assert bool((found.bounds[0] <= found.values).all())
    assert bool((found.values <= found.bounds[1]).all())
    assert "y in two worlds at once, as the noise" in str(found)


@pytest.mark.parametrize("seed", range(4))
def test_values_lie_within_the_bounds_of_the_same_draws(seed: int) -> None:
    """A third level of the cause, and y | x normal: Frechet's bounds are known, and reached.

    Y(x) = x + u > 1 with one u: whoever has the event without x has it with x, so that every value
    is at its lower bound, (p - q) / p, (p - q) / (1 - q) and p - q.
    """
    scm = SCM("x -> y", x=CategoricalTable([0.4, 0.3, 0.3]), y=LinearGaussian({"x": [0.0, 1.0, 2]}))
    found = causation(scm, "y", event=lambda y: y > 1, draws=3000, seed=seed, **DO)
    assert found.bounds is not None
    low, high = found.bounds
    assert bool((low <= found.values).all()) and bool((found.values <= high).all())
    p, q = 0.5, 0.158655
    truth = torch.tensor([(p - q) / p, (p - q) / (1 - q), p - q])
    assert torch.allclose(low[:, 0], truth.double(), atol=0.08)
    most = torch.tensor([1.0, p / (1 - q), p])
    assert torch.allclose(high[:, 0], most.double(), atol=0.08)


def test_bounds_where_what_is_seen_depends_on_a_coupling() -> None:
    """w as it was seen and y in another world need m in both: the bounds are Tian & Pearl's."""
    scm = SCM(
        "x -> m -> w; {m w} -> y",
        x=CategoricalTable([0.5, 0.5]),
        m=LinearGaussian({"x": [0.0, 1.0]}),
        w=causal.Ordinal({"m": 1.0}, cutpoints=[0.0]),
        y=LinearGaussian({"m": 1.0, "w": [0.0, 1.0]}),
    )
    asked: dict[str, Any] = {"do": {"x": 1, "w": 1}, "versus": {"x": 0, "w": 0}}
    found = causation(scm, "y", event=lambda y: y > 1, draws=3000, seed=0, **asked)
    assert found.bounds is not None
    assert bool((found.bounds[0] <= found.values).all())
    assert bool((found.values <= found.bounds[1]).all())


def test_rare_events_are_not_reported() -> None:
    scm = SCM("x -> y", x=LinearGaussian(), y=LinearGaussian({"x": 1.0}))
    asked: dict[str, Any] = {"do": {"x": 1.0}, "versus": {"x": 0.0}, "draws": 100, "seed": 0}
    found = causation(scm, "y", event=lambda y: y > 0, **asked)
    assert bool(found["PN"].isnan()) and not bool(found["PNS"].isnan())
    assert "PN, PS: fewer than 10 of the rows" in str(found)
    assert found.bounds is not None
    assert found.bounds[0].isnan().flatten().tolist() == [True, True, False]


def test_the_posterior_of_a_probability_of_causation() -> None:
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(500, generator=g) < 0.5).long()
    y = (torch.rand(500, generator=g) < 0.2 + 0.6 * x).long()
    level = pgm.Categorical((0, 1))
    scm = SCM("x -> y", schema=pgm.Schema({"x": level, "y": level}))
    from causal import estimate

    estimate(scm, {"x": x, "y": y})
    found = causation(scm, "y", event=1, data={"x": x, "y": y}, refits=40, seed=0, **DO)
    assert float(found.lower[2]) < 0.6 < float(found.upper[2])
    assert found.to_xarray()["PNS"].sizes["draw"] == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event": 2}, "event=2: the levels of 'y' are: 0, 1"),
        ({"event": 1, "versus": {}}, "two values of the same sites"),
        ({"event": 1, "do": {"x": lambda parents: 1}}, "two values of the same sites"),
        ({"event": 1, "draws": 1}, "two or more"),
    ],
)
def test_questions_without_an_answer(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        causation(randomised(0.2, 0.6), "y", **{**DO, **options})
