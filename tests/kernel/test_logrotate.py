"""Real logrotate, with the package's own rule, each second while events come: each line is in exactly one file."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.harness import BPFFS, ONLY_OURS, Acts, MonitorRun, alone, check_chain, check_mixed, compiled, wait_for

ROOT = Path(__file__).resolve().parents[2]
SECONDS = int(os.environ.get("EBPF_MONITOR_LOGROTATE_SECONDS", "8"))
"""How long it is rotated each second; 600 is the promise."""
RATE = 10_000


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorRun]:
    settings = {"profile": "trace", "ring_bytes": 32 << 20, "control_ring_bytes": 32 << 20}
    made = MonitorRun(tmp_path / "monitor", BPFFS / f"ebpf-monitor-logrotate-{os.getpid()}", settings, runner=ONLY_OURS)
    with alone():
        yield made
        made.finish()


def rule(monitor: MonitorRun, pid: int) -> Path:
    """The package's rule for this log and this process; nothing is deleted, so that all can be counted."""
    text = (ROOT / "logrotate/ebpf-monitor").read_text()
    text = text.replace("/var/monitoring/events/events.jsonl", str(monitor.events_dir / "events.jsonl"))
    text = re.sub(r"rotate \d+", "rotate 100000", text).replace(
        "create 0640 root ebpf-monitor", "create 0640 root root"
    )
    text = text.replace("systemctl kill -s HUP --kill-whom=main ebpf-monitor.service", f"kill -HUP {pid}")
    assert str(pid) in text
    path = monitor.base / "logrotate.conf"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_each_line_is_in_exactly_one_file_while_logrotate_runs_each_second(monitor: MonitorRun, tmp_path: Path) -> None:
    monitor.start()
    assert monitor.process is not None
    config = rule(monitor, monitor.process.pid)
    acts = Acts(compiled(tmp_path), tmp_path / "acts", "mixed", rate=RATE)
    wait_for(lambda: acts.performed > RATE // 2, what="the load runs")
    begun, rotations = time.monotonic(), 0
    while time.monotonic() - begun < SECONDS:
        command = ["/usr/sbin/logrotate", "-f", "-v", "-s", monitor.base / "state", config]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stderr, done.stderr  # a rule that it ignores is an error with status 0
        # On a busy machine nothing may have been written in the second since the last one: "notifempty".
        rotated = "log needs rotating" in done.stderr
        assert rotated or "log is empty" in done.stderr, done.stderr
        rotations += rotated
        time.sleep(1.01)  # after its end: its names have seconds, and it passes over one that is there already
    performed = acts.stop()
    monitor.wait_balanced()
    assert monitor.stop() == 0
    names = [path.name for path in monitor.events_dir.glob("events.jsonl-*")]
    assert len(names) == rotations > SECONDS // 4
    assert len([name for name in names if name.endswith(".gz")]) == rotations - 1, "delaycompress"
    found = check_chain(monitor)  # every line whole, every number once, none missing
    assert found.lost() == 0, found.losses
    assert check_mixed(monitor, acts, performed) == performed
    assert performed > SECONDS * RATE * 0.5, "the load was what it should be"
