"""`make workloads`: how much each profile, folding and own rules log of what hosts do, and what one event of each kind costs.

Owns the runs and their table, docs/workloads.md; never judges. Of a workload only its own processes' events are counted, so that others
on the machine do not matter; of the idle host everything is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from monitor import events
from monitor.kernel import bpf
from tests.bench import compare, load, peers, tracers
from tests.bench.load import ROOT, check

PAGE = ROOT / "docs" / "workloads.md"
PROFILES = ("minimal", "standard", "full", "trace")
RULES = [
    {"name": "compiler-reads", "executable": "{cc1}", "direction": "read"},
    {"name": "headers", "directory": "/usr/include", "direction": "read"},
    {"name": "python-library", "directory": "{library}", "direction": "read"},
    {"name": "proc", "filesystem": "proc"},
]
ACTS = {
    "file_open": ("file_open", "file_close"), "file_read": ("file_read",), "file_write": ("file_write",), "file_rename": ("file_rename",),
    "file_link": ("file_link", "file_delete"), "file_symlink": ("file_symlink", "file_delete"), "file_mkdir": ("file_mkdir", "file_rmdir"),
    "file_mode": ("file_mode",), "file_owner": ("file_owner",), "file_truncate": ("file_truncate",), "file_xattr": ("file_xattr",),
    "file_map": ("file_map",), "file_memfd": ("file_memfd", "file_close"), "process_signal": ("process_signal",),
    "process_credentials": ("process_credentials",), "process_fork": ("process_fork", "process_exit"),
    "process_exec": ("process_fork", "process_exec", "process_exit"), "socket_bind": ("socket_bind", "socket_close"),
    "socket_connect": ("socket_connect", "socket_close"), "socket_listen": ("socket_listen", "socket_close"),
    "socket_accept": ("socket_connect", "socket_accept", "2 socket_close"), "socket_send": ("socket_send", "socket_receive"),
    "file_receive": ("socket_send", "socket_receive", "file_receive", "file_close"), "file_mount": ("file_mount", "file_umount"),
    "process_namespace": ("process_namespace",), "process_ptrace": ("2 process_ptrace",), "kernel_bpf": ("kernel_bpf", "file_close"),
    "kernel_io_uring": ("kernel_io_uring", "file_close"),
}  # fmt: skip
SLOW_ACTS = ("process_fork", "process_exec", "file_mount", "process_namespace", "process_ptrace", "kernel_bpf", "kernel_io_uring")
"""Act of acts.c -> the events of one cycle of it (beside those of an exec's own start)."""
FEW_ACTS = ("file_open", "file_rename", "process_exec", "socket_connect")


@dataclass
class Seen:
    """What a log says of one workload: lines and bytes, by event, and the seconds it took."""

    seconds: float = 0.0
    lines: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        """Events a second."""
        return self.lines.total() / self.seconds

    @property
    def gb_per_day(self) -> float:
        """10^9 bytes in a day at this rate."""
        return self.bytes.total() / self.seconds * 86_400 / 1e9


def count(lines: Iterable[bytes], root: int | None) -> Seen:
    """Counts the events of process `root` and of all that it started; None: of everybody."""
    found, tree = Seen(), {root}
    for line in lines:
        document = orjson.loads(line)
        event, process = document["ebpf"]["event"], document.get("process", {})
        if event.startswith("monitor_") or event == "process_found":
            continue
        if event == "process_fork" and process["parent"]["pid"] in tree:
            tree.add(process["pid"])
        if root is None or process.get("pid") in tree:
            found.lines[event] += 1
            found.bytes[event] += len(line)
    return found


def commands(directory: Path, small: bool) -> dict[str, list[str] | None]:
    """What is run, by name; None: nothing, for a while."""
    place = directory / "workloads"
    programs = {one.name: one.command for one in compare.workloads(place, small) if not one.missing}
    found: dict[str, list[str] | None] = {"idle host": None}
    if not small:
        new = directory / "venv"
        found["package install (python3 -m venv, with pip)"] = ["sh", "-c", f"{sys.executable} -m venv --clear {new}"]
    found |= {name: command for name, command in programs.items() if name.startswith(("compile", "find"))}
    with contextlib.suppress(peers.Absent):
        found["web server under load"] = compare.web_command(directory / "web", 1 if small else 5)
    return found


def _settle(monitor: tracers.Monitor) -> None:
    """Waits until what has happened so far is in the log: the end of a program that is run for that is."""
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    monitor.settle(child.pid, monitor.log_size())


def run(monitor: tracers.Monitor, command: list[str] | None, idle_seconds: float) -> Seen:
    """Runs one workload under a running monitor and counts it."""
    monitor.read_log(monitor.take_log(), None)
    began = time.monotonic()
    if command is None:
        time.sleep(idle_seconds)
        seconds, pid = time.monotonic() - began, None
    else:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        status, seconds, pid = child.wait(), time.monotonic() - began, child.pid
        check(status in (0, 1), f"{command}: status {status}")
    _settle(monitor)
    taken = monitor.take_log()
    with taken.open("rb") as opened:
        found = count(opened, pid)
    monitor.read_log(taken, None)
    found.seconds = seconds
    return found


def suppressed(monitor: tracers.Monitor) -> dict[str, int]:
    """What each own rule has left out so far."""
    return {name: rule["count"] for name, rule in monitor.fresh_status()["exclusions"].items()}


def rules() -> list[dict[str, str]]:
    """The own rules that are measured, with this machine's paths."""
    words = {
        "cc1": subprocess.run(["gcc", "-print-prog-name=cc1"], check=True, capture_output=True, text=True).stdout.strip(),
        "library": str(Path(statistics.__file__).parent),
    }
    return [{key: value.format(**words) for key, value in rule.items()} for rule in RULES]


@dataclass(frozen=True)
class Cost:
    """Of one cycle of an act: ns in our programs by the kernel's own statistics, ns of CPU added (the median of the passes, and the least and the
    most), us of the monitor's CPU, its events and their bytes."""

    programs_ns: float
    added_ns: float
    added_range: tuple[float, float]
    monitor_us: float
    events: float
    bytes: float


class Acts:
    """The program that does acts, on a CPU of its own; what the kernel takes long for is done a tenth as often."""

    def __init__(self, directory: Path, count_of: int, names: Iterable[str]) -> None:
        self.program, self.place, self._count, self.names = directory / "acts", directory / "acts.d", count_of, tuple(names)
        self.place.mkdir(exist_ok=True)
        source = Path(__file__).with_name("acts.c")
        subprocess.run(["gcc", "-O1", "-static", "-w", "-o", self.program, source], check=True)

    def times(self, name: str) -> int:
        return self._count // 10 if name in SLOW_ACTS else self._count

    def once(self, name: str, times: int) -> tuple[float, int]:
        """(ns of CPU for one cycle, process id)."""
        words = ["taskset", "-c", str(load.LOAD_CPU), str(self.program), name, str(times), str(self.place)]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        output, _ = child.communicate()
        check(child.returncode == 0, f"acts {name}: status {child.returncode}")
        return float(output), child.pid

    def best(self, rounds: int) -> dict[str, float]:
        return {name: min(self.once(name, self.times(name))[0] for _ in range(rounds)) for name in self.names}


def _in_programs(monitor: tracers.Monitor, acts: Acts) -> dict[str, float]:
    """ns in all our programs for one cycle of each act: of many cycles less that of few, so that the process around them does not count."""
    found, stats = dict[str, float](), bpf.enable_stats()
    programs = [bpf.obj_get(path) for path in monitor.pins.glob("*/prog_*")]

    def spent(name: str, times: int) -> int:
        before = sum(bpf.prog_info(one).run_time_ns or 0 for one in programs)
        acts.once(name, times)
        return sum(bpf.prog_info(one).run_time_ns or 0 for one in programs) - before

    try:
        for name in acts.names:
            many, few = acts.times(name), acts.times(name) // 10
            found[name] = (spent(name, many) - spent(name, few)) / (many - few)
    finally:
        for descriptor in (stats, *programs):
            os.close(descriptor)
    return found


def _of_act(monitor: tracers.Monitor, acts: Acts, name: str, rounds: int) -> tuple[float, float, Seen]:
    """(best ns of CPU of one cycle, seconds of the monitor's CPU for all, what was logged of all)."""
    monitor.read_log(monitor.take_log(), None)
    used = tracers.cpu_time(monitor.pid).exact
    runs = [acts.once(name, acts.times(name)) for _ in range(rounds)]
    _settle(monitor)
    used = tracers.cpu_time(monitor.pid).exact - used
    taken, seen = monitor.take_log(), Seen()
    lines = taken.read_bytes().splitlines(keepends=True)
    for _, pid in runs:
        mine = count(lines, pid)
        seen.lines += mine.lines
        seen.bytes += mine.bytes
    monitor.read_log(taken, None)
    used *= seen.lines.total() / count(lines, None).lines.total()  # others' events took their share
    return min(took for took, _ in runs), used, seen


def costs(directory: Path, count_of: int, rounds: int, passes: int, names: Iterable[str] = ACTS) -> dict[str, Cost]:
    """What each act costs, traced (profile trace: nothing folds) and untraced by turns."""
    acts, problems, inside = Acts(directory, count_of, names), list[str](), dict[str, list[float]]()
    untraced, traced = [acts.best(rounds)], list[dict[str, tuple[float, float, Seen]]]()
    for _ in range(passes):
        with tracers.running(directory / "cost-monitor", "trace", problems) as monitor:
            traced.append({name: _of_act(monitor, acts, name, rounds) for name in acts.names})
            for name, ns in _in_programs(monitor, acts).items():
                inside.setdefault(name, []).append(ns)
        untraced.append(acts.best(rounds))
    check(not problems, "; ".join(problems))
    found = {}
    for name in acts.names:
        around = zip(traced, untraced, untraced[1:], strict=False)
        added = [here[name][0] - (before[name] + after[name]) / 2 for here, before, after in around]
        cycles = acts.times(name) * rounds * passes
        found[name] = Cost(
            statistics.median(inside[name]),
            statistics.median(added),
            (min(added), max(added)),
            sum(here[name][1] for here in traced) / cycles * 1e6,
            sum(here[name][2].lines.total() for here in traced) / cycles,
            sum(here[name][2].bytes.total() for here in traced) / cycles,
        )
    return found


def measure(directory: Path, small: bool = False, profiles: tuple[str, ...] = PROFILES) -> dict[str, Any]:
    """All of it: {"seen": {workload: {profile: Seen}}, "rules": {workload: {rule: left out}}, "costs": {act: Cost}}."""
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    todo, problems = commands(directory, small), list[str]()
    seen: dict[str, dict[str, Seen]] = {name: {} for name in todo}
    for command in todo.values():
        if command is not None:
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # caches are warm
    for profile in profiles:
        print(f"profile {profile}", flush=True)
        with tracers.running(directory / "monitor", profile, problems) as monitor:
            for name, command in todo.items():
                seen[name][profile] = run(monitor, command, 1 if small else 20)
                print(f"  {name}: {seen[name][profile].lines.total()} events", flush=True)
    left: dict[str, dict[str, int]] = {}
    print("own rules, profile full", flush=True)
    with tracers.running(directory / "monitor", "full", problems, exclusions=rules()) as monitor:
        for name, command in todo.items():
            before = suppressed(monitor)
            run(monitor, command, 1 if small else 20)
            left[name] = {rule: value - before[rule] for rule, value in suppressed(monitor).items()}
    check(not problems, "; ".join(problems))
    print("costs", flush=True)
    return {"seen": seen, "rules": left, "costs": costs(directory, 200, 1, 1, FEW_ACTS) if small else costs(directory, 5000, 3, 3)}


def coverage() -> dict[str, tuple[int, int]]:
    """Calls and operations that are seen, of all, by family of docs/coverage.md's tables."""
    found: dict[str, tuple[int, int]] = {}
    family = ""
    for line in (ROOT / "docs" / "coverage.md").read_text().splitlines():
        if line.startswith("## "):
            family = line[3:]
        elif line.startswith("| ") and line.split("|")[1].strip().isdigit():
            seen, every = found.get(family, (0, 0))
            found[family] = seen + ("not seen" not in line.split("|")[3]), every + 1
    return found


def page(found: dict[str, Any], about: dict[str, Any]) -> str:
    """docs/workloads.md."""
    lines = [
        "# What is logged of ordinary work, and what an event costs",
        "",
        "Made by `sudo make workloads` (some minutes; nothing else should run). Of each workload the events of its own processes; of the idle host all",
        f"events of 20 s, whoever was active. {about['cpu']}, {about['cpus']} CPUs, Linux {about['kernel']}; load average before it {about['load_average']:.1f}.",
        "",
        "## Profiles",
        "",
        "Events and bytes of one run of the workload (the web server: of 5 s); events a second and GB a day if it went on like that.",
        "",
        "| workload | profile | events | of full | MB | bytes an event | events/s | GB/day |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, by_profile in found["seen"].items():
        full = by_profile["full"].lines.total()
        for profile, seen in by_profile.items():
            total, size = seen.lines.total(), seen.bytes.total()
            mean = f"{size / total:,.0f}" if total else "-"
            part = f"{total / full:.0%}" if name != "idle host" and full else "-"
            lines.append(
                f"| {name} | {profile} | {total:,} | {part} | {size / 1e6:,.2f} | {mean} | {seen.per_second:,.1f} | {seen.gb_per_day:,.2f} |"
            )
    lines += [
        "", "`trace` against `full` is what folding saves, `standard` against `full` the rule for quiet objects.", "",
        "## Own rules", "", "Acts that each rule left out of the same workloads, profile full, in the order in which they are asked:", "",
        "| workload | " + " | ".join(rule["name"] for rule in RULES) + " |", "|---" * (len(RULES) + 1) + "|",
    ]  # fmt: skip
    for name, left in found["rules"].items():
        lines.append(f"| {name} | " + " | ".join(f"{left.get(rule['name'], 0):,}" for rule in RULES) + " |")
    lines += ["", "The rules:", "", *(f"* {rule}" for rule in RULES), "", "## Cost by event", ""]
    lines += [
        "One cycle of each act (profile trace: nothing folds), 5,000 times, and what takes long 500 times. In programs: the time in all our programs by the kernel's",
        "own statistics, which add two readings of a clock to each run. Added: the CPU time of the process and its children, best of three traced minus best of three",
        "untraced, median of three such pairs by turns (least to most): what the kernel does around the programs is in it, and so is the machine's noise, which",
        "is most of it where one cycle takes tens of microseconds and more. The monitor's CPU: by its events' share.", "",
        "| act | events of a cycle | in programs, ns | added, ns | monitor's CPU, us | bytes in the log |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, cost in found["costs"].items():
        low, high = cost.added_range
        lines.append(
            f"| {name} | {' + '.join(ACTS[name])} | {cost.programs_ns:,.0f} | {cost.added_ns:,.0f} ({low:,.0f} to {high:,.0f}) "
            f"| {cost.monitor_us:,.1f} | {cost.bytes:,.0f} |"
        )
    lines += ["", "## Coverage", "", "Seen, of all; each one with its reason is in [coverage.md](coverage.md).", ""]
    lines += ["| what | seen | all |", "|---|---|---|"]
    lines += [f"| {family} | {seen} | {every} |" for family, (seen, every) in coverage().items()]
    lines.append(f"| events of the catalogue | {len(events.EVENT)} | {len(events.EVENT)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measures and writes the page."""
    about, directory = load.machine(), ROOT / "var" / "workloads"
    try:
        PAGE.write_text(page(measure(directory), about), encoding="utf-8")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(PAGE.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
