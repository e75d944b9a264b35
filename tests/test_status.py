"""What status says of a monitor that runs, hangs, starts, or is gone; with a real lock held by a real process."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor import status
from monitor.status import StatusError, duration, losses, table
from tests import loglines

NOW = 1_795_366_321.0
HOLDER = """import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()"""


def ledger(**changes: Any) -> dict[str, Any]:
    return {
        "kernel_seen": 110,
        "submitted": 90,
        "refused": {"ring_full": 7, "control_full": 0, "preempted": 0},
        "suppressed": {"self": 13},
        "received": 88,
        "in_flight": 2,
        "died": 0,
        "made": 3,
        "logged": 91,
        "quarantined": 0,
        "unwritten": 0,
        "balanced": True,
    } | changes


def document(pid: int, **changes: Any) -> dict[str, Any]:
    return {
        "pid": pid,
        "epoch": "00112233aabbccdd",
        "sequence": 91,
        "durable_sequence": 80,
        "ring_fill": 0.25,
        "bytes_written": 100_000,
        "sync_failures": 0,
        "profile": "full",
        "events_dir": "/nonexistent/events",
        "time": NOW,
        "ledger": ledger(),
    } | changes


class RunDir:
    """A run_dir with a lock and a status.json, both `ago` seconds old at NOW."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pid = os.getpid()

    def lock(self, ago: float = 60.0, pid: int | None = None) -> None:
        (self.path / "lock").write_text(f"{self.pid if pid is None else pid}\n")
        os.utime(self.path / "lock", (NOW - ago, NOW - ago))

    def status(self, ago: float = 1.0, **changes: Any) -> None:
        (self.path / "status.json").write_text(json.dumps(document(self.pid) | changes))
        os.utime(self.path / "status.json", (NOW - ago, NOW - ago))

    def read(self) -> status.Status:
        return status.read(self.path, NOW)


@pytest.fixture
def stopped(tmp_path: Path) -> RunDir:
    run_dir = RunDir(tmp_path)
    run_dir.lock()
    return run_dir


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunDir]:
    """The lock is held by a process of its own."""
    run_dir = RunDir(tmp_path)
    run_dir.lock()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    holder.stdout.readline()
    run_dir.pid = holder.pid
    run_dir.lock()
    yield run_dir
    holder.stdin.close()
    holder.wait(10)
    holder.stdout.close()


def test_running_and_balanced_is_0(running: RunDir) -> None:
    running.status()
    found = running.read()
    assert (found.running, found.pid, found.exit_status) == (True, running.pid, 0)
    assert found.uptime_s == pytest.approx(60)


def test_not_balanced_is_1(running: RunDir) -> None:
    running.status(ledger=ledger(balanced=False))
    assert running.read().exit_status == 1
    assert "NOT BALANCED" in table(running.read())


def test_silent_for_more_than_5_s_is_1(running: RunDir) -> None:
    running.status(ago=4.9)
    assert running.read().exit_status == 0
    running.status(ago=5.1)
    assert running.read().exit_status == 1
    assert "STALE" in table(running.read())


def test_not_running_is_3_whatever_the_last_status_said(stopped: RunDir) -> None:
    stopped.status(ago=1)
    found = stopped.read()
    assert (found.running, found.exit_status) == (False, 3)
    assert "not running" in table(found)
    assert "1 s ago" in table(found)


def test_lock_file_without_a_holder_is_not_running_even_if_that_process_lives(stopped: RunDir) -> None:
    assert stopped.pid == os.getpid()  # alive, and not a monitor
    assert stopped.read().exit_status == 3


def test_looking_does_not_disturb_the_lock(stopped: RunDir) -> None:
    stopped.read()
    descriptor = os.open(stopped.path / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_nothing_there_at_all_is_not_running(tmp_path: Path) -> None:
    assert status.read(tmp_path / "nothing").exit_status == 3
    assert table(status.read(tmp_path / "nothing")) == "monitor  not running\n"


def test_status_of_an_earlier_run_is_not_taken_for_this_one(running: RunDir) -> None:
    running.status(pid=running.pid + 1)
    found = running.read()
    assert (found.running, found.last, found.exit_status) == (True, {}, 1)
    assert "not written yet" in table(found)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"ledger": 5}', '{"pid": "x"}'])
def test_status_that_is_not_one_is_1_and_no_exception(running: RunDir, content: str) -> None:
    (running.path / "status.json").write_text(content)
    assert running.read().exit_status == 1
    assert table(running.read())
    assert json.dumps(running.read().document())


def test_unreadable_run_dir_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").write_text("a file, not a directory")
    with pytest.raises(StatusError, match="Not a directory"):
        status.read(tmp_path / "run")


