"""More than usual: many seconds at what the disk takes, a compressed log at a million writes a second, both CPUs generating, a
reader that stands still, a soak.

Owns how these runs are made and counted; each is held against the generator's counts and the ledger.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monitor import frames
from monitor.kernel import rings
from tests.bench import tracers
from tests.bench.figures import Figure
from tests.bench.load import LOAD_NAME, NICE, Load, LoadRun, check, counted
from tests.bench.sequences import read_again
from tests.bench.tracers import Monitor, Step

Note = Callable[[str, Step], Step]
_EXTRAS = 64  # lines of a load's process that are no acts of its: its beginning and end, what its exit closes


@dataclass(frozen=True)
class Stress:
    """One session's parts that these runs need, and how long they last. `note` keeps a step and judges its counts."""

    directory: Path
    load: Load
    note: Note
    problems: list[str]
    long_s: float
    compressed_s: float
    contended_s: float
    stall_s: float
    soak_s: float
    """0: none"""
    cycles: int
    """of the mix, to be read again one by one"""
    sequence_rate: float
    rate: float
    """acts a second of the compressed run; half of it while the reader stands still"""

    def sequences(self) -> list[Figure]:
        """Cycles of the mix, at a rate that keeps no ring full, read again from the log one by one."""
        with tracers.running(self.directory / "sequences", "trace", self.problems) as monitor:
            monitor.read_log(monitor.take_log(), None)
            run = self.load.run("mix", self.cycles * 7 / self.sequence_rate, self.sequence_rate)
            monitor.settle(run.pid, monitor.log_size())
            taken = monitor.take_log()
            found, count = read_again(taken, run, self.load.tree), counted(taken, b'"reason":"degraded"')
            monitor.skip(taken, count.lines, count.lost)
        if found.wrong and not (count.lost or count.found[0]):  # what was given up is no line; it is counted elsewhere
            self.problems.append(f"{found.wrong} of {found.wrong + found.right} cycles are not in the log as they were: {found.words}")
        told = f"of {found.right + found.wrong:,} consecutive ones, at {run.rate:,.0f} events/s: order, path, call, result, totals"
        return [Figure("sequences open, read, write, close that the log has wrong", [found.wrong], "", 0, note=told)]

    def steady(self) -> list[Figure]:
        """The mix, folding off, plain log: the lesser of half the compressed rate and 80 % of what the disk takes of such lines."""
        with tracers.running(self.directory / "steady", "trace", self.problems) as monitor:
            probe = _counted(monitor, self.problems, [self.load], "mix", 0.1, self.rate / 10)
            disk = _disk(monitor.events, self.long_s / 5) / probe.line
            wanted = min(self.rate / 2, 0.8 * disk)
            found = _counted(monitor, self.problems, [self.load], "mix", self.long_s, wanted)
            memory = tracers.memory(monitor.pid)["VmRSS"]
        told = f"{found.rate:,.0f} events/s; the disk takes {disk:,.0f} such lines/s; told in totals instead: {found.folded}"
        return [
            Figure(f"events lost or folded in {self.long_s:g} s", [found.lost + found.folded], "", 0, note=told),
            Figure("user CPU per event in that", [found.user_us], "us", 0.3),
            Figure("resident memory after that", [memory], "MB", 256),
        ]

    def compressed(self) -> list[Figure]:
        """Writes only, folding off: from the wanted rate downwards until none is missing."""
        rate, seconds, tried = self.rate, self.compressed_s, list[str]()
        with tracers.running(
            self.directory / "zstd", "trace", self.problems, log_compression="zstd", ring_bytes=64 << 20
        ) as monitor:
            for _ in range(4):
                found = _counted(monitor, self.problems, [self.load], "w", seconds, rate)
                tried.append(f"{found.rate:,.0f}/s for {seconds:g} s: {found.lost + found.folded} missing")
                if not found.lost + found.folded:
                    break
                rate, seconds = rate * 0.85, self.compressed_s / 6
        good = [found.rate] if not found.lost + found.folded else []
        note = "writes only, folding off; " + ", ".join(tried)
        return [
            Figure("lossless rate, compressed log", good, "events/s", 1_000_000, True, note),
            Figure("user CPU per event, compressed log", [found.user_us], "us", 0.6, note="lines and frames"),
            Figure("system CPU per event, compressed log", [found.system_us], "us"),
            Figure("bytes on the disk per event, compressed log", [found.disk], "bytes", note=f"of {found.line:.0f}"),
        ]

    def pressed(self) -> list[Figure]:
        """One monitor for each form of the log, 64 MB of rings in all: both CPUs generate, then the reader stands still.

        Where it competes for a CPU it has twice the load's weight, as its unit has (CPUWeight=200): three steps of niceness.
        """
        found = []
        for compression, form in (("none", "plain log"), ("zstd", "compressed log")):
            directory, keys = self.directory / "pressed", {"ring_bytes": 64 << 20, "log_compression": compression}
            with tracers.running(directory, "trace", self.problems, nice=NICE - 3, **keys) as monitor:
                found += self._contended(monitor, form)
                if compression == "zstd":  # with plain lines the disk decides, and it takes a quarter of a minute more
                    found += self._stalled(monitor, form)
        return found

    def _contended(self, monitor: Monitor, form: str) -> list[Figure]:
        """A generator on each CPU, flat out, the monitor competing with one of them."""
        found = _counted(monitor, self.problems, [self.load, self.load], "mix", self.contended_s, 0)
        told = f"{found.rate:,.0f} acts/s; told in totals instead: {100 * found.folded / found.acts:.1f} %"
        return [
            Figure(f"acts lost, a generator on each CPU, flat out, {form}", [100 * found.lost / found.acts], "%", 0, note=told),
            Figure(f"control events lost in that, {form}", [found.control_lost], "", 0),
        ]

    def _stalled(self, monitor: Monitor, form: str) -> list[Figure]:
        """The reader stands still, for a second at 500,000 acts a second; and how fast it takes what waits then."""

        def stall() -> None:
            for after, number in ((0.5 * self.stall_s, signal.SIGSTOP), (1.5 * self.stall_s, signal.SIGCONT)):
                threading.Timer(after, os.kill, (monitor.pid, number)).start()

        step = tracers.measured(monitor, self.load, "mix", 1.8 * self.stall_s, self.rate / 2, stall)
        self.note("monitor, stalled", step)
        drained = [self._drain(monitor) for _ in range(3)]
        share = 100 * step.missing / step.load.total
        told = f"64 MB of rings in all; {step.load.rate:,.0f} acts/s; {step.lost} lost, {step.folded} told in totals instead"
        return [
            Figure(f"acts without a document, reader stalled for {self.stall_s:g} s, {form}", [share], "%", 0, note=told),
            Figure(f"drain of a filled ring, {form}", drained, "events/s", 3_000_000, True, "lines written to the log's disk"),
        ]

    def _drain(self, monitor: Monitor) -> float:
        """Events a second with which the reader takes what came while it stood still."""
        with tracers.accounts(monitor) as rows:
            os.kill(monitor.pid, signal.SIGSTOP)
            try:
                numbered = int(rows[:, rings.SEQ].sum())
                self.load.run("w", self.contended_s / 6, self.rate / 2)
                events = int(rows[:, rings.SEQ].sum()) - numbered
                target, began = int(rows[:, rings.HEAD].sum()), time.monotonic()
                waiting = target - int(rows[:, rings.TAIL].sum())
            finally:
                os.kill(monitor.pid, signal.SIGCONT)
            while int(rows[:, rings.TAIL].sum()) < target:
                check(time.monotonic() - began < 60, "the reader does not take what is in the rings")
                time.sleep(0.0005)
            took = time.monotonic() - began
        check(waiting > 0 and events > 0, f"{waiting} bytes of {events} events were in the rings")
        return events / took

    def soak(self) -> list[Figure]:
        """Memory over a long load: how much more it is at the end than after the first third."""
        if not self.soak_s:
            return []
        sizes: list[float] = []
        monitor = tracers.Monitor(self.directory / "soak", "full", rotate_bytes=256 << 20, rotate_keep=2)
        try:
            monitor.start()
            end = time.monotonic() + self.soak_s
            while time.monotonic() < end:
                for mode, rate in (("mix", 50_000), ("exec", 500), ("connect", 2_000)):
                    self.load.run(mode, min(2.0, self.soak_s / 6), rate)
                sizes.append(tracers.memory(monitor.pid)["VmRSS"])
            ledger = monitor.fresh_status()["ledger"]
            if not ledger["balanced"]:
                self.problems.append(f"after the soak the ledger does not balance: {ledger}")
        finally:
            monitor.remove()  # its oldest files are gone: nothing to count
        growth = sizes[-1] - sizes[len(sizes) // 3]
        note = f"{self.soak_s:g} s of load, {sizes[-1]:.0f} MB at the end; EBPF_MONITOR_SOAK says how many seconds"
        return [Figure("growth of resident memory", [growth], "MB", 1, note=note)]


def _disk(directory: Path, seconds: float) -> float:
    """Bytes a second that a file in `directory` takes, as the log writes: by the megabyte, synchronized at the end."""
    path, block = directory / "disk", os.urandom(1 << 20)
    began, written = time.monotonic(), 0
    try:
        with path.open("wb", buffering=0) as file:
            while time.monotonic() - began < seconds:
                written += file.write(block)
            os.fdatasync(file.fileno())
        return written / (time.monotonic() - began)
    finally:
        path.unlink()


@dataclass(frozen=True)
class Counted:
    """A run that is too long to look at each line: sums over the log, the ledger and the generators."""

    rate: float
    acts: int
    lost: int
    folded: int
    control_lost: int
    user_us: float
    system_us: float
    disk: float
    line: float


def _counted(
    monitor: Monitor, problems: list[str], loads: list[Load], mode: str, seconds: float, rate: float
) -> Counted:
    """One generator for each of `loads`, on CPUs 0, 1, ...; what does not add up goes to `problems`."""
    before = monitor.fresh_status()
    monitor.read_log(monitor.take_log(), None)
    cpu = tracers.cpu_time(monitor.pid)
    runs: list[LoadRun] = []
    others = [
        threading.Thread(target=lambda at=at, load=load: runs.append(load.run(mode, seconds, rate, cpu=at)))
        for at, load in enumerate(loads)
        if at
    ]
    for thread in others:
        thread.start()
    runs.append(loads[0].run(mode, seconds, rate))
    for thread in others:
        thread.join()
    for run in runs:
        monitor.settle(run.pid, monitor.log_size())
    spent, after = tracers.cpu_time(monitor.pid), monitor.fresh_status()
    taken = monitor.take_log()
    size = taken.stat().st_size
    marks = [b'"thread":{"id":%d,"name":"%s"' % (run.pid, LOAD_NAME.encode()) for run in runs]
    with taken.open("rb") as log:
        plain = frames.view(log.fileno(), frames.is_framed(log.fileno())).size()
    found = counted(taken, *marks)
    monitor.skip(taken, found.lines, found.lost)
    old, new = before["ledger"], after["ledger"]
    acts, documents = sum(run.total for run in runs), sum(found.found)
    refused = {name: count - old["refused"][name] for name, count in new["refused"].items()}
    lost, folded = sum(refused.values()), new["folded"] - old["folded"]
    told = f"{mode} at {rate:,.0f}/s: {acts} acts, {documents} documents, {lost} lost, {folded} folded"
    if documents + lost + folded < acts:
        problems.append(f"acts vanished in silence: {told}")
    if documents > acts + _EXTRAS * len(runs):
        problems.append(f"more documents than acts: {told}")
    received = max(new["received"] - old["received"], 1)
    return Counted(
        rate=sum(run.rate for run in runs),
        acts=acts,
        lost=lost,
        folded=folded,
        control_lost=refused["control_full"],
        user_us=(spent.user - cpu.user) / received * 1e6,
        system_us=(spent.system - cpu.system) / received * 1e6,
        disk=size / max(found.lines, 1),
        line=plain / max(found.lines, 1),
    )
