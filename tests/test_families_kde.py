"""KDE: known numbers, other libraries' numbers, the leave-one-out bandwidth, exact imputation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.neighbors import KernelDensity

import pgm
from pgm.batch import Batch, as_batch
from pgm.families import kde
from pgm.families.kde import KDE
from pgm.inference.bandwidth import Epanechnikov

POINTS = pgm.data.load("parzen").x
NAN = float("nan")


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def density(model: pgm.Model, x: torch.Tensor) -> list[float]:
    return pgm.log_prob(model, x).value.exp().tolist()


@pytest.mark.parametrize(("bandwidth", "at_zero"), [(1.0, 0.10820651), (2.0, 0.10138937)])
def test_gaussian_windows_on_six_points(bandwidth: float, at_zero: float) -> None:
    """The example of Murphy (2023), Fig. 20.5: the mean of six normal densities."""
    model = KDE(POINTS, bandwidth=bandwidth)
    assert density(model, torch.zeros(1, 1)) == pytest.approx([at_zero], rel=1e-6)
    grid = torch.linspace(-15, 15, 61).unsqueeze(-1)
    by_hand = norm.pdf(grid.numpy(), POINTS.numpy().T, bandwidth).mean(1)
    assert density(model, grid) == pytest.approx(by_hand.tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("bandwidth", "x", "within"),
    [(1.0, 0.0, 1), (2.0, 0.0, 3), (0.5, -1.7, 2), (1.0, -1.25, 3), (1.0, 3.5, 0), (2.0, 4.0, 1)],
)
def test_uniform_windows_count_the_points_within_reach(
    bandwidth: float, x: float, within: int
) -> None:
    """K(u) = 1/2 I(|u| <= 1) (Murphy 2022, Table 16.1): so many points of six, over 2 h."""
    model = KDE(POINTS, bandwidth=bandwidth, kernel="uniform")
    expected = within / (6 * 2 * bandwidth)
    assert density(model, torch.tensor([[x]])) == pytest.approx([expected], rel=1e-6)


@pytest.mark.parametrize(
    ("kernel", "name"),
    [("gaussian", "gaussian"), ("uniform", "tophat"), ("epanechnikov", "epanechnikov")],
)
def test_scikit_learn_has_the_same_density(kernel: kde.Kernel, name: str) -> None:
    x = draws(40, 1, seed=1)
    theirs = KernelDensity(kernel=name, bandwidth=0.7).fit(POINTS.numpy()).score_samples(x.numpy())
    ours = density(KDE(POINTS, bandwidth=0.7, kernel=kernel), x)
    assert ours == pytest.approx(np.exp(theirs).tolist(), rel=1e-4)


def test_a_window_in_several_dimensions_is_a_product() -> None:
    points, x = draws(7, 3), draws(5, 3, seed=1)
    by_hand = norm.pdf(x[:, None].numpy(), points.numpy(), 0.8).prod(-1).mean(1)
    assert density(KDE(points, bandwidth=0.8), x) == pytest.approx(by_hand.tolist(), rel=1e-4)
    square = KDE(torch.zeros(1, 2), bandwidth=2.0, kernel="uniform")
    parabola = KDE(torch.zeros(1, 2), bandwidth=2.0, kernel="epanechnikov")
    at = torch.tensor([[1.0, -0.5], [1.9, 2.1]])
    product = (0.75 * (1 - 0.25)) * (0.75 * (1 - 0.0625)) / 4
    assert density(parabola, at) == pytest.approx([product, 0.0])
    inside_and_out = torch.tensor([[1.9, -1.9], [1.9, 2.1]])
    assert density(square, inside_and_out) == pytest.approx([1 / 16, 0.0])


@given(
    kernel=st.sampled_from(["gaussian", "uniform", "epanechnikov"]),
    seed=st.integers(0, 100),
    hidden=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_the_program_and_the_own_density_agree(
    kernel: kde.Kernel, seed: int, hidden: list[bool]
) -> None:
    model = KDE(draws(5, 2, seed=seed), bandwidth=1.5, kernel=kernel)
    x = draws(4, 2, seed=seed + 1).masked_fill(torch.tensor(hidden).reshape(4, 2), NAN)
    own = pgm.log_prob(model, x)
    generic = pgm.log_weight(model, as_batch(x)).rows.detach()
    assert own.kind == "exact"
    assert torch.allclose(own.value, generic, atol=1e-5)


def test_missing_cells_are_integrated_out() -> None:
    points = draws(6, 2)
    both, first = KDE(points), KDE(points[:, :1])
    x = torch.tensor([[0.3, NAN], [NAN, NAN]])
    assert density(both, x) == pytest.approx([*density(first, x[:1, :1]), 1.0], rel=1e-5)


def test_the_bandwidth_of_highest_leave_one_out_likelihood_is_learned() -> None:
    """The optimum is found by scipy from the formula of Duin (1976), written out in numpy."""
    points = POINTS.double()

    def by_hand(h: float) -> float:
        gap = points.numpy() - points.numpy().T
        others = norm.pdf(gap, scale=h)[~np.eye(6, dtype=bool)].reshape(6, 5)
        return float(-np.log(others.mean(1)).mean())

    best = minimize_scalar(by_hand, bounds=(0.5, 5.0), method="bounded", options={"xatol": 1e-10})
    assert best.x == pytest.approx(2.133091958, abs=1e-6)
    loss = pgm.objective(KDE(points, bandwidth=0.9), points).mean().item()
    assert loss == pytest.approx(by_hand(0.9), rel=1e-9)
    model = KDE(points)
    options = {"steps": 150, "learning_rate": 0.1, "schedule": "cosine", "seed": 0}
    pgm.fit(model, points, progress=False, **options)
    assert model.bandwidth.item() == pytest.approx(best.x, abs=1e-3)


def left_out(points: torch.Tensor, kernel: str, h: float) -> float:
    """The mean leave-one-out log-likelihood, written out."""
    u = (points[:, None] - points).double().numpy() / h
    each = {
        "gaussian": norm.pdf(u),
        "uniform": 0.5 * (np.abs(u) <= 1),
        "epanechnikov": np.maximum(0.75 * (1 - u**2), 0),
    }[kernel]
    windows = each.prod(-1) / h ** points.shape[1]
    np.fill_diagonal(windows, 0)
    with np.errstate(divide="ignore"):
        return float(np.log(windows.sum(1) / (len(points) - 1)).mean())


def test_the_six_points_have_the_known_bandwidth() -> None:
    """2.133091958 by minimisation (issue 5); the root of the slope, by 40 digits of mpmath."""
    points = torch.tensor([[-2.1], [-1.3], [-0.4], [1.9], [5.1], [6.2]], dtype=torch.float64)
    h = KDE.from_data(points).bandwidth.item()
    assert h == pytest.approx(2.133091958, abs=1e-7)
    assert h == pytest.approx(2.1330919301734481, abs=1e-11)


@pytest.mark.parametrize("kernel", ["gaussian", "uniform", "epanechnikov"])
@pytest.mark.parametrize("d", [1, 3])
def test_no_bandwidth_of_a_fine_grid_is_better(kernel: kde.Kernel, d: int) -> None:
    points = torch.cat([draws(30, d), draws(10, d, seed=1) / 4 + 3])
    h = KDE.from_data(points, kernel=kernel).bandwidth.item()
    best = left_out(points, kernel, h)
    assert math.isfinite(best)
    others = [left_out(points, kernel, float(g)) for g in np.geomspace(h / 20, h * 20, 600)]
    assert best >= max(others) - 1e-5, (h, best)


@pytest.mark.parametrize(
    ("x", "kernel", "says"),
    [
        (torch.zeros(1, 1), "gaussian", "two rows"),
        (torch.tensor([[0.0], [0.0], [1.0], [1.0]]), "gaussian", "Drop the duplicates"),
        (torch.tensor([[0.0, NAN]]), "gaussian", "complete row"),
        (torch.randn(6000, 1), "uniform", "GiB"),
    ],
)
def test_rows_without_a_best_bandwidth_are_explained(
    x: torch.Tensor, kernel: kde.Kernel, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        KDE.from_data(x, kernel=kernel)


def test_ten_dimensions_are_exact() -> None:
    """Where every window is e^-300 and less, and scikit-learn's tree is hundreds of nats off."""
    points, x = draws(500, 10), draws(20, 10, seed=1)
    u = (x.double()[:, None] - points.double()).numpy() / 0.1
    by_hand = logsumexp(norm.logpdf(u).sum(-1) - 10 * math.log(0.1), axis=1) - math.log(500)
    ours = pgm.log_prob(KDE(points.double(), bandwidth=0.1), x.double()).value
    assert ours.tolist() == pytest.approx(by_hand.tolist(), abs=1e-9)
    single = pgm.log_prob(KDE(points, bandwidth=0.1), x).value
    assert single.tolist() == pytest.approx(by_hand.tolist(), rel=1e-5)


