"""Group commit: owns the thread that syncs the log and the small file that says how far the log is durable.

It never makes the appending side wait for a disk, and it never publishes a point that no successful sync has covered.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import stat
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

DURABLE_NAME = "durable"
DURABLE_BYTES = 256
_REWRITE_BLOCK = 1 << 20
_MAX_BACKOFF_S = 5.0


@dataclass(frozen=True, slots=True)
class Durable:
    """How far the log is durable: every line of `epoch` up to `sequence`, and `offset` bytes of the file `file_id`.

    offset counts bytes of lines, also where these are compressed; file_id is the event.id of that file's first line, or
    None where the first line has none.
    """

    epoch: str
    sequence: int
    file_id: str | None
    offset: int


def encode_durable(point: Durable) -> bytes:
    """The content of the durable file: one line of JSON, padded with blanks to DURABLE_BYTES, guarded by a CRC-32."""
    fields = {"epoch": point.epoch, "sequence": point.sequence, "file_id": point.file_id, "offset": point.offset}
    checked = orjson.dumps(fields)
    line = checked[:-1] + b',"crc":"%08x"}' % zlib.crc32(checked)
    if len(line) >= DURABLE_BYTES:
        raise ValueError(f"a durable point of {len(line)} bytes does not fit in {DURABLE_BYTES - 1}")
    return line.ljust(DURABLE_BYTES - 1) + b"\n"


def decode_durable(line: bytes) -> Durable | None:
    """The inverse of encode_durable; None for anything it did not write (torn, empty, another length or version)."""
    if len(line) != DURABLE_BYTES:
        return None
    try:
        fields = orjson.loads(line)
        point = Durable(fields["epoch"], fields["sequence"], fields["file_id"], fields["offset"])
        return point if encode_durable(point) == line else None
    except (ValueError, KeyError, TypeError):
        return None


def read_durable(directory: Path) -> Durable | None:
    """The durable point published in a log directory; None when there is none yet. Raises OSError (EACCES, ...).

    A page copied while it is being written could be seen torn: the CRC shows that, and the read is repeated.
    """
    for _ in range(100):
        try:
            fd = os.open(directory / DURABLE_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            line = os.pread(fd, DURABLE_BYTES + 1, 0)
        finally:
            os.close(fd)
        point = decode_durable(line)
        if point is not None or len(line) != DURABLE_BYTES:
            return point
    return None


@dataclass(slots=True)
class _Segment:
    """One log file as the sync thread sees it. Both descriptors are its own: the appender may close its pair."""

    fd: int
    directory: int
    end: int
    synced: int
    sequence: int = 0
    lines_end: int = 0
    file_id: str | None = None
    entry_synced: bool = True
    ended: bool = False
    suspect: bool = False


class GroupCommit:
    """Syncs what was appended, after `sync_bytes` or `sync_interval_ms` since the first unsynced append.

    Files are synced in the order in which they were written, so a durable point in a new file covers the old one too.
    A failed sync is counted and repeated with growing pauses. `epoch` is set by the owner before the first append.
    """

    def __init__(
        self,
        *,
        sync_bytes: int,
        sync_interval_ms: int,
        group: int | None = None,
        fdatasync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self.epoch = ""
        self.adjust(sync_bytes, sync_interval_ms)
        self._group = group
        self._fdatasync = fdatasync
        self._cond = threading.Condition()
        self._segments: collections.deque[_Segment] = collections.deque()
        self._pending = 0
        self._due_at: float | None = None
        self._flush = False
        self._closing = False
        self._backoff_s = 0.0
        self._retry_at = 0.0
        self._failing = False
        self._point: Durable | None = None
        self._published: Durable | None = None
        self._durable_fd = -1
        self._thread: threading.Thread | None = None
        self.failures = 0
        self.failure_reason: str | None = None

    def adjust(self, sync_bytes: int, sync_interval_ms: int) -> None:
        """Other limits from the next append on."""
        self._sync_bytes = max(1, sync_bytes)
        self._interval_s = max(0.001, sync_interval_ms / 1000)

    @property
    def durable_sequence(self) -> int:
        """The last event.sequence that a successful sync has covered; 0 before the first."""
        point = self._point
        return point.sequence if point is not None else 0

    @property
    def failing(self) -> bool:
        """Whether the latest attempt failed."""
        return self._failing

    def begin(self, fd: int, directory: int, *, offset: int, file_id: str | None, created: bool) -> None:
        """From here on appends go to this file, from `offset`. What went to the one before is synced at once, first."""
        segment = _Segment(os.dup(fd), os.dup(directory), offset, offset, 0, 0, file_id, not created)
        with self._cond:
            if self._segments:
                self._segments[-1].ended = True
            self._segments.append(segment)
            self._start()
            self._cond.notify_all()

    def settle(self, fd: int, directory: int) -> None:
        """Sync a file of an earlier run too, before anything later is called durable."""
        with self._cond:
            self._segments.append(_Segment(os.dup(fd), os.dup(directory), 0, 0, ended=True, entry_synced=False))

    def appended(self, length: int, offset: int, sequence: int, file_id: str | None, lines_end: int) -> None:
        """`length` bytes were appended to the present file; it ends at `offset`, with the line number `sequence`.

        `lines_end`: the end in bytes of lines, which is another number where they are compressed.
        """
        with self._cond:
            segment = self._segments[-1]
            segment.end = offset
            segment.sequence = sequence
            segment.lines_end = lines_end
            segment.file_id = file_id
            before = self._pending
            self._pending = before + length
            if before == 0:
                self._due_at = time.monotonic() + self._interval_s
                self._cond.notify_all()
            elif before < self._sync_bytes <= before + length:
                self._cond.notify_all()

    def rebase(self, offset: int, file_id: str | None, lines_end: int) -> None:
        """Somebody else truncated the present file, or wrote to it: it ends at `offset` now."""
        with self._cond:
            segment = self._segments[-1]
            segment.end = offset
            segment.synced = min(segment.synced, offset)
            segment.lines_end = lines_end
            segment.file_id = file_id

    def request(self) -> None:
        """Sync soon, without waiting for it."""
        with self._cond:
            self._flush = True
            self._cond.notify_all()

    def sync_now(self, timeout_s: float = 30.0) -> bool:
        """Wait until everything appended so far is durable (True), or an attempt failed or took too long (False)."""
        with self._cond:
            if not self._segments:
                return True
            target, failures = self._segments[-1].sequence, self.failures
            self._flush = True
            self._cond.notify_all()
            self._cond.wait_for(lambda: not self._work() or self.failures != failures, timeout_s)
            return self.failures == failures and self.durable_sequence >= target

    def close(self, timeout_s: float = 30.0) -> bool:
        """One last sync, then end the thread. False when that failed or the disk did not answer in time."""
        with self._cond:
            self._closing = True
            self._cond.notify_all()
            thread = self._thread
        if thread is None:
            return True
        thread.join(timeout_s)
        # A thread that hangs in the kernel keeps its descriptors: closing them under it could sync another file.
        return not thread.is_alive() and not self._failing

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-sync", daemon=True)
            self._thread.start()

    def _work(self) -> bool:
        head = self._segments[0]
        return head.ended or head.end != head.synced or self._pending > 0 or self._published != self._point

    def _wait(self) -> _Segment | None:
        """The file to sync next, once it is due; None to end. Called with the lock held."""
        while True:
            now = time.monotonic()
            if not self._work():
                if self._closing:
                    return None
                self._flush = False
                self._cond.wait()
                continue
            if self._flush or self._closing:
                return self._segments[0]
            if self._failing:
                due = self._retry_at
            elif len(self._segments) > 1 or self._pending >= self._sync_bytes or self._due_at is None:
                due = now
            else:
                due = self._due_at
            if due <= now:
                return self._segments[0]
            self._cond.wait(due - now)

    def _run(self) -> None:
        while True:
            with self._cond:
                segment = self._wait()
                if segment is None:
                    break
                self._flush = False
                end, sequence, file_id, ended = segment.end, segment.sequence, segment.file_id, segment.ended
                lines_end = segment.lines_end
                if segment is self._segments[-1]:
                    self._pending, self._due_at = 0, None
            failure = self._sync(segment, end)
            if failure is None:
                with self._cond:
                    # The file may have been truncated by somebody else meanwhile.
                    segment.synced = min(end, segment.end)
                    if sequence:
                        self._point = Durable(self.epoch, sequence, file_id, lines_end)
                failure = self._publish(segment.directory)
            if self._finish(segment, ended, failure):
                break
        for segment in self._segments:
            os.close(segment.fd)
            os.close(segment.directory)
        if self._durable_fd >= 0:
            os.close(self._durable_fd)

    def _finish(self, segment: _Segment, ended: bool, failure: str | None) -> bool:
        """Book one attempt; True when the thread must end although it failed (close() makes one last attempt)."""
        with self._cond:
            self._failing = failure is not None
            if failure is None:
                self._backoff_s = 0.0
                if ended:
                    self._segments.popleft()
                    os.close(segment.fd)
                    os.close(segment.directory)
            else:
                self.failures += 1
                self.failure_reason = failure
                self._backoff_s = min(_MAX_BACKOFF_S, max(self._interval_s, 2 * self._backoff_s))
                self._retry_at = time.monotonic() + self._backoff_s
            self._cond.notify_all()
            return self._failing and self._closing

    def _sync(self, segment: _Segment, end: int) -> str | None:
        """Make a file durable up to `end`; None, or the name of the error."""
        try:
            if segment.suspect:
                _rewrite(segment.fd, segment.synced, end)
            self._fdatasync(segment.fd)
            segment.suspect = False
            if not segment.entry_synced:
                os.fsync(segment.directory)
                segment.entry_synced = True
        except OSError as error:
            segment.suspect = True
            return errno.errorcode.get(error.errno or 0, "EIO")
        return None

    def _publish(self, directory: int) -> str | None:
        """Rewrite the durable file where it has something new to say; None, or the name of the error."""
        point = self._point
        if point is None or point == self._published:
            return None
        try:
            self._open_durable(directory)
            os.pwrite(self._durable_fd, encode_durable(point), 0)
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, "EIO")
        with self._cond:
            self._published = point
        return None

    def _open_durable(self, directory: int) -> None:
        if self._durable_fd >= 0:
            with contextlib.suppress(FileNotFoundError):  # removed, or the directory was replaced: make it again
                there = os.stat(DURABLE_NAME, dir_fd=directory, follow_symlinks=False)
                if os.path.samestat(there, os.fstat(self._durable_fd)):
                    return
            os.close(self._durable_fd)
            self._durable_fd = -1
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(DURABLE_NAME, flags, 0o640, dir_fd=directory)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise OSError(errno.EPERM, f"{DURABLE_NAME} is not a regular file with one name")
            if self._group is not None and status.st_gid != self._group:
                os.fchown(fd, -1, self._group)
            os.fchmod(fd, 0o640)
            if status.st_size > DURABLE_BYTES:
                os.ftruncate(fd, DURABLE_BYTES)
        except OSError:
            os.close(fd)
            raise
        self._durable_fd = fd


def _rewrite(fd: int, start: int, end: int) -> None:
    """Write bytes over themselves, so that the next sync has something to write.

    After a failed fsync Linux marks the pages clean: a second fsync would succeed without having written them.
    (Linux kernel documentation, "filesystems/vfs: Handling errors during writeback".)
    """
    # The log's own descriptor is O_APPEND, with which Linux's pwrite appends.
    writer = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        at = start
        while at < end:
            data = os.pread(writer, min(_REWRITE_BLOCK, end - at), at)
            if not data:
                return  # truncated by somebody else: there is nothing left to save
            at += os.pwrite(writer, data, at)
    finally:
        os.close(writer)
