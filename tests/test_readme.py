"""The README's Python blocks run as they stand, in order, and print what it says they print."""

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

README = Path(__file__).parents[1] / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A Python block: its code, the line where it starts, the printed result if one is shown."""

    code: str
    line: int
    printed: str | None


def python_blocks(document: str) -> list[Block]:
    """Every ```python block, with the ```text block that directly follows it as its result."""
    fences = list(FENCE.finditer(document))
    blocks = []
    for fence, after in zip(fences, [*fences[1:], None], strict=True):
        if fence[1] != "python":
            continue
        shown = after and after[1] == "text" and not document[fence.end() : after.start()].strip()
        line = document.count("\n", 0, fence.start(2))
        blocks.append(Block(fence[2], line, after[2] if after and shown else None))
    return blocks


def run(document: str, name: str) -> None:
    """Run a document's blocks in one namespace and compare what they print."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in python_blocks(document):
        out = io.StringIO()
        # The empty lines in front let a traceback name the line of the document.
        program = compile("\n" * block.line + block.code, name, "exec")
        with contextlib.redirect_stdout(out):
            exec(program, namespace)
        if block.printed is not None and out.getvalue().split() != block.printed.split():
            pytest.fail(
                f"The block at {name}:{block.line + 1} prints something else than the text block "
                f"below it shows.\nshown:\n{block.printed}\nprinted:\n{out.getvalue()}",
                pytrace=False,
            )


def test_readme_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = README.read_text(encoding="utf-8")
    assert python_blocks(document), "README.md has no ```python block that a newcomer can paste."
    try:
        run(document, str(README))
    finally:
        plt.close("all")


EXAMPLE = """
```python
x = 1
```
words
```python
print(x,  "a")
```

```text
1 a
```
```sh
make nothing
```
"""


def test_blocks_share_a_namespace_and_whitespace_is_free() -> None:
    first, second = python_blocks(EXAMPLE)
    assert (first.line, first.printed) == (2, None)
    assert (second.line, second.printed) == (6, "1 a\n")
    run(EXAMPLE, "EXAMPLE.md")


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ("1 a", "2 a", "EXAMPLE.md:7 prints something else"),
        ("x = 1", "y = 1", "name 'x' is not defined"),
        ("x = 1", "x = ", "EXAMPLE.md, line 3"),
    ],
)
def test_a_wrong_block_fails(before: str, after: str, error: str) -> None:
    with pytest.raises((pytest.fail.Exception, NameError, SyntaxError), match=error):
        run(EXAMPLE.replace(before, after), "EXAMPLE.md")
