"""Bayesian networks in the Bayesian interchange format (BIF 0.15; Cozman 1998), read and written.

    variable dysp { type discrete [ 2 ] { yes, no }; }
    probability ( dysp | bronc ) { (yes) 0.8, 0.2; (no) 0.1, 0.9; }

Files found in the wild have names full of punctuation ("<7.5", "Asy/Patch", "5-12") and rounded
probabilities; the first are kept as they stand, the second normalised.
"""

import itertools
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pgm.schema.columns import listing, suggestion

ROUNDING = 0.01
"""How far from one the probabilities of a row may add up."""

_TOKEN = re.compile(
    r'(?P<comment>(?<!\S)//[^\n]*|/\*.*?\*/)|"(?P<quoted>[^"]*)"|(?P<mark>[{}()|,;\[\]])'
    r'|(?P<word>[^\s{}()|,;\[\]"]+)',
    re.DOTALL,
)


@dataclass(frozen=True, eq=False)
class Network:
    """What a BIF file says.

    Attributes:
        states: the names of the states of every variable, in the order of the file.
        parents: of every variable, in the order of the axes of its table.
        tables: p(variable | parents), shape (states of each parent, states of the variable).
        name: of the network.
    """

    states: Mapping[str, tuple[str, ...]]
    parents: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, Tensor]
    name: str = "unknown"


def read_bif(path: str | os.PathLike[str]) -> Network:
    """Reads a file.

    Raises:
        ValueError: as `parse_bif`.
    """
    return parse_bif(Path(path).read_text(encoding="utf-8"))


def parse_bif(text: str) -> Network:
    """Reads the text of a file.

    Args:
        text: its contents. A `table` of a variable with parents runs over the variable slowest,
            then over the parents in order, the last fastest.

    Raises:
        ValueError: what is no BIF; a variable, state or row of a table that is missing, unknown or
            there twice; probabilities that are negative or add up to something else than one.

    Example:
        >>> net = parse_bif('''network tiny { }
        ... variable A { type discrete [ 2 ] { <5, 5+ }; }
        ... variable B { type discrete [ 2 ] { yes, no }; }
        ... probability ( A ) { table 0.2, 0.8; }
        ... probability ( B | A ) { (<5) 1.0, 0.0; (5+) 0.333, 0.666; }''')
        >>> net.states["A"], net.tables["B"][1]
        (('<5', '5+'), tensor([0.3333, 0.6667], dtype=torch.float64))
    """
    reader = _Reader(text)
    name, states = "unknown", dict[str, tuple[str, ...]]()
    bodies: dict[str, tuple[tuple[str, ...], list[_Row]]] = {}
    while reader.left:
        what = reader.take()
        if what == "network":
            name = reader.take()
            reader.skip_block()
        elif what == "variable":
            _once("variable", variable := reader.take(), states)
            states[variable] = _states(variable, reader)
        elif what == "probability":
            child, parents, rows = _probability(reader)
            _once("probability of", child, bodies)
            bodies[child] = parents, rows
        else:
            raise reader.error("'network', 'variable' or 'probability'", what)
    return _network(name, states, bodies)


@dataclass(frozen=True)
class _Row:
    """One line of a probability block: for which states of the parents, and its numbers."""

    kind: str  # "table", "default" or "row"
    given: tuple[str, ...]
    numbers: tuple[float, ...]


class _Reader:
    """The tokens of a file, taken one by one."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0

    @property
    def left(self) -> bool:
        return self.at < len(self.tokens)

    def take(self, expected: str | None = None) -> str:
        if not self.left:
            raise ValueError(f"The BIF ends where {expected or 'more'!r} was expected: is it cut?")
        token, _ = self.tokens[self.at]
        self.at += 1
        if expected is not None and token != expected:
            raise self.error(repr(expected), token)
        return token

    def until(self, end: str) -> list[str]:
        """The words up to a mark, which is taken too, without commas."""
        words = []
        while (word := self.take()) != end:
            if word in "{};|" and end != word:
                raise self.error(repr(end), word)
            words.append(word)
        return [word for word in words if word != ","]

    def skip_block(self) -> None:
        self.take("{")
        while self.take() != "}":
            pass

    def skip_statement(self) -> None:
        while self.take() != ";":
            pass

    def error(self, expected: str, came: str) -> ValueError:
        line = self.tokens[self.at - 1][1]
        return ValueError(f"BIF, line {line}: {expected} was expected, but {came!r} came.")


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Words and marks with their lines; comments are left out."""
    line, end = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", end, match.start())
        end = match.start()
        if match["comment"] is None:
            quoted = match["quoted"]
            yield (match["mark"] or match["word"] or "") if quoted is None else quoted, line


