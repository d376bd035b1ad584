"""The command line: a graph drawn, an effect identified and estimated, mistakes explained."""

import re
from pathlib import Path

import pandas as pd
import pytest
from torch import Tensor

from causal.__main__ import main


@pytest.fixture
def table(stones: dict[str, Tensor], tmp_path: Path) -> Path:
    names = {"size": ("small", "large"), "treatment": ("open", "percutaneous")}
    frame = pd.DataFrame({name: x.numpy() for name, x in stones.items()})
    for name, labels in names.items():
        frame[name] = frame[name].map(dict(enumerate(labels)))
    path = tmp_path / "stones.csv"
    frame.assign(extra=1.5).to_csv(path, index=False)
    return path


GRAPH = "size -> treatment -> success; size -> success"


def test_an_effect_from_a_table(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kidney stones (Charig et al. 1986): .8325 against .7789."""
    graph, out = tmp_path / "graph.dot", tmp_path / "effect.png"
    graph.write_text("digraph { size -> treatment; treatment -> success; size -> success }")
    done = ["--do", "treatment=open", "--versus", "treatment=percutaneous"]
    asked = ["effect", str(table), str(graph), "--outcome", "success", *done]
    assert main([*asked, "--levels", "success", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "0.8325" in said
    assert "0.7789" in said
    assert "adjustment" in said
    assert out.stat().st_size > 5000


def test_a_picture_of_a_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "graph.png"
    assert main(["draw", GRAPH, "--do", "treatment", "--out", str(out)]) == 0
    assert "3 nodes, 3 arrows" in capsys.readouterr().out
    assert out.stat().st_size > 5000


def test_what_is_not_identified_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", "X -> Y; X <-> Y", "--outcome", "Y", "--do", "X"]) == 1
    assert "is not identified" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--do", "treatment=closed", "--levels", "success"], "closed"),
        (["--do", "treatment"], "write NODE=VALUE"),
        (["--do", "dose=2"], "'dose' is not in the graph"),
        (["--do", "treatment=open", "--levels", "extra"], "no nodes with a column"),
    ],
)
def test_mistakes_are_explained(
    table: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["effect", str(table), GRAPH, "--outcome", "success", *options])
    assert message in capsys.readouterr().err


def test_graphs_that_the_table_cannot_answer(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--outcome", "success", "--do", "treatment=open"]
    for graph, message in (
        ("age -> size; " + GRAPH, "no column for the nodes age"),
        (GRAPH + "; size <-> success", "nodes that no table holds"),
        ("nowhere.dot", "nowhere.dot"),
    ):
        with pytest.raises(SystemExit):
            main(["effect", str(table), graph, *asked])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({17: "bad", 30: "n.a.!"}, r"no numbers.*: 'bad' \(row 17\), 'n.a.!' \(row 30\)"),
        ({i: f"patient {i}" for i in range(100)}, "100 different values in 100 rows, as names"),
    ],
)
def test_text_where_numbers_were_meant(
    cells: dict[int, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told at once, and not after a fit of a level a row."""
    y = pd.Series([0.5 * i for i in range(100)], dtype=object)
    for i, cell in cells.items():
        y[i] = cell
    path = tmp_path / "table.csv"
    pd.DataFrame({"x": [i % 2 for i in range(100)], "y": y}).to_csv(path, index=False)
    with pytest.raises(SystemExit):
        main(["effect", str(path), "x -> y", "--outcome", "y", "--do", "x=1", "--versus", "x=0"])
    said = capsys.readouterr().err
    assert 'Column "y" holds text with 100 different values in 100 rows' in said
    assert re.search(message, said)


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, and not by the number of an error."""
    for asked in (
        ["effect", "nowhere.csv", "x -> y", "--outcome", "y", "--do", "x=1"],
        ["identify", "nowhere.dot", "--outcome", "y", "--do", "x"],
        ["draw", "x -> y", "--out", str(tmp_path / "nowhere" / "graph.png")],
    ):
        with pytest.raises(SystemExit):
            main(asked)
        said = capsys.readouterr().err
        assert "there is no file or folder '" in said and "nowhere" in said
        assert "Errno" not in said