def test_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("1\n")
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StatusError):
        status.read(tmp_path)


def test_document_has_the_contract_s_members(running: RunDir) -> None:
    running.status()
    found = running.read().document()
    assert found["running"] is True
    assert (found["pid"], found["epoch"], found["uptime_s"]) == (running.pid, "00112233aabbccdd", 60.0)
    assert found["lag"] == {"in_rings": 2, "not_durable": 11, "ring_fill": 0.25}
    assert found["loss"]["total"] == 7
    assert found["ledger"] == ledger()
    assert json.loads(json.dumps(found)) == found


def test_losses_add_up_every_reason() -> None:
    refused = {"ring_full": 7, "control_full": 0, "preempted": 3}
    assert losses(ledger(refused=refused, died=1, quarantined=2, unwritten=4)) == {
        "ring_full": 7,
        "control_full": 0,
        "preempted": 3,
        "died": 1,
        "quarantined": 2,
        "unwritten": 4,
        "total": 17,
    }
    assert losses({}) == {"total": 0}


def test_volume_is_the_run_s_when_it_began_today(running: RunDir) -> None:
    running.status(bytes_written=60_000_000)
    found = running.read()
    assert found.gb_per_day == pytest.approx(86.4)
    assert found.today is False


def test_volume_is_today_s_for_a_run_that_began_before(running: RunDir, tmp_path: Path) -> None:
    """Of a log that crosses midnight only what came after it counts."""
    local = datetime.datetime.fromtimestamp(NOW).astimezone()
    midnight_ns = int(local.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()) * loglines.SECOND_NS
    path = "/" + "x" * 4000
    before = [loglines.line(number, path=path, time_ns=midnight_ns - 10**9 + number) for number in range(1, 1001)]
    after = [loglines.line(number, path=path, time_ns=midnight_ns + number) for number in range(1001, 2001)]
    loglines.write(tmp_path / "log", before[:500], "events.jsonl.1")
    loglines.write(tmp_path / "log", before[500:] + after)
    running.lock(ago=3 * 86_400)
    running.status(events_dir=str(tmp_path / "log"), bytes_written=10**12)
    found = running.read()
    seconds = NOW - midnight_ns / 1e9
    assert found.today is True
    assert found.gb_per_day == pytest.approx(sum(map(len, after)) / seconds * 86_400 / 1e9, rel=0.05)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (3 * 86_400 + 7300, "3 d 2 h")]
)
def test_duration_has_the_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_hostile_status_cannot_move_the_cursor(running: RunDir) -> None:
    running.status(events_dir="/tmp/\x1b[2J", profile="\u202efull")
    assert all(row.isprintable() for row in table(running.read()).splitlines())


def test_it_fits_one_screen_and_answers_what_is_asked_first(running: RunDir, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"x" * 4096)
    (tmp_path / "events.jsonl.1.gz").write_bytes(b"x" * 4096)
    big = ledger(kernel_seen=12_345_678_901, submitted=12_345_678_000, received=12_345_678_000, logged=12_345_690_000,
                 made=12_000, folded=98_765_432, torn=1, expired=40_000, redacted=12)  # fmt: skip
    off = {f"event_{number}": "profile minimal" for number in range(40)} | {"file_map": "the kernel has no ringbuf"}
    running.status(
        ledger=big,
        events_dir=str(tmp_path),
        off=off,
        config_problem="/etc/x.json:3: ring_bytes: restart",
        sync_failures=3,
    )
    rows = table(running.read()).splitlines()
    assert len(rows) <= 22
    text = "\n".join(rows)
    for answer in ("since 20", "lost", "lag", "in 2 files", "of the disk free", "and 37 more (profile minimal)",
                   "file_map (the kernel has no ringbuf)", "NOT TAKEN: /etc/x.json:3", "GB per day"):  # fmt: skip
        assert answer in text
    assert "kernel_seen 12,345,678,901 = submitted 12,345,678,000 + refused 7 + suppressed 13" in text
    assert "received 12,345,678,000 + made 12,000 = logged 12,345,690,000\n" in text
    assert all(part in text for part in ("folded 98,765,432", "torn 1", "expired 40,000", "redacted 12"))


def test_every_number_of_the_ledger_is_shown_unless_it_is_0(running: RunDir) -> None:
    counts = {
        name: index + 7 for index, name in enumerate(ledger()) if name not in ("refused", "suppressed", "balanced")
    }
    running.status(ledger=ledger(**counts))
    text = table(running.read())
    assert all(f"{name} {count}" in text for name, count in counts.items())
