"""The table of abilities: which family can be asked what, computed from the verbs themselves.

The README holds this table between two markers, and a test compares the two, so that it cannot lie.
"""

import re

from pgm import families
from pgm.verb import Verb, abilities

OPEN, CLOSE = "<!-- abilities -->", "<!-- /abilities -->"
"""The lines of a document between which its table of abilities stands."""

MARKS = {"own": "●", "generic": "○"}
REFUSED = "–"
LEGEND = "● own rule, ○ from the two programs alone, – refused, with a reason."


def table(names: list[str] | None = None) -> str:
    """The abilities of families as a table in markdown, one row each.

    Args:
        names: the families, by file; by default all.

    Example:
        >>> for line in table(["kde"]).splitlines()[2:3]:
        ...     print(line.split("|")[1].strip())
        `kde.KDE`
    """
    verbs = [verb.__name__ for verb in _verbs()]
    header = ["", *(f"`{verb}`" for verb in verbs)]
    rule = ["---", *([":-:"] * len(verbs))]
    rows = [header, rule]
    for family, name, can in _abilities(names):
        rows.append([f"`{family}.{name}`", *(MARKS.get(can[verb], REFUSED) for verb in verbs)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def refusals(names: list[str] | None = None) -> str:
    """Every refusal of the families with its reason, one line each."""
    verbs = [verb.__name__ for verb in _verbs()]
    return "\n".join(
        f"{name} cannot {verb}: {can[verb]}"
        for _, name, can in _abilities(names)
        for verb in verbs
        if can[verb] not in MARKS
    )


def written(document: str) -> str:
    """A document with the table between its markers made anew.

    Raises:
        ValueError: the document has no markers, or has them in the wrong order.

    Example:
        >>> "| `kde.KDE` |" in written(f"before {OPEN} old {CLOSE} after")
        True
    """
    block = re.compile(f"{re.escape(OPEN)}.*?{re.escape(CLOSE)}", re.DOTALL)
    if not block.search(document):
        raise ValueError(f"The document has no {OPEN} ... {CLOSE}, where the table would stand.")
    return block.sub(lambda _: f"{OPEN}\n{table()}\n\n{LEGEND}\n{CLOSE}", document)


def _verbs() -> list[Verb]:
    """The verbs of the library, whatever else has been imported."""
    places = ("pgm.objectives", "pgm.verbs.")
    return [verb for verb in Verb.every if verb.__module__.startswith(places)]


def _abilities(names: list[str] | None) -> list[tuple[str, str, dict[str, str]]]:
    models = [(name, families.example(name).model) for name in names or families.names()]
    return [(name, type(model).__name__, abilities(model)) for name, model in models]
