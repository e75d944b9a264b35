"""The append side of the log: owns `events.jsonl`, plain or compressed, whole batches, reopening and rotation.

It never waits for a disk to sync (durable.py does that beside it), and it never leaves a batch half written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monitor import frames
from monitor.compressor import Compressor
from monitor.durable import DURABLE_NAME, GroupCommit
from monitor.frames import HEADER
from monitor.logdir import LogError, log_names, open_checked, open_directory, open_live
from monitor.logfiles import LIVE_NAME, LIVE_NAMES, ZSTD_NAME, line_identity

__all__ = ["Log", "LogError", "Position"]

_POLL_S = 0.25
_MISSED = 1  # look: who renames the log, as logrotate does, has this long to make the next file himself
_FIRST_LINE_BYTES = 1 << 20
_SETTLE_S = 60


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a log file: what is announced before a batch is written, so that recover() can judge it."""

    device: int
    inode: int
    offset: int


class Log:
    """One writer of `<directory>/events.jsonl`; all methods are for one thread. Sizes in bytes, 0 = no rotation.

    `zstd_level`: of `events.jsonl.zst`, which is written instead; None: plain lines. `group` (a gid) gets the files and
    created directories. `fdatasync` is replaced by tests only.
    """

    def __init__(
        self,
        directory: Path,
        *,
        sync_bytes: int,
        sync_interval_ms: int,
        rotate_bytes: int = 0,
        rotate_keep: int = 8,
        zstd_level: int | None = None,
        group: int | None = None,
        fdatasync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self._directory = directory
        self._compressor = None if zstd_level is None else Compressor(zstd_level)
        self._path = directory / (LIVE_NAME if self._compressor is None else ZSTD_NAME)
        self._rotate_bytes = rotate_bytes
        self._rotate_keep = max(1, rotate_keep)
        self._group = group
        self._commit = GroupCommit(
            sync_bytes=sync_bytes, sync_interval_ms=sync_interval_ms, group=group, fdatasync=fdatasync
        )
        self._fd = -1
        self._directory_fd = -1
        self._device = self._inode = self._offset = 0
        self._lines_end = 0  # as _offset, in bytes of lines: the same in a plain file
        self._file_id: str | None = None
        self._torn = False
        self._next_poll = 0.0
        self._missed = 0
        self._notices: list[str] = []
        self._told: dict[str, str] = {}
        self.bytes_written = 0

    def adjust(self, *, sync_bytes: int, sync_interval_ms: int, rotate_bytes: int, rotate_keep: int) -> None:
        """Other limits than those given at first."""
        self._commit.adjust(sync_bytes, sync_interval_ms)
        self._rotate_bytes, self._rotate_keep = rotate_bytes, max(1, rotate_keep)

    @property
    def epoch(self) -> str:
        """The log epoch that the durable point names; set it before the first append."""
        return self._commit.epoch

    @epoch.setter
    def epoch(self, epoch: str) -> None:
        self._commit.epoch = epoch

    @property
    def durable_sequence(self) -> int:
        """The last event.sequence that is on the disk; 0 before the first."""
        return self._commit.durable_sequence

    @property
    def sync_failures(self) -> int:
        """How many syncs (or writes of the durable point) have failed."""
        return self._commit.failures

    @property
    def sync_failure_reason(self) -> str | None:
        """The last such failure's errno name."""
        return self._commit.failure_reason

    @property
    def sync_failing(self) -> bool:
        """The latest sync failed; it is tried again."""
        return self._commit.failing

    def open(self) -> int:
        """Check or make the directory, open or make the file, cut a torn last line; how many bytes were cut.

        A file or directory that others than its owner can write, a link, or anything but a regular file is refused.
        A file that is readable by all is narrowed to 0640. Raises LogError.
        """
        directory = open_directory(self._directory, self._group)
        try:
            fd, created, cut = self._open_file(directory)
        except LogError:
            os.close(directory)
            raise
        self._settle(directory)
        self._take(fd, directory, created)
        return cut

    def position(self) -> Position:
        """Where the next append will begin."""
        return Position(self._device, self._inode, self._offset)

    @property
    def notes(self) -> npt.NDArray[np.int64] | None:
        """Where it is to be noted what repeats in the next batch (fastframe.hint); None: nobody uses that."""
        sealer = None if self._compressor is None else self._compressor.sealer
        return None if sealer is None else sealer.notes

    def ahead(self, batch: memoryview) -> None:
        """The next batch has these whole lines by now: a compressed log begins with them. Empty: another batch begins."""
        if self._compressor is not None:
            self._compressor.ahead(batch)

    def length(self, batch: memoryview) -> int:
        """Bytes that the batch will take in the file: what is announced of it."""
        if self._compressor is None:
            return len(batch)
        return self._compressor.length(batch) + (0 if self._offset else len(HEADER))

    def append(self, batch: memoryview | bytes, last_sequence: int) -> None:
        """Append a batch of whole lines (bytes, or a contiguous memoryview of bytes) that ends with `last_sequence`.

        All of it is written or none: on an error the file is cut back to where the batch began. Raises LogError.
        """
        if self._torn or self._fd < 0:
            self._mend()
        data = batch
        if self._compressor is not None:
            data = self._compressor.data(memoryview(batch), self._lines_end)
            data = data if self._offset else HEADER + data
        length = len(data)
        written = 0
        try:
            written = os.write(self._fd, data)
            while written != length:
                count = os.write(self._fd, memoryview(data)[written:])
                if count == 0:
                    raise OSError(errno.EIO, "nothing was written")
                written += count
        except OSError as error:
            self._undo(written)
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot append: {os.strerror(number)}") from None
        if self._lines_end == 0:
            self._file_id = _first_line_id(bytes(batch[:_FIRST_LINE_BYTES]))
        if self._compressor is not None:
            self._compressor.forget()
        self._offset += length
        self._lines_end += len(batch)
        self.bytes_written += length
        self._commit.appended(length, self._offset, last_sequence, self._file_id, self._lines_end)

    def recover(self, at: Position, length: int) -> bool:
        """After a crash, before open(): was the batch announced for `at` with `length` bytes written completely?

        True: it stays, and a torn line behind it is cut. False: what there is of it is cut. The file is known by its
        inode, under any name the log's files have. Raises LogError.
        """
        try:
            directory = open_directory(self._directory, self._group, create=False)
        except LogError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        try:
            name = _name_of(directory, at)
            if name is None:
                return False
            fd = open_checked(directory, self._directory / name)
            try:
                return _judge(fd, at, length)
            finally:
                os.close(fd)
        except OSError as error:
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot recover: {os.strerror(number)}") from None
        finally:
            os.close(directory)

    def reopen(self) -> None:
        """Go on in the file that has the log's name now; it is made if there is none.

        The present file is closed once it is synced (by the sync thread). On LogError the present file stays in use.
        """
        directory = open_directory(self._directory, self._group)
        try:
            fd, created, cut = self._open_file(directory)
        except LogError:
            os.close(directory)
            raise
        if cut:
            self._notices.append(f"{self._path}: a torn line of {cut} bytes was cut")
        status = os.fstat(fd)
        if self._fd >= 0 and (status.st_dev, status.st_ino) == (self._device, self._inode):
            os.close(fd)
            os.close(directory)
            self._commit.request()
            return
        if self._torn:
            try:
                self._mend()
            except LogError as error:
                self._notices.append(f"left behind with a torn line: {error}")
                self._torn = False
        self._take(fd, directory, created)

    def poll(self) -> list[str]:
        """Call in every loop; four times a second it looks what others did to the file, and rotates it when due.

        Returns short sentences for the monitor's own events: a rename, removal or truncation, foreign bytes, a
        rotation, a sync that fails or works again, and a LogError once when it begins and once when it ends.
        """
        now = time.monotonic()
        if now < self._next_poll or self._directory_fd < 0:
            return []
        self._next_poll = now + _POLL_S
        problem = ""
        try:
            self._watch()
            if self._rotate_bytes and self._offset >= self._rotate_bytes:
                self._rotate()
        except LogError as error:
            problem = str(error)
        self._tell("log", problem, f"{self._path}: usable again")
        reason = f"syncing the log fails: {self.sync_failure_reason}" if self._commit.failing else ""
        self._tell("sync", reason, f"syncing the log works again after {self.sync_failures} failures")
        notices, self._notices = self._notices, []
        return notices

    def sync_now(self) -> bool:
        """Wait until all that was appended is durable (True), or a sync failed or hangs (False). For tests and ends."""
        return self._commit.sync_now()

    def close(self) -> bool:
        """One last sync, and everything is closed. False if that sync failed."""
        if self._fd >= 0:
            os.close(self._fd)
            os.close(self._directory_fd)
            self._fd = self._directory_fd = -1
        if self._compressor is not None:
            self._compressor.close()
        return self._commit.close()

    def _open_file(self, directory: int) -> tuple[int, bool, int]:
        """(descriptor, whether it was made, bytes cut) of the live file; one of the other form is put aside. Raises LogError."""
        try:
            for name in LIVE_NAMES:
                if name != self._path.name and name in log_names(directory):
                    self._put_aside(directory, name)
            fd, created = open_live(directory, self._path, self._group)
            if self._compressor is not None and not _is_ours(fd):
                os.close(fd)
                self._put_aside(directory, self._path.name)
                fd, created = open_live(directory, self._path, self._group)
        except OSError as error:
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot put a file aside: {os.strerror(number)}") from None
        try:
            return fd, created, self._cut(fd, 0)
        except OSError as error:
            os.close(fd)
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot prepare: {os.strerror(number)}") from None

    def _put_aside(self, directory: int, name: str) -> None:
        """A file that this form of the log cannot go on in gets a name as logrotate's rule gives it. Raises OSError."""
        fd = open_checked(directory, self._directory / name)
        os.close(fd)
        aside = f"{name}-{time.strftime('%Y%m%d')}-{time.time():.0f}"
        while aside in log_names(directory):
            aside += "-1"
        os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
        self._notices.append(f"{self._directory / name} is {aside} now: the log has another form")

    def _view(self, fd: int) -> frames.View:
        return frames.view(fd, self._compressor is not None)

    def _cut(self, fd: int, start: int) -> int:
        """Cut what is torn at the end, not below `start`; how many bytes that were. Raises OSError."""
        return _cut_torn(fd, self._view(fd).whole_end(start))

    def _tell(self, subject: str, problem: str, over: str) -> None:
        """Add a notice when a condition begins, changes or ends."""
        before = self._told.get(subject, "")
        if problem != before:
            self._told[subject] = problem
            self._notices.append(problem or over)

    def _take(self, fd: int, directory: int, created: bool) -> None:
        """Use this file from now on."""
        old = (self._fd, self._directory_fd)
        status = os.fstat(fd)
        self._fd, self._directory_fd = fd, directory
        self._device, self._inode, self._offset = status.st_dev, status.st_ino, status.st_size
        self._look(fd)
        self._commit.begin(fd, directory, offset=self._offset, file_id=self._file_id, created=created)
        if old[0] >= 0:
            os.close(old[0])
            os.close(old[1])

    def _look(self, fd: int) -> None:
        """What the file has already."""
        there = self._view(fd)
        self._lines_end = there.size()
        self._file_id = _first_line_id(there.head(_FIRST_LINE_BYTES))

    def _settle(self, directory: int) -> None:
        """Have files synced that an earlier run may have left (by rotation) before it could sync them."""
        try:
            published = os.stat(DURABLE_NAME, dir_fd=directory, follow_symlinks=False).st_mtime
        except OSError:
            return  # no durable point yet: nothing was promised about any file
        for name in log_names(directory):
            with contextlib.suppress(OSError, LogError):  # gone, or not a file of ours
                if name == self._path.name:
                    continue
                fd = open_checked(directory, self._directory / name)
                try:
                    if os.fstat(fd).st_mtime > published - _SETTLE_S:
                        self._commit.settle(fd, directory)
                finally:
                    os.close(fd)

    def _mend(self) -> None:
        """Cut what a failed append left behind and could not cut. Raises LogError while that is impossible."""
        if self._fd < 0:
            raise LogError(errno.EBADF, self._path, "the log is not open")
        try:
            os.ftruncate(self._fd, min(self._offset, os.fstat(self._fd).st_size))
        except OSError as error:
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot cut a torn line: {os.strerror(number)}") from None
        self._torn = False

    def _undo(self, written: int) -> None:
        if not written:
            return
        try:
            # Somebody else may have truncated the file since: cutting must never make it longer.
            begun = max(0, os.fstat(self._fd).st_size - written)
            os.ftruncate(self._fd, min(self._offset, begun))
        except OSError:
            self._torn = True

    def _watch(self) -> None:
        """Notice what others did to the file."""
        status, missing = os.fstat(self._fd), False
        try:
            there = os.stat(self._path, follow_symlinks=False)
            moved = not os.path.samestat(there, status)
        except OSError:
            moved = missing = True
        if not missing:
            self._missed = 0
        elif status.st_nlink and self._missed < _MISSED:  # what is written meanwhile is in the renamed file
            self._missed += 1
            return
        if moved:
            removed = status.st_nlink == 0
            size = status.st_size
            self.reopen()
            self._notices.append(
                f"{self._path} was removed with {size} bytes in it; a new file was begun"
                if removed
                else f"{self._path} was renamed; a new file was begun"
            )
        elif status.st_size != self._offset and not self._torn:
            self._rebase(status.st_size)

    def _rebase(self, size: int) -> None:
        what = "truncated" if size < self._offset else "written to"
        self._notices.append(
            f"{self._path} was {what} by another program: {size} bytes instead of {self._offset}; going on at its end"
        )
        try:
            if self._compressor is not None:  # a reader could not go on behind them
                size -= self._cut(self._fd, 0)
            elif not self._view(self._fd).ends_whole(size):
                size += os.write(self._fd, b"\n")  # our next line begins a line
            self._look(self._fd)
        except OSError as error:
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot go on: {os.strerror(number)}") from None
        finally:
            self._offset = size
            self._commit.rebase(size, self._file_id, self._lines_end)

    def _rotate(self) -> None:
        """events.jsonl becomes .1, what was .1 becomes .2, and so on; the last of rotate_keep goes."""
        size, removed = self._offset, ""
        suffix = self._path.name.removeprefix(LIVE_NAME)
        names = [self._path.name]
        names += (f"{LIVE_NAME}.{number}{suffix}" for number in range(1, self._rotate_keep + 1))
        try:
            there = log_names(self._directory_fd)
            free = next((index for index, name in enumerate(names) if name not in there), None)
            if free is None:
                free = self._rotate_keep
                removed = f"; {names[free]} was removed"
            for index in range(free, 0, -1):
                os.rename(names[index - 1], names[index], src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
        except OSError as error:
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot rotate: {os.strerror(number)}") from None
        self.reopen()
        self._notices.append(f"{self._path} was rotated at {size} bytes{removed}")


def _first_line_id(head: bytes) -> str | None:
    line, newline, _ = head.partition(b"\n")
    identity = line_identity(line) if newline else None
    return identity[0] if identity else None


def _is_ours(fd: int) -> bool:
    """Whether a compressed log can go on in this file: it is one, or as much of its beginning as there is."""
    head = os.pread(fd, len(HEADER), 0)
    return HEADER.startswith(head)


def _judge(fd: int, at: Position, length: int) -> bool:
    """See Log.recover; the file may be of the other form than the log is now."""
    size, end = os.fstat(fd).st_size, at.offset + length
    there = frames.view(fd, frames.is_framed(fd))
    if not there.ends_whole(at.offset):
        return False  # truncated below the batch by somebody else: open() cuts what is torn
    if size >= end and (length == 0 or there.ends_whole(end)):
        _cut_torn(fd, there.whole_end(end))
        return True
    if size > at.offset:
        os.ftruncate(fd, at.offset)
        os.fdatasync(fd)
    return False


def _cut_torn(fd: int, end: int) -> int:
    size = os.fstat(fd).st_size
    if end < size:
        os.ftruncate(fd, end)
    return max(0, size - end)


def _name_of(directory: int, at: Position) -> str | None:
    """The name that the inode has among the log's files."""
    for name in log_names(directory):
        with contextlib.suppress(FileNotFoundError):  # rotated since it was listed
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == (at.device, at.inode):
                return name
    return None
