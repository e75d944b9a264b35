"""auditd as a peer, only on request: once audit was enabled, the kernel keeps the slow path of system calls for every later program.

Owns the daemon in a directory of its own, its rule and the kernel's audit settings, and puts back all that can be put back;
never touches a machine that audits already.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from tests.bench.load import LOAD_NAME, ROOT, Load
from tests.bench.peers import CALLS, PINNED, Absent
from tests.bench.tracers import STOP_SECONDS, Step, cpu_time

SWITCH = "EBPF_MONITOR_AUDITD"
NAME, PACKAGE, KEY = "auditd", "auditd", "ebpf-monitor-bench"
BACKLOG = 65536
ON_REQUEST = f"on request: {SWITCH}=1; it leaves the kernel's audit slow path on until a reboot"
LEAVES = "ran after all else, since the audit slow path stays on for later programs until a reboot"
_NUMBERS = {b"257": "openat", b"0": "read", b"1": "write", b"3": "close"}
"""of x86-64, the only machine that the project knows"""
_START_SECONDS, _DRAIN_SECONDS, _STILL_SECONDS = 20, 60, 0.5
_NO_RULES = "No rules"
# The kernel's word for each option of auditctl, and what it is while the peer runs: what the daemon has not yet taken waits in the
# backlog, the load waits when that is full (the default), and a loss is printed: it neither panics nor is it a rate limit's.
_SETTINGS = (("backlog_limit", "-b", BACKLOG), ("rate_limit", "-r", 0), ("failure", "-f", 1))
_CONFIGURATION = """local_events = yes
write_logs = yes
log_file = {log}
log_format = RAW
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file_action = IGNORE
space_left = 2
space_left_action = IGNORE
admin_space_left = 1
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
priority_boost = 0
name_format = NONE
plugin_dir = {plugins}
"""


def requested(environment: dict[str, str] | None = None) -> bool:
    """Was it asked for? Raises ValueError at a value that is neither yes nor no."""
    value = (os.environ if environment is None else environment).get(SWITCH, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{SWITCH} is {value!r}: allowed are 1 (measure auditd, last), 0 and unset")
    return value == "1"


# --- what stays -------------------------------------------------------------------------------------------------------


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _note() -> Path:
    return ROOT / "var" / "bench" / "audit-was-on"


def slow_path() -> bool:
    """Did this benchmark enable audit since the machine was booted? The kernel itself does not tell."""
    with contextlib.suppress(FileNotFoundError):
        return _note().read_text().strip() == _boot()
    return False


def _remember() -> None:
    _note().parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    _note().write_text(_boot() + "\n")


# --- what auditctl and the log say ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """What `auditctl -s` says of the kernel."""

    enabled: int
    failure: int
    pid: int
    """of the daemon that takes the records; 0: none"""
    rate_limit: int
    backlog_limit: int
    lost: int
    backlog: int

    @classmethod
    def parse(cls, text: str) -> Status:
        """Reads its output. Raises Absent when a line is missing."""
        found = dict(re.findall(r"^(\w+) (\d+)\b", text, re.MULTILINE))
        if missing := [one.name for one in fields(cls) if one.name not in found]:
            raise Absent(f"auditctl -s does not say {', '.join(missing)}: {text.strip()[-300:]}")
        return cls(**{one.name: int(found[one.name]) for one in fields(cls)})


def recorded(text: bytes, pid: int) -> Counter[str]:
    """Acts of the load's process `pid` in raw records, by event; each call has one record of type SYSCALL, whatever comes with it."""
    pattern = rb'^type=SYSCALL msg=audit\(\S+ arch=c000003e syscall=(\d+) [^\n]* pid=%d [^\n]*comm="%s" [^\n]*key="%s"' % (
        pid, LOAD_NAME.encode(), KEY.encode(),
    )  # fmt: skip
    numbers = Counter(re.findall(pattern, text, re.MULTILINE))
    return Counter({CALLS[_NUMBERS[number]]: count for number, count in numbers.items() if number in _NUMBERS})


def _program(name: str) -> str:
    """Where it is; in sbin, which not every PATH has. Raises Absent."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        raise Absent(f"{name} is not installed (Debian package {PACKAGE})")
    return found


def _auditctl(*words: str) -> str:
    """Runs it; its output. Raises Absent with its words, which it says on either channel, sometimes with status 0."""
    done = subprocess.run([_program("auditctl"), *words], capture_output=True, text=True, check=False, timeout=STOP_SECONDS)
    if "not in kernel" in done.stdout + done.stderr or "not supported" in done.stdout + done.stderr:
        raise Absent("this kernel has no audit (CONFIG_AUDIT), or was booted with audit=0")
    if done.returncode:
        raise Absent(f"auditctl {' '.join(words)}: {(done.stderr + done.stdout).strip()[-300:]}")
    return done.stdout


def status() -> Status:
    """The kernel's audit state now. Raises Absent."""
    return Status.parse(_auditctl("-s"))


def usable() -> Status:
    """The state as it was found. Raises Absent when somebody audits here already: that stays as it is."""
    _program("auditd")
    found = status()
    if found.pid:
        raise Absent(f"an audit daemon runs here already (process {found.pid}): nothing was touched")
    if found.enabled > 1:
        raise Absent("the audit settings are locked until a reboot (enabled 2): nothing was touched")
    if (rules := _auditctl("-l").strip()) != _NO_RULES:
        raise Absent(f"audit rules of somebody else are loaded ({len(rules.splitlines())}): nothing was touched")
    return found


