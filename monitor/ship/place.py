"""Where in the log delivery goes on: the line behind the last one that is done, under whatever name its file has now.

Only reads; a hint that does not hold costs time, never a line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monitor.frames import Damaged, Unreadable, view
from monitor.logfiles import BLOCK_BYTES, LogFile, ReaderError, Stream, files, open_regular
from monitor.ship.batches import Position
from monitor.ship.tail import Blocked

_ID_BYTES = 38
_HINT_BYTES = 1 << 18


@dataclass(frozen=True)
class Found:
    """Begin at `offset` of `file` (None: with the first file there will be). `end`: the last line of the log now.

    `problem`: the checkpoint's place is none of this log; then `file` is None.
    """

    file: LogFile | None
    offset: int
    end: Position | None
    problem: str = ""
    missing: bool = False
    """the last line that is done is not in the log: what was sent behind it is not known for sure"""


def find(directory: Path, done: Position | None, file_id: str | None, offset: int) -> Found:
    """The place behind `done`. Raises Blocked when the log cannot be listed."""
    try:
        listed = files(directory)
    except ReaderError as error:
        raise Blocked(error.problem.reason) from None
    end = next((file.last or file.first for file in reversed(listed) if file.last or file.first), None)
    if done is None:
        return Found(None, 0, end)
    wanted = f"-{done[0]}-{done[1]:012x}".encode()
    hinted = next((file for file in listed if file_id and file.file_id == file_id), None)
    if hinted is not None and _is_behind(hinted, offset, wanted):
        return Found(hinted, offset, end)
    for file in ([hinted] if hinted else []) + [file for file in reversed(listed) if file is not hinted]:
        at = _behind(file, wanted)
        if at is not None:
            return Found(file, at, end)
    return _without(listed, done, end)


def _without(listed: list[LogFile], done: Position, end: Position | None) -> Found:
    """The line that was done last is not in the log any more: go on with the first one that can be later."""
    if not listed or end is None:
        return Found(None, 0, end)
    epoch, known = re.compile(rb'-%b-([0-9a-f]{12})","sequence":' % done[0].encode()), False
    for file in listed:
        for offset, data in _blocks(file):
            for found in epoch.finditer(data):
                known = True
                if int(found[1], 16) > done[1]:
                    return Found(file, offset + data.rfind(b"\n", 0, found.start()) + 1, end, missing=True)
    if known:
        return Found(None, 0, end, f"the checkpoint is ahead of the log (epoch {done[0]}, number {done[1]})")
    return Found(None, 0, end, missing=True)


def _is_behind(file: LogFile, offset: int, wanted: bytes) -> bool:
    """Whether the line before `offset` is the wanted one (not where others compressed: there it must be searched)."""
    if file.compression or offset > file.size or offset <= 0:
        return False
    try:
        descriptor, _ = open_regular(file.path)
    except Unreadable:
        return False
    try:
        start, data = view(descriptor, file.framed).before(_HINT_BYTES, offset)
    finally:
        os.close(descriptor)
    return start + len(data) == offset and data.endswith(b"\n") and wanted in data[data.rfind(b"\n", 0, -1) + 1 :]


def _behind(file: LogFile, wanted: bytes) -> int | None:
    """Offset behind the line with the wanted id."""
    for offset, data in _blocks(file):
        place = data.find(wanted + b'","sequence":')
        if place >= 0:
            return offset + data.find(b"\n", place) + 1
    return None


def _blocks(file: LogFile) -> Iterator[tuple[int, bytes]]:
    """(offset, whole lines) of a file; what is damaged is left out, what cannot be read ends it."""
    try:
        descriptor, _ = open_regular(file.path)
        at, carry = 0, b""
        with Stream(descriptor, file.compression, file.framed) as stream:
            while True:
                try:
                    data = stream.read(BLOCK_BYTES)
                except Damaged as damage:
                    at, carry = damage.until, b""
                    continue
                if not data:
                    return
                data = carry + data
                cut = data.rfind(b"\n") + 1
                carry = data[cut:]
                if cut:
                    yield at, data[:cut]
                    at += cut
    except Unreadable:
        return
