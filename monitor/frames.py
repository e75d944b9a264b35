"""What a log file's bytes are: lines as they stand, or zstd frames of whole lines, both read as one run of plain bytes.

Owns the form of the compressed log; knows no names, no directories, and nothing of what a line says.

A compressed log is a header and then zstd frames (RFC 8878), each with a trailer behind it. Header and trailers are
skippable frames, over which `zstd -d` steps: a magic number (u32) and the bytes that follow (u32). The header's are "ebpf"
and the version of this form (u32). The trailer's are "ebpf", the frame's bytes (u32), the bytes of the lines in it (u32), the
frame's CRC-32 (u32), the bytes of all lines in the file up to here (u64); all little-endian. With the trailers the last
whole frame is found from the end, and a place among the lines without decompressing what is before it.
"""

from __future__ import annotations

import collections
import os
import struct
import zlib
from typing import NamedTuple, Protocol

import zstandard

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = 0x184D2A5D
_TRAILER = struct.Struct("<II4sIIIQ")
_MARK = struct.pack("<II4s", _SKIPPABLE, _TRAILER.size - 8, b"ebpf")
TRAILER_BYTES = _TRAILER.size
HEADER = struct.pack("<II4sI", _SKIPPABLE, 8, b"ebpf", 1)
_BLOCK = 1 << 16
_MOST_FRAME_BYTES = 64 << 20  # a line may have 16 MB, and zstd makes nothing much longer
_KEPT_FRAMES = 4


def trailer(frame_bytes: int, line_bytes: int, crc: int, until: int) -> bytes:
    """What stands behind a frame. `crc`: of its bytes; `until`: bytes of all lines in the file with those of this frame."""
    return _MARK + struct.pack("<IIIQ", frame_bytes, line_bytes, crc, until)


class Unreadable(Exception):
    """A file cannot be read, or not beyond some point; the text says why."""


class Frame(NamedTuple):
    """One frame of a file: where it and its trailer stand, which of the file's lines it has, and its CRC-32."""

    start: int
    end: int
    begin: int
    until: int
    crc: int


