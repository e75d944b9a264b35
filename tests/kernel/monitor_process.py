"""A real monitor as a subprocess, its log as documents, and the promises that every test checks: order, density, ledger.

Owns private directories and the monitor's start and stop; never says what a document should contain.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests import compiled
from tests.kernel.acts import ACTOR, NOOP, Script, compile_c

ROOT = Path(__file__).resolve().parents[2]
Document = dict[str, Any]
PATIENCE = float(os.environ.get("EBPF_MONITOR_PATIENCE", "1"))
"""All deadlines of these tests are so many times as long: for an emulated machine."""
_HEAD = re.compile(
    rb'-([0-9a-f]{12})","sequence":(\d+)\},(?:"error":\{[^}]*\},)?"ebpf":\{"event":"(\w+)","schema":\d+,"timestamp_ns":(\d+)(,"cpu")?'
)
_WHO = re.compile(rb'"entity_id":"([^"]*)","pid":(\d+)')
_PARENT = re.compile(rb'"parent":\{"pid":(\d+)')
_MOST = 4 << 30


class Journal:
    """An index of the log as far as it is written; checks density and order while it reads.

    Documents are parsed when they are asked for: a busy machine's log must not fill the test's memory.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._at = 0
        self.sequence = 0
        self.broken: list[str] = []
        self.made: list[Document] = []
        self.found: list[Document] = []
        """of the scan at start"""
        self.born: dict[int, list[tuple[int, str]]] = defaultdict(list)
        """children of a process: pid and entity_id"""
        self._places: dict[int, array[int]] = {}
        self._ended: set[int] = set()
        self._last = 0

    def begin(self) -> None:
        """Forgets the processes so far: their numbers come again."""
        self.poll()
        self.born.clear()
        self._places.clear()
        self._ended.clear()

    def complaints(self) -> list[str]:
        """What was wrong since the last call: one test tells it, not all that follow."""
        found, self.broken = self.broken[:5], []
        return found

    def poll(self) -> None:
        """Reads what was added until now: on a busy machine there is always more."""
        end = os.fstat(self._file).st_size
        while chunk := os.pread(self._file, min(1 << 24, end - self._at), self._at):
            whole = chunk[: chunk.rfind(b"\n") + 1]
            if not whole:
                return
            at = self._at
            for line in whole.splitlines(keepends=True):
                self._take(line, at)
                at += len(line)
            self._at = at
            assert at < _MOST, (
                f"{at} bytes in the log: something else on this machine makes too many events for these tests"
            )

    def _take(self, line: bytes, at: int) -> None:
        found = _HEAD.search(line)
        assert found is not None, line[:300]
        sequence, name, stamp = int(found[2]), found[3], int(found[4])
        if sequence != self.sequence + 1:
            self.broken.append(f"sequence {sequence} follows {self.sequence}")
        self.sequence = sequence
        if int(found[1], 16) != sequence:
            self.broken.append(f"event.id {found[1]!r} is not that of sequence {sequence}")
        if name.startswith(b"monitor_"):
            self.made.append(orjson.loads(line))
            return
        if name == b"process_found":
            self.found.append(orjson.loads(line))
            return
        if found[5] is not None:  # from a program on a CPU, not made by the reader
            if stamp < self._last:
                self.broken.append(f"sequence {sequence} is {self._last - stamp} ns earlier than one before it")
            self._last = stamp
        who = _WHO.search(line, found.end())
        pid = int(who[2]) if who else -1
        if name == b"process_fork" and (parent := _PARENT.search(line, found.end())):
            self.born[int(parent[1])].append((pid, who[1].decode() if who else ""))
        self._places.setdefault(pid, array("Q")).append(at)
        if name == b"process_exit":
            self._ended.add(pid)

    def ended(self, pid: int) -> bool:
        """Is this process's exit in the log?"""
        return pid in self._ended

    def pids(self) -> list[int]:
        """Processes that have documents."""
        return list(self._places)

    def documents(self, pid: int, entity: str = "") -> list[Document]:
        """A process's documents in the order of the log; of one entity_id only, if it is given."""
        found = [self._document(at) for at in self._places.get(pid, ())]
        return [one for one in found if not entity or one["process"]["entity_id"] == entity]

    def _document(self, at: int) -> Document:
        size = 1 << 14
        while not (line := os.pread(self._file, size, at)).partition(b"\n")[1]:
            size *= 4
        found: Document = orjson.loads(line.partition(b"\n")[0])
        return found

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


