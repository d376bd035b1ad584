"""Attribution against the closed forms of linear-Gaussian models, where all four have one."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from causal import SCM, CategoricalTable, LinearGaussian
from causal.attribution import (
    arrow_strength,
    attribute_anomaly,
    attribute_change,
    intrinsic_influence,
)

NODES = "ABCDE"
ARROWS = {"AB": 0.5, "AC": 1.0, "BC": -0.8, "BD": 0.7, "CD": 0.5, "CE": 1.0, "DE": 1.0}


def total_effects() -> np.ndarray:
    """(I - W)^-1 of the model of the fixture `linear`, effects in rows."""
    W = np.zeros((5, 5))
    for (cause, effect), weight in ARROWS.items():
        W[NODES.index(effect), NODES.index(cause)] = weight
    return np.linalg.inv(np.eye(5) - W)


def test_arrow_strength_is_the_squared_weight_times_the_variance_of_the_cause(linear: SCM) -> None:
    """Janzing et al. (2013): w^2 var(cause), here 2 from C and 1.7625 from D."""
    T = total_effects()
    variance = np.diag(T @ T.T)
    found = arrow_strength(linear, "E", seed=0)
    for cause in "CD":
        truth = ARROWS[cause + "E"] ** 2 * variance[NODES.index(cause)]
        assert float(found.parts[cause]) == pytest.approx(truth, rel=0.06)
    weak = arrow_strength(linear, "C", seed=0)
    assert float(weak.parts["B"]) == pytest.approx(0.64 * 1.25, rel=0.06)


def test_intrinsic_influence_is_the_squared_total_effect_times_the_noise(linear: SCM) -> None:
    """Janzing et al. (2021): the parts of var E = 6.0625 are 1.5625, .25, 2.25, 1 and 1."""
    found = intrinsic_influence(linear, "E", seed=0)
    truth = total_effects()[4] ** 2
    for node, share in zip(NODES, truth, strict=True):
        assert float(found.parts[node]) == pytest.approx(share, abs=0.12)
    assert float(found.total) == pytest.approx(truth.sum(), rel=0.03)
    again = intrinsic_influence(linear, "E", seed=0)
    assert all(float(found.parts[n]) == float(again.parts[n]) for n in NODES)


def test_an_anomaly_is_laid_at_the_noise_that_was_odd(linear: SCM) -> None:
    """Noise of 5 in B, C or E alone; the parts add up to -log P(as far from the median)."""
    rows = []
    for odd in "BCE":
        u = np.where(np.array(list(NODES)) == odd, 5.0, 0.1)
        rows.append(total_effects() @ u)
    frame = pd.DataFrame(rows, columns=list(NODES))
    found = attribute_anomaly(linear, frame, "E", draws=2000, seed=0)
    parts = torch.stack([found.parts[n] for n in NODES])
    assert parts[:, 1].argmax() == NODES.index("C")
    assert parts[:, 2].argmax() == NODES.index("E")
    deviation = frame["E"].abs().to_numpy() / math.sqrt(6.0625)
    tail = [math.log(math.erfc(d / math.sqrt(2))) for d in deviation]
    assert found.total.numpy()[1:] == pytest.approx([-t for t in tail[1:]], rel=0.25)


def shifted(intercept: float, scale: float) -> SCM:
    return SCM(
        "X -> M -> Y",
        X=LinearGaussian(),
        M=LinearGaussian({"X": 2.0}, intercept=intercept),
        Y=LinearGaussian({"M": 3.0}, scale=scale),
    )


@pytest.mark.parametrize(
    ("measure", "truth"),
    [("mean", {"X": 0.0, "M": 1.5, "Y": 0.0}), ("variance", {"X": 0.0, "M": 0.0, "Y": 24.0})],
)
def test_a_change_is_laid_at_the_mechanism_that_changed(
    measure: str, truth: dict[str, float]
) -> None:
    """M's intercept moves by .5, which moves E Y by 1.5; Y's noise grows from 1 to 5."""
    found = attribute_change(
        shifted(0.0, 1.0), shifted(0.5, 5.0), "Y", measure=measure, draws=40_000, seed=0
    )
    for node, share in truth.items():
        assert float(found.parts[node]) == pytest.approx(
            share, abs=0.12 if measure == "mean" else 1
        )


def test_levels_have_arrows_whose_strength_is_a_divergence() -> None:
    """x fair, P(y=1 | x) = .1 or .9, so .5 without the arrow: KL = log 2 - H(.1)."""
    scm = SCM(
        "x -> y",
        x=CategoricalTable([0.5, 0.5]),
        y=CategoricalTable([[0.9, 0.1], [0.1, 0.9]], parents=["x"]),
    )
    found = arrow_strength(scm, "y", draws=500, seed=0)
    truth = math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9)
    assert float(found.parts["x"]) == pytest.approx(truth, abs=0.04)
    with pytest.raises(ValueError, match="a row does not fix their noise"):
        attribute_anomaly(scm, pd.DataFrame({"x": [0], "y": [1]}), "y")
    with pytest.raises(ValueError, match="has levels and no mean"):
        attribute_change(scm, scm, "y")


def test_bad_questions_are_explained(linear: SCM) -> None:
    with pytest.raises(ValueError, match="'A' is a root"):
        arrow_strength(linear, "A")
    with pytest.raises(ValueError, match="'Z' is not in the graph"):
        intrinsic_influence(linear, "Z")
    with pytest.raises(ValueError, match="no column A"):
        attribute_anomaly(linear, pd.DataFrame({"B": [1.0]}), "E")
    with pytest.raises(ValueError, match="different graphs"):
        attribute_change(linear, shifted(0, 1), "E")
    with pytest.raises(ValueError, match="there are 'mean'"):
        attribute_change(linear, linear, "E", measure="mode")
