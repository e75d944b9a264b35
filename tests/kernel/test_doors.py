"""Odd doors to ordinary acts: descriptor tables that processes share, arguments with garbage in their upper halves, a program file
that the process itself exchanged."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kernel.acts import AT_FDCWD, Script, compile_c
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

pytestmark = pytest.mark.parametrize(
    "running",
    [{"profile": "full"}, {"profile": "full", "environment": {"EBPF_MONITOR_NO_CASTS": "1"}}],
    indirect=True,
    ids=["casts", "helpers"],
)
CLONE_FILES, CLONE_FS = 0x400, 0x200
CLOSE_RANGE_UNSHARE = 2
Told = tuple[str, str | None, tuple[int, int] | None, str | None]


def told(one: Document) -> Told:
    """(event, name, writes and their bytes of a close, why it was closed)"""
    totals = one["ebpf"].get("write")
    about = (totals["count"], totals["bytes"]) if totals else None
    return name_of(one), one.get("file", {}).get("name"), about, one["ebpf"].get("close", {}).get("reason")


def numbers(script: Script, count: int) -> list[int]:
    """The next descriptors of the script."""
    return [n for n in range(3, 64) if n != script.fd][:count]


def test_a_table_shared_by_two_processes(monitor: MonitorProcess, script: Script, place: Path) -> None:
    first, second = numbers(script, 2)
    opened, acted = script.room(8), script.room(8)
    data = script.data(b"12345")

    def open_(name: str) -> None:
        script.call("openat", AT_FDCWD, script.text(place / name), os.O_RDWR | os.O_CREAT, 0o600)

    open_("f")
    child = script.begin_child("clone", CLONE_FILES | signal.SIGCHLD, 0)
    script.call("write", first, data, 5)
    open_("g")
    script.tell(opened)
    script.wait(acted)
    script.call("write", second, data, 4)  # the number is the parent's h by now
    script.call("unshare", CLONE_FILES)
    script.call("close", second)
    forked = script.end_child(child)
    script.wait(opened)
    script.call("write", second, data, 3)
    script.call("close", second)
    open_("h")
    script.tell(acted)
    script.reap(forked)
    script.call("write", second, data, 2)  # the child has closed its own
    pid = script.run()
    assert [told(one) for one in monitor.lifetime(forked.ret)[1:-1]] == [
        ("file_write", "f", None, None),
        ("file_open", "g", None, None),
        ("file_close", "g", (0, 0), "evict"),
        ("file_write", "h", None, None),
        ("file_close", "h", (1, 4), "close"),
        ("file_close", "f", (1, 5), "exit"),
    ]
    assert [told(one) for one in monitor.program(pid)] == [
        ("file_open", "f", None, None),
        ("file_write", "g", None, None),
        ("file_close", "g", (1, 3), "close"),
        ("file_open", "h", None, None),
        ("file_write", "h", None, None),
        ("file_close", "f", (0, 0), "exit"),
        ("file_close", "h", (1, 2), "exit"),
    ]


@pytest.mark.parametrize("flags", [CLONE_FILES, CLONE_FILES | CLONE_FS, CLONE_FS, 0], ids=["files", "files+fs", "fs", "none"])  # fmt: skip
def test_close_range_in_a_child_that_shares_the_table_or_not(
    monitor: MonitorProcess, script: Script, place: Path, flags: int
) -> None:
    (first,) = numbers(script, 1)
    data = script.data(b"12345")
    script.call("openat", AT_FDCWD, script.text(place / "f"), os.O_RDWR | os.O_CREAT, 0o600)
    script.call("write", first, data, 5)
    child = script.begin_child("clone", flags | signal.SIGCHLD, 0)
    script.call("write", first, data, 3)
    script.call("chdir", script.text(place))
    script.call("close_range", first, first, CLOSE_RANGE_UNSHARE)
    forked = script.end_child(child)
    script.reap(forked)
    script.call("write", first, data, 4)
    script.call("openat", AT_FDCWD, script.text("missing"), os.O_RDONLY)
    pid = script.run(cwd=Path("/"))
    assert [told(one) for one in monitor.lifetime(forked.ret)[1:-1]] == [
        ("file_write", "f", None, None),
        ("file_close", "f", (1, 3), "close"),
    ]
    found = monitor.program(pid)
    assert [told(one) for one in found] == [
        ("file_open", "f", None, None),
        ("file_write", "f", None, None),
        ("file_open", "missing", None, None),
        ("file_close", "f", (2, 9), "exit"),
    ]
    where = place if flags & CLONE_FS else Path("/")  # a shared working directory was changed by the child
    assert found[2]["file"]["path"] == str(where / "missing")


CLONES = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
/* the child goes to `in`, makes a file and leaves it open, looks for what is not there; its maker writes to the number it said */
static volatile struct { long pid, tid, number, done; } *said; static int n;
static int act(void *x) {
  char name[32]; sprintf(name, "made-%d", n);
  if (chdir("in")) return 1;
  said->number = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CREAT, 0600);
  syscall(SYS_openat, AT_FDCWD, "nothing", O_RDONLY);
  said->tid = syscall(SYS_gettid); __atomic_store_n(&said->done, 1, __ATOMIC_SEQ_CST);
  syscall(SYS_exit, 0); return 0;
}
int main(int c, char **v) {
  if (!fork()) {                              /* one process more, so that CLONE_PARENT has somebody to give the child to */
    said = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *stack = mmap(0, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (n = 0; n < c - 2; n++) {
      unsigned long flags = strtoul(v[2 + n], 0, 16); int to = open(v[1], O_PATH);
      if (fchdir(to)) _exit(3); close(to);
      memset((void *)said, 0, sizeof *said);
      long pid = clone(act, stack + (1 << 18), flags | (flags & (CLONE_THREAD | CLONE_PARENT) ? 0 : SIGCHLD), 0);
      if (pid < 0) _exit(4);
      while (!__atomic_load_n(&said->done, __ATOMIC_SEQ_CST)) usleep(500);
      if (!(flags & (CLONE_THREAD | CLONE_PARENT))) waitpid(pid, 0, __WALL); else usleep(20000);
      long wrote = said->number < 0 ? -1 : syscall(SYS_pwrite64, said->number, "12345", 5, 0);
      syscall(SYS_openat, AT_FDCWD, "nothing", O_RDONLY);
      printf("%s %ld %ld %ld %d\n", v[2 + n], pid, (long)said->tid, (long)said->number, wrote == 5); fflush(stdout);
    }
    _exit(0);
  }
  while (wait(0) > 0);
  return 0;
}
"""
FLAGS = {
    "VM": 0x100, "FS": CLONE_FS, "FILES": CLONE_FILES, "SIGHAND": 0x800, "VFORK": 0x4000, "PARENT": 0x8000, "THREAD": 0x10000, "NEWNS": 0x20000,
    "SYSVSEM": 0x40000, "UNTRACED": 0x800000, "NEWCGROUP": 0x2000000, "NEWUTS": 0x4000000, "NEWIPC": 0x8000000, "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000, "NEWNET": 0x40000000, "IO": 0x80000000,
}  # fmt: skip
TOGETHER = [
    "", "VM", "FS", "FILES", "VM SIGHAND", "VFORK", "VM VFORK", "PARENT", "SYSVSEM", "IO", "UNTRACED", "FS PARENT", "FILES PARENT",
    "VM FS FILES SIGHAND SYSVSEM IO", "VM FS FILES SIGHAND SYSVSEM IO VFORK PARENT", "VM SIGHAND THREAD", "VM SIGHAND THREAD FS",
    "VM SIGHAND THREAD FILES", "VM SIGHAND THREAD FS FILES SYSVSEM IO",
    "NEWNS", "NEWCGROUP", "NEWUTS", "NEWIPC", "NEWUSER", "NEWPID", "NEWNET", "NEWNS NEWUSER NEWPID FILES",
]  # fmt: skip


