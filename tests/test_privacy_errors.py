"""Bad input to a private fit: refused before anything is trained or spent, and explained."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.data import DataLoader, TensorDataset

import pgm
import privacy
from pgm.families.vae import VAE
from pgm.objectives import objective
from privacy.options import refuse_text

X = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
GOOD: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-4, "steps": 2}


class Gaussian(pgm.Model):
    """x ~ N(mu, 1), with room for what goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(2))

    def loc(self, n: int) -> Tensor:
        return self.mu

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.loc(n), 1.0).to_event(1))


def refuses(model: pgm.Model, message: str, *, data: Any = X, **options: Any) -> None:
    """Nothing trained, nothing spent."""
    ledger = privacy.Ledger()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        privacy.fit(model, data, **(GOOD | {"ledger": ledger} | options))
    assert len(str(caught.value)) > 60, "an error says what came and what to do"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert ledger.releases == ()
    assert model.note is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0"),
        ({"epsilon": -1.0}, "epsilon is -1"),
        ({"epsilon": float("inf")}, "epsilon is inf"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"delta": 0.0}, "delta is 0"),
        ({"delta": 1.0}, "delta is 1"),
        ({"delta": 1 / 200}, "publishes one row at random"),
        ({"delta": 0.004, "rows": 300}, "publishes one row at random"),
        ({"rows": 199}, "rows=199 are declared and 200 came"),
        ({"steps": 0}, "steps is 0"),
        ({"clip": 0.0}, "clip is 0"),
        ({"clip": float("inf")}, "clip is inf"),
        ({"clip": float("nan")}, "clip is nan"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"rate": 0.0}, "sampling rate is 0"),
        ({"rate": 1.1}, "sampling rate is 1.1"),
        ({"expected_batch_size": 201}, "lots of 201 rows of 200"),
        ({"rate": 0.1, "expected_batch_size": 20}, "each fixes the other"),
        ({"batch_size": 20}, "expected_batch_size="),
        ({"epochs": 3}, "pass steps="),
        ({"validation": 0.1}, "which nobody counts"),
        ({"patience": 3}, "nobody counts that"),
        ({"epsilon": None}, "epsilon= is missing"),
        ({"delta": None}, "delta= is missing"),
        ({"budget": privacy.Budget(1.0, 1e-4)}, "the budget has another ledger"),
        ({"source": None}, "Poisson sampling"),
        ({"learner": None}, "update rule"),
        ({"noise_multiplier": 1.0}, "privacy.epsilon"),
        ({"size": 200}, "rows="),
        ({"epsilonn": 1.0}, "no option 'epsilonn'; it has epsilon, delta, steps"),
        ({"ema": 2.0}, "ema is 2"),
        ({"schedule": "linear"}, "'linear'"),
    ],
)
def test_options_that_mean_nothing_or_would_spend_uncounted(
    options: dict[str, Any], message: str
) -> None:
    refuses(Gaussian(), message, **options)


def test_text_where_a_number_is_meant() -> None:
    """By itself: in the suite beartype speaks before a fit does."""
    with pytest.raises(TypeError, match=r"delta='1e-5' is text.* Pass delta=1e-5"):
        refuse_text(epsilon=1.0, rows=None, delta="1e-5")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As for a user: types are checked in tests alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
def test_a_budget_that_is_a_number() -> None:
    refuses(Gaussian(), r"budget is 1\.0; a budget is kept over", budget=1.0)
    for numbers in (("1", 1e-5), (1.0, "1e-5")):
        with pytest.raises(TypeError, match="pass a number, such as"):
            privacy.Budget(*numbers)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="it is a pair"):
        privacy.loss_attack(Gaussian(), X[:100], X[100:], promise=1.0)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_model() -> None:
    module: Any = nn.Linear(2, 1)
    with pytest.raises(TypeError, match=r"A Linear came.*pgm\.from_pyro"):
        privacy.fit(module, X, **GOOD)
    loader, sgd = DataLoader(TensorDataset(X), 20), torch.optim.SGD(module.parameters(), 0.1)
    with pytest.raises(TypeError, match="A Linear came"):
        privacy.make_private_with_epsilon(
            module=module,
            optimizer=sgd,
            data_loader=loader,
            epochs=1,
            target_epsilon=1.0,
            target_delta=1e-4,
            max_grad_norm=1.0,
        )


