"""The monitor beside its peers, and real programs with and without it: measured in the same rounds, as ratios.

Owns the workloads and how a ratio is formed; never decides what a step is (measure.py) or how a peer is run (peers.py).
"""

from __future__ import annotations

import functools
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.bench import peers, tracers
from tests.bench.figures import Figure
from tests.bench.load import Load, check
from tests.bench.tracers import Step

Search = Callable[[str, float, Callable[[float, float], Step]], float]
RATIOS = {"bpftrace -f json": 7.0, "perf trace": 20.0}
"""at least so many times their lossless rate"""
BOUNDS = {("find /", "full"): 1.3, ("compile 24 C files", "full"): 1.05, ("compile 24 C files", "standard"): 1.02}
"""of the wall time, traced over untraced"""
FILES = 2000
_HIDE = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass
class Rivals:
    """The peers' lossless rates, round by round; what cannot be measured here is in `absent`, with the reason."""

    load: Load
    search: Search
    rates: dict[str, list[float]] = field(default_factory=dict)
    slowdown: dict[str, list[float]] = field(default_factory=dict)
    lines: dict[str, float] = field(default_factory=dict)
    tried: dict[str, float] = field(default_factory=dict)
    """the highest rate that the load reached under it, with or without a loss"""
    absent: dict[str, str] = field(default_factory=dict)

    def round(self, untraced_ns: float) -> None:
        """One search for each peer."""
        for peer in peers.PEERS:
            if peer.name not in self.absent and not (peer.around and peer.name in self.rates):  # strace: short, one round
                self.one(peer, untraced_ns)

    def one(self, peer: peers.Tracer, untraced_ns: float) -> None:
        """A search for one peer."""
        seen: list[Step] = []
        before = self.rates.setdefault(peer.name, [])
        try:
            guess = (before[-1] if before else 0.0) or peer.guess
            before.append(self.search(peer.name, guess, functools.partial(self._step, peer, seen)))
        except peers.Absent as reason:
            self.absent[peer.name] = str(reason)
            del self.rates[peer.name]
            return
        self.slowdown.setdefault(peer.name, []).append(max(step.load.ns for step in seen) / untraced_ns)
        self.lines[peer.name] = seen[-1].line_bytes
        self.tried[peer.name] = max(self.tried.get(peer.name, 0.0), *(step.load.rate for step in seen))

    def _step(self, peer: peers.Tracer, seen: list[Step], seconds: float, rate: float) -> Step:
        step = peer.step(self.load, "mix", seconds, rate)
        if step.missing <= peer.tolerance * step.load.total:
            step = replace(step, missing=0, spared=step.missing)
        seen.append(step)
        return step

    def ratios(self, name: str, ours: list[float]) -> list[float]:
        """Our rate over the peer's, of the same round."""
        return [mine / theirs for mine, theirs in zip(ours, self.rates.get(name, []), strict=False) if theirs]

    def rows(self, ours: list[float]) -> list[Figure]:
        """Those of all peers."""
        found = []
        for peer in peers.PEERS:
            also = peers.bpftrace_version() if peer is peers.BPFTRACE else ""
            found += self.figures(peer.name, ours, tolerance=peer.tolerance, also=also)
        return found

    def figures(self, name: str, ours: list[float], *, tolerance: float = 0.0, also: str = "") -> list[Figure]:
        """Rate, ratio and what the peer does to the load; one that is not there is a row that says so. `also`: more words."""
        about = self.absent.get(name, "")
        if not about:
            slower = median(self.slowdown[name])
            about = f"lines of {self.lines[name]:.0f} bytes; the load was {slower:.1f} times slower"
            about += f"; at most {100 * tolerance:g} % missing" if tolerance else ""
            about += "" if any(self.rates[name]) else f"; highest rate tried: {self.tried[name]:,.0f}/s"
        about = "; ".join(filter(None, (also, about)))
        return [
            Figure(f"lossless rate, {name}", self.rates.get(name, []), "events/s", note=about),
            Figure(f"ratio to {name}", self.ratios(name, ours), "", RATIOS.get(name), True),
        ]


# ---- real programs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """A program that people run. `needs`: commands it is made of."""

    name: str
    command: list[str]
    needs: tuple[str, ...] = ()
    after: Path | None = None
    """a directory that it leaves and that is removed, not timed"""

    @property
    def missing(self) -> str:
        """The first command that is not there; "" when all are."""
        return next((name for name in self.needs if shutil.which(name) is None), "")

    def seconds(self) -> float:
        """Wall time of one run. Raises BrokenBenchmark when the program fails."""
        began = time.monotonic()
        done = subprocess.run([*tracers.EVERYWHERE, *self.command], check=False, **_HIDE)  # type: ignore[call-overload]
        elapsed = time.monotonic() - began
        check(
            done.returncode in (0, 1), f"{self.name}: status {done.returncode}"
        )  # find and grep: 1 is "some unreadable"
        if self.after is not None:
            shutil.rmtree(self.after, ignore_errors=True)
        return elapsed


_SQLITE = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1])
base.execute("pragma journal_mode = wal")
base.execute("create table if not exists t (a integer primary key, b text)")
for number in range(int(sys.argv[2])):
    with base:
        base.execute("insert into t (b) values (?)", ("x" * 100,))
