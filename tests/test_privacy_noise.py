"""Secure noise: its law is the discrete Gaussian, it comes from the system, and it is accounted.

Known answer: P(x) in proportion to exp(-x^2 / 2 sigma^2) on the integers (Canonne, Kamath & Steinke
2020, Def. 1). The bits come from a seeded generator here, so that a test of a law never fails by
chance.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import nn

import pgm
import privacy
from privacy import noise
from privacy.noise import BITS, discrete_gaussian, on_grid, width
from privacy.optimiser import PrivateOptimiser


class Still(pgm.Model):
    """2000 numbers that the loss reaches with gradient zero."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2000))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(0.0 * self.w.sum(), torch.ones(1)).to_event(1))


GOOD: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-4, "seed": 0, "steps": 2, "rate": 0.5}


def seeded_bits(seed: int = 0) -> Any:
    return np.random.default_rng(seed).bytes


def goodness_of_fit(b: int, n: int = 100_000) -> float:
    """The p-value of a chi-square test against the probabilities themselves."""
    draws, sigma = discrete_gaussian(n, b, seeded_bits()), 2.0**b
    far = int(5 * sigma)
    cells = np.arange(-far, far + 1)
    p = np.exp(-(cells**2) / (2 * sigma**2))
    counts = np.array([(draws == k).sum() for k in cells])
    expected = n * p / p.sum()
    kept = expected > 5
    observed = np.append(counts[kept], n - counts[kept].sum())
    rest = np.append(expected[kept], n - expected[kept].sum())
    return float(stats.chisquare(observed, rest).pvalue)


@pytest.mark.parametrize("b", [0, 1, 3])
def test_it_has_the_probabilities_of_the_discrete_gaussian(b: int) -> None:
    assert goodness_of_fit(b) > 1e-3


def test_a_rounded_gaussian_or_a_laplace_law_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(size: int, b: int, bits: Any) -> Any:
        return np.rint(np.random.default_rng(0).normal(0, 2.0**b, size)).astype(np.int64)

    with monkeypatch.context() as patch:
        patch.setitem(globals(), "discrete_gaussian", rounded)
        assert goodness_of_fit(0) < 1e-9
    always = lambda n, b, bits: np.ones(len(n), dtype=np.bool_)  # noqa: E731
    real = noise._bernoulli_exp
    monkeypatch.setattr(
        noise,
        "_bernoulli_exp",
        lambda n, b, bits: (always if b == 2 * 1 + 1 else real)(n, b, bits),
    )
    assert goodness_of_fit(1) < 1e-9


@pytest.mark.parametrize("K", [1, 2, 3, 7])
def test_one_of_so_many(K: int) -> None:
    found = noise._one_of(60_000, K, seeded_bits())
    assert stats.binomtest(int(found.sum()), 60_000, 1 / K).pvalue > 1e-3


def test_on_the_grid_it_is_gaussian_with_the_noise_of_the_accountant() -> None:
    noisy = on_grid(np.zeros(20_000), sensitivity=0.4, sigma=1.5, bits=seeded_bits())
    assert stats.kstest(noisy / 0.6, "norm").pvalue > 1e-3
    g = width(20_000, sensitivity=0.4, sigma=1.5)
    np.testing.assert_allclose(noisy / g, np.rint(noisy / g), atol=1e-6)


def test_rounding_is_paid_for() -> None:
    """Neighbours are |v| <= C / g + sqrt(d) cells apart after rounding; the noise covers that."""
    rng = np.random.default_rng(0)
    for d in (1, 1000, 100_000):
        g = width(d, sensitivity=1.0, sigma=2.0)
        x, change = rng.normal(size=d) * 100, rng.normal(size=d)
        y = x + change / np.linalg.norm(change)
        cells = np.linalg.norm(np.rint(x / g) - np.rint(y / g))
        assert cells <= 1.0 / g + math.sqrt(d) * 1.002 <= 2.0**BITS / 2.0 * (1 + 1e-12)
    with pytest.raises(ValueError, match="do not fit the grid"):
        width(10**12, sensitivity=1.0, sigma=1.0)


