"""Log files back into lines and documents, once or following the writer: owns the walk from file to file.

It never writes, and never stops at bad input: a damaged file or line is reported as a Problem and the rest is read.
"""

from __future__ import annotations

import collections
import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from monitor.frames import Damaged, Unreadable, View, view
from monitor.logfiles import (
    BLOCK_BYTES,
    LIVE_NAME,
    LIVE_NAMES,
    LogFile,
    Problem,
    ReaderError,
    Stream,
    describe,
    files,
    line_identity,
    look,
    open_regular,
    ordered,
    same_file,
    tail_offset,
)

__all__ = [
    "LIVE_NAME", "MAX_LINE_BYTES", "Document", "Line", "LogFile", "Problem", "ReaderError",
    "decode_line", "documents", "files", "line_identity", "lines", "tail_offset",
]  # fmt: skip

MAX_LINE_BYTES = 16 << 20
_POLL_S = 0.05
_RECENT_BLOCKS = 4
_OPEN_ATTEMPTS = 100
_HEAD_BYTES = 512
_GROWTH_S = 1.0


class Line(NamedTuple):
    """One line without its newline; offset counts the file's uncompressed bytes. torn: it ends without a newline."""

    file: LogFile
    offset: int
    raw: bytes
    torn: bool


class Document(NamedTuple):
    """A decoded line."""

    line: Line
    fields: dict[str, Any]


def lines(
    directory: Path,
    follow: bool = False,
    stop: Callable[[], bool] | None = None,
    *,
    start: LogFile | None = None,
    offset: int = 0,
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Line]:
    """Every line of a log directory in the order of writing, each once; from `offset` of the file `start` if given.

    Without follow: what is there now; a torn last line comes as a Line with `torn`. With follow: goes on until stop()
    is true with nothing left to read, and holds back the live file's torn last line. What cannot be read goes to
    on_problem, and reading goes on behind it; without on_problem a ReaderError is raised (but a file that was
    truncated, or a batch that the writer took back, does not end a follower). A line over MAX_LINE_BYTES is skipped.
    """
    return _Reader(directory, stop or (lambda: False), on_problem).lines(follow, start, offset)


def documents(
    directory: Path,
    follow: bool = False,
    stop: Callable[[], bool] | None = None,
    *,
    start: LogFile | None = None,
    offset: int = 0,
) -> Iterator[Document | Problem]:
    """The lines, decoded. A torn line, a line that is no JSON object and a damaged file come as a Problem."""
    problems: list[Problem] = []
    for line in lines(directory, follow, stop, start=start, offset=offset, on_problem=problems.append):
        if problems:
            yield from problems
            problems.clear()
        yield decode_line(line)
    yield from problems


def decode_line(line: Line) -> Document | Problem:
    """One line's document, or why it is none."""
    if line.torn:
        return Problem(line.file.path, line.offset, "a torn line", line.raw[:256])
    try:
        fields = orjson.loads(line.raw)
    except orjson.JSONDecodeError as error:
        return Problem(line.file.path, line.offset, f"not JSON: {error}", line.raw[:256])
    if not isinstance(fields, dict):
        return Problem(line.file.path, line.offset, "not a JSON object", line.raw[:256])
    return Document(line, fields)


def _split(file: LogFile, offset: int, data: bytes) -> Iterator[Line]:
    """The lines of a block that ends with a newline. (bytes.splitlines would also split at a carriage return.)"""
    parts = data.split(b"\n")
    parts.pop()
    for raw in parts:
        yield Line(file, offset, raw, False)
        offset += len(raw) + 1


class _Recent:
    """What was read last from a growing file, to see whether the file still says the same.

    A writer that could not complete a batch, or was killed in it, cuts it off again and writes another; copytruncate
    empties the file. The size alone shows neither when the file has grown past the old place meanwhile.
    """

    def __init__(self, there: View) -> None:
        self._view = there
        self._blocks: collections.deque[tuple[int, bytes]] = collections.deque(maxlen=_RECENT_BLOCKS)
        self._head = there.head(_HEAD_BYTES)

    def add(self, start: int, data: bytes) -> None:
        """Remember whole lines that were delivered."""
        self._blocks.append((start, data))

    def resume(self, at: int) -> int | None:
        """Where to read on: `at`; less, where the file's end was taken back; None if the file was replaced."""
        head = self._view.head(_HEAD_BYTES)
        if self._blocks:
            start, data = self._blocks[-1]
            last = data.rfind(b"\n", 0, -1) + 1
            unchanged = self._says(start + last, data[last:])
        else:
            unchanged = self._view.size() >= at
        if unchanged:
            self._head = head
            return at
        return self._retreat()

    def _says(self, start: int, data: bytes) -> bool:
        """Whether the file has these bytes there, or had them: what was damaged since was not taken back."""
        try:
            return self._view.pread(len(data), start) == data
        except Damaged:
            return True

    def _retreat(self) -> int | None:
        blocks, at = list(self._blocks), 0
        self._blocks.clear()
        for start, data in blocks:
            at = start
            try:
                now = self._view.pread(len(data), start)
            except Damaged:
                break
            kept = data.rfind(b"\n", 0, _common_prefix(now, data)) + 1
            if kept:
                self._blocks.append((start, data[:kept]))
                at = start + kept
            if kept < len(data):
                break
        if self._blocks:
            return at
        if self._head and self._says(0, self._head):
            size = self._view.size()
            return min(at, size) if blocks else size
        return None


