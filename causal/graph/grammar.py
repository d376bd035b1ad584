"""The grammar that our text, DOT and dagitty share: nodes, arrows, braces, attributes.

statement := group (arrow group)* ["[" attributes "]"];  group := name | "{" name ... "}"
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

ARROWS = ("<->", "<-", "->", "--")
NAME = re.compile(r'(?:(?!<-|->|--)[^\s{}\[\]",;])+')
_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"|<->|<-|->|--|[{};\n]|\[(?:[^\]"]|"(?:[^"\\]|\\.)*")*\]|'
    + NAME.pattern
    + r"|[^\s,]",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*"|[^\s=,;"]+)\s*(?:=\s*(?P<value>"(?:[^"\\]|\\.)*"|[^\s,;"]+))?',
    re.DOTALL,
)


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


def statements(text: str, *, ends: str = ";\n") -> Iterator[Statement]:
    """The statements of a text.

    Args:
        text: what stands inside the braces of DOT or dagitty, or a text of ours.
        ends: the marks that end a statement; with ";" alone, a node after a node also begins one.

    Raises:
        Unread: at the first mark that fits nowhere.
    """
    tokens = [t for t in _TOKEN.findall(text) if t != "\n" or t in ends]
    while tokens:
        if tokens[0] in ends:
            tokens = tokens[1:]
            continue
        statement, rest = _statement(tokens)
        if rest and "\n" in ends and rest[0] not in ends:
            raise Unread(rest[0], _around(tokens, rest))
        yield statement
        tokens = rest


def plain(token: str) -> str:
    r"""A name without its quotes and backslashes; `quoted` writes it back.

    Example:
        >>> plain(quoted('a "b"')), quoted("a"), quoted("a b")
        ('a "b"', 'a', '"a b"')
    """
    if token.startswith('"'):
        return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
    return token


def quoted(name: str, *, bare: re.Pattern[str] = NAME) -> str:
    """A name as it is written in a text: in quotes where it needs them."""
    if bare.fullmatch(name):
        return name
    return '"' + name.replace("\\", r"\\").replace('"', r"\"") + '"'


def _statement(tokens: list[str]) -> tuple[Statement, list[str]]:
    group, rest = _group(tokens, tokens)
    groups, arrows, attributes = [group], [], dict[str, str]()
    while rest and rest[0] in ARROWS:
        arrows.append(rest[0])
        if len(rest) == 1 or rest[1] in (";", "\n"):
            raise Unread(rest[0], _around(tokens, rest[1:]))
        group, rest = _group(rest[1:], tokens)
        groups.append(group)
    while rest and rest[0].startswith("["):
        attributes |= _attributes(rest[0], _around(tokens, rest[1:]))
        rest = rest[1:]
        if rest and rest[0] in ARROWS:
            raise Unread("]", _around(tokens, rest))
    return Statement(groups, arrows, attributes), rest


def _group(tokens: list[str], whole: list[str]) -> tuple[list[str], list[str]]:
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
        if token == '"' or not (token.startswith('"') or NAME.fullmatch(token)):
            raise Unread(token, _around(whole, rest))
    return [plain(name) for name in group], rest


def _attributes(token: str, around: str) -> dict[str, str]:
    """`[latent, pos="0,1"]` as a dict; a word without a value has the value "true"."""
    if not token.endswith("]") or token == "[":
        raise Unread("[", around)
    pairs = _ATTRIBUTE.finditer(token[1:-1])
    return {plain(m["key"]): plain(m["value"]) if m["value"] else "true" for m in pairs}


def _around(tokens: list[str], rest: list[str]) -> str:
    """The tokens read so far and a few more, for a message."""
    read = len(tokens) - len(rest)
    return " ".join(tokens[max(0, read - 12) : read + 4]).replace("\n", " ").strip()
