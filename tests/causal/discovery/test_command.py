"""The command line: a table of cells, and the probabilities of its arrows."""

from pathlib import Path

import pytest

import pgm.data
from causal.__main__ import main


def test_a_posterior_from_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pgm.data.load("sachs")
    names, kept = list(data.frame.columns), ["Raf", "Mek", "PKA", "Akt"]
    label = [next((n for n, y in zip(names, r, strict=True) if y), "") for r in data.clamped]
    frame = data.frame[kept].assign(INT=[v if v in kept else "" for v in label])
    table, out = tmp_path / "cells.csv", tmp_path / "arrows.png"
    frame.to_csv(table, index=False)
    options = ["--clamped", "INT", "--parents", "2", "--out", str(out)]
    assert main(["discover", str(table), *options]) == 0
    said = capsys.readouterr().out
    assert "Graphs of 4 nodes from 5400 rows" in said and "PKA -> Akt" in said
    assert out.stat().st_size > 5000


def test_mistakes_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "cells.csv"
    table.write_text("a,b\nlow,1\nhigh,2\n")
    with pytest.raises(SystemExit):
        main(["discover", str(table)])
    assert "Whole numbers came in" in capsys.readouterr().err
