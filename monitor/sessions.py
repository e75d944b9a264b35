"""Totals of sessions that the reader itself reports: each interval for what stays open, and for what a sweep left over.

Owns the scan of the kernel's session table; each report covers the time since the one before, so that sums stay exact.
Never changes the kernel's table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.events import EVENT
from monitor.kernel.rings import Words
from monitor.model import EventType

# words of struct session (bpf/common.h)
_TAG, _READ_BYTES, _WRITE_BYTES, _READ_COUNT, _WRITE_COUNT, _WHO, _FLAGS = 0, 3, 4, 5, 6, 7, 8
_ORDER = (_READ_COUNT, _READ_BYTES, _WRITE_COUNT, _WRITE_BYTES)
_SOCKET, _FIXED, _QUIET = 8, 16, 32
SWEPT = 256
"""Descriptors that the kernel sweeps itself at exec and exit (SWEEP in the C text)."""


@dataclass(frozen=True)
class Open:
    """A session with totals that are not in the log yet."""

    slot: int
    generation: int
    kind: EventType
    pid: int
    descriptor: int
    """-1: a place in the table of an io_uring, which has no number to show"""
    quiet: bool
    totals: list[int]
    """read count, read bytes, write count, write bytes since the session began"""


def _found(table: Words, slots: Words) -> list[Open]:
    found = []
    for slot in slots:
        row = [int(x) for x in table[slot]]
        tag = row[_TAG] & (1 << 64) - 1
        kind = EVENT["socket_close" if row[_FLAGS] & _SOCKET else "file_close"]
        found.append(
            Open(
                int(slot),
                row[_WHO] >> 32 & 0xFFFFFFFF,
                kind,
                tag >> 32,
                -1 if row[_FLAGS] & _FIXED else tag & 0xFFFFF,
                bool(row[_FLAGS] & _QUIET),
                [row[at] for at in _ORDER],
            )
        )
    return found


def unreported(table: Words, mirror: Words) -> list[Open]:
    """Sessions that moved since they were last reported. `mirror`: the reader's session entries as words."""
    generation = table[:, _WHO] >> 32 & 0xFFFFFFFF
    known = (table[:, _TAG] != 0) & (generation != 0) & (mirror[:, 0] == generation)
    moved = np.zeros(len(table), bool)
    for place, at in enumerate(_ORDER):
        moved |= table[:, at] != mirror[:, 4 + place]
    return _found(table, np.nonzero(known & moved)[0])


def left_over(table: Words, mirror: Words, pid: int, exec_id: int) -> list[Open]:
    """Sessions of (process, exec) on descriptors beyond those that the kernel swept."""
    tag = table[:, _TAG]
    mine = ((tag >> 32 & 0xFFFFFFFF) == pid) & ((tag >> 20 & 0xFFF) == exec_id & 0xFFF) & ((tag & 0xFFFFF) >= SWEPT)
    generation = table[:, _WHO] >> 32 & 0xFFFFFFFF
    return _found(table, np.nonzero(mine & (generation != 0) & (mirror[:, 0] == generation))[0])
