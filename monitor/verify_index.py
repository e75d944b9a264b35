"""Do log and index say the same, day by day: which lines have no document, and which documents have no line.

Owns the comparison of ids; it only reads. What is not delivered yet, withheld by the profile or in the dead-letter file is told,
and is no finding. Takes memory for the runs of numbers, not for the lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from monitor import reader
from monitor.cluster import Cluster
from monitor.logfiles import Problem, line_identity
from monitor.ship import checkpoint, deadletters
from monitor.ship.batches import Position, Selection
from monitor.verify import Report

_PAGE = 10_000

Kind = Literal["sent", "waiting", "withheld"]


@dataclass
class Day:
    """One day (UTC) of event times: lines of the log, and what became of them."""

    day: str
    lines: int = 0
    indexed: int = 0
    missing: int = 0
    waiting: int = 0
    withheld: int = 0
    dead_letters: int = 0
    extra: int = 0

    def __str__(self) -> str:
        words = [f"{self.lines:,} lines", f"{self.indexed:,} in the index"]
        others = {"missing": self.missing, "not delivered yet": self.waiting, "withheld by the profile": self.withheld,
                  "in the dead-letter file": self.dead_letters, "in the index only": self.extra}  # fmt: skip
        return f"{self.day}: " + ", ".join(words + [f"{count:,} {word}" for word, count in others.items() if count])


@dataclass
class _Log:
    """The log's numbers: for each day and run of a monitor (host-epoch) ascending runs (first, last, kind)."""

    runs: dict[str, dict[str, list[tuple[int, int, Kind]]]] = field(default_factory=dict)

    def add(self, day: str, epoch: str, number: int, kind: Kind) -> None:
        found = self.runs.setdefault(day, {}).setdefault(epoch, [])
        if found and found[-1][1] == number - 1 and found[-1][2] == kind:
            found[-1] = (found[-1][0], number, kind)
        else:
            found.append((number, number, kind))


def _read(directory: Path, done: Position | None, wanted: Selection) -> _Log:
    """Every numbered line. What is behind `done`, in the order of the log, has not been delivered yet."""
    log, problems = _Log(), list[Problem]()  # problems are the plain verification's to tell
    passed = done is None
    for line in reader.lines(directory, on_problem=problems.append):
        identity = None if line.torn else line_identity(line.raw)
        if identity is None:
            continue
        name, position, _, time = identity
        kind: Kind = "sent"
        if not wanted.takes(line.raw, 0, len(line.raw)):
            kind = "withheld"
        elif done is not None and passed and position[0] != done[0]:
            kind = "waiting"
        elif done is not None and position[0] == done[0]:
            passed = True
            kind = "waiting" if position[1] > done[1] else "sent"
        log.add(time[:10], name.rpartition("-")[0], position[1], kind)
    return log


def _dead(ship_dir: Path) -> dict[str, list[int]]:
    """Numbers of the rejected documents of each host-epoch, ascending."""
    found: dict[str, set[int]] = {}
    for name in (deadletters.NAME, deadletters.RETRY_NAME):
        for letter in deadletters.letters(ship_dir / name):
            epoch, _, number = letter.identity.rpartition("-")
            if epoch:
                found.setdefault(epoch, set()).add(int(number, 16))
    return {epoch: sorted(numbers) for epoch, numbers in found.items()}


def _without(first: int, last: int, numbers: list[int]) -> Iterator[tuple[int, int]]:
    """The ranges that are left of one when these numbers are taken out."""
    for number in numbers:
        if first <= number <= last:
            if first < number:
                yield first, number - 1
            first = number + 1
    if first <= last:
        yield first, last


def compare(
    report: Report,
    ship_dir: Path,
    cluster: Cluster,
    indices: str,
    profile: str,
    on_day: Callable[[str], None] = lambda _: None,
) -> None:
    """Adds the comparison of the report's log directory with the indices to the report. Raises ClusterError, EsError, OSError.

    `profile` is es_config.profile. Without a checkpoint in `ship_dir` everything ought to be delivered.
    """
    state = checkpoint.read(ship_dir)
    log = _read(report.directory, state.done if state else None, Selection.of(profile))
    dead = _dead(ship_dir)
    for name in sorted(log.runs):
        on_day(f"comparing {name}")
        day = Day(name)
        for epoch, runs in log.runs[name].items():
            _compare(report, day, epoch, runs, _indexed(cluster, indices, name, epoch, runs), dead.get(epoch, []))
        report.index.append(asdict(day))
        report.notes.append(str(day))


def _indexed(cluster: Cluster, indices: str, day: str, epoch: str, runs: list[tuple[int, int, Kind]]) -> Iterator[int]:
    """Numbers that the index has of a day and epoch between the log's first and last one, ascending."""
    ids = {"gte": f"{epoch}-{runs[0][0]:012x}", "lte": f"{epoch}-{runs[-1][1]:012x}"}
    span = {"gte": f"{day}T00:00:00Z", "lt": f"{day}T00:00:00Z||+1d"}
    query = {"bool": {"filter": [{"range": {"event.id": ids}}, {"range": {"@timestamp": span}}]}}
    for page in cluster.pages(indices, query, source=False, size=_PAGE):
        for hit in page:
            yield int(str(hit["_id"]).rpartition("-")[2], 16)


def _compare(
    report: Report, day: Day, epoch: str, runs: list[tuple[int, int, Kind]], indexed: Iterator[int], dead: list[int]
) -> None:
    number = next(indexed, None)
    for first, last, kind in runs:
        day.lines += last - first + 1
        while number is not None and number < first:
            _extra(report, day, epoch, number)
            number = next(indexed, None)
        at = first
        while number is not None and number <= last:
            _gap(report, day, epoch, (at, number - 1, kind), dead)
            day.indexed += 1
            at = number + 1
            number = next(indexed, None)
        _gap(report, day, epoch, (at, last, kind), dead)
    while number is not None:
        _extra(report, day, epoch, number)
        number = next(indexed, None)


def _extra(report: Report, day: Day, epoch: str, number: int) -> None:
    day.extra += 1
    report.find("extra", day.day, f"{epoch}-{number:012x} is in the index, but not in the log")


def _gap(report: Report, day: Day, epoch: str, gap: tuple[int, int, Kind], dead: list[int]) -> None:
    first, last, kind = gap
    count = max(0, last - first + 1)
    if kind == "waiting":
        day.waiting += count
    elif kind == "withheld":
        day.withheld += count
    elif count:
        for start, end in _without(first, last, dead):
            day.missing += end - start + 1
            count -= end - start + 1
            ids = f"{epoch}-{start:012x}" + (f" to {epoch}-{end:012x}" if end > start else "")
            report.find("missing", day.day, f"not in the index: {ids} ({end - start + 1:,})")
        day.dead_letters += count
