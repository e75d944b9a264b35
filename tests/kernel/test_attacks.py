"""Attacks on the truth of the log: races on what the caller's memory says, hostile bytes, reused pids, a flood to hide in.

Short by default; EBPF_MONITOR_ATTACKS=20000 is the long version, also of test_places, test_paths, test_maps and test_true_names (on a calm
machine: a process whose exit is lost is waited for).
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from monitor import names
from tests.kernel.acts import compile_c
from tests.kernel.monitor_process import Document, MonitorProcess, name_of
from tests.kernel.test_identity import cgroups

TRIED = int(os.environ.get("EBPF_MONITOR_ATTACKS", "401"))
LONG = 60 + TRIED / 20

pytestmark = pytest.mark.parametrize("running", [{"profile": "full"}], indirect=True, ids=["full"])

# A thread changes the argument while vfork'ed children give it to execve; each child's program says what it was given.
ARGUMENTS = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile char word[64] = "aaaaaaaa"; static volatile int stop;
static void *flip(void *x) { while (!stop) { *(volatile long *)word = 0x6262626262626262; for (int i = 0; i < 200; i++) word[40] = i; *(volatile long *)word = 0x6161616161616161; for (int i = 0; i < 200; i++) word[40] = i; } return 0; }
int main(int c, char **v) {
  if (!strcmp(v[0], "said")) { char line[128]; write(1, line, snprintf(line, 128, "%d %s\n", getpid(), v[1])); return 0; }
  int n = atoi(v[1]); pthread_t t; char *argv[] = {"said", (char *)word, 0};
  pthread_create(&t, 0, flip, 0);
  for (int i = 0; i < n; i++) { pid_t p = vfork(); if (!p) { execv("/proc/self/exe", argv); _exit(9); } int s; waitpid(p, &s, 0); if (s) return 8; }
  stop = 1; pthread_join(t, 0); return 0;
}
"""
# A thread changes the address while it is connected to; the kernel says afterwards where that went.
ADDRESSES = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
static volatile struct { unsigned short family, port; unsigned ip; char zero[8]; } a; static volatile int stop;
static void set(int one) { union { struct { unsigned short f, p; unsigned ip; } s; unsigned long all; } u = {{AF_INET, htons(one ? 4001 : 4002), inet_addr(one ? "127.77.1.1" : "127.77.2.2")}}; *(volatile unsigned long *)&a = u.all; }
static void *flip(void *x) { while (!stop) { set(1); for (volatile int i = 0; i < 200; i++); set(0); for (volatile int i = 0; i < 200; i++); } return 0; }
int main(int c, char **v) {
  int n = atoi(v[1]); pthread_t t; set(1); pthread_create(&t, 0, flip, 0);
  for (int i = 0; i < n; i++) {
    int s = socket(AF_INET, SOCK_DGRAM, 0); struct sockaddr_in p; socklen_t l = sizeof p;
    if (connect(s, (void *)&a, 16) || getpeername(s, (void *)&p, &l)) return 7;
    printf("%s %d\n", inet_ntoa(p.sin_addr), ntohs(p.sin_port)); close(s);
  }
  stop = 1; pthread_join(t, 0); return 0;
}
"""
# Each name, of any bytes, is a file's, a thread's and an abstract Unix socket's; some an argument and a cgroup's.
NAMES = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int c, char **v) {
  int f = open("names", O_RDONLY), n = atoi(v[1]), each = atoi(v[2]), i; char group[4096], procs[4200]; static char all[4 << 20]; if (read(f, all, sizeof all) < 1) return 6;
  char *name = all;
  for (i = 0; i < n; i++, name += strlen(name) + 1) {
    prctl(PR_SET_NAME, name);
    int g = open(name, O_WRONLY | O_CREAT, 0600); if (g < 0) return 5; close(g);
    struct sockaddr_un a = {AF_UNIX}; int s = socket(AF_UNIX, SOCK_DGRAM, 0), l = strlen(name) > 100 ? 100 : strlen(name); memcpy(a.sun_path + 1, name, l);
    if (bind(s, (void *)&a, 3 + l)) return 4; close(s);
    if (i % each) continue;
    int there = snprintf(group, sizeof group, "%s/lxc.payload.%.200s", v[3], name) && !mkdir(group, 0755); snprintf(procs, sizeof procs, "%s/cgroup.procs", group);
    pid_t p = vfork();
    if (!p) { if (there) { int g = open(procs, O_WRONLY); if (write(g, "0", 1) != 1) _exit(8); close(g); } char *argv[] = {"true", name, 0}; execv("/bin/true", argv); _exit(9); }
    int st; waitpid(p, &st, 0); if (st) return 3;
    if (there) for (int tries = 0; rmdir(group); tries++) if (tries > 1000) return 2; else usleep(1000);
  }
  return 0;
}
"""
# The same pid again and again, each time another process.
AGAIN = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <errno.h>
int main(int c, char **v) {
  int n = atoi(v[1]), made = 0; pid_t wanted = 0;
  if (!(wanted = fork())) _exit(0);
  waitpid(wanted, 0, 0);
  for (int i = 0; made < n && i < 100 * n; i++) {
    struct clone_args a = {.exit_signal = 17, .set_tid = (unsigned long)&wanted, .set_tid_size = 1};
    pid_t p = syscall(SYS_clone3, &a, sizeof a);
    if (p < 0) { if (errno != EEXIST) return 5; if (!(wanted = fork())) _exit(0); waitpid(wanted, 0, 0); continue; }   /* somebody else has it */
    if (!p) { char name[32]; sprintf(name, "life-%d", made); close(open(name, O_WRONLY | O_CREAT, 0600)); _exit(0); }
    waitpid(p, 0, 0); printf("%d\n", p); made++;
  }
  return made == n ? 0 : 4;
}
"""


def output_of(program: Path, place: Path, *arguments: object) -> tuple[int, list[str]]:
    process = subprocess.Popen(
        [program, *(str(one) for one in arguments)], cwd=place, stdout=subprocess.PIPE, text=True
    )
    output, _ = process.communicate(timeout=LONG * 4)
    assert process.returncode == 0, output[-300:]
    return process.pid, output.splitlines()


def test_arguments_are_those_that_the_program_got(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    pid, lines = output_of(compile_c(programs, "arguments", ARGUMENTS), place, TRIED)
    said = {int(line.split()[0]): line.split()[1] for line in lines}
    assert len(said) == TRIED
    monitor.lifetime(pid, LONG)
    wrong, kinds = 0, set(said.values())
    for child, word in said.items():
        execs = [one for one in monitor.lifetime(child, LONG) if name_of(one) == "process_exec"]
        wrong += execs[-1]["process"]["args"] != ["said", word]
    assert wrong == 0, f"{wrong} of {TRIED} wrong"
    assert len(kinds) > 1, "the race did not happen"


def test_addresses_are_those_that_were_connected_to(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    for _ in range(10):  # on a busy machine both threads may have to share a CPU: then nothing races
        pid, lines = output_of(compile_c(programs, "addresses", ADDRESSES), place, max(TRIED, 2003))
        found = [one for one in monitor.lifetime(pid, LONG) if name_of(one) == "socket_connect"]
        shown = [f"{one['destination']['ip']} {one['destination']['port']}" for one in found]
        assert shown == lines
        if set(lines) == {"127.77.1.1 4001", "127.77.2.2 4002"}:
            return
    pytest.fail("the race did not happen")


def exact(one: Document, shown: str, path: str) -> bytes:
    """The exact bytes of a name in a document: of what is shown, by the field's path with _ for ."""
    return names.original(shown, one["ebpf"].get("raw", {}).get(path))


