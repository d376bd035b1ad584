"""Simulation-based calibration: exact posteriors pass, and those of another spread do not."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist

import pgm
from pgm.batch import Batch
from pgm.inference import Posterior
from pgm.inference.calibration import Infer, calibrate

N = 4


class Mean(pgm.Model):
    """y ~ N(mu, 1), mu ~ N(0, 2^2)."""

    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu, 1.0))


def scaled(spread: float, shift: float = 0.0) -> Infer:
    """The exact posterior, its sd multiplied and its mean moved."""

    def infer(model: pgm.Model, batch: Batch, seed: int) -> Posterior:
        v = 1 / (1 / 4 + N)
        mean = v * batch["y"].double().sum()
        g = torch.Generator().manual_seed(seed + 1)
        noise = torch.randn(1, 49, generator=g, dtype=torch.float64)
        draws = mean + math.sqrt(v) * (shift + spread * noise)
        return Posterior({"mu": draws}, {}, model, batch, 0.0, "nuts", {"mu": ()})

    return infer


def found(infer: Infer, simulations: int = 150) -> pgm.inference.calibration.Calibration:
    options = {"draws": 49, "bins": 10, "progress": False}
    return calibrate(Mean(), {"y": torch.zeros(N)}, infer=infer, simulations=simulations, **options)


def test_exact_posteriors_are_calibrated() -> None:
    calibration = found(scaled(1.0))
    assert calibration.calibrated, str(calibration)
    assert list(calibration.ranks) == ["mu", "log likelihood"]
    assert len(calibration.plot("mu").patches) >= 10


@pytest.mark.parametrize(
    ("spread", "shift", "word"),
    [(0.5, 0.0, "too narrow"), (3.0, 0.0, "too wide"), (1.0, 1.5, "biased towards large values")],
)
def test_other_spreads_and_means_are_told_by_name(spread: float, shift: float, word: str) -> None:
    said = found(scaled(spread, shift)).problems()
    assert any(f"posterior of mu is {word}" in each for each in said), said


def test_same_seed_same_ranks() -> None:
    first, second = (found(scaled(1.0), 50).ranks["mu"] for _ in range(2))
    assert first.tolist() == second.tolist()


def test_impossible_numbers_are_refused() -> None:
    data = {"y": torch.zeros(N)}
    with pytest.raises(ValueError, match="multiple of 20"):
        calibrate(Mean(), data, draws=50)
    with pytest.raises(ValueError, match="five a bin"):
        calibrate(Mean(), data, simulations=50)
    with pytest.raises(ValueError, match="missing"):
        calibrate(Mean(), {"y": torch.tensor([math.nan, 1.0])})
    with pytest.raises(ValueError, match="has 49 draws"):
        calibrate(Mean(), data, infer=scaled(1.0), simulations=100)
