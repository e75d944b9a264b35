"""SHA-256 of executables and of files mapped to be executed, off the hot path: one thread reads, everything else asks the cache.

Owns the cache by (device, inode, ctime, size) and the proof that what was read is that version of that file; never holds up a
record: a hash that is known stands in the record, a late one comes as an answer for each process that asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import stat
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from monitor import decode, events, naming
from monitor.decode import DecodeError, Record
from monitor.encode import kernel_device

_CHUNK = 1 << 20
_QUEUE, _WAITERS, _CACHE = 512, 256, 16384
_YOUNG_NS = 2_000_000_000
_MULTIGRAIN = (
    0x7FFFFFFF  # Linux v6.13: the highest bit of i_ctime_nsec says that the time was asked for (I_CTIME_QUERIED)
)
_OVERLAY = 0x794C7630
_REMOTE = {
    0x6969,
    0x65735546,
    0xFF534D42,
    0xFE534D42,
    0x00C36400,
    0x01021997,
    0x5346414F,
    0x73757245,
    0x0187,
    0x47504653,
}
"""Magic numbers of nfs, fuse, cifs, smb2, ceph, 9p, afs, coda, autofs, gpfs: a read can hang for ever, and the thread with it."""
_BLOB = struct.Struct("<II")
_SHA256 = events.BLOB["sha256"].kind
_MAP = events.EVENT["file_map"].id
_TYPES = {events.EVENT[name].id for name in ("process_exec", "process_found")} | {_MAP}
_EXECUTABLE = 4  # PROT_EXEC
REASONS = ("too_large", "remote", "gone", "changed", "unreadable", "busy")


@dataclass(frozen=True)
class Version:
    """A file's content at one time, as the kernel's inode has it. `device` is the kernel's dev_t."""

    device: int
    inode: int
    ctime_ns: int
    size: int


@dataclass(frozen=True)
class Asker:
    """A process that runs a file, or has mapped it: where to find the file, and who the answer is for."""

    pid: int
    start: int
    path: bytes
    magic: int
    mapped: str = ""
    """of a file that is mapped: its name in /proc/PID/map_files, "-" if the area is not known"""

    @property
    def link(self) -> bytes:
        """The process's own link to the file, which finds it under whatever name."""
        return f"/proc/{self.pid}/{'map_files/' + self.mapped if self.mapped else 'exe'}".encode()


@dataclass(frozen=True)
class Answer:
    """A hash that came late."""

    asker: Asker
    version: Version
    sha256: str
    boot_ns: int
    """when it was read, CLOCK_BOOTTIME"""


class Hasher:
    """The cache and the thread. All methods but the thread's are for one caller."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._cache: dict[Version, str] = {}
        self._waiting: dict[Version, list[Asker]] = {}
        self._lock = threading.Lock()
        self._queue: queue.Queue[Version | None] = queue.Queue(_QUEUE)
        self._answers: deque[Answer] = deque()
        self.skipped = dict.fromkeys(REASONS, 0)
        """how many processes got no hash, by reason"""
        self.known = self.computed = 0
        """processes whose hash was known at once; files that were read"""
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="hasher", daemon=True)
        self._thread.start()

    def record(self, raw: bytes) -> bytes:
        """A raw exec, found or map record with the file's hash, if it is known; else it will be an answer. Others unchanged."""
        if len(raw) < events.CONTROL.size or int.from_bytes(raw[4:6], "little") not in _TYPES:
            return raw
        try:
            one = decode.control(raw)
        except DecodeError:
            return raw
        question = _mapped(one) if one.kind.id == _MAP else _run(one)
        known = self._ask(*question) if question is not None else None
        if known is None:
            return raw
        grown = bytearray(raw[: one.values["length"]] + _BLOB.pack(_SHA256, 32) + bytes.fromhex(known))
        grown[0:4] = len(grown).to_bytes(4, "little")
        return bytes(grown)

    def _ask(self, version: Version, asker: Asker) -> str | None:
        with self._lock:
            known = self._cache.get(version)
            if known is not None:
                self.known += 1
                return known
            reason = "remote" if asker.magic in _REMOTE else "too_large" if version.size > self.max_bytes else ""
            waiting = self._waiting.get(version)
            if not reason and waiting is not None and len(waiting) < _WAITERS:
                waiting.append(asker)
                return None
            if not reason and waiting is None:
                with contextlib.suppress(queue.Full):
                    self._queue.put_nowait(version)
                    self._waiting[version] = [asker]
                    return None
            self.skipped[reason or "busy"] += 1
        return None

    def answer(self) -> Answer | None:
        """The next hash that came late; None when there is none now."""
        return self._answers.popleft() if self._answers else None

    @property
    def idle(self) -> bool:
        """Nobody waits for a hash."""
        return not self._waiting and not self._answers

    def wait(self, seconds: float) -> None:
        """Returns when nobody waits for the thread any more, at the latest after this time."""
        deadline = time.monotonic() + seconds
        while self._waiting and time.monotonic() < deadline:
            time.sleep(0.01)

    def status(self) -> dict[str, int | dict[str, int]]:
        """Counts for the status and the heartbeat."""
        return {"known": self.known, "computed": self.computed, "skipped": dict(self.skipped)}

    def close(self) -> None:
        """Ends the thread; whoever still waits gets no answer."""
        self._stopping = True
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(5)

    # ---- the thread ----
    def _work(self) -> None:
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, 10)
            with open(f"/proc/self/task/{thread}/comm", "w", encoding="ascii") as comm:
                comm.write("hasher")
        while not self._stopping:
            version = self._queue.get()
            if version is None:
                return
            digest, reason = self._first(version)
            with self._lock:
                waiting = self._waiting.pop(version)
                if digest:
                    self.computed += 1
                    # a file that has just been changed may change again within the same tick of the clock
                    if time.time_ns() - version.ctime_ns > _YOUNG_NS:
                        while len(self._cache) >= _CACHE:
                            del self._cache[next(iter(self._cache))]
                        self._cache[version] = digest
                    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                    self._answers.extend(Answer(asker, version, digest, now) for asker in waiting)
                else:
                    self.skipped[reason] += len(waiting)

    def _first(self, version: Version) -> tuple[str, str]:
        """The digest by the first way that leads to this very version; else "" and the reason."""
        with self._lock:
            askers = list(self._waiting[version])[:8]
        reason = "gone"
        for asker in askers:
            for path in (asker.link, asker.path):
                try:
                    return _digest(
                        path, version, asker.magic, by_link=path != asker.path, stop=lambda: self._stopping
                    ), ""
                except FileNotFoundError:
                    continue
                except _OtherError as error:
                    reason = str(error)
                except OSError:
                    reason = "unreadable"
        return "", reason


