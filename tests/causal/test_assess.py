"""Tests of independence keep their size and agree with textbooks; graphs and models are judged."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from statsmodels.api import OLS, add_constant

import pgm
from causal import SCM, CategoricalTable, LinearGaussian
from causal.assess import evaluate, falsify, independence
from causal.assess.contingency import contingency
from causal.assess.kernel import hsic, kci


def within(rejected: int, tries: int, alpha: float = 0.05) -> bool:
    """Whether so many rejections have more than one chance in a thousand at the level alpha."""
    return stats.binomtest(rejected, tries, alpha).pvalue > 0.001


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_partial_correlation_is_the_t_test_of_a_coefficient() -> None:
    """Regress y on x and z: the test of x's weight has the same p-value."""
    x, y, z, w = normal(0, 4, 60)
    frame = pd.DataFrame({"x": x + z, "y": y + 0.3 * x + w, "z": z, "w": w})
    found = independence(frame, "x", "y", ["z", "w"])
    fit = OLS(frame.y, add_constant(frame[["x", "z", "w"]])).fit()
    assert found.p == pytest.approx(fit.pvalues["x"])
    assert independence(frame, "x", "y").p == pytest.approx(stats.pearsonr(frame.x, frame.y)[1])


def test_g_and_chi_square_are_scipys_on_one_table() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(3, size=300), rng.integers(4, size=300)
    table = pd.crosstab(x, y)
    for statistic, power in (("G", "log-likelihood"), ("chi-square", "pearson")):
        theirs = stats.chi2_contingency(table, correction=False, lambda_=power)
        value, df, p, shuffled = contingency(x, y, statistic=statistic)
        assert (value, df, p) == pytest.approx((theirs.statistic, theirs.dof, theirs.pvalue))
        assert not shuffled


def test_degrees_of_freedom_count_what_occurs_in_each_stratum() -> None:
    """Three levels each: stratum 0 has 2 x 2 of them, stratum 1 has 3 x 1, stratum 2 one row."""
    x = np.array([0, 0, 1, 1] * 10 + [0, 1, 2] * 10 + [0])
    y = np.array([0, 1, 0, 1] * 10 + [2, 2, 2] * 10 + [1])
    z = np.array([0] * 40 + [1] * 30 + [2])
    value, df, p, _ = contingency(x, y, z, shuffles=0)
    assert (value, df, p) == pytest.approx((0.0, 1, 1.0))
    assert contingency(x[40:], y[40:], z[40:])[1:3] == (0, 1.0)


def levels(seed: int, n: int, *, sparse: bool) -> pd.DataFrame:
    """x and y depend on z alone; sparse: 30 strata of about four rows."""
    rng = np.random.default_rng(seed)
    z = rng.integers(30 if sparse else 3, size=n)
    x, y = (rng.random((2, n)) < 0.2 + 0.6 * (z % 2)).astype(int)
    return pd.DataFrame({"x": x, "y": y, "z": z}).astype("category")


@pytest.mark.parametrize(("sparse", "tries"), [(False, 200), (True, 80)])
def test_the_g_test_keeps_its_size(sparse: int, tries: int) -> None:
    frames = (levels(seed, 120 if sparse else 600, sparse=sparse) for seed in range(tries))
    found = [independence(frame, "x", "y", ["z"]) for frame in frames]
    assert within(sum(f.p < 0.05 for f in found), tries)
    assert ("shuffled" in found[0].note) == sparse
    assert independence(levels(0, 300, sparse=False), "x", "y").p < 1e-6


def test_partial_correlation_keeps_its_size() -> None:
    def p(seed: int) -> float:
        x, y, z = normal(seed, 3, 40)
        frame = pd.DataFrame({"x": x + z, "y": y - z, "z": z})
        return independence(frame, "x", "y", ["z"]).p

    assert within(sum(p(seed) < 0.05 for seed in range(200)), 200)


def test_the_kernel_tests_keep_their_size_and_see_what_is_not_linear() -> None:
    """Gamma approximation, 100 rows: sizes within chance; x^2 and a shared noise are found."""

    def null(seed: int) -> tuple[float, float]:
        x, y, z = normal(seed, 3, 100)
        return hsic(x, np.exp(y))[1], kci(np.tanh(z) + x, z**2 + y, z)[1]

    p = np.array([null(seed) for seed in range(120)])
    assert all(within(int((column < 0.05).sum()), 120) for column in p.T)
    assert 0.4 < p[:, 0].mean() < 0.6
    assert 0.4 < p[:, 1].mean() < 0.6
    x, y, z = normal(0, 3, 100)
    assert abs(stats.pearsonr(x, x**2 + y)[0]) < 0.3
    assert hsic(x, x**2 + y)[1] < 1e-3
    assert kci(np.tanh(z) + x, z**2 + x**2 + 0.3 * y, z)[1] < 0.01


