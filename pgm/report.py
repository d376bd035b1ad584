"""A page of chapters: what is shown in a sentence, the code that shows it, pictures and tables.

The page is one HTML file with its pictures inside, so that it can be sent and opened anywhere.
"""

import ast
import base64
import inspect
import io
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        png: the image.
        caption: what it shows, also for readers who cannot see it.
        width: in the page's points.
    """

    png: bytes
    caption: str
    width: int

    def __str__(self) -> str:
        return f"[picture] {self.caption}"


@dataclass(frozen=True)
class Table:
    """Rows of words and figures under a header; every column but the first is set to the right.

    Attributes:
        header: a word a column.
        rows: as many cells each.
        caption: what it shows.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __str__(self) -> str:
        lines = [list(self.header), *map(list, self.rows)]
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = [
            [line[0].ljust(wide[0]), *(c.rjust(w) for c, w in zip(line[1:], wide[1:], strict=True))]
            for line in lines
        ]
        text = "\n".join("  ".join(line).rstrip() for line in padded)
        return f"{text}\n\n{textwrap.fill(self.caption, 100)}" if self.caption else text


@dataclass(frozen=True)
class Note:
    """A paragraph.

    Attributes:
        text: plain words.
    """

    text: str

    def __str__(self) -> str:
        return textwrap.fill(self.text, 100)


Part = Picture | Table | Note


@dataclass(frozen=True)
class Chapter:
    """One thing shown.

    Attributes:
        title: a few words.
        summary: a sentence that says what is shown.
        code: what a user types to see it.
        parts: pictures, tables and paragraphs, in order.
        seconds: how long it took, where it was timed.
    """

    title: str
    summary: str
    code: str
    parts: Sequence[Part]
    seconds: float | None = None

    def timed(self, seconds: float) -> "Chapter":
        """The chapter with the time that it took."""
        return replace(self, seconds=seconds)

    def __str__(self) -> str:
        took = "" if self.seconds is None else f"  [{self.seconds:.1f} s]"
        shown = [str(part) for part in self.parts if not isinstance(part, Picture)]
        return "\n\n".join([f"{self.title}{took}\n{self.summary}", *shown])


def picture(figure: Any, caption: str) -> Picture:
    """A matplotlib figure as a part of a page; the figure is closed.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> print(picture(plt.figure(), "nothing"))
        [picture] nothing
    """
    import matplotlib.pyplot as plt

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, bbox_inches="tight", transparent=True)
    plt.close(figure)
    width = int.from_bytes(file.getvalue()[16:20])
    return Picture(file.getvalue(), caption, width * 96 // 160)


def code(*functions: Callable[..., Any], given: str = "") -> str:
    """The bodies of functions as a user would type them, so that what is shown is what has run.

    The imports of their modules that they need stand above. Docstrings and `return` are left out;
    an argument that is passed on shows its default.

    Args:
        functions: whose bodies are shown, one after the other.
        given: a comment on names that come from elsewhere.

    Example:
        >>> print(code(picture).splitlines()[0])
        import io
    """
    bodies = "\n\n".join(map(_body, functions))
    comment = f"# {given}\n" if given else ""
    modules = dict.fromkeys(inspect.getmodule(inspect.unwrap(f)) for f in functions)
    imports = dict.fromkeys(line for m in modules if m for line in _imports(m, bodies))
    return "\n\n".join(filter(None, ["\n".join(imports), comment + bodies]))


def _body(function: Callable[..., Any]) -> str:
    lines = textwrap.dedent(inspect.getsource(inspect.unwrap(function))).splitlines()
    start = next(i for i, line in enumerate(lines) if re.search(r":\s*(#.*)?$", line)) + 1
    body = textwrap.dedent("\n".join(lines[start:]))
    body = re.sub(r'\A"""(.|\n)*?"""\n+', "", body)
    body = re.sub(r"^return .*\n?", "", body, flags=re.MULTILINE)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            value = parameter.default
            default = json.dumps(value) if isinstance(value, str) else repr(value)
            body = re.sub(rf"(?<=[=( ]){name}(?=[,)}}])", default, body)
    return body.strip()


def _imports(module: ModuleType, body: str) -> list[str]:
    """The imports at the top of a module whose names the body uses."""
    found = []
    for statement in ast.parse(inspect.getsource(module)).body:
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        used = [a for a in statement.names if re.search(rf"\b{_bound(a)}\b", body)]
        if used:
            statement.names = used
            found.append(ast.unparse(statement))
    return found


def _bound(alias: ast.alias) -> str:
    """The name as it is used: `plt`, or `pgm.data` for `import pgm.data`."""
    return re.escape(alias.asname or alias.name)


def write(path: Path, title: str, lead: str, chapters: Sequence[Chapter]) -> Path:
    """Writes the page and returns where it is.

    Args:
        path: the HTML file; its folder is made.
        title: of the page.
        lead: a paragraph below it.
        chapters: in order.
    """
    contents = "".join(
        f'<li><a href="#{_anchor(chapter)}">{escape(chapter.title)}</a>{_seconds(chapter)}</li>'
        for chapter in chapters
    )
    body = "".join(map(_section, chapters))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p>{escape(lead)}</p><ol>{contents}</ol></header>"
        f"<main>{body}</main></body></html>\n",
        encoding="utf-8",
    )
    return path


