"""The table of abilities says what the verbs do, and the README's is the computed one."""

from pathlib import Path

import pytest

import pgm
from pgm import catalogue, families

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_holds_the_table_as_computed() -> None:
    document = README.read_text(encoding="utf-8")
    assert catalogue.written(document) == document, (
        "README.md's table of abilities is out of date. Write it anew: python -m pgm families "
        "--write README.md"
    )


def test_every_family_has_a_row_and_every_mark_is_the_verbs_answer() -> None:
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in catalogue.table().splitlines()
    ]
    assert len(rows) == len(families.names())
    for name, (label, *marks) in zip(families.names(), rows, strict=True):
        model = families.example(name).model
        assert label == f"`{name}.{type(model).__name__}`"
        answers = pgm.abilities(model)
        for verb, mark in zip(header[1:], marks, strict=True):
            answer = answers[verb.strip("`")]
            assert mark == {"own": "●", "generic": "○"}.get(answer, "–")


def test_every_refusal_is_listed_with_its_reason() -> None:
    listed = catalogue.refusals().splitlines()
    assert len(listed) == catalogue.table().count("–")
    assert all(" cannot " in line and len(line.split(": ", 1)[1]) > 20 for line in listed)


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no <!-- abilities -->"):
        catalogue.written("# A document")


def test_what_surrounds_the_table_stays() -> None:
    document = f"before\n{catalogue.OPEN}\nold\n{catalogue.CLOSE}\nafter\n"
    made = catalogue.written(document)
    assert made.startswith("before\n") and made.endswith("\nafter\n") and "old" not in made
    assert catalogue.written(made) == made
