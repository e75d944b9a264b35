"""The measurements: lossless rates, CPU per event, cost per syscall, memory, start; beside each its target.

Owns how each figure is found, and the table; never fails because the machine is slow, only when a count does not add up
(`Bench.problems`).
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monitor.kernel import bpf
from tests.bench import auditd, compare, peers, picture, stress, tracers
from tests.bench.figures import Figure
from tests.bench.load import BrokenBenchmark, Load, LoadRun, machine
from tests.bench.tracers import Monitor, Step

RESULTS = Path("var") / "bench"


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    name: str
    step_s: float
    """one step of a rate search"""
    steps: int
    rounds: int
    long_s: float
    """the run at half the compressed rate, or at what the disk takes"""
    cost_s: float
    cost_runs: int
    idle_s: float
    starts: int
    first_rate: float
    contended_s: float
    """both CPUs flat out"""
    compressed_s: float
    compressed_rate: float
    stall_s: float
    cycles: int
    """of the mix, read again from the log"""
    sequence_rate: float
    soak_s: float


_SOAK = os.environ.get("EBPF_MONITOR_SOAK")
FULL = Plan("full", 0.5, 4, 3, 15.0, 0.15, 2, 4.0, 2, 400_000, 3.0, 60.0, 1_005_000, 1.0, 100_100, 175_000, float(_SOAK or 3))
SMOKE = Plan("smoke", 0.3, 1, 1, 0.5, 0.1, 1, 1.0, 1, 20_000, 0.3, 0.3, 50_000, 0.2, 1_000, 10_000, float(_SOAK or 0))

COST_RATE = 200_000
"""Acts a second while recorded syscalls are timed: no ring fills, no detail is given up."""
CLOSE_ENOUGH = 1.08
SLOWED = 0.93
NOISE, STOLEN = 0.1, 0.03
"""A step in which others made more than this share of the events, or took this share of the CPUs, is marked noisy; when its
load was slow or its log lossy, it is repeated once."""


@dataclass
class Bench:
    """All measurements of one session, on one generator, in one directory."""

    plan: Plan
    directory: Path
    load: Load
    figures: list[Figure] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    """every run under a tracer, as it was"""
    problems: list[str] = field(default_factory=list)
    """counts that did not add up"""
    details: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    sections: set[str] = field(default_factory=set)
    """those that were measured to their end"""
    slow_path: bool = field(default_factory=auditd.slow_path)
    """audit was on before the first of them: they are those of another machine"""
    _user: list[float] = field(default_factory=list)
    _system: list[float] = field(default_factory=list)
    _warm: bool = False

    def remove(self) -> None:
        """Removes what the measurements left."""
        self.load.remove()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- steps ---
    def note(self, who: str, step: Step, *, alone: bool = True) -> Step:
        """Keeps a step and holds its counts against the truth; `alone`: nothing folds but the load's CPU under pressure."""
        row = {
            "tracer": who,
            "mode": step.load.mode,
            "rate": round(step.load.rate),
            "ns": step.load.ns,
            "acts": step.load.total,
            "recorded": step.recorded,
            "missing": step.missing,
            "lost": step.lost,
            "folded": step.folded,
            "user_us": round(step.user_us, 3),
            "system_us": round(step.system_us, 3),
            "backlog_s": round(step.backlog_s, 2),
            "events": step.events,
            "foreign": step.foreign,
            "foreign_on_load_cpu": step.foreign_on_load_cpu,
            "cpu_share": step.load.cpu_share,
            "stolen": round(step.load.stolen, 3),
            "noisy": noisy(step),
        }
        if step.tally is not None:
            row["excess"] = step.lost + step.folded - step.missing
            try:
                tracers.account(step, self._others(step) if alone else None)
            except BrokenBenchmark as error:
                self.problems.append(f"{who}, {step.load.mode} at {step.load.rate:,.0f}/s: {error}")
        elif step.missing != step.lost:
            row["unexplained"] = step.missing - step.lost  # the peer's own affair
        self.steps.append(row)
        print(
            "  "
            + "  ".join(
                f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in row.items()
            ),
            flush=True,
        )
        return step

    def _others(self, step: Step) -> int:
        """Events of others whose like can have been given up; a smoke run shares both CPUs with other tests."""
        return step.foreign if self.plan is SMOKE else step.foreign_on_load_cpu

    def warm(self) -> None:
        """Has the compiled pass in its cache before anything is timed: the first start on a machine compiles it."""
        if not self._warm and self.plan is not SMOKE:
            with tracers.running(self.directory / "warm", "trace", self.problems) as monitor:
                self.note("warm-up", tracers.measured(monitor, self.load, "mix", 0.1, 10_000))
            self._warm = True

    # --- (a), (b), (e) ---
    def throughput(self) -> None:
        """The highest rate at which each act has its document, ours and the peer's, and CPU per event on the way."""
        self.warm()
        base, ours, guess = list[LoadRun](), list[float](), self.plan.first_rate
        rivals = compare.Rivals(self.load, self._search)
        for _ in range(self.plan.rounds):
            base.append(self.load.run("mix", self.plan.cost_s))
            with tracers.running(self.directory / "trace", "trace", self.problems) as monitor:
                run = functools.partial(tracers.measured, monitor, self.load, "mix")
                ours.append(self._search("monitor", guess, run, self.plan.steps - bool(ours)))
            rivals.round(base[-1].ns)
            guess = ours[-1] or guess
        size = self.sizes.get("all", 0)
        with tracers.running(self.directory / "long", "trace", self.problems) as monitor:
            self._programs(monitor)
        self.figures += [
            Figure("untraced: what the load can do, flat out", [run.rate for run in base], "acts/s"),
            Figure(
                "lossless rate, profile trace",
                ours,
                "events/s",
                250_000,
                True,
                f"{self.plan.step_s:g} s a step, documents of {size} bytes (median)",
            ),
            *rivals.rows(ours),
            Figure("user CPU per event, bulk lane", self._user, "us", 0.3, note="lossless steps at 100,000/s and more"),
            Figure(
                "system CPU per event, bulk lane", self._system, "us", note="mostly the page cache's copy of the lines"
            ),
            *(
                Figure(
                    f"median size of a {kind} document" if kind != "all" else "median size of a document, mix",
                    [value],
                    "bytes",
                )
                for kind, value in sorted(self.sizes.items())
            ),
        ]

    # --- real programs ---
    def programs(self) -> None:
        """Wall time of what people run, traced over untraced."""
        self.warm()
        small = self.plan is SMOKE
        times = compare.wall_times(self.directory, small, self.plan.rounds, self.problems)
        for (name, profile), values in times.items():
            most = compare.BOUNDS.get((name, profile))
            self.figures.append(Figure(f"{name}, profile {profile}", values, "x", most, note="wall time over untraced"))
        rates, about = list[float](), "nginx under wrk, traced over untraced"
        try:
            rates = compare.web_requests(self.directory, 1 if small else 2, self.plan.rounds, self.problems)
        except peers.Absent as reason:
            about = str(reason)
        self.figures.append(Figure("web server requests, profile full", rates, "x", 0.93, True, about))

    def _search(self, who: str, rate: float, run: Callable[[float, float], Step], steps: int = 0) -> float:
        """Steps up while nothing is missing, then halves the gap; the highest achieved rate at which nothing was."""
        good, bad = 0.0, 0.0
        for _ in range(steps or (self.plan.steps if who == "monitor" or self.plan is SMOKE else self.plan.steps // 2)):
            step = self.note(who, run(self.plan.step_s, rate))
            slow = not step.lossless or step.load.rate < SLOWED * rate
            if slow and noisy(step) and self.plan is not SMOKE:
                step = self.note(who, run(self.plan.step_s, rate))
            if step.lossless:
                good = max(good, step.load.rate)
                self._learn(step)
                if step.load.rate < SLOWED * rate:
                    break  # the load, slowed down by being traced, has no more to offer
            else:
                bad = min(bad or rate, rate)
            if bad and good and bad / good < CLOSE_ENOUGH:
                break
            rate = (good * bad) ** 0.5 if good and bad else rate * 1.35 if good else rate / 1.5
        return good

    def _learn(self, step: Step) -> None:
        if step.tally is None:
            return
        self.sizes["all"] = step.tally.median_size()
        self.sizes |= {kind: step.tally.median_size(kind) for kind in step.tally.sizes}
        if (step.load.rate >= 95_000 or self.plan is SMOKE) and not noisy(step):
            self._user.append(step.user_us)
            self._system.append(step.system_us)

    def _programs(self, monitor: Monitor) -> None:
        """What the kernel's own statistics say of our programs; they add two clock readings to each run."""
        found = {}
        stats = bpf.enable_stats()
        try:
            programs = {path.name: bpf.obj_get(path) for path in sorted(monitor.pins.glob("*/prog_*"))}
            before = {name: bpf.prog_info(program) for name, program in programs.items()}
            self.note(
                "monitor, programs timed",
                tracers.measured(monitor, self.load, "mix", self.plan.step_s / 2, COST_RATE / 2),
            )
            for name, program in programs.items():
                now, then = bpf.prog_info(program), before[name]
                runs = (now.run_cnt or 0) - (then.run_cnt or 0)
                if runs:
                    found[name] = {
                        "runs": runs,
                        "ns": round(((now.run_time_ns or 0) - (then.run_time_ns or 0)) / runs, 1),
                    }
                os.close(program)
        finally:
            os.close(stats)
        self.details["programs"] = found

    # --- overflow ---
    def overflow(self) -> None:
        """More than fits, with tiny rings and with the default ones: what is missing is what is admitted, exactly."""
        self.warm()
        tiny, own = {"ring_bytes": 1 << 20}, dict[str, int]()
        for keys, name in (
            ((tiny, "1 MB of rings"),) if self.plan is SMOKE else ((tiny, "1 MB of rings"), (own, "the default rings"))
        ):
            with tracers.running(self.directory / "overflow", "trace", self.problems, **keys) as monitor:
                step = self.note("monitor, overflow", tracers.measured(monitor, self.load, "mix", self.plan.step_s / 2))
            share = [100 * step.missing / step.load.total]
            self.figures.append(
                Figure(
                    f"acts without a document, flat out, {name}", share, "%", note="lost or folded, every one counted"
                )
            )

    # --- (c) ---
    def costs(self) -> None:
        """Nanoseconds added to a syscall, each as the difference to the untraced runs just before and after."""
        self.warm()
        plain: dict[str, list[float]] = {}
        added: dict[tuple[str, str], list[float]] = {}
        wanted = {
            "full": ("oc", "r", "w", "get"),
            "trace": ("r", "w"),
            "full, no casts": ("oc", "r", "w", "get"),
            "trace, no casts": ("r", "w"),
        }
        if self.plan is SMOKE:  # one start of each kind: `full` with casts, `trace` without
            wanted = {"full": ("oc", "r", "w", "get"), "trace, no casts": ("r", "w")}
        for round_ in range(self.plan.rounds):
            for profile, modes in wanted.items():
                if "," in profile and round_ == 2:  # two rounds of what older kernels have
                    continue
                before = {mode: self._timed(profile, mode) for mode in modes}
                older = {"EBPF_MONITOR_NO_CASTS": "1"} if "," in profile else {}
                name = profile.partition(",")[0]
                with tracers.running(self.directory / "cost", name, self.problems, environment=older) as monitor:
                    traced = {mode: self._timed(profile, mode) for mode in modes}
                    refused = sum(monitor.fresh_status()["ledger"]["refused"].values())
                for mode in modes:
                    after = self._timed(profile, mode)
                    added.setdefault((profile, mode), []).append(traced[mode] - (before[mode] + after) / 2)
                    plain.setdefault(mode, []).extend((before[mode], after))
                if refused:
                    self.details.setdefault("refused_during_costs", []).append((profile, refused))
        rows = (
            ("open and close, true path (mean of both)", "full", "oc", 330),
            ("folded read", "full", "r", 130),
            ("folded write", "full", "w", 130),
            ("unrelated syscall (getppid)", "full", "get", 95),
            ("recorded read", "trace", "r", 220),
            ("recorded write", "trace", "w", 220),
            ("open and close, without casts", "full, no casts", "oc", 650),
            ("folded read, without casts", "full, no casts", "r", 220),
            ("folded write, without casts", "full, no casts", "w", 220),
            ("unrelated syscall, without casts", "full, no casts", "get", 120),
            ("recorded read, without casts", "trace, no casts", "r", 350),
            ("recorded write, without casts", "trace, no casts", "w", 350),
        )
        for name, profile, mode, target in rows:
            if (profile, mode) in added:
                note = f"untraced {statistics.median(plain[mode]):.0f} ns"
                self.figures.append(Figure(f"added: {name}", added[profile, mode], "ns", target, note=note))
        self.details["untraced_ns"] = {mode: [round(v, 1) for v in values] for mode, values in plain.items()}

    def _timed(self, profile: str, mode: str) -> float:
        """ns for a syscall: the best of some short runs. What leaves no record runs flat out, the rest at COST_RATE."""
        flat = mode == "get" or (profile.startswith("full") and mode in ("r", "w"))
        runs: list[LoadRun] = [
            self.load.run(mode, self.plan.cost_s, 0 if flat else COST_RATE) for _ in range(self.plan.cost_runs)
        ]
        return min(run.ns for run in runs)

    # --- (d) ---
    def footprint(self) -> None:
        """Start, memory and idle CPU."""
        first, second, adopted, idle = [], [], [], list[dict[str, float]]()
        cache = self.directory / "numba-cache"
        environment = {"NUMBA_CACHE_DIR": str(cache)}
        for _ in range(self.plan.starts):
            shutil.rmtree(cache, ignore_errors=True)
            monitor = Monitor(self.directory / "start", "full", environment, cold=True, free=True)
            try:
                first.append(monitor.start())
                self.problems += monitor.stop()
                second.append(monitor.start())
                self.note(
                    "monitor, folded",
                    tracers.measured(monitor, self.load, "oc", self.plan.step_s / 2, 10_000),
                    alone=False,
                )
                monitor.kill()
                adopted.append(monitor.start())
                memory = {"start": tracers.memory(monitor.pid)}
                self.note(
                    "monitor, adopted",
                    tracers.measured(monitor, self.load, "oc", self.plan.step_s / 2, COST_RATE / 2),
                    alone=False,
                )
                memory["after load"] = tracers.memory(monitor.pid)
                idle.append(self._idle(monitor))
                monitor.remove()  # it has a predecessor's log: its ledger is not the whole story
            finally:
                monitor.remove()
        self.details |= {"memory_mb": memory, "idle": idle}
        quiet = min(idle, key=lambda row: row["events_a_second"])  # nobody can idle while others work
        self.figures += [
            Figure("start to ready, first on this machine", first, "s", 4, note="programs and the compiled pass are compiled"),
            Figure("start to ready, after a regular stop", second, "s", 1.5, note="both come from their caches"),
            Figure("start to ready, after kill -9", adopted, "s", 2, note="capture adopted"),
            Figure(
                "resident memory, profile full, after load",
                [memory["after load"]["VmRSS"]],
                "MB",
                256,
                note=", ".join(f"{name} {value:g}" for name, value in memory["after load"].items() if name != "VmRSS"),
            ),
            Figure(
                "idle CPU",
                [quiet["percent"]],
                "%",
                1,
                note=f"{quiet['events_a_second']:g} events/s of others meanwhile",
            ),
        ]

    def _idle(self, monitor: Monitor) -> dict[str, float]:
        status, before, began = monitor.fresh_status(), tracers.cpu_time(monitor.pid), time.monotonic()
        time.sleep(self.plan.idle_s)
        spent, elapsed = tracers.cpu_time(monitor.pid).exact - before.exact, time.monotonic() - began
        events = monitor.fresh_status()["ledger"]["received"] - status["ledger"]["received"]
        return {"percent": 100 * spent / elapsed, "events_a_second": round(events / elapsed, 1)}

    # --- storms ---
    def storms(self) -> None:
        """Programs and connections as fast as they come, through the control lane."""
        self.warm()
        with tracers.running(self.directory / "storm", "trace", self.problems) as monitor:
            for mode, name in (("exec", "programs run"), ("connect", "connections made")):
                rates, missing, lost = [], 0, Counter[str]()
                for _ in range(min(self.plan.rounds, 2)):
                    step = self.note("monitor, storm", tracers.measured(monitor, self.load, mode, self.plan.step_s / 2))
                    rates.append(step.load.rate / {"exec": 3, "connect": 4}[mode])
                    missing += step.missing
                    lost += step.tally.lost_classes if step.tally else Counter()
                told = ", ".join(f"{count} {name}" for name, count in lost.items())
                self.figures.append(
                    Figure(
                        f"{name}, flat out and traced",
                        rates,
                        "1/s",
                        note=f"{missing} of their events without a document, all counted{told and ': '}{told}",
                    )
                )

    # --- more than usual ---
    def extremes(self) -> None:
        """A long run, the compressed log, contention, a stalled reader, a soak."""
        self.warm()
        plan = self.plan
        runs = stress.Stress(
            self.directory, self.load, self.note, self.problems,
            plan.long_s, plan.compressed_s, plan.contended_s, plan.stall_s, plan.soak_s, plan.cycles, plan.sequence_rate, plan.compressed_rate,
        )  # fmt: skip
        for run in (runs.sequences, runs.steady, runs.compressed, runs.pressed, runs.soak):
            self.figures += run()

    # --- on request, and last ---
    def audit(self) -> None:
        """auditd in a round of its own after all others, with a monitor just before it: what it leaves on would be in every figure."""
        wanted = self.plan is not SMOKE and auditd.requested()
        rivals, ours, left = compare.Rivals(self.load, functools.partial(self._search, steps=6)), list[float](), list[float]()
        try:
            if not wanted:
                raise peers.Absent(auditd.ON_REQUEST)
            found = auditd.usable()  # before a monitor runs for nothing
            self.warm()
            base, plain = self.load.run("mix", self.plan.cost_s), self._timed("full", "get")
            with tracers.running(self.directory / "trace", "trace", self.problems) as monitor:
                run = functools.partial(tracers.measured, monitor, self.load, "mix")
                ours.append(self._search("monitor", self.plan.first_rate, run))
            print("  auditd: from here on, until a reboot, each later program has the audit slow path", flush=True)
            with auditd.running(self.load, self.problems) as daemon:
                rivals.one(daemon, base.ns)
            if not (self.slow_path or found.enabled):  # else it was there before
                left.append(self._timed("full", "get") - plain)
        except peers.Absent as reason:
            rivals.absent[auditd.NAME] = str(reason)
        self.figures += rivals.figures(auditd.NAME, ours, also=auditd.LEAVES if wanted and auditd.slow_path() else "")
        if left:
            note = f"until a reboot, the rule gone and audit off again; {plain:.0f} ns before"
            self.figures.append(Figure("added: unrelated syscall (getppid) after auditd", left, "ns", note=note))

    # --- the report ---
    def table(self) -> str:
        """All figures, as Markdown."""
        about = machine()
        noisy_steps = sum(row["noisy"] for row in self.steps)
        foreign = statistics.median(row["foreign"] for row in self.steps) if self.steps else 0
        kind = "virtual" if about["virtual"] else "physical"
        head = (
            f"{about['cpu']}, {about['cpus']} CPUs, {kind}, {about['memory_gb']} GB, Linux {about['kernel']}, "
            f"Python {about['python']}; load average {about['load_average']:.2f}. {len(self.steps)} steps traced, "
            f"{noisy_steps} of them noisy; events of others in a step: {foreign:,.0f} (median)."
        )
        if self.slow_path:
            head += " auditd was measured since the last reboot: every syscall, untraced ones too, takes the kernel's audit slow path."
        rows = [figure.row() for figure in self.figures]
        return "\n".join(
            [head, "", "| figure | median | range | unit | target | | note |", "|---|---|---|---|---|---|---|", *rows]
        )

    def save(self, path: Path) -> None:
        """Everything as JSON."""
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        found = {
            "plan": self.plan.name,
            "machine": machine(),
            "figures": [figure.record() for figure in self.figures],
            "problems": self.problems,
            "details": self.details,
            "steps": self.steps,
        }
        path.write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".svg").write_text(picture.svg(found), encoding="utf-8")
        path.with_suffix(".md").write_text(self.table() + "\n", encoding="utf-8")


def noisy(step: Step) -> bool:
    """Did others make a good part of the events, or take a part of the CPUs?"""
    load = step.load
    taken = load.stolen > STOLEN or (load.mode != "exec" and load.cpu_share < 1 - STOLEN)
    return taken or step.foreign > NOISE * max(load.total, 1)
