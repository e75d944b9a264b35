"""A real monitor in private directories, a C program that performs known acts, and the whole log read back.

Owns how these tests start, kill and read a monitor; talks to it through files and signals only and asserts nothing about
single documents.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import orjson

from monitor import reader
from monitor.reader import Document
from tests import compiled as kept
from tests.kernel.monitor_process import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
BPFFS = Path("/sys/fs/bpf")
STARTED_S = 120.0

RUNNER = """
import sys
from pathlib import Path
from monitor import app, config, startup
from monitor.kernel import probes
{lines}
try:
    sources = config.locate(Path(sys.argv[1]))
    sys.exit(app.run(config.read(sources).config, startup.Options(ready_file=Path(sys.argv[2]), sources=sources)))
except app.StartError as error:
    print(error, file=sys.stderr)
    sys.exit(error.status)
"""
ONLY_OURS = """
_calls = probes.calls
probes.calls = lambda *given: {at: bits for at, bits in _calls(*given).items() if at in (42, 85, 264, 327, 328)}
"""
"""Runner lines: connect, creat, renameat, preadv2 and pwritev2 are all that is traced beside processes. Nothing else on a host
uses the last four, so that what the kernel counts of class `file` is exactly what a test did."""

NOTHING_ELSE = (
    ONLY_OURS.replace("42, ", "")
    + """
from monitor.kernel import loader
_attach = loader.attach
def attach(directory):
    found = _attach(directory)
    for link in directory.glob("link_sched_*"):
        link.unlink()
    return found
loader.attach = attach
"""
)
"""Runner lines: not even processes are traced. Files are written to until they are evicted, nothing tells of an exit."""

PROGRAM = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#define BLOCK 500
static volatile long *performed; /* the test reads it: acts completed so far */
static volatile sig_atomic_t stop;
static void on_term(int s) { (void)s; stop = 1; }
static struct timespec next_tick;
/* `rate` acts a second, in ticks of 1 ms; 0: as fast as it goes */
static void pace(long n, long rate) {
  long each = rate / 1000 > 0 ? rate / 1000 : 1, tick = rate >= 1000 ? 1000000 : 1000000000 / (rate ? rate : 1);
  if (!rate || n % each) return;
  next_tick.tv_nsec += tick;
  if (next_tick.tv_nsec >= 1000000000) { next_tick.tv_nsec -= 1000000000; next_tick.tv_sec++; }
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next_tick, 0);
}
int main(int argc, char **argv) {
  const char *what = argv[1], *dir = argv[3]; long first = atol(argv[4]), count = atol(argv[5]), rate = atol(argv[6]), n; char path[4200];
  int shared = open(argv[2], O_RDWR | O_CREAT, 0600), fd = -1; (void)argc;
  if (shared < 0 || ftruncate(shared, 4096)) return 98;
  performed = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
  signal(SIGTERM, on_term);
  clock_gettime(CLOCK_MONOTONIC, &next_tick);
  if (!strcmp(what, "flood")) { snprintf(path, sizeof path, "%s/flood-%d", dir, getpid()); fd = open(path, O_RDWR | O_CREAT, 0600); }
  performed[1] = getpid();
  for (n = first; n < first + count && !stop; n++) {
    if (!strcmp(what, "mixed")) {          /* both lanes; each block of numbers has a thread name and a file of its own */
      if (n % BLOCK == 0 || fd < 0) {
        if (fd >= 0) close(fd);
        snprintf(path, sizeof path, "b%ld", n / BLOCK); prctl(PR_SET_NAME, path);
        snprintf(path, sizeof path, "%s/null-%ld", dir, n / BLOCK); mknod(path, S_IFCHR | 0600, makedev(1, 3));
        fd = open(path, O_WRONLY); if (fd < 0) return 97;
      }
      if (n % 4 == 0) { snprintf(path, sizeof path, "%s/open/%ld", dir, n); syscall(SYS_creat, path, 0600); }
      else if (n % 4 == 1) { snprintf(path, sizeof path, "%s/rename/%ld", dir, n); syscall(SYS_renameat, AT_FDCWD, "/none", AT_FDCWD, path); }
      else { struct iovec v = {main, n}; if (syscall(SYS_pwritev2, fd, &v, 1, -1l, 0l, 0) != n) return 96; } /* the null device takes the number itself */
    } else if (!strcmp(what, "flood")) {   /* bytes of a real file; a read and a write each */
      struct iovec w = {&n, 1 + n % 8}, r = {path, 8};
      if (syscall(SYS_pwritev2, fd, &w, 1, 0l, 0l, 0) < 1 || syscall(SYS_preadv2, fd, &r, 1, 0l, 0l, 0) < 1) return 95;
      performed[2] += 1 + n % 8;
    } else if (!strcmp(what, "creat")) {   /* fails, and cannot be folded */
      snprintf(path, sizeof path, "%s/none/%ld", dir, n); syscall(SYS_creat, path, 0600);
    } else if (!strcmp(what, "missing")) { /* fails too; an openat, which ONLY_OURS does not see */
      snprintf(path, sizeof path, "%s/none/%ld", dir, n); open(path, O_RDONLY);
    } else if (!strcmp(what, "spawn")) {
      snprintf(path, sizeof path, "%s/%ld", dir, n);
      pid_t child = vfork();
      if (!child) { execl("/bin/true", "true", path, (char *)0); _exit(99); }
      int status; waitpid(child, &status, 0); if (status) return 94;
    } else if (!strcmp(what, "rename")) {
      char other[4200]; snprintf(path, sizeof path, "%s/from-%ld", dir, n); snprintf(other, sizeof other, "%s/to-%ld", dir, n);
      close(open(path, O_WRONLY | O_CREAT, 0600)); if (rename(path, other)) return 93;
    } else if (!strcmp(what, "marked")) {  /* a file goes; the group changes: the number is in both */
      snprintf(path, sizeof path, "%s/gone-%ld", dir, n);
      close(open(path, O_WRONLY | O_CREAT, 0600));
      if (syscall(SYS_unlinkat, AT_FDCWD, path, 0) || syscall(SYS_setresgid, -1, 70000 + n, -1)) return 91;
    } else if (!strcmp(what, "connect")) { /* to discard ports of loopback, which nobody listens on */
      struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(1 + n), .sin_addr = {htonl(0x7f4d0000 | getpid() % 65521)}};
      int s = socket(AF_INET, SOCK_STREAM, 0); connect(s, (void *)&a, sizeof a); close(s);
    } else return 92;
    performed[0] = n + 1 - first;
    pace(n, rate);
  }
  return 0;
}
"""
BLOCK = 500


