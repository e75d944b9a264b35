"""The durable bytes of a log directory, in order: live, rotated and compressed files, from a given place on.

Owns the walk from file to file and the rule that nothing behind the durable point is read; never looks into a line.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from monitor.durable import Durable, read_durable
from monitor.frames import Damaged, Lines, Unreadable, View, view
from monitor.logfiles import BLOCK_BYTES, LogFile, ReaderError, Stream, describe, files, open_regular, ordered

MAX_LINE_BYTES = 16 << 20
_HEAD_BYTES = 512
_QUIET_S = 2.0
_OPEN_ATTEMPTS = 20
_LISTED_S = 1.0


class Blocked(Exception):
    """The log cannot be read at the moment, and nothing must be skipped; the text says why."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of one file, from `offset` (uncompressed bytes) on."""

    file: LogFile
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a file that are no whole lines: `torn` when a writer died in a line, else why they cannot be read."""

    file: LogFile
    offset: int
    reason: str
    torn: bool = False


class Tail:
    """Reads forward; `next` gives what is there now. Raises Blocked when reading on would skip something."""

    def __init__(self, directory: Path, start: LogFile | None = None, offset: int = 0) -> None:
        self._directory = directory
        self._file: LogFile | None = None
        self._listed: list[LogFile] = []
        self._listed_at = 0.0
        self._fd = -1
        self._view: View = Lines(-1)
        self._stream: Stream | None = None
        self._head = self._carry = b""
        self._at = offset
        self._next_file: LogFile | None = start
        self._ended = False  # all of the present file was read, and it will not grow

    @property
    def place(self) -> tuple[LogFile | None, int]:
        """The file that is being read, and how far it was."""
        return self._file or self._next_file, self._at

    def close(self) -> None:
        """Closes the present file."""
        if self._stream is not None:
            self._stream.__exit__()
        elif self._fd >= 0:
            os.close(self._fd)
        self._stream, self._fd, self._carry = None, -1, b""

    def next(self) -> Block | Damage | None:
        """The next lines, or what is wrong in their place; None: nothing durable is left to read now."""
        while True:
            if self._file is None and not self._open_next():
                return None
            found = self._compressed() if self._stream is not None else self._plain()
            if found is not None:
                return found
            if not self._ended:
                return None
            following = self._following()
            if following is None:
                return None
            self.close()
            self._next_file, self._file, self._at, self._ended = following, None, 0, False

    # ---- which file ----

    def _list(self, *, fresh: bool = True) -> list[LogFile]:
        if fresh or time.monotonic() - self._listed_at > _LISTED_S:
            try:
                self._listed = files(self._directory)
            except ReaderError as error:
                raise Blocked(error.problem.reason) from None
            self._listed_at = time.monotonic()
        return self._listed

    def _order(self) -> list[LogFile]:
        """The listing with the present file in it, which may have gone from the directory."""
        mine = self._file
        if mine is None:
            return self._list()
        if self._stream is None:
            mine = self._file = describe(mine, self._fd) if self._same_content() else mine
        others = [other for other in self._list() if not _same(other, mine)]
        return ordered([*others, mine])

    def _following(self) -> LogFile | None:
        order = self._order()
        at = next(
            (index for index, other in enumerate(order) if self._file is not None and _same(other, self._file)), -1
        )
        return next((other for other in order[at + 1 :] if other.started or other.unreadable), None)

    def _open_next(self) -> bool:
        wanted = self._next_file
        if wanted is None:
            wanted = next((file for file in self._list() if file.started or file.unreadable), None)
            if wanted is None:
                return False
        for _ in range(_OPEN_ATTEMPTS):  # it may be renamed or compressed in this moment
            try:
                fd, status = open_regular(wanted.path)
            except Unreadable as error:
                reason = str(error)
            else:
                if (status.st_dev, status.st_ino) == (wanted.device, wanted.inode):
                    self._take(wanted, fd)
                    return True
                os.close(fd)
                reason = "is another file now"
            found = next((other for other in self._list() if _same(other, wanted)), None)
            if found is None:  # removed before it was opened: what it held shows as a gap
                order = ordered([*self._list(), wanted])
                behind = order[order.index(wanted) + 1 :]
                self._next_file = next((other for other in behind if other.started or other.unreadable), None)
                self._at = 0
                return self._next_file is not None and self._open_next()
            wanted = found
        raise Blocked(f"{wanted.path}: {reason}")

    def _take(self, file: LogFile, fd: int) -> None:
        self._file, self._next_file, self._ended = file, None, False
        if not file.compression:
            self._fd, self._view = fd, view(fd, file.framed)
            self._head = self._view.head(_HEAD_BYTES)
            return
        try:
            self._stream = Stream(fd, file.compression)
        except Unreadable as error:
            self._file, self._next_file = None, file
            raise Blocked(f"{file.path}: {error}") from None
        try:
            self._stream.skip(self._at)
        except Unreadable:
            return  # met again by the next read

    # ---- reading ----

    def _compressed(self) -> Block | Damage | None:
        file, stream = self._file, self._stream
        if self._ended or file is None or stream is None:
            return None
        while True:
            try:
                data = stream.read(BLOCK_BYTES)
            except Unreadable as error:
                self._ended, self._carry = True, b""
                return Damage(file, self._at, str(error))
            if not data:
                self._ended = True
                torn, self._carry = self._carry, b""
                return Damage(file, self._at, "a torn line", torn=True) if torn else None
            data = self._carry + data
            cut = data.rfind(b"\n") + 1
            self._carry = data[cut:]
            if cut:
                offset, self._at = self._at, self._at + cut
                return Block(file, offset, data[:cut])
            if len(self._carry) > MAX_LINE_BYTES:
                self._at += len(self._carry)
                self._carry = b""
                return Damage(file, self._at, f"a line of more than {MAX_LINE_BYTES} bytes")

    def _plain(self) -> Block | Damage | None:
        limit, final = self._limit()
        file, size = self._file, BLOCK_BYTES
        if file is None:
            return None
        while True:
            try:
                data = self._view.pread(max(0, min(size, limit - self._at)), self._at)
            except Damaged as damage:
                self._at = damage.until
                return Damage(file, damage.begin, str(damage))
            if not self._same_content():  # truncated by another program (copytruncate): the copy has it, or it is gone
                return self._moved(file)
            cut = data.rfind(b"\n") + 1
            if cut:
                offset, self._at = self._at, self._at + cut
                return Block(file, offset, data[:cut])
            if len(data) == size and size < MAX_LINE_BYTES:
                size *= 4
                continue
            if len(data) == size:
                self._at += size
                return Damage(file, self._at, f"a line of more than {MAX_LINE_BYTES} bytes")
            if final:
                self._ended = True
                if data:
                    offset, self._at = self._at, self._at + len(data)
                    return Damage(file, offset, "a torn line", torn=True)
            return None

    def _same_content(self) -> bool:
        try:
            return self._view.pread(len(self._head), 0) == self._head
        except Damaged:  # not replaced
            return True

    def _moved(self, file: LogFile) -> Block | Damage | None:
        copy = next((other for other in self._list() if other.file_id and other.file_id == file.file_id), None)
        self.close()
        if copy is not None:
            self._file, self._next_file = None, copy
            return self._plain() if self._open_next() and self._stream is None else None
        order = ordered([*self._list(), file])
        behind = order[order.index(file) + 1 :]
        self._file, self._next_file = None, next((other for other in behind if other.started), None)
        self._at = 0
        return Damage(file, self._at, "was truncated by another program")

    def _limit(self) -> tuple[int, bool]:
        """How far the present file may be read, and whether it is complete."""
        file = self._file
        try:
            point = read_durable(self._directory)
        except OSError as error:
            raise Blocked(f"cannot read the durable point: {error.strerror}") from None
        if file is None:
            return 0, False
        status = os.fstat(self._fd)
        if (
            point is None
        ):  # a directory that no monitor has synced: what nobody writes any more is as durable as it gets
            return (self._view.size() if time.time() - status.st_mtime > _QUIET_S else 0), not file.live
        if point.file_id is not None and point.file_id == file.file_id:
            return point.offset, False
        order = self._order()
        points = next((index for index, other in enumerate(order) if other.file_id == point.file_id), None)
        if points is not None:
            before = next((index for index, other in enumerate(order) if _same(other, file)), -1) < points
        elif _holds(self._file or file, point):  # its first line was damaged, by which it was known
            return point.offset, False
        else:
            before = self._is_before(file, point)
        return (self._view.size(), True) if before else (0, False)

    def _is_before(self, file: LogFile, point: Durable) -> bool:
        if file.first is not None and file.first[0] == point.epoch:  # the durable point's file is gone
            return file.first[1] <= point.sequence
        return file.previous_epoch != point.epoch


def _holds(file: LogFile, point: Durable) -> bool:
    """Whether the durable line is among the file's, by their numbers."""
    first, last = file.first, file.last
    if first is None or last is None or last[0] != point.epoch or last[1] < point.sequence:
        return False
    return first[0] != last[0] or first[1] <= point.sequence


def _same(one: LogFile, other: LogFile) -> bool:
    if one.file_id and other.file_id:
        return one.file_id == other.file_id
    return (one.device, one.inode) == (other.device, other.inode)
