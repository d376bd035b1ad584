"""Replayed steps against the steps of the program itself, under the same seed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import (
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
)
from torch import Tensor, nn

import pgm
from pgm.batch import take
from pgm.families import example, names
from pgm.loop import Training
from pgm.objectives import IWAE
from pgm.traced import REPAID, StaleTrace, TracedLearner, TraceWarning, choose
from pgm.tracing import compiles
from pgm.verb import prepare

needs_compiler = pytest.mark.skipif(not compiles(), reason="inductor finds no C++ compiler")
Maker = Callable[[], pgm.Model]


class Logistic(pgm.Model):
    """Bayesian logistic regression with a guide by coordinate."""

    def __init__(self, features: int = 3) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.full((features,), -1.0))

    def model(self, n: int, x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(x.shape[-1]), 1.0).to_event(1))
        with pgm.rows(n):
            pyro.sample("y", dist.Bernoulli(logits=x @ w))

    def guide(self, n: int) -> None:
        pyro.sample("w", dist.Normal(self.location, self.log_scale.exp()).to_event(1))


class Labels(pgm.Model):
    """A mixture whose labels are summed out, its weights and means learned."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3))
        self.means = nn.Parameter(torch.tensor([-1.0, 0.0, 1.0]))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            weights = dist.Categorical(logits=self.logits)
            k = pyro.sample("k", weights, infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(self.means[k], 1.0))


class Counts(pgm.Model):
    """A guide whose draws have no reparameterised gradient: the score function's is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5))
        self.shift = nn.Parameter(torch.tensor(0.1))

    def model(self, n: int) -> None:
        mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
        with pgm.rows(n):
            z = pyro.sample("z", dist.Poisson(torch.ones(())))
            pyro.sample("y", dist.Normal(z * self.shift + mean, 1.0))

    def guide(self, n: int, y: Tensor) -> None:
        pyro.sample("mean", dist.Normal(self.shift, 0.5))
        with pgm.rows(n):
            pyro.sample("z", dist.Poisson(nn.functional.softplus(self.rate + y)))


def numbers(n: int = 50) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(0))


def logistic_data(n: int = 50) -> dict[str, Tensor]:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return {"x": x, "y": (x.sum(-1) + numbers(n) > 0).float()}


def regression(x: Tensor, y: Tensor | None = None) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros(()), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, scale), obs=y)


def guided_by(guide: Any) -> pgm.Model:
    return pgm.from_pyro(regression, guide(regression), rows="data", observed={"y": "y"})


def run(make: Maker, data: Any, compile: Any, **options: Any) -> tuple[Training, list[float]]:
    """Trains and returns the losses; the first epoch is one step or two."""
    torch.manual_seed(0)
    known = {"steps": 8, "seed": 0, "learning_rate": 0.01, "batch_size": 50}
    training = Training(make(), data, compile=compile, **known | options)
    return training, [step.loss for step in training]


def assert_same(make: Maker, data: Any, compile: Any = "graph", **options: Any) -> TracedLearner:
    """The losses and the weights of replayed steps are those of the program."""
    program, losses = run(make, data, False, **options)
    replayed, found = run(make, data, compile, **options)
    scale = 1.0 + max(map(abs, losses))
    torch.testing.assert_close(found, losses, rtol=1e-4, atol=1e-4 * scale)
    pair = (replayed.model.state_dict().values(), program.model.state_dict().values())
    for a, b in zip(*pair, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert isinstance(replayed.learner, TracedLearner)
    return replayed.learner


@pytest.mark.filterwarnings("ignore::pgm.traced.TraceWarning")
@pytest.mark.parametrize("name", names())
def test_every_family_is_replayed_or_says_why_not(name: str) -> None:
    found = example(name)
    if pgm.abilities(found.model)["objective"] not in ("own", "generic"):
        pytest.skip("it has no objective")
    batch = take(prepare(found.model, found.data), slice(0, 50))
    learner = assert_same(lambda: example(name).model, batch, steps=4)
    if learner.seconds == 0:
        assert learner.why
        pytest.skip(f"run as it stands: {learner.why}")
    assert learner.why is None


CASES: dict[str, tuple[Maker, Any, dict[str, Any]]] = {
    "logistic regression": (Logistic, logistic_data(), {}),
    "minibatches and a rest": (Logistic, logistic_data(), {"batch_size": 30}),
    "labels summed out": (Labels, {"y": numbers()}, {}),
    "score function, subsampled": (Counts, {"y": numbers()}, {"batch_size": 25}),
    "full covariance": (lambda: guided_by(AutoMultivariateNormal), logistic_data(), {}),
    "low rank": (lambda: guided_by(AutoLowRankMultivariateNormal), logistic_data(), {}),
    "inverse autoregressive": (lambda: guided_by(AutoIAFNormal), logistic_data(), {}),
    "importance-weighted": (Counts, {"y": numbers()}, {"objective": IWAE(3)}),
    "another optimiser": (Logistic, logistic_data(), {"optimiser": torch.optim.RMSprop}),
    "double precision": (Logistic, logistic_data(), {"dtype": torch.float64}),
    "clipped, averaged, cosine": (
        Logistic,
        logistic_data(),
        {"clip": 0.01, "ema": 0.5, "schedule": "cosine", "validation": 0.2, "patience": 3},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_are_the_steps_of_the_program(case: str) -> None:
    make, data, options = CASES[case]
    assert assert_same(make, data, **options).why is None


def test_torch_script_replays_too() -> None:
    assert assert_same(Labels, {"y": numbers()}, compile="ts").why is None


@needs_compiler
def test_compiled_steps_with_minibatches_and_a_rest() -> None:
    options = {"batch_size": 30, "clip": 0.5, "schedule": "cosine", "ema": 0.5}
    learner = assert_same(Logistic, logistic_data(), compile=True, **options)
    assert learner.backend == "inductor"
    assert learner.why is None
    assert all(replay.update is not None for replay in learner._replays.values())


@needs_compiler
def test_a_compiled_run_repeats_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    options = {"compile": "inductor", "steps": 8, "seed": 0, "batch_size": 50, "progress": False}

    def weights(**more: Any) -> Tensor:
        torch.manual_seed(0)
        model = Logistic()
        pgm.fit(model, logistic_data(), **options | more)
        return torch.cat([model.location, model.log_scale]).detach()

    whole, again = weights(), weights()
    assert bool((whole == again).all())
    kept = tmp_path / "run"
    torch.manual_seed(0)
    training = iter(
        Training(
            Logistic(), logistic_data(), checkpoint=kept, checkpoint_every=4, **_no_bar(options)
        )
    )
    for _ in range(5):
        next(training)
    assert bool((weights(checkpoint=kept) == whole).all())


def _no_bar(options: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k != "progress"}


@needs_compiler
def test_a_loss_that_is_not_finite_stops_and_moves_nothing() -> None:
    class Fragile(pgm.Model):
        def __init__(self) -> None:
            super().__init__()
            self.mu = nn.Parameter(torch.zeros(()))

        def model(self, n: int) -> None:
            with pgm.rows(n):
                pyro.sample("y", dist.Normal((1e3 * self.mu).exp(), 1.0))

    model, steps = Fragile(), 0
    training = Training(
        model,
        {"y": torch.full((4,), 9e3)},
        compile="inductor",
        steps=50,
        seed=0,
        optimiser=torch.optim.SGD,
        learning_rate=1e-5,
    )
    with pytest.raises(pgm.NonFiniteLoss, match="'y'"):
        for _ in training:
            steps += 1
            before = model.mu.item()
    assert steps >= 1
    assert model.mu.item() == before
    assert math.isfinite(before)


class Peeking(Logistic):
    """Looks at a value."""

    def guide(self, n: int) -> None:
        scale = self.log_scale.exp()
        if scale.max() > 0:
            pyro.sample("w", dist.Normal(self.location, scale).to_event(1))


class Counting(Logistic):
    """Holds a number that every run changes."""

    runs = 0

    def guide(self, n: int) -> None:
        self.runs = self.runs + 1
        super().guide(n)


class Replacing(Logistic):
    """Replaces a buffer, whose new value a replay would lose."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(()))

    def guide(self, n: int) -> None:
        self.total = self.total + 1.0
        super().guide(n)


