"""Whose act it was and how much it was, when two CPUs are at it at once; and what no user may do to the log."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.acts import compile_c
from tests.kernel.monitor_process import MonitorProcess, name_of

TWO_THREADS = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>
#define ROUNDS 1201
static atomic_int round_, done; static int fd;
static void on(long cpu) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(cpu, &s); sched_setaffinity(0, sizeof s, &s); }
static void *writer(void *cpu) {
  on((long)cpu);
  for (int r = 1; r <= ROUNDS; r++) {
    while (atomic_load(&round_) < r) sched_yield();
    for (int i = 0; i < 3; i++) if (write(fd, "a", 1) != 1) _exit(1);
    atomic_fetch_add(&done, 1);
  }
  return 0;
}
int main(void) {
  pthread_t a, b; pthread_create(&a, 0, writer, (void *)0); pthread_create(&b, 0, writer, (void *)1);
  for (int r = 1; r <= ROUNDS; r++) {
    int p[2]; if (pipe(p)) return 1;
    fd = p[1]; atomic_store(&done, 0); atomic_store(&round_, r);
    while (atomic_load(&done) < 2) sched_yield();
    close(p[1]); close(p[0]);
  }
  pthread_join(a, 0); pthread_join(b, 0); return 0;
}
"""
ANOTHER_USER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>
static void on(int cpu) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(cpu, &s); sched_setaffinity(0, sizeof s, &s); }
int main(void) {
  on(1); int x = open("/dev/null", O_RDWR), y = open("/dev/zero", O_RDWR); write(x, "x", 1);
  on(0); if (setresuid(4321, 4321, 0)) return 1;
  prctl(PR_SET_NAME, "another"); write(x, "x", 1);
  on(1); dup2(y, x); return 0;
}
"""
NEW_NAMES = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(void) {
  char name[16]; if (setresuid(65534, 65534, 65534)) return 1;
  for (long i = 0; i < 30000; i++) { sprintf(name, "n%ld", i); prctl(PR_SET_NAME, name); close(open("/usr/bin/true", O_RDONLY)); }
  return 0;
}
"""


@pytest.mark.parametrize("running", [{"profile": "full"}], indirect=True, ids=["full"])
def test_two_threads_that_begin_a_session_at_once_count_every_write(monitor: MonitorProcess, programs: Path) -> None:
    before = monitor.fresh_status()["ledger"]["refused"]["ring_full"]
    process = subprocess.Popen([compile_c(programs, "two_threads", TWO_THREADS)])
    assert process.wait(60) == 0
    found = monitor.lifetime(process.pid, 30)
    counted = sum(one["ebpf"]["write"]["count"] for one in found if name_of(one) == "file_close")
    # a CPU that the hypervisor takes away in the middle of a session's beginning makes the other one give up, and say so
    given_up = monitor.fresh_status()["ledger"]["refused"]["ring_full"] - before
    assert 1201 * 6 - given_up <= counted <= 1201 * 6
    assert given_up < 60


@pytest.mark.parametrize("running", [{"profile": "full"}], indirect=True, ids=["full"])
def test_a_descriptor_that_dup2_replaces_is_closed_by_the_user_of_that_moment(
    monitor: MonitorProcess, programs: Path
) -> None:
    process = subprocess.Popen([compile_c(programs, "another_user", ANOTHER_USER)])
    assert process.wait(60) == 0
    (closed,) = (
        one
        for one in monitor.lifetime(process.pid)
        if name_of(one) == "file_close" and one["ebpf"]["close"]["reason"] == "dup"
    )
    assert (closed["user"]["id"], closed["process"]["thread"]["name"]) == ("4321", "another")


@pytest.mark.parametrize("running", [{"profile": "full"}], indirect=True, ids=["full"])
def test_a_call_number_beyond_the_table_is_not_taken_for_another_call(monitor: MonitorProcess) -> None:
    forged = ctypes.create_string_buffer(b"/etc/forged")
    libc, child = ctypes.CDLL(None), os.fork()
    if not child:
        for number in (512 + 3, 512 + 257, 1024 + 87):
            libc.syscall(number, forged, 0, 0)
        libc.syscall(3, -1)
        os._exit(0)
    os.waitpid(child, 0)
    found = [one for one in monitor.lifetime(child) if not name_of(one).startswith("process")]
    bad = [one for one in found if one["event"]["outcome"] == "failure"]
    assert [(name_of(one), one["error"]["code"]) for one in bad] == [("file_close", "EBADF")]
    assert "fd" not in bad[0]["ebpf"]
    assert not any("forged" in one.get("file", {}).get("path", "") for one in found)


@pytest.mark.parametrize("running", [{"profile": "standard"}], indirect=True, ids=["standard"])
def test_a_flood_of_new_names_does_not_hold_the_log(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    flood = subprocess.Popen([compile_c(programs, "new_names", NEW_NAMES)])
    assert flood.wait(60) == 0
    child = subprocess.Popen(["/bin/true"], cwd=place)
    assert child.wait() == 0
    assert name_of(monitor.lifetime(child.pid, 10)[-1]) == "process_exit"
    assert monitor.fresh_status()["ring_fill"] < 0.5
