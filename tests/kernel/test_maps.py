"""Files that become memory: to be executed, or shared by a descriptor that can write."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from monitor.kernel.btf import Btf
from tests.kernel.acts import Call, Script, compile_c
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

TRIED = int(os.environ.get("EBPF_MONITOR_ATTACKS", "401"))
READ, WRITE, EXEC = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC
SHARED, PRIVATE, ANONYMOUS = mmap.MAP_SHARED, mmap.MAP_PRIVATE, mmap.MAP_ANONYMOUS
PAGE = mmap.PAGESIZE
READ_IMPLIES_EXEC = 0x0400000
AREAS = Btf().func_id("bpf_iter_task_vma_new") is not None

# One thread puts two files on one number by turns, the other maps that number and looks which one it got.
RACE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
static int a, b; static volatile int stop, started;
static void *flip(void *x) { while (!stop) { started = 1; dup2(a, 100); for (volatile int i = 0; i < 100; i++); dup2(b, 100); for (volatile int i = 0; i < 100; i++); } return 0; }
int main(int c, char **v) {
  int n = atoi(v[1]); pthread_t t; a = open("a", O_RDONLY); b = open("b", O_RDONLY); dup2(a, 100); pthread_create(&t, 0, flip, 0); while (!started) usleep(100);
  for (int i = 0; i < n; i++) {
    char *p = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, 100, 0); if (p == MAP_FAILED) return 7;
    printf("%c\n", *p); munmap(p, 4096);
  }
  stop = 1; pthread_join(t, 0); return 0;
}
"""


def maps(found: list[Document]) -> list[Document]:
    return [one for one in found if name_of(one) == "file_map"]


def told(one: Document) -> tuple[str, int, str | None, str | None, str, str | None]:
    about = one["ebpf"]
    return (
        about["syscall"], about["ret"], one.get("error", {}).get("code"), one.get("file", {}).get("path"),
        about["map"]["protection"], about.get("flags"),
    )  # fmt: skip