def test_one_coincident_centre_is_left_out_and_no_more() -> None:
    model = KDE(torch.tensor([[0.0], [0.0], [1.0]]))
    loss = pgm.objective(model, torch.tensor([[0.0], [1.0], [0.5]]))
    phi = norm.pdf
    expected = [(phi(0) + phi(1)) / 2, phi(1), (2 * phi(0.5) + phi(0.5)) / 3]
    assert (-loss).exp().tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(loss[2], pgm.surprise(model, torch.tensor([[0.5]]))[0])


def test_a_row_with_missing_cells_coincides_where_its_seen_cells_do() -> None:
    model = KDE(torch.tensor([[0.0, 5.0], [1.0, 6.0], [3.0, 7.0]]))
    loss = pgm.objective(model, torch.tensor([[0.0, NAN]]))
    assert (-loss).exp().tolist() == pytest.approx([(norm.pdf(1) + norm.pdf(3)) / 2], rel=1e-5)


@pytest.mark.parametrize("kernel", ["uniform", "epanechnikov"])
def test_a_kernel_that_ends_learns_nothing_by_gradients_and_says_so(kernel: kde.Kernel) -> None:
    model = KDE(POINTS, kernel=kernel)
    assert "Use kernel='gaussian'" in pgm.abilities(model)["objective"]
    assert pgm.abilities(KDE(POINTS))["objective"] == "own"
    with pytest.raises(pgm.Unsupported, match=r"KDE cannot objective: .* Use kernel='gaussian'"):
        pgm.fit(model, POINTS, steps=1, progress=False)