class Annealed:
    """An objective whose weight grows after a while: it counts where nobody sees it."""

    def __init__(self, start: int) -> None:
        self.seen = [-start]

    def __call__(self, model: pgm.Model, batch: Any, *, size: int) -> Tensor:
        self.seen[0] += 1
        return pgm.objective(model, batch, size=size) * max(1, self.seen[0])


@pytest.mark.parametrize(
    ("make", "objective", "why"),
    [
        (Peeking, pgm.objective, "looks at the values"),
        (Counting, pgm.objective, "each run changes 'runs'"),
        (Replacing, pgm.objective, "replaces 'total'"),
        (Logistic, Annealed(0), "it changes from run to run"),
    ],
)
def test_what_cannot_be_recorded_is_run_and_says_why(make: Any, objective: Any, why: str) -> None:
    with pytest.warns(TraceWarning, match=why):
        training, losses = run(make, logistic_data(), "graph", objective=objective)
    assert why in str(training.learner)
    if not isinstance(objective, Annealed):
        assert losses == run(make, logistic_data(), False)[1]


def test_a_program_that_changes_later_stops_the_run() -> None:
    with pytest.raises(StaleTrace, match="has changed since it was recorded"):
        run(Logistic, logistic_data(), "graph", objective=Annealed(10), steps=50)


def test_auto_keeps_a_second_record_only_where_it_comes_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgm.traced.REPAID", 3)
    monkeypatch.setattr("pgm.traced.best_backend", lambda: "graph")
    few, _ = run(Logistic, logistic_data(), "auto", batch_size=30, steps=6)
    often, _ = run(Logistic, logistic_data(), "auto", batch_size=30, steps=10)
    stopped, _ = run(Logistic, logistic_data(), "auto", steps=10, validation=0.1, patience=2)
    assert len(few.learner._replays) == 1
    assert len(often.learner._replays) == 2
    assert not isinstance(stopped.learner, TracedLearner)


def test_auto_says_in_the_record_why_it_did_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgm.traced.REPAID", 3)
    record = pgm.fit(Peeking(), logistic_data(), steps=5, seed=0, batch_size=50, progress=False)
    assert "not compiled: it looks at the values" in str(record)
    assert str(pgm.fit(Peeking(), logistic_data(), steps=2, seed=0)).endswith("of step 2")


def test_there_is_no_other_backend() -> None:
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match="no compile='jit'"):
            choose("jit", steps=1, device=torch.device("cpu"))  # type: ignore[arg-type]
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_what_is_chosen() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    fast = "inductor" if compiles() else "ts"
    assert choose("auto", steps=REPAID - 1, device=cpu) == "eager"
    assert choose("auto", steps=REPAID, device=cpu) == fast
    assert choose("auto", steps=REPAID, device=gpu) == "eager"
    assert choose(True, steps=1, device=cpu) == fast
    assert choose(False, steps=REPAID, device=cpu) == "eager"
    assert choose("graph", steps=1, device=cpu) == "graph"
