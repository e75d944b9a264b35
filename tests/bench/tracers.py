"""A monitor under measurement, and one measured run under it. Its peers: peers.py.

Owns their processes and the comparison of truth, log and ledger; never prints and never judges speed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from monitor import frames
from monitor.kernel import bpf, rings
from tests import compiled
from tests.bench.load import LOAD_CPU, NICE, ROOT, Load, LoadRun, Tally, check, tally

MONITOR_CPU = 1
EVERYWHERE = ("taskset", "-c", f"0-{(os.cpu_count() or 1) - 1}")
"""All CPUs: the benchmark's own process, whose children they are, keeps to one."""
START_SECONDS, SETTLE_SECONDS, STOP_SECONDS = 120, 120, 60
_LOOK_BACK, _LINE_ROOM = 32 << 20, 1 << 16
_FEW = 1000

# --- the monitor ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CpuTime:
    """CPU time of a process in seconds: the kernel's split (ticks), and the exact sum over its threads."""

    user: float
    system: float
    exact: float


def cpu_time(pid: int) -> CpuTime:
    """CPU time of process `pid` until now."""
    ticks = os.sysconf("SC_CLK_TCK")
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    exact = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile
            exact += int((task / "schedstat").read_text().split()[0])
    return CpuTime(int(parts[11]) / ticks, int(parts[12]) / ticks, exact / 1e9)


def memory(pid: int) -> dict[str, float]:
    """Resident memory of process `pid` in MB (10^6), by the names of /proc/PID/status."""
    wanted = ("VmRSS", "VmHWM", "RssAnon", "RssFile", "RssShmem")
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0][:-1]: round(int(words[1]) * 1024 / 1e6, 1) for words in lines if words and words[0][:-1] in wanted}


