"""Copulas: SciPy's normal and t, ranks, tails, conditional laws, and what they refuse."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar
from torch import Tensor

import causal
import pgm
from pgm.data import load
from pgm.families.copula import GaussianCopula, TCopula
from pgm.inference.copulas import dependence, marginals

NAN = float("nan")


def made(cls: Any, d: int = 3, seed: int = 0, **options: Any) -> GaussianCopula:
    """A copula with parameters away from where they start, in double precision."""
    model: GaussianCopula = cls(d, **options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim():
                shift = 0.5 * torch.randn(parameter.shape, generator=generator)
                parameter.add_(shift)
    return model


def moments(model: GaussianCopula) -> tuple[np.ndarray, np.ndarray]:
    s = model.marginals.log_scale.exp().detach().numpy()
    R = model.correlation.detach().numpy()
    return model.marginals.location.detach().numpy(), s[:, None] * R * s


@given(seed=st.integers(0, 99), hidden=st.lists(st.booleans(), min_size=6, max_size=6))
def test_with_normal_marginals_it_is_the_multivariate_normal(seed: int, hidden: list[bool]) -> None:
    model = made(GaussianCopula, seed=seed)
    x = 2 * torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)).double()
    x = x.masked_fill(torch.tensor(hidden).reshape(2, 3), NAN)
    mean, C = moments(model)
    for row, value in zip(x.numpy(), pgm.log_prob(model, x).value.tolist(), strict=True):
        s = ~np.isnan(row)
        ours = stats.multivariate_normal.logpdf(row[s], mean[s], C[np.ix_(s, s)]) if s.any() else 0
        assert value == pytest.approx(ours, abs=1e-9)


def test_with_student_marginals_of_the_same_df_it_is_the_multivariate_t() -> None:
    model = made(TCopula, marginals="student", df=4.5)
    with torch.no_grad():
        model.marginals.log_df.fill_(math.log(4.5))
    mean, C = moments(model)
    theirs = stats.multivariate_t(mean, C, df=4.5)
    x = torch.from_numpy(theirs.rvs(20, random_state=0))
    assert np.allclose(pgm.log_prob(model, x).value, theirs.logpdf(x.numpy()), atol=1e-6)
    part = stats.multivariate_t(mean[[0, 2]], C[np.ix_([0, 2], [0, 2])], df=4.5)
    x[:, 1] = NAN
    theirs_ = part.logpdf(x.numpy()[:, [0, 2]])
    assert np.allclose(pgm.log_prob(model, x).value, theirs_, atol=1e-6)


@pytest.mark.parametrize("cls", [GaussianCopula, TCopula])
def test_bounded_columns_are_changes_of_variable(cls: Any) -> None:
    bounds: dict[str, Any] = {"lower": [0.0, None, -1.0], "upper": [None, 2.0, 3.0]}
    model, plain = made(cls, **bounds), made(cls)
    x = pgm.sample(model, 50, seed=0)["x"]
    assert bool((x[:, 0] > 0).all() and (x[:, 1] < 2).all() and (x[:, 2].abs() < 3).all())
    y = torch.stack([x[:, 0].log(), -(2 - x[:, 1]).log(), ((x[:, 2] + 1) / 4).logit()], -1)
    slope = torch.stack([1 / x[:, 0], 1 / (2 - x[:, 1]), 4 / (x[:, 2] + 1) / (3 - x[:, 2])], -1)
    expected = pgm.log_prob(plain, y).value + slope.log().sum(-1)
    assert torch.allclose(pgm.log_prob(model, x).value, expected, atol=1e-8)
    outside = x.clone()
    outside[0, 0], outside[1, 1], outside[2, 2] = -0.1, 2.1, 3.5
    assert (pgm.log_prob(model, outside).value[:3] == -math.inf).all()
    with pytest.raises(ValueError, match="Row 1 has a seen cell beyond the bounds"):
        pgm.impute(model, outside[[5, 0]], draws=1)


@pytest.mark.parametrize("cls", [GaussianCopula, TCopula])
@pytest.mark.parametrize("law", ["normal", "student"])
def test_kendalls_tau_of_draws_is_that_of_the_correlation(cls: Any, law: Any) -> None:
    """tau = 2 / pi arcsin(rho), whatever the marginals (Lindskog, McNeil & Schmock 2003)."""
    model = made(cls, marginals=law, lower=[0.0, None, None])
    x = pgm.sample(model, 3000, seed=1)["x"].numpy()
    for i, j in [(0, 1), (1, 2)]:
        tau = stats.kendalltau(x[:, i], x[:, j]).statistic
        assert tau == pytest.approx(model.kendall[i, j].item(), abs=4 * 0.67 / 3000**0.5)


@pytest.mark.parametrize(("rho", "df"), [(0.5, 4.0), (-0.3, 2.0), (0.9, 10.0)])
def test_tail_dependence_is_that_of_demarta_and_mcneil(rho: float, df: float) -> None:
    model = TCopula(2, df=df).double()
    with torch.no_grad():
        model.below[0] = rho / (1 - rho**2) ** 0.5
    expected = 2 * stats.t.cdf(-math.sqrt((df + 1) * (1 - rho) / (1 + rho)), df + 1)
    assert model.tail_dependence[0, 1].item() == pytest.approx(expected, rel=1e-6)
    assert model.tail_dependence[0, 0].item() == pytest.approx(1)
    assert torch.equal(GaussianCopula(2).tail_dependence, torch.eye(2))


@pytest.mark.parametrize("rho", [-0.8, 0.0, 0.5, 0.9])
def test_tail_dependence_of_one_and_three_degrees_of_freedom_is_algebraic(rho: float) -> None:
    """lambda is 1 - s for nu = 1, and 1 - 3 s / 2 + s^3 / 2 for nu = 3, s^2 = (1 - rho) / 2.

    From T_2(t) = (1 + t / sqrt(2 + t^2)) / 2 and T_4(t) = 1/2 + 3/8 u (1 - u^2 / 12), with
    u = t / sqrt(1 + t^2 / 4), at t = -sqrt((nu + 1) (1 - rho) / (1 + rho)).
    """
    s = ((1 - rho) / 2) ** 0.5
    for df, known in [(1.0, 1 - s), (3.0, 1 - 1.5 * s + 0.5 * s**3)]:
        model = TCopula(2, df=df).double()
        with torch.no_grad():
            model.below[0] = rho / (1 - rho**2) ** 0.5
        assert model.tail_dependence[0, 1].item() == pytest.approx(known, rel=1e-6)


def test_tail_dependence_is_what_the_draws_show() -> None:
    """lambda = 2 lim P(X_2 > x | X_1 = x) for columns of one law (l'Hopital on the definition)."""
    model = TCopula(2, marginals="student", df=3.0).double()
    with torch.no_grad():
        model.below[0] = 0.57735
        model.marginals.log_df.fill_(math.log(3.0))
    for far in (1e3, -1e3):
        drawn = pgm.impute(model, torch.tensor([[far, NAN]]).double(), draws=20_000, seed=0)
        beyond = (drawn.draws["x"][:, 0, 1] * math.copysign(1, far) > 1e3).double().mean().item()
        known = model.tail_dependence[0, 1].item()
        assert 2 * beyond == pytest.approx(known, abs=4 * 2 * (0.16 / 20_000) ** 0.5)


@pytest.mark.parametrize("law", ["normal", "kernel"])
def test_completions_are_draws_from_the_conditional(law: Any) -> None:
    """p(x_2 | x_1) on a fine grid, as a ratio of joint densities."""
    points = load("two_moons", n=60).x.double() if law == "kernel" else None
    for cls in (GaussianCopula, TCopula):
        model = cls(2, marginals=law, points=points).double()
        with torch.no_grad():
            model.below[0] = 1.2
        x = torch.tensor([[1.1, NAN]]).double()
        y = pgm.impute(model, x, draws=3000, seed=0).draws["x"]
        assert torch.equal(y[:, 0, 0], x[0, 0].expand(3000))
        grid = torch.linspace(-40, 40, 8001).double()
        joint = torch.stack([x[0, 0].expand(len(grid)), grid], -1)
        density = pgm.log_prob(model, joint).value - pgm.log_prob(model, x).value
        cdf = (density.exp() * (grid[1] - grid[0])).cumsum(0)
        assert cdf[-1].item() == pytest.approx(1, abs=2e-3)
        ours = np.interp(y[:, 0, 1].numpy(), grid.numpy(), cdf.numpy())
        assert stats.kstest(ours, "uniform").statistic < 1.63 / 3000**0.5


@pytest.mark.parametrize("law", ["student", "kernel"])
@pytest.mark.parametrize("cls", [GaussianCopula, TCopula])
def test_draws_fall_where_the_density_says(cls: Any, law: Any) -> None:
    """Counts of draws in 5 x 5 boxes against the integral of the density, by chi-square."""
    points = (load("two_moons", n=40).x + 2).double() if law == "kernel" else None
    model = made(cls, 2, marginals=law, lower=[0.0, None], points=points)
    with torch.no_grad():
        model.below[0] = 1.5
    x = pgm.sample(model, 4000, seed=0)["x"]
    cuts = [x[:, j].quantile(torch.linspace(0.2, 0.8, 4).double()) for j in range(2)]

    def box(y: Tensor) -> Tensor:
        i, j = (torch.bucketize(y[:, c].contiguous(), cuts[c]) for c in range(2))
        return 5 * i + j

    fine = torch.special.ndtri((torch.arange(240) + 0.5).double() / 240)
    grid = torch.cartesian_prod(fine, fine)  # scores: p(x) dx = p / (f_1 f_2) du_1 du_2
    with torch.no_grad():
        y = model.marginals.inverse(grid)
        log_c = pgm.log_prob(model, y).value - model.marginals.scores(y)[1].sum(-1)
    p = torch.zeros(25).double().index_add(0, box(y), log_c.exp() / 240**2)
    assert p.sum().item() == pytest.approx(1, abs=0.02)
    observed = torch.bincount(box(x), minlength=25)
    found = stats.chisquare(observed.numpy(), (4000 * p / p.sum()).numpy(), ddof=8)
    assert found.pvalue > 1e-3


def test_kernel_marginals_are_those_of_scipy() -> None:
    points = load("two_moons", n=80).x.double()
    model = GaussianCopula(2, marginals="kernel", points=points)
    h = model.marginals.log_scale.exp().numpy()
    for j in range(2):
        column = torch.full((5, 2), NAN).double()
        column[:, j] = torch.linspace(-1.5, 2.5, 5)
        each = stats.norm.logpdf(column[:, [j]].numpy(), points[:, j].numpy(), h[j])
        expected = np.log(np.exp(each).mean(1))
        assert np.allclose(pgm.log_prob(model.double(), column).value, expected)
    z = torch.tensor([[-9.0, 8.0], [0.0, 0.3], [-1.5, 2.0], [30.0, -30.0]]).double()
    back, _ = model.marginals.scores(model.marginals.inverse(z))
    assert torch.allclose(back, z, atol=1e-7)


def test_quantiles_of_kernels_are_found_in_a_few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score that is met is left alone: bisecting it away and back took forty looks a row."""
    looked, look = list[int](), marginals._scores_in_pieces

    def counted(y: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        looked.append(len(y))
        return look(y, *others)

    monkeypatch.setattr(marginals, "_scores_in_pieces", counted)
    model = GaussianCopula.from_data(load("two_moons", n=500).x)
    x = pgm.sample(model, 2000, seed=0)["x"]
    assert sum(looked) < 4 * x.numel()
    z = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)).double()
    back = model.double().marginals.scores(model.marginals.inverse(z))[0]
    assert torch.allclose(back, z, rtol=0, atol=1e-9)


def test_the_estimate_is_the_maximum_and_recovers_the_truth() -> None:
    truth = np.array([[1, 0.6, 0.2], [0.6, 1, -0.3], [0.2, -0.3, 1]])
    w = stats.multivariate_t(shape=truth, df=4).rvs(1500, random_state=1)
    u = stats.t.cdf(w, 4)
    columns = {"a": stats.lognorm.ppf(u[:, 0], 0.8), "b": stats.beta.ppf(u[:, 1], 2, 5)}
    frame = pd.DataFrame(columns | {"c": stats.t.ppf(u[:, 2], 5)})
    kinds = {"a": pgm.Continuous(lower=0), "b": pgm.Continuous(lower=0, upper=1)}
    schema = pgm.Schema({**kinds, "c": pgm.Continuous()})
    model = TCopula.from_data(frame, marginals="student", schema=schema)
    assert np.allclose(model.correlation.detach(), truth, atol=0.07)
    assert 3 < model.df.item() < 6
    own = {k: p for k, p in model.named_parameters() if "." not in k}
    loss = pgm.objective(model, frame).mean()
    for gradient in torch.autograd.grad(loss, list(own.values())):
        assert gradient.abs().max() < 2e-3
    gaussian = GaussianCopula.from_data(frame, marginals="student", schema=schema)
    gap = pgm.log_prob(model, frame).mean[0] - pgm.log_prob(gaussian, frame).mean[0]
    assert gap > 0.05
    drawn = model.schema.decode(pgm.sample(model, 100, seed=0)) if model.schema else None
    assert drawn is not None and list(drawn) == ["a", "b", "c"]
    assert bool(drawn["b"].between(0, 1).all())


def test_the_gaussian_estimate_is_that_of_a_search_over_rho() -> None:
    model = GaussianCopula.from_data(load("two_moons", n=200).x)
    z = model.marginals.scores(load("two_moons", n=200).x)[0].double().numpy()

    def loss(rho: float) -> float:
        C = np.array([[1, rho], [rho, 1]])
        return -float(stats.multivariate_normal.logpdf(z, [0, 0], C).sum())

    best = minimize_scalar(loss, bounds=(-0.99, 0.99), method="bounded").x
    assert model.correlation[0, 1].item() == pytest.approx(best, abs=1e-4)


def test_missing_cells_are_left_out_of_the_estimate() -> None:
    x = torch.from_numpy(
        stats.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]]).rvs(2000, random_state=0)
    )
    x[torch.rand(2000, generator=torch.Generator().manual_seed(0)) < 0.3, 1] = NAN
    model = GaussianCopula.from_data(x)
    assert model.correlation[0, 1].item() == pytest.approx(0.7, abs=0.05)


def test_gradients_reach_the_degrees_of_freedom() -> None:
    model = made(TCopula, marginals="student")
    x = pgm.sample(model, 5, seed=0)["x"]
    grad = torch.autograd.grad(pgm.objective(model, x).sum(), [model.log_df])[0]  # type: ignore[list-item]

    def loss(step: float) -> Tensor:
        with torch.no_grad():
            model.log_df.add_(step)  # type: ignore[operator]
            value = pgm.objective(model, x).sum()
            model.log_df.sub_(step)  # type: ignore[operator]
        return value

    assert grad.item() == pytest.approx((loss(1e-5) - loss(-1e-5)).item() / 2e-5, rel=1e-4)


def test_do_sets_the_row() -> None:
    drawn = pgm.sample(causal.do(GaussianCopula(2), x=torch.tensor([1.0, 2.0])), 3, seed=0)
    assert torch.equal(drawn["x"], torch.tensor([1.0, 2.0]).expand(3, 2))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"features": 1}, "ties two columns or more"),
    ({"features": 2, "lower": [1.0]}, "one number, or None, for each of 2 columns"),
    ({"features": 2, "lower": [1.0, 0.0], "upper": [0.5, 1.0]}, "Column 0 has bounds 1 and 0.5"),
    ({"features": 2, "marginals": "kernel"}, "came without points"),
    ({"features": 2, "points": torch.zeros(3, 2)}, "came with points"),
    ({"features": 2, "marginals": "kernel", "points": torch.zeros(3, 1)}, "rows of 2 numbers"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_copulas_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianCopula(**options)


def test_discrete_and_unfit_columns_are_refused() -> None:
    x = load("two_moons", n=100).x
    frame = pd.DataFrame({"a": x[:, 0], "visits": range(100), "ward": ["u", "v"] * 50})
    with pytest.raises(
        ValueError, match=r"Columns visits, ward are levels or counts\. A copula of"
    ):
        GaussianCopula.from_data(frame)
    with pytest.raises(ValueError, match=r"column 1 holds 1 in .* rows, as discrete columns do"):
        GaussianCopula.from_data(torch.stack([x[:, 0], (x[:, 1] > 0).float()], -1))
    with pytest.raises(ValueError, match="column 0 is constant"):
        GaussianCopula.from_data(torch.stack([torch.ones(100), x[:, 1]], -1))
    with pytest.raises(ValueError, match="9 cells of column 0 were seen"):
        GaussianCopula.from_data(x[:9])
    apart = torch.cat([x, x]).masked_fill(torch.arange(200)[:, None] % 2 == torch.arange(2), NAN)
    with pytest.raises(ValueError, match="column 0 and column 1 were seen in the same row 0 times"):
        GaussianCopula.from_data(apart)
    schema = pgm.Schema({"a": pgm.Continuous(lower=0), "b": pgm.Continuous()})
    numbers = pd.DataFrame({"a": x[:, 0].abs(), "b": x[:, 1]})
    numbers.loc[3, "a"] = 0.0
    with pytest.raises(ValueError, match=r"a reaches its bounds \[0, inf\]"):
        GaussianCopula.from_data(numbers, schema=schema)
    with pytest.raises(ValueError, match="df is -1"):
        TCopula(2, df=-1)


def test_the_start_of_the_estimate_inverts_kendalls_tau() -> None:
    """R = sin(pi tau / 2) (Lindskog, McNeil & Schmock 2003), and its free numbers give it back."""
    R = torch.tensor([[1, 0.6, 0.2], [0.6, 1, -0.3], [0.2, -0.3, 1]]).double()
    root = dependence.unit_rows(dependence.below_of(R), 3)
    assert torch.allclose(root @ root.T, R)
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)).double()
    found = dependence.from_kendall((x @ torch.linalg.cholesky(R).T).exp())
    assert torch.allclose(found, R, atol=0.06)
