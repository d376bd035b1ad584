"""Probabilities of causation: published numbers, and the closed forms of Tian & Pearl (2000)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from causal import bounds
from causal.graph import parse
from causal.identification import Table, random_network
from causal.identification.bounds import Bounds

ONE, ZERO = {"X": 1}, {"X": 0}
DRUG = {"drug": (0, 1), "death": (0, 1)}
CASE = ({"death": 1}, {"do": {"drug": 1}, "versus": {"drug": 0}})


def ends(bound: Bounds) -> tuple[float, float]:
    return bound.lower, bound.upper


def test_the_drug_of_the_lawsuit() -> None:
    """Pearl (2009), sec. 9.3.4, table 9.2: experiment 16 and 14 of 1000, seen 2 and 28 of 1000."""
    joint = Table(torch.tensor([[972.0, 28.0], [998.0, 2.0]]) / 2000, DRUG)
    found = bounds.causation(joint, CASE[0], **CASE[1], experiment=(0.016, 0.014))
    assert ends(found.necessary) == pytest.approx((1.0, 1.0))
    assert ends(found.both) == pytest.approx((0.002, 0.016))
    rows = {"drug": [1] * 1000 + [0] * 1000, "death": [1] * 16 + [0] * 984 + [1] * 14 + [0] * 986}
    again = bounds.causation(joint, CASE[0], **CASE[1], experiment=rows)
    assert ends(again.both) == pytest.approx(ends(found.both))


def test_radiation_and_leukaemia() -> None:
    """Finkelstein & Levin (1990); Pearl (2009), table 9.1: under both assumptions PN is the ERR."""
    counts = torch.tensor([[59010.0, 16.0], [69130.0, 30.0]]).double()
    joint = Table(counts / counts.sum(), DRUG)
    found = bounds.causation(joint, CASE[0], **CASE[1], monotone=True, exogenous=True)
    high, low = 30 / 69160, 16 / 59026
    assert ends(found.necessary) == pytest.approx(((high - low) / high,) * 2, rel=1e-6)
    assert ends(found.sufficient) == pytest.approx(((high - low) / (1 - low),) * 2, rel=1e-6)
    assert ends(found.both) == pytest.approx((high - low,) * 2, rel=1e-6)


@given(st.integers(0, 10_000))
def test_the_program_is_the_closed_form_of_tian_and_pearl(seed: int) -> None:
    """Tian & Pearl (2000), with an experiment and nothing assumed."""
    network = random_network(parse("X -> Y; X <-> Y"), seed=seed, largest=2)
    joint, set_ = network.joint(), network.interventional(["Y"], do=["X"])
    arms = (set_.at(Y=1, X=1), set_.at(Y=1, X=0))
    found = bounds.causation(joint, {"Y": 1}, do=ONE, versus=ZERO, experiment=arms)
    xy, other, neither = joint.at(X=1, Y=1), joint.at(X=0, Y=1), joint.at(X=0, Y=0)
    x_not_y, y = joint.at(X=1, Y=0), joint.marginal(["Y"]).at(Y=1)
    treated, control = arms
    assert ends(found.both) == pytest.approx(
        (
            max(0, treated - control, y - control, treated - y),
            min(treated, 1 - control, xy + neither, treated - control + x_not_y + other),
        ),
        abs=1e-8,
    )
    assert ends(found.necessary) == pytest.approx(
        (max(0, (y - control) / xy), min(1, (1 - control - neither) / xy)), abs=1e-6
    )
    assert ends(found.sufficient) == pytest.approx(
        (max(0, (treated - y) / neither), min(1, (treated - xy) / neither)), abs=1e-6
    )


def test_exogeneity_alone() -> None:
    """Pearl (2009), sec. 9.2.2: PNS, and PN and PS as shares of P(y | x) and P(y' | x')."""
    joint = random_network(parse("X -> Y"), seed=2, largest=2).joint()
    found = bounds.causation(joint, {"Y": 1}, do=ONE, versus=ZERO, exogenous=True)
    treated, control = (joint.at(X=x, Y=1) / joint.marginal(["X"]).at(X=x) for x in (1, 0))
    low, high = max(0, treated - control), min(treated, 1 - control)
    assert ends(found.both) == pytest.approx((low, high))
    assert ends(found.necessary) == pytest.approx((low / treated, high / treated))
    assert ends(found.sufficient) == pytest.approx((low / (1 - control), high / (1 - control)))
    assert "assumed exogenous" in str(found)


def test_data_and_assumptions_that_contradict_each_other() -> None:
    joint = Table(torch.tensor([[0.4, 0.1], [0.4, 0.1]]), DRUG)
    with pytest.raises(ValueError, match=r"contradict each other.*different populations\."):
        bounds.causation(joint, CASE[0], **CASE[1], experiment=(0.9, 0.2))
    with pytest.raises(ValueError, match="monotonicity does not hold"):
        bounds.causation(joint, CASE[0], **CASE[1], experiment=(0.1, 0.3), monotone=True)
    with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
        bounds.causation(joint, CASE[0], **CASE[1], experiment=(1.2, 0.3))
    with pytest.raises(ValueError, match="two, and all"):
        three = Table(torch.full((3, 2), 1 / 6), {"drug": (0, 1, 2), "death": (0, 1)})
        bounds.causation(three, CASE[0], **CASE[1])
    with pytest.raises(ValueError, match="probability zero"):
        bounds.causation(Table(torch.tensor([[0.5, 0.1], [0.4, 0.0]]), DRUG), CASE[0], **CASE[1])