def _states(variable: str, reader: _Reader) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    reader.take("{")
    while (word := reader.take()) != "}":
        if word != "type":
            reader.skip_statement()
            continue
        if (kind := reader.take()) != "discrete":
            raise ValueError(f"Variable {variable!r} is {kind!r}; only discrete ones are read.")
        reader.take("[")
        count = reader.take()
        reader.take("]")
        reader.take("{")
        found = tuple(reader.until("}"))
        reader.take(";")
        if len(found) != int(count) or len(set(found)) < len(found):
            raise ValueError(
                f"Variable {variable!r} announces {count} states and names {len(set(found))}: "
                f"{listing(list(found))}. Each is named once; names with blanks or any of "
                "{}()|,;[] stand in quotes."
            )
    if not found:
        raise ValueError(f"Variable {variable!r} has no line 'type discrete [ k ] {{ ... }};'.")
    return found


def _probability(reader: _Reader) -> tuple[str, tuple[str, ...], list[_Row]]:
    reader.take("(")
    child, word, parents = reader.take(), reader.take(), tuple[str, ...]()
    if word == "|":
        parents = tuple(reader.until(")"))
    elif word != ")":
        raise reader.error("'|' or ')'", word)
    rows = []
    reader.take("{")
    while (word := reader.take()) != "}":
        if word == "property":
            reader.skip_statement()
        elif word in ("table", "default"):
            rows.append(_Row(word, (), _numbers(child, reader)))
        elif word == "(":
            rows.append(_Row("row", tuple(reader.until(")")), _numbers(child, reader)))
        else:
            raise reader.error("'(', 'table', 'default' or 'property'", word)
    return child, parents, rows


def _numbers(child: str, reader: _Reader) -> tuple[float, ...]:
    words = reader.until(";")
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError as error:
        raise ValueError(f"The probabilities of {child!r} hold no number: {error}.") from error
    if any(not 0 <= p < math.inf for p in numbers):
        raise ValueError(f"The probabilities of {child!r} hold {min(numbers)}; they are >= 0.")
    return numbers


def _network(
    name: str,
    states: Mapping[str, tuple[str, ...]],
    bodies: Mapping[str, tuple[tuple[str, ...], list[_Row]]],
) -> Network:
    tables, above = {}, {}
    for child in (*states, *bodies):
        if child not in bodies:
            raise ValueError(f"Variable {child!r} has no probability block.")
        parents, _ = bodies[child]
        for variable in (child, *parents):
            if variable not in states:
                raise ValueError(
                    f"The probability of {child!r} names {variable!r}, which is no variable."
                    f"{suggestion(variable, states)} There are {listing(list(states))}."
                )
        above[child] = parents
    for child in states:
        tables[child] = _table(child, above[child], bodies[child][1], states)
    return Network(dict(states), {child: above[child] for child in states}, tables, name)


