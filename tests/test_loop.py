"""The loop: what is trained, kept, stopped, saved and resumed."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pgm


class Gaussian(pgm.Model):
    """x ~ N(mu, exp(log_sigma)^2), by column."""

    def __init__(self, features: int = 2) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(features))
        self.log_sigma = nn.Parameter(torch.zeros(features))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, self.log_sigma.exp()).to_event(1))


class Noisy(Gaussian):
    """A Gaussian with a latent mean, so that every step draws."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.mu + z, self.log_sigma.exp()).to_event(1))

    def guide(self, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(0.5 * (x - self.mu), 0.7).to_event(1))


def data(n: int = 100) -> Tensor:
    return 3.0 + 0.5 * torch.randn(n, 2, generator=torch.Generator().manual_seed(1))


def same(a: pgm.Model, b: pgm.Model) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def test_fit_finds_the_maximum_of_the_likelihood() -> None:
    x, model = data(), Gaussian()
    run = pgm.fit(model, x, epochs=400, batch_size=100, learning_rate=0.05, seed=0)
    assert torch.allclose(model.mu, x.mean(0), atol=1e-2)
    assert torch.allclose(model.log_sigma.exp(), x.std(0, correction=0), atol=1e-2)
    assert len(run.steps) == 400
    assert run.steps[-1].epoch == 399
    assert "Gaussian: 400 steps" in str(run)
    assert run.plot().lines


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    models = [Noisy(), Noisy(), Noisy()]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        pgm.fit(model, data(), steps=20, seed=seed)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_consumer_that_draws_between_steps_changes_nothing() -> None:
    plain, disturbed = Noisy(), Noisy()
    pgm.fit(plain, data(), steps=10, seed=0)
    for _ in pgm.training(disturbed, data(), steps=10, seed=0):
        torch.randn(7)
    assert same(plain, disturbed)


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"schedule": "cosine"}, {"validation": 0.2}])
def test_resuming_is_bit_exact(tmp_path: Path, options: dict[str, Any]) -> None:
    common: dict[str, Any] = {"seed": 0, "batch_size": 30, **options}
    straight, stopped = Noisy(), Noisy()
    pgm.fit(straight, data(), steps=23, **common)
    file = tmp_path / "run.pt"
    part = pgm.training(stopped, data(), steps=23, checkpoint=file, checkpoint_every=5, **common)
    for step in part:
        if step.step == 13:
            break
    part.close()  # type: ignore[attr-defined]
    resumed = Noisy()
    run = pgm.fit(resumed, data(), steps=23, checkpoint=file, checkpoint_every=5, **common)
    assert run.steps[0].step == 11
    assert same(straight, resumed)