"""
_WEB_PROGRAMS = Path(sys.prefix) / "web" / "usr"
_WEB = (
    "{programs}/sbin/nginx -e {directory}/error -p {directory} -c {directory}/nginx.conf || exit; "
    "trap '{programs}/sbin/nginx -e {directory}/error -p {directory} -c {directory}/nginx.conf -s stop' EXIT; "
    "LD_LIBRARY_PATH=$(echo {programs}/lib/*-linux-gnu) "
    "{programs}/bin/wrk -t 1 -c 16 -d {seconds} http://127.0.0.1:18937/ >{directory}/wrk.out"
)


def workloads(directory: Path, small: bool) -> list[Workload]:
    """The programs, with what they work on made below `directory`; `small`: for a smoke test."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    count = 40 if small else FILES
    tree, archive = directory / "tree", directory / "tree.tar"
    for number in range(count):
        place = tree / f"d{number % 40}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}").write_bytes(b"some words of a small file\n" * 40)
    subprocess.run(["tar", "cf", archive, "-C", directory, "tree"], check=True)
    sources = []
    for number in range(2 if small else 24):
        source = directory / f"s{number}.c"
        source.write_text(f'#include <stdio.h>\n#include <stdlib.h>\nint f{number}(void) {{ return puts(""); }}\n')
        sources.append(str(source))
    out, where = directory / "unpacked", str(tree) if small else "/"
    compile_all = (
        f"mkdir -p {directory}/o; cd {directory}/o; for s in {' '.join(sources)}; do gcc -O1 -c $s || exit 9; done"
    )
    return [
        Workload("find /", ["find", where, "-xdev", "-name", "no-such-name"]),
        Workload("grep -r", ["grep", "-r", "no such words", str(tree), *([] if small else ["/usr/lib/python3"])]),
        Workload("compile 24 C files", ["sh", "-c", compile_all], ("gcc",), directory / "o"),
        Workload("unpack 2,000 small files", ["sh", "-c", f"mkdir -p {out} && tar xf {archive} -C {out}"], after=out),
        Workload(
            "sqlite transactions",
            [sys.executable, "-c", _SQLITE, str(directory / "base.sqlite"), "50" if small else "5000"],
        ),
    ]


def wall_times(directory: Path, small: bool, rounds: int, problems: list[str]) -> dict[tuple[str, str], list[float]]:
    """Ratio traced to untraced of each workload's wall time, by (workload, profile): one for each round.

    In each round traced in both profiles, untraced before and after; the base is the mean of the two. `problems` gets what a
    monitor's end does not balance.
    """
    found: dict[tuple[str, str], list[float]] = {}
    programs = [one for one in workloads(directory / "workloads", small) if not one.missing]
    for one in programs:
        one.seconds()  # caches are warm from here on
    again = {one.name: one.seconds() for one in programs}
    for _ in range(rounds):
        base, traced = again, {}
        for profile in ("full", "standard"):
            with tracers.running(directory / "workload-monitor", profile, problems, free=True):
                traced[profile] = {one.name: one.seconds() for one in programs}
        again = {one.name: one.seconds() for one in programs}
        for one in programs:
            for profile, times in traced.items():
                ratio = 2 * times[one.name] / (base[one.name] + again[one.name])
                found.setdefault((one.name, profile), []).append(ratio)
    return found


# ---- the web server --------------------------------------------------------------------------------------------------


def web_command(place: Path, seconds: int) -> list[str]:
    """nginx serving below `place`, and wrk asking it for so long. Raises peers.Absent without them."""
    if not _WEB_PROGRAMS.is_dir():
        raise peers.Absent(f"nginx and wrk are not in {_WEB_PROGRAMS} (make test and make bench put them there)")
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    (place / "index.html").write_text("hello\n")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (place / "nginx.conf").write_text(
        f"user root; pid {place}/pid; worker_processes 1; events {{}} http {{ access_log off; "
        + "".join(f"{kind}_temp_path {place}/{kind}; " for kind in kinds)
        + f"server {{ listen 127.0.0.1:18937; root {place}; }} }}\n"
    )
    return ["sh", "-c", _WEB.format(programs=_WEB_PROGRAMS, directory=place, seconds=seconds)]


def web_requests(directory: Path, seconds: int, rounds: int, problems: list[str]) -> list[float]:
    """Requests a second of nginx under wrk, traced over untraced, one for each round. Raises peers.Absent without them."""
    place = directory / "web"
    command = [*tracers.EVERYWHERE, *web_command(place, seconds)]

    def rate() -> float:
        done = subprocess.run(command, check=False, **_HIDE)  # type: ignore[call-overload]
        check(done.returncode == 0, f"nginx or wrk failed: status {done.returncode}")
        said = (place / "wrk.out").read_text()
        check("Non-2xx" not in said and "Socket errors" not in said, f"nginx refused requests:\n{said}")
        line = next(line for line in said.splitlines() if line.startswith("Requests/sec"))
        return float(line.split()[1])

    found, after = [], rate()
    for _ in range(rounds):
        before = after
        with tracers.running(directory / "workload-monitor", "full", problems, free=True):
            traced = rate()
        after = rate()
        found.append(2 * traced / (before + after))
    return found


def median(values: list[float]) -> float:
    """0 of none."""
    return statistics.median(values) if values else 0.0
