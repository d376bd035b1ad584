"""The house rules that ruff, mypy and import-linter cannot state: sizes, words, light imports."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pgm

ROOT = Path(__file__).parents[1]
PACKAGES = ("pgm", "causal", "privacy")
CODE = (*PACKAGES, "benchmarks", "tutorials")
FILE_LINES, BODY_LINES, METHODS = 400, 50, 12
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def sources(*folders: str) -> list[Path]:
    """Every Python file below the folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def long_file(name: str, text: str) -> Iterator[str]:
    if (lines := text.count("\n")) > FILE_LINES:
        yield (
            f"{name} has {lines} lines; the limit is {FILE_LINES}. A file holds one idea: give the "
            "second one a file of its own. Squeezing lines together helps nobody."
        )


def long_bodies(name: str, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function) and (lines := body_lines(node)) > BODY_LINES:
            yield (
                f"{name}:{node.lineno} {node.name} has a body of {lines} lines (docstring not "
                f"counted); the limit is {BODY_LINES}. Name its steps: each becomes a function of "
                "5 to 15 lines below it."
            )


def wide_classes(name: str, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        methods = {method.name for method in node.body if isinstance(method, Function)}
        if len(methods) > METHODS:
            yield (
                f"{name}:{node.lineno} {node.name} has {len(methods)} methods; the limit is "
                f"{METHODS}. What only uses the class is a function (a verb is one), not a method."
            )


def missing_docstring(name: str, text: str) -> Iterator[str]:
    if not ast.get_docstring(ast.parse(text)):
        yield (
            f"{name} has no docstring. Its first lines say what the file holds: the idea, its "
            "equation, the paper and year."
        )


def forbidden_calls(name: str, text: str) -> Iterator[str]:
    advice = {
        "hasattr": "A test for an attribute hides a type: dispatch on the type (pgm.Verb), or put "
        "the attribute in the base class.",
        "pyro.param": "A loose parameter is shared by name with every other model of the process: "
        "hold it in a layer, an nn.Parameter or a PyroParam of the module.",
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in advice:
            yield f"{name}:{node.lineno} calls {called}. {advice[called]}"


MACHINE_PATH = re.compile(r"(?<![\w.*:/])/(?:work|root|home|Users|opt|tmp|mnt)/\w")


def machine_paths(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if found := MACHINE_PATH.search(line):
            yield (
                f"{name}:{number} names a path of one machine ({found[0]}...). Data are found by "
                "pgm.data or $HOTPLATE_DATA, files are written where the user is, tests use "
                "tmp_path."
            )


Rule = Callable[[str, str], Iterator[str]]


@pytest.mark.parametrize(
    ("rule", "folders"),
    [
        (long_file, (*CODE, "tests")),
        (long_bodies, CODE),
        (wide_classes, CODE),
        (missing_docstring, (*CODE, "tests")),
        (forbidden_calls, PACKAGES),
        (machine_paths, (*CODE, "tests", "docs")),
    ],
)
def test_rule(rule: Rule, folders: tuple[str, ...]) -> None:
    broken = [
        message
        for path in sources(*folders)
        for message in rule(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    ]
    if broken:
        pytest.fail("\n".join(broken), pytrace=False)


def test_no_document_names_a_path_of_one_machine() -> None:
    patterns = ("*.md", "*.toml", "*.txt", "*.py", "Makefile", "docs/**/*.md")
    documents = [path for pattern in patterns for path in ROOT.glob(pattern)]
    broken = [m for path in documents for m in machine_paths(path.name, path.read_text("utf-8"))]
    if broken:
        pytest.fail("\n".join(broken), pytrace=False)


METHOD = "    def m{}(self): ...\n"
STATEMENTS = '    """Docstring.\n\n    More.\n    """\n' + "    pass\n" * BODY_LINES


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (long_file, "\n" * FILE_LINES, "\n" * (FILE_LINES + 1)),
        (long_bodies, "def f():\n" + STATEMENTS, "def f():\n" + STATEMENTS + "    pass\n"),
        (
            wide_classes,
            "class A:\n" + "".join(map(METHOD.format, range(METHODS))),
            "class A:\n" + "".join(map(METHOD.format, range(METHODS + 1))),
        ),
        (missing_docstring, '"""What."""\n', "import pgm\n"),
        (forbidden_calls, "isinstance(x, A)", "if hasattr(x, 'a'): ..."),
        (forbidden_calls, "message = 'no pyro.param() here'", "w = pyro.param('w', zeros)"),
        (machine_paths, "look = 'https://example.org/home/me'", "look = '/{}/me'".format("home")),
    ],
)
def test_each_rule_finds_what_it_is_for(rule: Rule, good: str, bad: str) -> None:
    assert not list(rule("good.py", good))
    assert len(list(rule("bad.py", bad))) == 1


def test_shapes_are_checked_in_this_very_run() -> None:
    assert type(pgm.__spec__.loader).__module__.startswith("jaxtyping"), (
        "pgm was imported before conftest.py set jaxtyping's hook, so no shape is checked: no "
        "conftest.py or pytest plugin may import the packages at its top."
    )


LATE = {"arviz", "dowhy", "matplotlib", "opacus", "pandas", "scipy", "sklearn"}
LOADED = "import sys, pyro, pgm{}; print(*{} & sys.modules.keys())"


@pytest.mark.parametrize(("more", "late"), [("", LATE), (", causal, privacy", LATE)])
def test_importing_a_package_loads_no_heavy_library(more: str, late: set[str]) -> None:
    command = [sys.executable, "-c", LOADED.format(more, late)]
    loaded = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.split()
    assert not loaded, (
        f"'import pgm{more}' loads {loaded}. Import them inside the functions that use them: "
        "starting Hotplate must cost little more than starting Pyro."
    )


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its first statement after the docstring to its last."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1
