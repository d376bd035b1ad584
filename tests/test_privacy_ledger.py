"""The ledger, its file, and the budget over it: nothing is forgotten, nothing is overdrawn.

The last tests plant the bugs that such code is known for and see a law fail.
"""

import json
import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import privacy
from pgm.families.factor import PPCA
from privacy.__main__ import main
from privacy.budget import at_order
from privacy.chain import Chain
from privacy.ledger import Ledger, Release, dump, restore

DELTA = 1e-5
X = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))


def release(run: str, sigma: float = 1.0, steps: int = 100, **changed: Any) -> Release:
    whole = Release("fit of VAE", run, sigma, 0.01, steps, 1.0, 10_000, DELTA)
    return replace(whole, **changed)


def fit(**options: Any) -> privacy.PrivateFit:
    """A private fit of three steps."""
    given: dict[str, Any] = {"epsilon": 0.5, "delta": 1e-4, "steps": 3, "accountant": "rdp"}
    return privacy.fit(PPCA(2, 1), X, **(given | options))


def test_a_ledger_composes_all_its_releases() -> None:
    ledger = Ledger()
    assert ledger.epsilon(DELTA) == 0.0
    assert str(ledger) == "nothing released: epsilon 0"
    ledger.add(release("a"))
    ledger.add(release("b"))
    ledger.add(release("c", sigma=3.0))
    history = [(1.0, 0.01, 200), (3.0, 0.01, 100)]
    assert ledger.epsilon(DELTA) == pytest.approx(privacy.compose(history, delta=DELTA))
    ledger.add(release("q", promise=(0.2, 1e-6), mechanism="Laplace"))
    more = [*history, privacy.Approximate(0.2, 1e-6, 100)]
    assert ledger.epsilon(DELTA) == privacy.compose(more, delta=DELTA) == math.inf
    assert len(ledger.releases) == 4 and "(0.2, 1e-06)" in str(ledger)
    other = Ledger()
    other.add(release("d", sigma=0.0, steps=1))
    assert other.epsilon(DELTA) == math.inf


def test_steps_of_one_run_are_one_entry_and_others_are_not() -> None:
    ledger = Ledger()
    for run in ("a", "a", "b", "a"):
        ledger.add(release(run, steps=1))
    assert [(r.run, r.steps) for r in ledger.releases] == [("a", 3), ("b", 1)]


def test_entries_cannot_be_changed() -> None:
    ledger = Ledger()
    ledger.add(release("a"))
    with pytest.raises(FrozenInstanceError):
        ledger.releases[0].steps = 1  # type: ignore[misc]
    assert isinstance(ledger.releases, tuple)


def test_a_planned_run_counts_in_full_until_it_ends() -> None:
    ledger = Ledger()
    ledger.begin(release("a", steps=50))
    ledger.add(release("a", steps=1))
    assert [r.steps for r in ledger.releases] == [1]
    assert [r.steps for r in ledger.committed] == [50]
    ledger.end("a")
    assert [r.steps for r in ledger.committed] == [1]


def test_a_file_holds_what_two_processes_wrote(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    one, two = Ledger(path), Ledger(path)
    one.begin(release("a", steps=50))
    two.add(release("b", sigma=2.0))
    assert [r.steps for r in two.releases] == [50, 100]
    for _ in range(7):
        one.add(release("a", steps=1))
    assert [r.steps for r in one.releases] == [7, 100]
    assert [r.steps for r in Ledger(path).releases] == [50, 100]  # as if it had died here
    one.end("a")
    again = Ledger(path, head=two.head)
    assert [(r.run, r.steps) for r in again.releases] == [("a", 7), ("b", 100)]
    assert again.epsilon(DELTA) == one.epsilon(DELTA) == two.epsilon(DELTA)
    assert Ledger(path).releases[1] == release("b", sigma=2.0)
    promised = release("q", steps=1, promise=(0.2, 1e-9))
    again.add(promised)
    assert one.releases[-1] == promised


def test_steps_are_not_written_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    run = fit(ledger=Ledger(path), steps=6)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2  # the file's name, the plan
    assert f"file sealed {run.ledger.head}" in str(run.report)
    training = privacy.PrivateTraining(
        PPCA(2, 1), X, epsilon=0.5, delta=1e-4, steps=6, accountant="rdp", ledger=Ledger(path)
    )
    steps = iter(training)
    next(steps)
    steps.close()
    assert [r.steps for r in Ledger(path).releases] == [6, 1]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True)


