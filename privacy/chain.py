"""A file that only grows: JSON lines, each with the hash of all that stand before it.

A line that was changed, moved or taken out breaks the chain. A file that was cut at its end is a
shorter chain and breaks nothing, so whoever wants to notice that keeps the `head`, the last hash,
elsewhere: the process that writes the file does, and so do checkpoints and reports.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no such lock: there, one process at a time
    fcntl = None  # type: ignore[assignment]


class BrokenChain(ValueError):
    """The file is not the one it was: edited, shortened, or another one."""


class Chain:
    """An append-only file of JSON objects.

    Args:
        path: the file; it is begun if there is none.
        head: a hash that must stand in it, from an earlier `Chain.head`.

    Raises:
        BrokenChain: the file was changed, or does not hold `head`.

    Attributes:
        head: the hash of the last line known.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     chain = Chain(f"{folder}/log.jsonl")
        ...     chain.append({"steps": 3})
        ...     Chain(f"{folder}/log.jsonl").read()
        [{'steps': 3}]
    """

    def __init__(self, path: str | os.PathLike[str], *, head: str | None = None) -> None:
        self.path, self.head = Path(path), head or ""
        self._read: tuple[int, int] | None = None
        if not self.path.exists():
            if head is not None:
                raise BrokenChain(f"{self.path} is not there, and held entries before. {_ADVICE}")
            self._write({"chain": secrets.token_hex(8)})

    def changed(self) -> bool:
        """Whether the file was touched since it was last read."""
        return self._stamp() != self._read

    def read(self) -> list[dict[str, Any]]:
        """All entries.

        Raises:
            BrokenChain: the file was changed since it was last read.
        """
        stamp, hashes, entries = self._stamp(), [""], list[dict[str, Any]]()
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            for line in lines:
                content = json.loads(line)
                stated = content.pop("hash")
                if stated != _hash(hashes[-1], content):
                    raise BrokenChain(
                        f"Line {len(hashes)} of {self.path} is not the one that was written: it "
                        f"or a line before it was changed. {_ADVICE}"
                    )
                hashes.append(stated)
                entries.append(content)
        except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError,
                AttributeError) as error:  # fmt: skip
            raise BrokenChain(f"{self.path} cannot be read ({error!r}). {_ADVICE}") from error
        if self.head not in hashes or not entries or "chain" not in entries[0]:
            raise BrokenChain(
                f"{self.path} no longer holds what it held: it was shortened or replaced. {_ADVICE}"
            )
        self.head, self._read = hashes[-1], stamp
        return entries[1:]

    def append(self, entry: dict[str, Any]) -> None:
        """Adds an entry, on disk when this returns; call it inside `locked`, after `read`."""
        self._write(entry)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing."""
        with open(self.path, "rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    def _write(self, entry: dict[str, Any]) -> None:
        head = _hash(self.head, entry)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry | {"hash": head}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.head = head


_ADVICE = (
    "Losing a ledger is losing track of what was spent: find the right file, and do not start a "
    "new one for the same rows."
)


def _hash(previous: str, content: dict[str, Any]) -> str:
    text = previous + json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
