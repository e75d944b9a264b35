"""Real logrotate, with the package's own rule, each second while events come: each line is in exactly one file, and the shipper
follows through compression and deletion.

EBPF_MONITOR_LOGROTATE_SECONDS: how long (8; 600 is the promise, run by hand).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.elasticsearch.fake import Fake, Request
from tests.kernel.harness import BPFFS, ONLY_OURS, Acts, MonitorRun, check_chain, check_mixed, compiled, paced, wait_for

ROOT = Path(__file__).resolve().parents[2]
SECONDS = int(os.environ.get("EBPF_MONITOR_LOGROTATE_SECONDS", "8"))
KEPT = 3 if SECONDS < 60 else 30
"""How many rotated files logrotate leaves: the older ones it deletes."""
RATE = 10_000


class Index(Fake):
    """Keeps the identities alone: millions of documents come."""

    conflicts = 0

    def create(self, request: Request) -> dict[str, Any]:
        """Counts what is there already."""
        request.documents = [(identity, b"") for identity, _ in request.documents]
        self.requests.clear()
        answer = super().create(request)
        self.conflicts += sum(one["create"]["status"] == 409 for one in answer["items"])
        return answer


@pytest.fixture
def index() -> Iterator[Index]:
    made = Index()
    yield made
    made.down()


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorRun]:
    settings = {"profile": "trace"}
    made = MonitorRun(tmp_path / "monitor", BPFFS / f"ebpf-monitor-logrotate-{os.getpid()}", settings, runner=ONLY_OURS)
    with paced():
        yield made
        made.finish()


def rule(monitor: MonitorRun, pid: int) -> Path:
    """The package's rule for this log and this process."""
    text = (ROOT / "logrotate/ebpf-monitor").read_text()
    text = text.replace("/var/monitoring/events/events.jsonl", str(monitor.events_dir / "events.jsonl"))
    text = re.sub(r"rotate \d+", f"rotate {KEPT}", text).replace(
        "create 0640 root ebpf-monitor", "create 0640 root root"
    )
    text = text.replace("systemctl kill -s HUP --kill-whom=main ebpf-monitor.service", f"kill -HUP {pid}")
    assert str(pid) in text
    path = monitor.base / "logrotate.conf"
    path.write_text(text)
    path.chmod(0o600)
    return path


class Shipper:
    """`ebpf-monitor ship` beside the monitor, as its unit runs it."""

    def __init__(self, monitor: MonitorRun, index: Index) -> None:
        es = {"es_host": "127.0.0.1", "es_port": index.port, "secure": False, "batch_size": 5000}
        monitor.settings |= {"storage_type": "elasticsearch", "es_config": es}
        self._monitor = monitor

    def start(self) -> None:
        """After the monitor, whose configuration it reads."""
        command = [sys.executable, "-m", "monitor", "ship", "--config", self._monitor.base / "config.json"]
        with (self._monitor.base / "shipper").open("wb") as said:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    @property
    def said(self) -> str:
        """What it has printed."""
        return (self._monitor.base / "shipper").read_text()


def rotate(monitor: MonitorRun, config: Path) -> bool:
    """Runs logrotate once: was there something to rotate?"""
    command = ["/usr/sbin/logrotate", "-f", "-v", "-s", monitor.base / "state", config]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr, done.stderr  # a rule that it ignores is an error with status 0
    # On a busy machine nothing may have been written in the second since the last one: "notifempty".
    rotated = "log needs rotating" in done.stderr
    assert rotated or "log is empty" in done.stderr, done.stderr
    return rotated


def keep(monitor: MonitorRun, kept: Path, what: str) -> None:
    """A second name for each of these files, so that what logrotate deletes can still be counted."""
    for path in monitor.events_dir.glob(what):
        if not (kept / path.name).exists():
            os.link(path, kept / path.name)


def test_each_line_is_in_one_file_and_in_the_index_once_while_logrotate_runs_each_second(
    monitor: MonitorRun, index: Index, tmp_path: Path
) -> None:
    shipper, kept = Shipper(monitor, index), tmp_path / "kept"
    kept.mkdir()
    monitor.start()
    shipper.start()
    assert monitor.process is not None
    config = rule(monitor, monitor.process.pid)
    acts = Acts(compiled(tmp_path), tmp_path / "acts", "mixed", rate=RATE)
    try:
        wait_for(lambda: acts.performed > RATE // 2, what="the load runs")
        begun, rotations = time.monotonic(), 0
        while rotations < KEPT + 3 or time.monotonic() - begun < SECONDS:
            rotations += rotate(monitor, config)
            keep(monitor, kept, "events.jsonl-*.gz")
            time.sleep(1.01)  # after its end: its names have seconds, and it passes over one that is there already
        performed = acts.stop()
        monitor.wait_balanced(180)
        assert monitor.stop() == 0
        left = [path.name for path in monitor.events_dir.glob("events.jsonl-*")]
        assert len(left) == KEPT, "the others are deleted"
        assert len([name for name in left if name.endswith(".gz")]) == KEPT - 1, "delaycompress"
        keep(monitor, kept, "events.jsonl-*[!z]")
        keep(monitor, kept, "events.jsonl")
        assert len(list(kept.iterdir())) == rotations + 1 > SECONDS // 4
        monitor.settings["events_dir"] = str(kept)
        found = check_chain(monitor)  # every line whole, every number once, none missing
        assert found.lost() == 0, found.losses
        assert check_mixed(monitor, acts, performed) == performed
        assert performed > SECONDS * RATE * 0.5, "the load was what it should be"
        wait_for(lambda: sum(map(len, index.store.values())) >= found.lines, 120, f"all is delivered: {shipper.said}")
    finally:
        shipper.process.terminate()
        status = shipper.process.wait(60)
    assert status == 0, shipper.said
    logged = sorted(
        raw[raw.index(b'"id":"', raw.index(b'"event":{"kind"')) + 6 :].partition(b'"')[0].decode()
        for raw in monitor.lines()
    )
    assert index.ids() == logged
    assert index.conflicts == 0, "none was sent twice"
    assert "removed before" not in shipper.said
