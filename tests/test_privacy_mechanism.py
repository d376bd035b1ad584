"""Private training: the mechanism is the one that is accounted, and planted bugs are found.

Each law is a function that a correct mechanism passes; the last tests plant the bugs that such code
is known for and see the law fail. Known answer: the update is
theta - lr (sum_i clip(g_i) + N(0, sigma^2 C^2)) / (q N) (Abadi et al. 2016, Alg. 1).
"""

import copy
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import pgm
import privacy
from pgm.batch import Batch, chunks, rows_of
from privacy.batches import PoissonLots
from privacy.gradients import PerRow
from privacy.learner import PrivateLearner
from privacy.optimiser import PrivateOptimiser

Release, Ledger = privacy.Release, privacy.Ledger


class Gaussian(pgm.Model):
    """x ~ N(mu, I): the gradient of a row is mu - x."""

    def __init__(self, features: int = 1) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(features))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, 1.0).to_event(1))


class Still(pgm.Model):
    """2000 numbers that the loss reaches with gradient zero."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2000))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(0.0 * self.w.sum(), torch.ones(1)).to_event(1))


class Reseeding(Still):
    """A program that sets torch's seed whenever it runs."""

    def model(self, n: int) -> None:
        torch.manual_seed(0)
        super().model(n)


ROUTE: dict[str, Any] = {"route": "ghost"}


def learner(model: pgm.Model, *, sigma: float, rows: int = 40, clip: float = 1.0) -> PrivateLearner:
    """Plain gradient descent of step one: the parameters move by minus the private gradient."""
    release = Release("test", "a", sigma, 0.5, 1, clip, rows, 1e-5)
    by_row = PerRow(model, size=rows, **ROUTE)
    return PrivateLearner(
        model,
        by_row,
        release=release,
        ledger=Ledger(),
        seed=11,
        steps=1,
        learning_rate=1.0,
        optimiser=torch.optim.SGD,
    )


def moved(model: pgm.Model, batch: Batch, **options: Any) -> Tensor:
    """Minus the change of all parameters in one step."""
    model = copy.deepcopy(model)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    learner(model, **options).update(batch)
    return before - nn.utils.parameters_to_vector(model.parameters()).detach()


def noise_is_that_of_the_accountant() -> None:
    """Standard deviation sigma C / (q N), for lots of 7 and of no rows, N declared above both."""
    for n in (7, 0):
        step = moved(Still(), Batch(x=torch.zeros(n, 1)), sigma=1.5, clip=0.4)
        expected = 1.5 * 0.4 / (0.5 * 40)
        assert abs(float(step.mean())) < 5 * expected / math.sqrt(2000)
        assert float(step.std()) == pytest.approx(expected, rel=0.08)
        assert stats.kstest(step.numpy() / expected, "norm").pvalue > 1e-4


ADDED = {
    "zeros": 0.0,
    "large": 1e6,
    "large and negative": -1e6,
    "huge": 3e38,
    "nan": math.nan,
    "inf": math.inf,
    "duplicate": 5.0,
}


def one_row_moves_the_sum_by_the_clipping_norm_at_most() -> None:
    rows = torch.full((10, 2), 5.0)
    here = moved(Gaussian(2), Batch(x=rows), sigma=0.0, clip=0.7)
    for added in ADDED.values():
        more = torch.cat([rows, torch.tensor([[added, added]])])
        there = moved(Gaussian(2), Batch(x=more), sigma=0.0, clip=0.7)
        assert 20 * float((there - here).norm()) <= 0.7 * (1 + 1e-4)


def the_update_is_the_clipped_sum_over_the_declared_lot() -> None:
    """Row gradients -1/4 (not clipped) and -3 (clipped to -1), divided by q N = 20."""
    step = moved(Gaussian(), Batch(x=torch.tensor([[0.25], [3.0]])), sigma=0.0)
    assert float(step) == pytest.approx(-(0.25 + 1.0) / 20, rel=1e-4)


