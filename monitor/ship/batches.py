"""From durable bytes to bulk requests: lines are told apart, numbered, chosen by profile and gathered.

Decides by bytes: `event.id` and `@timestamp` are looked for where the encoder puts them. A line that is not as expected
is parsed. Owns what a gap in the numbers means; never sends anything.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field

import orjson

from monitor import events
from monitor.logfiles import LogFile, line_identity
from monitor.ship.tail import Block, Damage

Position = tuple[str, int]
"""(log epoch, event.sequence)"""
_STAMP = b'{"@timestamp":"'
_EVENT, _QUIET = b'"ebpf":{"event":"', b',"quiet":true'
_TIME_AT, _TIME_END = len(_STAMP), len(_STAMP) + len("2026-11-28T00:00:00.123456789Z")
_DAY, _HOUR = len("2026-11-28"), len("2026-11-28T00")


@dataclass(frozen=True)
class Removed:
    """Lines that were removed (or damaged) before they were delivered: numbers first to last of an epoch.

    `last` is 0 when nobody knows how far the epoch went.
    """

    epoch: str
    first: int
    last: int
    reason: str

    @property
    def count(self) -> int:
        """How many lines; 0 when unknown."""
        return max(0, self.last - self.first + 1)


@dataclass
class Batch:
    """Lines of one epoch for one index, in order, with what else happened to lines up to the end of it.

    `counts` is keyed by (epoch, word of the ledger). `end` is what is done when the batch is; `file_id` and `offset`
    are where the walk goes on behind it.
    """

    index: str = ""
    ids: list[bytes] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    removed: list[Removed] = field(default_factory=list)
    foreign: list[bytes] = field(default_factory=list)
    end: Position | None = None
    file_id: str | None = None
    offset: int = 0
    opened: float = field(default_factory=time.monotonic)
    sent: bool = False
    """some of it may have reached the server already"""

    @property
    def epoch(self) -> str:
        """The epoch of its documents."""
        return self.ids[0][9:25].decode() if self.ids else ""

    @property
    def timestamp(self) -> str:
        """@timestamp of the first document; "" without one."""
        return (
            self.lines[0][len(_STAMP) : self.lines[0].find(b'"', len(_STAMP))].decode("ascii", "replace")
            if self.lines
            else ""
        )

    def keep(self, places: list[int]) -> None:
        """Only these documents are left to deliver."""
        self.ids = [self.ids[place] for place in places]
        self.lines = [self.lines[place] for place in places]
        self.size = sum(map(len, self.lines))

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches with the same documents; what is counted beside them stands in the second."""
        half = len(self.ids) // 2
        first = Batch(self.index, self.ids[:half], self.lines[:half], sent=self.sent)
        first.size = sum(map(len, first.lines))
        first.end = self.epoch, int(first.ids[-1][26:], 16)
        self.keep(list(range(half, len(self.ids))))
        return first, self


@dataclass
class Limits:
    """When a batch is full."""

    documents: int
    size: int


@dataclass(frozen=True)
class Selection:
    """Which lines are delivered: those that a profile captures, of a span of @timestamp (RFC 3339 with nine decimals).

    `events`: names (None: all); `quiet`: also what is marked as done to a quiet object.
    """

    events: frozenset[bytes] | None = None
    quiet: bool = True
    since: bytes = b""
    until: bytes = b""

    @classmethod
    def of(cls, profile: str, since: bytes = b"", until: bytes = b"") -> Selection:
        """What `profile` captures, by the catalogue; `same`: all."""
        if profile == "same":
            return cls(since=since, until=until)
        names = frozenset(kind.name.encode() for kind in events.EVENTS if profile in kind.profiles)
        return cls(names, profile not in events.LEAVES_OUT_QUIET, since, until)

    @property
    def everything(self) -> bool:
        """Nothing is left out."""
        return self.events is None and self.quiet and not self.since and not self.until

    def takes(self, data: bytes, at: int, end: int) -> bool:
        """Whether the line `data[at:end]` is delivered. In a line the keys that are looked for cannot be a part of a text."""
        if self.events is not None:
            name = data.find(_EVENT, at, end) + len(_EVENT)
            if data[name : data.find(b'"', name, end)] not in self.events:
                return False
        if not self.quiet and data.find(_QUIET, at, end) >= 0:
            return False
        stamp = data[at + _TIME_AT : at + _TIME_END]
        return stamp >= self.since and (not self.until or stamp <= self.until)


