"""Somebody interferes with the monitor or its capture: noticed within 3 s or at the next start, told with who did it, put right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.kernel import bpf
from tests.kernel.harness import ROOT, MonitorRun, wait_for
from tests.kernel.monitor_process import wall_ns

NOTICED_S = 3.0
pytestmark = pytest.mark.alone  # mounts and signals of other tests are among those who may have done it


@pytest.fixture
def monitor(tmp_path: Path):  # type: ignore[no-untyped-def]
    run = MonitorRun(tmp_path / "run", Path(f"/sys/fs/bpf/ebpf-monitor-tamper-{os.getpid()}"))
    yield run
    run.finish()


def whole_lines(monitor: MonitorRun, needle: bytes) -> list[dict]:  # type: ignore[type-arg]
    """Documents with this text, of a log that is being written."""
    files = sorted(monitor.events_dir.glob("events.jsonl*"), key=lambda path: path.stat().st_mtime)
    return [orjson.loads(line) for path in files for line in path.read_bytes().split(b"\n")[:-1] if needle in line]


def told(monitor: MonitorRun) -> list[dict]:  # type: ignore[type-arg]
    return [one["ebpf"]["tamper"] for one in whole_lines(monitor, b'"event":"monitor_tamper"')]


def await_told(monitor: MonitorRun, kind: str, count: int = 1, seconds: float = 60) -> list[dict]:  # type: ignore[type-arg]
    wait_for(lambda: sum(one["kind"] == kind for one in told(monitor)) >= count, seconds, f"{kind}: {monitor.output}")
    return [one for one in told(monitor) if one["kind"] == kind]


def goes_on(monitor: MonitorRun, marker: str) -> None:
    """An act after the repair is in the log."""
    subprocess.run(["/bin/true", marker], check=True)
    wait_for(lambda: monitor.seen(marker), 60, f"capture goes on: {monitor.output}")


REPLACE = """
import sys
from pathlib import Path
from monitor.kernel import bpf
pin, other = map(Path, sys.argv[1:])
descriptor = bpf.obj_get(other)
pin.unlink()
bpf.obj_pin(descriptor, pin)
"""


def delay(monitor: MonitorRun, told: dict[str, Any]) -> float:
    """Seconds from the act to the line that tells of it, by the times of both."""
    about = told["ebpf"]["tamper"]
    acts = [
        one
        for one in whole_lines(monitor, b'"event":"file_delete"')
        if one["ebpf"]["event"] == "file_delete"
        and one["process"]["pid"] == about["by"]["pid"]
        and one["file"]["path"].endswith("/" + about["object"])
    ]
    return (wall_ns(told) - wall_ns(acts[-1])) / 1e9


def test_pins_that_are_removed_or_replaced_are_told_in_time_with_who_did_it_and_are_back(monitor: MonitorRun) -> None:
    monitor.start()
    (capture,) = monitor.captures()
    by: dict[tuple[str, str], tuple[int, str]] = {}
    for name, other in (("link_sys_exit", ""), ("map_rings", ""), ("link_sys_exit", "link_sched_process_exec"), ("map_calls", "map_config")):  # fmt: skip
        was = (capture / name).lstat().st_ino
        command = [sys.executable, "-c", REPLACE, capture / name, capture / other] if other else ["/bin/rm", capture / name]
        somebody = subprocess.Popen(command, cwd=ROOT)
        assert somebody.wait() == 0
        kind = "pin_replaced" if other else "pin_removed"
        by[kind, name] = somebody.pid, Path(str(command[0])).resolve().name
        await_told(monitor, kind, sum(one == kind for one, _ in by))
        assert (capture / name).exists()
        assert (capture / name).lstat().st_ino != was
    lines = whole_lines(monitor, b'"event":"monitor_tamper"')
    found = {(one["kind"], one["object"]): one for one in told(monitor)}
    assert {key: (one["by"]["pid"], one["by"]["name"]) for key, one in found.items()} == by
    assert all((one["repaired"], one["by"]["event"]) == (True, "file_delete") for one in found.values())
    delays = sorted(delay(monitor, one) for one in lines)
    assert delays[1] < NOTICED_S, f"a busy machine may be late now and then: {delays}"
    goes_on(monitor, f"after-pins-{os.getpid()}")
    monitor.wait_balanced()
    assert monitor.stop() == 0
    assert monitor.captures() == []


def test_a_whole_capture_that_is_unpinned_goes_on_and_is_pinned_again(monitor: MonitorRun) -> None:
    monitor.start()
    (capture,) = monitor.captures()
    pins = sorted(pin.name for pin in capture.iterdir())
    subprocess.run(["/bin/rm", "-r", capture], check=True)
    await_told(monitor, "pin_removed", len(pins))
    assert sorted(pin.name for pin in capture.iterdir()) == pins
    goes_on(monitor, f"after-all-{os.getpid()}")
    monitor.kill()  # what is pinned again is good for the next start
    monitor.start()
    goes_on(monitor, f"after-restart-{os.getpid()}")
    monitor.wait_balanced()


def test_a_program_taken_out_of_the_jump_table_is_put_back(monitor: MonitorRun) -> None:
    monitor.start()
    (capture,) = monitor.captures()
    table = bpf.obj_get(capture / "map_jump")
    bpf.map_delete(table, (7).to_bytes(4, "little"))  # names: unlink, rename, ...
    os.close(table)
    (found,) = await_told(monitor, "program_removed")
    assert (found["object"], found["repaired"]) == ("jump:names", True)
    victim = monitor.base / f"victim-{os.getpid()}"
    victim.touch()
    victim.unlink()
    wait_for(lambda: monitor.seen(victim.name), 60)
    monitor.wait_balanced()


def test_configuration_written_by_somebody_else_is_put_right(monitor: MonitorRun) -> None:
    monitor.start()
    (capture,) = monitor.captures()
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from monitor.kernel import bpf; f = bpf.obj_get(sys.argv[1]); "
            "bpf.map_array(f, 16384).view('i8')[:] = 0",
            capture / "map_calls",
        ],
        check=True,
        cwd=ROOT,
    )
    (found,) = await_told(monitor, "configuration_changed")
    assert (found["object"], found["repaired"]) == ("map_calls", True)
    opened = monitor.base / f"opened-{os.getpid()}"
    opened.write_text("x")
    wait_for(lambda: monitor.seen(opened.name), 60)


def test_a_monitor_that_was_stopped_says_so_and_who_did_it(monitor: MonitorRun) -> None:
    monitor.start()
    assert monitor.process is not None
    pid = monitor.process.pid
    killer = subprocess.Popen(["/bin/sh", "-c", f"kill -STOP {pid}; sleep 4; kill -CONT {pid}"])
    assert killer.wait() == 0
    (found,) = await_told(monitor, "monitor_stopped")
    assert found["paused_ms"] > 1000 * NOTICED_S
    assert (found["object"], found["by"]["pid"], found["by"]["event"]) == (
        f"process {pid}",
        killer.pid,
        "process_signal",
    )
    monitor.wait_balanced()


def test_a_monitor_that_was_killed_is_told_by_the_next_one(monitor: MonitorRun) -> None:
    monitor.start()
    assert monitor.process is not None
    pid = monitor.process.pid
    killer = subprocess.Popen(["/bin/sh", "-c", f"kill -9 {pid}"])
    assert killer.wait() == 0
    monitor.process.wait()
    monitor.start()
    (found,) = await_told(monitor, "monitor_killed")
    assert (found["object"], found["by"]["pid"]) == (f"process {pid}", killer.pid)
    ends = [one for one in whole_lines(monitor, b'"event":"process_exit"') if one["process"]["pid"] == pid]
    assert [one["ebpf"]["signal"]["name"] for one in ends] == ["SIGKILL"]
    assert monitor.stop() == 0
    monitor.start()
    goes_on(monitor, f"in-order-{os.getpid()}")
    assert len([one for one in told(monitor) if one["kind"] == "monitor_killed"]) == 1, "an end in order is not told"


def test_a_monitor_that_was_killed_is_told_though_its_capture_went_too(monitor: MonitorRun) -> None:
    monitor.start()
    assert monitor.process is not None
    pid = monitor.process.pid
    (capture,) = monitor.captures()
    monitor.kill()
    subprocess.run(["/bin/rm", "-r", capture], check=True)
    monitor.start()
    (found,) = await_told(monitor, "monitor_killed")
    assert found["object"] == f"process {pid}"
    assert "by" not in found, "nothing recorded who did it"
    assert monitor.stop() == 0
    monitor.start()  # an end in order: the capture is gone, too
    goes_on(monitor, f"in-order-{os.getpid()}")
    assert len([one for one in told(monitor) if one["kind"] == "monitor_killed"]) == 1


def test_a_second_monitor_is_refused_and_told_the_first_ones_process(monitor: MonitorRun, tmp_path: Path) -> None:
    monitor.start()
    assert monitor.process is not None
    for settings in ({}, {"run_dir": str(tmp_path / "elsewhere")}):
        other = MonitorRun(tmp_path / "other", monitor.pin_dir, {"run_dir": str(monitor.run_dir)} | settings)
        assert other.launch().wait(60) == 75
        assert f"process {monitor.process.pid}" in other.output.splitlines()[-1]
        (tmp_path / "other" / "output").unlink()
    goes_on(monitor, f"still-{os.getpid()}")