def test_every_sharing_flag_of_clone(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    (place / "in").mkdir()
    flags = [sum(FLAGS[one] for one in words.split()) for words in TOGETHER]
    program = compile_c(programs, "clones", CLONES)
    process = subprocess.Popen([program, place, *(f"{one:x}" for one in flags)], stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    rows = [[int(word, 16 if at == 0 else 10) for at, word in enumerate(line.split())] for line in output.splitlines()]
    assert [row[0] for row in rows] == flags, "this kernel takes each of them"
    monitor.lifetime(process.pid)
    maker = monitor.journal.born[process.pid][0][0]
    made = monitor.lifetime(maker)
    looked = [one for one in made if name_of(one) == "file_open" and one["file"].get("name") == "nothing"]
    mains = iter([one for one in looked if one["process"]["thread"]["id"] == maker])
    writes = iter([one for one in made if one["ebpf"].get("syscall") == "pwrite64"])
    for at, (words, (_, pid, tid, number, wrote)) in enumerate(zip(TOGETHER, rows, strict=True)):
        has, where = set(words.split()), str(place / "in" / f"made-{at}")
        if "THREAD" in has:
            found = [one for one in made if one["process"]["thread"]["id"] == tid]
            assert not monitor.journal.documents(tid), f"{words}: a thread is no process"
        else:
            found = monitor.lifetime(pid)
            parent = process.pid if "PARENT" in has else maker
            born = found[0]
            assert (name_of(born), born["process"]["parent"]["pid"]) == ("process_fork", parent), words
            assert len({one["process"]["entity_id"] for one in found}) == 1, words
            assert any("NEW" in one for one in has) == any(name_of(one) == "process_namespace" for one in found), words
        opens = [one for one in found if name_of(one) == "file_open"]
        assert [(one["file"]["path"], one["ebpf"]["ret"]) for one in opens] == [
            (where, number),
            (str(place / "in/nothing"), -errno.ENOENT),
        ], words
        write = next(writes)
        assert wrote == ("FILES" in has), words
        got = (write["ebpf"]["fd"], write.get("file", {}).get("path"), write.get("error", {}).get("code"))
        assert got == (number, *((where, None) if wrote else (None, "EBADF"))), words
        assert next(mains)["file"]["path"] == str(place / ("in/nothing" if "FS" in has else "nothing")), words
        every = made if "THREAD" in has else found + made
        closes = [one["ebpf"] for one in every if name_of(one) == "file_close" and one["file"].get("path") == where]
        assert sum(one["write"]["bytes"] for one in closes) == 5 * wrote, words
        assert len(closes) == (1 if "THREAD" in has else 1 + wrote), words  # each process's part ends once
    assert [next(writes, None), next(mains, None)] == [None, None]


# Each call by both entry points, clean and then with garbage in the upper half of each register.
GARBAGE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
static long old(long n, long a, long b, long c, long d) {
  long r; asm volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(d) : "r8", "r9", "r10", "r11", "memory");
  return r;
}
static long now(long n, long a, long b, long c, long d) {
  long r; register long r10 asm("r10") = d; asm volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
  return r;
}
int main(int argc, char **argv) {
  char *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0); if (low == MAP_FAILED || chdir(argv[1])) return 9;
  strcpy(low, "f"); strcpy(low + 64, "g"); struct sockaddr_in a = {AF_INET, htons(4003), {htonl(0x7f4d0303)}}; memcpy(low + 128, &a, sizeof a);
  for (int i = 0; i < 2; i++) {
    long x = i ? 0xdeadbeef00000000 : 0, cwd = x | (unsigned)AT_FDCWD, p = x | (long)low, q = x | (long)(low + 64); int f, s = socket(AF_INET, SOCK_DGRAM, 0);
    f = old(295, cwd, p, x | O_RDWR | O_CREAT, x | 0600); if (f < 0) return 1;
    if (old(4, x | (unsigned)f, p, x | 1, 0) != 1 || old(94, x | (unsigned)f, x | 0640, 0, 0)) return 2;
    if (old(38, p, q, 0, 0) || old(15, q, x | 0600, 0, 0) || old(10, q, 0, 0, 0)) return 3;
    if (old(362, x | (unsigned)s, x | (long)(low + 128), x | 16, 0) || old(6, x | (unsigned)f, 0, 0, 0)) return 4;
    /* of the 64-bit entry only what the kernel takes as an int has an upper half to ignore */
    f = now(257, cwd, (long)low, x | O_RDWR | O_CREAT, x | 0600); if (f < 0) return 5;
    if (now(1, x | (unsigned)f, (long)low, 1, 0) != 1 || now(91, x | (unsigned)f, x | 0640, 0, 0)) return 6;
    if (now(264, cwd, (long)low, cwd, (long)(low + 64)) || now(263, cwd, (long)(low + 64), x, 0)) return 7;
    if (now(42, x | (unsigned)s, (long)(low + 128), x | 16, 0) || now(3, x | (unsigned)f, 0, 0, 0)) return 8;
    close(s);
  }
  return 0;
}
"""


def test_garbage_in_the_upper_halves_changes_nothing(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    process = subprocess.Popen([compile_c(programs, "garbage", GARBAGE), place])
    assert process.wait() == 0

    def shown(one: Document) -> tuple[object, ...]:
        about = {name: one["ebpf"].get(name) for name in ("syscall", "ret", "fd", "flags", "requested", "claimed", "write")}
        file = {name: one.get("file", {}).get(name) for name in ("path", "mode", "Ext")}
        return name_of(one), about, file, one["event"]["action"], one.get("destination")

    found = [shown(one) for one in monitor.program(process.pid)]
    half = len(found) // 2
    assert found[:half] == found[half:]
    assert [name for name, *_ in found[:half]] == [
        "file_open", "file_write", "file_mode", "file_rename", "file_mode", "file_delete", "socket_connect", "file_close",
        "file_open", "file_write", "file_mode", "file_rename", "file_delete", "socket_connect", "file_close", "socket_close",
    ]  # fmt: skip


# It gives up its own program, then takes another file in its place; what it does afterwards is code in anonymous memory.
EXCHANGE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
struct job { struct prctl_mm_map map; unsigned long start, size; unsigned long cpus[2][16]; char name[2][16]; };
#define CALL(n, a, b, c, d, e) ({ long r_; register long r10_ asm("r10") = (long)(d); register long r8_ asm("r8") = (long)(e); asm volatile("syscall" : "=a"(r_) : "a"((long)(n)), "D"((long)(a)), "S"((long)(b)), "d"((long)(c)), "r"(r10_), "r"(r8_) : "rcx", "r11", "memory"); r_; })
__attribute__((noinline, section("payload"))) static void leave(struct job *j) {
  long r;
  r = CALL(SYS_munmap, j->start, j->size, 0, 0, 0);
  if (!r) r = CALL(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, &j->map, sizeof j->map, 0);
  for (int i = 0; i < 2; i++) {       /* on either CPU: each is told anew who the process is */
    CALL(SYS_sched_setaffinity, 0, 128, j->cpus[i], 0, 0);
    CALL(SYS_close, CALL(SYS_openat, -100, j->name[i], O_RDWR | O_CREAT, 0600, 0), 0, 0, 0, 0);
    CALL(SYS_unlink, j->name[i], 0, 0, 0, 0);
  }
  long child = CALL(SYS_fork, 0, 0, 0, 0, 0);
  if (child) CALL(SYS_wait4, child, 0, 0, 0, 0); else CALL(SYS_unlink, j->name[1], 0, 0, 0, 0);
  CALL(SYS_exit_group, r < 0 ? -r : 0, 0, 0, 0, 0);
}
extern char __start_payload[], __stop_payload[], __executable_start[];
int main(int c, char **v) {
  unsigned int known; if (prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &known, 0, 0)) return 99;
  char *code = mmap(0, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); struct job *j = (void *)(code + 32768);
  memcpy(code, __start_payload, __stop_payload - __start_payload);
  FILE *f = fopen("/proc/self/maps", "r"); char line[512], self[512]; unsigned long a, b, last = 0; self[readlink("/proc/self/exe", self, 511)] = 0;
  while (fgets(line, 512, f)) if (strstr(line, self) && sscanf(line, "%lx-%lx", &a, &b) == 2) { if (!j->start) j->start = a; last = b; }
  fclose(f); j->size = last - j->start;
  f = fopen("/proc/self/stat", "r"); line[fread(line, 1, 500, f)] = 0; fclose(f);
  unsigned long s[60] = {0}; char *p = strrchr(line, ')') + 2; int i = 3; for (p = strtok(p, " "); p && i < 60; p = strtok(0, " ")) s[i++] = strtoul(p, 0, 10);
  j->map = (struct prctl_mm_map){.start_code = s[26], .end_code = s[27], .start_stack = s[28], .start_data = s[45], .end_data = s[46], .start_brk = s[47], .brk = (unsigned long)sbrk(0), .arg_start = s[48], .arg_end = s[49], .env_start = s[50], .env_end = s[51], .exe_fd = open(v[1], O_RDONLY)};
  for (i = 0; i < 2; i++) { sprintf(j->name[i], "f%d", i); j->cpus[i][0] = 1ul << atoi(v[2 + i]); }
  void (*go)(struct job *) = (void *)(code + ((char *)leave - __start_payload));
  go(j); return 1;
}
"""


def test_a_process_that_exchanges_its_program_s_file_is_still_the_program_that_was_executed(
    monitor: MonitorProcess, programs: Path, place: Path
) -> None:
    program = compile_c(programs, "exchange", EXCHANGE, "-fno-stack-protector", "-fcf-protection=none")
    cpus = sorted(os.sched_getaffinity(0))
    process = subprocess.Popen([program, "/bin/true", str(cpus[0]), str(cpus[-1])], cwd=place)
    status = process.wait()
    if status == 99:
        pytest.skip("the kernel has no PR_SET_MM_MAP (CONFIG_CHECKPOINT_RESTORE)")
    assert status == 0
    found = monitor.lifetime(process.pid)
    (child,) = monitor.journal.born[process.pid]
    found += monitor.lifetime(child[0])
    start = next(i for i, one in enumerate(found) if name_of(one) == "process_exec")
    assert [name_of(one) for one in found].count("file_delete") == 3
    assert {one["process"]["executable"] for one in found[start:]} == {str(program)}