class Batcher:
    """Takes blocks in order and gives batches. `at` is the last line that is done, None on a log seen the first time."""

    def __init__(self, prefix: str, period: str, wanted: Selection, limits: Limits, at: Position | None) -> None:
        """`prefix`: es_index; `period`: index_period."""
        self.configure(prefix, period, wanted, limits)
        self._epoch, self._expected = (at[0], at[1] + 1) if at else ("", 0)
        self._host_epoch = b""
        self._damage = ""
        self._batch = Batch()
        self.ready: deque[Batch] = deque()

    def configure(self, prefix: str, period: str, wanted: Selection, limits: Limits) -> None:
        """Another destination for the lines from here on."""
        self._prefix, self._wanted, self.limits = prefix, wanted, limits
        self._stamp = _DAY if period == "day" else _HOUR
        self._head, self._index = b"?", ""

    @property
    def pending(self) -> bool:
        """Whether something is gathered that is in no batch yet."""
        return self._batch.end is not None or bool(self.ready)

    @property
    def epoch(self) -> str:
        """The epoch of the line that was seen last."""
        return self._epoch

    def flush(self) -> None:
        """What was gathered becomes a batch, full or not."""
        if self._batch.end is not None:
            self.ready.append(self._batch)
            self._batch = Batch(self._index)

    def due(self, age_s: float) -> bool:
        """Whether something has been waiting for longer than this."""
        return self._batch.end is not None and time.monotonic() - self._batch.opened > age_s

    def damage(self, found: Damage) -> None:
        """Bytes that are no lines. A torn line had no number yet; whatever else is missing shows in the numbers."""
        if found.torn:
            self._batch.counts[self._epoch, "torn_lines"] += 1
        else:
            self._damage = found.reason

    def add(self, block: Block) -> None:
        """Takes whole lines."""
        data, at, size = block.data, 0, len(block.data)
        find, wanted, everything = data.find, self._wanted, self._wanted.everything
        while at < size:
            batch = self._batch
            end = find(b"\n", at) + 1
            needle = b'"id":"%b%012x","sequence":' % (self._host_epoch, self._expected)
            place = find(needle, at, end)
            if place < 0:
                self._irregular(data[at : end - 1])
                self._mark(block.file, block.offset + end)
                at = end
                continue
            if not data.startswith(self._head, at):
                batch = self._other_index(data[at : at + 64])
            if everything or wanted.takes(data, at, end):
                batch.ids.append(needle[6:44])
                batch.lines.append(data[at:end])
                batch.size += end - at
            else:
                batch.counts[self._epoch, "withheld"] += 1
            batch.end = self._epoch, self._expected
            self._expected += 1
            at = end
            if len(batch.ids) >= self.limits.documents or batch.size >= self.limits.size:
                self._mark(block.file, block.offset + end)
                self.flush()
        self._mark(block.file, block.offset + size)

    def _mark(self, file: LogFile, offset: int) -> None:
        self._batch.file_id, self._batch.offset = file.file_id, offset

    def _other_index(self, head: bytes) -> Batch:
        """The index for the time that this line begins with; what was gathered for another one is complete."""
        if self._batch.ids:
            self.flush()
        self._head = head[: len(_STAMP) + self._stamp]
        stamp = self._head[len(_STAMP) :].decode("ascii", "replace")
        self._index = f"{self._prefix}-{stamp.replace('-', '.').replace('T', '.')}"
        self._batch.index = self._index
        return self._batch

    # ---- lines that are not the next one of their epoch ----

    def _irregular(self, line: bytes) -> None:
        found = line_identity(line)
        if found is None or not line.startswith(_STAMP):
            if line:
                self._batch.foreign.append(line[:65536])
                self._batch.end = self._batch.end or (self._epoch, self._expected - 1)
            return
        identity, (epoch, sequence), _, _ = found
        if epoch == self._epoch and sequence < self._expected:
            return  # delivered before: a copy of a file, or where the walk began a little early
        if epoch != self._epoch:
            self._new_epoch(line, epoch, sequence)
        else:
            self._lost(epoch, self._expected, sequence - 1)
        self._epoch, self._expected = epoch, sequence
        self._host_epoch = identity[:26].encode()
        self._regular(line)

    def _regular(self, line: bytes) -> None:
        """The line that the numbering was just set to."""
        batch = self._batch
        if not line.startswith(self._head):
            batch = self._other_index(line[:64])
        identity = b"%b%012x" % (self._host_epoch, self._expected)
        if self._wanted.takes(line, 0, len(line)):
            batch.ids.append(identity)
            batch.lines.append(line + b"\n")
            batch.size += len(line) + 1
        else:
            batch.counts[self._epoch, "withheld"] += 1
        batch.end = self._epoch, self._expected
        self._expected += 1

    def _new_epoch(self, line: bytes, epoch: str, sequence: int) -> None:
        """Closes the epoch before, as far as this line says where it ended."""
        if self._batch.ids:
            self.flush()
        before, at = self._epoch, self._expected
        if not before:
            return  # the first line that is ever delivered: older ones were never ours to deliver
        previous = orjson.loads(line).get("ebpf", {}).get("previous") or {}
        name, last = previous.get("epoch"), previous.get("sequence")
        if name == before and isinstance(last, int):
            self._lost(before, at, last)
        else:
            if isinstance(name, str) and isinstance(last, int):
                self._lost(name, 1, last)
            if name is not None or sequence > 1:  # else the run before left no word of where it ended
                self._batch.removed.append(Removed(before, at, 0, self._damage or "removed"))
        if sequence > 1:
            self._lost(epoch, 1, sequence - 1)

    def _lost(self, epoch: str, first: int, last: int) -> None:
        if last < first:
            return
        self._batch.removed.append(Removed(epoch, first, last, self._damage or "removed"))
        self._batch.counts[epoch, "expired"] += last - first + 1
        self._damage = ""
