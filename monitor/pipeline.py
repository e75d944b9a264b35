"""From what lies in the rings to one batch of finished lines, and the ledger's counts of it.

Owns a batch from its first record to its commit; never opens the log and never waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor import decode, describe, encode, events, fastframe, fastpath, names, sessions, templates
from monitor.clock import WallClock, rfc3339
from monitor.decode import DecodeError, Record
from monitor.encode import Document, Names, Origin
from monitor.hashing import Answer
from monitor.kernel.rings import TAIL
from monitor.mirror import Mirror
from monitor.naming import Tasks
from monitor.order import Order
from monitor.proctable import ProcessTable

Words = npt.NDArray[np.int64]

OUT_BYTES = 16 << 20
_FIRST_EVENT = 16  # below are definitions
_CHUNK = (1 << 20) + fastpath.LINE_ROOM  # so that what was written of it is not less than 1 MB
_KEEP = 1 << 20  # room kept free in the buffer for lines that Python makes


@dataclass
class Counts:
    """What the reader counts; names of DESIGN's ledger."""

    received: int = 0
    made: int = 0
    logged: int = 0
    quarantined: int = 0
    unwritten: int = 0
    torn: int = 0
    unresolved: int = 0
    """lines whose object or process was not known any more: they say so, and stand in no equation"""
    untold: int = 0
    """of `unwritten`, those that no loss record in the log tells of yet"""
    redacted: int = 0
    """lines in which secrets were masked; in no equation"""
    expired: int = 0
    """lines that were removed, to keep the disk usable, before they were shipped"""


