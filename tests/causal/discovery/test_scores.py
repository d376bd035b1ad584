"""Scores: marginal likelihoods by other ways, equivalence of graphs, and rows that do not count."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import dblquad
from scipy.stats import multivariate_t

from causal.discovery import BIC, BDeu, BDs, BGe, GaussianBIC, discover
from causal.discovery.cells import read_cells
from causal.discovery.families import Families, Score, tabulate


def table(data, score: Score, clamped=None, most: int = 2) -> Families:
    cells = read_cells(data, kinds=score.kinds, unseen="keep")
    rows, n = cells.x.shape
    none = torch.zeros(rows, n, dtype=torch.bool) if clamped is None else clamped
    free = ((), torch.zeros(rows, 0, dtype=torch.bool))
    return tabulate(cells, score, clamped=none, conditions=free, most=most)


def local(found: Families, child: int, parents: tuple[int, ...]) -> float:
    code = sum(1 << p for p in parents)
    return float(found.scores[child][found.sets[child] == code])


def levels(seed: int, rows: int = 40) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(2, (rows,), generator=generator)
    b = (a + torch.randint(3, (rows,), generator=generator)) % 3
    c = (b * a + torch.randint(2, (rows,), generator=generator)) % 4
    return {"a": a, "b": b, "c": c}


def by_urn(x, parents, r: int, q: int, ess: float) -> float:
    """log p(x | parents) as a product of one-step-ahead probabilities (Polya's urn)."""
    counts, total = {}, 0.0
    for k, j in zip(x, parents, strict=True):
        row = counts.setdefault(j, [0] * r)
        total += math.log((row[k] + ess / (q * r)) / (sum(row) + ess / q))
        row[k] += 1
    return total


@pytest.mark.parametrize("ess", [0.5, 1.0, 7.0])
def test_bdeu_is_the_probability_of_the_rows_one_after_another(ess: float) -> None:
    data = levels(0)
    found, sizes = table(data, BDeu(ess)), [2, 3, 4]
    columns = [x.tolist() for x in data.values()]
    for child in range(3):
        others = [i for i in range(3) if i != child]
        for size in range(3):
            for parents in itertools.combinations(others, size):
                config = list(zip(*(columns[p] for p in parents), strict=True)) or [()] * 40
                q = math.prod(sizes[p] for p in parents)
                expected = by_urn(columns[child], config, sizes[child], q, ess)
                assert local(found, child, parents) == pytest.approx(expected, abs=1e-10)


def test_bds_spreads_the_prior_over_what_occurs() -> None:
    """Two of the three levels of the parent occur with the child: q = 2 in place of 3."""
    x = {"p": torch.tensor([0, 0, 2, 2, 2]), "c": torch.tensor([0, 1, 1, 1, 0])}
    expected = by_urn(x["c"].tolist(), x["p"].tolist(), 2, 2, 1.0)
    assert local(table(x, BDs(), most=1), 1, (0,)) == pytest.approx(expected, abs=1e-12)
    dense = {"p": torch.tensor([0, 1, 2] * 4), "c": torch.tensor([0, 1] * 6)}
    assert torch.allclose(table(dense, BDs(), most=1).scores, table(dense, BDeu(), most=1).scores)


def test_bic_is_likelihood_less_half_log_rows_a_parameter() -> None:
    data = levels(1)
    a, b = (data[k].numpy() for k in "ab")
    joint = np.histogram2d(a, b, bins=[2, 3])[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        fit = np.nansum(joint * np.log(joint / joint.sum(1, keepdims=True)))
    assert local(table(data, BIC()), 1, (0,)) == pytest.approx(fit - 0.5 * 4 * math.log(40))


@given(st.integers(0, 50), st.sampled_from([BDeu(), BDeu(5.0), BIC()]))
def test_graphs_that_say_the_same_score_alike(seed: int, score: Score) -> None:
    found = table(levels(seed), score)
    forth = local(found, 0, ()) + local(found, 1, (0,)) + local(found, 2, (0, 1))
    back = local(found, 2, ()) + local(found, 1, (2,)) + local(found, 0, (1, 2))
    assert forth == pytest.approx(back, abs=1e-9)


def numbers(seed: int, rows: int = 30) -> dict[str, torch.Tensor]:
    x = np.random.default_rng(seed).normal(size=(rows, 3)) @ [[1, 0.8, 0], [0, 1, 0.5], [0, 0, 1]]
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    return {name: torch.tensor(x[:, i]) for i, name in enumerate("abc")}


@given(st.integers(0, 50), st.sampled_from([BGe(), BGe(0.1, 5.0), GaussianBIC()]))
def test_linear_graphs_that_say_the_same_score_alike(seed: int, score: Score) -> None:
    found = table(numbers(seed), score)
    forth = local(found, 0, ()) + local(found, 1, (0,)) + local(found, 2, (0, 1))
    back = local(found, 2, ()) + local(found, 1, (2,)) + local(found, 0, (1, 2))
    assert forth == pytest.approx(back, abs=1e-9)


@pytest.mark.parametrize("score", [BGe(1.0, 2.0), BGe(0.3, 4.0)], ids=repr)
@pytest.mark.parametrize("set_rows", [0, 5])
def test_bge_is_the_probability_of_the_rows_one_after_another(score: BGe, set_rows: int) -> None:
    """The predictive of a normal-Wishart prior is a multivariate t (Geiger & Heckerman 2002).

    Without the rows in which the nodes were set, so that the mean of the others is not zero.
    """
    data, clamped = numbers(3, rows=12), torch.zeros(12, 3, dtype=torch.bool)
    clamped[:set_rows] = True
    found = table(data, score, clamped)
    x = torch.stack(list(data.values()), 1).numpy()
    whole = local(found, 0, ()) + local(found, 1, (0,)) + local(found, 2, (0, 1))
    mean, weight, degrees = np.zeros(3), score.mean_rows, score.degrees + 3
    total, T = 0.0, score.scale * np.eye(3)
    for row in x[set_rows:]:
        df = degrees - 3 + 1
        shape = T * (weight + 1) / (weight * df)
        total += multivariate_t(mean, shape, df=df).logpdf(row)
        T = T + weight / (weight + 1) * np.outer(row - mean, row - mean)
        mean, weight, degrees = (weight * mean + row) / (weight + 1), weight + 1, degrees + 1
    assert whole == pytest.approx(total, abs=1e-9)


def test_bge_of_one_column_is_an_integral() -> None:
    x = numbers(4, rows=5)["a"]
    x = (x - x.mean()) / x.std()
    score = BGe(1.0, 2.0)
    found = table({"a": x, "b": numbers(5, rows=5)["b"]}, score, most=1)
    t, v = score.scale, x.numpy()

    def density(m: float, w: float) -> float:  # precision w ~ Gamma(3/2, t/2), mean ~ N(0, 1/w)
        prior = (t / 2) ** 1.5 / math.gamma(1.5) * w**0.5 * math.exp(-t * w / 2)
        prior *= math.sqrt(w / (2 * math.pi)) * math.exp(-w * m * m / 2)
        return prior * (w / (2 * math.pi)) ** 2.5 * math.exp(-w / 2 * float(((v - m) ** 2).sum()))

    integral = dblquad(density, 0, 40, -6, 6, epsabs=1e-12)[0]
    assert local(found, 0, ()) == pytest.approx(math.log(integral), abs=1e-6)


@pytest.mark.parametrize("score", [BDeu(), BDs(), BIC(), BGe(), GaussianBIC()], ids=repr)
def test_a_row_does_not_count_for_the_nodes_that_were_set_in_it(score: Score) -> None:
    data = levels(2) if score.kinds == "levels" else numbers(2, rows=40)
    clamped = torch.zeros(40, 3, dtype=torch.bool)
    clamped[:15, 1] = True
    found, free = table(data, score, clamped), table(data, score)
    if score.kinds == "levels":
        rest = table({name: x[15:] for name, x in data.items()}, score)
        assert torch.allclose(found.scores[1], rest.scores[1], atol=1e-10)
    assert not torch.allclose(found.scores[1], free.scores[1])
    assert torch.allclose(found.scores[0], free.scores[0])
    assert torch.allclose(found.scores[2], free.scores[2])


def test_scores_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="equivalent sample size"):
        BDeu(0.0)
    with pytest.raises(ValueError, match="degrees more than 1"):
        BGe(degrees=1.0)
    x = numbers(0)
    with pytest.raises(ValueError, match="linear function of others"):
        discover({**x, "d": x["a"] + x["b"]}, score=GaussianBIC())
    with pytest.raises(ValueError, match="fewer than it has parameters"):
        discover({name: v[:3] for name, v in x.items()})
