"""The Opacus spelling makes the steps of a private fit, and no loop makes others of it."""

import math
from collections.abc import Callable
from typing import Any

import opacus
import pyro
import pyro.distributions as dist
import pytest
import torch
from opacus.data_loader import DPDataLoader
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import pgm
import privacy
from pgm.families.vae import VAE

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) + 2.0
GOOD: dict[str, Any] = {
    "target_epsilon": 3.0,
    "target_delta": 1e-3,
    "accountant": "rdp",
    "epochs": 2,
    "max_grad_norm": 1.0,
    "seed": 0,
}


class Gaussian(pgm.Model):
    """x ~ N(mu, I)."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(2))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, 1.0).to_event(1))


def private(model: pgm.Model, *, batch_size: int = 15, **options: Any) -> Any:
    return privacy.make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5),
        data_loader=DataLoader(TensorDataset(X), batch_size=batch_size, shuffle=True),
        **(GOOD | options),
    )


def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.5)


def test_the_module_has_what_its_model_has() -> None:
    model = Gaussian()
    module, _, _ = private(model)
    assert module.mu is model.mu
    with pytest.raises(AttributeError, match="nothing_such"):
        module.nothing_such  # noqa: B018


def fitted(steps: int, **options: Any) -> tuple[Gaussian, privacy.PrivateFit]:
    model = Gaussian()
    run = privacy.fit(
        model, X, epsilon=3.0, delta=1e-3, steps=steps, rate=0.25, optimiser=sgd,
        learning_rate=0.5, seed=0, accountant="rdp", **options,
    )  # fmt: skip
    return model, run


def an_opacus_loop(module: Any, optimizer: Any, loader: Any, epochs: int = 2) -> None:
    for _ in range(epochs):
        for (x,) in loader:
            optimizer.zero_grad()
            loss = pgm.objective(module, x).mean()
            loss.backward()
            optimizer.step()


def test_an_opacus_loop_makes_the_steps_of_a_private_fit() -> None:
    model, ledger = Gaussian(), privacy.Ledger()
    module, optimizer, loader = private(model, ledger=ledger)
    assert isinstance(optimizer, DPOptimizer) and isinstance(loader, DPDataLoader)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    an_opacus_loop(module, optimizer, loader)
    schedule.step()
    other, run = fitted(8)
    assert torch.equal(model.mu, other.mu) and float(model.mu.detach().mean()) > 0.5
    assert module.report.release == run.report.release and module.reveal() == run.reveal()
    assert module.report.epsilon <= 3.0 and [r.steps for r in ledger.releases] == [8]
    assert model.note is not None and "differential privacy" in model.note
    with pytest.raises(ValueError, match="All 8 steps are made"):
        an_opacus_loop(module, optimizer, loader)


@pytest.mark.filterwarnings("ignore:Optimal order")
def test_its_noise_is_that_of_opacus_for_the_same_call() -> None:
    """Opacus' own engine calibrates to 0.01 of epsilon; our sigma is within 2 % of its."""
    model = nn.Linear(2, 1)
    with pytest.warns(UserWarning, match="Secure RNG"):
        engine = opacus.PrivacyEngine()
    theirs = engine.make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        data_loader=DataLoader(TensorDataset(X), batch_size=15),
        target_epsilon=3.0,
        target_delta=1e-3,
        epochs=2,
        max_grad_norm=1.0,
    )
    ours = private(Gaussian(), accountant="prv")
    assert ours[1].noise_multiplier == pytest.approx(theirs[1].noise_multiplier, rel=0.02)
    assert ours[1].expected_batch_size == theirs[1].expected_batch_size
    assert len(ours[2]) == len(theirs[2])
    assert ours[2].sample_rate == theirs[2].sample_rate


