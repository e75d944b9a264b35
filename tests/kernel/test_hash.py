"""Hashes of what really ran, and the switch that turns them off."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.kernel.monitor_process import Document, MonitorProcess, Monitors, name_of


def of(monitor: MonitorProcess, pid: int) -> list[Document]:
    return [one for one in monitor.journal.documents(pid) if name_of(one) in ("process_exec", "process_hash")]


def test_programs_have_their_hash_at_once_or_by_a_later_document(monitors: Monitors, public: Path) -> None:
    monitor = monitors.get(profile="minimal")
    monitor.journal.begin()
    program = public / "hashed"
    shutil.copy("/bin/true", program)
    with program.open("ab") as file:
        file.write(os.urandom(64))
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    first = subprocess.Popen([program])
    first.wait()
    monitor.until(lambda: len(of(monitor, first.pid)) == 2, "the late hash", 30)
    started, late = of(monitor, first.pid)
    assert "hash" not in started["process"]
    assert late["process"] == {
        "entity_id": started["process"]["entity_id"],
        "pid": first.pid,
        "executable": str(program),
        "hash": {"sha256": digest},
    }
    assert (late["file"]["inode"], late["file"]["device"]) == (started["file"]["inode"], started["file"]["device"])
    time.sleep(2.1)  # younger files are read each time
    second = subprocess.Popen([program])
    second.wait()
    monitor.until(lambda: len(of(monitor, second.pid)) == 2, "the late hash", 30)
    third = subprocess.Popen([program])
    third.wait()
    monitor.lifetime(third.pid)
    assert [one["process"].get("hash") for one in of(monitor, third.pid)] == [{"sha256": digest}]
    with program.open("ab") as file:
        file.write(b"changed")
    fourth = subprocess.Popen([program])
    fourth.wait()
    monitor.until(lambda: len(of(monitor, fourth.pid)) == 2, "the hash of the changed file", 30)
    assert of(monitor, fourth.pid)[1]["process"]["hash"]["sha256"] == hashlib.sha256(program.read_bytes()).hexdigest()
    monitor.check()


@pytest.mark.parametrize("on", [False, True])
def test_off_means_that_no_thread_runs_and_no_file_is_opened(monitors: Monitors, public: Path, on: bool) -> None:
    monitor = monitors.get(profile="minimal", hash=on)
    monitor.journal.begin()
    threads = [Path(task, "comm").read_text().strip() for task in Path(f"/proc/{monitor.pid}/task").iterdir()]
    assert ("hasher" in threads) == on
    program = public / f"unread-{on}"
    shutil.copy("/bin/true", program)
    os.utime(program, ns=(0, time.time_ns()))  # an access time that any reading replaces (relatime)
    child = subprocess.Popen([program])
    child.wait()
    monitor.lifetime(child.pid)
    deadline = time.monotonic() + (30 if on else 1)
    hashes: list[Document] = []
    while not hashes and time.monotonic() < deadline:
        time.sleep(0.2)
        monitor.journal.poll()
        hashes = [one for one in of(monitor, child.pid) if "hash" in one["process"]]
    assert bool(hashes) == on
    assert (monitor.status()["hash"] is not None) == on
