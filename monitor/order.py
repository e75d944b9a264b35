"""The order of the log: control records wait here until every earlier bulk record is written, and the other way round.

Owns the merge of both lanes by (time, CPU, sequence), the check of each CPU's dense numbering and the gaps it finds; never
writes a file and never names a process.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monitor import decode, fastpath, fastrecords
from monitor.decode import DecodeError, Record
from monitor.kernel import rings
from monitor.kernel.rings import Capture

FAR = (1 << 63) - 1
_READ_AT_ONCE = 4096
_MORE_GAPS = 64


@dataclass
class _Chunk:
    """Control records that were read together: the ring's space is free once all of them are in the log."""

    position: int
    waiting: int


@dataclass
class Gap:
    """Events of one CPU that were refused: the sequence numbers between two that arrived."""

    cpu: int
    first: int
    last: int
    time_ns: int

    @property
    def count(self) -> int:
        """Number of events missing."""
        return self.last - self.first + 1


@dataclass
class Order:
    """Both lanes of a capture, merged. `state` and `cpus` are the arrays of `fastpath.run`."""

    capture: Capture
    state: Any = field(default_factory=lambda: np.zeros(fastpath.STATE, np.int64))
    undecodable: int = 0
    tap: Callable[[int, Any, list[bytes]], None] | None = None
    """called at each look with the cut, the CPUs' positions and the control records that were read"""
    screen: Callable[[bytes], bytes] | None = None
    """applied to each control record before anything else sees it: what it takes away is in no log and no recording"""
    _heap: list[tuple[tuple[int, int, int], int, Record]] = field(default_factory=list)
    _chunks: list[_Chunk] = field(default_factory=list)
    _owners: dict[int, _Chunk] = field(default_factory=dict)
    _number: int = 0

    def __post_init__(self) -> None:
        self.cpus = np.zeros((self.capture.shape.cpus, 4), np.int64)
        # the compiled pass may use all of `gaps`; the records that Python takes before the next look at it need some more
        self._all_gaps = np.zeros((fastpath.MAX_GAPS + _MORE_GAPS + self.capture.shape.cpus, 4), np.int64)
        self.gaps = self._all_gaps[: fastpath.MAX_GAPS]
        self._quiet_at = np.zeros(self.capture.shape.cpus, np.int64)
        self._looked = self._settled = b""

    def look(self) -> None:
        """Sees what has arrived: sets the cut, the heads and reads the control lane up to now."""
        accounts, cpus = self.capture.accounts, self.cpus
        self._looked, self._settled = self._marks(), b""
        cut = self.capture.cut(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        busy, numbered = accounts[:, rings.BUSY].copy(), accounts[:, rings.SEQ].copy()
        busy |= accounts[:, rings.BUSY]
        self._quiet_at = np.where(busy == 0, numbered, -1)
        cpus[:, fastpath.HEAD] = accounts[:, rings.HEAD]
        self.state[fastpath.CUT] = cut
        raws = self._read_control()
        if self.tap is not None:
            self.tap(cut, cpus, raws)
        self._limit()

    def settle(self) -> None:
        """After a batch that was taken as a whole: if it left nothing, `settled` is true until something new comes."""
        taken = self.cpus[:, [fastpath.POS, fastpath.EXPECTED]].tobytes()
        if not self._heap and taken == self._looked:
            self._settled = taken

    def _marks(self) -> bytes:
        """Changes whenever a record was written to a ring or an event was numbered, in either lane."""
        return self.capture.accounts[:, rings.HEAD : rings.SEQ + 1].tobytes()

    def settled(self) -> bool:
        """Nothing has come since a look of which everything is taken: another one would only move the cut, as this does."""
        if not self._settled or self._settled != self._marks():
            return False
        cut = self.capture.cut(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        if self._settled != self._marks():
            return False
        self.state[fastpath.CUT] = cut
        return True

    def _read_control(self) -> list[bytes]:
        lane = self.capture.lane
        found: list[bytes] = []
        while True:
            raws = lane.read(_READ_AT_ONCE)
            if not raws:
                return found
            if self.screen is not None:
                raws = [self.screen(raw) for raw in raws]
            found += raws
            chunk = _Chunk(lane.position(), 0)
            self._chunks.append(chunk)
            for raw in raws:
                try:
                    record = decode.control(raw)
                except DecodeError:
                    self.undecodable += 1
                    continue
                self._number += 1
                chunk.waiting += 1
                self._owners[self._number] = chunk
                heapq.heappush(self._heap, (record.order, self._number, record))

    def _limit(self) -> None:
        order = self._heap[0][0] if self._heap else (FAR, FAR, FAR)
        self.state[fastpath.LIMIT_TS], self.state[fastpath.LIMIT_CPU], self.state[fastpath.LIMIT_SEQ] = order

    def control(self) -> Record | None:
        """Takes the next control record if nothing earlier can come; None when there is none, or it was logged already."""
        if not self._heap or self._heap[0][0][0] >= self.state[fastpath.CUT]:
            return None
        _, number, record = heapq.heappop(self._heap)
        self._owners.pop(number).waiting -= 1
        self._limit()
        return record

    def number(self, cpu: int, low: int) -> int:
        """The number on its CPU of the record at hand, of which a bulk record has the low half."""
        return int(fastrecords.sequence(self.cpus, cpu, fastpath.EXPECTED, low & 0xFFFFFFFF))

    def arrived(self, cpu: int, seq: int, ts: int) -> bool:
        """Counts an event that Python handles itself. False: it is in the log already."""
        expected = int(self.cpus[cpu, fastpath.EXPECTED])
        if seq < expected:
            self.state[fastpath.REPEATED] += 1
            return False
        if seq > expected:
            self._gap(cpu, expected, seq - 1, ts)
        self.cpus[cpu, fastpath.EXPECTED] = seq + 1
        self.state[fastpath.RECEIVED] += 1
        return True

    def _gap(self, cpu: int, first: int, last: int, ts: int) -> None:
        at = int(self.state[fastpath.GAPS])
        if at >= len(self._all_gaps):
            raise OverflowError("more gaps than were asked for")
        self._all_gaps[at] = cpu, first, last, ts
        self.state[fastpath.GAPS] += 1

    def close_gaps(self) -> None:
        """Finds refused events behind the last one that arrived, on CPUs of which everything was taken."""
        if not self.capture.lane.complete():
            return
        cpus = self.cpus
        behind = (self._quiet_at > cpus[:, fastpath.EXPECTED]) & (cpus[:, fastpath.POS] == cpus[:, fastpath.HEAD])
        if not behind.any():
            return
        waiting = {order[1] for order, _, _ in self._heap}
        for cpu in (int(found) for found in np.flatnonzero(behind) if int(found) not in waiting):
            numbered = int(self._quiet_at[cpu])
            self._gap(cpu, int(cpus[cpu, fastpath.EXPECTED]), numbered - 1, int(self.state[fastpath.CUT]))
            cpus[cpu, fastpath.EXPECTED] = numbered

    def take_gaps(self) -> list[Gap]:
        """The gaps found since the last call."""
        count = int(self.state[fastpath.GAPS])
        if not count:
            return []
        found = [Gap(*(int(x) for x in row)) for row in self._all_gaps[:count]]
        self.state[fastpath.GAPS] = 0
        return found

    @property
    def room_for_gaps(self) -> int:
        """How many more gaps fit before `take_gaps`."""
        return len(self.gaps) - int(self.state[fastpath.GAPS])

    @property
    def control_position(self) -> int:
        """Everything of the control ring before it is in the log or in this process's hands... and may be freed."""
        position = -1
        while self._chunks and not self._chunks[0].waiting:
            position = self._chunks.pop(0).position
        return position

    def release(self) -> None:
        """Frees what was taken: the rings' tails move, in both lanes."""
        self.capture.accounts[:, rings.TAIL] = self.cpus[:, fastpath.POS]
        position = self.control_position
        if position >= 0:
            self.capture.lane.release(position)

    @property
    def pending(self) -> bool:
        """Something that was seen is not written yet."""
        return bool(self._heap) or self.bulk_pending

    @property
    def bulk_pending(self) -> bool:
        """The same of the bulk lane."""
        return bool((self.cpus[:, fastpath.POS] < self.cpus[:, fastpath.HEAD]).any())

    def record_bytes(self, cpu: int) -> bytes:
        """The bulk record at this CPU's position."""
        at = int(self.cpus[cpu, fastpath.POS]) & (self.capture.shape.ring - 1)
        row = self.capture.rings[cpu]
        units = int(row[at + 2]) | int(row[at + 3]) << 8
        return bytes(row[at : at + 8 * units].tobytes())

    def advance(self, cpu: int, raw: bytes) -> None:
        """Steps over a bulk record."""
        self.cpus[cpu, fastpath.POS] += len(raw)
