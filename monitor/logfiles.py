"""The files of a log directory: owns their names, their identity, their order, and how each kind is opened.

It never writes, never follows a symbolic link in that directory, and knows nothing of what a line means but its id.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import os
import re
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import orjson

from monitor.frames import HEADER, Damaged, Unreadable, View, is_framed, view

LIVE_NAME = "events.jsonl"
ZSTD_NAME = LIVE_NAME + ".zst"
LIVE_NAMES = (LIVE_NAME, ZSTD_NAME)
BLOCK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
_LISTING_ATTEMPTS = 100
_EVENT_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{16})-([0-9a-f]{12})")
_NAME = re.compile(re.escape(LIVE_NAME) + r"(?:[.\-].*)?")
_FOREIGN = (".xz", ".bz2", ".lz4", ".Z", ".lzo")
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a log directory, as it was when it was looked at: names and inodes change, file_id does not.

    first and last are (epoch, sequence) of the first and last whole line, where these are documents of the monitor
    (last not of files that others compressed); started says that there is a whole first line; timestamp is that line's;
    unreadable says why not even that much could be read. framed: the monitor wrote it compressed; it is read as its
    plain bytes, of which size is the number, and compression is what somebody else did to a file.
    """

    path: Path
    device: int
    inode: int
    size: int
    mtime_ns: int
    compression: str = ""
    framed: bool = False
    started: bool = False
    file_id: str | None = None
    first: tuple[str, int] | None = None
    last: tuple[str, int] | None = None
    previous_epoch: str | None = None
    timestamp: str = ""
    unreadable: str = ""

    @property
    def live(self) -> bool:
        """Whether it had a name to which the monitor appends."""
        return self.path.name in LIVE_NAMES


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be read as a document: where (offset in uncompressed bytes), and why, in words."""

    path: Path
    offset: int
    reason: str
    raw: bytes = b""

    def __str__(self) -> str:
        return f"{self.path}, byte {self.offset}: {self.reason}"


class ReaderError(Exception):
    """A log directory, or a file of it, cannot be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def is_log_name(name: str) -> bool:
    """Whether a file of this name belongs to the log: live, rotated or compressed."""
    return _NAME.fullmatch(name) is not None


