"""Private runs that stop and go on: no noise twice, no step uncounted, nothing private on disk."""

import math
import sys
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pgm
import privacy
from pgm.checkpoint import read
from pgm.loop import Training
from privacy.batches import PoissonLots

ROWS = torch.zeros(40, 1)
GOOD: dict[str, Any] = {
    "epsilon": 1.0,
    "delta": 1e-3,
    "accountant": "rdp",
    "rate": 0.2,
    "optimiser": torch.optim.SGD,
    "learning_rate": 1.0,
    "seed": 7,
    "checkpoint_every": 4,
}


class Still(pgm.Model):
    """500 numbers that the loss reaches with gradient zero: each step adds its noise alone."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(500))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(0.0 * self.w.sum(), torch.ones(1)).to_event(1))


def run(path: Path, *, steps: int = 10, **options: Any) -> privacy.PrivateTraining:
    given = GOOD | {"checkpoint": path} | options
    return privacy.PrivateTraining(Still(), ROWS, steps=steps, **given)


def noise(training: privacy.PrivateTraining, number: int, *, killed: bool = False) -> torch.Tensor:
    """What each of the next steps added to the parameters; then the run stops, or is killed."""
    model, path = training.model, training.checkpoint
    assert path is not None
    before = read(path)["model"]["w"] if path.exists() else model.w.detach().clone()
    steps, added = iter(training), []
    for _ in range(number):
        next(steps)
        added.append(model.w.detach() - before)
        before = model.w.detach().clone()
    left = {file: file.read_bytes() for file in path.parent.iterdir()}
    steps.close()
    if killed:  # what a closing run writes was never written
        for file, content in left.items():
            file.write_bytes(content)
    return torch.stack(added)


def a_resumed_run_draws_new_noise(path: Path) -> None:
    """Killed in step 6 after the checkpoint of step 4, and again: no two steps are alike."""
    steps = torch.cat([noise(run(path, steps=20), n, killed=True) for n in (6, 3, 3)])
    assert steps.std(1).min() > 0
    alike = torch.corrcoef(steps) - torch.eye(len(steps))
    assert float(alike.abs().max()) < 5 / math.sqrt(500)


def test_a_resumed_run_draws_new_noise(tmp_path: Path) -> None:
    a_resumed_run_draws_new_noise(tmp_path / "run.pt")


@pytest.mark.parametrize("bug", ["the old seed again", "the old generator's state"])
def test_replayed_noise_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    if bug == "the old seed again":
        monkeypatch.setattr(sys.modules["privacy.fit"], "fresh", lambda: 7)
    else:
        monkeypatch.setattr("privacy.learner.PrivateLearner.renew", lambda *_, **__: None)
    with pytest.raises(AssertionError):
        a_resumed_run_draws_new_noise(tmp_path / "run.pt")


def test_a_stopped_run_goes_on_to_its_end_and_spends_what_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    noise(run(path), 3)
    again = run(path)
    noise(again, 2)
    assert [r.steps for r in again.ledger.releases] == [3, 2]
    last = run(path)
    steps = list(last)
    assert [s.step for s in steps] == [6, 7, 8, 9, 10]
    assert [r.steps for r in last.ledger.releases] == [3, 2, 5]
    assert len({r.run for r in last.ledger.releases}) == 3
    assert last.report.release.steps == 10 and last.report.lost == 0
    assert 0.98 <= last.report.epsilon == last.ledger.epsilon(1e-3, accountant="rdp") <= 1.0
    assert [s.metrics["epsilon"] for s in steps] == sorted(s.metrics["epsilon"] for s in steps)
    assert list(run(path)) == []  # there is nothing left to do


@pytest.mark.parametrize("file", [False, True])
def test_lost_steps_are_spent_and_not_made_again(tmp_path: Path, *, file: bool) -> None:
    """Killed in step 6: step 4 is on disk, up to three more may have been made."""
    path = tmp_path / "run.pt"
    options: dict[str, Any] = {"ledger": privacy.Ledger(tmp_path / "log.jsonl")} if file else {}
    noise(run(path, **options), 6, killed=True)
    if file:
        options = {"ledger": privacy.Ledger(tmp_path / "log.jsonl")}
        assert [r.steps for r in options["ledger"].releases] == [10]  # as planned: unknown
    again = run(path, **options)
    steps = list(again)
    assert [s.step for s in steps] == [5, 6, 7]
    assert again.report.lost == 3 and again.report.release.steps == 10
    assert [r.steps for r in again.ledger.releases] == [7, 3]
    assert again.report.epsilon <= 1.0
    assert "3 of them lost with a killed process" in str(again.report)


def test_a_run_that_broke_off_by_an_error_knows_its_steps(tmp_path: Path) -> None:
    path, log = tmp_path / "run.pt", tmp_path / "log.jsonl"
    training = run(path, ledger=privacy.Ledger(log))
    steps = iter(training)
    for _ in range(5):
        next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    assert [r.steps for r in privacy.Ledger(log).releases] == [5]
    again = run(path, ledger=privacy.Ledger(log))
    assert [s.step for s in again][-1] == 9
    assert [r.steps for r in privacy.Ledger(log).releases] == [5, 5]


def test_nothing_private_is_on_disk(tmp_path: Path) -> None:
    """No loss, no seed, no generator: parameters, moments, schedule, average and the ledger."""
    path = tmp_path / "run.pt"
    options: dict[str, Any] = {"ema": 0.9, "schedule": "cosine", "optimiser": None}
    noise(run(path, **options), 3)
    state = read(path)  # weights_only=True
    assert set(state) == {"private", "ledger", "seal", "model", "learner"}
    assert set(state["learner"]) == {"optimiser", "schedule", "average"}
    assert set(state["private"]) == {
        "release", "planned", "asked", "start", "step", "lost", "sure", "every"
    }  # fmt: skip
    again = run(path, **options)
    assert len(list(again)) == 7
    assert again.learner.metrics()["learning_rate"] == pytest.approx(0.0, abs=1e-8)
    assert not torch.equal(again.model.w, torch.zeros(500))


def refused(message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=message):
        list(run(**options))


def test_what_would_lose_track_is_refused(tmp_path: Path) -> None:
    path, log = tmp_path / "run.pt", tmp_path / "log.jsonl"
    noise(run(path), 3)
    refused("the ledger has 0", path=path, ledger=privacy.Ledger())
    refused("holds another run", path=path, epsilon=2.0)
    refused("holds another run", path=path, rate=0.1)
    refused("holds another run", path=path, steps=11)
    kept = tmp_path / "kept.pt"
    noise(run(kept, ledger=privacy.Ledger(log)), 3)
    refused("kept its ledger in a file", path=kept)
    refused("was a file", path=kept, ledger=privacy.Ledger())
    refused("shortened or replaced", path=kept, ledger=privacy.Ledger(tmp_path / "other.jsonl"))
    plain = tmp_path / "plain.pt"
    list(Training(Still(), ROWS, steps=2, checkpoint=plain))
    refused("no checkpoint of a private run", path=plain)


def test_a_resumed_run_keeps_to_its_budget(tmp_path: Path) -> None:
    path, log = tmp_path / "run.pt", tmp_path / "log.jsonl"

    def budget() -> privacy.Budget:
        return privacy.Budget(1.0, 1e-3, ledger=privacy.Ledger(log))

    noise(run(path, epsilon=None, budget=budget()), 6, killed=True)
    with pytest.raises(privacy.BudgetExceeded):
        run(tmp_path / "second.pt", epsilon=0.5, budget=budget(), seed=8)
    again = run(path, epsilon=None, budget=budget())
    assert len(list(again)) == 3
    assert 0.98 <= budget().spent <= 1.0


class BrokenSGD(torch.optim.SGD):
    """Fails once, when the parameters have moved."""

    left = 2

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        self.left -= 1
        if self.left == 0:
            raise OSError("no space left on device")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The lots that are drawn from now on."""
    found: list[tuple[int, ...]] = []
    at = PoissonLots.at

    def watched(self: PoissonLots, index: torch.Tensor) -> Any:
        found.append(tuple(index.tolist()))
        return at(self, index)

    monkeypatch.setattr(PoissonLots, "at", watched)
    return found


