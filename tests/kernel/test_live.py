"""The configuration of a running monitor is changed by its file: what is taken holds at once, and costs no event.

EBPF_MONITOR_RELOADS: how many changes under load (30; 500 is the promise, run by hand).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.harness import BPFFS, ONLY_OURS, Acts, MonitorRun, check_chain, check_mixed, compiled, paced, wait_for

RELOADS = int(os.environ.get("EBPF_MONITOR_RELOADS", "30"))
RATE = 10_000


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorRun]:
    settings = {"profile": "trace"}
    made = MonitorRun(tmp_path / "monitor", BPFFS / f"ebpf-monitor-live-{os.getpid()}", settings, runner=ONLY_OURS)
    made.prefix = ("nice", "-n", "-15")  # what other work on the machine does to it is not the question here
    with paced():
        yield made
        made.finish()


def change(monitor: MonitorRun, **members: Any) -> None:
    """Saves the configuration with these members, as an editor that renames does."""
    path = monitor.base / "config.json"
    fresh = path.with_name("config.json.new")
    fresh.write_text(json.dumps(json.loads(path.read_text()) | members))
    fresh.chmod(0o600)
    fresh.replace(path)


def configs(monitor: MonitorRun) -> list[dict[str, Any]]:
    """Changes while it ran."""
    found = [document["ebpf"] for document in monitor.documents(b'"event":"monitor_config"')]
    return [members["config"] for members in found if "config" in members]


def used(monitor: MonitorRun) -> tuple[int, int, int]:
    """Descriptors, threads, resident kilobytes of its own: the rings are touched bit by bit, and belong to the kernel. The
    least of many looks: now and then a file is open for a moment, its status for one."""
    assert monitor.process is not None
    proc, looks = Path(f"/proc/{monitor.process.pid}"), []
    for _ in range(40):
        fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        looks.append((len(list((proc / "fd").iterdir())), int(fields["Threads"]), int(fields["RssAnon"].split()[0])))
        time.sleep(0.025)
    return min(look[0] for look in looks), min(look[1] for look in looks), min(look[2] for look in looks)


def test_many_changes_under_load_lose_no_event_and_leave_nothing_behind(monitor: MonitorRun, tmp_path: Path) -> None:
    monitor.start()
    program = compiled(tmp_path)
    acts = [Acts(program, tmp_path / name, "mixed", rate=RATE // 2) for name in ("one", "two")]
    before = (0, 0, 0)
    for number in range(RELOADS):
        change(
            monitor, tags=[f"reload-{number}"], labels={"turn": str(number)}, commit_interval_ms=500 + number % 500,
            heartbeat_interval_s=30 + number % 10, quiet_age_s=number, rotate_keep=1 + number % 100,
        )  # fmt: skip
        wait_for(
            lambda taken=number + 1: monitor.output.count("is taken: ") == taken,
            what=f"change {number}: {monitor.output[-500:]}",
        )
        if number == 10:
            before = used(monitor)
    after = used(monitor)
    counts = [each.stop() for each in acts]
    ledger = monitor.wait_balanced()
    assert monitor.stop() == 0
    losses = check_chain(monitor).losses
    assert sum(ledger["refused"].values()) == ledger["unwritten"] == 0
    # On a machine that is busy with other things writes may fold for a while: that is recorded, and the count is exact.
    seen = [check_mixed(monitor, each, count, folded=True) for each, count in zip(acts, counts, strict=True)]
    assert sum(counts) - sum(seen) == ledger["folded"]
    assert bool(ledger["folded"]) == any(loss["reason"] == "degraded" for loss in losses)
    told = configs(monitor)
    assert len(told) == RELOADS
    assert all(one["new"] == other["old"] for one, other in itertools.pairwise(told))
    tags = {found[1] for raw in monitor.lines() if (found := re.search(rb'"tags":\["reload-([0-9]+)"\]', raw))}
    assert tags == {b"%d" % number for number in range(RELOADS)}
    changed = ["commit_interval_ms", "heartbeat_interval_s", "labels", "quiet_age_s", "rotate_keep", "tags"]
    assert told[-1]["keys"] == changed
    print(f"descriptors, threads, own resident kB after 10 changes {before}, after {RELOADS} {after}")
    assert after[:2] == before[:2]
    assert after[2] < before[2] + 8192


def test_a_bad_change_is_told_and_changes_nothing_and_a_good_one_holds_at_once(
    monitor: MonitorRun, tmp_path: Path
) -> None:
    monitor.runner = None
    monitor.settings |= {"profile": "minimal"}
    monitor.start()
    change(monitor, profile="ful")
    wait_for(lambda: "did you mean full?" in monitor.output)
    change(monitor, profile="full", ring_bytes=16 << 20)
    wait_for(lambda: "ring_bytes: can only change at a restart" in monitor.output)
    wait_for(lambda: "ring_bytes" in monitor.status()["config_problem"])
    assert "the log was reopened" not in monitor.output
    change(monitor, profile="minimal", ring_bytes=64 << 20, log_level="debug")
    wait_for(lambda: "is taken: log_level" in monitor.output)
    assert monitor.process is not None
    monitor.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "the log was reopened" in monitor.output, what="a message of level debug")
    (tmp_path / "unseen").write_text("x")
    change(monitor, profile="full", ring_bytes=64 << 20, es_config={"es_password": "hunter2-Pa55"}, locked=True)
    wait_for(lambda: "is taken: es_config.es_password" in monitor.output)
    (tmp_path / "seen").write_text("x")
    wait_for(lambda: monitor.seen(f'"{tmp_path}/seen"'), what="the new profile records files")
    change(monitor, profile="minimal")
    wait_for(lambda: "profile: the configuration is locked" in monitor.output)
    wait_for(lambda: monitor.status()["profile"] == "full")
    assert monitor.stop() == 0
    assert not monitor.seen(f'"{tmp_path}/unseen"')
    told = configs(monitor)
    assert ["refused" in one for one in told] == [True, True, False, False, True]
    assert told[3]["keys"] == ["es_config.es_password", "locked", "profile"]
    everything = b"".join(path.read_bytes() for path in monitor.events_dir.iterdir()).decode() + monitor.output
    assert "hunter2" not in everything
