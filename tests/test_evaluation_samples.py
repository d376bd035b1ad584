"""Two-sample scores and bits a dimension: closed forms, exact levels of the tests, refusals."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact, norm
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from pgm.evaluation import bits_per_dimension, c2st, dequantise, mmd
from pgm.verbs import LogProb


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gaussian_mmd(shift: float, sigma: float) -> float:
    """MMD^2 of N(0, 1) and N(shift, 1): with s^2 = sigma^2 + 2, E k = sigma / s exp(-d^2/2s^2)."""
    s = math.sqrt(sigma**2 + 2)
    return 2 * sigma / s * (1 - math.exp(-(shift**2) / (2 * s**2)))


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_mmd_is_unbiased_for_shifted_gaussians(shift: float) -> None:
    runs = [
        mmd(normal(60, 1, seed=k), normal(90, 1, seed=k + 500) + shift, bandwidth=1, permutations=1)
        for k in range(150)
    ]
    squared = torch.tensor([run.squared for run in runs])
    error = float(squared.std()) / math.sqrt(len(runs))
    assert abs(float(squared.mean()) - gaussian_mmd(shift, 1.0)) < 4 * error


def test_mmd_equals_the_double_sums_of_the_paper() -> None:
    x, y, sigma = normal(5, 2), normal(7, 2, seed=1) + 0.3, 0.8

    def k(a: Tensor, b: Tensor) -> float:
        return math.exp(-float((a - b).square().sum()) / (2 * sigma**2))

    xx = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / (5 * 4)
    yy = sum(k(y[i], y[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    xy = sum(k(a, b) for a in x for b in y) / (5 * 7)
    assert mmd(x, y, bandwidth=sigma, permutations=1).squared == pytest.approx(xx + yy - 2 * xy)


@pytest.mark.parametrize("score", [mmd, c2st])
def test_the_level_of_the_test_is_kept(score: object) -> None:
    options = {"permutations": 60} if score is mmd else {"classifier": KNeighborsClassifier(3)}
    below = [
        score(normal(30, 2, seed=k), normal(40, 2, seed=k + 900), seed=k, **options).p_value <= 0.1  # type: ignore[operator]
        for k in range(150)
    ]
    upper = 0.1 * 150 + norm.ppf(0.9999) * math.sqrt(150 * 0.1 * 0.9)
    assert sum(below) <= upper


@pytest.mark.parametrize("score", [mmd, c2st])
def test_samples_of_other_distributions_are_found_out(score: object) -> None:
    x, y = normal(150, 2), normal(150, 2, seed=1) * torch.tensor([1.0, 2.5])
    assert score(x, y, seed=0).p_value < 0.005  # type: ignore[operator]


def test_c2st_p_value_is_fishers() -> None:
    class Threshold(KNeighborsClassifier):
        def fit(self, X: object, y: object) -> "Threshold":
            return self

        def predict(self, X: object) -> object:
            return (X[:, 0] > 0.4).astype(int)  # type: ignore[index]

    x, y = normal(40, 1), normal(40, 1, seed=1) + 0.6
    result = c2st(x, y, classifier=Threshold(), seed=3)
    torch.manual_seed(3)
    x, y = x[torch.randperm(40)][:20], y[torch.randperm(40)][:20]
    hit, false = int((y > 0.4).sum()), int((x > 0.4).sum())
    table = [[hit, false], [20 - hit, 20 - false]]
    assert result.p_value == pytest.approx(fisher_exact(table, "greater")[1])
    assert result.accuracy == pytest.approx((hit + 20 - false) / 40)


@pytest.mark.parametrize("score", [mmd, c2st])
def test_same_seed_same_score_and_the_global_state_stays(score: object) -> None:
    x, y = normal(20, 2), normal(25, 2, seed=1)
    before = torch.get_rng_state()
    assert score(x, y, seed=7) == score(x, y, seed=7)  # type: ignore[operator]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(5, 2), torch.zeros(5, 3), "same shape and the same units"),
        (torch.zeros(1, 2), torch.zeros(5, 2), "or more"),
        (torch.zeros(5, 2), torch.full((5, 2), torch.nan), "10 values that are NaN"),
    ],
)
@pytest.mark.parametrize("score", [mmd, c2st])
def test_refusals(score: object, x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(x, y)  # type: ignore[operator]


@given(scale=st.floats(0.1, 100.0), nats=st.floats(-50.0, 50.0))
def test_bits_do_not_depend_on_the_units_of_dequantised_data(scale: float, nats: float) -> None:
    exact = LogProb(torch.full((3,), nats), torch.zeros(3), "exact")
    scaled = LogProb(exact.value + 4 * math.log(scale), exact.error, "exact")
    bits = bits_per_dimension(exact, 4, dequantised=1.0)
    assert bits_per_dimension(scaled, 4, dequantised=scale).value == pytest.approx(
        bits.value, abs=1e-5
    )
    assert (bits.kind, bits.measure) == ("bound", "counting")


def test_dequantised_bound_is_tight_for_a_density_that_is_flat_in_each_level() -> None:
    probability = torch.tensor([0.5, 0.25, 0.125, 0.125])
    x = torch.tensor([0.0, 0, 0, 0, 1, 1, 2, 3])[:, None]
    y = dequantise(x, scale=4.0, seed=0)
    density = (probability[(4 * y).long()] * 4).log().flatten()
    bits = bits_per_dimension(LogProb(density, torch.zeros(8), "exact"), 1, dequantised=4.0)
    assert bits.value == pytest.approx(1.75)  # the entropy of the four levels


def test_the_error_is_that_of_the_mean_over_rows() -> None:
    value = normal(400)
    bits = bits_per_dimension(LogProb(value, torch.zeros(400), "estimate"), 2, discrete=True)
    expected = float(value.std()) / math.sqrt(400) / 2 / math.log(2)
    assert (bits.error, bits.kind) == (pytest.approx(expected), "estimate")


def test_bits_refuse_what_has_no_meaning() -> None:
    log_prob = LogProb(torch.zeros(2), torch.zeros(2), "exact")
    with pytest.raises(ValueError, match="Both discrete"):
        bits_per_dimension(log_prob, 2, dequantised=1.0, discrete=True)
    with pytest.raises(ValueError, match="scale"):
        bits_per_dimension(log_prob, 2, dequantised=0.0)
    with pytest.raises(ValueError, match="at least one number"):
        bits_per_dimension(log_prob, 0)
    with pytest.raises(ValueError, match="holds fractions"):
        dequantise(torch.tensor([0.5]))