def test_any_model_and_rows_by_name() -> None:
    class Named(Dataset[dict[str, Tensor]]):
        def __len__(self) -> int:
            return 60

        def __getitem__(self, i: int) -> dict[str, Tensor]:
            return {"x": (X[i] > 2).float()}

    torch.manual_seed(0)
    model = VAE(2, latents=1, hidden=(4,))
    module, optimizer, loader = privacy.make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
        data_loader=DataLoader(Named(), batch_size=30),
        loss_reduction="sum",
        **GOOD,
    )
    for batch in loader:
        module(batch).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert module.report.route == "ghost" and module.report.release.steps == 2
    module.eval()
    assert module({"x": X[:3].round().clamp(0, 1)}).isfinite().all()
    assert pgm.sample(model, 3)["x"].shape == (3, 2)


# ----------------------------------------------------------------------- virtual batches


def by_pieces(module: Any, optimizer: Any, loader: Any, most: int, stop: int = 10**6) -> None:
    managed = BatchMemoryManager(
        data_loader=loader, max_physical_batch_size=most, optimizer=optimizer
    )
    with managed as pieces:
        for (x,) in pieces:
            assert len(x) <= most
            module(x).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            stop -= 1
            if stop == 0:
                return


def test_virtual_batches_make_the_same_steps() -> None:
    model = Gaussian()
    module, optimizer, loader = private(model)
    by_pieces(module, optimizer, loader, 4)
    by_pieces(module, optimizer, loader, 4)
    other, run = fitted(8)
    torch.testing.assert_close(model.mu, other.mu)
    assert module.report.release == run.report.release


def test_a_virtual_batch_that_is_broken_off_spends_nothing_and_leaves_nothing() -> None:
    """With Opacus' own objects its rows would be in the next lot's sum too."""
    model, ledger = Gaussian(), privacy.Ledger()
    module, optimizer, loader = private(model, ledger=ledger)
    by_pieces(module, optimizer, loader, 4, stop=2)
    assert ledger.releases == () and not model.mu.detach().any()
    seen: list[Tensor] = []
    run = module._sitting.run
    real = run.learner.update
    run.learner.update = lambda lot: (seen.append(lot["x"]), real(lot))[1]
    for (x,) in loader:
        module(x).mean().backward()
        optimizer.step()
        assert torch.equal(seen[-1], x), "the lot itself, and no rows of the one before"
        break
    assert [r.steps for r in ledger.releases] == [1]


def test_a_loop_that_breaks_off_does_not_choose_its_lots() -> None:
    """Breaking before a step, and looping again, would leave out the lots that one dislikes."""
    model, expected = Gaussian(), Gaussian()
    module, optimizer, loader = private(model, batch_size=6)
    shown: list[Tensor] = []
    while module.report.release.steps < 20:
        for (x,) in loader:
            again = bool(shown) and shown[-1].shape == x.shape and torch.equal(shown[-1], x)
            shown.append(x)
            if not again and x.sum() > 24:  # a place that depends on the data
                break
            optimizer.zero_grad()
            module(x).mean().backward()
            optimizer.step()
            if module.report.release.steps == 20:
                break
    assert len(shown) > 20
    module, optimizer, loader = private(expected, batch_size=6)
    an_opacus_loop(module, optimizer, loader)
    torch.testing.assert_close(model.mu, expected.mu)


# ----------------------------------------------------------------------- what would be miscounted


def skip_empty(module: Any, optimizer: Any, loader: Any) -> None:
    for (x,) in loader:
        if len(x):
            module(x).mean().backward()
            optimizer.step()


def accumulate(module: Any, optimizer: Any, loader: Any) -> None:
    for (x,) in loader:
        module(x).mean().backward()
        module(x).mean().backward()
        optimizer.step()


def twice(module: Any, optimizer: Any, loader: Any) -> None:
    for (x,) in loader:
        losses = module(x)
        losses.mean().backward(retain_graph=True)
        losses.mean().backward()


def regularise(module: Any, optimizer: Any, loader: Any) -> None:
    for (x,) in loader:
        (module(x).mean() + module._module.mu.sum()).backward()
        optimizer.step()


def weigh(module: Any, optimizer: Any, loader: Any) -> None:
    for (x,) in loader:
        (2 * module(x)).mean().backward()
        optimizer.step()


