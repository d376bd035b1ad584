"""BIF files: what is read, what comes back, and what is refused."""

import os
from pathlib import Path

import pytest
import torch

from pgm.data.bif import format_bif, parse_bif, read_bif

NETWORKS = sorted((Path(os.environ.get("HOTPLATE_DATA", "")) / "networks").glob("*.bif"))

A = "variable A { type discrete [ 2 ] { <5, 5+ }; }\n"
B = "variable B { type discrete [ 3 ] { x/y, 1-2_days, Transp. }; }\n"
PA = "probability ( A ) { table 0.25, 0.75; }\n"
PB = "probability ( B | A ) { (<5) 0.2, 0.3, 0.5; (5+) 0.1, 0.2, 0.7; }\n"


def test_names_full_of_punctuation_are_kept() -> None:
    net = parse_bif("network n { }\n" + A + B + PA + PB)
    assert net.states == {"A": ("<5", "5+"), "B": ("x/y", "1-2_days", "Transp.")}
    assert net.parents == {"A": (), "B": ("A",)}
    assert net.tables["B"].tolist() == [[0.2, 0.3, 0.5], [0.1, 0.2, 0.7]]


def test_comments_properties_defaults_and_quotes_are_read() -> None:
    text = """// a comment; with { marks }
    network "my net" { property author "somebody"; } /* and
    another one */
    variable A { type discrete [ 2 ] { "a, b", c }; property position = (1, 2); }
    variable B { type discrete [ 2 ] { yes, no }; }
    probability ( A ) { property note; table 0.5, 0.5; }
    probability ( B | A ) { default 0.5, 0.5; (c) 0.9, 0.1; }"""
    net = parse_bif(text)
    assert net.name == "my net"
    assert net.states["A"] == ("a, b", "c")
    assert net.tables["B"].tolist() == [[0.5, 0.5], [0.9, 0.1]]


def test_a_whole_table_runs_over_the_variable_slowest() -> None:
    """BIF 0.15: as the variables are listed, the last fastest, and the child is listed first."""
    whole = "probability ( B | A ) { table 0.2, 0.1, 0.3, 0.2, 0.5, 0.7; }"
    net = parse_bif(A + B + PA + whole)
    assert torch.allclose(net.tables["B"], parse_bif(A + B + PA + PB).tables["B"])


def test_rounded_rows_are_normalised() -> None:
    net = parse_bif(A + "probability ( A ) { table 0.333, 0.666; }")
    assert net.tables["A"].tolist() == pytest.approx([1 / 3, 2 / 3], abs=1e-15)


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_files_come_back_as_they_were(path: Path) -> None:
    net = read_bif(path)
    again = parse_bif(format_bif(net))
    assert (again.states, again.parents) == (net.states, net.parents)
    for name, table in net.tables.items():
        assert torch.allclose(table.sum(-1), torch.ones((), dtype=torch.float64), atol=1e-15)
        assert torch.allclose(again.tables[name], table, atol=1e-16, rtol=1e-15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (A + B + PA, "'B' has no probability block"),
        (A + PA + PB, "names 'B', which is no variable"),
        (A + A + PA, "'A' stands there twice"),
        (A + PA + PA, "'A' stands there twice"),
        (A + B + PA + PB.replace("(5+)", "(5)"), "A = '5', a state that 'A' does not have"),
        (A + B + PA + PB.replace("(5+)", "(<5)"), "twice"),
        (A + B + PA + PB.replace("(5+) 0.1, 0.2, 0.7;", ""), r"no row for \(5\+\)"),
        (A + B + PA + PB.replace("(5+)", "(5+, <5)"), "its parents are A"),
        (A + B + PA + PB.replace("0.7", "0.9"), r"adds up to 1\.2"),
        (A + B + PA + PB.replace("0.7", "-0.7"), "they are >= 0"),
        (A + B + PA + PB.replace(", 0.7", ""), "holds 2 numbers; 3 are needed"),
        (A + B + PA + PB.replace("0.7", "p"), "hold no number"),
        (A.replace("2", "3", 1) + PA, "announces 3 states and names 2"),
        (A.replace("discrete", "continuous") + PA, "only discrete"),
        (A + PA[:-4], "ends where"),
        ("<XMLBIF>", "line 1: 'network', 'variable' or 'probability' was expected"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_bif(text)


def test_an_error_names_its_line() -> None:
    with pytest.raises(ValueError, match="line 3"):
        parse_bif("network n { }\n" + A + "nonsense")
