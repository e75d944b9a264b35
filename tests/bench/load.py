"""The load generator, the count of what reached a log, and the machine.

Owns the truth, which is the generator's counts; never starts a tracer and never judges speed.
"""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from monitor import frames

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = Path(__file__).with_name("load.c")
LOAD_CPU = 0
NICE = -10
"""Load, monitor and peer alike: other work on the machine shall not decide who loses."""
_LOSS = b'"ebpf":{"event":"monitor_loss"'
_NEWLINE = 10
_EBPF = b'},"ebpf":{"event":"'
_SINGLE = {b'file_open",': "file_open", b'file_read",': "file_read", b'file_write"': "file_write"}
_PARSED = 16
"""Of the load's opens, reads and writes, six of seven lines, one in so many is parsed: to parse all takes longer than to make them."""
LOAD_NAME, PROGRAM_NAME = "bench-load", "bench-program"
# A close of a socket that nothing was sent through is told as file_close: at the syscall's end its file is gone.
SAME_KIND = {"socket_close": "file_close"}


class BrokenBenchmark(AssertionError):
    """The measurement itself does not hold: a count that does not add up, a monitor that does not start."""


def check(condition: object, text: str) -> None:
    """Raises BrokenBenchmark with `text` unless `condition`."""
    if not condition:
        raise BrokenBenchmark(text)


def kinds(acts: dict[str, int]) -> Counter[str]:
    """Acts by event name, those that the log cannot tell apart under one name."""
    found: Counter[str] = Counter()
    for kind, count in acts.items():
        found[SAME_KIND.get(kind, kind)] += count
    return found


# --- the load ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadRun:
    """One run of the generator, in its own words."""

    mode: str
    pid: int
    syscalls: int
    elapsed_s: float
    ns: float
    """time inside the cycles / syscalls, spinning not counted"""
    rate: float
    """syscalls of the mode a second, as achieved"""
    cpu_share: float
    acts: Counter[str]
    """every act of the process that is an event: the truth"""
    stolen: float = 0.0
    """share of the machine's CPU time that the hypervisor gave to others meanwhile"""

    @property
    def total(self) -> int:
        """All acts."""
        return sum(self.acts.values())


@dataclass(frozen=True)
class Load:
    """The compiled generator in a directory of its own."""

    directory: Path
    tree: Path

    @classmethod
    def build(cls, directory: Path) -> Load:
        """Compiles both programs below `directory`. Raises BrokenBenchmark with the compiler's words."""
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        common = ["gcc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-static"]
        for name, options in ((LOAD_NAME, []), (PROGRAM_NAME, ["-nostdlib", "-DPROGRAM"])):
            done = subprocess.run(
                [*common, *options, "-o", str(directory / name), str(SOURCE)],
                capture_output=True,
                text=True,
                check=False,
            )
            check(done.returncode == 0, f"cannot compile {SOURCE.name}: {done.stderr}")
        # The files lie in memory: on a disk the load would wait for the log's dirty pages, at the disk's speed.
        memory_dir = Path("/dev/shm")
        tree = Path(
            tempfile.mkdtemp(prefix="ebpf-monitor-bench-", dir=memory_dir if memory_dir.is_dir() else directory)
        )
        return cls(directory, tree)

    def remove(self) -> None:
        """Removes the files."""
        shutil.rmtree(self.tree, ignore_errors=True)

    def run(
        self, mode: str, seconds: float, rate: float = 0, cpu: int = LOAD_CPU, prefix: Sequence[str] = ()
    ) -> LoadRun:
        """Runs the generator to its end, behind the command `prefix` if given. Raises BrokenBenchmark when it fails."""
        words = [
            *prefix,
            str(self.directory / LOAD_NAME),
            mode,
            f"{seconds:.3f}",
            f"{rate:.0f}",
            str(cpu),
            str(self.tree),
            str(self.directory / PROGRAM_NAME),
        ]
        # Output into a file: a pipe would have the generator's last act wait for us.
        told = self.directory / f"load-{cpu}.json"
        before = stolen_ticks()
        with told.open("wb") as output:
            done = subprocess.run(
                ["nice", "-n", str(NICE), *words],
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=seconds + 60,
            )
        check(done.returncode == 0, f"the load generator failed: {done.stderr}")
        found = json.loads(told.read_text())
        ticks = found["elapsed_ns"] / 1e9 * os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)
        stolen = (stolen_ticks() - before) / ticks
        return LoadRun(
            mode,
            found["pid"],
            found["syscalls"],
            found["elapsed_ns"] / 1e9,
            found["ns"],
            found["rate"],
            found["cpu_share"],
            kinds(found["acts"]),
            stolen,
        )