def test_no_step_is_made_again_on_the_lot_of_one_that_broke_off(
    tmp_path: Path, drawn: list[tuple[int, ...]]
) -> None:
    training = run(tmp_path, optimiser=BrokenSGD, checkpoint=None)
    with pytest.raises(OSError, match="no space"):
        list(training)
    before = list(drawn)
    list(training)
    assert len(before) == 2 and not set(before) & set(drawn[2:])


def by_svi(path: Path, steps: int) -> None:
    def line(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        slope = pyro.param("slope", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(slope * x, 1.0), obs=y)

    given = GOOD | {"checkpoint": path, "checkpoint_every": 1, "steps": 10}
    given.pop("optimiser")
    svi = privacy.DPSVI(line, None, torch.optim.SGD, rows="data", observed={"y": "obs"}, **given)
    for _, lot in zip(range(steps), svi.lots(ROWS[:, 0], ROWS[:, 0]), strict=False):
        svi.step(*lot)


def by_engine(path: Path, steps: int) -> None:
    model = Still()
    module, optimizer, loader = privacy.make_private_with_epsilon(
        module=model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0), epochs=2,
        data_loader=DataLoader(TensorDataset(ROWS), batch_size=8), max_grad_norm=1.0,
        target_epsilon=1.0, target_delta=1e-3, seed=7, checkpoint=path, checkpoint_every=1,
    )  # fmt: skip
    for _, (x,) in zip(range(steps), loader, strict=False):
        pgm.objective(module, x).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("driven", [by_svi, by_engine])
def test_lots_that_are_handed_out_are_not_drawn_again_by_a_resumed_run(
    tmp_path: Path, drawn: list[tuple[int, ...]], driven: Any
) -> None:
    driven(tmp_path / "run.pt", 3)
    before = list(drawn)
    drawn.clear()
    driven(tmp_path / "run.pt", 3)
    assert len(before) >= 3 and not set(before) & set(drawn)
