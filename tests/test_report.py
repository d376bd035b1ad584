"""The page and the tour's frame: everything is inside, escaped, in order, and shown as it ran."""

import base64
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from pgm import __main__, report, tour
from pgm.report import Chapter, Note, Table


def drawn() -> report.Picture:
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1])
    return report.picture(figure, 'a "line" < 1')


CHAPTER = Chapter(
    "A & B",
    "One sentence.",
    "x < 3",
    [drawn(), Table(["model", "bits"], [["<VAE>", "1.50"], ["flow", "12.25"]], "lower"), Note("&")],
)


def test_the_page_is_one_file_with_its_pictures_inside(tmp_path: Path) -> None:
    page = report.write(tmp_path / "new" / "index.html", "T", "Lead", [CHAPTER.timed(3.2)])
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert base64.b64decode(data) == CHAPTER.parts[0].png  # type: ignore[union-attr]
    assert not re.search(r"https?://|<script|<link", text)
    assert '<a href="#a-b">' in text and 'id="a-b"' in text and "<small>3 s</small>" in text


def test_words_are_escaped_in_text_and_attributes(tmp_path: Path) -> None:
    text = report.write(tmp_path / "p.html", "<T>", "a & b", [CHAPTER]).read_text("utf-8")
    for word in ("&lt;T&gt;", "a &amp; b", "A &amp; B", "x &lt; 3", "&lt;VAE&gt;", "&quot;line"):
        assert word in text
    assert "<VAE>" not in text


def test_a_picture_is_a_png_and_its_figure_is_closed() -> None:
    before = plt.get_fignums()
    made = drawn()
    assert made.png.startswith(b"\x89PNG") and 150 < made.width < 250
    assert plt.get_fignums() == before


def test_a_table_prints_with_its_figures_to_the_right() -> None:
    assert str(CHAPTER.parts[1]).splitlines() == [
        "model   bits",
        "<VAE>   1.50",
        "flow   12.25",
        "",
        "lower",
    ]


def test_a_table_with_a_cell_too_few_is_not_printed() -> None:
    with pytest.raises(ValueError, match="zip"):
        str(Table(["a", "b"], [["1"]]))


def test_a_chapter_prints_all_but_its_pictures() -> None:
    lines = str(CHAPTER.timed(1.0)).splitlines()
    assert lines[:2] == ["A & B  [1.0 s]", "One sentence."]
    assert "picture" not in str(CHAPTER)


def keep(**options: object) -> dict[str, object]:
    return options


def shown(x: int, steps: int = 200, name: str = "vae") -> int:
    """Words.

    More words.
    """
    total = keep(steps=steps, name=name, x=x)

    def inner() -> int:
        return len(total)

    if steps:
        x += inner()
    return x


def test_code_is_the_body_that_runs_with_the_defaults_in_place() -> None:
    assert report.code(shown) == (
        'total = keep(steps=200, name="vae", x=x)\n\n'
        "def inner() -> int:\n    return len(total)\n\n"
        "if steps:\n    x += inner()"
    )


def imported() -> object:
    path = Path("a")
    return path, base64.b64encode(b"")


def test_code_starts_with_the_imports_it_needs() -> None:
    assert report.code(imported) == 'from pathlib import Path\n\npath = Path("a")'


def two_chapters(effort: float) -> Iterator[Chapter]:
    yield Chapter("first", f"effort {effort}", "", [])
    yield Chapter("second", "", "", [])


def entry() -> EntryPoint:
    return EntryPoint("1 test", f"{__name__}:two_chapters", tour.GROUP)


def test_chapters_come_in_order_each_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda _: two_chapters)
    first, second = tour.chapters_of(entry(), effort=0.5)
    assert (first.title, first.summary, second.title) == ("first", "effort 0.5", "second")
    assert first.seconds is not None and second.seconds is not None


def test_python_m_pgm_data_and_families(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    __main__.main(["data", "two_moons"])
    assert "two_moons: Two interleaved" in capsys.readouterr().out
    document = tmp_path / "README.md"
    document.write_text("<!-- abilities --><!-- /abilities -->\n", encoding="utf-8")
    __main__.main(["families", "--write", str(document)])
    assert "`kde.KDE`" in document.read_text(encoding="utf-8")
    __main__.main(["families"])
    assert "refused, with a reason" in capsys.readouterr().out


def test_an_unknown_command_ends_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["fly"])
    assert "tour" in capsys.readouterr().err