def test_a_secure_fit_has_its_noise_whatever_the_seed() -> None:
    weights = []
    for _ in range(2):
        model = Still()
        run = privacy.PrivateTraining(
            model, torch.zeros(20, 1), secure=True, learning_rate=1.0, clip=0.3,
            optimiser=torch.optim.SGD, **GOOD,
        )  # fmt: skip
        next(iter(run))
        weights.append(model.w.detach().clone())
    assert not torch.equal(*weights), "the seed does not repeat it"
    expected = run.release.noise_multiplier * 0.3 / 10
    assert float(weights[0].std()) == pytest.approx(expected, rel=0.1)
    assert run.accountant == "rdp"
    assert run.release.epsilon(accountant="rdp") <= 1.0
    report = str(run.report)
    assert "discrete Gaussian noise on a grid" in report and "guess" not in report
    with pytest.raises(ValueError, match="Leave accountant= out"):
        privacy.fit(Still(), torch.zeros(20, 1), secure=True, accountant="prv", **GOOD)


def test_a_secure_fit_with_a_generator_all_the_same_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = PrivateOptimiser.__mro__[1].add_noise  # type: ignore[attr-defined]
    monkeypatch.setattr(PrivateOptimiser, "add_noise", plain)
    with pytest.raises(AssertionError, match="does not repeat"):
        test_a_secure_fit_has_its_noise_whatever_the_seed()


def test_the_count_of_adaptive_clipping_is_secure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = noise.on_grid
    monkeypatch.setattr(
        "privacy.optimiser.on_grid",
        lambda x, **options: (sizes.append((len(x), options["sensitivity"])), real(x, **options))[
            1
        ],
    )
    privacy.fit(Still(), torch.zeros(20, 1), secure=True, clip=privacy.AdaptiveClip(), **GOOD)
    assert [size for size, _ in sizes] == [2000, 1, 2000, 1]
    assert [sensitivity for _, sensitivity in sizes][1::2] == [0.5, 0.5]


def test_the_count_of_a_lot_of_ten_million_fits_the_grid() -> None:
    clip, lot = privacy.AdaptiveClip(), 1e7
    sigma = clip.count_noise(1.0, lot)
    assert sigma == 50_000 and 1 / clip.gradient_noise(1.0, lot) ** 2 == pytest.approx(1.0)
    noisy = [float(on_grid(np.zeros(1), sensitivity=0.5, sigma=2 * sigma)[0]) for _ in range(500)]
    assert sigma <= 1.15 * np.std(noisy) <= 1.5 * sigma


def test_noise_that_does_not_fit_the_grid_is_refused_before_a_step() -> None:
    ledger, clip = privacy.Ledger(), privacy.AdaptiveClip(noise=1e6)
    with pytest.raises(ValueError, match="do not fit the grid"):
        privacy.fit(Still(), torch.zeros(20, 1), secure=True, clip=clip, ledger=ledger, **GOOD)
    assert ledger.releases == ()


def test_secure_statistics_lie_on_a_grid_and_are_in_the_ledger() -> None:
    ledger, frame = privacy.Ledger(), pd.DataFrame({"age": [30.0, 50.0] * 500})
    found = privacy.count(frame, epsilon=1.0, delta=1e-6, ledger=ledger, noise="discrete")
    assert abs(found - 1000) < 60
    (release,) = ledger.releases
    assert release.mechanism == "discrete Gaussian"
    assert ledger.epsilon(1e-6, accountant="rdp") <= 1.0
    g = width(1, sensitivity=1.0, sigma=release.noise_multiplier)
    assert found / g == pytest.approx(round(found / g), abs=1e-4)
    schema = pgm.Schema({"age": pgm.Continuous(lower=0, upper=100)})
    table = privacy.histogram(
        frame, schema, "age", bins=2, epsilon=1.0, delta=1e-6, ledger=ledger, noise="discrete"
    )
    assert (table - 500).abs().max() < 600 and len(ledger.releases) == 2
