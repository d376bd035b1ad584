"""A private fit from end to end: what it learns, spends, writes into ledger, note and report."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pgm
import privacy
from pgm.families.factor import PPCA
from pgm.families.mixture import GaussianMixture
from pgm.families.vae import VAE
from pgm.loop import NonFiniteLoss
from privacy.batches import derive
from privacy.ledger import Ledger


class Gaussian(pgm.Model):
    """x ~ N(mu, I): the gradient of a row is mu - x."""

    def __init__(self, features: int = 1) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(features))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, 1.0).to_event(1))


def normal_rows(n: int, mean: float = 3.0) -> Tensor:
    return mean + torch.randn(n, 1, generator=torch.Generator().manual_seed(0))


def test_a_private_mean_is_near_the_mean_at_large_epsilon() -> None:
    x, model = normal_rows(2000), Gaussian()
    run = privacy.fit(
        model, x, epsilon=10.0, delta=1e-5, steps=60, clip=4.0, learning_rate=0.3, seed=0,
        optimiser=torch.optim.SGD,
    )  # fmt: skip
    assert model.mu.item() == pytest.approx(float(x.mean()), abs=0.1)
    assert 9.8 <= run.epsilon <= 10.0


def test_what_is_spent_is_what_the_accountant_says_of_the_steps_made() -> None:
    ledger = Ledger()
    run = privacy.fit(
        Gaussian(), normal_rows(500), epsilon=2.0, delta=1e-4, steps=30, rate=0.1, ledger=ledger
    )
    (entry,) = ledger.releases
    assert (entry.rate, entry.steps, entry.rows, entry.delta) == (0.1, 30, 500, 1e-4)
    spent = privacy.epsilon(entry.noise_multiplier, rate=0.1, steps=30, delta=1e-4)
    assert run.epsilon == spent == ledger.epsilon(1e-4)
    assert 0.98 * 2.0 <= spent <= 2.0
    so_far = [step.metrics["epsilon"] for step in run.steps]
    assert so_far == sorted(so_far)
    assert 0 < so_far[0] < so_far[-1] == spent
    for t in (1, 10, 20):
        exact = privacy.epsilon(entry.noise_multiplier, rate=0.1, steps=t, delta=1e-4)
        assert so_far[t - 1] >= exact - 0.011


def test_a_second_fit_adds_to_the_ledger_and_the_model_says_so() -> None:
    ledger, x = Ledger(), normal_rows(300)
    options: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-4, "steps": 5, "ledger": ledger}
    first, second = Gaussian(), Gaussian()
    privacy.fit(first, x, **options)
    run = privacy.fit(second, x, **options)
    assert len(ledger.releases) == 2
    assert run.epsilon <= 1.0 < ledger.epsilon(1e-4)
    assert first.note is not None and "1 release in" in first.note
    assert second.note is not None and "2 releases in" in second.note
    assert f"({math.ceil(100 * ledger.epsilon(1e-4)) / 100:.2f}, 0.0001)" in second.note


def test_the_noise_of_an_earlier_release_is_not_used_again() -> None:
    ledger, x = Ledger(), normal_rows(300)
    options: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-4, "steps": 2, "ledger": ledger}
    privacy.fit(Gaussian(), x, seed=4, **options)
    with pytest.raises(ValueError, match="the same noise a second time"):
        privacy.fit(Gaussian(), x + 1.0, seed=4, **options)
    assert len(ledger.releases) == 1
    privacy.fit(Gaussian(), x, seed=5, **options)
    assert len(ledger.releases) == 2


def test_a_note_does_not_outlive_the_weights_it_speaks_of() -> None:
    model, x = Gaussian(), normal_rows(300)
    privacy.fit(model, x, epsilon=1.0, delta=1e-4, steps=2)
    assert model.note is not None
    pgm.fit(model, x, steps=2)
    assert model.note is None


def test_a_fit_on_top_of_a_private_one_keeps_its_note() -> None:
    model, x = Gaussian(), normal_rows(300)
    privacy.fit(model, x, epsilon=1.0, delta=1e-4, steps=2)
    privacy.fit(model, x, epsilon=2.0, delta=1e-4, steps=2)
    assert model.note is not None and model.note.count("differential privacy") == 2


def test_a_run_that_is_broken_off_is_accounted_as_far_as_it_went() -> None:
    model, ledger = Gaussian(), Ledger()
    run = privacy.PrivateTraining(
        model, normal_rows(300), epsilon=1.0, delta=1e-4, steps=50, ledger=ledger
    )
    steps = iter(run)
    for _ in range(3):
        next(steps)
    assert [r.steps for r in ledger.releases] == [3]
    assert model.note is not None and "rdp accountant" in model.note
    steps.close()
    assert run.report.release.steps == 3
    assert run.report.epsilon == ledger.epsilon(1e-4)


def test_a_step_broken_off_after_its_noise_is_spent_and_not_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = privacy.PrivateTraining(
        Gaussian(), normal_rows(300), epsilon=1.0, delta=1e-4, steps=6, accountant="rdp"
    )
    steps = iter(run)
    next(steps)
    with monkeypatch.context() as patch:
        patch.setattr("privacy.learner.SpentSoFar.step", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next(steps)
    assert sum(r.steps for r in run.ledger.releases) == run.report.release.steps == 2
    assert [step.step for step in run] == [2, 3, 4, 5]
    assert sum(r.steps for r in run.ledger.releases) == run.report.release.steps == 6
    assert run.report.epsilon == run.ledger.epsilon(1e-4, accountant="rdp") <= 1.0


def test_two_runs_of_one_seed_do_not_start_side_by_side() -> None:
    ledger = Ledger()
    one, two = (
        privacy.PrivateTraining(
            Gaussian(), normal_rows(300), epsilon=1.0, delta=1e-4, steps=3, seed=1, ledger=ledger
        )
        for _ in range(2)
    )
    assert len(list(one)) == 3
    with pytest.raises(ValueError, match="the same noise a second time"):
        list(two)


def test_the_seed_repeats_a_run_and_no_seed_does_not() -> None:
    def mean(seed: int | None) -> float:
        torch.manual_seed(0)
        model = Gaussian()
        privacy.fit(model, normal_rows(300), epsilon=1.0, delta=1e-4, steps=3, seed=seed)
        return model.mu.item()

    assert mean(1) == mean(1) != mean(2)
    assert mean(None) != mean(None)


def test_streams_of_one_seed_share_nothing() -> None:
    seeds = {derive(s, purpose) for s in range(50) for purpose in ("lots", "draws", "noise")}
    assert len(seeds) == 150


def test_the_callers_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    privacy.fit(Gaussian(), normal_rows(300), epsilon=1.0, delta=1e-4, steps=2)
    assert torch.equal(before, torch.get_rng_state())


def test_losses_are_hidden_until_they_are_revealed_and_the_report_says_so() -> None:
    run = privacy.fit(Gaussian(), normal_rows(300), epsilon=1.0, delta=1e-4, steps=20, rate=0.2)
    assert all(math.isnan(step.loss) for step in run.steps)
    with pytest.raises(privacy.PrivateValue, match="call reveal"):
        run.loss  # noqa: B018
    assert "loss 4" not in str(run) and "revealed      nothing" in str(run)
    assert 3.0 < run.reveal()[0] < 8.0
    assert run.loss == pytest.approx(sum(run.reveal()[-2:]) / 2)
    assert "revealed      the losses of 20 steps" in str(run)


def test_the_progress_bar_shows_epsilon_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("tqdm.std.tqdm.set_postfix", lambda bar, **shown: seen.extend(shown))
    privacy.fit(Gaussian(), normal_rows(300), epsilon=1.0, delta=1e-4, steps=2, accountant="rdp")
    assert set(seen) == {"epsilon", "refresh"}


def test_the_loss_is_a_hint_and_never_stops_a_run() -> None:
    """In some lots every row has a loss that overflows; others are empty."""
    x = torch.cat([torch.zeros(3, 1), torch.full((9, 1), 3e38)])
    run = privacy.fit(Gaussian(), x, epsilon=1.0, delta=0.01, steps=40, rate=0.1, seed=1)
    assert len(run.steps) == 40
    assert 0 < sum(math.isnan(loss) for loss in run.reveal()) < 40


def test_parameters_driven_off_stop_the_run() -> None:
    with pytest.raises(NonFiniteLoss, match="What was spent stays spent"):
        privacy.fit(
            Gaussian(), normal_rows(50), epsilon=1.0, delta=1e-4, steps=20, learning_rate=3e38,
            rate=0.02, optimiser=torch.optim.SGD,
        )  # fmt: skip


def test_averages_schedules_and_the_rdp_accountant_go_along() -> None:
    model = Gaussian()
    run = privacy.fit(
        model, normal_rows(300), epsilon=1.0, delta=1e-4, steps=20, ema=0.5, schedule="cosine",
        accountant="rdp", seed=0,
    )  # fmt: skip
    rates = [step.metrics["learning_rate"] for step in run.steps]
    assert rates[0] > rates[-1]
    assert 0.98 <= run.epsilon <= 1.0
    assert run.report.by("prv") < run.epsilon


def test_a_second_fit_takes_the_same_route() -> None:
    """The first one leaves the model in evaluation mode, in which nothing is dropped."""
    model, x = (
        VAE(2, latents=1, hidden=(4,), dropout=0.5),
        (normal_rows(60) > 3).float().repeat(1, 2),
    )
    for _ in range(2):
        run = privacy.fit(model, x, epsilon=1.0, delta=1e-4, steps=2, accountant="rdp", seed=0)
        assert (run.report.route, run.report.reason) == ("ghost", "")


def test_the_report_says_what_a_reviewer_asks() -> None:
    run = privacy.fit(
        Gaussian(), normal_rows(300), epsilon=1.0, delta=1e-4, steps=5, rows=400, rate=0.2
    )
    text = str(run.report)
    for said in (
        "one row, added or removed", "Poisson, rate 0.2, 5 steps", "400 rows (declared)",
        "divisor 80", "route         ghost", "clipped to norm 1", "asked for 1", "prv", "rdp",
        "not covered", "schema levels", "the seed", "one row more", "pld", "self-check    passed",
        "revealed      nothing", "1 release about these rows (fit of Gaussian)",
    ):  # fmt: skip
        assert said in text


def test_a_private_mixture_finds_separated_means() -> None:
    """Issue 4's known answer: 900 rows, epsilon 14, three clusters, means to 0.1.

    The means start where anybody may know: on a circle, looking at no row.
    """
    centres = torch.tensor([[-2.0, -2.0], [2.0, -2.0], [0.0, 2.5]])
    noise = torch.randn(900, 2, generator=torch.Generator().manual_seed(0))
    model = GaussianMixture(2, 3)
    angles = 2 * math.pi / 3 * torch.arange(3.0)
    model.means.data = torch.stack([angles.sin(), angles.cos()], 1)
    run = privacy.fit(
        model, centres.repeat(300, 1) + 0.5 * noise, epsilon=14.0, delta=1e-4, steps=120, rate=1.0,
        clip=2.0, learning_rate=0.1, schedule="cosine", accountant="rdp", seed=0,
    )  # fmt: skip
    nearest = torch.cdist(centres, model.means.detach()).min(1)
    assert 13.7 <= run.epsilon <= 14.0 and sorted(nearest.indices.tolist()) == [0, 1, 2]
    assert float(nearest.values.max()) < 0.1


def test_a_report_says_that_the_model_was_trained_before_and_the_ledger_does_not_know() -> None:
    model, x = PPCA(2, 1), torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    options = {"epsilon": 1.0, "delta": 1e-4, "steps": 2}
    first = privacy.fit(model, x, **options)
    assert "The ledger knows nothing" not in str(first.report)
    second = privacy.fit(model, x, **options)
    assert "more was spent on them than is said here" in str(second.report)
    ledger = privacy.Ledger()
    for _ in range(2):
        known = privacy.fit(PPCA(2, 1), x, ledger=ledger, **options)
    assert known.report.earlier == "" and len(known.report.together) == 2