# --- what reached the log ---------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """The documents of one stretch of the log."""

    lines: int = 0
    bytes: int = 0
    first: int = 0
    last: int = 0
    mine: Counter[str] = field(default_factory=Counter)
    """documents about acts of the load, by event"""
    totals: Counter[str] = field(default_factory=Counter)
    """file_read and file_write operations by the totals of the load's closes"""
    foreign: Counter[str] = field(default_factory=Counter)
    """documents about anybody else, by event"""
    foreign_on_load_cpu: int = 0
    made: int = 0
    lost: Counter[int] = field(default_factory=Counter)
    """events that loss documents give up, by CPU"""
    lost_classes: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    sizes: dict[str, Counter[int]] = field(default_factory=dict)
    """length of the load's documents in bytes, by event"""

    def median_size(self, *events: str) -> int:
        """Median length of the load's documents of these events (all: none named), newline included; 0 without any."""
        lengths: Counter[int] = Counter()
        for event in events or self.sizes:
            lengths += self.sizes.get(event, Counter())
        middle = sum(lengths.values()) / 2
        for length in sorted(lengths):
            middle -= lengths[length]
            if middle <= 0:
                return length
        return 0


def tally(path: Path, load: LoadRun | None) -> Tally:
    """Reads a finished log file. Raises BrokenBenchmark at a line that is no document or breaks the dense sequence."""
    found = Tally()
    pid = load.pid if load else -1
    load_named = b'"pid":%d,"name":"%s"' % (pid, LOAD_NAME.encode())
    with path.open("rb", buffering=1 << 22) as log:
        for line in plain_lines(log.fileno()):
            place = line.find(_EBPF) + len(_EBPF)
            kind = _SINGLE.get(line[place : place + 11])
            due = b":%d%s" % (found.last + 1, _EBPF)
            if kind and found.lines % _PARSED and load_named in line and line.startswith(due, place - len(due)):
                found.last += 1
                found.lines += 1
                found.bytes += len(line)
                found.mine[kind] += 1
                found.sizes.setdefault(kind, Counter())[len(line)] += 1
                continue
            try:
                document = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise BrokenBenchmark(
                    f"line {found.lines + 1} of the log is not JSON: {error}: {line[:200]!r}"
                ) from None
            sequence = document["event"]["sequence"]
            begins = sequence == 1 and document["ebpf"]["event"] == "monitor_start"  # another run of the monitor
            check(found.lines == 0 or begins or sequence == found.last + 1, f"sequence {sequence} after {found.last}")
            found.first = found.first or sequence
            found.last = sequence
            found.lines += 1
            found.bytes += len(line)
            _count(found, document, pid, len(line))
    return found


def plain_blocks(descriptor: int, begin: int = 0, until: int = 1 << 62) -> Iterator[bytes]:
    """The lines of a log file, plain or compressed, by the megabyte: those that begin at `begin` or behind, and before `until`."""
    there = frames.view(descriptor, frames.is_framed(descriptor))
    at, carry, inside = begin, b"", begin > 0 and there.pread(1, begin - 1) != b"\n"
    while block := there.pread(1 << 20, at):
        data, at = carry + block, at + len(block)
        if inside:  # of a line that begins before
            cut = data.find(b"\n") + 1
            inside, data = not cut, data[cut:] if cut else b""
        end = data.rfind(b"\n") + 1
        start = at - len(data)
        if start + end > until:
            end = data.find(b"\n", max(until - 1 - start, 0)) + 1 if start < until else 0
            yield data[:end]
            return
        if end:
            yield data[:end]
        carry = data[end:]


