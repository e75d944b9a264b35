"""What does not fit is counted exactly, per class; what must not be lost is not; detail that is given up is told."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.harness import (
    BLOCK,
    BPFFS,
    NOTHING_ELSE,
    ONLY_OURS,
    Acts,
    MonitorRun,
    alone,
    check_chain,
    check_mixed,
    compiled,
    wait_for,
)

PERFORMED = 120_011


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return compiled(tmp_path)


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorRun]:
    settings = {"profile": "trace", "ring_bytes": 1 << 20, "control_ring_bytes": 1 << 16}
    made = MonitorRun(tmp_path / "monitor", BPFFS / f"ebpf-monitor-loss-{os.getpid()}", settings, runner=ONLY_OURS)
    with alone():
        yield made
        made.finish()


def _stop_reading(monitor: MonitorRun, how: str) -> None:
    if how == "killed":
        monitor.kill()
    else:
        monitor.signal(signal.SIGSTOP)


def _read_again(monitor: MonitorRun, how: str) -> None:
    if how == "killed":
        monitor.start()
    else:
        monitor.signal(signal.SIGCONT)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_rings_that_overflow_while_nobody_reads_lose_exactly_what_the_loss_records_say(
    monitor: MonitorRun, program: Path, tmp_path: Path, how: str
) -> None:
    monitor.start()
    first = Acts(program, tmp_path / "before", "mixed", count=101)
    first.wait()
    wait_for(lambda: monitor.seen("before/open/100"), what="the acts before")
    _stop_reading(monitor, how)
    acts = Acts(program, tmp_path / "acts", "mixed", count=PERFORMED)
    assert acts.wait() == PERFORMED
    pid = acts.process.pid
    _read_again(monitor, how)
    ledger = monitor.wait_balanced()
    last = Acts(program, tmp_path / "after", "mixed", count=101)
    last.wait()
    wait_for(lambda: monitor.seen("after/open/100"), what="the acts after")
    assert monitor.stop() == 0
    found = check_chain(monitor)
    # Of a session whose first event was refused the end names neither file nor process: it can only be ours.
    of_acts = (document for document in monitor.documents() if document.get("process", {}).get("pid", pid) == pid)
    logged = Counter(document["ebpf"]["event"] for document in of_acts)
    # A quarter are renames, in the control lane. Each block of numbers ends one session of the file written to: a close.
    # What folds under pressure is in no line of its own.
    lost_control, lost_ring = found.lost(of="file", reason="control_full"), found.lost(of="file", reason="ring_full")
    renames, closes = len(range(1, PERFORMED, 4)), -(-PERFORMED // BLOCK)
    bulk = PERFORMED - renames + closes
    assert lost_control == renames - logged["file_rename"] > 0
    in_log = logged["file_open"] + logged["file_write"] + logged["file_close"]
    assert lost_ring == bulk - in_log - ledger["folded"] > 0
    assert found.lost() == lost_control + lost_ring + found.lost(of="process"), (
        found.losses
    )  # other processes may have ended
    assert ledger["refused"] == {
        "ring_full": found.lost(reason="ring_full"),
        "control_full": found.lost(reason="control_full"),
        "preempted": 0,
    }
    assert any(loss["reason"] == "degraded" and loss["count"] == 0 for loss in found.losses)
    for at in (first, last):
        assert check_mixed(monitor, at, 101) == 101


def test_a_flood_by_sixteen_processes_hides_no_program_connection_deletion_or_change_of_credentials(
    monitor: MonitorRun, program: Path, tmp_path: Path
) -> None:
    monitor.settings["control_ring_bytes"] = 16 << 20
    monitor.runner = ONLY_OURS.replace("42, ", "42, 119, 263, ")  # setresgid, unlinkat
    monitor.start()
    execs, marks = (211, 101), 103
    kinds = ["flood"] * 12 + ["creat"] * 4  # reads and writes fold under pressure, failing opens cannot
    flooders = [Acts(program, tmp_path / "flood", kind, label=str(i)) for i, kind in enumerate(kinds)]
    wait_for(lambda: all(flooder.performed > 100 for flooder in flooders), what="the flood runs")
    done = [
        _together(monitor, program, tmp_path / "one", execs[0], marks, frozen=True),
        _together(monitor, program, tmp_path / "two", execs[1], marks, frozen=False),
    ]
    for flooder in flooders:
        flooder.stop()
    ledger = monitor.wait_balanced(60)
    assert monitor.stop() == 0
    found = check_chain(monitor)
    assert ledger["refused"]["ring_full"] > 0, "the flood was no flood"
    assert ledger["refused"]["control_full"] == 0
    assert found.lost(of="process") == 0
    process = monitor.documents(b'"ebpf":{"event":"process_')
    for (spawner, connector, marker), count in zip(done, execs, strict=True):
        _all_there(process, spawner, count)
        assert _of(monitor, connector, "socket_connect", lambda one: one["destination"]["port"] - 1) == list(range(marks))
        assert _of(monitor, marker, "file_delete", lambda one: int(one["file"]["name"].split("-")[1])) == list(range(marks))
        assert _of(monitor, marker, "process_credentials", lambda one: int(one["group"]["id"]) - 70000) == list(range(marks))


def _of(monitor: MonitorRun, acts: Acts, event: str, number: Callable[[dict[str, Any]], int]) -> list[int]:
    """The numbers that the program gave its acts of one kind, as the log has them, in order."""
    documents = monitor.documents(f'"event":"{event}"'.encode())
    return sorted(number(one) for one in documents if one["process"]["pid"] == acts.process.pid)


def _together(
    monitor: MonitorRun, program: Path, directory: Path, execs: int, marks: int, *, frozen: bool
) -> tuple[Acts, Acts, Acts]:
    if frozen:
        monitor.signal(signal.SIGSTOP)
    try:
        spawner = Acts(program, directory, "spawn", count=execs)
        others = [Acts(program, directory, kind, count=marks) for kind in ("connect", "marked")]
        for acts in (spawner, *others):
            acts.wait()
    finally:
        if frozen:
            monitor.signal(signal.SIGCONT)
    return spawner, others[0], others[1]


def _all_there(documents: list[dict[str, Any]], spawner: Acts, count: int) -> None:
    pid = spawner.process.pid
    forks = [d for d in documents if d["ebpf"]["event"] == "process_fork" and d["process"]["parent"]["pid"] == pid]
    execs = [d for d in documents if d["ebpf"]["event"] == "process_exec" and d["process"]["parent"]["pid"] == pid]
    numbers = sorted(int(d["process"]["args"][1].rsplit("/", 1)[1]) for d in execs)
    assert numbers == list(range(count))
    entities = {d["process"]["entity_id"] for d in execs}
    assert entities == {d["process"]["entity_id"] for d in forks}
    assert len(forks) == len(entities) == count
    exits = [d for d in documents if d["ebpf"]["event"] == "process_exit" and d["process"]["entity_id"] in entities]
    assert len(exits) == count
    assert all(d["process"]["executable"].endswith("/true") and d["process"]["exit_code"] == 0 for d in exits)


def test_above_three_quarters_reads_and_writes_fold_and_the_totals_stay_exact(
    monitor: MonitorRun, program: Path, tmp_path: Path
) -> None:
    monitor.start()
    acts = Acts(program, tmp_path / "flood", "flood", rate=1000)
    wait_for(lambda: monitor.seen(f"flood-{acts.process.pid}"), what="the session is known")
    monitor.signal(signal.SIGSTOP)
    faster = Acts(program, tmp_path / "faster", "flood")  # the same CPUs' rings fill
    wait_for(lambda: faster.performed > 60_000, what="the rings are full")
    faster.stop()
    monitor.signal(signal.SIGCONT)
    wait_for(lambda: monitor.seen('"reason":"degraded"'), what="the fold is told")
    acts.stop()
    ledger = monitor.wait_balanced()
    assert monitor.stop() == 0
    found = check_chain(monitor)
    assert ledger["folded"] > 0
    told = [loss for loss in found.losses if loss["reason"] == "degraded"]
    assert told
    assert all(loss["count"] == 0 for loss in told)
    closes = [
        d["ebpf"] for d in monitor.documents(f"flood-{acts.process.pid}".encode()) if d["ebpf"]["event"] == "file_close"
    ]
    assert sum(close["write"]["bytes"] for close in closes) == acts.bytes_written
    assert sum(close["write"]["count"] for close in closes) == acts.performed
    assert sum(close["read"]["count"] for close in closes) == acts.performed


def test_a_kill_costs_the_perf_lane_what_lay_in_its_buffers_and_the_loss_records_count_it(
    monitor: MonitorRun, program: Path, tmp_path: Path
) -> None:
    monitor.runner = NOTHING_ELSE
    # in pages of 4 KiB and for each CPU where the lane is perf
    monitor.settings |= {"control_lane": "perf", "control_ring_bytes": 1 << 20, "ring_bytes": 32 << 20}
    monitor.start()
    acts = Acts(program, tmp_path / "acts", "mixed", rate=5000)
    kills = 3
    for _ in range(kills):
        before = acts.performed
        wait_for(lambda mark=before + 1000: acts.performed > mark, what="the load runs")
        monitor.kill()
        monitor.start()
    performed = acts.stop()
    ledger = monitor.wait_balanced()
    assert monitor.stop() == 0
    found = check_chain(monitor)
    kinds = Counter(document["ebpf"]["event"] for document in monitor.documents(b'"ebpf":{"event":"file_'))
    # the first write of a block, its third act, evicts the session of the block before
    renames, closes = len(range(1, performed, 4)), (performed - 3) // BLOCK
    print(
        f"{renames} renames, {kinds['file_rename']} logged",
        Counter((loss["class"], loss["reason"]) for loss in found.losses),
    )
    # the end of a killed monitor is an event too, and nobody reads the perf lane then
    assert found.lost() - kills == renames - kinds["file_rename"] > 0
    assert kinds["file_open"] + kinds["file_write"] + kinds["file_close"] == performed - renames + closes
    assert {loss["reason"] for loss in found.losses} <= {"control_full", "died"}
    assert ledger["in_flight"] == 0
