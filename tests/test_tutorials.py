"""Every tutorial runs from top to bottom as a script, in an empty folder and without a screen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("[0-9][0-9]_*.py"))
SECONDS = 300.0


def run(script: Path, folder: Path, seconds: float = SECONDS) -> None:
    """Run a script in a folder; fail with the end of its output if it fails or takes too long."""
    environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, str(script)],
            cwd=folder,
            env=environment,
            timeout=seconds,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(
            f"{script.name} was stopped after {seconds:g} s. A tutorial is read at a sitting: "
            "train a smaller model, fewer steps, or fewer rows.",
            pytrace=False,
        )
    if done.returncode:
        pytest.fail(f"{script.name} failed:\n{done.stdout[-4000:]}", pytrace=False)


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda script: script.stem)
def test_tutorial_runs(script: Path, tmp_path: Path) -> None:
    run(script, tmp_path)


def test_a_tutorial_finds_the_packages_and_works_in_the_empty_folder(tmp_path: Path) -> None:
    script = tmp_path / "good.py"
    script.write_text("import pgm\nopen('picture', 'w').close()\n")
    folder = tmp_path / "empty"
    folder.mkdir()
    run(script, folder)
    assert [path.name for path in folder.iterdir()] == ["picture"]


@pytest.mark.parametrize(
    ("program", "seconds", "error"),
    [
        ("raise ValueError('no such column')", SECONDS, "no such column"),
        ("while True: pass", 0.5, "bad.py was stopped after 0.5 s"),
    ],
)
def test_a_failing_or_endless_tutorial_fails(
    program: str, seconds: float, error: str, tmp_path: Path
) -> None:
    script = tmp_path / "bad.py"
    script.write_text(program)
    with pytest.raises(pytest.fail.Exception, match=error):
        run(script, tmp_path, seconds)