def rows_enter_lots_independently() -> None:
    """Lot sizes are binomial; so are the times a row, and a pair of rows, was chosen."""
    x = torch.arange(30.0)[:, None]
    lots = [lot["x"].flatten().long() for lot in _lots(x, 0.2, 2000)]
    sizes = torch.tensor([float(len(lot)) for lot in lots])
    assert float(sizes.mean()) == pytest.approx(6.0, abs=5 * math.sqrt(4.8 / 2000))
    assert float(sizes.var()) == pytest.approx(4.8, rel=0.2)
    chosen = torch.stack([torch.bincount(lot, minlength=30) for lot in lots]).double()
    assert chosen.max() == 1
    assert ((chosen.mean(0) - 0.2).abs() < 5 * math.sqrt(0.16 / 2000)).all()
    pairs = chosen.T @ chosen / 2000
    pairs.fill_diagonal_(0.04)
    assert ((pairs - 0.04).abs() < 5 * math.sqrt(0.0384 / 2000)).all()


def empty_lots_are_steps() -> None:
    """40 steps at rate 0.01 of 3 rows: nearly all lots are empty, and all are made and counted."""
    model, ledger = Still(), Ledger()
    run = privacy.PrivateTraining(
        model,
        torch.zeros(3, 1),
        epsilon=2.0,
        delta=1e-5,
        steps=40,
        rate=0.01,
        ledger=ledger,
        seed=0,
        optimiser=torch.optim.SGD,
    )
    before = model.w.detach().clone()
    for _ in run:
        assert not torch.equal(model.w, before)
        before = model.w.detach().clone()
    assert sum(map(math.isnan, run.hidden.reveal())) > 20
    assert [r.steps for r in ledger.releases] == [40]


def a_fit_divides_by_the_declared_lot() -> None:
    """20 rows came, 40 are declared: one step of noise sigma C / (0.5 x 40)."""
    model = Still()
    run = privacy.fit(
        model, torch.zeros(20, 1), rows=40, rate=0.5, epsilon=1.0, delta=1e-4, clip=0.3, steps=1,
        accountant="rdp", learning_rate=1.0, optimiser=torch.optim.SGD, seed=0,
    )  # fmt: skip
    expected = run.report.release.noise_multiplier * 0.3 / 20
    assert float(model.w.detach().std()) == pytest.approx(expected, rel=0.08)


def no_two_steps_share_their_noise() -> None:
    """Whatever the program does to torch's global generator."""
    model = Reseeding()
    run = privacy.PrivateTraining(
        model, torch.zeros(20, 1), epsilon=1.0, delta=1e-4, steps=2, accountant="rdp", seed=0,
        learning_rate=1.0, optimiser=torch.optim.SGD,
    )  # fmt: skip
    seen = [model.w.detach().clone() for _ in run]
    first, second = seen[0].double(), (seen[1] - seen[0]).double()
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 5 / math.sqrt(2000)


def a_lot_taken_in_pieces_is_one_step() -> None:
    batch = Batch(x=torch.linspace(-1.0, 3.0, 9)[:, None])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ROUTE, "route", "vmap")
        whole = moved(Gaussian(), batch, sigma=1.0)
        patch.setattr("privacy.gradients.per_row.NUMBERS_AT_ONCE", 4)
        model = Gaussian()
        step = learner(model, sigma=1.0)
        step.update(batch)
    torch.testing.assert_close(-model.mu.detach(), whole)
    assert [r.steps for r in step.ledger.releases] == [1]


def a_step_that_is_broken_off_leaves_nothing() -> None:
    """Its rows would else be in the next step too, and count twice there."""
    nine, one = Batch(x=torch.full((9, 1), 5.0)), Batch(x=torch.full((1, 1), 5.0))
    alone = moved(Gaussian(), one, sigma=0.0)
    model = Gaussian()
    step = learner(model, sigma=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step.ledger, "add", lambda release: 1 / 0)  # a ledger that was tampered with
        with pytest.raises(ZeroDivisionError):
            step.update(nine)
        patch.setattr(step.optimiser, "add_noise", lambda: 1 / 0)  # interrupted before the noise
        with pytest.raises(ZeroDivisionError):
            step.update(nine)
    assert step.ledger.releases == () and float(model.mu.detach()) == 0.0
    step.update(one)
    torch.testing.assert_close(-model.mu.detach(), alone)
    assert [r.steps for r in step.ledger.releases] == [1]


def _lots(x: Tensor, rate: float, number: int) -> Iterator[Batch]:
    source, k = PoissonLots(Gaussian(), Batch(x=x), rate=rate, rows=len(x), seed=3), 0
    while number > 0:
        for lot in source.epoch(k):
            yield lot
            number -= 1
        k += 1


