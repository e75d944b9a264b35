"""Is a log directory whole: every line readable, every number there once, every epoch linked to the one before?

Owns the checks and their report; it only reads, and it never repairs anything.
"""

from __future__ import annotations

import collections
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monitor import reader
from monitor.compact import Part, neutral, part
from monitor.reader import Document, Line, Problem

EXIT_WHOLE, EXIT_FINDINGS = 0, 1
MOST_SHOWN = 20
_IN_ONE_BATCH = 4096  # documents of the monitor itself that may stand before a heartbeat in its batch
_GROWTH_S = 1.0
_EVENT_ID = re.compile(r"([0-9a-f]{8})-([0-9a-f]{16})-([0-9a-f]{12})")
_EQUATION = ("logged", "quarantined", "unwritten", "filtered")


@dataclass(frozen=True)
class Finding:
    """Something that should not be: its kind, where it is, and what it is, in words."""

    kind: str
    where: str
    text: str


@dataclass
class Epoch:
    """One run of the monitor as its lines show it."""

    name: str
    first: int
    boot: str = ""
    last: int = 0
    lines: int = 0
    started: bool = False
    stopped: bool = False
    previous: tuple[str, int] | None = None
    missing: list[tuple[int, int]] = field(default_factory=list)
    """holes: first and last number"""


@dataclass
class Report:
    """What a verification found. `losses`: events lost per class, as the log itself says; they are no findings."""

    directory: Path
    files: int = 0
    lines: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    losses: collections.Counter[str] = field(default_factory=collections.Counter)
    notes: list[str] = field(default_factory=list)
    index: list[dict[str, Any]] = field(default_factory=list)
    """of each day, how it compares with the index, where that was asked for (monitor.verify_index)"""

    @property
    def exit_status(self) -> int:
        """0, or 1 with findings."""
        return EXIT_FINDINGS if self.counts else EXIT_WHOLE

    def find(self, kind: str, where: str, text: str) -> None:
        """Adds a finding; of each kind the first MOST_SHOWN are kept, all are counted."""
        self.counts[kind] += 1
        if self.counts[kind] <= MOST_SHOWN:
            self.findings.append(Finding(kind, where, text))

    def document(self) -> dict[str, Any]:
        """For `verify --json`."""
        return {
            "directory": str(self.directory), "whole": not self.counts, "files": self.files, "lines": self.lines,
            "epochs": [
                {"epoch": one.name, "first": one.first, "last": one.last, "lines": one.lines, "stopped": one.stopped}
                for one in self.epochs
            ],
            "losses": dict(self.losses), "findings": dict(self.counts),
            "details": [{"kind": one.kind, "where": one.where, "text": one.text} for one in self.findings],
            "notes": self.notes, "index": self.index,
        }  # fmt: skip

    def text(self) -> str:
        """For people, ending in a newline."""
        rows = [f"{self.directory}: {self.lines:,} lines in {self.files} files, {len(self.epochs)} runs of the monitor"]
        rows += [
            f"  lost, and recorded as lost: {count:,} {name} events" for name, count in sorted(self.losses.items())
        ]
        rows += [f"  note: {note}" for note in self.notes]
        rows += [f"  {one.kind}: {one.where}: {one.text}" for one in self.findings]
        rows += [f"  {kind}: {count - MOST_SHOWN:,} more" for kind, count in self.counts.items() if count > MOST_SHOWN]
        total = sum(self.counts.values())
        rows.append(f"{total:,} findings" if total else "no findings: the log is whole")
        return "".join(neutral(row) + "\n" for row in rows)


