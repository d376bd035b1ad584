"""Epsilon of known histories, calibration, and the ledger.

Known answers: the figures of Opacus' and TensorFlow Privacy's MNIST examples (q = 256/60000), and
the exact curve of one Gaussian mechanism (Balle & Wang 2018, Thm 8), solved here by SciPy.
"""

import json
import math
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

import privacy
from privacy.__main__ import main
from privacy.accounting import Accountant, check_accountant
from privacy.ledger import Ledger, Release

Q, DELTA = 256 / 60000, 1e-5


def gaussian_epsilon(sigma: float, delta: float) -> float:
    """The least epsilon of one Gaussian mechanism of sensitivity 1."""

    def excess(epsilon: float) -> float:
        a, b = 0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma
        return float(stats.norm.cdf(a) - math.exp(epsilon + stats.norm.logcdf(b)) - delta)

    return float(optimize.brentq(excess, 0.0, 200.0))


@pytest.mark.parametrize(
    ("sigma", "epochs", "accountant", "known"),
    [
        (1.1, 60, "rdp", 2.597),
        (1.1, 60, "prv", 2.392),
        (1.3, 15, "rdp", 0.954),
        (1.3, 15, "prv", 0.875),
    ],
)
def test_published_values(sigma: float, epochs: int, accountant: Accountant, known: float) -> None:
    steps = int(epochs / Q)
    found = privacy.epsilon(sigma, rate=Q, steps=steps, delta=DELTA, accountant=accountant)
    assert found == pytest.approx(known, abs=1e-3)


def test_one_gaussian_is_its_closed_form() -> None:
    assert gaussian_epsilon(1.0, DELTA) == pytest.approx(4.377, abs=1e-3)
    for sigma in (0.5, 1.0, 4.0, 20.0):
        exact = gaussian_epsilon(sigma, DELTA)
        found = privacy.epsilon(sigma, rate=1.0, steps=1, delta=DELTA)
        assert exact <= found <= exact + max(0.011, 0.02 * exact)
        assert privacy.epsilon(sigma, rate=1.0, steps=1, delta=DELTA, accountant="rdp") >= exact


@pytest.mark.parametrize("steps", [4, 100])
def test_steps_without_sampling_are_one_gaussian_of_less_noise(steps: int) -> None:
    exact = gaussian_epsilon(3.0 / math.sqrt(steps), DELTA)
    found = privacy.epsilon(3.0, rate=1.0, steps=steps, delta=DELTA)
    assert exact <= found <= exact + max(0.011, 0.02 * exact)


def test_nothing_spends_nothing_and_no_noise_spends_all() -> None:
    assert privacy.compose([], delta=DELTA) == 0.0
    assert privacy.compose([(1.0, 0.1, 0)], delta=DELTA) == 0.0
    assert privacy.compose([(1.0, 0.1, 5), (0.0, 0.1, 1)], delta=DELTA) == math.inf
    assert privacy.epsilon(1e-3, rate=0.5, steps=10, delta=DELTA) > 1e4


@settings(max_examples=8)
@given(
    st.floats(0.05, 10.0),
    st.sampled_from([1e-3, 0.02, 0.3]),
    st.sampled_from([1, 30, 1000]),
    st.sampled_from(["prv", "rdp"]),
)
def test_calibration_stays_within_two_per_cent_below(
    epsilon: float, rate: float, steps: int, accountant: Accountant
) -> None:
    sigma = privacy.calibrate(epsilon, delta=DELTA, rate=rate, steps=steps, accountant=accountant)
    spent = privacy.epsilon(sigma, rate=rate, steps=steps, delta=DELTA, accountant=accountant)
    assert 0.98 * epsilon <= spent <= epsilon


@settings(max_examples=10)
@given(
    st.floats(0.7, 5.0), st.floats(0.001, 0.5), st.integers(1, 2000), st.sampled_from([1e-6, 1e-4])
)
def test_more_of_anything_costs_more(sigma: float, rate: float, steps: int, delta: float) -> None:
    def spent(sigma: float, rate: float, steps: int, delta: float) -> float:
        return privacy.epsilon(sigma, rate=rate, steps=steps, delta=delta, accountant="rdp")

    here = spent(sigma, rate, steps, delta)
    assert spent(sigma, rate, 2 * steps, delta) >= here
    assert spent(sigma, 2 * rate, steps, delta) >= here
    assert spent(1.5 * sigma, rate, steps, delta) <= here
    assert spent(sigma, rate, steps, 2 * delta) <= here


