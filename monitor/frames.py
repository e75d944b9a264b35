"""What a log file's bytes are: lines as they stand, or zstd frames of whole lines, both read as one run of plain bytes.

Owns the form of the compressed log; knows no names, no directories, and nothing of what a line says.

A compressed log is a header and then zstd frames (RFC 8878), each with a trailer behind it. Header and trailers are
skippable frames, over which `zstd -d` steps: a magic number (u32) and the bytes that follow (u32). The header's are "ebpf"
and the version of this form (u32). The trailer's are "ebpf", the frame's bytes (u32), the bytes of the lines in it (u32), a
CRC-32 of the frame and of the trailer's other numbers (u32), the bytes of all lines in the file up to here (u64); all
little-endian. With the trailers the last whole frame is found from the end, a place among the lines without decompressing what
is before it, and behind damaged bytes the next whole frame, and how many bytes of lines are missing before it.
"""

from __future__ import annotations

import collections
import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import zstandard

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = 0x184D2A5D
_TRAILER = struct.Struct("<II4sIIIQ")
_MARK = struct.pack("<II4s", _SKIPPABLE, _TRAILER.size - 8, b"ebpf")
TRAILER_BYTES = _TRAILER.size
HEADER = struct.pack("<II4sI", _SKIPPABLE, 8, b"ebpf", 2)
"""Version 1 had a check sum of the frame alone: such a file is read as any other archive, and not gone on in."""
_BLOCK = 1 << 16
_NEAR = 1 << 13
_MOST_FRAME_BYTES = 64 << 20  # a line may have 16 MB, and zstd makes nothing much longer
_MOST_BYTES = 1 << 60  # of lines in a file
_STRANGE_BYTES = 4 << 20
_KEPT_FRAMES = 4


def trailer(frame: bytes, lines: int, until: int) -> bytes:
    """What stands behind a frame with so many bytes of lines; `until`: of all lines in the file, with those of this frame."""
    return _MARK + struct.pack("<IIIQ", len(frame), lines, _check_sum(frame, lines, until), until)


class Unreadable(Exception):
    """A file cannot be read, or not beyond some point; the text says why."""


class Damaged(Unreadable):
    """Bytes from `start` to `end` of the file are of no whole frame, but behind them is one: reading goes on at `until`.

    The plain bytes from `begin` to `until` are missing; none are where something foreign stands between two frames.
    """

    def __init__(self, start: int, end: int, begin: int, until: int) -> None:
        missing = f"{until - begin:,} bytes of lines are missing" if until > begin else "no line is missing"
        where = f"bytes {start} to {end - 1} of the file" if end > start else f"before byte {end} of the file"
        super().__init__(f"damaged: {where}: {missing}")
        self.start, self.end, self.begin, self.until = start, end, begin, until


class Frame(NamedTuple):
    """One frame of a file: where it and its trailer stand, which of the file's lines it has, and its CRC-32."""

    start: int
    end: int
    begin: int
    until: int
    crc: int


class _Found(NamedTuple):
    """A whole frame, its lines, and the damage right before it, if there is any."""

    frame: Frame
    lines: bytes
    damage: Damaged | None