class View(Protocol):
    """An open log file as plain bytes, without those of a frame that is not whole. The descriptor stays its opener's."""

    def size(self) -> int:
        """Plain bytes that are there now. Raises OSError."""

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` plain bytes from `offset` on. Raises OSError, Unreadable."""

    def whole_end(self, start: int = 0) -> int:
        """Where, in the file, the last whole line or frame ends; not below `start`, where one is known to end."""

    def ends_whole(self, at: int) -> bool:
        """Whether a line or frame ends at this place in the file."""


def view(fd: int, framed: bool) -> View:
    """The file's plain bytes."""
    return Frames(fd) if framed else Lines(fd)


class Lines:
    """A file whose bytes are its lines."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def size(self) -> int:
        """See View."""
        return os.fstat(self._fd).st_size

    def pread(self, size: int, offset: int) -> bytes:
        """See View."""
        return os.pread(self._fd, size, offset)

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
    """A file of frames. What was decompressed is used again only while the file still has its trailer there."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._last: Frame | None = None
        self._recent: collections.deque[tuple[Frame, bytes]] = collections.deque(maxlen=_KEPT_FRAMES)
        self._first: tuple[Frame, bytes] | None = None  # who follows a file looks at its head each time

    def size(self) -> int:
        """See View."""
        last = self._last_whole()
        return last.until if last else 0

    def pread(self, size: int, offset: int) -> bytes:
        """See View."""
        found: list[bytes] = []
        while size > 0:
            try:
                known = self._at(offset)
            except Unreadable:
                if found:
                    break  # first what is before the damage; the next read meets it
                raise
            if known is None:
                break
            frame, lines = known
            piece = lines[offset - frame.begin : offset - frame.begin + size]
            found.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(found)

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

    def _at(self, offset: int) -> tuple[Frame, bytes] | None:
        """The frame with the plain byte `offset`, and its lines; None behind the last whole one."""
        before = len(HEADER) if offset == 0 else None
        for frame, lines in (*([self._first] if self._first else []), *reversed(self._recent)):
            if frame.begin <= offset <= frame.until and self._holds(frame):
                if offset < frame.until:
                    return frame, lines
                before = frame.end
        if before is None:
            found = self._find(offset)
            return None if found is None else self._keep(found, self._lines(found))
        following = self._following(before, offset)
        return None if following is None else self._keep(*following)

    def _keep(self, frame: Frame, lines: bytes) -> tuple[Frame, bytes]:
        if frame.begin == 0:
            self._first = frame, lines
        else:
            self._recent.append((frame, lines))
        return frame, lines

    def _holds(self, frame: Frame) -> bool:
        return self._ending(frame.end) == frame

    def _find(self, offset: int) -> Frame | None:
        """Goes from trailer to trailer, from the end on. Raises Unreadable where one of them is missing."""
        frame = self._last_whole()
        if frame is None or offset >= frame.until:
            return None
        while frame.begin > offset:
            before = self._ending(frame.start)
            if before is None:
                raise Unreadable("damaged: a frame's trailer is missing")
            frame = before
        return frame

    def _ending(self, end: int) -> Frame | None:
        """The frame whose trailer ends at this place in the file, by what the trailer says."""
        if end < _TRAILER.size:
            return None
        raw = os.pread(self._fd, _TRAILER.size, end - _TRAILER.size)
        if len(raw) < _TRAILER.size or not raw.startswith(_MARK):
            return None
        _, _, _, frame, lines, crc, until = _TRAILER.unpack(raw)
        start, begin = end - _TRAILER.size - frame, until - lines
        if start < len(HEADER) or begin < 0 or (start == len(HEADER)) != (begin == 0):
            return None
        if os.pread(self._fd, 4, start) != ZSTD_MAGIC:
            return None
        return Frame(start, end, begin, until, crc)

    def _last_whole(self) -> Frame | None:
        """The last frame that is there with its trailer and its check sum; what stands behind it is torn, or foreign."""
        size = os.fstat(self._fd).st_size
        if self._last is not None and self._last.end == size and self._holds(self._last):
            return self._last
        end = size
        while end >= _TRAILER.size:
            frame = self._ending(end)
            if frame is not None and self._is_whole(frame):
                self._last = frame
                return frame
            end = self._mark_before(end)
        return None

    def _is_whole(self, frame: Frame) -> bool:
        length = frame.end - _TRAILER.size - frame.start
        return zlib.crc32(os.pread(self._fd, length, frame.start)) == frame.crc

    def _mark_before(self, end: int) -> int:
        """Where the last trailer that may end before `end` would end; 0: there is none."""
        below = end - 1
        while below >= _TRAILER.size:
            begin = max(0, below - _BLOCK)
            # a mark that begins so late that its trailer would not end below is not meant
            data = os.pread(self._fd, below - _TRAILER.size + len(_MARK) - begin, begin)
            at = data.rfind(_MARK)
            if at >= 0:
                return begin + at + _TRAILER.size
            if not begin:
                return 0
            below = begin + _TRAILER.size + len(_MARK)
        return 0

    # ---- what is in it ----

    def _following(self, start: int, begin: int) -> tuple[Frame, bytes] | None:
        """The frame that begins at `start` and its lines; None while it is not there as a whole. Raises Unreadable."""
        try:
            return self._decoded(start, begin)
        except Unreadable:
            if start >= self.whole_end():
                return None  # foreign bytes behind the last frame: the writer cuts them
            raise

    def _decoded(self, start: int, begin: int) -> tuple[Frame, bytes] | None:
        wanted = _BLOCK
        while True:
            raw = os.pread(self._fd, wanted, start)
            decoder = zstandard.ZstdDecompressor().decompressobj()
            try:
                lines = decoder.decompress(raw) if raw else b""
            except zstandard.ZstdError as error:
                raise Unreadable(f"damaged: {error}") from None
            rest = decoder.unused_data
            if decoder.eof and len(rest) >= _TRAILER.size:
                frame = self._ending(start + len(raw) - len(rest) + _TRAILER.size)
                if frame is None or (frame.start, frame.begin, frame.until) != (start, begin, begin + len(lines)):
                    raise Unreadable("damaged: a frame without its trailer")
                if not self._is_whole(frame):
                    raise Unreadable("damaged: a frame's check sum is another")
                return frame, lines
            if len(raw) < wanted:
                if self.whole_end() > start:
                    raise Unreadable("damaged: a frame is cut")
                return None  # its writer is not done with it, or never will be
            if wanted >= _MOST_FRAME_BYTES:
                raise Unreadable(f"damaged: a frame of more than {_MOST_FRAME_BYTES} bytes")
            wanted *= 8

    def _lines(self, frame: Frame) -> bytes:
        raw = os.pread(self._fd, frame.end - _TRAILER.size - frame.start, frame.start)
        if zlib.crc32(raw) != frame.crc:
            raise Unreadable("damaged: a frame's check sum is another")
        try:
            lines = zstandard.ZstdDecompressor().decompress(raw, max_output_size=frame.until - frame.begin)
        except zstandard.ZstdError as error:
            raise Unreadable(f"damaged: {error}") from None
        if len(lines) != frame.until - frame.begin:
            raise Unreadable("damaged: a frame's trailer tells of another length")
        return lines


def is_framed(fd: int) -> bool:
    """Whether the file begins with this form's header. Raises OSError."""
    return os.pread(fd, len(HEADER), 0) == HEADER
