"""Processes that were there before the monitor: found by the scan at start, marked, and joined with what they do later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.monitor_process import Document, MonitorProcess


def scanned(monitor: MonitorProcess) -> list[Document]:
    """The documents of the scan; all of them are in the log when the monitor is ready."""
    lines = (monitor.directory / "events" / "events.jsonl").read_bytes().splitlines()
    return [json.loads(line) for line in lines if b'"event":"process_found"' in line]


@pytest.fixture
def earlier() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs before the monitor starts."""
    process = subprocess.Popen(["/bin/sleep", "3600"], cwd="/")
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


@pytest.fixture
def late_monitor(earlier: subprocess.Popen[bytes], tmp_path: Path) -> Iterator[MonitorProcess]:
    """A monitor that was started after `earlier`."""
    assert earlier.poll() is None
    monitor = MonitorProcess(tmp_path, {}, profile="full", pin_dir=f"/sys/fs/bpf/ebpf-monitor-scan-{os.getpid()}")
    monitor.pins = Path(monitor.keys["pin_dir"])
    yield monitor
    monitor.stop()
    monitor.clean()


def test_a_process_that_ran_before_is_found_marked_and_has_the_entity_id_of_its_later_events(
    earlier: subprocess.Popen[bytes], late_monitor: MonitorProcess
) -> None:
    os.kill(earlier.pid, signal.SIGTERM)
    earlier.wait()
    ended = late_monitor.lifetime(earlier.pid)[-1]
    (found,) = (one for one in scanned(late_monitor) if one["process"]["pid"] == earlier.pid)
    assert found["ebpf"]["scanned"] is True
    assert found["event"]["action"] == "already_running"
    process = found["process"]
    assert process["executable"] == os.path.realpath("/bin/sleep")
    assert process["args"] == ["/bin/sleep", "3600"]
    assert process["working_directory"] == "/"
    assert process["parent"]["pid"] == os.getpid()
    assert ended["ebpf"]["event"] == "process_exit"
    assert ended["process"]["entity_id"] == process["entity_id"]
    assert ended["process"]["executable"] == process["executable"]
    assert "scanned" not in ended["ebpf"]


def test_the_number_of_processes_found_stands_in_monitor_start(late_monitor: MonitorProcess) -> None:
    late_monitor.until(lambda: late_monitor.journal.made, "the first document")
    start = late_monitor.journal.made[0]
    assert start["ebpf"]["event"] == "monitor_start"
    assert start["ebpf"]["monitor"]["processes"] == len(scanned(late_monitor)) > 1
