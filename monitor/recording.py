"""Recordings of the raw stream: what `run --record` writes and `replay` reads.

Owns the file format; the samples stand in it as the kernel wrote them. Format: one line of JSON (the header), then frames
of a type (u8), a number (u32), a position (s64), a length (u32) and that many bytes; little-endian.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from monitor import events, fastpath
from monitor.kernel.compile import SLACK, Shape
from monitor.kernel.rings import ACCOUNT_WORDS, HEAD, Capture, memory

VERSION = 3
_READS = (2, 3)  # 3: bulk records are whole words of 8 bytes
_FRAME = struct.Struct("<BIqI")
BULK, CONTROL, LOOK, MIRROR, CPU, FOUND = range(1, 7)


class RecordingError(Exception):
    """A recording cannot be read: the text names the file, the byte and what is wrong there."""


class Recorder:
    """Writes what each look at the rings found. The file is 0640 and must not exist."""

    def __init__(self, path: Path, about: dict[str, Any], capture: Capture, cpus: Any) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        self._file: BinaryIO = os.fdopen(descriptor, "wb", buffering=1 << 20)
        self._capture, self._at = capture, [int(cpus[cpu, fastpath.POS]) for cpu in range(len(cpus))]
        header = {"ebpf-monitor-recording": VERSION, "shape": asdict(capture.shape)} | about
        self._file.write(json.dumps(header).encode() + b"\n")
        self._frame(MIRROR, 0, 0, zlib.compress(capture.mirror.tobytes(), 1))
        for cpu, row in enumerate(cpus):
            self._frame(CPU, cpu, int(row[fastpath.POS]), int(row[fastpath.EXPECTED]).to_bytes(8, "little"))

    def _frame(self, kind: int, number: int, position: int, data: bytes) -> None:
        self._file.write(_FRAME.pack(kind, number, position, len(data)))
        self._file.write(data)

    def found(self, raw: bytes) -> None:
        """A process that the scan at start found: who belongs to whom follows from it."""
        self._frame(FOUND, 0, 0, raw)

    def look(self, cut: int, offset_ns: int, cpus: Any, controls: list[bytes]) -> None:
        """What came since the last look: the rings' bytes up to the heads, control records, the cut, the clock."""
        for cpu in range(len(cpus)):
            head, mask = int(cpus[cpu, fastpath.HEAD]), self._capture.shape.ring - 1
            while self._at[cpu] < head:
                at = self._at[cpu] & mask
                # a record may stand in the slack behind the ring's end: copy record by record up to there
                row = self._capture.rings[cpu]
                end = at
                while self._at[cpu] < head and end <= mask:
                    size = (int(row[end + 2]) | int(row[end + 3]) << 8) * 8
                    end += size
                    self._at[cpu] += size
                self._frame(BULK, cpu, self._at[cpu] - (end - at), row[at:end].tobytes())
        for raw in controls:
            self._frame(CONTROL, 0, 0, raw)
        # each one, also when nothing came: the cut lets out what waits, and its time is that of the clock now
        self._frame(LOOK, 0, cut, offset_ns.to_bytes(8, "little", signed=True))

    def close(self) -> None:
        """Ends the file."""
        self._file.close()


@dataclass(frozen=True)
class Frame:
    """One frame of a recording."""

    kind: int
    number: int
    position: int
    data: bytes