def _table(
    child: str, parents: tuple[str, ...], rows: list[_Row], states: Mapping[str, tuple[str, ...]]
) -> Tensor:
    k, shape = len(states[child]), [len(states[p]) for p in parents]
    filled: dict[tuple[str, ...], tuple[float, ...]] = {}
    default: tuple[float, ...] | None = None
    for row in rows:
        if row.kind == "table":
            if len(row.numbers) != k * math.prod(shape):
                raise _count(child, "its table", len(row.numbers), k * math.prod(shape))
            whole = torch.tensor(row.numbers, dtype=torch.float64).reshape(k, *shape)
            return _normalised(child, whole.movedim(0, -1))
        if len(row.numbers) != k:
            raise _count(child, f"its row {row.given or row.kind}", len(row.numbers), k)
        if row.kind == "default":
            default = row.numbers
            continue
        _check_row(child, parents, row.given, states)
        _once(f"row of {child!r} given", row.given, filled)
        filled[row.given] = row.numbers
    every = list(itertools.product(*(states[p] for p in parents)))
    absent = [given for given in every if given not in filled]
    if absent and default is None:
        raise ValueError(
            f"The table of {child!r} has no row for ({', '.join(absent[0])}), and "
            f"{len(absent)} of {len(every)} rows are missing. Add them, or a line 'default ...;'."
        )
    whole = torch.tensor([filled.get(given, default) for given in every], dtype=torch.float64)
    return _normalised(child, whole.reshape(*shape, k))


def _check_row(
    child: str,
    parents: tuple[str, ...],
    given: tuple[str, ...],
    states: Mapping[str, tuple[str, ...]],
) -> None:
    if len(given) != len(parents):
        raise ValueError(
            f"A row of {child!r} is given ({', '.join(given)}), but its parents are "
            f"{listing(list(parents)) or 'none'}."
        )
    for parent, state in zip(parents, given, strict=True):
        if state not in states[parent]:
            raise ValueError(
                f"A row of {child!r} is given {parent} = {state!r}, a state that {parent!r} does "
                f"not have.{suggestion(state, states[parent])} It has "
                f"{listing(list(states[parent]))}."
            )


def _normalised(child: str, table: Tensor) -> Tensor:
    total = table.sum(-1, keepdim=True)
    worst = float((total - 1).abs().max())
    if worst > ROUNDING:
        at = float(total.flatten()[(total.flatten() - 1).abs().argmax()])
        raise ValueError(
            f"A row of {child!r} adds up to {at:g}: beyond rounding ({ROUNDING:g}), so that it is "
            "not clear what was meant. A 'table' with parents runs over the states of "
            f"{child!r} slowest; are its axes in another order?"
        )
    return table / total


def _count(child: str, what: str, came: int, expected: int) -> ValueError:
    return ValueError(f"{what} of {child!r} holds {came} numbers; {expected} are needed.")


def _once(what: str, name: object, known: Collection[object]) -> None:
    if name in known:
        raise ValueError(f"The {what} {name!r} stands there twice: which is meant?")


def format_bif(network: Network) -> str:
    """The text of a file that `parse_bif` reads back to the same numbers.

    Example:
        >>> states = {"coin": ("heads up", "tails")}
        >>> coin = Network(states, {"coin": ()}, {"coin": torch.ones(2) / 2})
        >>> print(format_bif(coin))
        network unknown {
        }
        variable coin {
          type discrete [ 2 ] { "heads up", tails };
        }
        probability ( coin ) {
          table 0.5, 0.5;
        }
    """
    lines = [f"network {_word(network.name)} {{", "}"]
    for name, states in network.states.items():
        listed = ", ".join(map(_word, states))
        lines.append(f"variable {_word(name)} {{")
        lines += [f"  type discrete [ {len(states)} ] {{ {listed} }};", "}"]
    for name, parents in network.parents.items():
        given = f" | {', '.join(map(_word, parents))}" if parents else ""
        lines.append(f"probability ( {_word(name)}{given} ) {{")
        rows = network.tables[name].detach().double().reshape(-1, len(network.states[name]))
        every = itertools.product(*(network.states[p] for p in parents))
        for at, row in zip(every, rows.tolist(), strict=True):
            head = f"({', '.join(map(_word, at))})" if parents else "table"
            lines.append(f"  {head} {', '.join(map(repr, row))};")
        lines.append("}")
    return "\n".join(lines)


def _word(name: str) -> str:
    """A name as it stands, in quotes where it would not be read back as one word."""
    if '"' in name:
        raise ValueError(f"{name!r} holds a quotation mark, which BIF cannot write. Rename it.")
    plain = re.fullmatch(r'[^\s{}()|,;\[\]"]+', name) and not name.startswith(("//", "/*"))
    return name if plain else f'"{name}"'
