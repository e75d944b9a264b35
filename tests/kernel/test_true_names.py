"""Names of acts by name while the caller's own memory changes under the call: with the kernel's hooks each name is the true
one; without them it is marked as the caller's word.

Owns the attack; whether this kernel has hooks is asked of its monitor.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.acts import compile_c
from tests.kernel.monitor_process import MonitorProcess, name_of

pytestmark = pytest.mark.parametrize(
    "running",
    [{"profile": "full"}, {"profile": "full", "environment": {"EBPF_MONITOR_NO_CASTS": "1"}}],
    indirect=True,
    ids=["casts", "helpers"],
)
COUNT = int(os.environ.get("EBPF_MONITOR_ATTACKS", "500"))
RACER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static volatile char *letter; static volatile int stop;
static void *flip(void *x) { while (!stop) { *letter = 'a'; for (volatile int i = 0; i < 60; i++); *letter = 'b'; for (volatile int i = 0; i < 60; i++); } return 0; }
/* what: unlink, rename or mkdir, on the name whose last letter another thread changes all the time; prints which one it was */
int main(int argc, char **argv) {
  const char *what = argv[1], *dir = argv[2]; long n = atol(argv[3]), i; static char path[4096], a[4096], b[4096], to[4096];
  int make = !strcmp(what, "mkdir"); pthread_t thread; struct stat s;
  snprintf(path, sizeof path, "%s/x", dir); letter = path + strlen(path) - 1;
  *letter = 'a'; pthread_create(&thread, 0, flip, 0);
  snprintf(a, sizeof a, "%s/a", dir); snprintf(b, sizeof b, "%s/b", dir);
  for (i = 0; i < n; i++) {
    if (!make) { close(open(a, O_CREAT | O_WRONLY, 0600)); close(open(b, O_CREAT | O_WRONLY, 0600)); }
    long r;
    if (make) r = syscall(SYS_mkdir, path, 0700);
    else if (!strcmp(what, "unlink")) r = syscall(SYS_unlink, path);
    else { snprintf(to, sizeof to, "%s/to", dir); r = syscall(SYS_rename, path, to); }
    if (r) return 3;
    printf("%c", (stat(a, &s) == 0) == make ? 'a' : 'b');
    if (make) { unlinkat(-100, a, AT_REMOVEDIR); unlinkat(-100, b, AT_REMOVEDIR); } else { unlinkat(-100, a, 0); unlinkat(-100, b, 0); unlinkat(-100, to, 0); }
  }
  stop = 1;
  return 0;
}
"""
EVENTS = {"unlink": "file_delete", "rename": "file_rename", "mkdir": "file_mkdir"}


@pytest.mark.parametrize("what", list(EVENTS))
def test_a_name_that_changes_during_the_call_is_true_or_marked(
    monitor: MonitorProcess, programs: Path, place: Path, what: str
) -> None:
    racer = compile_c(programs, "racer", RACER)
    process = subprocess.Popen([racer, what, place, str(COUNT)], stdout=subprocess.PIPE, text=True)
    truth, _ = process.communicate()
    assert process.returncode == 0
    found = [
        one
        for one in monitor.lifetime(process.pid, 60 + COUNT / 20)
        if name_of(one) == EVENTS[what] and one["ebpf"]["syscall"] == what
    ]
    assert len(found) == len(truth) == COUNT
    shown = [
        (one["file"]["Ext"]["original"]["path"] if what == "rename" else one["file"]["path"], one["ebpf"])
        for one in found
    ]
    wrong = [(path, ebpf) for (path, ebpf), letter in zip(shown, truth, strict=True) if path != f"{place}/{letter}"]
    sources = dict(one.split(": ") for one in monitor.journal.made[0]["ebpf"]["monitor"]["name_sources"])
    if sources[EVENTS[what]] == "hook":
        assert not wrong
        assert {ebpf["path_source"] for _, ebpf in shown} == {"hook"}
        assert not any("claimed" in ebpf for _, ebpf in shown)
    else:
        assert all(ebpf["claimed"] is True and ebpf["path_source"] == "caller" for _, ebpf in shown)
    print(f"{what}: {len(wrong)} of {COUNT} names wrong, source {sources[EVENTS[what]]}")