def test_rows_that_somebody_else_batches() -> None:
    rows = TensorDataset(X)
    refuses(Gaussian(), "holds for Poisson sampling alone", data=rows)
    refuses(Gaussian(), "holds for Poisson sampling alone", data=DataLoader(rows))


def test_a_frame_whose_schema_is_not_declared() -> None:
    frame = pd.DataFrame({"a": [0.0, 1.0], "b": [0.0, 2.0]})
    refuses(Gaussian(), "levels and bounds read off the rows", data=frame)
    schema = pgm.Schema({"a": pgm.Continuous(), "b": pgm.Continuous()}, site="x")
    run = privacy.fit(Gaussian(), frame, schema=schema, rows=500, **GOOD)
    assert run.model.schema is schema


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(0, 2), "no rows"),
        (torch.zeros(200, 3), "shape"),
        (torch.full((200, 2), torch.inf), "infinite"),
        ({"y": X}, "Site 'x' is neither in the data nor in the guide"),
        (torch.full((200, 2), torch.nan), "missing"),
    ],
)
def test_data_that_do_not_fit(data: Any, message: str) -> None:
    refuses(Gaussian(), message, data=data)


class Bernoulli(Gaussian):
    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Bernoulli(logits=self.mu).to_event(1))


def test_a_row_outside_the_support_wherever_it_stands() -> None:
    x = (X > 0).float()
    x[150, 1] = 7.0
    refuses(Bernoulli(), "do not fit Bernoulli", data=x)


class Normalised(Gaussian):
    """Batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def loc(self, n: int) -> Tensor:
        return self.norm(self.mu.expand(n, 2))


class Unused(Gaussian):
    """A parameter that no site depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(3))


class Counting(Gaussian):
    """A buffer that keeps a running mean of the rows, as the codebook of a VQ-VAE does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))

    def guide(self, n: int, x: Tensor) -> None:
        with torch.no_grad():
            self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)


class Cached(Gaussian):
    """Computes from a copy of its parameter that was made at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [self.mu]

    def loc(self, n: int) -> Tensor:
        return self.kept[0]


class Infinite(Gaussian):
    """The gradient of sqrt at 0 is infinite."""

    def loc(self, n: int) -> Tensor:
        return self.mu.square().sqrt()


class Mixing(Gaussian):
    """Every row is compared with the mean of its lot."""

    def guide(self, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(x.mean(0) + self.mu, 1.0).to_event(1))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Normalised, "'norm' is a BatchNorm1d"),
        (Unused, "'unused' does not enter the loss"),
        (Counting, "Buffer 'mean' changes while the loss is computed"),
        (Cached, "computes from a copy of its parameters"),
        (Infinite, "not finite, and such rows count as zero"),
        (Mixing, "something mixes rows"),
    ],
)
def test_a_model_that_cannot_be_private(model: type[pgm.Model], message: str) -> None:
    refuses(model(), message)


class Window(pgm.Model):
    """A Parzen window with a bandwidth to learn: the rows are inside the model."""

    def __init__(self, points: Tensor) -> None:
        super().__init__()
        self.register_buffer("points", points)
        self.log_width = nn.Parameter(torch.zeros(()))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            k = pyro.sample(
                "k",
                dist.Categorical(torch.ones(len(self.points))),
                infer={"enumerate": "parallel"},
            )
            pyro.sample("x", dist.Normal(self.points[k], self.log_width.exp()).to_event(1))


