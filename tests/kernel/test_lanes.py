"""Both control lanes, reads with and without casts, and programs that turn preemption off themselves pass the same small suite;
what a kernel skips that preempts programs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor import status
from monitor.kernel import bpf, rings
from tests.kernel.harness import BPFFS, Acts, MonitorRun, check_chain, check_mixed, compiled, wait_for

EXECS, RENAMES, CONNECTS, MIXED = 101, 53, 31, 2003
WAYS = {
    "ringbuf": ("ringbuf", {}),
    "perf": ("perf", {}),
    "helper reads": ("ringbuf", {"EBPF_MONITOR_NO_CASTS": "1"}),
    "preempted": ("ringbuf", {"EBPF_MONITOR_PREEMPTED": "1"}),
}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return compiled(tmp_path)


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorRun]:
    made = MonitorRun(tmp_path / "monitor", BPFFS / f"ebpf-monitor-lanes-{os.getpid()}", {"profile": "trace"})
    yield made
    made.finish()


@pytest.mark.parametrize("way", WAYS)
def test_known_acts_are_found_through_each_lane_and_each_way_of_reading(
    monitor: MonitorRun, program: Path, tmp_path: Path, way: str
) -> None:
    lane, monitor.environment = WAYS[way]
    monitor.settings["control_lane"] = lane
    monitor.start()
    done = {
        what: Acts(program, tmp_path / what, what, count=count)
        for what, count in (("spawn", EXECS), ("rename", RENAMES), ("connect", CONNECTS), ("mixed", MIXED))
    }
    for acts in done.values():
        acts.wait()
    monitor.wait_balanced()
    assert monitor.stop() == 0
    found = check_chain(monitor)
    started = found.made[0]["monitor"]
    assert ("ringbuf" in started["features"], started["adopted"]) == (True, False)
    assert found.lost() == 0, found.losses
    pids = {what: acts.process.pid for what, acts in done.items()}
    tail = Counter[str]()
    for document in monitor.documents(
        b'"ebpf":{"event":"process_', b'"event":"file_rename"', b'"event":"socket_connect"'
    ):
        event, process = document["ebpf"]["event"], document["process"]
        if event == "process_exec" and process["parent"]["pid"] == pids["spawn"]:
            assert process["args"] == ["true", f"{tmp_path}/spawn/{tail['exec']}"]
            assert process["executable"].endswith("/true")
            tail["exec"] += 1
        elif event == "process_fork" and process["parent"]["pid"] == pids["spawn"]:
            tail["fork"] += 1
        elif event == "process_exit" and process["parent"]["pid"] == pids["spawn"]:
            tail["exit"] += 1
        elif event == "file_rename" and process["pid"] == pids["rename"]:
            number = tail["rename"]
            assert document["file"]["path"] == f"{tmp_path}/rename/to-{number}"
            assert document["file"]["Ext"]["original"]["path"] == f"{tmp_path}/rename/from-{number}"
            tail["rename"] += 1
        elif event == "socket_connect" and process["pid"] == pids["connect"]:
            tail["connect"] += 1
            assert document["destination"]["port"] == tail["connect"]
            assert document["error"]["code"] == "ECONNREFUSED"
    assert tail == {"exec": EXECS, "fork": EXECS, "exit": EXECS, "rename": RENAMES, "connect": CONNECTS}
    assert check_mixed(monitor, done["mixed"], MIXED) == MIXED


def _skip(monitor: MonitorRun, runs: int) -> None:
    """As if that many runs had not come about: adds to what the programs count on CPU 0."""
    (capture,) = monitor.captures()
    accounts = bpf.obj_get(capture / "map_accounts")
    try:
        about = bpf.map_info(accounts)
        words = bpf.map_array(accounts, about.max_entries * about.value_size).view("i8")
        words[rings.NESTED] += runs
    finally:
        os.close(accounts)


def test_runs_that_did_not_come_about_are_counted_once_like_every_other_loss(monitor: MonitorRun) -> None:
    """By a loss record within a second or two, in the ledger's equation and in `status`, also over a kill and at the end."""
    monitor.environment = {"EBPF_MONITOR_PREEMPTED": "1"}
    monitor.settings["profile"] = "minimal"
    monitor.start()

    def told(runs: int) -> None:
        wait_for(lambda: monitor.wait_balanced()["refused"]["preempted"] == runs, what=f"{runs} runs are told")

    told(0)
    _skip(monitor, 5)
    told(5)
    wait_for(lambda: monitor.seen('"reason":"preempted"'), what="the record is in the log")
    monitor.kill()
    _skip(monitor, 2)
    monitor.start()
    told(2)
    ledger = monitor.status()["ledger"]
    parts = sum(ledger["refused"].values()) + sum(ledger["suppressed"].values())
    assert ledger["kernel_seen"] == ledger["submitted"] + parts
    state = status.read(monitor.run_dir)
    assert state.document()["loss"] == {**dict.fromkeys(state.document()["loss"], 0), "preempted": 2, "total": 2}
    assert "2 events (at most preempted 2)\n" in status.table(state)
    _skip(monitor, 3)
    assert monitor.stop() == 0
    assert monitor.status()["ledger"]["refused"]["preempted"] == 5
    found = check_chain(monitor)
    skipped = [(loss["count"], loss["exact"]) for loss in found.losses if loss["reason"] == "preempted"]
    assert skipped == [(5, False), (2, False), (3, False)]
