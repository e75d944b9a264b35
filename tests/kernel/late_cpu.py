"""A CPU that comes online after the monitor started is covered from its first event.

Not collected by name: it needs a machine that was started with a CPU left offline. The kernels that `make test-kernels` boots begin
with one of their two processors, run this file first, and the others with both.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.kernel.monitor_process import MonitorProcess, name_of

CPUS = Path("/sys/devices/system/cpu")


def listed(name: str) -> set[int]:
    """The CPUs of one of the kernel's lists, such as 0-3,8."""
    found: set[int] = set()
    for part in filter(None, (CPUS / name).read_text().strip().split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def test_all_that_is_done_on_a_cpu_that_comes_late_is_in_the_log(monitor: MonitorProcess, place: Path) -> None:
    late = min(listed("possible") - listed("online"), default=None)
    assert late is not None, "the machine must be started with a CPU left offline (maxcpus=1)"
    before = monitor.fresh_status(60)["ledger"]
    (CPUS / f"cpu{late}" / "online").write_text("1")
    script = f"echo x >{place}/made; exec /bin/rm {place}/made"
    child = subprocess.Popen(["/bin/sh", "-c", script], preexec_fn=lambda: os.sched_setaffinity(0, {late}))
    assert child.wait() == 0
    assert late in listed("online")
    documents = monitor.lifetime(child.pid)
    names = [name_of(one) for one in documents]
    there = documents[names.index("process_exec") :]
    assert {one["ebpf"]["cpu"] for one in there} == {late}
    told = [name_of(one) for one in there if str(place) in str(one.get("file")) or name_of(one).startswith("process_e")]
    mine = [name for name in told if name != "file_close"]
    assert mine == ["process_exec", "file_open", "file_write", "process_exec", "file_delete", "process_exit"]
    after = monitor.fresh_status(60)["ledger"]
    assert after["kernel_seen"] >= before["kernel_seen"] + len(documents)
    assert after["balanced"]