def test_a_model_that_holds_the_rows_themselves() -> None:
    refuses(Window(X[:30]), "'points' holds rows of 'x', the data themselves")
    started = Window(torch.randn(4, 2))
    started.points = nn.Parameter(X[5:9].clone())
    refuses(started, "'points' holds rows of 'x'")
    elsewhere = Window(torch.randn(4, 2))
    assert privacy.check(elsewhere, X).problems == ()


def test_a_check_leaves_the_model_as_it_was() -> None:
    model = Counting().train()
    privacy.check(model, X)
    assert torch.equal(model.mean, torch.zeros(2))
    assert model.training and not Gaussian().eval().training


def test_a_check_and_a_fit_leave_the_global_random_state_as_it_was() -> None:
    model, x = VAE(2, latents=1, hidden=(3,)), X.sigmoid().round()
    state = torch.get_rng_state()
    privacy.check(model, x).raise_if_broken()
    assert torch.equal(torch.get_rng_state(), state)
    privacy.fit(model, x, **GOOD)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_buffer_that_changes_later_stops_the_run() -> None:
    model = Gaussian()
    model.register_buffer("late", torch.zeros(2))
    run = privacy.PrivateTraining(model, X, **(GOOD | {"steps": 5}))
    steps = iter(run)
    next(steps)
    inner = run.by_row.objective

    def leaking(model: pgm.Model, batch: Any, *, size: int) -> Tensor:
        model.get_buffer("late").add_(1.0)
        return inner(model, batch, size=size)

    run.by_row.objective = leaking
    with pytest.raises(RuntimeError, match="Discard this model"):
        next(steps)
    assert [r.steps for r in run.ledger.releases] == [1]


def test_a_private_fit_prints_its_check() -> None:
    assert str(privacy.check(Gaussian(), X)) == (
        "Gaussian: per-row gradients by ghost\n  can be fitted privately"
    )
    broken = privacy.check(Unused(), X)
    assert "* Parameter 'unused'" in str(broken)
    with pytest.raises(pgm.BrokenModel, match="cannot be fitted privately as it stands"):
        broken.raise_if_broken()


def test_no_file_is_left_behind(tmp_path: Path) -> None:
    refuses(Gaussian(), "steps is 0", checkpoint=tmp_path / "run.pt", steps=0)
    assert list(tmp_path.iterdir()) == []


def choosy(model: pgm.Model, batch: Any, *, size: int) -> Tensor:
    """Does not take many rows at once where one is large, and says which."""
    x = batch["x"]
    if len(x) in range(4, 100) and bool((x.detach() > 100).any()):
        raise ValueError(f"a large number: {float(x.max())}")
    return objective(model, batch, size=size)


@pytest.mark.parametrize("falls_to", ["vmap", "loop"])
def test_a_report_names_no_rows(falls_to: str) -> None:
    def loss(model: pgm.Model, batch: Any, *, size: int) -> Tensor:
        if falls_to == "loop" and is_functorch_wrapped_tensor(batch["x"]):
            raise RuntimeError("of made-up rows 0.25")
        return choosy(model, batch, size=size)

    x = X.clone()
    x[7, 0] = 123.456
    run = privacy.fit(Gaussian(), x, objective=loss, **(GOOD | {"rate": 0.2, "steps": 30}))
    assert run.report.reason.startswith("not ghost: ValueError on a lot")
    assert run.report.route == falls_to
    assert "123" not in str(run) and "123" not in str(run.ledger)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    refuses(Gaussian(), "does not bound a row", dtype=dtype)
    refuses(Gaussian().to(dtype), f"'mu' is of {dtype}")
    for asks in (privacy.check, functools.partial(privacy.per_row_gradients, size=200)):
        with pytest.raises(ValueError, match="does not bound a row"):
            asks(Gaussian().to(dtype), X.to(dtype))
    model = Gaussian()
    privacy.fit(model, X.to(dtype), **GOOD)
    assert model.mu.dtype == torch.float32