def release(run: str, sigma: float = 1.0, steps: int = 100) -> Release:
    return Release("fit of VAE", run, sigma, 0.01, steps, 1.0, 10_000, DELTA)


def test_a_ledger_composes_all_its_releases() -> None:
    ledger = Ledger()
    assert ledger.epsilon(DELTA) == 0.0
    assert str(ledger) == "nothing released: epsilon 0"
    ledger.add(release("a"))
    ledger.add(release("b"))
    ledger.add(release("c", sigma=3.0))
    history = [(1.0, 0.01, 200), (3.0, 0.01, 100)]
    assert ledger.epsilon(DELTA) == pytest.approx(privacy.compose(history, delta=DELTA))
    assert len(ledger.releases) == 3
    assert str(ledger).count("fit of VAE") == 3
    ledger.add(release("d", sigma=0.0, steps=1))
    assert ledger.epsilon(DELTA) == math.inf


def test_steps_of_one_run_are_one_entry_and_others_are_not() -> None:
    ledger = Ledger()
    for run in ("a", "a", "b", "a"):
        ledger.add(release(run, steps=1))
    assert [(r.run, r.steps) for r in ledger.releases] == [("a", 2), ("b", 1), ("a", 1)]


def test_entries_cannot_be_changed() -> None:
    ledger = Ledger([release("a")])
    with pytest.raises(FrozenInstanceError):
        ledger.releases[0].steps = 1  # type: ignore[misc]
    assert isinstance(ledger.releases, tuple)


def test_a_ledger_survives_its_file(tmp_path: Path) -> None:
    ledger = Ledger([release("a"), release("b", sigma=2.5)])
    ledger.save(tmp_path / "ledger.json")
    assert Ledger.load(tmp_path / "ledger.json").releases == ledger.releases
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.json"]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.json"
    Ledger([release("a")]).save(path)

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="no space"):
        Ledger([release("b")]).save(path)
    assert Ledger.load(path).releases == (release("a"),)
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.json"]


@pytest.mark.parametrize("content", ["", "{}", '{"ledger": [{"steps": 1}]}', "[1]"])
def test_another_file_is_no_ledger(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="no ledger written by"):
        Ledger.load(path)


def test_the_command_goes_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--rows", "60000", "--batch", "256", "--epochs", "15"]
    main(["budget", "--sigma", "1.3", *common])
    out = capsys.readouterr().out
    spent = [float(line.split()[-1]) for line in out.splitlines()[1:]]
    assert spent == pytest.approx([0.875, 0.954], abs=2e-3)
    main(["budget", "--epsilon", "0.875", *common])
    sigma = float(capsys.readouterr().out.split()[1].rstrip(","))
    assert sigma == pytest.approx(1.3, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epsilon", "-1", "--rate", "0.1", "--steps", "5"], "epsilon is -1"),
        (["--sigma", "1", "--steps", "5"], "pass --rate, or both --rows and --batch"),
        (["--sigma", "1", "--rate", "0.1", "--steps", "5", "--rows", "9"], None),
        (
            ["--sigma", "1", "--rows", "9", "--batch", "3", "--steps", "5", "--delta", "0.2"],
            "1/rows",
        ),
    ],
)
def test_the_command_explains_bad_input(
    arguments: list[str], message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if message is None:
        assert main(["budget", *arguments]) == 0
        return
    with pytest.raises(SystemExit):
        main(["budget", *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "sampling rate is 0"),
        ({"rate": 1.5}, "sampling rate is 1.5"),
        ({"steps": -1}, "steps is -1"),
        ({"delta": 0.0}, "delta is 0"),
        ({"delta": 1.0}, "delta is 1"),
        ({"noise_multiplier": -1.0}, "noise multiplier is -1"),
        ({"noise_multiplier": math.nan}, "noise multiplier is nan"),
    ],
)
def test_numbers_outside_their_range_are_refused(options: dict[str, float], message: str) -> None:
    good = {"noise_multiplier": 1.0, "rate": 0.1, "steps": 10, "delta": DELTA}
    given = good | options
    with pytest.raises(ValueError, match=message):
        privacy.epsilon(given.pop("noise_multiplier"), **given)  # type: ignore[arg-type]


def test_gdp_is_not_offered() -> None:
    with pytest.raises(ValueError, match="GDP is an approximation and no guarantee"):
        check_accountant("gdp")


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_no_noise_is_calibrated_to_what_is_no_budget(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon is"):
        privacy.calibrate(epsilon, delta=DELTA, rate=0.1, steps=10)
