"""`ebpf-monitor run` and the commands beside it as people type them, on the real kernel, each in private directories."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor import config
from tests import compiled

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


class Place:
    """Private directories with a configuration, and the processes started there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pins = Path(f"/sys/fs/bpf/{directory.name}")
        self.config, self.ready = directory / "config.json", directory / "ready"
        self.write(profile="full")
        self.processes: list[subprocess.Popen[bytes]] = []

    def write(self, **keys: Any) -> None:
        paths = {name: str(self.directory / name) for name in ("events_dir", "output_dir", "run_dir")}
        self.config.write_text(json.dumps(paths | {"pin_dir": str(self.pins)} | keys))
        self.config.chmod(0o644)

    def popen(self, *words: str | Path, prefix: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[bytes]:
        if "run" in words:
            compiled.lend(self.directory / "output_dir")
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "monitor", *words],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            **streams,
        )
        self.processes.append(process)
        return process

    def start(self, *words: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """A monitor that captures."""
        process = self.popen("run", "--config", self.config, "--ready-file", self.ready, *words, **options)
        self.await_ready(process)
        compiled.keep(self.directory / "output_dir")
        return process

    def await_ready(self, process: subprocess.Popen[bytes], pid: int | None = None) -> None:
        deadline = time.monotonic() + 60
        while not (self.ready.exists() and self.ready.read_text() == f"{pid or process.pid}\n"):
            if process.poll() is not None or time.monotonic() > deadline:
                said = process.stderr.read().decode() if process.stderr and process.poll() is not None else ""
                pytest.fail(f"the monitor did not start ({process.poll()}): {said}", pytrace=False)
            time.sleep(0.01)

    def ended(self, process: subprocess.Popen[bytes], status: int = 0) -> tuple[str, str]:
        """What a process said until its end, which must have this status and no traceback."""
        out, error = (stream.decode() if stream else "" for stream in process.communicate(timeout=60))
        assert "Traceback" not in error, error
        assert process.returncode == status, error
        return out, error

    def on(self, command: str, *words: str | Path, status: int = 0) -> str:
        return self.ended(self.popen(command, "--config", self.config, *words), status)[0]

    def clean(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for link in self.pins.glob("*/link_*"):
            link.unlink()
        shutil.rmtree(self.pins, ignore_errors=True)


@contextlib.contextmanager
def new_place() -> Iterator[Place]:
    """In a directory that everybody may enter, unlike pytest's: one test is nobody."""
    with tempfile.TemporaryDirectory(prefix="ebpf-monitor-cli-") as name:
        Path(name).chmod(0o755)
        found = Place(Path(name))
        yield found
        found.clean()


@pytest.fixture
def place() -> Iterator[Place]:
    """For a test that starts a monitor of its own."""
    with new_place() as found:
        yield found


@pytest.fixture(scope="module")
def running(wait_until: Callable[..., None]) -> Iterator[tuple[Place, subprocess.Popen[bytes]]]:
    """A monitor that several tests look at from outside; at the end SIGTERM ends it with 0."""
    with new_place() as found:
        process = found.start()
        wait_until((found.directory / "run_dir" / "status.json").exists)
        yield found, process
        process.send_signal(signal.SIGTERM)
        found.ended(process)


def read_until(process: subprocess.Popen[bytes], pattern: str, seconds: float = 20) -> str:
    """Standard output up to a match; fails at the deadline."""
    assert process.stdout is not None
    seen, deadline = b"", time.monotonic() + seconds
    while not re.search(pattern, seen.decode("utf-8", "replace")):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            pytest.fail(f"not within {seconds} s on standard output: {pattern}; there was {seen[-2000:]!r}")
        more = os.read(process.stdout.fileno(), 65536)
        if not more:
            pytest.fail(f"standard output ended without {pattern}; there was {seen[-2000:]!r}")
        seen += more
    return seen.decode("utf-8", "replace")


def test_print_shows_what_happens_and_duration_ends_it(place: Place) -> None:
    place.write(profile="minimal")  # whatever else the host does with files, it is not too much for a screen
    process = place.start("--print", "--duration", "2")
    subprocess.run(["/bin/true", "one two"], check=True)
    out, error = place.ended(process)
    assert re.search(
        r"^\d\d:\d\d:\d\d\.\d{3}  process_exec    ok +\d+ true +root +/bin/true 'one two'", out, re.MULTILINE
    )
    assert re.search(r"monitor_stop .* recording ends: duration$", out, re.MULTILINE)
    assert f"recording as process {process.pid}; log in {place.directory / 'events_dir'}" in error
    assert not place.pins.exists() or not list(place.pins.iterdir())


def test_interrupt_drains_and_is_0_and_the_log_is_whole(place: Place) -> None:
    process = place.start()
    for _ in range(50):
        subprocess.run(["/bin/true"], check=True)
    process.send_signal(signal.SIGINT)
    place.ended(process)
    assert place.on("search", "-n", "true", "--event", "process_exec").count("\n") == 50
    assert "no findings" in place.on("verify")
    assert "recording ends: SIGINT" in place.on("tail", "-N", "1")
    assert "not running" in place.on("status", status=3)


def test_second_monitor_is_75_and_names_the_first(running: tuple[Place, subprocess.Popen[bytes]]) -> None:
    place, first = running
    second = place.popen("run", "--config", place.config)
    _, error = place.ended(second, 75)
    assert (
        error
        == f"ebpf-monitor: another monitor runs: process {first.pid} holds {place.directory / 'run_dir' / 'lock'}\n"
    )
    assert first.poll() is None


def test_status_is_0_while_it_runs(running: tuple[Place, subprocess.Popen[bytes]]) -> None:
    place, process = running
    found = json.loads(place.on("status", "--json"))
    assert (found["running"], found["pid"], found["balanced"]) == (True, process.pid, True)
    assert "running as process" in place.on("status")


def test_monitor_that_hangs_is_stale(running: tuple[Place, subprocess.Popen[bytes]]) -> None:
    place, process = running
    process.send_signal(signal.SIGSTOP)
    try:
        long_ago = time.time() - 5.5
        os.utime(place.directory / "run_dir" / "status.json", (long_ago, long_ago))
        assert "STALE" in place.on("status", status=1)
    finally:
        process.send_signal(signal.SIGCONT)


def test_tail_follows_a_running_monitor(running: tuple[Place, subprocess.Popen[bytes]]) -> None:
    place, _ = running
    tail = place.popen("tail", "--config", place.config, "-f", "-N", "0", "--event", "process_exec", "-n", "true")
    assert tail.stdout is not None
    deadline = time.monotonic() + 20
    while not select.select([tail.stdout], [], [], 0.2)[0]:  # until it follows: an act before that is not shown
        assert time.monotonic() < deadline
        subprocess.run(["/bin/true", "seen"], check=True)
    assert "/bin/true seen" in read_until(tail, r"\n")
    tail.send_signal(signal.SIGINT)
    place.ended(tail)


def test_without_privileges_it_is_77_and_a_sentence(place: Place) -> None:
    """The program is imported before it becomes nobody, who might not be allowed to read the checkout."""
    become = (
        f"import os, sys; from monitor import app, cli, display; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY});"
        f"cli.main(['run', '--config', {str(place.config)!r}])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", become],
        cwd=place.directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    place.processes.append(process)
    out, error = place.ended(process, 77)
    assert out == ""
    assert re.fullmatch(r"ebpf-monitor: capability missing: .*CAP_PERFMON.*CAP_BPF.*; run as root.*\n", error)


def test_log_directory_that_is_refused_is_1_and_a_sentence(place: Place) -> None:
    events_dir = place.directory / "events_dir"
    events_dir.mkdir()
    events_dir.chmod(0o777)
    _, error = place.ended(place.popen("run", "--config", place.config), 1)
    last = error.splitlines()[-1]
    assert last.startswith("ebpf-monitor: ")
    assert str(events_dir) in last


def test_reader_of_print_that_goes_away_ends_the_run_in_order(place: Place) -> None:
    process = place.start("--print")
    read_until(process, "monitor_start")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        subprocess.run(["/bin/true"], check=True)
    assert process.poll() == 0
    assert "monitor_stop" in place.on("tail", "-N", "1")


def test_screen_that_takes_nothing_does_not_hold_up_the_log(place: Place) -> None:
    process = place.start("--print")
    for number in range(3000):  # nobody reads: the pipe and the queue fill
        with (place.directory / f"file-{number}").open("wb") as opened:
            opened.write(b"x")
    found, deadline = "", time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        found = place.on("search", "--path", "*/file-2999", "--event", "file_close")
    assert found.count("\n") == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, "nobody has read a byte yet, and it ends"
    out, error = place.ended(process)
    assert "monitor_start" in out
    assert re.search(r"lines were not shown: standard output does not take them", error)


def test_start_without_any_configuration_records_below_the_current_directory(place: Place) -> None:
    """As `make run`. In a mount namespace of its own with a BPF file system of its own: the default pins are the host's."""
    assert not any(path.exists() for path in config.DEFAULT_PATHS), (
        "this host has a configuration, so the built-in one is not used"
    )
    prefix = (
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        'mount -t bpf bpf /sys/fs/bpf && exec "$@"',
        "sh",
    )
    process = place.popen("run", "--print", "--ready-file", place.ready, prefix=prefix)
    place.await_ready(process)
    assert process.stdout is not None
    shown, deadline = b"", time.monotonic() + 30
    while b"/bin/true hello" not in shown and time.monotonic() < deadline:  # on a busy host a screen does not get all
        subprocess.run(["/bin/true", "hello"], check=True)
        if select.select([process.stdout], [], [], 0.5)[0]:
            shown += os.read(process.stdout.fileno(), 1 << 20)
    assert b"/bin/true hello" in shown
    assert b"monitor_start" in shown
    process.send_signal(signal.SIGINT)
    _, error = place.ended(process)
    assert error.startswith(f"no configuration file: profile full, everything below {place.directory / 'var'}\n")
    events_dir = place.directory / "var" / "events"
    assert (events_dir / "events.jsonl").stat().st_mode & 0o777 == 0o640
    assert (place.directory / "var" / "run" / "status.json").exists()
    assert "no findings" in place.ended(place.popen("verify", events_dir))[0]


def test_progress_on_a_terminal_stays_on_one_line(place: Place) -> None:
    leader, follower = os.openpty()
    process = place.start("--duration", "3.5", stderr=follower, stdout=follower)
    os.close(follower)
    seen = b""
    while True:
        try:
            more = os.read(leader, 65536)
        except OSError:  # EIO: the last holder of the other end is gone
            break
        seen += more
    os.close(leader)
    assert process.wait(30) == 0
    text = seen.decode()
    assert re.search(r"\r[\d,]+ events/s, [\d,]+ logged, 0 lost, lag \d+, to sync [\d,]+, rings \d+ %", text)
    assert text.count("events/s") >= 2
    assert text.count("\n") == 2, "only the first and the last message end a line"