class View(Protocol):
    """An open log file as plain bytes, without those of a frame that is not whole. The descriptor stays its opener's."""

    damaged: bool
    """bytes were met that are of no frame: finding a place in the file may take a look at all of it"""

    def size(self) -> int:
        """Plain bytes that are there now, those counted in that are missing before others. Raises OSError."""

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` plain bytes from `offset` on, none of them behind missing ones. Raises OSError, Damaged.

        Damage is met at the place of the first byte that is missing; where none is missing, once.
        """

    def head(self, size: int) -> bytes:
        """Up to `size` of the first plain bytes that are there. Raises OSError."""

    def before(self, size: int, at: int) -> tuple[int, bytes]:
        """(where they begin, bytes): up to `size` plain bytes that end at `at`; at missing ones, those before. Raises OSError."""

    def whole_end(self, start: int = 0) -> int:
        """Where, in the file, the last whole line or frame ends; not below `start`, where one is known to end."""

    def ends_whole(self, at: int) -> bool:
        """Whether a line or frame ends at this place in the file."""


def view(fd: int, framed: bool) -> View:
    """The file's plain bytes."""
    return Frames(fd) if framed else Lines(fd)


class Lines:
    """A file whose bytes are its lines."""

    damaged = False

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def size(self) -> int:
        """See View."""
        return os.fstat(self._fd).st_size

    def pread(self, size: int, offset: int) -> bytes:
        """See View."""
        return os.pread(self._fd, size, offset)

    def head(self, size: int) -> bytes:
        """See View."""
        return os.pread(self._fd, size, 0)

    def before(self, size: int, at: int) -> tuple[int, bytes]:
        """See View."""
        begin = max(0, at - size)
        return begin, os.pread(self._fd, at - begin, begin)

    def whole_end(self, start: int = 0) -> int:
        """See View."""
        end = os.fstat(self._fd).st_size
        while end > start:
            begin = max(start, end - _BLOCK)
            newline = os.pread(self._fd, end - begin, begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
        return max(end, start)

    def ends_whole(self, at: int) -> bool:
        """See View."""
        return not at or os.pread(self._fd, 1, at - 1) == b"\n"


class Frames:
    """A file of frames. What was decompressed is used again only while the file still has its trailer there.

    Everything is found by one thing: the whole frames from a place in the file on. So what is damaged hides only itself,
    and no byte of it is looked at more than a few times, whatever it is.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._last: Frame | None = None
        self._torn: tuple[int, int] | None = None  # size and time of the file whose end was looked through in vain
        self._recent: collections.deque[_Found] = collections.deque(maxlen=_KEPT_FRAMES)
        self._first: _Found | None = None  # who follows a file looks at its head each time
        self._zstd = zstandard.ZstdDecompressor()
        self._told: set[int] = set()  # where damage without a missing byte was met
        self.damaged = False

    def size(self) -> int:
        """See View."""
        last = self._last_whole()
        return last.until if last else 0

    def pread(self, size: int, offset: int) -> bytes:
        """See View."""
        pieces: list[bytes] = []
        while size > 0 and (found := self._at(offset)) is not None:
            frame, lines, damage = found
            if damage is not None and (offset < frame.begin or (offset == damage.begin and damage.start not in self._told)):
                if pieces:
                    break  # first what is before the damage; the next read meets it
                if offset == frame.begin:
                    self._told.add(damage.start)
                raise damage
            pieces.append(lines[offset - frame.begin : offset - frame.begin + size])
            offset, size = offset + len(pieces[-1]), size - len(pieces[-1])
        return b"".join(pieces)

    def head(self, size: int) -> bytes:
        """See View. They are of one frame."""
        found = self._at(0)
        return found.lines[:size] if found is not None else b""

    def before(self, size: int, at: int) -> tuple[int, bytes]:
        """See View."""
        begin, pieces = 0, list[bytes]()
        for _ in range(2):
            begin = offset = max(0, at - size)
            while offset < at and (found := self._at(offset)) is not None:
                frame, lines, damage = found
                if damage is not None and offset < frame.begin:
                    if frame.begin >= at:
                        at = damage.begin  # nothing stands there: once more, before it
                        break
                    begin = offset = frame.begin
                    pieces.clear()
                pieces.append(lines[offset - frame.begin : at - frame.begin])
                offset += len(pieces[-1])
            if pieces:
                break
        return begin, b"".join(pieces)

    def whole_end(self, start: int = 0) -> int:
        """See View."""
        last = self._last_whole()
        if last is not None:
            return max(last.end, start)
        return max(len(HEADER), start) if is_framed(self._fd) else start

    def ends_whole(self, at: int) -> bool:
        """See View."""
        return at in (0, len(HEADER)) or self._ending(at) is not None

    # ---- which frame ----

    def _at(self, offset: int) -> _Found | None:
        """The frame with the plain byte `offset` or, where that is missing, the next one; None behind the last whole one."""
        place: tuple[int, int] | None = (self._origin(), 0) if offset == 0 else None
        for found in (*([self._first] if self._first else []), *reversed(self._recent)):
            frame = found.frame
            if frame.begin <= offset <= frame.until and self._ending(frame.end) == frame:
                if offset < frame.until:
                    return found
                place = frame.end, frame.until
        if offset >= self.size():
            return None
        return self._forward(*(place or self._place(offset)), offset)

    def _origin(self) -> int:
        """Where the first frame should stand; a header that is damaged is part of what stands before it."""
        return len(HEADER) if os.pread(self._fd, len(HEADER), 0) == HEADER else 0

    def _forward(self, start: int, begin: int, offset: int) -> _Found | None:
        """See _at: by reading on from `start` in the file, where the plain byte `begin` should stand."""
        for frame in self._whole_frames(start):
            if frame.begin < begin or (lines := self._lines(frame)) is None:
                self.damaged = True  # an older piece of the file, or nothing that zstd knows: not what should stand here
                continue
            if frame.begin > begin and self._is_ahead(frame, begin):
                continue
            if offset < frame.until:
                whole = (frame.start, frame.begin) == (start, begin)
                found = _Found(frame, lines, None if whole else Damaged(start, frame.start, begin, frame.begin))
                self.damaged |= not whole
                if frame.begin == 0:
                    self._first = found
                else:
                    self._recent.append(found)
                return found
            start, begin = frame.end, frame.until
        return None

    def _is_ahead(self, frame: Frame, begin: int) -> bool:
        """Whether what stands behind a frame belongs before it: then the frame is of a later place in the file."""
        after = next(self._whole_frames(frame.end), None)
        return after is not None and begin <= after.begin < frame.until

    def _place(self, offset: int) -> tuple[int, int]:
        """Where in the file reading on leads to the plain byte `offset`, which is before the end; and the plain byte there.

        By what trailers say here and there: where the plain byte's share of the file is and, in turns, in the middle.
        """
        last = self._last_whole()
        low, begin, turn = self._origin(), 0, 0
        high, until = (last.start, last.begin) if last else (low, begin)
        while high - low > _NEAR:
            turn += 1
            share = (offset - begin) / max(1, until - begin) if turn % 2 else 0.5
            middle = min(max(low, low + int((high - low) * share) - _NEAR // 2), high - _NEAR // 2)
            frame = next(self._whole_frames(middle, high), None)
            # before it is the rest of one frame; of more, something else is there, too
            self.damaged |= (frame.start if frame else high) - middle > _STRANGE_BYTES
            if frame is None or frame.begin >= offset:
                high, until = middle, frame.begin if frame else until
            elif offset < frame.until:
                return frame.start, frame.begin
            else:
                low, begin = frame.end, frame.until
        for frame in self._whole_frames(low):
            if frame.begin >= offset:
                break
            if offset < frame.until:
                return frame.start, frame.begin
            low, begin = frame.end, frame.until
        return low, begin

    def _last_whole(self) -> Frame | None:
        """The last frame that is there with its trailer and its check sum; what stands behind it is torn, or foreign."""
        status = os.fstat(self._fd)
        size, state = status.st_size, (status.st_size, status.st_mtime_ns)
        last = self._last
        seen = last.end == size if last is not None and self._torn != state else self._torn == state
        if seen and (last is None or self._ending(last.end) == last):
            return last
        frame, reach = self._ending(size), _BLOCK
        if frame is None or not self._is_whole(frame):
            frame, start = None, size
            while frame is None and start > len(HEADER):
                start = max(len(HEADER), size - reach)
                frame = next(iter(collections.deque(self._whole_frames(start), 1)), None)
                reach *= 4
        # a long torn end is not looked through again while nobody writes
        self._torn = state if reach >= _STRANGE_BYTES else None
        self._last = frame
        return frame

    # ---- what is there ----

    def _whole_frames(self, place: int, end: int | None = None) -> Iterator[Frame]:
        """The frames from a place in the file on, up to another, that are there with trailer and check sum."""
        for at, raw in self._trailers(place, end):
            frame = _frame(raw, at + _TRAILER.size)
            if frame is not None and frame.start >= place and self._is_whole(frame):
                yield frame
            place = at + len(_MARK)  # no frame has a mark in it: so no byte is summed up twice

    def _trailers(self, place: int, end: int | None) -> Iterator[tuple[int, bytes]]:
        """What begins with a mark, and where. In lines nothing does: control characters are escaped there."""
        data = b""
        while end is None or place < end:
            block = os.pread(self._fd, _BLOCK, place + len(data))
            if not block:
                return
            data += block
            known = len(data) - _TRAILER.size + len(_MARK)  # a mark that ends behind this has not all of its trailer yet
            at = data.find(_MARK, 0, max(0, known))
            while at >= 0:
                yield place + at, data[at : at + _TRAILER.size]
                at = data.find(_MARK, at + len(_MARK), known)
            rest = data[1 - _TRAILER.size :]
            place, data = place + len(data) - len(rest), rest

    def _ending(self, end: int) -> Frame | None:
        """The frame whose trailer ends at this place in the file, by what the trailer says."""
        raw = os.pread(self._fd, _TRAILER.size, end - _TRAILER.size) if end >= _TRAILER.size else b""
        frame = _frame(raw, end)
        return frame if frame is not None and os.pread(self._fd, 4, frame.start) == ZSTD_MAGIC else None

    def _is_whole(self, frame: Frame) -> bool:
        raw = os.pread(self._fd, frame.end - _TRAILER.size - frame.start, frame.start)
        return raw.startswith(ZSTD_MAGIC) and _check_sum(raw, frame.until - frame.begin, frame.until) == frame.crc

    def _lines(self, frame: Frame) -> bytes | None:
        """A whole frame's lines; None if it is none of zstd, or of other lines than its trailer says."""
        raw, length = os.pread(self._fd, frame.end - _TRAILER.size - frame.start, frame.start), frame.until - frame.begin
        try:
            if zstandard.frame_content_size(raw) != length:  # what it says is what zstd would take memory for
                return None
            lines = self._zstd.decompress(raw, max_output_size=length)
        except zstandard.ZstdError:
            return None
        return lines if len(lines) == length else None


def _frame(trailer: bytes, end: int) -> Frame | None:
    """The frame whose trailer this is, if one may be, and ends there in the file."""
    if len(trailer) < _TRAILER.size or not trailer.startswith(_MARK):
        return None
    _, _, _, length, lines, crc, until = _TRAILER.unpack(trailer)
    start, begin = end - _TRAILER.size - length, until - lines
    if start < len(HEADER) or begin < 0 or until > _MOST_BYTES:
        return None
    if length > _MOST_FRAME_BYTES or not 0 < lines <= _MOST_FRAME_BYTES:
        return None
    return Frame(start, end, begin, until, crc)


def _check_sum(frame: bytes, lines: int, until: int) -> int:
    """Of a frame and of what its trailer says of it."""
    return zlib.crc32(struct.pack("<IIQ", len(frame), lines, until), zlib.crc32(frame))


def is_framed(fd: int) -> bool:
    """Whether the file begins with this form's header or, where that is damaged, ends with a trailer. Raises OSError."""
    head = os.pread(fd, len(HEADER), 0)
    if head.startswith(HEADER[:-4]):
        return head == HEADER  # else it is of another version
    return os.pread(fd, len(_MARK), max(0, os.fstat(fd).st_size - _TRAILER.size)) == _MARK
