"""The start: what lies there from before, and who else runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.harness import BPFFS, ONLY_OURS, Acts, MonitorRun, check_chain, check_mixed, compiled, wait_for


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return compiled(tmp_path)


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorRun]:
    made = MonitorRun(
        tmp_path / "monitor", BPFFS / f"ebpf-monitor-start-{os.getpid()}", {"profile": "trace"}, runner=ONLY_OURS
    )
    yield made
    made.finish()


def test_a_capture_of_another_layout_records_until_this_one_does_and_what_it_held_is_counted(
    monitor: MonitorRun, program: Path, tmp_path: Path
) -> None:
    monitor.settings["keep_capture"] = True
    monitor.runner = ONLY_OURS.replace("42, ", "42, 257, ")  # and openat
    monitor.start()
    acts = Acts(program, tmp_path / "acts", "missing", rate=500)
    wait_for(lambda: acts.performed > 200)
    monitor.stop()
    (old,) = monitor.captures()
    foreign = monitor.pin_dir / "of-another-program"
    foreign.mkdir()
    monitor.settings |= {"control_ring_bytes": 8 << 20, "ring_bytes": 16 << 20}
    monitor.start()
    assert f"removing the capture of another layout: {old.name}" in monitor.output
    assert not old.exists()
    assert foreign.is_dir()
    until = acts.performed + 200
    wait_for(lambda: acts.performed > until)
    performed = acts.stop()
    monitor.wait_balanced()
    monitor.settings["keep_capture"] = False
    assert monitor.stop() == 0
    needle = f"{acts.directory}/none/"
    found = re.compile(re.escape(needle).encode() + rb'(\d+)"')
    logged = {int(number[1]) for line in monitor.lines(needle.encode()) if (number := found.search(line))}
    missing = [number for number in range(performed) if number not in logged]
    assert missing == list(range(missing[0], missing[-1] + 1)), "one gap: from the old reader's end to the new programs"
    losses = [each["ebpf"]["loss"] for each in monitor.documents(b'"event":"monitor_loss"')]
    (loss,) = [loss for loss in losses if loss["reason"] == "layout"]
    assert len(missing) <= loss["count"], "what is not in the log is counted"
    assert loss["exact"] is False


def test_a_second_monitor_is_refused_with_75_also_with_a_run_dir_of_its_own(
    monitor: MonitorRun, tmp_path: Path
) -> None:
    monitor.start()
    assert monitor.process is not None
    same = MonitorRun(tmp_path / "same", monitor.pin_dir, monitor.settings | {"run_dir": str(monitor.run_dir)})
    other = MonitorRun(tmp_path / "other", monitor.pin_dir, monitor.settings)
    try:
        assert same.launch().wait(60) == 75
        assert f"process {monitor.process.pid}" in same.output
        assert other.launch().wait(60) == 75
        assert str(monitor.pin_dir) in other.output
    finally:
        for one in (same, other):
            if one.process is not None and one.process.poll() is None:
                one.kill()
    assert "Traceback" not in same.output + other.output
    assert monitor.stop() == 0


def test_a_capture_that_lost_a_link_is_attached_again_and_loses_nothing_that_it_holds(
    monitor: MonitorRun, program: Path, tmp_path: Path
) -> None:
    monitor.start()
    monitor.kill()
    held = Acts(program, tmp_path / "held", "mixed", count=1009)
    held.wait()
    (capture,) = monitor.captures()
    (capture / "link_sys_exit").unlink()
    monitor.start()
    wait_for(lambda: monitor.seen("held/open/1008"), what="what the rings held is logged")
    later = Acts(program, tmp_path / "later", "mixed", count=1009)
    later.wait()
    monitor.wait_balanced()
    assert monitor.stop() == 0
    check_chain(monitor)
    assert check_mixed(monitor, held, 1009) == 1009
    assert check_mixed(monitor, later, 1009) == 1009


@pytest.mark.parametrize("lost", ["map_mirror", "prog_whoami", "prog_sched_process_exec"])
def test_a_capture_that_lost_a_map_or_program_is_built_anew(
    monitor: MonitorRun, program: Path, tmp_path: Path, lost: str
) -> None:
    monitor.start()
    monitor.kill()
    (capture,) = monitor.captures()
    (capture / lost).unlink()
    (capture / "link_sys_exit").unlink()
    monitor.start()
    acts = Acts(program, tmp_path / "acts", "mixed", count=1009)
    acts.wait()
    monitor.wait_balanced()
    assert monitor.stop() == 0
    assert check_mixed(monitor, acts, 1009) == 1009
    assert "Traceback" not in monitor.output


def test_a_bpf_file_system_that_is_not_mounted_is_mounted_and_said(
    monitor: MonitorRun, program: Path, tmp_path: Path
) -> None:
    monitor.prefix = ("unshare", "--mount", "sh", "-c", 'umount --lazy /sys/fs/bpf; exec "$@"', "sh")
    monitor.start()
    assert "mounted bpffs on /sys/fs/bpf" in monitor.output
    acts = Acts(program, tmp_path / "acts", "mixed", count=1009)
    acts.wait()
    monitor.wait_balanced()
    assert monitor.stop() == 0
    assert check_mixed(monitor, acts, 1009) == 1009
    assert not monitor.pin_dir.exists()