def test_completions_come_from_the_centres_that_fit_what_was_seen() -> None:
    """p(k | x_seen) is 1 / (1 + e^-2) : e^-2 for centres at 0 and 2 and a cell seen at 0."""
    model = KDE(torch.tensor([[0.0, -50.0], [2.0, 50.0]]))
    done = pgm.impute(model, torch.tensor([[0.0, NAN]]), draws=4000, seed=0)
    y = done.draws["x"][:, 0, 1]
    share = 1 / (1 + math.exp(-2.0))
    assert float((y < 0).float().mean()) == pytest.approx(share, abs=4 * (0.1 / 4000) ** 0.5)
    assert float(y[y < 0].std()) == pytest.approx(1.0, abs=0.06)
    assert bool((done.draws["x"][..., 0] == 0).all())


def test_a_row_outside_every_window_cannot_be_completed() -> None:
    model = KDE(torch.zeros(1, 2), kernel="uniform")
    assert math.isinf(pgm.log_prob(model, torch.tensor([[5.0, NAN]])).value)
    with pytest.raises(ValueError, match="outside every window"):
        pgm.impute(model, torch.tensor([[5.0, NAN]]))


def test_pieces_that_fit_memory_give_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = KDE(draws(30, 2)), draws(50, 2, seed=1)
    whole = pgm.log_prob(model, x).value
    monkeypatch.setattr(kde, "_AT_ONCE", 120)
    assert torch.equal(pgm.log_prob(model, x).value, whole)


