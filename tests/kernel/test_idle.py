"""What a monitor costs while nothing happens: its own CPU time, by the kernel's accounts of its threads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.harness import BPFFS, NOTHING_ELSE, Acts, MonitorRun, alone, compiled

SECONDS = float(os.environ.get("EBPF_MONITOR_IDLE_S", "5"))
BOUND = 0.01
"""of one CPU"""


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[MonitorRun]:
    """With rings as in production: how long a calm monitor may wait depends on them."""
    made = MonitorRun(
        tmp_path / "monitor", BPFFS / f"ebpf-monitor-idle-{os.getpid()}", {}, runner=NOTHING_ELSE
    )  # what others do on this host is not this monitor's idling
    with alone():
        yield made
        made.finish()


def ran(pid: int) -> float:
    """CPU seconds of all threads of a process, as the scheduler counts them (Linux Documentation/scheduler/sched-stats)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def test_an_idle_monitor_takes_less_than_a_hundredth_of_a_cpu(monitor: MonitorRun, tmp_path: Path) -> None:
    monitor.start()
    for rate in (0, 5):  # at 15 (8 events/s) it is 0.7 to 1.04 %: the limit itself
        idles(monitor, tmp_path, rate)


def idles(monitor: MonitorRun, tmp_path: Path, rate: int) -> None:
    """`rate`: acts a second of one program; they are about half as many events, two of three in the control lane."""
    assert monitor.process is not None
    acts = Acts(compiled(tmp_path), tmp_path / "acts", "mixed", rate=rate) if rate else None
    monitor.wait_balanced()
    time.sleep(1)
    before, received = ran(monitor.process.pid), monitor.status()["ledger"]["received"]
    time.sleep(SECONDS)
    cost = (ran(monitor.process.pid) - before) / SECONDS
    events = (monitor.wait_balanced()["received"] - received) / SECONDS
    if acts is not None:
        acts.stop()
    print(f"{100 * cost:.2f} % of a CPU at {events:.1f} events/s")
    assert abs(events - rate / 2) < 5, f"{events} events/s are another experiment"
    assert cost < BOUND, f"{100 * cost:.2f} % of a CPU at {events:.1f} events/s"