def _section(chapter: Chapter) -> str:
    parts = "".join(map(_part, chapter.parts))
    typed = f"<pre><code>{escape(chapter.code)}</code></pre>" if chapter.code else ""
    return (
        f'<section id="{_anchor(chapter)}"><h2>{escape(chapter.title)}</h2>'
        f"<p>{escape(chapter.summary)}</p>{typed}{parts}</section>"
    )


def _part(part: Part) -> str:
    match part:
        case Picture(png, caption, width):
            data, alt = base64.b64encode(png).decode(), escape(caption, quote=True)
            image = f'<img width="{width}" alt="{alt}" src="data:image/png;base64,{data}">'
            return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
        case Table(header, rows, caption):
            head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
            lines = "".join(
                "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
                for row in rows
            )
            table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
            below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
            return f"<figure><div>{table}</div>{below}</figure>"
        case Note(text):
            return f'<p class="note">{escape(text)}</p>'


def _anchor(chapter: Chapter) -> str:
    return re.sub(r"\W+", "-", chapter.title.casefold()).strip("-")


def _seconds(chapter: Chapter) -> str:
    return "" if chapter.seconds is None else f" <small>{chapter.seconds:.0f} s</small>"


STYLE = """
:root { color-scheme: light; --ink: #1f2933; --quiet: #66707a; --rule: #e4e1da; --hot: #c2410c; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 49rem; padding: 4rem 1.25rem 6rem; background: #fffefb;
  color: var(--ink); font: 17px/1.6 Charter, "Bitstream Charter", "Sitka Text", Cambria,
  "DejaVu Serif", Georgia, serif; }
h1 { font-size: 2.2rem; line-height: 1.15; margin: 0 0 .6rem; font-weight: 600; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 .4rem; font-weight: 600; }
p { margin: 0 0 1rem; }
header ol { columns: 2; column-gap: 2.5rem; padding-left: 1.4rem; margin: 1.5rem 0 0;
  font-size: .92rem; }
header li::marker, small { color: var(--quiet); }
a { color: inherit; text-decoration-color: var(--hot); text-underline-offset: .18em;
  text-decoration-thickness: 1px; }
section { border-top: 1px solid var(--rule); margin-top: 3rem; padding-top: 1.6rem; }
pre { background: #f6f4ee; border-left: 3px solid var(--hot); padding: .8rem 1rem;
  overflow-x: auto; margin: 0 0 1.4rem; font: 12.5px/1.55 ui-monospace, "SF Mono", Menlo, Consolas,
  "DejaVu Sans Mono", monospace; }
code { font: inherit; }
figure { margin: 1.4rem 0; }
figure > div { overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption, .note { color: var(--quiet); font-size: .88rem; line-height: 1.5; margin-top: .6rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; line-height: 1.35;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { font-weight: 600; border-bottom: 1px solid var(--ink); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
"""