@dataclass
class Pipeline:
    """Turns records into lines. `look` and `fill` make a batch, `committed` or `dropped` end it."""

    order: Order
    origin: Origin
    tasks: Tasks
    clock: WallClock
    counts: Counts = field(default_factory=Counts)
    sequence: int = 1
    ahead: Callable[[memoryview], None] | None = None
    """called with the batch each time it has grown by some chunks, and with an empty one when another begins"""
    witness: Callable[[str, Names, Document, Document], None] | None = None
    """called with the parts of each control event: name, object, task, further members of `ebpf`"""

    def __post_init__(self) -> None:
        self._memory = self.order.capture.memory()
        self.mirror = Mirror(self._memory)
        self._templates = templates.build(self.origin)
        self._out = np.zeros(OUT_BYTES, np.uint8)
        self._second = np.zeros(32, np.uint8)
        self._state = self.order.state
        self._state[fastpath.SECOND] = -1
        self._start = Counts()
        self.notes, self._places = np.zeros(1, np.int64), np.zeros((1, 1), np.int64)
        self._limit = 0
        self._owed: list[tuple[sessions.Open, str, int]] = []
        self.processes = ProcessTable(self.tasks.entity)
        self._begin()

    def rename(self, origin: Origin) -> None:
        """Lines from the next one on say this of their origin."""
        self.origin = origin
        self._templates = templates.build(origin)
        self.note(self.notes)

    def note(self, notes: Words) -> None:
        """From now on what repeats in the batch is noted here for `fastframe.seal`: the first word is how many notes there are.

        With one word there is no room for notes, and none are taken.
        """
        self.notes = notes
        self._places = np.zeros((1, 1) if len(notes) == 1 else fastframe.PLACES + len(self._templates.ops), np.int64)

    # ---- a batch ----
    def _begin(self) -> None:
        self._state[fastpath.BASE] += self._state[fastpath.OUT]
        self._state[fastpath.OUT] = 0
        self._state[fastpath.LINES] = 0
        self._state[fastpath.RECEIVED] = 0
        self._state[fastpath.SEQUENCE] = self.sequence
        self._made = self._quarantined = self._redacted = 0
        self._stretch()

    def _stretch(self) -> bool:
        """Lets the compiled pass write on, up to a chunk more where somebody takes the batch chunk by chunk.

        False: it has as much room as there is.
        """
        before, self._limit = self._limit, OUT_BYTES - _KEEP
        if self.ahead is not None:
            self.ahead(self.batch)
            self._limit = min(self._limit, int(self._state[fastpath.OUT]) + _CHUNK)
        return self._limit > before and int(self._state[fastpath.OUT]) + fastpath.LINE_ROOM > before

    @property
    def batch(self) -> memoryview:
        """The batch's bytes: whole lines."""
        return self._out.data[: int(self._state[fastpath.OUT])]

    @property
    def lines(self) -> int:
        """Lines in the batch."""
        return int(self._state[fastpath.LINES])

    @property
    def last_sequence(self) -> int:
        """event.sequence of the batch's last line."""
        return int(self._state[fastpath.SEQUENCE]) - 1

    def fill(self) -> bool:
        """Writes lines until everything seen is written (True) or the batch is full (False)."""
        self._state[fastpath.OFFSET] = self.clock.offset_ns
        owed, self._owed = self._owed, []
        for session, why, ts in owed:
            self._report(session, why, ts)
        if self._owed:
            return False
        m, t = self._memory, self._templates
        run = fastpath.run_noted if self._places.ndim == fastpath.NOTED else fastpath.run
        while True:
            if not self._space:
                return False
            reason = run(
                self._state,
                self.order.cpus,
                self.order.gaps,
                m["R"],
                m["R8"],
                m["M"],
                m["M8"],
                m["J"],
                m["J8"],
                m["where"],
                t.ops,
                t.index,
                t.literals,
                t.tables,
                t.flags,
                self._second,
                self._out[: self._limit],
                self.notes,
                self._places,
            )
            if reason == fastpath.FULL:
                if not self._stretch():
                    return False
            elif reason in (fastpath.DEFINITION, fastpath.SLOW):
                try:
                    self._definition() if reason == fastpath.DEFINITION else self._slow()
                except DecodeError:
                    self._quarantine()
            elif not self._controls():
                return True

    @property
    def _space(self) -> bool:
        return self.order.room_for_gaps >= 64 and int(self._state[fastpath.OUT]) <= OUT_BYTES - _KEEP

    def _controls(self) -> bool:
        """Writes the control records before the next bulk record: one, or all when no bulk record waits. False: none."""
        alone = not self.order.bulk_pending
        while (record := self.order.control()) is not None:
            self._control(record)
            if not alone or not self._space:
                return True
        return False

    @property
    def progress(self) -> bool:
        """A batch without lines that must be committed all the same: it stepped over much, or its changes fill the journal."""
        stepped = (self.order.cpus[:, fastpath.POS] - self.order.capture.accounts[:, TAIL]).max()
        return bool(stepped > self.order.capture.shape.ring // 8 or self._memory["J"][0] > len(self._memory["J8"]) // 2)

    def committed(self) -> None:
        """The batch is in the log."""
        lines = self.lines
        self.counts.received += int(self._state[fastpath.RECEIVED])
        self.counts.made += self._made
        self.counts.quarantined += self._quarantined
        self.counts.logged += lines
        self.counts.redacted += self._redacted
        self.sequence += lines
        self.mirror.committed()
        self.order.release()
        self._begin()

    def dropped(self) -> int:
        """The batch could not be written: its events are gone, its numbers come back. Returns how many lines."""
        lines = self.lines
        self.counts.received += int(self._state[fastpath.RECEIVED])
        self.counts.made += self._made
        self.counts.quarantined += self._quarantined
        self.counts.unwritten += lines
        self.mirror.committed()
        self.order.release()
        self._begin()
        return lines

    # ---- lines that Python makes ----
    def _append(self, line: bytes) -> None:
        at = int(self._state[fastpath.OUT])
        if at + len(line) > OUT_BYTES:
            raise OverflowError("a line does not fit into the batch")
        self._out[at : at + len(line)] = np.frombuffer(line, np.uint8)
        count = int(self.notes[0])
        if count + 1 < len(self.notes):  # from here on nothing is known
            self.notes[count + 1], self.notes[0] = at, count + 1
        self._state[fastpath.OUT] += len(line)
        self._state[fastpath.LINES] += 1
        self._state[fastpath.SEQUENCE] += 1

    def make(self, name: str, members: Document) -> None:
        """Adds a document of the monitor itself to the batch."""
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        found = encode.made(
            self.origin,
            events.EVENT[name],
            self.clock.wall_ns(boot),
            boot,
            int(self._state[fastpath.SEQUENCE]),
            members,
        )
        self._append(encode.line(found))
        self._made += 1

    def found(self, raw: bytes, arguments: bytes = b"", original_bytes: int = 0, *, redacted: bool = False) -> None:
        """Adds the document of a process that the scan at start found.

        `arguments` are from /proc, NUL separated; `original_bytes` their length before they were cut, 0: whole; `redacted`:
        secrets in them were masked.
        """
        record = decode.control(raw)
        if original_bytes:
            record.values["kf"] |= events.TRUNCATED
            record.values["original"] = original_bytes
        if redacted:
            record.values["kf"] |= events.REDACTED
            self._redacted += 1
        if arguments:
            record.blobs["args"] = arguments
        names_of, sections, extra = describe.control(record, self.tasks)
        self._belongs(record, names_of, sections, extra)
        if names_of.raw:
            extra["raw"] = names_of.raw
        sections["process"]["start"] = rfc3339(self.clock.wall_ns(record.values["start"]))
        boot = record.values["ts"]
        shown = encode.made(
            self.origin, record.kind, self.clock.wall_ns(boot), boot, int(self._state[fastpath.SEQUENCE]), extra
        )
        self._append(encode.line(shown | sections))
        self._made += 1

    def hashed(self, answer: Answer) -> None:
        """Adds the document of a hash that came late."""
        asker, version, raw = answer.asker, answer.version, dict[str, str]()
        boot = answer.boot_ns
        process: Document = {"entity_id": self.tasks.entity(asker.pid, asker.start), "pid": asker.pid}
        digest = {"hash": {"sha256": answer.sha256}}
        if not asker.mapped:
            process |= {"executable": names.put(raw, "process.executable", asker.path)} | digest
        about: Document = {"path": names.put(raw, "file.path", asker.path)} | digest if asker.mapped else {}
        about |= {
            "inode": str(version.inode),
            "device": encode.device(version.device),
            "size": version.size,
            "ctime": rfc3339(version.ctime_ns),
        }
        kind, sequence = events.EVENT["process_hash"], int(self._state[fastpath.SEQUENCE])
        shown = encode.made(self.origin, kind, self.clock.wall_ns(boot), boot, sequence, {"raw": raw} if raw else {})
        self._append(encode.line(shown | {"file": about, "process": process}))
        self._made += 1

    def remember(self, raw: bytes) -> None:
        """As `found`, without a document: an earlier epoch has told of the process."""
        record = decode.control(raw)
        self.processes.learn(record, describe.control(record, self.tasks)[1]["user"])

    def _line(self, record: Record, found: Names, task: Document, extra: Document | None = None) -> None:
        values = record.values
        wall = values["ts"] + self.clock.offset_ns
        shown = encode.document(
            self.origin,
            record.kind,
            values,
            wall,
            int(self._state[fastpath.SEQUENCE]),
            names=found,
            task=task,
            extra=extra,
        )
        self._append(encode.line(shown))

    def _control(self, record: Record) -> None:
        if not self.order.arrived(record.values["cpu"], record.values["seq"], record.values["ts"]):
            return
        self.processes.executed(record)
        if record.kind.name == "process_exit":
            self.processes.ended((record.values["tgid"], record.values["start"]))
        try:
            found, task, extra = describe.control(record, self.tasks)
        except DecodeError:
            self._quarantined += 1
            return
        self._belongs(record, found, task, extra)
        if self.witness is not None:
            self.witness(record.kind.name, found, task, extra)
        self._line(record, found, task, extra)
        self._redacted += bool(record.values["kf"] & events.REDACTED)
        if record.values["kf"] & events.MANY:
            self._left_over(record)

    # ---- totals that the reader reports itself ----
    def report_open(self) -> None:
        """Each interval: what the sessions that stay open moved since the last report."""
        table = self.order.capture.sessions
        for session in sessions.unreported(table, self.mirror.sessions[: len(table)]):
            self._report(session, "interval", int(self._state[fastpath.CUT]))

    def _left_over(self, record: Record) -> None:
        """The process had more descriptors than the kernel swept at its exec or exit."""
        values, table = record.values, self.order.capture.sessions
        executed = record.kind.name == "process_exec"
        for session in sessions.left_over(
            table, self.mirror.sessions[: len(table)], values["tgid"], values["exec_id"] - executed
        ):
            self._report(session, "exec" if executed else "exit", values["ts"])

    def _report(self, session: sessions.Open, reason: str, ts: int) -> None:
        if not self.room:
            self._owed.append((session, reason, ts))
            return
        known = self.mirror.session(session.slot, session.generation)
        if known is None:
            self.counts.unresolved += 1
            return
        found, task, raw, reported = known
        members = dict(zip(("read_count", "read_bytes", "write_count", "write_bytes"), session.totals, strict=True))
        values = {
            "kf": events.QUIET if session.quiet else 0,
            "ret": 0,
            "nr": encode.NO_SYSCALL,
            "fd": session.descriptor,
            "cpu": -1,
            "ts": ts,
            "reason": events.CLOSE_REASONS.index(reason),
            **members,
        }
        self._subtract(values, reported)
        self._line(Record(session.kind, values, {}), Names(found.sections, found.ebpf, found.raw | raw), task)
        self._made += 1
        self.mirror.report(session.slot, session.totals)

    @property
    def room(self) -> bool:
        """There is room for lines that Python makes, and for what they change in the mirror."""
        return (
            int(self._state[fastpath.OUT]) < OUT_BYTES - _KEEP // 2
            and int(self._memory["J"][0]) < len(self._memory["J8"]) - 8192
        )

    def _belongs(self, record: Record, found: Names, task: Document, extra: Document) -> None:
        """The process table hears of the record, and says what the process belongs to."""
        if record.values["ret"] >= 0 and record.kind.name != "process_exit":
            self.processes.learn(record, task["user"])
        about, more = self.processes.members(record, found.raw)
        task["process"] |= about
        extra |= more

    # ---- records that the compiled pass hands back ----
    def _quarantine(self) -> None:
        """A bulk record that is not what the catalogue says: counted and stepped over.

        One without a length leaves no way to find the next: what is in this ring is given up, and its numbers are a gap.
        """
        cpu = int(self._state[fastpath.CPU])
        raw = self.order.record_bytes(cpu)
        if raw:
            values = events.RECORD.unpack(raw + bytes(events.RECORD.size))
            self.order.advance(cpu, raw)
            if int(values["type"]) >= _FIRST_EVENT and self.order.arrived(
                cpu, self.order.number(cpu, int(values["seq"])), int(values["ts"])
            ):
                self._quarantined += 1
        else:
            self.order.cpus[cpu, fastpath.POS] = self.order.cpus[cpu, fastpath.HEAD]

    def _definition(self) -> None:
        cpu = int(self._state[fastpath.CPU])
        raw = self.order.record_bytes(cpu)
        kind, values, tail = decode.definition(raw)
        if kind == events.DEF_TASK:
            self._define_task(cpu, values, tail)
        else:
            self.mirror.put_file(cpu, values["key"], describe.definition_names(kind, values, tail))
        self.order.advance(cpu, raw)

    def _define_task(self, cpu: int, values: dict[str, Any], tail: bytes) -> None:
        facts = decode.task_facts(values)
        program = self.processes.program((facts["tgid"], facts["start"]), facts["exec_id"])
        executable = describe.executable(program or None)
        if not executable and facts["exe_key"]:
            file = self.mirror.file(cpu, decode.signed(facts["exe_key"]))
            if file is not None and "file" in file.sections:
                executable = names.original(file.sections["file"].get("path", ""), file.raw.get("file_path"))
        raw: dict[str, str] = {}
        sections = self.tasks.parts(facts, executable, tail[: values["cgroup_bytes"]], raw, full=False)
        self.mirror.put_task(cpu, facts["tid"], sections, raw)

    def _slow(self) -> None:
        cpu = int(self._state[fastpath.CPU])
        raw = self.order.record_bytes(cpu)
        if raw[0] | raw[1] << 8 == events.DEF_SESSION:
            self._session(cpu, raw)
            self.order.advance(cpu, raw)
            return
        record = decode.bulk(raw, cpu)
        values = record.values
        values["seq"] = self.order.number(cpu, values["seq"])
        self.order.advance(cpu, raw)
        if not self.order.arrived(cpu, values["seq"], values["ts"]):
            return
        found, task, task_raw = self._named(cpu, record)
        if values["kf"] & events.BEGIN:
            self.mirror.put_session(values["session"], values["generation"], cpu, values["key"], values["tid"])
        found = Names(found.sections, found.ebpf, found.raw | task_raw)
        self._line(record, found, task)

    def _session(self, cpu: int, raw: bytes) -> None:
        values = decode.session(raw)
        self.mirror.put_session(values["session"], values["generation"], cpu, values["key"], values["tid"])

    def _named(self, cpu: int, record: Record) -> tuple[Names, Document, dict[str, str]]:
        """Object, task sections and the task's raw names of a bulk record; an unknown one is counted and left out."""
        values = record.values
        kf = values["kf"]
        owner = values.get("reason", 0) >= 2
        session = None
        if not kf & (events.UNNAMED | events.BEGIN) and not (kf & events.CLAIMED and not kf & events.ADDRESS):
            session = self.mirror.session(values["session"], values["generation"])
        task, raw = Document(), {}
        if owner:
            if session is not None:
                task, raw = session[1], session[2]
        else:
            known = self.mirror.task(cpu, values["tid"])
            if known is None:
                task = {"process": {"thread": {"id": values["tid"]}}}
                self.counts.unresolved += 1
            else:
                task, raw = known
        if session is not None:
            self._subtract(values, session[3])
        return self._object(cpu, record, session[0] if session is not None else None), task, raw

    def _object(self, cpu: int, record: Record, of_session: Names | None) -> Names:
        values = record.values
        kf = values["kf"]
        if kf & events.UNNAMED:
            return Names()
        base = self.mirror.file(cpu, values["key"]) if kf & (events.BEGIN | events.RELATIVE) else of_session
        if kf & events.CLAIMED:
            return describe.bulk_claim(record, base)
        if base is None:
            self.counts.unresolved += 1
            return Names(ebpf={"unresolved": True})
        return base

    @staticmethod
    def _subtract(values: dict[str, Any], reported: list[int]) -> None:
        for member, before in zip(("read_count", "read_bytes", "write_count", "write_bytes"), reported, strict=True):
            if member in values:
                values[member] -= before
