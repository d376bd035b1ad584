"""Every chapter of the tour at a hundredth of its training: it runs, and shows what it says."""

import ast
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from pgm import tour
from pgm.inference import InferenceWarning
from pgm.report import Picture, Table

if not tour.entries():
    pytest.skip(
        "Hotplate is not installed, so that its entry points are not found: pip install -e .",
        allow_module_level=True,
    )


def test_the_order_is_that_of_the_names_and_all_packages_are_in() -> None:
    names = [entry.name for entry in tour.entries()]
    assert names == sorted(names)
    packages = {entry.value.partition(".")[0] for entry in tour.entries()}
    assert packages >= {"pgm", "causal", "privacy"}


@pytest.mark.parametrize("entry", tour.entries(), ids=lambda entry: entry.name)
def test_chapters(entry: EntryPoint) -> None:
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        # A run this short has not converged, and says so.
        warnings.simplefilter("ignore", InferenceWarning)
        chapters = list(tour.chapters_of(entry, effort=0.01))
    assert chapters
    for chapter in chapters:
        assert chapter.summary.endswith((".", "?")) and len(chapter.title) < 40
        assert [part for part in chapter.parts if isinstance(part, Picture | Table)]
        ast.parse(chapter.code)
        assert str(chapter)  # tables have as many cells a row
        for part in chapter.parts:
            if isinstance(part, Picture):
                assert part.caption and 200 < part.width < 900 and len(part.png) < 300_000
    assert torch.equal(torch.get_rng_state(), state)


def test_the_tour_runs_in_a_process_of_its_own_and_says_where_the_page_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tour.entries()[0]
    monkeypatch.setattr(tour, "entries", lambda: [first])
    page = tour.run(tmp_path, effort=0.01, processes=1)
    printed = capsys.readouterr().out
    assert page == tmp_path / "index.html" and page.exists()
    assert "Parzen window  [" in printed and "1 chapters in" in printed
    assert printed.strip().endswith(str(page.resolve()))