def test_samples_are_points_plus_noise() -> None:
    x = pgm.sample(KDE(torch.tensor([[-4.0], [4.0]]), bandwidth=0.5), 4000, seed=0)["x"]
    assert float((x > 0).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float((x.abs() - 4).std()) == pytest.approx(0.5, abs=0.03)
    u = pgm.sample(KDE(torch.zeros(1, 1), bandwidth=3.0, kernel="uniform"), 4000, seed=0)["x"]
    assert float(u.abs().max()) <= 3.0
    assert float(u.std()) == pytest.approx(3 / math.sqrt(3), abs=0.06)
    model = KDE(torch.zeros(1, 1), bandwidth=3.0, kernel="epanechnikov")
    e = pgm.sample(model, 4000, seed=0)["x"]
    assert float(e.abs().max()) < 3.0
    assert float(e.std()) == pytest.approx(3 / math.sqrt(5), abs=0.05)


def test_the_points_are_a_copy() -> None:
    points = draws(4, 1)
    model = KDE(points)
    before = model.points.clone()
    points.zero_()
    assert torch.equal(model.points, before)


@pytest.mark.parametrize(
    ("points", "bandwidth", "kernel", "says"),
    [
        (torch.zeros(3), 1.0, "gaussian", r"shape \(N, d\), one row a point"),
        (torch.zeros(3, 1, dtype=torch.int64), 1.0, "gaussian", "int64"),
        ([[0.0]], 1.0, "gaussian", r"points is \[\[0.0\]\]"),
        (torch.zeros(0, 2), 1.0, "gaussian", "empty"),
        (torch.tensor([[NAN]]), 1.0, "gaussian", "not finite"),
        (torch.zeros(3, 1), 0.0, "gaussian", "bandwidth is 0.0"),
        (torch.zeros(3, 1), math.inf, "gaussian", "bandwidth is inf"),
        (torch.zeros(3, 1), 1.0, "boxcar", "'uniform' and 'epanechnikov'"),
    ],
)
def test_bad_arguments_are_explained(
    points: object, bandwidth: float, kernel: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        kde._check(points, bandwidth, kernel)


def test_bad_rows_are_explained() -> None:
    model = KDE(draws(3, 2))
    with pytest.raises(ValueError, match=r"shape \(3, 1\), but the model's rows have shape \(2,\)"):
        pgm.log_prob(model, torch.zeros(3, 1))
    with pytest.raises(ValueError, match="'k'"):
        pgm.log_prob(model, Batch(x=torch.zeros(1, 2), k=torch.zeros(1)))
    with pytest.raises(ValueError, match="one point"):
        pgm.objective(KDE(torch.zeros(1, 1)), torch.zeros(1, 1))
    for verb in ("encode", "decode"):
        with pytest.raises(pgm.Unsupported, match=f"KDE cannot {verb}: .* Use "):
            getattr(pgm, verb)(model, torch.zeros(1, 2))


def test_the_parabola_has_its_moments() -> None:
    """Mean and variance by the midpoint rule, and those of draws."""
    kernel = Epanechnikov(torch.tensor(1.5).double(), torch.tensor(2.0).double())
    x = -0.5 + 4 * (torch.arange(4000).double() + 0.5) / 4000
    p = kernel.log_prob(x).exp() / 1000
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    assert (p * (x - 1.5).square()).sum().item() == pytest.approx(kernel.variance.item(), abs=1e-6)
    with pgm.seeded(0):
        drawn = kernel.sample((20_000,))
    assert drawn.mean().item() == pytest.approx(kernel.mean.item(), abs=4 * (0.8 / 20_000) ** 0.5)
    assert drawn.var().item() == pytest.approx(kernel.variance.item(), rel=0.04)