def test_any_bytes_come_back_and_forge_nothing(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    chance, given = random.Random(20261128), set[bytes]()
    bad = bytes({*range(1, 256)} - {47})
    while len(given) < TRIED // 2:
        made = bytes(chance.choices(bad, k=chance.choice((1, 7, 15, 16, 60, 255))))
        if made not in (b".", b"..", b"names"):
            given.add(made)
    wanted = sorted(given)
    (place / "names").write_bytes(b"\0".join(wanted) + b"\0")
    root = next(iter(cgroups()), None)
    if root is None:
        pytest.skip("needs a cgroup file system")
    each = 1 if len(wanted) >= 10_000 else 8
    pid, _ = output_of(compile_c(programs, "names", NAMES), place, len(wanted), each, root)
    found = monitor.lifetime(pid, LONG)
    opens = [one for one in found if name_of(one) == "file_open" and one["event"]["action"] == "creation"]
    shown = [exact(one, one["file"]["path"], "file_path") for one in opens]
    assert shown == [os.fsencode(place) + b"/" + name for name in wanted]
    comms = [exact(one, one["process"]["thread"]["name"], "process_thread_name") for one in opens]
    assert comms == [name[:15] for name in wanted]
    assert len({one["file"]["path"] for one in opens}) == len(wanted), "different names never become one"
    binds = [one for one in found if name_of(one) == "socket_bind"]
    sockets = [exact(one, one["ebpf"]["socket"]["path"], "ebpf_socket_path") for one in binds]
    assert sockets == [b"@" + name[:100] for name in wanted]
    children = [child for child, _ in monitor.journal.born[pid]]
    assert len(children) == -(-len(wanted) // each)
    contained = set()
    for child, name in zip(children, wanted[::each], strict=True):
        (done,) = (one for one in monitor.lifetime(child, LONG) if name_of(one) == "process_exec")
        raw = done["ebpf"].get("raw", {}).get("process_args")
        got = names.original_list(done["process"]["args"], raw)
        assert got[1] == name
        if b"\n" in name[:200]:  # no cgroup can be called so
            continue
        assert exact(done, done["container"]["id"], "container_id") == name[:200]
        contained.add((done["container"]["id"], done["ebpf"].get("raw", {}).get("container_id")))
    assert len(contained) == len({name[:200] for name in wanted[::each] if b"\n" not in name[:200]})


def test_a_reused_pid_is_never_joined_with_another_life(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    pid, lines = output_of(compile_c(programs, "again", AGAIN), place, TRIED // 4)
    monitor.lifetime(pid, LONG)
    lives: dict[str, list[Document]] = {}
    for number in sorted({int(line) for line in lines}):
        for one in monitor.journal.documents(number):
            lives.setdefault(one["process"]["entity_id"], []).append(one)
    opened = {}
    for entity, documents in lives.items():
        files = {
            one["file"]["name"]
            for one in documents
            if name_of(one) == "file_open" and one["file"]["name"].startswith("life-")
        }
        assert len(files) <= 1, f"two lives under one id: {files}"
        for name in files:
            assert name not in opened, "one life under two ids"
            opened[name] = entity
            kinds = [name_of(one) for one in documents]
            assert (kinds[0], kinds[-1]) == ("process_fork", "process_exit")
    assert len(opened) == TRIED // 4
    assert len({int(line) for line in lines}) < TRIED // 8, "the same pids came again"
