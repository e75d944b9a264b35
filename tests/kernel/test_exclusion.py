"""The monitor leaves out its own acts, by its registered identity, and counts them; nobody else can hide behind its name."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kernel.acts import AT_FDCWD, Script
from tests.kernel.monitor_process import MonitorProcess, name_of

pytestmark = pytest.mark.parametrize("running", [{"profile": "full"}], indirect=True, ids=["full"])


def test_no_event_is_the_monitor_s_own_and_they_are_counted(monitor: MonitorProcess, script: Script) -> None:
    before = monitor.fresh_status()["ledger"]["suppressed"]["self"]
    monitor.program(script.run())
    after = monitor.fresh_status()["ledger"]["suppressed"]["self"]
    assert after > before > 0, "it wrote its log and its status meanwhile"
    # what it is (found, with a hash) is told, what it does is not
    assert [one for one in monitor.journal.documents(monitor.pid) if name_of(one) != "process_hash"] == []
    threads = {int(entry.name) for entry in Path(f"/proc/{monitor.pid}/task").iterdir()}
    assert all(monitor.journal.documents(tid) == [] for tid in threads - {monitor.pid})


@pytest.mark.parametrize("name", ["ebpf-monitor", "python3", "systemd", "kworker", "[kthreadd]"])
def test_a_program_with_a_trusted_name_is_recorded(
    monitor: MonitorProcess, script: Script, place: Path, name: str
) -> None:
    shutil.copy2(script.actor, place / name)
    thread = "kworker/0:1" if name == "kworker" else name
    script.call("prctl", 15, script.text(thread), 0, 0, 0)
    opened = script.call("openat", AT_FDCWD, script.text(place / "f"), os.O_RDWR | os.O_CREAT, 0o600)
    script.call("close", opened)
    found = monitor.program(script.run(program=place / name))
    assert [name_of(one) for one in found] == ["file_open", "file_close"]
    assert {(one["process"]["name"], one["process"]["thread"]["name"]) for one in found} == {(name, thread)}


def test_what_others_do_to_the_monitor_s_log_is_recorded(monitor: MonitorProcess, script: Script) -> None:
    log = monitor.directory / "events" / "events.jsonl"
    opened = script.call("openat", AT_FDCWD, script.text(log), os.O_RDONLY)
    script.call("read", opened, script.room(64), 64)
    found = monitor.program(script.run())
    assert [(name_of(one), one["file"]["path"]) for one in found] == [
        (name, str(log)) for name in ("file_open", "file_read", "file_close")
    ]


def test_the_test_s_own_process_is_recorded(monitor: MonitorProcess, place: Path) -> None:
    (place / "mine").touch()
    mine = str(place / "mine")
    monitor.until(
        lambda: any(one.get("file", {}).get("path") == mine for one in monitor.journal.documents(os.getpid())),
        "this process's open",
    )


def test_a_child_of_another_process_of_the_same_program_is_recorded(monitor: MonitorProcess) -> None:
    executable = os.readlink(f"/proc/{monitor.pid}/exe")
    child = subprocess.Popen([executable, "-S", "-c", "pass"])
    assert child.wait() == 0
    found = monitor.lifetime(child.pid)
    assert [name_of(one) for one in found if name_of(one).startswith("process")] == [
        "process_fork",
        "process_exec",
        "process_exit",
    ]
    assert found[-1]["process"]["executable"] == executable
