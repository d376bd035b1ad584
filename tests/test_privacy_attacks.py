"""Membership inference: attacks find what theory says they find, and no more than privacy allows.

Known answer of the loss attack: a mean fitted to n rows of N(0, I_d) has members at squared
distance (1 - 1/n) chi^2_d and other rows at (1 + 1/n) chi^2_d, so that the ratio of the two is F.
Known answer of LiRA: normal scores a distance D apart of variance v have AUC Phi(D / sqrt(2 v)).
"""

import math
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import pgm
import privacy
from pgm.batch import Batch
from pgm.families.gan import GAN
from pgm.families.kde import KDE
from pgm.families.mixture import GaussianMixture
from privacy.attacks import Attack, likelihood_ratio, lira, loss_attack, tpr_bound
from privacy.attacks.shadows import _check_lira
from privacy.auditing import step_epsilon
from privacy.recipes import log_density, log_odds


class Gaussian(pgm.Model):
    """x ~ N(mu, I)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(features))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, 1.0).to_event(1))


class Coin(pgm.Model):
    """y ~ Bernoulli(sigmoid(x + b)), x being context."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(()))

    def model(self, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("y", dist.Bernoulli(logits=x + self.b))


def mean_of(rows: Batch, seed: int) -> pgm.Model:
    """The model at its maximum of the likelihood."""
    model = Gaussian(rows["x"].shape[1])
    with torch.no_grad():
        model.mu.copy_(rows["x"].mean(0))
    return model


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def pooled(attacks: list[Attack]) -> Attack:
    scores = torch.cat([attack.scores for attack in attacks])
    return Attack("pooled", scores, torch.cat([attack.members for attack in attacks]))


# ---------------------------------------------------------------------- loss attack


@pytest.mark.parametrize("d", [10, 200])
def test_the_loss_attack_on_an_overfitted_mean_is_as_in_closed_form(d: int) -> None:
    n, attacks = 5, list[Attack]()
    for seed in range(150):
        x = normal(2 * n, d, seed)
        model = mean_of(Batch(x=x[:n]), 0)
        attacks.append(loss_attack(model, x[:n], x[n:]))
    found, ratio = pooled(attacks), (n - 1) / (n + 1)
    known = float(stats.f(d, d).sf(ratio))
    assert found.auc.value == pytest.approx(known, abs=0.04)
    assert found.auc.lower < known < found.auc.upper
    at = 0.1
    power = float(stats.chi2(d).cdf(stats.chi2(d).ppf(at) / ratio))
    assert found.tpr(at).value == pytest.approx(power, abs=0.07)


def test_a_much_overfitted_model_is_wholly_exposed() -> None:
    x = normal(40, 3000)
    found = loss_attack(mean_of(Batch(x=x[:20]), 0), x[:20], x[20:])
    assert found.auc.value == 1.0 and found.auc.lower > 0.85
    assert found.tpr(0.0).value == 1.0
    assert found.advantage.value > 0.3


def test_a_model_that_never_saw_the_rows_tells_nothing() -> None:
    x = normal(4000, 3)
    found = loss_attack(Gaussian(3), x[:2000], x[2000:])
    assert found.auc.lower < 0.5 < found.auc.upper
    assert found.advantage.lower < 0.0 < found.advantage.upper
    assert found.tpr(0.1).lower < 0.1 < found.tpr(0.1).upper


def test_any_model_can_be_attacked() -> None:
    """By its density, exact or bounded, or by its loss where it has none."""
    x = normal(30, 2)
    for model in (GaussianMixture(2, 2), GAN(2, latents=2, hidden=(4,))):
        scores = log_density(model, Batch(x=x))
        assert scores.shape == (30,) and bool(scores.isfinite().all())
        torch.testing.assert_close(scores, log_density(model, Batch(x=x)), msg="same draws")
        assert len(loss_attack(model, x[:15], x[15:]).scores) == 30


def test_log_odds_are_those_of_the_outcome() -> None:
    x = torch.tensor([-2.0, 0.0, 40.0])
    odds = log_odds(Coin(), Batch(x=x, y=torch.ones(3)))
    assert odds[:2].tolist() == pytest.approx([-2.0, 0.0], abs=1e-5)
    assert 15 < float(odds[2]) < math.inf
    with pytest.raises(ValueError, match="the outcome is not discrete"):
        log_odds(KDE(torch.zeros(1, 1), bandwidth=0.01), Batch(x=torch.zeros(1, 1)))


# --------------------------------------------------------------------------- LiRA


def test_the_likelihood_ratio_separates_as_normal_laws_do() -> None:
    """D = 2 v^1/2, for either mode."""
    with pgm.seeded(0):
        within = torch.rand(400, 2000).argsort(0) < 200
        level = 3.0 * torch.randn(2000)  # rows differ far more than membership does
        shadows = level + 2.0 * within + torch.randn(400, 2000)
        inside = torch.rand(1, 2000) < 0.5
        scores = level + 2.0 * inside + torch.randn(1, 2000)
    known = float(stats.norm.cdf(2 / math.sqrt(2)))
    three = torch.full_like(scores, 3.0) + level
    offline = likelihood_ratio(three, shadows, within, mode="offline")
    assert float(offline.mean()) == pytest.approx(3.0, abs=0.02), "from the law without the row"
    for mode in ("online", "offline"):
        ratio = likelihood_ratio(scores, shadows, within, mode=mode)
        found = Attack(mode, ratio.flatten(), inside.flatten())
        assert found.auc.value == pytest.approx(known, abs=0.02)
    raw = Attack("score", scores.flatten(), inside.flatten())
    assert raw.auc.value < 0.7


def test_lira_on_a_mean_is_as_the_moments_of_its_scores_say() -> None:
    """A row x in a pool: its score is -|x - mean|^2 / 2, mean = x / n + noise or noise alone."""
    n, d = 30, 10
    x = normal(2 * n, d)
    found = lira(mean_of, x, shadows=64, targets=30, variance="row", seed=0)
    # The noise is that of the mean of half of the pool, a finite population: S / 2n.
    s2 = float(x.var(0).mean()) / (2 * n)
    size, inside, out = x.square().sum(1), (1 - 1 / n) ** 2, 1.0
    gap = (out - inside) * size / 2
    variance = d * s2**2 / 2 + s2 * (inside + out) / 2 * size
    known = float(torch.distributions.Normal(0.0, 1.0).cdf(gap / (2 * variance).sqrt()).mean())
    assert found.auc.value == pytest.approx(known, abs=0.04)
    assert len(found.scores) == 30 * 2 * n
    offline = lira(mean_of, x, shadows=16, targets=5, mode="offline", seed=0)
    assert offline.auc.lower > 0.5, "members are those that the recipe was given"


def test_lira_trains_its_shadows_and_beats_the_loss() -> None:
    """Rows at different distances: what the loss attack takes for membership is their distance."""

    def fitted(rows: Batch, seed: int) -> pgm.Model:
        model = Gaussian(6)
        pgm.fit(model, rows, steps=12, batch_size=64, learning_rate=0.2, seed=seed)
        return model

    x = normal(24, 6) * torch.linspace(0.3, 3.0, 24)[:, None]
    found = lira(fitted, x, shadows=16, targets=6, seed=1)
    inside = found.members.reshape(6, 24)
    plain = Attack("loss", -x.square().sum(1).repeat(6), inside.flatten())
    assert found.auc.lower > 0.6 > plain.auc.value
    assert "LiRA (online, 16 shadow models) on" in str(found)


def test_same_seed_same_attack() -> None:
    options: dict[str, Any] = {"shadows": 4, "mode": "offline"}
    first, again, other = (
        lira(mean_of, normal(20, 3), seed=seed, **options).scores for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


# ------------------------------------------------------------- what privacy allows


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
def test_no_test_of_a_gaussian_mechanism_passes_its_bound(mu: float) -> None:
    epsilon = step_epsilon(mu, delta=1e-3)
    gaps = []
    for fpr in (1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9):
        power = float(stats.norm.sf(stats.norm.isf(fpr) - mu))
        gaps.append(tpr_bound(fpr, epsilon, 1e-3) - power)
    assert min(gaps) >= 0
    assert tpr_bound(0.0, epsilon, 1e-3) == pytest.approx(1e-3)
    assert tpr_bound(1.0, epsilon, 1e-3) == 1.0


def test_a_private_fit_is_within_its_bound_and_an_open_one_is_not() -> None:
    """Four thousand parameters from 30 rows: the open mean gives them away."""
    x = normal(330, 4000)
    members, others = x[:30], x[30:]
    model = Gaussian(4000)
    run = privacy.fit(
        model, members, epsilon=1.0, delta=1e-3, steps=5, rate=1.0, learning_rate=0.5, seed=0,
        optimiser=torch.optim.SGD, accountant="rdp",
    )  # fmt: skip
    promise = (run.epsilon, run.delta)
    kept = loss_attack(model, members, others, promise=promise)
    broken = loss_attack(mean_of(Batch(x=members), 0), members, others, promise=promise)
    for fpr in (0.0, 0.01, 0.05):
        assert kept.kept(fpr) and not broken.kept(fpr)
    assert broken.auc.value > 0.95 > kept.auc.value
    assert "MORE THAN IT ALLOWS" in str(broken)
    assert "epsilon 0.9" in str(kept) and "MORE" not in str(kept)


# ------------------------------------------------------------------- the outcome


def test_intervals_cover_as_often_as_they_say() -> None:
    """AUC of N(0.8, 1) against N(0, 1): Phi(0.8 / sqrt 2)."""
    truth, hit = float(stats.norm.cdf(0.8 / math.sqrt(2))), 0
    members = torch.arange(60) < 30
    for seed in range(300):
        auc = Attack("", normal(60, 1, seed)[:, 0] + 0.8 * members, members).auc
        hit += auc.lower <= truth <= auc.upper
    assert 0.92 <= hit / 300 <= 0.985


def test_auc_and_rates_by_hand() -> None:
    """Members 3, 1, 0 and others 2, 0: pairs won 2 + 1 + 1/2 of 6."""
    found = Attack("", torch.tensor([3.0, 1.0, 0.0, 2.0, 0.0]), torch.tensor([1, 1, 1, 0, 0]) > 0)
    assert found.auc.value == pytest.approx(3.5 / 6)
    assert found.tpr(0.0).value == pytest.approx(1 / 3)
    assert found.tpr(0.5).value == pytest.approx(2 / 3)
    assert found.tpr(1.0).value == 1.0
    exact = stats.binomtest(1, 3).proportion_ci(0.95, method="exact")
    assert (found.tpr(0.0).lower, found.tpr(0.0).upper) == pytest.approx((exact.low, exact.high))


def test_the_curve_is_drawn_on_logarithmic_axes_beside_what_is_allowed() -> None:
    x = normal(40, 5)
    found = loss_attack(mean_of(Batch(x=x[:20]), 0), x[:20], x[20:], promise=(1.0, 1e-5))
    ax = found.plot()
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [line.get_label() for line in ax.lines] == [
        "loss attack",
        "guessing",
        "allowed by epsilon 1",
    ]
    plt.close("all")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lira(mean_of, normal(9, 1), shadows=3), "shadows is 3"),
        (lambda: lira(mean_of, normal(9, 1), targets=0), "targets is 0"),
        (lambda: _check_lira(4, 1, "oracle", None), "no mode 'oracle'"),
        (lambda: _check_lira(4, 1, "online", "none"), "no variance 'none'"),
        (lambda: loss_attack(Gaussian(1), normal(9, 1), normal(0, 1)), "have no rows"),
        (
            lambda: loss_attack(
                Gaussian(1), normal(9, 1), normal(9, 1), score=lambda m, b: b["x"][:, 0] * math.nan
            ),
            "18 scores are not numbers",
        ),
        (
            lambda: loss_attack(Gaussian(1), normal(9, 1), normal(9, 1), promise=(-1.0, 0.1)),
            "epsilon is -1",
        ),
        (
            lambda: loss_attack(Gaussian(1), normal(9, 1), normal(9, 1)).tpr(1.5),
            "fpr is 1.5",
        ),
    ],
)
def test_what_cannot_be_attacked_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call()
    assert len(str(caught.value)) > 40