# --- the daemon -------------------------------------------------------------------------------------------------------


@dataclass
class Auditd:
    """The daemon, its rule, and what must be put back. A peer like those of peers.py while it runs."""

    load: Load
    before: Status
    name: str = NAME
    guess: float = 20_000
    tolerance: float = 0.0
    _process: subprocess.Popen[bytes] | None = None
    _undo: list[Callable[[], object]] = field(default_factory=list)
    """what the settings need to be as they were; in this order"""

    @property
    def place(self) -> Path:
        """Its directory; auditd changes the mode of the one with the log."""
        return self.load.directory / "auditd"

    @property
    def log(self) -> Path:
        """The records."""
        return self.place / "log" / "audit.log"

    def _rule(self, action: str) -> None:
        exe = self.load.directory / LOAD_NAME
        _auditctl(action, "always,exit", "-F", "arch=b64", "-S", ",".join(CALLS), "-F", f"exe={exe}", "-k", KEY)

    def start(self) -> None:
        """Starts the daemon, then has the kernel record. Raises Absent."""
        for directory in (self.place, self.log.parent, self.place / "plugins.d"):
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        configuration = self.place / "auditd.conf"
        configuration.write_text(_CONFIGURATION.format(log=self.log, plugins=self.place / "plugins.d"))
        configuration.chmod(0o640)  # it refuses one that others can write
        words = [*PINNED, _program("auditd"), "-n", "-s", "nochange", "-c", str(self.place)]
        with (self.place / "auditd.err").open("wb") as errors:
            self._process = subprocess.Popen(words, stdout=errors, stderr=errors)
        deadline = time.monotonic() + _START_SECONDS
        while status().pid != self._process.pid:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.place / "auditd.err").read_text(errors="replace").strip()[-300:]
                raise Absent(f"auditd does not start: {said or 'why is in the system log'}")
            time.sleep(0.1)
        for name, option, value in _SETTINGS:
            if (was := getattr(self.before, name)) != value:
                self._undo.append(functools.partial(_auditctl, option, str(was)))
                _auditctl(option, str(value))
        _remember()
        self._undo.insert(0, functools.partial(_auditctl, "-e", str(self.before.enabled)))
        _auditctl("-e", "1")
        self._undo[:0] = [self._unrule, self._drained]  # records that nobody takes are printed by the kernel
        self._rule("-a")

    def _unrule(self) -> None:
        if _auditctl("-l").strip() != _NO_RULES:
            self._rule("-d")

    def step(self, load: Load, mode: str, seconds: float, rate: float = 0) -> Step:
        """Runs the load under it. Raises Absent."""
        assert self._process is not None
        lost, begin, cpu = status().lost, self.log.stat().st_size, cpu_time(self._process.pid)
        try:
            run = load.run(mode, seconds, rate)
        except subprocess.TimeoutExpired:
            raise Absent("the load did not end: it waits for auditd when the backlog is full") from None
        ended = time.time()
        backlog = max(self._drained() - ended, 0.0)
        if self._process.poll() is not None:
            raise Absent(f"auditd has ended with {self._process.returncode}")
        after = cpu_time(self._process.pid)
        with self.log.open("rb") as log:
            log.seek(begin)
            text = log.read()
        found, acts = recorded(text, run.pid), {kind: run.acts[kind] for kind in CALLS.values()}
        missing = sum(max(count - found[kind], 0) for kind, count in acts.items())
        mine, count = sum(acts.values()) - missing, max(found.total(), 1)
        return Step(
            run, mine, missing, status().lost - lost, 0, (after.user - cpu.user) / count * 1e6,
            (after.system - cpu.system) / count * 1e6, backlog, found.total(), line_bytes=len(text) / count,
        )  # fmt: skip

    def _drained(self) -> float:
        """Waits until the kernel has handed over what it holds and the log has not grown for a while; when it last grew."""
        began = since = time.time()
        size = -1
        while time.time() - began < _DRAIN_SECONDS and self._process is not None and self._process.poll() is None:
            if (now := self.log.stat().st_size) != size:
                size, since = now, time.time()
            elif time.time() - since > _STILL_SECONDS and status().backlog == 0:
                break
            time.sleep(0.05)
        return since

    def end(self) -> list[str]:
        """Removes the rule, puts the settings back and ends the daemon, whatever fails on the way; what is not as it was found."""
        problems = []
        for undo in (*self._undo, self._stop):
            try:
                undo()
            except (Absent, OSError, subprocess.SubprocessError) as error:
                problems.append(f"auditd, at its end: {error}")
        try:
            now, rules = status(), _auditctl("-l").strip()
        except Absent as error:
            return [*problems, f"auditd, after its end: {error}"]
        for name in ("enabled", "pid", *(setting for setting, _, _ in _SETTINGS)):
            if (is_now := getattr(now, name)) != (was := getattr(self.before, name)):
                problems.append(f"auditd, after its end: {name} is {is_now}, was {was}")
        return problems if rules == _NO_RULES else [*problems, f"auditd, after its end: rules are left: {rules}"]

    def _stop(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)


@contextlib.contextmanager
def running(load: Load, problems: list[str]) -> Iterator[Auditd]:
    """The daemon with its rule; ended, and the settings as they were, whatever happens (`problems`: what is not). Raises Absent."""
    made = Auditd(load, usable())
    try:
        made.start()
        yield made
    finally:
        problems += made.end()
        shutil.rmtree(made.place, ignore_errors=True)