class MonitorProcess:
    """One run of `monitor run` with its own directories."""

    def __init__(self, directory: Path, environment: dict[str, str], **keys: Any) -> None:
        self.directory = directory
        self.pins = Path(f"/sys/fs/bpf/ebpf-monitor-events-{os.getpid()}")
        self.keys = {
            "events_dir": str(directory / "events"),
            "output_dir": str(directory / "output"),
            "run_dir": str(directory / "run"),
            "pin_dir": str(self.pins),
        } | keys
        (directory / "config.json").write_text(json.dumps(self.keys))
        (directory / "config.json").chmod(0o600)
        self._ready = directory / "ready"
        compiled.lend(directory / "output")
        with (directory / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "monitor",
                    "run",
                    "--config",
                    directory / "config.json",
                    "--ready-file",
                    self._ready,
                ],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        self._await_ready()
        compiled.keep(directory / "output")
        self.journal = Journal(directory / "events" / "events.jsonl")

    @property
    def pid(self) -> int:
        """The monitor's process id."""
        return self.process.pid

    def said(self) -> str:
        """What the monitor printed."""
        return (self.directory / "stderr").read_text(errors="replace")

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 60 * PATIENCE
        while not (self._ready.exists() and self._ready.read_text().strip() == str(self.process.pid)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                ended = self.process.poll()
                self.clean()
                pytest.fail(f"the monitor did not start ({ended}): {self.said()[-3000:]}", pytrace=False)
            time.sleep(0.01)

    # ---- documents ----
    def until(self, condition: Callable[[], object], what: str, seconds: float = 15) -> None:
        """Reads the log until the condition holds; fails at the deadline."""
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            self.journal.poll()
            if condition():
                return
            if self.process.poll() is not None:
                pytest.fail(f"the monitor ended with {self.process.returncode}: {self.said()[-3000:]}", pytrace=False)
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds} s in the log: {what}", pytrace=False)
            time.sleep(0.005)

    def lifetime(self, pid: int, seconds: float = 15) -> list[Document]:
        """All documents of what a process did, which has ended, once its exit is in the log; late hashes are the reader's."""
        self.until(lambda: self.journal.ended(pid), f"the exit of process {pid}", seconds)
        documents = self.journal.documents(pid)
        return [one for one in documents if name_of(one) != "process_hash" and not _of_the_actor(one)]

    def program(self, pid: int, seconds: float = 15) -> list[Document]:
        """The same between the program's exec and its exit, both left out: what the program itself did."""
        found = self.lifetime(pid, seconds)
        start = max(
            i for i, one in enumerate(found) if name_of(one) == "process_exec" and one["event"]["outcome"] == "success"
        )
        return found[start + 1 : -1]

    def lost(self, reason: str = "") -> int:
        """What the loss records in the log count so far, for one reason or all."""
        losses = [one["ebpf"]["loss"] for one in self.journal.made if name_of(one) == "monitor_loss"]
        return sum(loss["count"] for loss in losses if reason in ("", loss["reason"]))

    # ---- promises ----
    def status(self) -> Document:
        """The newest status.json."""
        found: Document = orjson.loads((self.directory / "run" / "status.json").read_bytes())
        return found

    def fresh_status(self, seconds: float = 5) -> Document:
        """A status.json that was written after this call."""
        now = time.time()
        self.until(
            lambda: (self.directory / "run" / "status.json").exists() and self.status()["time"] > now,
            "a new status",
            seconds,
        )
        return self.status()

    def check(self) -> None:
        """The promises: dense numbers, order, the ledger's equations, the ledger's lines in the log."""
        if (self.directory / "run" / "status.json").exists():
            status = self.status()
            self.until(
                lambda: self.journal.sequence >= status["sequence"],
                f"line {status['sequence']}, which the status counts",
            )
            self._check_ledger(status)
        assert self.journal.complaints() == []
        assert self.process.poll() is None, self.said()[-3000:]

    @staticmethod
    def _check_ledger(status: Document) -> None:
        ledger = status["ledger"]
        parts = sum(ledger["refused"].values()) + sum(ledger["suppressed"].values())
        assert ledger["kernel_seen"] == ledger["submitted"] + parts, ledger
        assert ledger["submitted"] == ledger["received"] + ledger["in_flight"] + ledger["died"], ledger
        assert ledger["in_flight"] >= 0, ledger
        assert (
            ledger["received"] + ledger["made"]
            == ledger["logged"] + ledger["filtered"] + ledger["quarantined"] + ledger["unwritten"]
        ), ledger
        assert ledger["balanced"] is True, ledger
        assert (ledger["quarantined"], ledger["unwritten"], ledger["torn"]) == (0, 0, 0), ledger
        assert ledger["logged"] == status["sequence"], "an epoch's lines are numbered from 1"

    def stop(self) -> None:
        """SIGTERM; everything that was promised for the end."""
        self.process.send_signal(signal.SIGTERM)
        ended = self.process.wait(30 * PATIENCE)
        assert ended == 0, self.said()[-3000:]
        self.journal.poll()
        status = self.status()
        self._check_ledger(status)
        made = self.journal.made
        assert self.lost() == sum(status["ledger"]["refused"].values())
        assert status["ledger"]["in_flight"] == 0, status["ledger"]
        assert self.journal.sequence == status["sequence"], "the log has the lines that the ledger counts"
        assert (name_of(made[0]), name_of(made[-1])) == ("monitor_start", "monitor_stop")
        assert self.journal.complaints() == []
        assert not list(self.pins.glob("*")), "a regular stop leaves nothing pinned"

    def clean(self) -> None:
        """Ends the process if it lives and removes what it pinned."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if hasattr(self, "journal"):
            self.journal.close()
        for link in self.pins.glob("*/link_*"):
            link.unlink()
        shutil.rmtree(self.pins, ignore_errors=True)


def _of_the_actor(document: Document) -> bool:
    """Is it the script's own memory, which the actor maps before its first step?"""
    return name_of(document) == "file_map" and document.get("file", {}).get("path") == "memfd:script"


