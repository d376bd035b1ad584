"""Dirichlet-process mixtures against sums over all partitions, and both ways up the bound."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import betaln, gammaln, logsumexp
from scipy.stats import t as student
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

import causal
import pgm
from pgm.data import load
from pgm.families.dpmixture import DPMixture, coordinate_ascent
from pgm.inference import clusters

NAN = float("nan")
ALPHA, KAPPA, SHAPE = 0.7, 0.5, 2.5


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """All partitions of a list: 1, 1, 2, 5, 15, 52 of them (Bell 1934)."""
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        for i, block in enumerate(rest):
            yield [*rest[:i], [items[0], *block], *rest[i + 1 :]]
        yield [[items[0]], *rest]


def marginal(x: np.ndarray) -> float:
    """log marginal likelihood of rows of one cluster, normal-gamma (Murphy 2007, eq. 95)."""
    n, b = len(x), SHAPE - 1
    kappa, a = KAPPA + n, SHAPE + n / 2
    rate = b + 0.5 * ((x - x.mean(0)) ** 2).sum(0) + KAPPA * n * x.mean(0) ** 2 / (2 * kappa)
    each = gammaln(a) - gammaln(SHAPE) + SHAPE * np.log(b) - a * np.log(rate)
    each += 0.5 * np.log(KAPPA / kappa) - n / 2 * np.log(2 * np.pi)
    return float(each.sum())


def evidence_of_the_process(x: np.ndarray) -> float:
    """sum over partitions of Ewens' formula times the blocks' marginals (Antoniak 1974)."""
    n, terms = len(x), []
    for blocks in partitions(list(range(n))):
        prior = len(blocks) * math.log(ALPHA) + sum(gammaln(len(b)) for b in blocks)
        terms.append(prior + sum(marginal(x[b]) for b in blocks))
    return float(logsumexp(terms)) + gammaln(ALPHA) - gammaln(ALPHA + n)


def evidence_of_the_sticks(x: np.ndarray, T: int) -> float:
    """sum over all assignments to T components, the sticks integrated out."""
    terms = []
    for k in itertools.product(range(T), repeat=len(x)):
        count = np.bincount(k, minlength=T)
        beyond = count[::-1].cumsum()[::-1]
        sticks = [
            betaln(1 + count[t], ALPHA + beyond[t + 1]) - betaln(1, ALPHA) for t in range(T - 1)
        ]
        blocks = [x[np.array(k) == t] for t in range(T) if count[t]]
        terms.append(sum(sticks) + sum(marginal(b) for b in blocks))
    return float(logsumexp(terms))


def one_hot(blocks: list[list[int]], T: int) -> Tensor:
    r = torch.zeros(sum(map(len, blocks)), T)
    for t, block in enumerate(sorted(blocks, key=len, reverse=True)):
        r[block, t] = 1.0
    return r


def rows(n: int, d: int = 2, seed: int = 0) -> Tensor:
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double()
    z[: n // 2] += 2.5
    return z


def made(T: int, d: int = 2, **options: Any) -> DPMixture:
    options = {"concentration": ALPHA, "strength": KAPPA, "shape": SHAPE, **options}
    return DPMixture(d, T, **options).double()


def test_the_partitions_are_as_many_as_bell_counted() -> None:
    assert [len(list(partitions(list(range(n))))) for n in range(6)] == [1, 1, 2, 5, 15, 52]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_bound_lies_below_the_evidence_and_the_sticks_end_far_enough(seed: int) -> None:
    x = rows(5, seed=seed)
    process, sticks = evidence_of_the_process(x.numpy()), evidence_of_the_sticks(x.numpy(), 5)
    assert sticks == pytest.approx(process, abs=0.1)
    starts = [one_hot(blocks, 5) for blocks in partitions(list(range(5)))]
    bounds = [coordinate_ascent(made(5), x, r, tolerance=1e-9)[-1] for r in starts]
    assert sticks - 3 < max(bounds) < sticks
    four = rows(4, seed=seed).numpy()
    far = abs(evidence_of_the_sticks(four, 7) - evidence_of_the_process(four))
    assert far < 4 * 4 * math.exp(-6 / ALPHA)  # Ishwaran & James (2001), theorem 2


def test_for_one_row_the_bound_with_one_open_cluster_is_known() -> None:
    """With one row the exact evidence is the marginal of that row, whatever the sticks."""
    x = rows(1)
    assert evidence_of_the_sticks(x.numpy(), 2) == pytest.approx(marginal(x.numpy()))
    model = made(2)
    assert coordinate_ascent(model, x)[-1] < marginal(x.numpy())


def test_the_bound_is_the_mean_of_the_programs_log_weights() -> None:
    """E_q of log p(x, k, shared) - log q, q(k) at its optimum, by draws of the shared sites."""
    x, model = rows(6), made(4, concentration=None)
    coordinate_ascent(model, x, sweeps=3)
    batch = pgm.as_batch(x)
    r = (logits := model_logits(model, x)).softmax(-1)
    with torch.no_grad(), pgm.seeded(0):
        total = []
        for _ in range(700):
            weight = pgm.log_weight(model, batch, enumerated="sum")
            v, mu, tau = (weight.values[name] for name in ("v", "mu", "tau"))
            log_pi = torch.cat([v.log(), v.new_zeros(1)]) + torch.cat(
                [v.new_zeros(1), (-v).log1p().cumsum(0)]
            )
            log_x = torch.distributions.Normal(mu, tau.rsqrt()).log_prob(x[:, None]).sum(-1)
            rows_ = (r * (log_pi + log_x - r.log())).sum()
            total.append((rows_ + weight.shared).item())
    error = np.std(total) / len(total) ** 0.5
    assert float(model.bound(x).detach()) == pytest.approx(np.mean(total), abs=4 * error)
    assert logits.shape == (6, 4)


def test_the_bound_is_the_closed_form_with_the_shared_factors_at_their_optimum() -> None:
    """Sticks and normals integrated against soft counts, plus the entropy of q(k)."""
    x, model = rows(12).numpy(), made(4)
    coordinate_ascent(model, torch.from_numpy(x), tolerance=1e-14, sweeps=5000)
    r = model_logits(model, torch.from_numpy(x)).softmax(-1).numpy()
    N, rate = r.sum(0), SHAPE - 1
    beyond = N[::-1].cumsum()[::-1][1:]
    sticks = (betaln(1 + N[:-1], ALPHA + beyond) - betaln(1, ALPHA)).sum()
    kappa, a, m = KAPPA + N, SHAPE + N / 2, (r.T @ x) / N[:, None]
    scatter = np.einsum("nt,ntd->td", r, (x[:, None] - m) ** 2)
    b = rate + 0.5 * scatter + (KAPPA * N / (2 * kappa))[:, None] * m**2
    normals = (gammaln(a) - gammaln(SHAPE) + 0.5 * np.log(KAPPA / kappa))[:, None]
    normals = normals + SHAPE * np.log(rate) - a[:, None] * np.log(b)
    normals = normals - N[:, None] / 2 * math.log(2 * math.pi)
    entropy = -(r * np.log(r)).sum()
    assert float(model.bound(torch.from_numpy(x)).detach()) == pytest.approx(
        sticks + normals.sum() + entropy, abs=1e-9
    )


def test_bounds_differ_as_scikit_learns_do() -> None:
    """It leaves constants out and breaks its last stick, so that ours has a component more."""
    from sklearn.mixture import BayesianGaussianMixture

    data = torch.cat([rows(60, 1), rows(40, 1, seed=5) - 4, rows(30, 1, seed=6) * 3])
    ours, theirs = [], []
    for seed in range(4):
        peer = BayesianGaussianMixture(
            n_components=6, covariance_type="diag", weight_concentration_prior=ALPHA, tol=1e-12,
            mean_prior=[0.0], mean_precision_prior=KAPPA, degrees_of_freedom_prior=2 * SHAPE,
            covariance_prior=[2 * (SHAPE - 1)], max_iter=20000, init_params="random",
            random_state=seed, reg_covar=0.0,
        ).fit(data.numpy())  # fmt: skip
        df, covariance = peer.degrees_of_freedom_, peer.covariances_[:, 0]
        sticks = np.stack(peer.weight_concentration_, -1)
        model = made(7, 1)
        with torch.no_grad():
            model.log_sticks.copy_(torch.from_numpy(sticks).log())
            model.means.copy_(torch.from_numpy(np.append(peer.means_, [[0.0]], 0)))
            model.log_strengths.fill_(math.log(1e-4))  # of the seventh: no row's
            model.log_strengths[:-1, 0] = torch.from_numpy(peer.mean_precision_).log()
            model.log_shapes[:-1, 0] = torch.from_numpy(df / 2).log()
            model.log_rates[:-1, 0] = torch.from_numpy(covariance * df / 2).log()
        ours.append(float(model.bound(data).detach()))
        theirs.append(peer.lower_bound_)
    assert np.ptp(theirs) > 0.5
    assert np.subtract(ours, ours[0]) == pytest.approx(np.subtract(theirs, theirs[0]), abs=1e-4)


def model_logits(model: DPMixture, x: Tensor) -> Tensor:
    from pgm.families.dpmixture import _log_joint

    return _log_joint(model, x, torch.ones_like(x, dtype=torch.bool)).detach()


@pytest.mark.parametrize("concentration", [None, 1.0])
def test_coordinate_ascent_climbs_to_where_gradients_vanish(concentration: float | None) -> None:
    x = rows(60)
    x[3, 1] = x[5] = NAN
    model = made(6, concentration=concentration)
    history = coordinate_ascent(model, x, tolerance=1e-12, sweeps=3000)
    assert all(b >= a - 1e-8 for a, b in itertools.pairwise(history))
    assert history[-1] == pytest.approx(float(model.bound(x).detach()))
    loss = pgm.objective(model, x).mean()
    assert loss.item() == pytest.approx(-history[-1] / 60)
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        assert gradient.abs().max() < 1e-4


def test_both_ways_reach_the_same_bound() -> None:
    x, a, b = rows(80), made(4), made(4)
    start = torch.nn.functional.one_hot((torch.arange(80) < 40).long(), 4)
    for model, sweeps in ((a, 2000), (b, 1)):
        coordinate_ascent(model, x, start, sweeps=sweeps, tolerance=1e-12)
    options = {"steps": 500, "batch_size": 80, "learning_rate": 0.05, "schedule": "cosine"}
    before = float(b.bound(x).detach())
    pgm.fit(b, x, progress=False, seed=0, **options)
    best = float(a.bound(x).detach())
    assert before < best - 0.05
    assert float(b.bound(x).detach()) == pytest.approx(best, abs=0.02)


def test_on_eight_gaussians_moves_end_above_gradients_and_above_every_start() -> None:
    """25 rows a cluster, a firm prior: sweeps alone, and gradients, stop in lower optima."""
    x = load("eight_gaussians", n=200).x
    found = [DPMixture.from_data(x, 15, seed=seed, shape=2.0) for seed in range(3)]
    best = [float(model.bound(x).detach()) for model in found]
    assert best == pytest.approx([best[0]] * 3, abs=1e-3)
    for seed in range(8):
        alone = DPMixture.from_data(x, 15, seed=seed, shape=2.0, moves=0)
        assert float(alone.bound(x).detach()) < best[0] + 1e-3
    start = DPMixture.from_data(x, 15, seed=1, shape=2.0, moves=0, sweeps=1)
    options = {"steps": 600, "batch_size": 200, "learning_rate": 0.05, "schedule": "cosine"}
    pgm.fit(start, x, progress=False, seed=0, **options)
    assert float(start.bound(x).detach()) < best[0] - 5
    assert coordinate_ascent(start, x, moves=100)[-1] == pytest.approx(best[0], abs=0.01)


def test_a_split_leads_out_of_an_optimum_with_two_clusters_in_one() -> None:
    g = torch.Generator().manual_seed(0)
    k = torch.arange(150) % 3
    centre = torch.tensor([[-9.0, 0.0], [-3.0, 0.0], [8.0, 0.0]]).double()[k]
    x = centre + torch.randn(150, 2, generator=g).double()
    start = torch.nn.functional.one_hot(torch.where(k < 2, 0, torch.where(x[:, 1] > 0, 1, 2)), 3)
    x[4, 1] = NAN
    model = made(3, scale=[3.0, 3.0], shape=1.5)
    alone = coordinate_ascent(model, x, start)
    history = coordinate_ascent(model, x, start, moves=1)
    assert history[-1] > alone[-1] + 20
    assert all(b >= a - 1e-6 for a, b in itertools.pairwise(history))
    assert history[-1] == pytest.approx(float(model.bound(x).detach()))
    assert model.occupied(x, draws=50, seed=0).argmax() + 1 == 3


def test_moves_leave_every_row_whole() -> None:
    x = rows(30)
    r = torch.rand(30, 4, generator=torch.Generator().manual_seed(0)).double()
    r[:, 3] = 0.0
    r = r / r.sum(-1, keepdim=True)
    proposals = [*clusters._merges(x, r), *clusters._splits(x, r)]
    assert len(proposals) >= 2 + 3
    for proposal in proposals:
        assert torch.allclose(proposal.sum(-1), torch.ones(30).double())
        assert not torch.equal(proposal, r)


def test_an_outlier_and_rows_that_repeat_leave_fewer_clusters_than_components() -> None:
    """k-means then finds fewer than T."""
    x = rows(50)
    x[0] = 1e6
    with_outlier = DPMixture.from_data(x, 8, seed=0).double()
    assert bool(pgm.log_prob(with_outlier, x).value.isfinite().all())
    few = torch.tensor([[0.0, 0.0], [5.0, 1.0], [9.0, -3.0]]).repeat(20, 1)
    assert DPMixture.from_data(few, 8, seed=0).occupied(few, draws=20, seed=0)[2] > 0.9


def test_the_place_and_unit_of_the_columns_change_nothing() -> None:
    x = load("eight_gaussians", n=150).x.double()
    moved = DPMixture.from_data(1e7 + 1e3 * x, 12, seed=0).double()
    bound = float(moved.bound(1e7 + 1e3 * x).detach()) + 300 * math.log(1e3)
    there = float(DPMixture.from_data(x, 12, seed=0).bound(x).detach())
    assert bound == pytest.approx(there, abs=1e-4)


def test_the_clusters_of_eight_gaussians_are_counted_and_found() -> None:
    data = load("eight_gaussians", n=400)
    model = DPMixture.from_data(data.x, 15, seed=0)
    assert model.occupied(data.x, draws=200, seed=0)[7] > 0.9
    k = pgm.encode(model, data.x)["k"].argmax(-1)
    assert adjusted_rand_score(data.labels, k) > 0.98  # .9945 by the true means
    assert float(model.weights.sum().detach()) == pytest.approx(1, abs=1e-5)


def test_the_predictive_is_a_mixture_of_students_ts() -> None:
    x, model = rows(40), made(4)
    coordinate_ascent(model, x)
    y = rows(3, seed=9)
    y[1, 0] = NAN
    with torch.no_grad():
        m, kappa, a, b = (part.numpy() for part in model.base())
        pi = model.weights.numpy()
    scale = np.sqrt(b * (kappa + 1) / (a * kappa))
    for row, value in zip(y.numpy(), pgm.log_prob(model, y).value.tolist(), strict=True):
        s = ~np.isnan(row)
        each = student.logpdf(row, 2 * a, m, scale)[:, s].sum(1)
        assert value == pytest.approx(logsumexp(each, b=pi))


def test_completions_come_from_the_cluster_of_the_row() -> None:
    g = torch.Generator().manual_seed(0)
    centre = torch.tensor([[-4.0, 3.0], [4.0, -3.0]])[torch.randint(2, (200,), generator=g)]
    model = DPMixture.from_data(centre + 0.3 * torch.randn(200, 2, generator=g), 8, seed=0)
    done = pgm.impute(model, torch.tensor([[4.0, NAN]]), draws=500, seed=0).draws["x"][:, 0]
    assert bool((done[:, 0] == 4.0).all())
    assert done[:, 1].median().item() == pytest.approx(-3, abs=0.15)


def test_do_and_draws_run() -> None:
    model = DPMixture.from_data(load("eight_gaussians", n=100).x, 10, seed=0)
    drawn = pgm.sample(causal.do(model, x=torch.tensor([1.0, 2.0])), 3, seed=0)
    assert torch.equal(drawn["x"], torch.tensor([1.0, 2.0]).expand(3, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features is 0"),
        ({"components": 1}, "a stick is broken at least once"),
        ({"concentration": 0.0}, "concentration is 0; it is positive"),
        ({"shape": 1.0}, "shape - 1 is 0"),
        ({"scale": [1.0]}, "scale has 1 numbers"),
        ({"scale": [1.0, -1.0]}, "scale is -1"),
    ],
)
def test_bad_models_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DPMixture(**{"features": 2, "components": 4, **options})


def test_bad_rows_are_explained() -> None:
    with pytest.raises(ValueError, match="5 components start from clusters of rows"):
        DPMixture.from_data(rows(3), 5)
    with pytest.raises(ValueError, match="Column 1 is constant"):
        DPMixture.from_data(torch.stack([torch.arange(9.0), torch.ones(9)], -1), 3)
