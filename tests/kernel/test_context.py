"""What a process belongs to: ancestors that have ended, leaders, terminals, containers and units, on the real kernel."""

from __future__ import annotations

import fcntl
import os
import pty
import secrets
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.acts import compile_c
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

pytestmark = pytest.mark.parametrize(
    "running",
    [{"profile": "minimal"}, {"profile": "minimal", "environment": {"EBPF_MONITOR_NO_CASTS": "1"}}],
    indirect=True,
    ids=["casts", "helpers"],
)
TIOCGPTN = 0x80045430
DEPTH = 37
ORPHANS = rf"""
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
/* A line of processes, each of which ends once it has started the next one: the kernel knows no ancestor but the reaper. */
int main(int argc, char **argv) {{
  FILE *told = fopen(argv[1], "w"); setvbuf(told, 0, _IOLBF, 0);
  fprintf(told, "%d\n", getpid());
  for (int level = 0; level < {DEPTH}; level++) {{
    pid_t before = getpid(), child = fork();
    if (child) _exit(0);
    while (getppid() == before) usleep(1000);
    fprintf(told, "%d\n", getpid());
  }}
  pid_t last = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);   /* its parent is not who made it */
  if (!last) {{ fprintf(told, "%d\n", getpid()); execl(argv[2], "noop", (char *)0); _exit(99); }}
  usleep(100000);
  fprintf(told, "end\n");
  return 0;
}}
"""


def born(monitor: MonitorProcess, pid: int) -> Document:
    return next(one for one in monitor.lifetime(pid) if name_of(one) == "process_fork")


def executed(monitor: MonitorProcess, pid: int) -> Document:
    return next(one for one in monitor.lifetime(pid) if name_of(one) == "process_exec")


def test_ancestors_are_those_who_started_it_though_all_of_them_have_ended(
    monitor: MonitorProcess, programs: Path, tmp_path: Path
) -> None:
    orphans, told = compile_c(programs, "orphans", ORPHANS), tmp_path / "pids"
    subprocess.run([orphans, told, programs / "noop"], check=True)
    monitor.until(lambda: told.read_text().endswith("end\n"), "the last of the line", 60)
    pids = [int(word) for word in told.read_text().split()[:-1]]
    assert len(pids) == DEPTH + 2
    forks = [born(monitor, pid) for pid in pids]
    ids = [fork["process"]["entity_id"] for fork in forks]
    for at, fork in enumerate(forks[1:], 1):
        expected = list(reversed(ids[max(0, at - 32) : at]))
        assert fork["ebpf"]["ancestors"][: len(expected)] == expected
        assert len(fork["ebpf"]["ancestors"]) <= 32
    exec_of_last = executed(monitor, pids[-1])
    assert exec_of_last["ebpf"]["ancestors"] == forks[-1]["ebpf"]["ancestors"]
    assert exec_of_last["process"]["parent"]["entity_id"] != ids[-2], "CLONE_PARENT: the parent did not make it"
    # everything that the first one started is one search
    assert sum(ids[0] in fork["ebpf"]["ancestors"] for fork in forks) == 32


def test_leaders_and_terminal_of_a_session(monitor: MonitorProcess) -> None:
    leader, terminal = pty.fork()
    if not leader:
        os.execv("/bin/sh", ["sh", "-c", "/bin/true | /bin/true; exit 0"])  # noqa: S606
    number = struct.unpack("I", fcntl.ioctl(terminal, TIOCGPTN, bytes(4)))[0]
    while True:
        try:
            if not os.read(terminal, 4096):
                break
        except OSError:
            break
    os.close(terminal)
    os.waitpid(leader, 0)
    shell = executed(monitor, leader)
    monitor.until(lambda: len(_children(monitor, leader)) >= 1, "the children of the shell")
    for one in [shell, *_children(monitor, leader)]:
        process = one["process"]
        assert process["session_leader"]["pid"] == leader
        assert process["session_leader"]["entity_id"] == shell["process"]["entity_id"]
        assert process["group_leader"]["pid"] == leader
        assert process["tty"] == {"char_device": {"major": 136, "minor": number}}
        assert process["interactive"] is True
    assert shell["process"]["session_leader"]["name"] == shell["process"]["name"]


def _children(monitor: MonitorProcess, parent: int) -> list[Document]:
    return [
        one
        for pid, who in monitor.journal.born[parent]
        for one in monitor.journal.documents(pid, who)
        if name_of(one) == "process_fork"
    ]


def test_without_a_terminal_it_is_not_interactive(monitor: MonitorProcess) -> None:
    child = subprocess.Popen(["/bin/true"], start_new_session=True)
    child.wait()
    about = executed(monitor, child.pid)["process"]
    assert about["interactive"] is False
    assert "tty" not in about
    assert about["session_leader"]["pid"] == child.pid == about["group_leader"]["pid"]


def test_a_session_whose_leader_has_ended_keeps_its_entity_id(monitor: MonitorProcess, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    script = f"(sleep 0.5; /bin/true) & echo $! > {told}.new; mv {told}.new {told}"
    child = subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True)
    child.wait()
    monitor.until(told.exists, "the orphan's pid")
    leader = executed(monitor, child.pid)["process"]["entity_id"]
    orphan = int(told.read_text())
    monitor.until(lambda: monitor.journal.ended(orphan), "the orphan's exit", 30)
    sessions = [
        one["process"]["session_leader"] for one in monitor.lifetime(orphan) if "session_leader" in one["process"]
    ]
    assert sessions
    assert {one["entity_id"] for one in sessions} == {leader}


@pytest.fixture
def unit() -> Iterator[Path]:
    root = Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified").is_dir() else Path("/sys/fs/cgroup")
    slice_ = root / f"ebpfmonitor{secrets.token_hex(4)}.slice"
    made = slice_ / "backup@eve.service"
    made.mkdir(parents=True)
    yield made
    made.rmdir()
    slice_.rmdir()


def test_the_unit_is_that_of_the_cgroup(monitor: MonitorProcess, unit: Path) -> None:
    child = subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {unit}/cgroup.procs; exec /bin/true"])
    assert child.wait() == 0
    programs = [one for one in monitor.lifetime(child.pid) if name_of(one) == "process_exec"]
    assert programs[-1]["ebpf"]["systemd"] == {"unit": "backup@eve.service"}