def line_identity(raw: bytes) -> tuple[str, tuple[str, int], str | None, str] | None:
    """(event.id, (epoch, sequence), ebpf.previous.epoch, @timestamp) of a line; None if it is no such document."""
    try:
        document = orjson.loads(raw)
        identity = document["event"]["id"]
        match = _EVENT_ID.fullmatch(identity)
        previous = document.get("ebpf", {}).get("previous", {}).get("epoch")
        timestamp = str(document.get("@timestamp", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if match is None:
        return None
    return identity, (match[1], int(match[2], 16)), previous if isinstance(previous, str) else None, timestamp


def files(directory: Path) -> list[LogFile]:
    """The files of a log directory, oldest first, each content once. A file that cannot be read is listed too.

    Raises ReaderError if the directory cannot be read. Order: the epochs' chain and the first sequence; where a chain
    is cut (its middle is compressed or gone), the time of the first line; without a first line, the file's own time.
    """
    for _ in range(_LISTING_ATTEMPTS):
        before = _names_and_inodes(directory)
        found = [file for name in before if (file := look(directory / name)) is not None]
        # A rename between listing and looking would hide a file: look at one state of the directory.
        if before == _names_and_inodes(directory):
            break
    return ordered(found)


def _names_and_inodes(directory: Path) -> dict[str, int]:
    try:
        with os.scandir(directory) as entries:
            return {entry.name: entry.inode() for entry in entries if is_log_name(entry.name)}
    except OSError as error:
        raise ReaderError(Problem(directory, 0, f"cannot list the log directory: {error.strerror}")) from None


def tail_offset(file: LogFile, count: int) -> int:
    """Where the last `count` whole lines of a file begin that is not compressed by others (0 if it has fewer).

    Raises OSError.
    """
    fd = os.open(file.path, _OPEN_FLAGS)
    try:
        there = view(fd, file.framed)
        at = there.size()
        newlines = -1  # the newline that ends the last line does not begin one
        while at > 0:
            start, block = there.before(BLOCK_BYTES, at)
            if start + len(block) < at and newlines + 1 == count:
                return at  # bytes are missing before the line that begins here
            if not block:
                return 0
            index = len(block)
            while (index := block.rfind(b"\n", 0, index)) >= 0:
                newlines += 1
                if newlines == count:
                    return start + index + 1
            at = start
        return 0
    finally:
        os.close(fd)


def _compression(name: str) -> str:
    suffix = Path(re.sub(r"(?:-\d+)+$", "", name)).suffix  # the log puts a file of another form aside under such a name
    return suffix if suffix in (".gz", ".zst", *_FOREIGN) else ""


class _Decoder(Protocol):
    """What zlib's and zstandard's decompression objects have in common: one member or frame each."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _gzip_decoder() -> _Decoder:
    return zlib.decompressobj(wbits=31)


class Stream:
    """The uncompressed bytes of an open file, whose descriptor belongs to it from then on.

    Not gzip.open: that throws away what it has decompressed when it finds the end missing.
    """

    def __init__(self, fd: int, compression: str, framed: bool = False) -> None:
        self._raw = os.fdopen(fd, "rb", buffering=0)
        self._view = view(fd, True) if framed else None
        self._at = 0
        self._new_decoder: Callable[[], _Decoder] | None = None
        self._decoder: _Decoder | None = None
        self._errors: tuple[type[Exception], ...] = (OSError, zlib.error)
        self._rest = self._ready = b""
        if compression == ".gz":
            self._new_decoder = _gzip_decoder
        elif compression == ".zst":
            try:
                import zstandard
            except ImportError:
                self._raw.close()
                raise Unreadable("reading .zst needs the Python package zstandard (pip install zstandard)") from None
            self._new_decoder = zstandard.ZstdDecompressor().decompressobj
            self._errors = (OSError, zstandard.ZstdError)
        elif compression:
            self._raw.close()
            raise Unreadable(f"compressed as {compression}, which is not supported (only .gz and .zst are)")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def read(self, size: int) -> bytes:
        """Up to size bytes (of a compressed file, what a piece of it gives), b"" at the end.

        Raises Unreadable; after Damaged, the next call goes on behind the damage.
        """
        if self._ready:
            data, self._ready = self._ready, b""
            return data
        try:
            if self._view is not None:
                data = self._view.pread(size, self._at)
                self._at += len(data)
                return data
            return self._raw.read(size) if self._new_decoder is None else self._decompressed(self._new_decoder)
        except Damaged as damage:
            self._at = damage.until
            raise
        except self._errors as error:
            raise Unreadable(f"damaged: {error}") from None

    def _decompressed(self, new_decoder: Callable[[], _Decoder]) -> bytes:
        while True:
            piece = self._rest or self._raw.read(_PIECE_BYTES)
            self._rest = b""
            if not piece and self._decoder is not None:
                raise Unreadable("damaged: the end of the archive is missing")
            if not piece:
                return b""
            if self._decoder is None:
                piece = piece.lstrip(b"\0")  # gzip files may be padded
                if not piece:
                    continue
                self._decoder = new_decoder()
            data = self._decoder.decompress(piece)
            if self._decoder.eof:
                self._rest, self._decoder = self._decoder.unused_data, None
            if data:
                return data

    def skip(self, offset: int) -> None:
        """Begin reading at this offset of the uncompressed bytes. Raises Unreadable."""
        self._at = offset
        if self._view is not None:
            return
        if self._new_decoder is None:
            self._raw.seek(offset)
            return
        while offset > 0 and (block := self.read(BLOCK_BYTES)):
            self._ready = block[offset:]
            offset -= len(block)


def open_regular(path: Path) -> tuple[int, os.stat_result]:
    """Open a regular file for reading, never through a symbolic link. Raises Unreadable."""
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        raise Unreadable(f"cannot be opened: {error.strerror}") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise Unreadable("not a regular file")
    return fd, status


def look(path: Path) -> LogFile | None:
    """What a file of a log directory is; None if it is not a regular file, or gone."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(there.st_mode):
        return None
    file = LogFile(path, there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, _compression(path.name))
    try:
        fd, status = open_regular(path)
        file = replace(file, device=status.st_dev, inode=status.st_ino)
        if _is_framed(path, fd):
            file = replace(file, framed=True, compression="")
        if not file.compression:
            try:
                return describe(file, fd)
            finally:
                os.close(fd)
        with Stream(fd, file.compression) as stream:
            head = b""
            with contextlib.suppress(Unreadable):  # whoever reads it meets the damage where it is
                while b"\n" not in head and len(head) < BLOCK_BYTES and (block := stream.read(BLOCK_BYTES)):
                    head += block
            return _with_first_line(file, head)
    except Unreadable as error:
        return replace(file, unreadable=str(error))


def _is_framed(path: Path, fd: int) -> bool:
    """Whether the monitor wrote it compressed, or is about to write the first of it."""
    return is_framed(fd) or (path.name == ZSTD_NAME and HEADER.startswith(os.pread(fd, len(HEADER), 0)))


def describe(file: LogFile, fd: int) -> LogFile:
    """A file that is not compressed by others as it is now: size, time, first and last line."""
    there, status = view(fd, file.framed), os.fstat(fd)
    end = there.size()
    file = replace(file, size=end, mtime_ns=status.st_mtime_ns)
    return _with_last_line(_with_first_line(file, _head(there)), there, end)


def _head(there: View) -> bytes:
    """The beginning, with a whole line if there is one among the first BLOCK_BYTES."""
    for size in (1 << 14, BLOCK_BYTES):
        head = there.head(size)
        if b"\n" in head:
            break
    return head


def _with_last_line(file: LogFile, there: View, length: int) -> LogFile:
    for size in (1 << 14, BLOCK_BYTES):
        tail = there.before(size, length)[1]
        end = tail.rfind(b"\n")
        begin = tail.rfind(b"\n", 0, max(end, 0)) + 1
        if begin or size >= length:
            break
    identity = line_identity(tail[begin:end]) if end > 0 else None
    return replace(file, last=identity[1] if identity else None)


def _with_first_line(file: LogFile, head: bytes) -> LogFile:
    line, newline, _ = head.partition(b"\n")
    if not newline:
        return replace(file, started=len(head) >= BLOCK_BYTES, file_id=None, first=None)
    file_id, first, previous, timestamp = line_identity(line) or (None, None, None, "")
    return replace(file, started=True, file_id=file_id, first=first, previous_epoch=previous, timestamp=timestamp)


def same_file(one: LogFile, other: LogFile) -> bool:
    """Whether two looks saw the same file: by the first line's id where both have one, else by the inode."""
    if one.file_id and other.file_id:
        return one.file_id == other.file_id
    return (one.device, one.inode) == (other.device, other.inode)


def _file_age(file: LogFile) -> tuple[int, bool, int, str]:
    """Sort key by the file's own time; of the same moment, a higher rotation number is older and the live one last."""
    number = re.search(r"\.(\d{1,9})(?:\.|$)", file.path.name)
    return file.mtime_ns, file.live, -int(number[1]) if number else 0, file.path.name


def ordered(found: list[LogFile]) -> list[LogFile]:
    """Oldest first. Of several files with the same first line (a copy, a half-done compression) one stays."""
    known: dict[str, LogFile] = {}
    unknown = []
    for file in sorted(found, key=lambda file: (file.live, not file.compression, file.size)):
        if file.file_id is None:
            unknown.append(file)
        else:
            known[file.file_id] = file
    rank = _epoch_ranks(list(known.values()))
    result = sorted(known.values(), key=lambda file: (rank[file.first[0]], file.first[1]) if file.first else (0, 0))
    for file in sorted(unknown, key=_file_age):
        later = (index for index, other in enumerate(result) if _file_age(other) > _file_age(file))
        result.insert(len(result) if file.live and not file.started else next(later, len(result)), file)
    return result


def _epoch_ranks(found: list[LogFile]) -> dict[str, int]:
    """Number the epochs in the order of the runs: along the chain where it is known, else by the clock."""
    clock: dict[str, str] = {}
    after: dict[str, set[str]] = collections.defaultdict(set)
    for file in found:
        for place in (file.first, file.last):
            if place:
                clock[place[0]] = min(clock.get(place[0], file.timestamp), file.timestamp)
        if file.first and file.last and file.first[0] != file.last[0]:
            after[file.first[0]].add(file.last[0])
    for file in found:
        if file.first and file.previous_epoch in clock and file.previous_epoch != file.first[0]:
            after[file.previous_epoch].add(file.first[0])
    waiting = collections.Counter(itertools.chain.from_iterable(after.values()))
    ready = [(timestamp, epoch) for epoch, timestamp in clock.items() if not waiting[epoch]]
    heapq.heapify(ready)
    ranks: dict[str, int] = {}
    while len(ranks) < len(clock):
        # Only a forged chain has a circle; the clock opens it.
        _, epoch = heapq.heappop(ready) if ready else min((clock[e], e) for e in clock if e not in ranks)
        if epoch in ranks:
            continue
        ranks[epoch] = len(ranks)
        for later in after[epoch]:
            waiting[later] -= 1
            if not waiting[later]:
                heapq.heappush(ready, (clock[later], later))
    return ranks