def test_which_test_is_taken_and_what_is_told() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(900, 2)), columns=["a", "b"])
    frame["c"] = frame.a > 0
    frame["d"] = rng.random(900) > 0.5
    assert independence(frame, "a", "b").test == "partial correlation"
    assert independence(frame, "c", "d").test == "G"
    found = independence(frame, "b", "c", rows=200)
    assert (found.test, found.n) == ("kernel", 200)
    assert "drawn from 900" in str(found)
    cases = [
        (("a", "c"), {"test": "G"}, "The G test is for levels, but a holds numbers"),
        (("a", "c"), {"test": "partial correlation"}, "c holds levels"),
        (("a", "a"), {}, "named twice"),
        (("a", "x"), {}, "no column 'x'"),
        (("a", "b"), {"test": "magic"}, "there are 'partial correlation'"),
    ]
    for names, options, message in cases:
        with pytest.raises(ValueError, match=message):
            independence(frame, *names, **options)
    with pytest.raises(ValueError, match="Cells of a are missing"):
        independence(frame.assign(a=frame.a.where(frame.a > 0)), "a", "b")


def linear_rows(seed: int, n: int = 250) -> pd.DataFrame:
    """A -> B -> D, A -> C -> D; two independences are implied."""
    e = normal(seed, 4, n)
    A = e[0]
    B, C = A + e[1], e[2] - A
    return pd.DataFrame({"A": A, "B": B, "C": C, "D": B + C + e[3]})


DIAMOND = "A -> {B C} -> D"


def test_a_right_graph_survives_and_a_wrong_one_is_told_where() -> None:
    """Family-wise level .05 over 100 samples; the wrong graph lacks the arrow B -> D."""
    found = [falsify(DIAMOND, linear_rows(seed)).falsified for seed in range(100)]
    assert sum(found) <= 12  # one chance in a thousand
    wrong = falsify("A -> B; A -> C -> D", linear_rows(0))
    assert [(t.x, t.y) for t in wrong.rejected] == [("A", "D"), ("B", "D")]
    assert "2 of 3 implied independences rejected" in str(wrong)
    assert len(falsify("A -> B; A -> C -> D", linear_rows(0), correction="bh").rejected) == 2


def test_a_latent_cause_takes_an_implication_away() -> None:
    """B <-> C may depend given A: only A _||_ D | B, C is left to test."""
    told = falsify(DIAMOND + "; B <-> C", linear_rows(0))
    assert [(t.x, t.y, t.given) for t in told.tests] == [("A", "D", ("B", "C"))]
    assert len(falsify(DIAMOND, linear_rows(0)).tests) == 2
    full = "The graph implies no independence"
    assert full in str(falsify("A -> B", linear_rows(0)[["A", "B"]]))


def tensors(frame: pd.DataFrame) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(frame[name].to_numpy()) for name in frame}


def linear_scm() -> SCM:
    return SCM(
        DIAMOND,
        A=LinearGaussian(),
        B=LinearGaussian({"A": 1.0}),
        C=LinearGaussian({"A": -1.0}),
        D=LinearGaussian({"B": 1.0, "C": 1.0}),
    ).double()


def test_a_right_model_fits_and_its_p_values_are_uniform() -> None:
    scm, p = linear_scm(), []
    for seed in range(40):
        fit = evaluate(scm, tensors(linear_rows(seed, 100)), draws=200, seed=seed)
        p += [(node.uniform, node.independent) for node in fit.nodes.values()]
    uniform = [u for u, _ in p]
    independent = [i for _, i in p if i is not None]
    assert stats.kstest(uniform, "uniform").pvalue > 0.001
    assert within(sum(i < 0.05 for i in independent), len(independent))
    rows = tensors(linear_rows(0, 100))
    exact = float(pgm.log_prob(scm, rows).value.mean())
    assert evaluate(scm, rows).log_density == pytest.approx(exact)


def test_a_wrong_mechanism_is_named() -> None:
    """The rows have B = A + .5 A^2 + e, and the noise of a linear mechanism depends on A."""
    frame = linear_rows(0, 400)
    bent = frame.assign(B=frame.B + 0.5 * frame.A**2)
    fit = evaluate(linear_scm(), tensors(bent), seed=0)
    assert "noise depends on parents" in fit.misfits["B"]
    assert not {"A", "C"} & set(fit.misfits)
    assert "! its law, noise depends on parents" in str(fit)


def test_levels_have_a_uniform_transform_too_and_set_cells_are_left_out() -> None:
    table = CategoricalTable([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], parents=["x"])
    scm = SCM("x -> y", x=CategoricalTable([0.4, 0.6]), y=table)
    rows = pgm.sample(scm, 2000, seed=0)
    fit = evaluate(scm, rows, seed=0)
    assert fit.misfits == {}
    pit = fit.nodes["y"].pit
    assert pit is not None
    assert float(pit.var()) == pytest.approx(1 / 12, rel=0.05)
    forced = {**rows, "y": torch.where(torch.arange(2000) < 900, 0, rows["y"])}
    assert "y" in evaluate(scm, forced, seed=0).misfits
    clamped = torch.zeros(2000, 2, dtype=torch.bool)
    clamped[:900, 1] = True
    told = evaluate(scm, {**forced, "clamped": clamped}, seed=0)
    assert told.misfits == {}
    assert (told.nodes["x"].n, told.nodes["y"].n) == (2000, 1100)