def test_a_killed_process_leaves_a_checkpoint_that_opens(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    script = f"""
        import os, signal, torch, pgm
        from pgm.families.factor import PPCA
        x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
        steps = pgm.training(PPCA(3, 1), x, steps=10**6, seed=0, checkpoint={str(file)!r},
                             checkpoint_every=1)
        for step in steps:
            if step.step == 40:
                print("going", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"going\n"
    process.kill()
    process.wait()
    process.stdout.close()
    state = torch.load(file, weights_only=True)
    assert state["step"] >= 39


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    pgm.fit(Noisy(), data(), steps=3, seed=0, checkpoint=file)
    with pytest.raises(ValueError, match="holds another run"):
        pgm.fit(Noisy(), data(), steps=3, seed=1, checkpoint=file)


def test_early_stopping_restores_the_best_weights() -> None:
    x = data(40)
    model = Gaussian()
    held: list[float] = []
    for step in pgm.training(
        model, x[:20], validation=x[20:] + 0.7, patience=5, steps=5000, learning_rate=0.05, seed=0
    ):
        held += [step.validation] if step.validation is not None else []
    assert len(held) < 5000
    assert min(held) < held[-1]
    assert float(pgm.objective(model, x[20:] + 0.7).detach().mean()) == pytest.approx(
        min(held), rel=1e-6
    )


def test_averages_are_what_is_kept() -> None:
    x, averaged, last = data(), Gaussian(), Gaussian()
    options: dict[str, Any] = {"steps": 3, "batch_size": 100, "learning_rate": 0.1, "seed": 0}
    path = []
    for _ in pgm.training(last, x, **options):
        path.append(last.mu.detach().clone())
    pgm.fit(averaged, x, ema=0.5, **options)
    expected = path[0]
    for mu in path[1:]:
        expected = 0.5 * expected + 0.5 * mu
    assert torch.allclose(averaged.mu, expected, atol=1e-6)


def test_clipping_bounds_the_step_of_plain_descent() -> None:
    model = Gaussian()
    options: dict[str, Any] = {"optimiser": torch.optim.SGD, "learning_rate": 1.0, "seed": 0}
    pgm.fit(model, 100 * data(), steps=1, clip=0.01, **options)
    moved = torch.cat([model.mu, model.log_sigma]).detach().norm()
    assert float(moved) == pytest.approx(0.01, rel=1e-3)


def test_a_schedule_changes_the_rate() -> None:
    steps = list(pgm.training(Gaussian(), data(), steps=10, schedule="cosine", seed=0))
    rates = [step.metrics["learning_rate"] for step in steps]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


class Broken(Gaussian):
    """Its second site takes the logarithm of a parameter that descent makes negative."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, self.log_sigma.exp()).to_event(1))
            pyro.sample("y", dist.Normal(torch.log(1.0 - self.mu[0]), 100.0))


def test_nan_stops_with_the_site_that_made_it() -> None:
    model = Broken()
    with pytest.raises(pgm.NonFiniteLoss, match="site 'y' of the model"):
        pgm.fit(model, {"x": data(), "y": torch.zeros(100)}, learning_rate=0.2, seed=0)
    assert model.mu.isfinite().all()


class Coins(pgm.Model):
    """x ~ Bernoulli(p)."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Bernoulli(logits=self.logit))


def test_a_value_outside_the_support_is_found_wherever_it_stands() -> None:
    """Without a check a Bernoulli gives a half a number that looks like a density."""
    x = (torch.arange(200) % 2).float()
    x[150] = 0.5
    with pytest.raises(ValueError, match=r"Site 'x'.*within the support"):
        pgm.fit(Coins(), x, batch_size=20, steps=30, seed=0)


class Rows(Dataset[Tensor]):
    """A data set read row by row."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, i: int) -> Tensor:
        if i >= 100:
            raise IndexError(i)
        return data()[i]


class Endless(IterableDataset[Tensor]):
    """A stream without a length."""

    def __iter__(self) -> Any:
        yield from data()


@pytest.mark.parametrize(
    "source",
    [Rows(), TensorDataset(data()), DataLoader(Rows(), batch_size=25, shuffle=True)],
    ids=["dataset", "tensors", "loader"],
)
def test_data_sets_and_loaders_train_like_memory(source: Any) -> None:
    model = Gaussian()
    pgm.fit(model, source, epochs=60, batch_size=25, learning_rate=0.05, seed=0)
    assert torch.allclose(model.mu, data().mean(0), atol=0.1)
    again = Gaussian()
    pgm.fit(again, source, epochs=60, batch_size=25, learning_rate=0.05, seed=0)
    assert same(model, again)


def test_a_stream_needs_a_declared_size() -> None:
    with pytest.raises(ValueError, match="size="):
        pgm.fit(Gaussian(), Endless(), steps=2, seed=0)
    run = pgm.fit(Gaussian(), Endless(), steps=6, batch_size=25, size=100, seed=0)
    assert len(run.steps) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3, "epochs": 2}, "Both steps= and epochs="),
        ({"steps": 0}, "counts from 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"patience": 3}, "validation="),
        ({"ema": 1.0}, "ema"),
        ({"schedule": "linear"}, "schedule"),
        ({"validation": 1.5}, "fraction"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pgm.fit(Gaussian(), data(), seed=0, **options)


def test_double_precision() -> None:
    model = Gaussian()
    pgm.fit(model, data(), steps=2, dtype=torch.float64, seed=0)
    assert model.mu.dtype == torch.float64
    assert pgm.log_prob(model, data()).value.dtype == torch.float64