def name_of(document: Document) -> str:
    """The catalogue name."""
    return str(document["ebpf"]["event"])


def wall_ns(document: Document) -> int:
    """@timestamp in ns since 1970."""
    whole, fraction = document["@timestamp"].rstrip("Z").split(".")
    return int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()) * 10**9 + int(fraction)


class Monitors:
    """Keeps one monitor running: the next test with the same configuration uses the same one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: MonitorProcess | None = None
        self._kind: object = None
        self._count = 0

    def get(self, environment: dict[str, str] | None = None, **keys: Any) -> MonitorProcess:
        """A monitor with these configuration keys. Stops one of another kind, and checks what it left."""
        kind = (sorted((environment or {}).items()), sorted(keys.items(), key=str))
        if self._running is not None and (kind != self._kind or self._running.process.poll() is not None):
            self.stop()
        if self._running is None:
            self._count += 1
            directory = self._directory / f"monitor-{self._count}"
            directory.mkdir()
            self._running, self._kind = MonitorProcess(directory, environment or {}, **keys), kind
        return self._running

    def stop(self) -> None:
        """Stops what runs."""
        running, self._running = self._running, None
        if running is not None:
            try:
                running.stop()
            finally:
                running.clean()


@pytest.fixture(scope="session")
def public() -> Iterator[Path]:
    """A directory that every user may enter: pytest keeps its own for one user."""
    with tempfile.TemporaryDirectory(prefix="ebpf-monitor-tests-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory).resolve()


@pytest.fixture(scope="session")
def programs(public: Path) -> Path:
    """A directory for compiled programs, with `actor` and `noop`."""
    directory = public / "programs"
    directory.mkdir()
    directory.chmod(0o755)
    compile_c(directory, "actor", ACTOR)
    compile_c(directory, "noop", NOOP)
    return directory


@pytest.fixture(scope="session")
def monitors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitors]:
    """The one monitor that runs."""
    kept = Monitors(tmp_path_factory.mktemp("monitors"))
    yield kept
    kept.stop()


@pytest.fixture(scope="module")
def running(monitors: Monitors, request: pytest.FixtureRequest) -> MonitorProcess:
    """A monitor with the configuration keys of the module's parameter (default: profile full)."""
    keys = dict(getattr(request, "param", None) or {"profile": "full"})
    environment = keys.pop("environment", {})
    return monitors.get(environment, **keys)


@pytest.fixture
def monitor(running: MonitorProcess) -> Iterator[MonitorProcess]:
    """The module's monitor; its promises are checked after the test."""
    running.journal.begin()
    yield running
    running.check()


@pytest.fixture
def script(programs: Path) -> Iterator[Script]:
    """An empty script for the actor."""
    made = Script(programs / "actor")
    yield made
    made.close()


@pytest.fixture
def place(public: Path) -> Path:
    """A directory for the acts, by its true name; every user may enter it."""
    made = Path(tempfile.mkdtemp(prefix="acts-", dir=public))
    made.chmod(0o755)
    return made
