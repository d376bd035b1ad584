"""The grammar that our text, DOT and dagitty share: nodes, arrows, braces, attributes.

statement := group (arrow group)* ["[" attributes "]"];  group := name | "{" name ... "}"
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

ARROWS = ("<->", "<-", "->", "--")
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_ATTRIBUTE = re.compile(
    rf'(?P<key>{_QUOTED}|[^\s=,;"]+)\s*(?:=\s*(?P<value>{_QUOTED}|[^\s,;"]+))?', re.DOTALL
)


def bare(but: str = "") -> re.Pattern[str]:
    """What a name without quotes looks like; `but` are characters that it has not."""
    return re.compile(rf'(?:(?!<-|->|--)[^\s{{}}\[\]",;{re.escape(but)}])+')


NAME = bare()


@dataclass(frozen=True)
class Statement:
    """Groups of nodes, the arrows between them, and the attributes at the end."""

    groups: list[list[str]]
    arrows: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    def pairs(self, *arrows: str) -> Iterator[tuple[str, str]]:
        """Every pair of nodes that one of these arrows joins."""
        for i, arrow in enumerate(self.arrows):
            if arrow in arrows:
                yield from ((a, b) for a in self.groups[i] for b in self.groups[i + 1])


class Unread(ValueError):
    """The mark at which a text cannot be read, and what is around it."""

    def __init__(self, mark: str, around: str) -> None:
        super().__init__(mark, around)
        self.mark, self.around = mark, around


def statements(text: str, *, name: re.Pattern[str] = NAME, ends: str = ";\n") -> list[Statement]:
    """The statements of a text.

    Args:
        text: what stands inside the braces of DOT or dagitty, or a text of ours.
        name: what a name without quotes looks like.
        ends: the marks that end a statement; with ";" alone a line ends nothing, a name after a
            name begins the next statement, and `key = value` is passed over.

    Raises:
        Unread: at the first mark that fits nowhere.
    """
    strict = "\n" in ends
    tokens = [t for t in _token(name).findall(text) if t != "\n" or strict]
    found = []
    while tokens:
        if tokens[0] in ends:
            tokens = tokens[1:]
        elif tokens[1:2] == ["="] and not strict:
            tokens = tokens[3:]
        else:
            statement, rest = _statement(tokens, name)
            if strict and rest and rest[0] not in ends:
                raise Unread(rest[0], _around(tokens, rest))
            found.append(statement)
            tokens = rest
    return found


def plain(token: str) -> str:
    r"""A name without its quotes and backslashes; `quoted` writes it back.

    Example:
        >>> plain(quoted('a "b"')), quoted("a"), quoted("a b")
        ('a "b"', 'a', '"a b"')
    """
    if token.startswith('"'):
        return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
    return token


def quoted(name: str, *, unless: re.Pattern[str] = NAME) -> str:
    """A name as it is written in a text: in quotes, unless it looks like a name without them."""
    if unless.fullmatch(name):
        return name
    return '"' + name.replace("\\", r"\\").replace('"', r"\"") + '"'


@functools.cache
def _token(name: re.Pattern[str]) -> re.Pattern[str]:
    attributes = rf'\[(?:[^\]"]|{_QUOTED})*\]'
    marks = rf"{_QUOTED}|<->|<-|->|--|[{{}};\n]|{attributes}"
    return re.compile(rf"{marks}|{name.pattern}|[^\s,]", re.DOTALL)


def _statement(tokens: list[str], name: re.Pattern[str]) -> tuple[Statement, list[str]]:
    group, rest = _group(tokens, tokens, name)
    groups, arrows, attributes = [group], list[str](), dict[str, str]()
    while rest and rest[0] in ARROWS:
        arrows.append(rest[0])
        if len(rest) == 1 or rest[1] in (";", "\n"):
            raise Unread(rest[0], _around(tokens, rest[1:]))
        group, rest = _group(rest[1:], tokens, name)
        groups.append(group)
    while rest and rest[0].startswith("["):
        attributes |= _attributes(rest[0], _around(tokens, rest[1:]))
        rest = rest[1:]
        if rest and rest[0] in ARROWS:
            raise Unread("]", _around(tokens, rest))
    return Statement(groups, arrows, attributes), rest


def _group(
    tokens: list[str], whole: list[str], name: re.Pattern[str]
) -> tuple[list[str], list[str]]:
    """One node or the nodes in braces, and what follows."""
    if tokens[0] != "{":
        group, rest = tokens[:1], tokens[1:]
    elif "}" in tokens:
        end = tokens.index("}")
        group, rest = [t for t in tokens[1:end] if t not in (";", "\n")], tokens[end + 1 :]
    else:
        raise Unread("{", _around(whole, []))
    if not group:
        raise Unread("{}", _around(whole, rest))
    for token in group:
        if token == '"' or not (token.startswith('"') or name.fullmatch(token)):
            raise Unread(token, _around(whole, rest))
    return [plain(token) for token in group], rest


def _attributes(token: str, around: str) -> dict[str, str]:
    """`[latent, pos="0,1"]` as a dict; a word without a value has the value "true"."""
    if token == "[":
        raise Unread("[", around)
    pairs = _ATTRIBUTE.finditer(token[1:-1])
    return {plain(m["key"]): plain(m["value"]) if m["value"] else "true" for m in pairs}


def _around(tokens: list[str], rest: list[str]) -> str:
    """The tokens read so far and a few more, for a message."""
    read = len(tokens) - len(rest)
    return " ".join(tokens[max(0, read - 12) : read + 4]).replace("\n", " ").strip()