def _torn_bytes(fd: int, there: View) -> int:
    """What stands behind the last whole frame, once it is sure that nobody is just writing it. Raises OSError."""
    deadline = time.monotonic() + _GROWTH_S
    size = os.fstat(fd).st_size
    while size > there.whole_end() and time.monotonic() < deadline:
        time.sleep(0.02)
        if os.fstat(fd).st_size != size:
            return 0
    return max(0, size - there.whole_end())


def _common_prefix(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _to_follow(listed: list[LogFile]) -> list[LogFile]:
    """The files to read; the last of them is to stay with: its writer may not have left it yet."""
    return [file for file in listed if file.started or file.unreadable] or [file for file in listed if file.live]


class _Reader:
    """One pass over a log directory."""

    def __init__(self, directory: Path, stop: Callable[[], bool], on_problem: Callable[[Problem], None] | None) -> None:
        self._directory = directory
        self._stop = stop
        self._on_problem = on_problem

    def lines(self, follow: bool, start: LogFile | None, offset: int) -> Iterator[Line]:
        listed = files(self._directory)
        if start is not None:
            first = next((index for index, file in enumerate(listed) if same_file(file, start)), None)
            if first is None:
                self._tell(start, offset, "is not in the log directory any more; reading goes on behind it")
                listed, offset = self._behind(start), 0
            else:
                listed = listed[first:]
        if follow:
            yield from self._follow(listed, offset)
            return
        for file in listed:
            yield from self._whole(file, offset)
            offset = 0

    def _tell(self, file: LogFile, offset: int, reason: str, *, fatal: bool = True) -> None:
        problem = Problem(file.path, offset, reason)
        if self._on_problem is not None:
            self._on_problem(problem)
        elif fatal:
            raise ReaderError(problem)

    def _files(self) -> list[LogFile]:
        """The listing, for what comes after the first: a directory that went away has no files, and may come back."""
        try:
            return files(self._directory)
        except ReaderError:
            return []

    def _behind(self, file: LogFile) -> list[LogFile]:
        """The files after this one, as the directory is now."""
        order = ordered([*(other for other in self._files() if not same_file(other, file)), file])
        return order[order.index(file) + 1 :]

    def _open(self, file: LogFile) -> tuple[int, LogFile]:
        """Open a listed file under whatever name it has now. Raises Unreadable."""
        if file.unreadable:
            raise Unreadable(file.unreadable)
        candidate: LogFile | None = file
        reason = "is gone"
        for _ in range(_OPEN_ATTEMPTS):  # renamed or compressed meanwhile, perhaps once more: look for it
            if candidate is None:
                raise Unreadable("is gone")
            try:
                fd, status = open_regular(candidate.path)
            except Unreadable as error:
                reason = str(error)
            else:
                if (status.st_dev, status.st_ino) == (candidate.device, candidate.inode):
                    return fd, candidate
                os.close(fd)
            candidate = next((other for other in self._files() if same_file(other, file)), None)
        raise Unreadable(reason)

    def _whole(self, file: LogFile, offset: int) -> Iterator[Line]:
        """A file from offset to its present end, compressed or not."""
        at, carry, skipping = offset, b"", False
        try:
            fd, file = self._open(file)
            there = view(fd, file.framed)
            end = there.size() if not file.compression else 1 << 62
            with Stream(fd, file.compression, file.framed) as stream:
                stream.skip(offset)
                while True:
                    try:
                        block = stream.read(min(BLOCK_BYTES, max(0, end - at - len(carry))))
                    except Damaged as damage:
                        self._tell(file, damage.begin, str(damage))
                        if carry:
                            yield Line(file, at, carry, True)
                        at, carry, skipping = damage.until, b"", False
                        continue
                    if not block:
                        break
                    if skipping:
                        begin = block.find(b"\n") + 1
                        skipping = not begin
                        at += begin or len(block)
                        block = block[begin:] if begin else b""
                    parts = block.split(b"\n")
                    parts[0] = carry + parts[0]
                    carry = parts.pop()
                    for raw in parts:
                        yield Line(file, at, raw, False)
                        at += len(raw) + 1
                    if len(carry) > MAX_LINE_BYTES:
                        self._tell_too_long(file, at)
                        at += len(carry)
                        carry, skipping = b"", True
                if file.framed and (torn := _torn_bytes(fd, there)):
                    self._tell(file, at, f"{torn} bytes of a frame that is torn")
        except Unreadable as error:
            self._tell(file, at, str(error))
        if carry:
            yield Line(file, at, carry, True)

    def _tell_too_long(self, file: LogFile, at: int) -> None:
        self._tell(file, at, f"a line of more than {MAX_LINE_BYTES} bytes is skipped", fatal=False)

    def _follow(self, listed: list[LogFile], offset: int) -> Iterator[Line]:
        while not (todo := _to_follow(listed)):
            stopping = self._stop()
            listed = self._files()
            if not _to_follow(listed):
                if stopping:
                    return
                time.sleep(_POLL_S)
        for file in todo[:-1]:
            yield from self._whole(file, offset)
            offset = 0
        step: tuple[LogFile, int] | None = (todo[-1], offset)
        while step is not None:
            current, offset = step
            if current.compression or current.unreadable:
                yield from self._whole(current, offset)
                step = self._await_next(current)
            else:
                step = yield from self._tail(current, offset)

    def _next(self, file: LogFile) -> LogFile | None:
        """The file that the writer went on with: the first behind this one that has a whole line."""
        for other in self._behind(file):
            if other.started or other.unreadable:
                return other
        for name in LIVE_NAMES:
            live = look(self._directory / name)
            if live is not None and live.started and not same_file(live, file):
                return live
        return None

    def _await_next(self, file: LogFile) -> tuple[LogFile, int] | None:
        while True:
            stopping = self._stop()
            successor = self._next(file)
            if successor is not None:
                return successor, 0
            if stopping:
                return None
            time.sleep(_POLL_S)

    def _tail(self, file: LogFile, at: int) -> Generator[Line, None, tuple[LogFile, int] | None]:
        """Follow one file that is not compressed by others; returns where to go on, or None once stopped."""
        try:
            fd, file = self._open(file)
        except Unreadable as error:
            self._tell(file, at, str(error))
            return self._await_next(file)
        try:
            return (yield from self._tail_open(fd, file, at))
        except OSError as error:
            self._tell(file, at, f"cannot be read: {error.strerror}")
            return self._await_next(file)
        finally:
            os.close(fd)

    def _tail_open(self, fd: int, file: LogFile, at: int) -> Generator[Line, None, tuple[LogFile, int] | None]:
        there = view(fd, file.framed)
        recent, size, skipping = _Recent(there), BLOCK_BYTES, False
        successor: LogFile | None = None
        while True:
            stopping = self._stop()  # asked before reading: what had been written by then is still delivered
            try:
                data = there.pread(size, at)
            except Damaged as damage:
                self._tell(file, damage.begin, str(damage))
                at, size, skipping = damage.until, BLOCK_BYTES, False
                continue
            back = recent.resume(at)
            if back is None:
                copy = self._copy(file, at)
                if copy is not None:
                    return copy, at
                self._tell(file, at, "was truncated by another program: lines may be missing here", fatal=False)
                recent, at, skipping = _Recent(there), 0, False
                file = replace(file, started=False, file_id=None, first=None, last=None)
                continue
            if back != at:
                self._tell(file, back, f"{at - back} bytes that were read were taken back by the writer", fatal=False)
                at, skipping = back, False
                continue
            cut = (data.find(b"\n") if skipping else data.rfind(b"\n")) + 1
            if cut and skipping:
                at, skipping = at + cut, False
            elif cut:
                data = data[:cut]
                if not file.started:
                    file = describe(file, fd)
                recent.add(at, data)
                yield from _split(file, at, data)
                at, size = at + cut, BLOCK_BYTES
            elif len(data) == size and size < MAX_LINE_BYTES and not skipping:
                size *= 2
            elif len(data) == size:
                if not skipping:
                    self._tell_too_long(file, at)
                at, size, skipping = at + size, BLOCK_BYTES, True
            elif successor is not None:
                if data:
                    yield Line(file, at, data, True)
                return successor, 0
            else:
                # The writer begins the next file only after its last line in this one: when that has a line, one more
                # look at this one finds everything.
                if not self._is_live(fd):
                    successor = self._next(describe(file, fd))
                if successor is None:
                    if stopping:
                        return None
                    time.sleep(_POLL_S)

    def _is_live(self, fd: int) -> bool:
        for name in LIVE_NAMES:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self._directory / name, follow_symlinks=False), os.fstat(fd)):
                    return True
        return False

    def _copy(self, file: LogFile, at: int) -> LogFile | None:
        """The copy that copytruncate made of a file, if it has what was not read yet."""
        for other in self._files():
            itself = (other.device, other.inode) == (file.device, file.inode)
            long_enough = bool(other.compression) or other.size >= at
            if file.file_id and other.file_id == file.file_id and long_enough and not itself:
                return other
        return None