def compiled(directory: Path) -> Path:
    """The program that performs acts, built below `directory` once."""
    program = directory / "survival-acts"
    if not program.exists():
        source = directory / "survival-acts.c"
        source.write_text(PROGRAM)
        subprocess.run(["gcc", "-O1", "-w", "-o", program, source], check=True)
    return program


def wait_for(condition: Callable[[], object], seconds: float = 90.0, what: str = "") -> None:
    """Returns when the condition is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.002)


def alone() -> contextlib.AbstractContextManager[None]:
    """No other test of these runs on this host meanwhile: it floods the kernel's rings, or counts what others do there."""
    return _turn(fcntl.LOCK_EX)


def paced() -> contextlib.AbstractContextManager[None]:
    """Others of these may run meanwhile, as they all have their pace; none that floods the kernel's rings."""
    return _turn(fcntl.LOCK_SH)


@contextlib.contextmanager
def _turn(how: int) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(Path(tempfile.gettempdir()) / "ebpf-monitor-tests.lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


class Acts:
    """A running act program. `performed` counts what it has completed."""

    running: ClassVar[list[Acts]] = []

    def __init__(
        self,
        program: Path,
        directory: Path,
        what: str,
        *,
        first: int = 0,
        count: int = 1 << 40,
        rate: int = 0,
        label: str = "",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._counter = directory.parent / f"{directory.name}.{what}{label}.counter"
        self._counter.unlink(missing_ok=True)
        self.first = first
        self.process = subprocess.Popen(
            [program, what, self._counter, directory, str(first), str(count), str(rate)],
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        Acts.running.append(self)

    def _word(self, index: int) -> int:
        if not self._counter.exists():
            return 0
        raw = self._counter.read_bytes()[8 * index : 8 * index + 8]
        return int.from_bytes(raw, "little")

    @property
    def performed(self) -> int:
        """Acts completed."""
        return self._word(0)

    @property
    def bytes_written(self) -> int:
        """Bytes that a flood has written."""
        return self._word(2)

    def stop(self) -> int:
        """Ends it in order; the number of acts performed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Waits for its end; the number of acts performed."""
        status = self.process.wait(120)
        assert status == 0, f"the act program ended with {status}"
        return self.performed


@dataclass
class MonitorRun:
    """One configuration and pin directory; `start` as often as wanted."""

    base: Path
    pin_dir: Path
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    runner: str | None = None
    """Python lines to run before the monitor, in its process; None: `python -m monitor run`"""
    process: subprocess.Popen[str] | None = None
    prefix: tuple[str, ...] = ()
    lends: bool = True
    """what is compiled serves all tests of a session"""
    _looked: dict[str, dict[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base.mkdir(mode=0o750, parents=True, exist_ok=True)
        self.base.chmod(0o750)

    @property
    def events_dir(self) -> Path:
        """Where the log is."""
        return Path(self.settings.get("events_dir", self.base / "events"))

    @property
    def run_dir(self) -> Path:
        """Where status.json is."""
        return Path(self.settings.get("run_dir", self.base / "run"))

    def launch(self) -> subprocess.Popen[str]:
        """Starts the process and does not wait."""
        assert self.process is None or self.process.poll() is not None, "it runs already"
        (self.base / "ready").unlink(missing_ok=True)
        config = {
            "events_dir": str(self.base / "events"),
            "output_dir": str(self.base / "out"),
            "run_dir": str(self.base / "run"),
            "pin_dir": str(self.pin_dir),
            "profile": "full",
        } | self.settings
        if self.lends:
            kept.lend(Path(str(config["output_dir"])))
        path = self.base / "config.json"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        ready = self.base / "ready"
        how = ["-m", "monitor", "run", "--config", str(path), "--ready-file", str(ready)]
        if self.runner is not None:
            how = ["-c", RUNNER.format(lines=self.runner), str(path), str(ready)]
        with open(self.base / "output", "a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-u", *how],  # unbuffered: tests read what it says
                stdout=output,
                stderr=output,
                text=True,
                cwd=ROOT,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
            )
        return self.process

    def start(self) -> float:
        """Starts it and waits until it is ready; the seconds that took."""
        begun = time.monotonic()
        process = self.launch()
        wait_for(
            lambda: (self.base / "ready").exists() or process.poll() is not None,
            STARTED_S,
            f"the monitor is ready: {self.output}",
        )
        assert process.poll() is None, f"the monitor ended with {process.returncode}: {self.output}"
        if self.lends:
            kept.keep(self.base / "out")
        return time.monotonic() - begun

    @property
    def output(self) -> str:
        """What it has printed, all starts together."""
        return (self.base / "output").read_text()

    def signal(self, number: int) -> None:
        """Sends a signal to the monitor."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def finish(self) -> None:
        """Whatever happened: no process and no pin stays."""
        for acts in Acts.running:
            acts.process.kill()
            acts.process.wait()
        Acts.running.clear()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for capture in self.captures():
            for link in capture.glob("link_*"):
                link.unlink()
        shutil.rmtree(self.pin_dir, ignore_errors=True)

    def captures(self) -> list[Path]:
        """What is pinned."""
        return sorted(self.pin_dir.iterdir()) if self.pin_dir.is_dir() else []

    def status(self) -> dict[str, Any]:
        """status.json."""
        found: dict[str, Any] = json.loads((self.run_dir / "status.json").read_bytes())
        return found

    def wait_balanced(self, seconds: float = 30.0) -> dict[str, Any]:
        """Waits for a status written from now on with nothing in flight, and returns its ledger, which is balanced."""
        since = time.time()

        def settled() -> bool:
            if not (self.run_dir / "status.json").exists():
                return False
            found = self.status()
            return bool(found["time"] > since and found["ledger"]["in_flight"] <= 50)

        wait_for(settled, seconds, f"the rings are read: {self.output}")
        ledger: dict[str, Any] = self.status()["ledger"]
        assert ledger["balanced"], ledger
        return ledger

    def lines(self, *needles: bytes) -> Iterator[bytes]:
        """Every line of every file of the log, once, in order; only those with one of the needles if any are given."""
        problems: list[reader.Problem] = []
        for line in reader.lines(self.events_dir, on_problem=problems.append):
            assert not line.torn, f"torn line at {line.file.path}:{line.offset}"
            if not needles or any(needle in line.raw for needle in needles):
                yield line.raw
        assert not problems, problems

    def documents(self, *needles: bytes) -> list[dict[str, Any]]:
        """The same, decoded."""
        return [orjson.loads(raw) for raw in self.lines(*needles)]

    def seen(self, needle: str) -> bool:
        """Is this text in the log yet? Looks at each byte once."""
        wanted, marks = needle.encode(), self._looked.setdefault(needle, {})
        for path in self.events_dir.glob("events.jsonl*"):
            with (
                contextlib.suppress(FileNotFoundError),
                open(path, "rb") as log,
            ):  # rotated meanwhile: the next look finds it
                inode = os.fstat(log.fileno()).st_ino
                log.seek(marks.get(inode, 0))
                data = log.read(64 << 20)
                marks[inode] = max(0, log.tell() - len(wanted))
                if wanted in data:
                    return True
        return False


@dataclass
class Summary:
    """What `check` found."""

    epochs: list[str] = field(default_factory=list)
    lines: int = 0
    losses: list[dict[str, Any]] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)

    def lost(self, *, of: str | None = None, reason: str | None = None) -> int:
        """Sum of the counts of the monitor_loss documents of a class, for a reason."""
        return sum(
            loss["count"] for loss in self.losses if of in (None, loss["class"]) and reason in (None, loss["reason"])
        )


def check_chain(monitor: MonitorRun) -> Summary:
    """Asserts that every line is whole, every epoch dense and in one piece, and every epoch names the one before it."""
    found = Summary()
    last: dict[str, int] = {}
    for raw in monitor.lines():
        found.lines += 1
        at = raw.index(b'"id":"', raw.index(b'"event":{"kind"')) + 6
        epoch, sequence = raw[at + 9 : at + 25].decode(), int(raw[at + 26 : at + 38], 16)
        if epoch not in last:
            assert sequence == 1, f"epoch {epoch} begins with {sequence}"
            first = orjson.loads(raw)["ebpf"]
            assert first["event"] == "monitor_start"
            before = {"epoch": found.epochs[-1], "sequence": last[found.epochs[-1]]} if found.epochs else None
            assert first.get("previous") == before
            found.epochs.append(epoch)
        else:
            assert epoch == found.epochs[-1], f"epoch {epoch} goes on after {found.epochs[-1]} began"
            assert sequence == last[epoch] + 1, f"epoch {epoch}: {sequence} after {last[epoch]}"
        last[epoch] = sequence
        if b'"ebpf":{"event":"monitor_' in raw:
            made = orjson.loads(raw)["ebpf"]
            found.made.append(made)
            if made["event"] == "monitor_loss":
                found.losses.append(made["loss"])
    return found


def check_mixed(monitor: MonitorRun, acts: Acts, count: int, *, more: bool = False, folded: bool = False) -> int:
    """Asserts that `count` acts of kind `mixed` are in the log exactly once, each with its own path, thread name and process.

    `more`: later ones may be there too, each at most once. `folded`: writes may be missing, as they fold under pressure.
    Returns how many are there.
    """
    where, seen = str(acts.directory), bytearray(count)  # times of each number: millions of them are a few MB
    wrong: list[str] = []
    for raw in monitor.lines(os.fsencode(where)):
        document = orjson.loads(raw)
        event, process = document["ebpf"]["event"], document.get("process", {})
        path = document.get("file", {}).get("path", "")
        if process.get("pid") != acts.process.pid:
            continue
        if event == "file_write":
            number = document["ebpf"]["ret"]
            expected = f"{where}/null-{number // BLOCK}"
        elif event in ("file_open", "file_rename") and "error" in document:
            number = int(path.rsplit("/", 1)[1])
            expected = f"{where}/{'open' if event == 'file_open' else 'rename'}/{number}"
        else:
            continue
        at = number - acts.first
        if at >= len(seen) and more:
            seen.extend(bytes(at + 1 - len(seen)))
        assert 0 <= at < len(seen), f"{event} {number} was never performed"
        seen[at] = min(seen[at] + 1, 255)
        name = process["thread"]["name"]
        if (
            path != expected
            or name != f"b{number // BLOCK}"
            or process.get("executable", "").rsplit("/", 1)[1] != "survival-acts"
        ):
            wrong.append(f"{event} {number}: {path} by {name} {process}")
    assert not wrong, (len(wrong), wrong[:5])
    twice = [acts.first + at for at, times in enumerate(seen) if times > 1]
    assert not twice, (len(twice), twice[:10])
    numbers = range(acts.first, acts.first + count)
    missing = [
        number for number, times in zip(numbers, seen, strict=False) if not times and not (folded and number % 4 > 1)
    ]
    assert not missing, (len(missing), missing[:10], missing[-3:])
    return len(seen) - seen.count(0)


__all__ = [
    "BLOCK",
    "BPFFS",
    "NOTHING_ELSE",
    "ONLY_OURS",
    "Acts",
    "Document",
    "MonitorRun",
    "Summary",
    "alone",
    "check_chain",
    "check_mixed",
    "compiled",
    "paced",
    "wait_for",
]
