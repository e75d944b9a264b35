"""Capture survives the monitor: killed at any moment, started again, everything is in the log once and under its own name."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.harness import BPFFS, ONLY_OURS, Acts, MonitorRun, check_chain, check_mixed, compiled

ORDINARY_KILLS, MANY_KILLS = 15, 100
RATE = 5000


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return compiled(tmp_path)


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorRun]:
    made = MonitorRun(
        tmp_path / "monitor", BPFFS / f"ebpf-monitor-survival-{os.getpid()}", {"profile": "trace"}, runner=ONLY_OURS
    )
    yield made
    made.finish()


def _kill_often(monitor: MonitorRun, kills: int, seed: int) -> list[float]:
    """Kills it `kills` times: while it runs, and while it starts; the seconds that the undisturbed starts took."""
    chance, starts = random.Random(seed), []
    for _ in range(kills):
        monitor.kill()
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0.0, 0.4))
        if chance.random() < 0.35:
            monitor.launch()
            time.sleep(chance.uniform(0.0, 0.9))  # the moment of the kill is what is tried, not a wait for something
        else:
            starts.append(monitor.start())
            time.sleep(chance.choice((0.0, 0.0, 0.01, 0.05, 0.3)) * chance.random())
    monitor.kill()
    return starts


def _survives(monitor: MonitorRun, program: Path, directory: Path, kills: int) -> None:
    monitor.settings |= {"ring_bytes": 32 << 20, "control_ring_bytes": 32 << 20}
    monitor.start()
    acts = Acts(program, directory / "acts", "mixed", rate=RATE)
    try:
        seed = random.SystemRandom().getrandbits(32)
        print("seed", seed)
        starts = _kill_often(monitor, kills, seed)
        monitor.start()
        count = acts.stop()
    finally:
        acts.process.kill()
        acts.process.wait()
    monitor.wait_balanced()
    assert monitor.stop() == 0
    found = check_chain(monitor)
    assert found.lost() == 0, (found.losses[:4], monitor.output)
    assert check_mixed(monitor, acts, count) == count
    assert not monitor.captures()
    took = f"median {statistics.median(starts):.2f} s, longest {max(starts):.2f} s"
    print(f"{count} acts, {kills} kills, {len(found.epochs)} epochs, {found.lines} lines; starts: {took}")


def test_killed_at_random_moments_every_act_is_in_the_log_once_under_its_own_names(
    monitor: MonitorRun, program: Path, tmp_path: Path
) -> None:
    _survives(monitor, program, tmp_path, ORDINARY_KILLS)


@pytest.mark.slow
def test_killed_100_times_every_act_is_in_the_log_once_under_its_own_names(
    monitor: MonitorRun, program: Path, tmp_path: Path
) -> None:
    if not os.environ.get("EBPF_MONITOR_LONG"):
        pytest.skip("takes two minutes: EBPF_MONITOR_LONG=1")
    _survives(monitor, program, tmp_path, MANY_KILLS)