def test_what_is_executed_or_shared_to_be_written_is_told_and_nothing_else(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    path = place / "renamed"
    (place / "f").write_bytes(b"x" * 3 * PAGE)
    reading = script.call("open", script.text(place / "f"), os.O_RDONLY)
    writing = script.call("open", script.text(place / "f"), os.O_RDWR)
    directory = script.call("open", script.text(place), os.O_RDONLY | os.O_DIRECTORY)
    script.call("rename", script.text(place / "f"), script.text(path))

    def take(prot: int, flags: int, descriptor: int | Call, offset: int = 0) -> Call:
        return script.call("mmap", 0, 2 * PAGE, prot, flags, descriptor, offset)

    wanted: list[tuple[Call, str | None, str, str | None]] = []
    take(READ, PRIVATE, reading)
    take(READ | WRITE, PRIVATE, writing)
    take(READ, SHARED, reading)
    nobody = take(READ | WRITE, PRIVATE | ANONYMOUS, -1)
    take(READ | EXEC, PRIVATE | ANONYMOUS, -1)
    take(READ | WRITE, SHARED | ANONYMOUS, -1)
    script.call("mprotect", nobody, PAGE, READ | EXEC)
    wanted += [
        (take(READ | EXEC, PRIVATE, reading, PAGE), str(path), "PROT_READ|PROT_EXEC", "MAP_PRIVATE"),
        (take(READ | WRITE, SHARED, writing), str(path), "PROT_READ|PROT_WRITE", "MAP_SHARED"),
        (take(READ, SHARED, writing), str(path), "PROT_READ", "MAP_SHARED"),
        (take(READ | EXEC, PRIVATE, directory), str(place), "PROT_READ|PROT_EXEC", "MAP_PRIVATE"),
        (take(EXEC, PRIVATE, 999), None, "PROT_EXEC", "MAP_PRIVATE"),
    ]
    later = take(READ, PRIVATE, reading)
    script.call("mprotect", later, PAGE, READ | WRITE)
    if AREAS:
        changed = script.call("mprotect", later, PAGE, READ | EXEC)
        wanted.append((changed, str(path), "PROT_READ|PROT_EXEC", None))
    script.call("personality", READ_IMPLIES_EXEC)
    wanted.append((take(READ, PRIVATE, reading), str(path), "PROT_READ|PROT_EXEC", "MAP_PRIVATE"))
    found = maps(monitor.program(script.run()))
    assert [told(one) for one in found] == [
        (act.name, act.ret, act.error, name, prot, flags) for act, name, prot, flags in wanted
    ]
    assert [act.error for act, *_ in wanted[3:5]] == ["ENODEV", "EBADF"]
    assert all(act.ret > 0 for act, *_ in wanted[:3]), "they were really mapped"
    first = found[0]
    about = path.stat()
    assert (first["file"]["inode"], first["file"]["type"]) == (str(about.st_ino), "file")
    assert first["ebpf"]["map"] == {"protection": "PROT_READ|PROT_EXEC", "offset": PAGE, "size": 2 * PAGE}
    assert (first["ebpf"]["fd"], first["ebpf"]["path_source"]) == (reading.ret, "file")


def test_the_32_bit_entries_show_the_same(monitor: MonitorProcess, script: Script, place: Path) -> None:
    (place / "f").write_bytes(b"x" * PAGE)
    reading = script.call("open", script.text(place / "f"), os.O_RDONLY)
    old = script.data(struct.pack("<6I", 0, PAGE, READ | EXEC, PRIVATE, 3, 0))
    script.call32("mmap2", 0, PAGE, READ | EXEC, PRIVATE | ANONYMOUS, -1)
    made = [script.call32("mmap2", 0, PAGE, READ | EXEC, PRIVATE, reading), script.call32("mmap", old)]
    if AREAS:
        made.append(script.call32("mprotect", made[0], PAGE, EXEC))
    script.call32("mmap", script.data(struct.pack("<6I", 0, PAGE, READ, PRIVATE, 3, 0)))
    pid = script.run()
    assert reading.ret == 3
    found = maps(monitor.program(pid))
    assert [(one["ebpf"]["syscall"], one["ebpf"]["ret"] & 0xFFFFFFFF, one["file"]["path"]) for one in found] == [
        (act.name, act.ret & 0xFFFFFFFF, str(place / "f")) for act in made
    ]


@pytest.mark.skipif(not AREAS, reason="this kernel has no bpf_iter_task_vma_new: the descriptor's file is told")
def test_a_file_put_on_the_number_meanwhile_is_not_taken_for_the_mapped_one(
    monitor: MonitorProcess, programs: Path, place: Path
) -> None:
    for name in "ab":
        (place / name).write_bytes(name.encode() * PAGE)
    skipped = monitor.lost("preempted")
    process = subprocess.Popen(
        [compile_c(programs, "map-race", RACE), str(max(TRIED, 2003))], cwd=place, stdout=subprocess.PIPE, text=True
    )
    lines = process.communicate(timeout=300)[0].splitlines()
    assert process.returncode == 0
    found = maps(monitor.lifetime(process.pid, 60 + TRIED / 20))
    shown = [(one.get("file", {}).get("name"), "claimed" in one["ebpf"]) for one in found]
    missing = len(lines) - len(shown)
    monitor.until(lambda: missing <= monitor.lost("preempted") - skipped, f"loss records of {missing} missing maps")
    assert missing >= 0
    left = iter(lines)  # where none is missing, each is the next one
    wrong = sum(not any(claimed or name == line for line in (left if missing else [next(left)])) for name, claimed in shown)
    assert wrong == 0, f"{wrong} of {len(lines)} wrong"
    print(f"{sum(claimed for _, claimed in shown)} of {len(lines)} marked as the descriptor's")
    assert set(lines) == {"a", "b"}, "the race did not happen"


# Threads change the process's areas all the time: whoever wants to look at them finds them locked.
CROWD = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
static volatile int stop, started;
static void *crowd(void *x) { while (!stop) { started = 1; char *p = mmap(0, 1 << 21, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0); munmap(p, 1 << 21); } return 0; }
int main(int c, char **v) {
  int n = atoi(v[1]), f = open("f", O_RDONLY); pthread_t t[6]; char *p = mmap(0, 4096, PROT_READ, MAP_PRIVATE, f, 0); if (p == MAP_FAILED) return 7;
  for (int i = 0; i < 6; i++) pthread_create(&t[i], 0, crowd, 0); while (!started) usleep(100);
  for (int i = 0; i < n; i++) if (mprotect(p, 4096, PROT_READ | PROT_EXEC) || mprotect(p, 4096, PROT_READ)) return 8;
  stop = 1; for (int i = 0; i < 6; i++) pthread_join(t[i], 0); return 0;
}
"""


@pytest.mark.skipif(not AREAS, reason="this kernel has no bpf_iter_task_vma_new: mprotect is not told")
def test_areas_that_are_locked_hide_nothing(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    (place / "f").write_bytes(b"x" * PAGE)
    process = subprocess.Popen([compile_c(programs, "crowd", CROWD), str(TRIED)], cwd=place)
    assert process.wait(300) == 0
    found = maps(monitor.lifetime(process.pid, 60 + TRIED / 20))
    shown = [one.get("file", {}).get("path") for one in found]
    print(f"{len(found)} of {TRIED} told, {shown.count(None)} without a name")
    assert len(found) == TRIED
    assert set(shown) <= {str(place / "f"), None}


MAP = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int c, char **v) {
  int f = open(v[1], O_RDONLY); if (mmap(0, 4096, PROT_EXEC, MAP_PRIVATE, f, 0) == MAP_FAILED) return errno;
  close(f); if (c > 2) sleep(atoi(v[2]));
  return 0;
}
"""


def hashes(monitor: MonitorProcess, pid: int) -> list[Document]:
    """Late ones of what the process has mapped."""
    every = monitor.journal.documents(pid)
    return [one for one in every if name_of(one) == "process_hash" and "hash" in one.get("file", {})]


def in_a_mount_of_its_own(there: Path, options: str, *words: str | Path) -> subprocess.Popen[bytes]:
    """A program in a mount namespace, where `there` is a file system that nobody else sees, with the file `library` on it."""
    there.mkdir(exist_ok=True)
    copy = f"mount -t tmpfs {options} t {there}; cp {there}.library {there}/library; exec "
    return subprocess.Popen(["unshare", "-m", "sh", "-c", copy + " ".join(map(str, words))])


def test_a_file_that_is_executed_as_memory_has_its_hash(
    monitor: MonitorProcess, programs: Path, place: Path
) -> None:
    """Also of one that only the process sees, where the kernel says at which addresses it is; else that is counted."""
    program, there = compile_c(programs, "map-there", MAP), place / "hidden"
    library, gone = place / "hidden.library", monitor.fresh_status()["hash"]["skipped"]["gone"]
    shutil.copy("/bin/true", library)
    with library.open("ab") as file:
        file.write(os.urandom(64))
    digest = {"sha256": hashlib.sha256(library.read_bytes()).hexdigest()}
    hidden = in_a_mount_of_its_own(there, "", program, there / "library", 60)
    if AREAS:
        monitor.until(lambda: hashes(monitor, hidden.pid), "the hash of a file that only the process sees", 30)
    else:
        monitor.until(lambda: monitor.status()["hash"]["skipped"]["gone"] > gone, "it is counted that there is none", 30)
    hidden.kill()
    hidden.wait()
    executed = maps(monitor.lifetime(hidden.pid))[-1]
    assert "hash" not in executed["file"]
    for found in hashes(monitor, hidden.pid)[-1:] if AREAS else ():
        assert found["file"]["hash"] == digest
        assert found["process"] == {"entity_id": executed["process"]["entity_id"], "pid": hidden.pid}
        same = ("path", "inode", "device")
        assert [found["file"][name] for name in same] == [executed["file"][name] for name in same]
    time.sleep(2.1)  # younger files are read each time
    first = subprocess.Popen([program, library])
    first.wait()
    monitor.until(lambda: hashes(monitor, first.pid), "the late hash", 30)
    second = subprocess.Popen([program, library])
    second.wait()
    assert [one["file"]["hash"] for one in maps(monitor.lifetime(second.pid))] == [digest]


def test_a_map_of_what_may_not_be_executed_is_a_failure(monitor: MonitorProcess, place: Path, programs: Path) -> None:
    there = place / "noexec"
    (place / "noexec.library").write_bytes(b"x")
    child = in_a_mount_of_its_own(there, "-o noexec", compile_c(programs, "map-there", MAP), there / "library")
    assert child.wait() == errno.EPERM
    (one,) = (one for one in maps(monitor.lifetime(child.pid)) if "error" in one)
    assert (one["error"]["code"], one["file"]["path"]) == ("EPERM", f"{there}/library")