def plain_lines(descriptor: int) -> Iterator[bytes]:
    """Its lines, each with its newline."""
    for block in plain_blocks(descriptor):
        yield from block.splitlines(keepends=True)


@dataclass(frozen=True)
class Count:
    """Of a finished log file that is too long for `tally`: its lines, how often some bytes stand in it, what its loss documents tell."""

    lines: int
    found: list[int]
    lost: int


def counted(path: Path, *needles: bytes) -> Count:
    """Counts a finished file, a part of it on each CPU."""
    with path.open("rb") as log:
        size = frames.view(log.fileno(), frames.is_framed(log.fileno())).size()
    cpus = os.cpu_count() or 1
    bounds = [size * part // cpus for part in range(cpus + 1)]
    everywhere = functools.partial(os.sched_setaffinity, 0, range(cpus))
    with ProcessPoolExecutor(cpus, multiprocessing.get_context("fork"), everywhere) as pool:
        parts = list(pool.map(_counted, *zip(*((path, a, b, needles) for a, b in itertools.pairwise(bounds)), strict=True)))
    return Count(
        sum(part.lines for part in parts),
        [sum(column) for column in zip(*(part.found for part in parts), strict=True)],
        sum(part.lost for part in parts),
    )


def _counted(path: Path, begin: int, until: int, needles: tuple[bytes, ...]) -> Count:
    lines, found, lost = 0, [0] * len(needles), 0
    with path.open("rb") as log:
        for block in plain_blocks(log.fileno(), begin, until):
            lines += int(np.count_nonzero(np.frombuffer(block, np.uint8) == _NEWLINE))  # bytes.count takes seven times as long
            found = [count + block.count(needle) for count, needle in zip(found, needles, strict=True)]
            if _LOSS in block:
                lost += sum(orjson.loads(line)["ebpf"]["loss"]["count"] for line in block.splitlines() if _LOSS in line)
    return Count(lines, found, lost)


def _count(found: Tally, document: dict[str, Any], pid: int, length: int) -> None:
    ebpf = document["ebpf"]
    event = ebpf["event"]
    if event.startswith("monitor_"):
        found.made += 1
        if event == "monitor_loss":
            loss = ebpf["loss"]
            found.lost[loss["cpu"]] += loss["count"]
            if loss["count"]:
                found.lost_classes[f"{loss['class']} {loss['reason']}"] += loss["count"]
            found.degraded += loss["reason"] == "degraded"
        return
    process = document.get("process", {})
    if not _of_load(event, ebpf, process, pid):
        found.foreign[event] += 1
        found.foreign_on_load_cpu += ebpf.get("cpu") == LOAD_CPU
        return
    kind = SAME_KIND.get(event, event)
    found.mine[kind] += 1
    found.sizes.setdefault(kind, Counter())[length] += 1
    if "read" in ebpf:
        found.totals["file_read"] += ebpf["read"]["count"]
        found.totals["file_write"] += ebpf["write"]["count"]


def _of_load(event: str, ebpf: dict[str, Any], process: dict[str, Any], pid: int) -> bool:
    """Is this document about an act that the load counts?"""
    if event.startswith("process_"):  # its children's; its own begin and end are not its acts
        return bool(process.get("parent", {}).get("pid") == pid)
    # the pid's earlier programs (nice, our own fork) are not the load; what its exit closes it did not close itself
    return bool(
        process.get("pid") == pid
        and process.get("name", LOAD_NAME) == LOAD_NAME
        and ebpf.get("close", {}).get("reason", "close") == "close"
    )


def stolen_ticks() -> int:
    """CPU time of all CPUs that the hypervisor gave to others, in clock ticks (proc_stat(5): steal)."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info: Sequence[str] = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    flags = next((line for line in info if line.startswith("flags")), "")
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    return {
        "kernel": os.uname().release,
        "architecture": os.uname().machine,
        "cpus": os.cpu_count(),
        "cpu": models[0] if models else "?",
        "virtual": "hypervisor" in flags,
        "memory_gb": round(total / 1e9, 1),
        "load_average": os.getloadavg()[0],
        "clock": Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip(),
        "python": sys.version.split()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
