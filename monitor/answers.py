"""What `search` prints: pieces of the log, answered by as many processes as there are processors, in the log's order.

Owns who answers which piece; never decides what is wanted (monitor/search.py) or how it looks (monitor/compact.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pickle
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

from monitor.compact import Compact
from monitor.logfiles import Problem
from monitor.scan import Piece
from monitor.search import Found, Search

PIECE_BYTES = 2 << 20  # of 8 MB, all shown, a child waits with full hands for its turn (a million lines: 8.9 s for 5.9)
_PART_BYTES = 1 << 20
_MOST_CHILDREN = 8


def text(found: Found, lines: Compact | None) -> bytes:
    """A match as text, ending in a newline: rendered by `lines`, or as the log has it (None)."""
    return found.raw + b"\n" if lines is None else lines.raw(found.raw, found.line).encode("utf-8", "backslashreplace")


class _Part(NamedTuple):
    """Some of a piece's text. day: that of its last line, or ""; headed: where the piece's first day is named, or -1."""

    text: bytes
    day: str
    headed: int
    problems: list[Problem]
    unreadable: int
    last: bool


@dataclass
class Answers:
    """A search's matches as text: rendered by `lines`, or as the log has them (None). `piece_bytes`, `processes`: for tests."""

    search: Search
    lines: Compact | None
    piece_bytes: int = PIECE_BYTES
    processes: int = 0

    def all(self) -> Iterator[bytes]:
        """Every match in what the log holds now, oldest first, some lines at a time. Raises ReaderError."""
        pieces = self.search.pieces(self.piece_bytes)
        count = min(self.processes or len(os.sched_getaffinity(0)), len(pieces), _MOST_CHILDREN)
        for part in self._by_children(pieces, count) if count > 1 else self._by_turns(pieces):
            for problem in part.problems:
                self.search.on_problem(problem)
            self.search.unreadable_lines += part.unreadable
            yield self._without_known_day(part)

    def _without_known_day(self, part: _Part) -> bytes:
        """Each piece names its first day; that is said only where it is another than before."""
        if self.lines is None or not part.day:
            return part.text
        before, known = part.text[: max(0, part.headed)], self.lines.heading(self.lines.day).encode()
        self.lines.day = part.day
        return before + part.text[part.headed :].removeprefix(known) if part.headed >= 0 else part.text

    def _by_turns(self, pieces: Sequence[Piece]) -> Iterator[_Part]:
        for piece in pieces:
            yield from self._parts(piece)

    def _parts(self, piece: Piece) -> Iterator[_Part]:
        problems: list[Problem] = []
        search = replace(self.search, on_problem=problems.append, unreadable_lines=0)
        lines = self.lines.afresh() if self.lines is not None else None
        taken, size, headed = list[bytes](), 0, -1
        for found in search.of(piece):
            undated = lines is not None and not lines.day
            row = text(found, lines)
            if undated and lines and lines.day:
                headed = size
            taken.append(row)
            size += len(row)
            if size >= _PART_BYTES:
                yield _Part(b"".join(taken), lines.day if lines else "", headed, problems.copy(), 0, False)
                problems.clear()
                taken, size, headed = [], 0, -1
        yield _Part(b"".join(taken), lines.day if lines else "", headed, problems, search.unreadable_lines, True)

    # ---- children: a million lines, a fifth of them shown: 4.2 s by one process, 2.1 s by two ----
    def _by_children(self, pieces: Sequence[Piece], count: int) -> Iterator[_Part]:
        pipes: list[BinaryIO] = []
        children: list[int] = []
        try:
            for which in range(count):
                ours, theirs = os.pipe()
                with contextlib.suppress(OSError):  # not more than the system allows
                    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 1 << 20)
                pipes.append(os.fdopen(ours, "rb", buffering=1 << 20))
                try:
                    child = os.fork()
                except OSError:  # no more processes: what this one owes is made here
                    child = -1
                if child == 0:
                    self._serve(theirs, pieces[which::count], pipes)
                os.close(theirs)
                if child > 0:
                    children.append(child)
            for number, piece in enumerate(pieces):
                yield from self._received(pipes[number % count], piece)
        finally:
            for pipe in pipes:
                pipe.close()  # a child that still writes meets that, and ends
            for child in children:
                os.waitpid(child, 0)

    def _received(self, pipe: BinaryIO, piece: Piece) -> Iterator[_Part]:
        """The parts of a piece as its child sends them; if the child was killed (memory ran out), what it owes is made here."""
        received = 0
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                part: _Part = pickle.load(pipe)  # noqa: S301 (our own child wrote it)
                received += 1
                yield part
                if part.last:
                    return
        yield from itertools.islice(self._parts(piece), received, None)

    def _serve(self, descriptor: int, pieces: Sequence[Piece], others: list[BinaryIO]) -> None:
        """A child's life. It ends with its last piece, or when nobody reads any more; Ctrl-C is its parent's to answer."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for pipe in others:
                pipe.close()
            with os.fdopen(descriptor, "wb") as output:
                for part in self._by_turns(pieces):
                    pickle.dump(part, output)
                    output.flush()
        finally:
            os._exit(0)