DAMAGE: dict[str, Callable[[list[str]], list[str]]] = {
    "edited": lambda rows: [*rows[:1], rows[1].replace('"steps": 100', '"steps": 1'), *rows[2:]],
    "a line taken out": lambda rows: [rows[0], rows[2], rows[3]],
    "two lines swapped": lambda rows: [rows[0], rows[2], rows[1], rows[3]],
    "cut in the middle of a line": lambda rows: [*rows[:2], rows[2][:40]],
    "emptied": lambda rows: [],
    "another file": lambda rows: ['{"ledger": []}\n'],
    "a list": lambda rows: ["[1]\n"],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for run in "abc":
        ledger.add(release(run))
    path.write_text("".join(DAMAGE[damage](lines(path))), encoding="utf-8")
    with pytest.raises(privacy.BrokenChain, match="do not start a new one"):
        Ledger(path)
    with pytest.raises(privacy.BrokenChain):
        ledger.add(release("d"))


def test_a_shortened_or_new_file_is_noticed_by_who_knew_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.add(release("a"))
    ledger.add(release("b"))
    seal, whole = ledger.head, lines(path)
    path.write_text("".join(whole[:2]), encoding="utf-8")
    assert len(Ledger(path).releases) == 1  # a shorter chain is a chain
    for look in (lambda: Ledger(path, head=seal), lambda: ledger.releases):
        with pytest.raises(privacy.BrokenChain, match="shortened or replaced"):
            look()
    path.unlink()
    with pytest.raises(privacy.BrokenChain, match="is not there"):
        Ledger(path, head=seal)


def test_the_command_prints_a_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.add(release("a"))
    assert main(["ledger", str(path)]) == 0
    out = capsys.readouterr().out
    assert str(ledger) in out and f"sealed {ledger.head}" in out
    for arguments in ([str(path), "--seal", "0123"], [str(tmp_path / "none.jsonl")]):
        with pytest.raises(SystemExit):
            main(["ledger", *arguments])
    err = capsys.readouterr().err
    assert "shortened or replaced" in err and "There is no ledger at" in err
    assert not (tmp_path / "none.jsonl").exists()


def test_a_ledger_in_memory_goes_into_plain_containers_and_back() -> None:
    ledger = Ledger()
    ledger.add(release("a"))
    ledger.add(release("q", steps=2, promise=(0.5, 0.0)))
    plain = json.loads(json.dumps(dump(ledger.releases)))
    assert restore(plain).releases == ledger.releases


def test_a_budget_refuses_before_anything_is_trained() -> None:
    budget = privacy.Budget(1.2, 1e-4)
    first = fit(budget=budget)
    assert first.ledger is budget.ledger and 0 < budget.spent <= 1.2
    model = PPCA(2, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(privacy.BudgetExceeded, match=r"of 1\.2 .* Nothing was made"):
        privacy.fit(model, X, epsilon=1.2, delta=1e-4, steps=3, budget=budget)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(budget.ledger.releases) == 1 and model.note is None


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_a_fit_takes_what_is_left_and_then_there_is_nothing(accountant: Any) -> None:
    budget = privacy.Budget(2.0, 1e-4, accountant=accountant)
    fit(budget=budget, epsilon=0.8)
    run = fit(budget=budget, epsilon=None, delta=None, rate=0.3)
    assert 0.98 * 2.0 <= budget.spent <= 2.0
    assert "asked for what was left of the budget" in str(run.report)
    assert run.ledger.epsilon(1e-4) <= 2.0
    with pytest.raises(privacy.BudgetExceeded):
        fit(budget=budget, epsilon=None)
    with pytest.raises(privacy.BudgetExceeded):
        fit(budget=budget, epsilon=0.8)


def test_two_runs_under_way_cannot_share_what_is_left() -> None:
    budget = privacy.Budget(1.0, 1e-4)
    one, two = (
        iter(privacy.PrivateTraining(PPCA(2, 1), X, epsilon=0.7, budget=budget, steps=4))
        for _ in range(2)
    )
    next(one)
    with pytest.raises(privacy.BudgetExceeded):
        next(two)
    one.close()
    assert [r.steps for r in budget.ledger.releases] == [1]


def test_the_filter_adds_divergences_of_one_order() -> None:
    """The same bound whatever the order of the releases, and never below that of a fixed plan."""
    history = [(1.5, 0.01, 300), (3.0, 0.1, 20), privacy.Approximate(0.1, 1e-7)]
    budget = privacy.Budget(5.0, DELTA)
    divergence, failing = at_order(history, budget.order)
    apart = [at_order([one], budget.order)[0] for one in history]
    assert divergence == pytest.approx(sum(apart)) and failing == 1e-7
    assert budget.of(history) == pytest.approx(budget.of(history[::-1]))
    assert budget.of(history) >= privacy.compose(history, delta=DELTA, accountant="rdp")
    assert privacy.Budget(5.0, DELTA, accountant="prv").of(history) < budget.of(history)
    assert budget.of([]) == 0.0 and budget.of([(0.0, 0.1, 1)]) == math.inf
    assert budget.of([privacy.Approximate(0.0, 2e-6)]) == math.inf  # more than the share kept


def test_the_odometer_only_moves_forward_and_stays_above() -> None:
    ledger = Ledger()
    readings = [privacy.odometer(ledger, DELTA)]
    for run in "abcdef":
        ledger.add(release(run, sigma=1.2, steps=200))
        readings.append(privacy.odometer(ledger, DELTA))
        assert readings[-1] >= ledger.epsilon(DELTA, accountant="rdp")
    assert readings[0] == 0.0 and readings == sorted(readings)
    ledger.add(release("g", sigma=0.0))
    assert privacy.odometer(ledger, DELTA) == math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0"),
        ({"delta": 1.0}, "delta is 1"),
        ({"order": 1.0}, "above 1"),
        ({"order": 8.0, "accountant": "prv"}, "goes with 'rdp' alone"),
    ],
)
def test_no_budget(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        privacy.Budget(**({"epsilon": 1.0, "delta": DELTA} | options))


def two_fits_add_up(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    one, two = fit(ledger=ledger), fit(ledger=ledger)
    assert one.epsilon < two.ledger.epsilon(1e-4) == ledger.epsilon(1e-4)
    assert len(Ledger(tmp_path / "ledger.jsonl").releases) == 2


def test_two_fits_add_up(tmp_path: Path) -> None:
    two_fits_add_up(tmp_path)


def begun_anew(self: Ledger, planned: Release, *, rule: Any = None) -> None:
    self._entries.clear()
    self._entries.append(planned)


def overwritten(self: Chain, entry: dict[str, Any]) -> None:
    self.path.write_text("", encoding="utf-8")
    self.head = ""
    self._write({"chain": "again"})
    self._write(entry)


@pytest.mark.parametrize(
    ("where", "name", "bug"), [(Ledger, "begin", begun_anew), (Chain, "append", overwritten)]
)
def test_a_ledger_that_a_second_call_resets_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, bug: Any
) -> None:
    monkeypatch.setattr(where, name, bug)
    with pytest.raises((AssertionError, privacy.BrokenChain)):
        two_fits_add_up(tmp_path)