class _Check:
    """One pass over the lines."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.epochs: dict[str, Epoch] = {}
        self.current: Epoch | None = None
        self.files: set[Path] = set()

    def line(self, line: Line) -> None:
        if line.file.path not in self.files:
            self.files.add(line.file.path)
            self.report.files += 1
        if line.torn and line.file.live and _grows(line):
            self.report.notes.append("the log is being written: what came after the check began is not checked")
            return
        decoded = reader.decode_line(line)
        if isinstance(decoded, Problem):
            self.report.find("torn" if line.torn else "unparsable", _place(line), decoded.reason)
            return
        self.report.lines += 1
        self.document(decoded)

    def document(self, document: Document) -> None:
        line, fields = document
        event = part(fields, "event")
        identity = _identity(event)
        if identity is None:
            self.report.find("foreign", _place(line), "not a document of the monitor: it has no event.id of its form")
            return
        host, name, number = identity
        sequence = event.get("sequence")
        if sequence != number:
            self.report.find("event.id", _place(line), f"event.id says number {number}, event.sequence is {sequence}")
        agent = part(fields, "agent").get("id")
        if agent != host:
            self.report.find("event.id", _place(line), f"event.id says host {host}, agent.id is {agent}")
        epoch = self._epoch(line, name, number, fields)
        self._number(line, epoch, number)
        self._meaning(line, epoch, number, fields)

    def _epoch(self, line: Line, name: str, number: int, fields: dict[str, Any]) -> Epoch:
        epoch = self.epochs.get(name)
        if epoch is None:
            epoch = self.epochs[name] = Epoch(name, number, str(part(part(fields, "host"), "boot").get("id", "")))
            if number != 1 and self.report.epochs:
                epoch.missing.append((1, number - 1))
                self.report.find("hole", _place(line), f"epoch {name} begins with {number}, not with 1")
            elif number != 1:
                self.report.notes.append(f"the log begins with number {number:,} of epoch {name}: older files are gone")
            epoch.last = number - 1
            self.report.epochs.append(epoch)
        elif self.current is not epoch and self.current is not None:
            self.report.find("order", _place(line), f"epoch {name} goes on after epoch {self.current.name} began")
        self.current = epoch
        return epoch

    def _number(self, line: Line, epoch: Epoch, number: int) -> None:
        epoch.lines += 1
        if number == epoch.last + 1:
            epoch.last = number
        elif number > epoch.last:
            missing = (epoch.last + 1, number - 1)
            epoch.missing.append(missing)
            epoch.last = number
            text = f"epoch {epoch.name}: {_range(missing)} missing"
            self.report.find("hole", _place(line), text)
        elif any(first <= number <= last for first, last in epoch.missing):
            self.report.find("order", _place(line), f"epoch {epoch.name}: number {number} stands behind {epoch.last}")
        else:
            epoch.lines -= 1
            self.report.find("repeat", _place(line), f"epoch {epoch.name}: number {number} stands there again")

    def _meaning(self, line: Line, epoch: Epoch, number: int, fields: dict[str, Any]) -> None:
        ebpf = part(fields, "ebpf")
        event = ebpf.get("event")
        if event == "monitor_loss":
            loss = part(ebpf, "loss")
            count = loss.get("count")
            if isinstance(count, int) and count > 0:
                self.report.losses[str(loss.get("class"))] += count
        elif event == "monitor_heartbeat":
            self._ledger(line, epoch, number, part(ebpf, "ledger"))
        elif event == "monitor_stop":
            epoch.stopped = True
        elif event == "monitor_start":
            epoch.started = True
            before = part(ebpf, "previous")
            if before:
                sequence = before.get("sequence")
                epoch.previous = str(before.get("epoch")), sequence if isinstance(sequence, int) else -1
            self._chain(line, epoch)

    def _chain(self, line: Line, epoch: Epoch) -> None:
        """The run before must end where this one says, or must have ended in order."""
        earlier = (
            self.report.epochs[self.report.epochs.index(epoch) - 1] if epoch is not self.report.epochs[0] else None
        )
        if earlier is None:
            return
        if epoch.previous is None:
            if not earlier.stopped and earlier.boot == epoch.boot:
                text = f"epoch {earlier.name} has no monitor_stop, and epoch {epoch.name} does not say where it ended"
                self.report.find("chain", _place(line), text)
            elif not earlier.stopped:
                self.report.notes.append(
                    f"the host went down during epoch {earlier.name}: its last events may be missing"
                )
            return
        name, sequence = epoch.previous
        if name != earlier.name:
            self.report.find(
                "chain", _place(line), f"epoch {epoch.name} follows epoch {name}, but {earlier.name} stands before it"
            )
        elif sequence > earlier.last:
            earlier.missing.append((earlier.last + 1, sequence))
            self.report.find(
                "hole", _place(line), f"epoch {name}: {_range((earlier.last + 1, sequence))} missing at its end"
            )
        elif sequence < earlier.last:
            self.report.find(
                "chain", _place(line), f"epoch {name} ended with {sequence}, but the log has {earlier.last}"
            )

    def _ledger(self, line: Line, epoch: Epoch, number: int, ledger: Part) -> None:
        counts = {name: ledger.get(name) for name in ("received", "made", *_EQUATION)}
        known = {name: count for name, count in counts.items() if isinstance(count, int)}
        if len(known) != len(counts):
            self.report.find("ledger", _place(line), "the heartbeat's ledger is not complete")
            return
        arrived, kept = known["received"] + known["made"], sum(known[name] for name in _EQUATION)
        if arrived != kept:
            self.report.find("ledger", _place(line), f"received and made {arrived}, but {kept} are accounted for")
        logged = known["logged"]
        if not number - 1 - _IN_ONE_BATCH <= logged <= number - 1:
            text = f"the heartbeat counts {logged} lines of epoch {epoch.name}, the log has {number - 1} before it"
            self.report.find("ledger", _place(line), text)


def _identity(event: Part) -> tuple[str, str, int] | None:
    """(host, epoch, sequence) of event.id."""
    match = _EVENT_ID.fullmatch(str(event.get("id", "")))
    return None if match is None else (match[1], match[2], int(match[3], 16))


def _grows(line: Line) -> bool:
    """Whether somebody is just writing the live file's last line: then it is not torn, but not complete yet."""
    deadline = time.monotonic() + _GROWTH_S
    end = line.offset + len(line.raw)
    while time.monotonic() < deadline:
        try:
            if os.stat(line.file.path, follow_symlinks=False).st_size > end:
                return True
        except OSError:
            return False
        time.sleep(0.02)
    return False


def _place(line: Line) -> str:
    return f"{line.file.path}, byte {line.offset}"


def _range(numbers: tuple[int, int]) -> str:
    first, last = numbers
    return f"number {first}" if first == last else f"{last - first + 1:,} numbers, {first} to {last},"


def check(directory: Path) -> Report:
    """Reads the whole log of `directory`. Raises ReaderError if it cannot be listed."""
    report = Report(directory)
    run = _Check(report)
    problems: list[Problem] = []
    for line in reader.lines(directory, on_problem=problems.append):
        _tell(report, problems)
        run.line(line)
    _tell(report, problems)
    return report


def _tell(report: Report, problems: list[Problem]) -> None:
    for problem in problems:
        report.find("damaged", f"{problem.path}, byte {problem.offset}", problem.reason)
    problems.clear()
