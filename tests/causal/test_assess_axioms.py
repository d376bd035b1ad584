"""Composition, reversibility and effectiveness: zero for exact models, not for broken ones."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

import pgm
from causal import SCM, CategoricalTable
from causal.assess import soundness

NEEDS = {"x": torch.tensor([1.0, 2.0, -1.0]), "y": torch.tensor([3.0, 3.5, 0.0])}


def test_a_linear_model_is_sound(linear: SCM) -> None:
    rows = pgm.sample(linear, 50, seed=0)
    found = soundness(linear, rows, do={"B": 2.0}, cycles=3)
    assert found.worst < 1e-12
    assert set(found.composition) == set("ABCDE")
    assert found.effectiveness == 0


def test_a_coupling_of_levels_composes_but_does_not_reverse() -> None:
    """The noise abducted from the imagined row is not that of the row that was seen."""
    scm = SCM(
        "x -> y",
        x=CategoricalTable([0.5, 0.5]),
        y=CategoricalTable([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], parents=["x"]),
    )
    rows = pgm.sample(scm, 400, seed=0)
    found = soundness(scm, rows, do={"x": 1}, seed=0)
    assert set(found.composition.values()) == {0.0}
    assert found.effectiveness == 0
    assert 0.01 < found.reversibility["y"] < 0.5
    assert "reversibility" in str(found)


class Forgetful(pgm.Model):
    """y hears of x in its spread alone, so that nothing in y tells what x was set to."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(0.0, 1.0 + 0 * x))


def test_effectiveness_is_what_an_oracle_reads(doubling: pgm.Model) -> None:
    def oracle(rows: dict[str, Tensor]) -> Tensor:
        return rows["y"] / 2

    good = soundness(doubling, NEEDS, do={"x": 3.0}, oracle=oracle)
    bad = soundness(Forgetful(), NEEDS, do={"x": 3.0}, oracle=oracle)
    spread = float(NEEDS["x"].std())
    assert good.effectiveness == pytest.approx(1.75 / 3 / spread)  # noise 1, -.5, 2, halved
    assert bad.effectiveness > 1


def test_bad_input_is_explained(doubling: pgm.Model) -> None:
    with pytest.raises(ValueError, match="one site at a time"):
        soundness(doubling, NEEDS, do={"x": 1.0, "y": 2.0})
    with pytest.raises(ValueError, match="not seen in every row"):
        soundness(doubling, {"y": NEEDS["y"]}, do={"x": 1.0})
    with pytest.raises(ValueError, match="no one value"):
        soundness(doubling, NEEDS, do={"x": dist.Normal(0.0, 1.0)})
