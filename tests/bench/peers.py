"""What people would use instead, under the same load: bpftrace, perf trace, strace, and a BCC monitor with a callback.

Owns their command lines and the count of what they recorded; never judges speed. A peer that is not there, or does not
start, is a sentence (`Absent`), not an error of the benchmark.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.bench.load import LOAD_NAME, NICE, ROOT, Load, LoadRun
from tests.bench.tracers import MONITOR_CPU, STOP_SECONDS, Step, cpu_time

CALLS = {"openat": "file_open", "read": "file_read", "write": "file_write", "close": "file_close"}
_START_SECONDS, _DRAIN_SECONDS, _END_SECONDS = 60, 3, 20
# They need tracefs, which a bare machine has not mounted; in a mount namespace of its own nothing of that stays.
_MOUNTED = (
    "mount --make-rprivate / && "
    "{ [ -e /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; } && "
    'exec "$@"'
)
PINNED = ("taskset", "-c", str(MONITOR_CPU), "nice", "-n", str(NICE))


class Absent(Exception):
    """The peer cannot be measured here; the text says why."""


class Tracer(Protocol):
    """What a search for the lossless rate needs of a peer."""

    @property
    def name(self) -> str:
        """As its rows call it."""

    @property
    def guess(self) -> float:
        """A rate to begin the search with."""

    @property
    def tolerance(self) -> float:
        """Share of the acts that may be missing in a step that counts as lossless."""

    def step(self, load: Load, mode: str, seconds: float, rate: float = 0) -> Step:
        """Runs the load under it. Raises Absent."""


@dataclass(frozen=True)
class Peer:
    """One of them. `words`: its command, for an output file. `count`: (recorded, lost as it says) of output and errors."""

    name: str
    program: str
    words: Callable[[Path], list[str]]
    count: Callable[[bytes, bytes], tuple[int, int]]
    attached: bytes = b""
    """what its output holds once it is attached; without it, it is given a second and a half"""
    around: bool = False
    """it starts the load itself"""
    guess: float = 80_000
    """a rate to begin the search with"""
    tolerance: float = 0.0
    """share of the acts that may be missing in a step that counts as lossless: for a peer that never has all of them"""

    def step(self, load: Load, mode: str, seconds: float, rate: float = 0) -> Step:
        """Runs the load under it. Raises Absent."""
        if shutil.which(self.program) is None:
            raise Absent(f"{self.program} is not installed")
        output, errors = load.directory / f"{self.program}.out", load.directory / f"{self.program}.err"
        output.unlink(missing_ok=True)
        if self.around:
            run = load.run(mode, seconds, rate, prefix=[*PINNED, *self.words(output)])
            return self._result(run, output, b"", 0.0, 0.0, 0.0)
        command = ["unshare", "--mount", "sh", "-c", _MOUNTED, "sh", *PINNED, *self.words(output)]
        environment = {**os.environ, "BPFTRACE_PERF_RB_PAGES": "64", "BPFTRACE_STRLEN": "128", "PYTHONPATH": str(ROOT)}
        with errors.open("wb") as told:
            process = subprocess.Popen(command, env=environment, stdout=told, stderr=told)
        try:
            self._await(process, output, errors)
            before = cpu_time(process.pid)
            run = load.run(mode, seconds, rate)
            ended = since = time.time()
            size = -1
            while (
                time.time() - since < 0.5 and time.time() - ended < _DRAIN_SECONDS
            ):  # perf trace tells of everybody, always
                if (now := output.stat().st_size) != size:
                    size, since = now, time.time()
                time.sleep(0.02)
            after = cpu_time(process.pid)
            process.send_signal(signal.SIGINT)
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise Absent(f"{self.name} did not end within {_END_SECONDS} s of SIGINT") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(STOP_SECONDS)
        spent = after.user - before.user, after.system - before.system
        return self._result(run, output, errors.read_bytes(), *spent, max(since - ended, 0.0))

    def _await(self, process: subprocess.Popen[bytes], output: Path, errors: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not (output.exists() and self.attached in output.read_bytes()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Absent(f"{self.name} does not start: {errors.read_text(errors='replace')[-300:].strip()}")
            time.sleep(0.1)
        time.sleep(0.3 if self.attached else 1.5)  # it says so before its last probe is in place
        if process.poll() is not None:
            raise Absent(f"{self.name} has ended: {errors.read_text(errors='replace')[-300:].strip()}")

    def _result(self, run: LoadRun, output: Path, errors: bytes, user: float, system: float, backlog: float) -> Step:
        text = output.read_bytes()
        recorded, lost = self.count(text, errors)
        output.unlink()
        truth, count = sum(run.acts[kind] for kind in CALLS.values()), max(recorded, 1)
        # strace also sees the calls of the `nice` that starts the load: more than all is not missing
        return Step(
            run, min(recorded, truth), max(truth - recorded, 0), lost, 0, user / count * 1e6, system / count * 1e6,
            backlog, recorded, line_bytes=len(text) / max(text.count(b"\n"), 1),
        )  # fmt: skip


def _script() -> str:
    def probe(call: str) -> str:
        saved, shown = ("args->filename", "str(@a[tid])") if call == "openat" else ("args->fd", "@a[tid]")
        held = "%s" if call == "openat" else "%d"
        return (
            f'tracepoint:syscalls:sys_enter_{call} /comm=="{LOAD_NAME}"/ {{ @a[tid] = {saved}; }}\n'
            f'tracepoint:syscalls:sys_exit_{call} /comm=="{LOAD_NAME}"/ '
            f'{{ printf("%llu %d %d %d %s {call} {held} ret=%d\\n", '
            f"nsecs, pid, tid, uid, comm, {shown}, args->ret); }}\n"
        )

    # one map for descriptors, one for names: bpftrace gives a map one type
    return "".join(probe(call).replace("@a", "@f" if call == "openat" else "@d") for call in CALLS)


def _numbers(pattern: bytes, text: bytes) -> int:
    return sum(int(found) for found in re.findall(pattern, text))


def _bpftrace(text: bytes, errors: bytes) -> tuple[int, int]:
    told = _numbers(rb"lost_events[^\n]*?(\d+)", text) + _numbers(rb"Lost (\d+) events", errors)
    return text.count(b'"printf"'), told


def _perf(text: bytes, errors: bytes) -> tuple[int, int]:
    mine = re.findall(rb"^.*" + LOAD_NAME.encode() + rb"/\d+ .*= ", text, re.M)
    return len(mine), _numbers(rb"LOST (\d+) events", text + errors)


def _strace(text: bytes, _errors: bytes) -> tuple[int, int]:
    return len(re.findall(rb"^\d+ .*\) += ", text, re.M)), 0


def _callback(text: bytes, _errors: bytes) -> tuple[int, int]:
    return text.count(b'"syscall"'), _numbers(rb'"lost": (\d+)', text)


def bpftrace_version() -> str:
    """Of the installed bpftrace; a sentence when there is none."""
    if shutil.which("bpftrace") is None:
        return "not installed"
    return subprocess.run(["bpftrace", "--version"], capture_output=True, text=True, check=True).stdout.strip()


_ONLY: Sequence[str] = ("-e", ",".join(CALLS))
BPFTRACE = Peer(
    "bpftrace -f json", "bpftrace", lambda out: ["bpftrace", "-f", "json", "-o", str(out), "-e", _script()],
    _bpftrace, b"attached_probes",
)  # fmt: skip
PEERS = (
    BPFTRACE,
    Peer("perf trace", "perf", lambda out: ["perf", "trace", "-a", *_ONLY, "-o", str(out)], _perf,
         guess=4_500, tolerance=0.001),
    Peer(
        "strace -f", "strace",
        lambda out: ["strace", "-f", "-ttt", "-o", str(out), "-e", "trace=" + ",".join(CALLS)], _strace, around=True,
        guess=5_000,
    ),
    Peer(
        "BCC callback", "python3",
        lambda out: [sys.executable, "-m", "tests.bench.callback", str(out), LOAD_NAME], _callback, b'"attached"',
    ),
)  # fmt: skip