def _ctime(values: Mapping[str, int | bytes], name: str) -> int:
    """Nanoseconds of the ctime that stands in two members of a record."""
    return int(values[name]) * 1_000_000_000 + (int(values[f"{name}_nsec"]) & _MULTIGRAIN)


def _run(one: Record) -> tuple[Version, Asker] | None:
    """The program of an exec or found record."""
    values, blobs = one.values, one.blobs
    if values["ret"] < 0 or "context" not in blobs or "executable" not in blobs:
        return None
    about = events.CONTEXT.unpack(blobs["context"])
    version = Version(int(about["exe_dev"]), int(about["exe_ino"]), _ctime(about, "exe_ctime"), int(about["exe_size"]))
    path = naming.path(blobs["executable"], 0)
    return version, Asker(values["tgid"], values["start"], path, int(about["exe_magic"]))


def _mapped(one: Record) -> tuple[Version, Asker] | None:
    """The file of a map record, if it is a plain file that can be executed there."""
    values, blobs = one.values, one.blobs
    if values["ret"] < 0 or not values["arg"] & _EXECUTABLE or not stat.S_ISREG(values["mode"]) or "mapping" not in blobs:
        return None
    area = events.MAPPING.unpack(blobs["mapping"])
    version = Version(values["dev"], values["ino"], _ctime(area, "ctime"), int(area["bytes"]))
    where = f"{int(area['start']):x}-{int(area['end']):x}" if area["end"] else "-"
    path = naming.path(blobs["path"], values["flags"])
    return version, Asker(values["tgid"], values["start"], path, int(area["magic"]), where)


class _OtherError(Exception):
    """What was found there is not the version that was asked for; the text is the reason."""


def _same(about: os.stat_result, version: Version, magic: int, *, by_link: bool) -> bool:
    """Is it that version? By the process's magic link a file system may call itself another device (btrfs, overlayfs)."""
    if (about.st_ctime_ns, about.st_size) != (version.ctime_ns, version.size):
        return False
    if (kernel_device(about.st_dev), about.st_ino) == (version.device, version.inode):
        return True
    return by_link and version.device >> 20 == 0 and (about.st_ino == version.inode or magic == _OVERLAY)


def _digest(path: bytes, version: Version, magic: int, *, by_link: bool, stop: Callable[[], bool]) -> str:
    """SHA-256 of the file at `path` if it is `version` before and after. Raises OSError, _OtherError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or not _same(about, version, magic, by_link=by_link):
            raise _OtherError("gone")
        found, left = hashlib.sha256(), version.size
        while left and (chunk := os.read(descriptor, min(_CHUNK, left))):
            found.update(chunk)
            left -= len(chunk)
            if stop():
                raise _OtherError("busy")
        if left or not _same(os.fstat(descriptor), version, magic, by_link=by_link):
            raise _OtherError("changed")
        return found.hexdigest()
    finally:
        os.close(descriptor)