class Monitor:
    """One monitor in directories of its own, started as a service would start it, pinned to MONITOR_CPU; `free`: on all CPUs and
    without the niceness of the load, as on a host. Beside programs whose processes wait for each other a pinned one that goes
    before them decides where they run: a web server had 0.40 to 0.97 of its requests, 0.81 to 1.04 without (by turns)."""

    def __init__(
        self,
        directory: Path,
        profile: str,
        environment: dict[str, str] | None = None,
        *,
        cold: bool = False,
        free: bool = False,
        nice: int = NICE,
        **keys: object,
    ) -> None:
        self.directory, self.profile, self._cold, self._free, self._nice = directory, profile, cold, free, nice
        self.events, self.run_dir = directory / "events", directory / "run"
        self.pins = Path(f"/sys/fs/bpf/ebpf-monitor-bench-{os.getpid()}")
        self._environment = {**os.environ, **(environment or {})}
        self._config = directory / "config.json"
        self._ready = directory / "ready"
        self._process: subprocess.Popen[bytes] | None = None
        self._rotated = 0
        self._ready_at = 0.0
        self._name = "events.jsonl" + (".zst" if keys.get("log_compression") == "zstd" else "")
        self.lines = self.lost = self.last = 0
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        made = {
            "events_dir": str(self.events),
            "output_dir": str(directory / "outputs"),
            "run_dir": str(self.run_dir),
            "pin_dir": str(self.pins),
            "log_min_free": 0,  # what was rotated is counted, and removed, here
            "profile": profile,
            **keys,
        }
        self._config.write_text(json.dumps(made))
        self._config.chmod(0o640)

    @property
    def pid(self) -> int:
        """Of the running monitor."""
        check(self._process is not None, "the monitor does not run")
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        """The live log file."""
        return self.events / self._name

    def log_size(self) -> int:
        """Bytes of its lines."""
        with self.log.open("rb") as log:
            return self._view(log.fileno()).size()

    def _view(self, descriptor: int) -> frames.View:
        return frames.view(descriptor, self.log.suffix == ".zst")

    def start(self) -> float:
        """Starts it and waits until it is ready; the seconds that took. Raises BrokenBenchmark with its last words."""
        self._ready.unlink(missing_ok=True)
        place = EVERYWHERE if self._free else ("taskset", "-c", str(MONITOR_CPU), "nice", "-n", str(self._nice))
        files = ("--config", str(self._config), "--ready-file", str(self._ready))
        words = [*place, sys.executable, "-m", "monitor", "run", *files]
        if not self._cold:
            compiled.lend(self.directory / "outputs")
        began = time.monotonic()
        with (self.directory / "monitor.err").open("wb") as errors:
            self._process = subprocess.Popen(words, cwd=ROOT, env=self._environment, stdout=errors, stderr=errors)
        while not self._ready.exists():
            check(self._process.poll() is None, f"the monitor ended with {self._process.returncode}: {self._words()}")
            check(
                time.monotonic() - began < START_SECONDS,
                f"the monitor is not ready after {START_SECONDS} s: {self._words()}",
            )
            time.sleep(0.01)
        took, self._ready_at = time.monotonic() - began, time.time()
        compiled.keep(self.directory / "outputs")
        return took

    def _words(self) -> str:
        return (self.directory / "monitor.err").read_text(errors="replace")[-2000:]

    def status(self) -> dict[str, Any]:
        """The newest status.json; it is rewritten each second."""
        found: dict[str, Any] = orjson.loads((self.run_dir / "status.json").read_bytes())
        return found

    def last_status(self) -> dict[str, Any]:
        """The newest status of this run, up to a second old: for before a step, when the monitor has nothing to do."""
        with contextlib.suppress(FileNotFoundError):
            status = self.status()
            if status["time"] > self._ready_at:
                return status
        return self.fresh_status()

    def fresh_status(self) -> dict[str, Any]:
        """A status written after this call."""
        asked, deadline = time.time(), time.monotonic() + SETTLE_SECONDS
        while True:
            with contextlib.suppress(FileNotFoundError):  # before the first second
                status = self.status()
                if status["time"] > asked:
                    return status
            check(self._process is not None and self._process.poll() is None, f"the monitor ended: {self._words()}")
            check(time.monotonic() < deadline, f"no new status within {SETTLE_SECONDS} s: {self._words()}")
            time.sleep(0.05)

    def settle(self, pid: int, size: int) -> float:
        """Waits until the end of this process is in the log, and with it, lines being in order of time, all that it did;
        `size` is the log's length when the process ended. Returns when it was found.

        If that very event was lost, it waits until the monitor has nothing left to do.
        """
        began = time.monotonic()
        wanted = re.compile(rb'"event":"process_exit"[^\n]*"thread":\{"id":%d,' % pid)
        with self.log.open("rb") as log:
            there = self._view(log.fileno())
            at, held = max(size - _LOOK_BACK, 0), b""
            while True:
                fresh = there.pread(_LOOK_BACK, at)
                at += len(fresh)
                found = time.time()
                if wanted.search(held + fresh):
                    break
                held = (held + fresh)[-_LINE_ROOM:]
                if not fresh:
                    waited = time.monotonic() - began
                    if waited > 3 and self._idle() and self._idle():
                        break
                    check(waited < SETTLE_SECONDS, f"the end of process {pid} is not in the log: {self._words()}")
                    time.sleep(0.02)
        return found

    def _idle(self) -> bool:
        return int(self.fresh_status()["ledger"]["in_flight"]) < _FEW

    def take_log(self) -> Path:
        """Rotates the log as logrotate does; the finished file. The caller removes it."""
        self._rotated += 1
        taken = self.log.with_name(f"events.jsonl.{self._rotated}{self._name.removeprefix('events.jsonl')}")
        self.log.rename(taken)
        os.kill(self.pid, signal.SIGHUP)
        deadline = time.monotonic() + 20
        while not self.log.exists():
            check(time.monotonic() < deadline, "the log was not reopened after SIGHUP")
            time.sleep(0.01)
        return taken

    def skip(self, path: Path, lines: int, lost: int) -> None:
        """A finished file that was counted by others: it has so many lines, whose loss documents tell of so many events."""
        self.lines += lines
        self.lost += lost
        self.last += lines
        path.unlink()

    def read_log(self, path: Path, load: LoadRun | None) -> Tally:
        """Counts a finished file, holds it against the one before, and removes it."""
        found = tally(path, load)
        if found.lines:
            check(
                found.first == self.last + 1,
                f"the file begins at sequence {found.first}, the one before ended at {self.last}",
            )
            self.last = found.last
        self.lines += found.lines
        self.lost += sum(found.lost.values())
        path.unlink()
        return found

    def stop(self) -> list[str]:
        """Stops it regularly and holds its last ledger against every line it ever wrote; what does not agree."""
        os.kill(self.pid, signal.SIGTERM)
        assert self._process is not None
        check(
            self._process.wait(STOP_SECONDS) == 0, f"the monitor ended with {self._process.returncode}: {self._words()}"
        )
        self._process = None
        self.read_log(self.log, None)
        ledger = self.status()["ledger"]
        refused, lines, lost = sum(ledger["refused"].values()), self.lines, self.lost
        self.lines = self.lost = self.last = 0  # the next start begins an epoch
        rules = (
            (ledger["balanced"], "the ledger does not balance"),
            (ledger["in_flight"] == 0, f"{ledger['in_flight']} events were still in flight when it had stopped"),
            (ledger["logged"] == lines, f"the ledger says {ledger['logged']} lines, the log has {lines}"),
            (refused == lost, f"{refused} events were refused, loss documents tell of {lost}"),
        )
        return [f"after the stop: {text}: {ledger}" for holds, text in rules if not holds]

    def kill(self) -> None:
        """SIGKILL: capture stays."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(STOP_SECONDS)
        self._process = None

    def remove(self) -> None:
        """Ends what still runs and removes everything, pins first."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
            self._process = None
        for link in self.pins.glob("*/link_*"):
            link.unlink()
        shutil.rmtree(self.pins, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def running(directory: Path, profile: str, problems: list[str], **keys: object) -> Iterator[Monitor]:
    """A started monitor; stopped and checked at the end (into `problems`), removed whatever happens."""
    monitor = Monitor(directory, profile, **keys)  # type: ignore[arg-type]
    try:
        monitor.start()
        yield monitor
        problems += monitor.stop()
    finally:
        monitor.remove()


# --- one measured run -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One run of the load under a tracer: what happened, what was recorded."""

    load: LoadRun
    recorded: int
    """acts of the load that have a document (a line) of their own"""
    missing: int
    """acts without one: lost, or folded into totals under pressure"""
    lost: int
    """what loss records admit (on the load's CPU)"""
    folded: int
    user_us: float
    """user CPU of the tracer for each event it logged, in microseconds"""
    system_us: float
    backlog_s: float
    """from the end of the load until its end stood in the log"""
    events: int = 0
    """all events logged meanwhile, those of others included"""
    foreign: int = 0
    foreign_on_load_cpu: int = 0
    line_bytes: float = 0.0
    """mean length of a recorded line"""
    tally: Tally | None = None
    spared: int = 0
    """acts that are missing and do not count, by a peer's tolerance"""

    @property
    def lossless(self) -> bool:
        """Each act has a document of its own."""
        return self.missing == 0


@contextlib.contextmanager
def accounts(monitor: Monitor) -> Iterator[npt.NDArray[np.int64]]:
    """The kernel's accounts as the programs and the reader see them, a row for each CPU (monitor/kernel/rings.py)."""
    (path,) = monitor.pins.glob("*/map_accounts")
    descriptor = bpf.obj_get(path)
    try:
        size = bpf.map_info(descriptor).max_entries * rings.ACCOUNT_WORDS
        yield bpf.map_array(descriptor, size * 8, writable=False).view(np.int64).reshape(-1, rings.ACCOUNT_WORDS)
    finally:
        os.close(descriptor)


def measured(
    monitor: Monitor, load: Load, mode: str, seconds: float, rate: float = 0, begin: Callable[[], None] = lambda: None
) -> Step:
    """Runs the load under `monitor` and counts what reached the log. `account` judges the counts. `begin` comes just before."""
    before = monitor.last_status()
    monitor.read_log(monitor.take_log(), None)
    begin()
    cpu_before = cpu_time(monitor.pid)
    run = load.run(mode, seconds, rate)
    ended = time.time()
    stood = monitor.settle(run.pid, monitor.log_size())
    cpu_after = cpu_time(monitor.pid)  # what it does while we wait for its status is not for these events
    after = monitor.fresh_status()
    found = monitor.read_log(monitor.take_log(), run)
    folded = after["ledger"]["folded"] - before["ledger"]["folded"]
    received = max(after["ledger"]["received"] - before["ledger"]["received"], 1)
    missing = run.total - sum(found.mine.values())
    return Step(
        run,
        sum(found.mine.values()),
        missing,
        found.lost[LOAD_CPU],
        folded,
        (cpu_after.user - cpu_before.user) / received * 1e6,
        (cpu_after.system - cpu_before.system) / received * 1e6,
        max(stood - ended, 0.0),
        received,
        sum(found.foreign.values()),
        found.foreign_on_load_cpu,
        found.bytes / max(found.lines, 1),
        found,
    )


def account(step: Step, others: int | None) -> int:
    """Holds a step against the truth: missing = lost + folded. Returns how many more events the records give up than
    the load misses: those of others, 0 on a quiet machine. `others`: how many events of others were recorded where the load
    lost its own; None: others' events fold all the time, there is no bound.

    Raises BrokenBenchmark when documents are more than acts, when acts are missing that no record admits, and when more
    is given up than others can have done.
    """
    found, acts = step.tally, step.load.acts
    assert found is not None
    for kind, count in found.mine.items():
        check(count <= acts[kind], f"{count} documents of {kind}, but {acts[kind]} acts")
    told = f"{step.load.total} acts, {step.recorded} documents, {step.lost} lost, {step.folded} folded"
    excess = step.lost + step.folded - step.missing
    check(excess >= 0, f"{-excess} acts vanished in silence: {told}")
    # others that lost as large a part as the load did, and three times that
    check(
        others is None or excess <= 3 * others * max(step.load.total / max(step.recorded, 1), 1),
        f"{excess} more are given up than were missing: {told}; {others} events of others",
    )
    if step.lost == 0:
        for kind in ("file_read", "file_write"):
            check(
                found.totals[kind] == acts[kind],
                f"the closes' totals say {found.totals[kind]} of {kind}, but {acts[kind]} acts",
            )
    return excess
