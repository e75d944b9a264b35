"""The append side of the log: owns `events.jsonl`, its directory's safety, whole batches, reopening and rotation.

It never waits for a disk to sync (durable.py does that beside it), and it never leaves a batch half written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monitor.durable import DURABLE_NAME, GroupCommit
from monitor.logfiles import LIVE_NAME, is_log_name, line_identity

FILE_MODE = 0o640
DIRECTORY_MODE = 0o750
_POLL_S = 0.25
_BLOCK = 1 << 16
_FIRST_LINE_BYTES = 1 << 20
_SETTLE_S = 60
_OPEN_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class LogError(Exception):
    """The log cannot be written, opened or rotated: `reason` is the errno's name, `path` the file or directory."""

    def __init__(self, number: int, path: Path | str, what: str) -> None:
        self.errno = number
        self.reason = errno.errorcode.get(number, f"E{number}")
        self.path = str(path)
        super().__init__(f"{self.path}: {what} ({self.reason})")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a log file: what is announced before a batch is written, so that recover() can judge it."""

    device: int
    inode: int
    offset: int


class Log:
    """One writer of `<directory>/events.jsonl`; all methods are for one thread. Sizes in bytes, 0 = no rotation.

    `group` (a gid) gets the files and created directories. `fdatasync` is replaced by tests only.
    """

    def __init__(
        self,
        directory: Path,
        *,
        sync_bytes: int,
        sync_interval_ms: int,
        rotate_bytes: int = 0,
        rotate_keep: int = 8,
        group: int | None = None,
        fdatasync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self._directory = directory
        self._path = directory / LIVE_NAME
        self._rotate_bytes = rotate_bytes
        self._rotate_keep = max(1, rotate_keep)
        self._group = group
        self._commit = GroupCommit(
            sync_bytes=sync_bytes, sync_interval_ms=sync_interval_ms, group=group, fdatasync=fdatasync
        )
        self._fd = -1
        self._directory_fd = -1
        self._device = self._inode = self._offset = 0
        self._file_id: str | None = None
        self._torn = False
        self._next_poll = 0.0
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
        directory = self._open_directory()
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

    def append(self, data: memoryview | bytes, last_sequence: int) -> None:
        """Append a batch of whole lines (bytes, or a contiguous memoryview of bytes) that ends with `last_sequence`.

        All of it is written or none: on an error the file is cut back to where the batch began. Raises LogError.
        """
        if self._torn or self._fd < 0:
            self._mend()
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
        if self._offset == 0:
            self._file_id = _first_line_id(bytes(data[:_FIRST_LINE_BYTES]))
        self._offset += length
        self.bytes_written += length
        self._commit.appended(length, self._offset, last_sequence, self._file_id)

    def recover(self, at: Position, length: int) -> bool:
        """After a crash, before open(): was the batch announced for `at` with `length` bytes written completely?

        True: it stays, and a torn line behind it is cut. False: what there is of it is cut. The file is known by its
        inode, under any name the log's files have. Raises LogError.
        """
        try:
            directory = self._open_directory(create=False)
        except LogError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        try:
            name = _name_of(directory, at)
            if name is None:
                return False
            fd = self._open_checked(directory, name)
            try:
                return self._judge(fd, at, length)
            finally:
                os.close(fd)
        except OSError as error:
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot recover: {os.strerror(number)}") from None
        finally:
            os.close(directory)

    def reopen(self) -> None:
        """Go on in the file that has the name `events.jsonl` now; it is made if there is none.

        The present file is closed once it is synced (by the sync thread). On LogError the present file stays in use.
        """
        directory = self._open_directory()
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
        return self._commit.close()

    def _tell(self, subject: str, problem: str, over: str) -> None:
        """Add a notice when a condition begins, changes or ends."""
        before = self._told.get(subject, "")
        if problem != before:
            self._told[subject] = problem
            self._notices.append(problem or over)

    def _open_directory(self, *, create: bool = True) -> int:
        try:
            if create and not os.path.lexists(self._directory):
                self._make_directory()
            fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            number = error.errno or errno.EIO
            what = f"cannot open the log directory: {os.strerror(number)}"
            if self._directory.is_symlink():
                number, what = errno.ELOOP, "the log directory is a symbolic link; name the directory itself"
            raise LogError(number, self._directory, what) from None
        status = os.fstat(fd)
        what = _unsafe(status)
        if what:
            os.close(fd)
            raise LogError(errno.EPERM, self._directory, f"the log directory is refused: {what}")
        return fd

    def _make_directory(self) -> None:
        missing = [path for path in (self._directory, *self._directory.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=DIRECTORY_MODE)
            if self._group is not None:
                os.chown(path, -1, self._group, follow_symlinks=False)
            path.chmod(DIRECTORY_MODE)

    def _open_file(self, directory: int) -> tuple[int, bool, int]:
        """(descriptor, whether it was made, bytes cut) of the live file."""
        try:
            for _ in range(100):
                with contextlib.suppress(FileExistsError):
                    fd = os.open(LIVE_NAME, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL, FILE_MODE, dir_fd=directory)
                    created = True
                    break
                with contextlib.suppress(FileNotFoundError):  # rotated away since: try to make it again
                    fd = self._open_checked(directory, LIVE_NAME)
                    created = False
                    break
            else:
                raise LogError(errno.EBUSY, self._path, "appears and disappears")
        except OSError as error:
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot open: {os.strerror(number)}") from None
        try:
            if self._group is not None and os.fstat(fd).st_gid != self._group:
                os.fchown(fd, -1, self._group)
            os.fchmod(fd, FILE_MODE if created else os.fstat(fd).st_mode & FILE_MODE)
            return fd, created, _cut_torn(fd, 0)
        except OSError as error:
            os.close(fd)
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot prepare: {os.strerror(number)}") from None

    def _open_checked(self, directory: int, name: str) -> int:
        """Open an existing log file for appending. Raises OSError, or LogError for a file that must not be used."""
        path = self._directory / name
        before = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(before.st_mode):
            raise LogError(errno.ELOOP, path, "is a symbolic link, and refused")
        if not stat.S_ISREG(before.st_mode):  # opening a device or FIFO may already do something
            raise LogError(errno.EINVAL, path, "is not a regular file, and refused")
        fd = os.open(name, _OPEN_FLAGS, dir_fd=directory)
        status = os.fstat(fd)
        number, what = errno.EPERM, _unsafe(status)
        if not os.path.samestat(before, status):
            number, what = errno.EBUSY, "it was exchanged while being opened"
        elif status.st_nlink > 1:
            number, what = errno.EMLINK, f"it has {status.st_nlink} names (hard links)"
        if what:
            os.close(fd)
            raise LogError(number, path, f"is refused: {what}")
        return fd

    def _take(self, fd: int, directory: int, created: bool) -> None:
        """Use this file from now on."""
        old = (self._fd, self._directory_fd)
        status = os.fstat(fd)
        self._fd, self._directory_fd = fd, directory
        self._device, self._inode, self._offset = status.st_dev, status.st_ino, status.st_size
        self._file_id = _first_line_id(os.pread(fd, _FIRST_LINE_BYTES, 0))
        self._commit.begin(fd, directory, offset=self._offset, file_id=self._file_id, created=created)
        if old[0] >= 0:
            os.close(old[0])
            os.close(old[1])

    def _settle(self, directory: int) -> None:
        """Have files synced that an earlier run may have left (by rotation) before it could sync them."""
        try:
            published = os.stat(DURABLE_NAME, dir_fd=directory, follow_symlinks=False).st_mtime
        except OSError:
            return  # no durable point yet: nothing was promised about any file
        for name in _log_names(directory):
            with contextlib.suppress(OSError, LogError):  # gone, or not a file of ours
                if name == LIVE_NAME:
                    continue
                fd = self._open_checked(directory, name)
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

    @staticmethod
    def _judge(fd: int, at: Position, length: int) -> bool:
        size = os.fstat(fd).st_size
        if at.offset and os.pread(fd, 1, at.offset - 1) != b"\n":
            return False  # truncated below the batch by somebody else: open() cuts what is torn
        end = at.offset + length
        if size >= end and (length == 0 or os.pread(fd, 1, end - 1) == b"\n"):
            _cut_torn(fd, end)
            return True
        if size > at.offset:
            os.ftruncate(fd, at.offset)
            os.fdatasync(fd)
        return False

    def _watch(self) -> None:
        """Notice what others did to the file."""
        status = os.fstat(self._fd)
        try:
            there = os.stat(self._path, follow_symlinks=False)
            moved = not os.path.samestat(there, status)
        except OSError:
            moved = True
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
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                size += os.write(self._fd, b"\n")  # our next line begins a line
            self._file_id = _first_line_id(os.pread(self._fd, _FIRST_LINE_BYTES, 0))
        except OSError as error:
            number = error.errno or errno.EIO
            raise LogError(number, self._path, f"cannot go on: {os.strerror(number)}") from None
        finally:
            self._offset = size
            self._commit.rebase(size, self._file_id)

    def _rotate(self) -> None:
        """events.jsonl becomes .1, what was .1 becomes .2, and so on; the last of rotate_keep goes."""
        size, removed = self._offset, ""
        names = [LIVE_NAME, *(f"{LIVE_NAME}.{number}" for number in range(1, self._rotate_keep + 1))]
        try:
            there = _log_names(self._directory_fd)
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


def _unsafe(status: os.stat_result) -> str:
    """Why a file or directory must not be trusted with the log, or nothing."""
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to uid {status.st_uid}"
    if status.st_mode & 0o022:
        who = "others" if status.st_mode & 0o002 else "its group"
        return f"{who} can write it (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _first_line_id(head: bytes) -> str | None:
    line, newline, _ = head.partition(b"\n")
    identity = line_identity(line) if newline else None
    return identity[0] if identity else None


def _cut_torn(fd: int, start: int) -> int:
    """Cut what stands behind the last newline at or after `start`; how many bytes that were. Raises OSError."""
    size = end = os.fstat(fd).st_size
    while end > start:
        begin = max(start, end - _BLOCK)
        newline = os.pread(fd, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            end = begin + newline + 1
            break
        end = begin
    if end < size:
        os.ftruncate(fd, end)
    return size - end


def _log_names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if is_log_name(entry.name))


def _name_of(directory: int, at: Position) -> str | None:
    """The name that the inode has among the log's files."""
    for name in _log_names(directory):
        with contextlib.suppress(FileNotFoundError):  # rotated since it was listed
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == (at.device, at.inode):
                return name
    return None