def read(path: Path) -> tuple[dict[str, Any], Iterator[Frame]]:
    """Header and frames of a recording. Raises RecordingError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from error
    try:
        header = json.loads(file.readline(1 << 20))
        version = header["ebpf-monitor-recording"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordingError(f"{path}: not a recording: the first line is not its header") from error
    if version not in _READS:
        raise RecordingError(f"{path}: version {version}; this program reads {_READS[0]} and {_READS[1]}")
    frames = _frames(path, file)
    return header, frames if version == VERSION else _renewed(path, frames)


_BEFORE = struct.Struct("<HHIQQqqHHiII")  # version 2: type, units of 64 bytes, tid, ts, seq, key, ret, nr, kf, ...
_TAIL_AT = 64


def _renewed(path: Path, frames: Iterator[Frame]) -> Iterator[Frame]:
    """Frames of version 2 as this one has them: each bulk record is written anew, and a ring has other positions."""
    at: dict[int, int] = {}
    for frame in frames:
        if frame.kind == CPU:
            at[frame.number] = frame.position
        if frame.kind != BULK:
            yield frame
            continue
        begin = 0
        while begin < len(frame.data):
            size = 64 * int.from_bytes(frame.data[begin + 2 : begin + 4], "little")
            if not size or begin + size > len(frame.data):
                raise RecordingError(f"{path}: a record of {size} bytes at byte {begin} of {len(frame.data)}")
            raw = _renew(frame.data[begin : begin + size])
            position = at.get(frame.number, 0)
            yield Frame(BULK, frame.number, position, raw)
            begin, at[frame.number] = begin + size, position + len(raw)


def _renew(raw: bytes) -> bytes:
    """A record of version 2 in the layout of events.BULK."""
    kind, _, tid, ts, seq, key, ret, nr, kf, fd, session, generation = _BEFORE.unpack_from(raw)
    event = events.EVENT_BY_ID.get(kind)
    if event is None and kind != events.DEF_SESSION:
        return raw[:2] + (len(raw) // 8).to_bytes(2, "little") + raw[4:]  # other definitions are as they were
    low = (ret + (1 << 31)) % (1 << 32) - (1 << 31)
    key %= 1 << 64
    wide = events.WIDE if low != ret else 0
    head = (tid, ts, seq % (1 << 32), generation, low, fd, nr, kf | wide, session)
    if event is None:
        return events.SESSION_DEFINITION.struct.pack(kind, events.SESSION_DEFINITION.size // 8, *head, key)
    layout = events.bulk_layout(event)
    own = struct.unpack_from(f"<{len(event.fields) - ('key' in layout.names)}Q", raw[_BEFORE.size :].ljust(64, b"\0"))
    tail = b"" if event.name.endswith("_close") else raw[_TAIL_AT:]
    if "key" in layout.names:
        own = (key, own[0] | (ret - low) % (1 << 64))
    size = _TAIL_AT + len(tail) if tail else layout.size
    return layout.struct.pack(kind, size // 8, *head, *own).ljust(size - len(tail), b"\0") + tail


def _frames(path: Path, file: BinaryIO) -> Iterator[Frame]:
    with file:
        while head := file.read(_FRAME.size):
            at = file.tell() - len(head)
            if len(head) < _FRAME.size:
                raise RecordingError(f"{path}: byte {at}: a frame's header is cut")
            kind, number, position, size = _FRAME.unpack(head)
            data = file.read(size)
            if kind not in (BULK, CONTROL, LOOK, MIRROR, CPU, FOUND) or len(data) < size:
                raise RecordingError(f"{path}: byte {at}: frame of type {kind} with {len(data)} of {size} bytes")
            yield Frame(kind, number, position, data)


class _List:
    """A control lane over a list."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    def read(self, limit: int) -> list[bytes]:
        found, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return found

    def position(self) -> int:
        return 0

    def release(self, position: int) -> None:
        """Nothing to free."""

    def fill(self) -> float:
        return 0.0

    def close(self) -> None:
        """Nothing to close."""


class ReplayCapture:
    """Stands in for a Capture: the same arrays in plain memory, filled from frames."""

    def __init__(self, made: Shape) -> None:
        self.shape = made
        self.accounts = np.zeros((made.cpus, ACCOUNT_WORDS), np.int64)
        self.rings = np.zeros((made.cpus, made.ring + SLACK), np.uint8)
        self.mirror = np.zeros(-(-made.mirror_bytes // 4096) * 4096, np.uint8)
        self.sessions = np.zeros((made.sessions, 10), np.int64)
        self.journal_bytes = np.zeros(made.commit, np.uint8)
        self.lane = _List()
        self._cut = 0

    def cut(self, _now: int) -> int:
        """The cut that was recorded."""
        return self._cut

    def fill(self) -> float:
        """Nothing presses."""
        return 0.0

    def memory(self) -> dict[str, Any]:
        """As Capture.memory."""
        return memory(self.shape, self.rings, self.mirror, self.journal_bytes)

    def take(self, frame: Frame) -> bool:
        """Adds a frame; True when a look is complete."""
        if frame.kind == MIRROR:
            self.mirror[:] = np.frombuffer(zlib.decompress(frame.data), np.uint8)
        elif frame.kind == BULK:
            at = frame.position & (self.shape.ring - 1)
            self.rings[frame.number, at : at + len(frame.data)] = np.frombuffer(frame.data, np.uint8)
            self.accounts[frame.number, HEAD] = frame.position + len(frame.data)
        elif frame.kind == CONTROL:
            self.lane.waiting.append(frame.data)
        elif frame.kind == LOOK:
            self._cut = frame.position
        return frame.kind == LOOK