LAWS = [
    noise_is_that_of_the_accountant,
    one_row_moves_the_sum_by_the_clipping_norm_at_most,
    the_update_is_the_clipped_sum_over_the_declared_lot,
    rows_enter_lots_independently,
    empty_lots_are_steps,
    a_fit_divides_by_the_declared_lot,
    no_two_steps_share_their_noise,
    a_lot_taken_in_pieces_is_one_step,
    a_step_that_is_broken_off_leaves_nothing,
]


@pytest.mark.parametrize("route", ["ghost", "vmap", "loop"])
@pytest.mark.parametrize("law", LAWS[:3])
def test_law_of_a_step(
    law: Callable[[], None], route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROUTE, "route", route)
    law()


@pytest.mark.parametrize("law", LAWS[3:])
def test_law_of_a_fit(law: Callable[[], None]) -> None:
    law()


def no_noise(self: Any) -> None:
    for p in self.params:
        p.grad = p.summed_grad


def noise_over_the_lot(self: Any) -> None:
    for p in self.params:
        noise = torch.randn_like(p) * self.noise_multiplier * self.max_grad_norm / 7
        p.grad = p.summed_grad + noise


def clip_per_batch(norms: Tensor, clip: float) -> Tensor:
    return (clip / (norms.mean() + 1e-6)).clamp(max=1.0).expand_as(norms)


def clip_by_element(self: Any, c: Tensor) -> Tensor:
    return self.g.clamp(-0.7, 0.7).sum(0)


def divide_by_the_lot(self: Any) -> None:
    for p in self.params:
        p.grad /= 2


def shuffled(self: PoissonLots, k: int, *, skip: int = 0) -> Iterator[Batch]:
    order = torch.randperm(rows_of(self.batch), generator=torch.Generator().manual_seed(k))
    size = round(self.rate * rows_of(self.batch))
    for index in order.split(size):
        yield Batch({name: value[index] for name, value in self.batch.items()})


def global_noise(self: Any) -> None:
    for p in self.params:
        noise = torch.randn_like(p) * self.noise_multiplier * self.max_grad_norm
        p.grad = p.summed_grad + noise


def skipping(update: Callable[..., float]) -> Callable[..., float]:
    return lambda self, batch: update(self, batch) if rows_of(batch) else math.nan


def kept(optimiser: Any) -> None:
    """As if nothing had happened: without the mark by which Opacus would notice, too."""
    for p in optimiser.params:
        p.summed_grad = None if p.summed_grad is None else p.summed_grad.clone()


def physical(update: Callable[..., float]) -> Callable[..., float]:
    return lambda self, batch: [update(self, piece) for piece in chunks(batch, 4)][-1]


Optimiser = PrivateOptimiser
ROWS, PARTS = sys.modules["privacy.gradients.rows"], sys.modules["privacy.gradients.parts"]
BUGS: dict[str, tuple[Any, str, Any, Callable[[], None]]] = {
    "no noise": (Optimiser, "add_noise", no_noise, LAWS[0]),
    "noise divided by the lot": (Optimiser, "add_noise", noise_over_the_lot, LAWS[0]),
    "clip per batch": (ROWS, "factors", clip_per_batch, LAWS[1]),
    "no clipping": (ROWS, "factors", lambda norms, clip: torch.ones_like(norms), LAWS[1]),
    "clip by element": (PARTS.Whole, "weighted", clip_by_element, LAWS[1]),
    "divisor from the lot": (Optimiser, "scale_grad", divide_by_the_lot, LAWS[2]),
    "no divisor": (Optimiser, "scale_grad", lambda self: None, LAWS[2]),
    "shuffling instead of Poisson": (PoissonLots, "epoch", shuffled, LAWS[3]),
    "skipped empty lots": (
        PrivateLearner,
        "update",
        skipping(PrivateLearner.update),
        LAWS[4],
    ),
    "divisor from the rows that came": (
        sys.modules["privacy.fit"],
        "public_rows",
        lambda rows, came: came,
        LAWS[5],
    ),
    "noise from the global generator": (Optimiser, "add_noise", global_noise, LAWS[6]),
    "physical steps accounted": (
        PrivateLearner,
        "update",
        physical(PrivateLearner.update),
        LAWS[7],
    ),
    "rows kept for the next step": (
        PrivateOptimiser,
        "forget",
        kept,
        LAWS[8],
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_breaks_a_law(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, planted, law = BUGS[bug]
    monkeypatch.setattr(where, name, planted)
    with pytest.raises(AssertionError):
        law()
