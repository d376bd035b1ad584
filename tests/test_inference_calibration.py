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


def test_the_noise_of_the_truth_does_not_come_again_in_the_method() -> None:
    """A method that draws from the prior by its seed would otherwise draw the truth itself."""
    same = []

    def infer(model: pgm.Model, batch: Batch, seed: int) -> Posterior:
        with pgm.seeded(seed):
            model.model(N)
            again = pgm.sample(model, N, seed=seed)["y"]
        same.append(bool(torch.isclose(again, batch["y"]).any()))
        return scaled(1.0)(model, batch, seed)

    found(infer, 50)
    assert not any(same)


class Coins(pgm.Model):
    """A count, which is a latent of few values, beside the probability that it is computed from."""

    def model(self, n: int) -> None:
        p = pyro.sample("p", dist.Beta(torch.tensor(1.0), torch.tensor(1.0)))
        pyro.deterministic("tenths", (10 * p).floor())
        with pgm.rows(n):
            pyro.sample("y", dist.Bernoulli(p))


def test_ranks_among_equals_are_by_chance() -> None:
    def infer(model: pgm.Model, batch: Batch, seed: int) -> Posterior:
        with pgm.seeded(seed + 1):
            heads = float(batch["y"].sum())
            p = dist.Beta(1 + heads, 1 + N - heads).sample(torch.Size([1, 49])).double()
        draws = {"p": p, "tenths": (10 * p).floor()}
        return Posterior(draws, {}, model, batch, 0.0, "nuts", {"p": (), "tenths": ()})

    options = {"draws": 49, "bins": 10, "progress": False}
    calibration = calibrate(Coins(), {"y": torch.zeros(N)}, infer=infer, simulations=300, **options)
    assert calibration.calibrated, str(calibration)
    assert float(calibration.frame()["mean"]["tenths"]) == pytest.approx(0.5, abs=0.06)


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
