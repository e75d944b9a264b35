"""Documents that the server will not take: owns `<output_dir>/ship/dead-letter.jsonl`, one JSON object a line.

Each has `event.id`, the index, the reason and, last, the document itself as the log's own bytes. Never sends anything.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from monitor.ship.batches import Position

NAME, RETRY_NAME = "dead-letter.jsonl", "dead-letter.retry.jsonl"
_DOCUMENT = b',"document":'
_TAIL_BYTES = 64 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True)
class Letter:
    """One rejected document. `identity` is "" for a line of the log that is no document; its text is `line` then."""

    identity: str
    index: str
    status: int
    kind: str
    reason: str
    line: bytes

    def encoded(self) -> bytes:
        """As one line of the file."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        about = {
            "id": self.identity, "index": self.index, "status": self.status, "type": self.kind,
            "reason": self.reason[:2000], "time": now,
        }  # fmt: skip
        line = self.line.rstrip(b"\n")
        document = line if self.identity else orjson.dumps(line.decode("utf-8", "backslashreplace"))
        return orjson.dumps(about)[:-1] + _DOCUMENT + document + b"}\n"


def decoded(line: bytes) -> Letter | None:
    """The inverse; None for a torn or foreign line."""
    head, mark, document = line.rstrip(b"\n").partition(_DOCUMENT)
    try:
        about = orjson.loads(head + b"}")
        return (
            Letter(about["id"], about["index"], about["status"], about["type"], about["reason"], document[:-1] + b"\n")
            if mark
            else None
        )
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


class DeadLetters:
    """The file, opened for each append: somebody may have moved it away."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._known: set[str] = set()

    def resume(self, done: Position | None) -> None:
        """Remembers the letters behind `done`: a shipper that was killed may have written them before it said so."""
        for path in (self._path, self._path.with_name(RETRY_NAME)):
            for letter in letters(path, tail=_TAIL_BYTES):
                place = letter.identity[9:25], int(letter.identity[26:] or "0", 16)
                if letter.identity and (done is None or place[0] != done[0] or place[1] > done[1]):
                    self._known.add(letter.identity)

    def add(self, found: list[Letter]) -> None:
        """Appends durably those that are not there yet. Raises OSError; then none of them counts as written."""
        fresh = [letter for letter in found if not letter.identity or letter.identity not in self._known]
        if not fresh:
            return
        descriptor = self._open()
        try:
            size = os.fstat(descriptor).st_size
            torn = size and os.pread(descriptor, 1, size - 1) != b"\n"  # a shipper before us died in its last line
            data = (b"\n" if torn else b"") + b"".join(letter.encoded() for letter in fresh)
            append(descriptor, size, data)
        finally:
            os.close(descriptor)
        self._known.update(letter.identity for letter in fresh if letter.identity)

    def _open(self) -> int:
        """The file, locked, under its name: `take` may just have moved it away."""
        while True:
            descriptor = os.open(self._path, _FLAGS, 0o640)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(self._path, follow_symlinks=False)):
                    return descriptor
            os.close(descriptor)


def append(descriptor: int, size: int, data: bytes) -> None:
    """Writes all of `data` durably at the end of a file of `size` bytes, or leaves the file as it was. Raises OSError."""
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def take(directory: Path) -> Path | None:
    """Moves the letters to RETRY_NAME to be sent again; what an earlier attempt left there comes first. None: no letters."""
    retry = directory / RETRY_NAME
    if not retry.exists():
        try:
            (directory / NAME).rename(retry)
        except FileNotFoundError:
            return None
    with retry.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # an append that had begun is complete now
    return retry


def letters(path: Path, *, tail: int | None = None) -> Iterator[Letter]:
    """The letters of a file, in order; nothing when there is none. `tail`: only about so many bytes of its end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if tail is not None and size > tail:
            file.seek(size - tail)
            file.readline()
        for line in file:
            letter = decoded(line)
            if letter is not None:
                yield letter