def add_up(module: Any, optimizer: Any, loader: Any) -> None:
    for (x,) in loader:
        module(x).sum().backward()
        optimizer.step()


def others(module: Any, optimizer: Any, loader: Any) -> None:
    for _ in loader:
        module(X[:4]).mean().backward()


def augmented(module: Any, optimizer: Any, loader: Any) -> None:
    for (x,) in loader:
        module(x + 0.1).mean().backward()


def no_backward(module: Any, optimizer: Any, loader: Any) -> None:
    for (x,) in loader:
        module(x)
        optimizer.step()


def not_drawn(module: Any, optimizer: Any, loader: Any) -> None:
    module(X).mean().backward()


def another_size(module: Any, optimizer: Any, loader: Any) -> None:
    for (x,) in loader:
        pgm.objective(module, x, size=7).mean().backward()


LOOPS: list[tuple[Callable[..., None], str]] = [
    (skip_empty, "no step was made on it"),
    (accumulate, "not those of the lot|came twice"),
    (twice, "came twice"),
    (regularise, "past the clipping"),
    (weigh, "Rows with weights of their own"),
    (add_up, "announced as loss_reduction="),
    (others, "not those of the lot"),
    (augmented, "put transformations into the model"),
    (no_backward, "before the losses of the whole lot"),
    (not_drawn, "not those of the lot"),
    (another_size, "60 rows are declared"),
]


@pytest.mark.parametrize(("loop", "message"), LOOPS)
def test_a_loop_that_would_be_miscounted_is_refused(
    loop: Callable[..., None], message: str
) -> None:
    module, optimizer, loader = private(Gaussian(), batch_size=1 if loop is skip_empty else 15)
    with pytest.raises(ValueError, match=message):
        loop(module, optimizer, loader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": nn.MSELoss()}, "the model's objective"),
        ({"noise_generator": torch.Generator()}, "pass seed="),
        ({"poisson_sampling": False}, "Poisson sampling and of no other"),
        ({"clipping": "per_layer"}, "privacy.LayerClip"),
        ({"grad_sample_mode": "hooks"}, "pass route="),
        ({"loss_reduction": "none"}, "'mean' or 'sum'"),
        ({"target_epsilon": -1.0}, "epsilon is -1"),
        ({"target_delta": 0.1}, "for 60 rows"),
        ({"rows": 10}, "rows=10 are declared"),
        ({"data_loader": DataLoader(TensorDataset(X), batch_size=4, num_workers=1)}, "workers"),
        ({"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)}, "not the trainable"),
    ],
)
def test_what_cannot_be_honoured_is_refused(options: dict[str, Any], message: str) -> None:
    ledger = privacy.Ledger()
    with pytest.raises(ValueError, match=message):
        private(Gaussian(), ledger=ledger, **options) if not {"data_loader", "optimizer"} & set(
            options
        ) else privacy.make_private_with_epsilon(
            **(
                {
                    "module": (model := Gaussian()),
                    "optimizer": torch.optim.SGD(model.parameters(), lr=1.0),
                    "data_loader": DataLoader(TensorDataset(X), batch_size=15),
                }
                | GOOD
                | options
            )
        )
    assert ledger.releases == ()


def test_a_model_whose_rows_join_is_refused_and_nothing_is_made() -> None:
    class Joined(Gaussian):
        def model(self, n: int) -> None:
            with pgm.rows(n):
                pyro.sample("x", dist.Normal(self.mu, math.sqrt(n)).to_event(1))

    with pytest.raises(pgm.BrokenModel):
        private(Joined())


def test_the_module_has_no_programs_of_its_own() -> None:
    module, _, _ = private(Gaussian())
    with pytest.raises(TypeError, match="ask the model itself"):
        module.model(3)
    pairs = DataLoader(TensorDataset(X, X), batch_size=15)
    model = Gaussian()
    with pytest.raises(TypeError, match="give dicts"):
        privacy.make_private_with_epsilon(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            data_loader=pairs,
            **GOOD,
        )
