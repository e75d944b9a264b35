"""The path of a document is the kernel's own, absolute and true: links, mounts, chroot, unnamed, deep and odd names; the
same with plain loads and with helper reads."""

from __future__ import annotations

import os
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from monitor import names
from tests.kernel.acts import AT_FDCWD, Call, Script, compile_c
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

pytestmark = pytest.mark.parametrize(
    "running",
    [{"profile": "full"}, {"profile": "full", "environment": {"EBPF_MONITOR_NO_CASTS": "1"}}],
    indirect=True,
    ids=["loads", "helpers"],
)

MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, CLONE_NEWNS, MNT_DETACH = 4096, 8192, 16384, 1 << 18, 0x20000, 2


@dataclass
class Places:
    """A script in a mount namespace of its own, and what each of its opens must be recorded as."""

    script: Script
    place: Path
    wanted: list[tuple[Call, int, str | None, list[str]]] = field(default_factory=list)

    def alone(self) -> None:
        self.script.call("unshare", CLONE_NEWNS)
        self.script.call("mount", self.script.text("none"), self.script.text("/"), 0, MS_REC | MS_PRIVATE, 0)

    def mount(self, source: Path | str, target: Path, kind: str = "", flags: int = MS_BIND, options: str = "") -> None:
        text = self.script.text
        self.script.call(
            "mount", text(source), text(target), text(kind) if kind else 0, flags, text(options) if options else 0
        )

    def mkdir(self, path: Path | str) -> None:
        self.script.call("mkdir", self.script.text(path), 0o755)

    def make(self, path: Path | str, content: bytes = b"x") -> None:
        made = self.script.call("openat", AT_FDCWD, self.script.text(path), os.O_WRONLY | os.O_CREAT, 0o644)
        self.script.call("close", made)

    def look(
        self,
        path: Path | str | bytes,
        want: str | Path | None = None,
        *,
        flags: tuple[str, ...] = (),
        how: int = os.O_RDONLY,
        at: int | Call = AT_FDCWD,
    ) -> Call:
        opened = self.script.call("openat", at, self.script.text(path), how, 0o600)
        self.wanted.append(
            (opened, self.script.stat(opened), str(want if want is not None else os.fsdecode(path)), list(flags))
        )
        return opened

    def check(self, monitor: MonitorProcess) -> list[Document]:
        """Runs the script; each look's own document has its path, flags, inode, device and mode."""
        found = {
            one["ebpf"]["fd"]: one
            for one in monitor.program(self.script.run())
            if name_of(one) == "file_open" and one["event"]["outcome"] == "success"
        }
        checked = []
        for opened, stated, want, flags in self.wanted:
            assert opened.ret >= 0, (want, opened.error)
            document = found[opened.ret]  # nothing that was looked at is closed: the number is its own
            file = document["file"]
            assert (file["path"], document["ebpf"].get("path_flags", [])) == (want, flags)
            assert (file["inode"], file["device"], file["mode"]) == self.script.stated(stated)
            assert file["name"] == Path(file["path"]).name or file["path"] == "/"
            checked.append(document)
        return checked


@pytest.fixture
def places(script: Script, place: Path) -> Places:
    return Places(script, place)


def test_each_hard_link_has_its_own_name(monitor: MonitorProcess, places: Places, place: Path) -> None:
    (place / "b").mkdir()
    (place / "f").touch()
    for name in ("g", "b/f"):
        os.link(place / "f", place / name)
    for name in ("f", "g", "b/f", "f", "g"):
        places.look(place / name)
    assert len({one["file"]["inode"] for one in places.check(monitor)}) == 1


def test_a_symbolic_link_and_dots_lead_to_the_true_name(monitor: MonitorProcess, places: Places, place: Path) -> None:
    (place / "d").mkdir()
    (place / "d" / "f").touch()
    (place / "link").symlink_to(place / "d" / "f")
    (place / "dirlink").symlink_to("d")
    for name in ("link", "dirlink/f", "d/../d/./f", "//d///f"):
        places.look(f"{place}/{name}", place / "d" / "f")
    places.check(monitor)


def test_relative_names_are_absolute_by_the_directory_that_they_start_from(
    monitor: MonitorProcess, places: Places, place: Path
) -> None:
    (place / "d" / "e").mkdir(parents=True)
    (place / "d" / "f").touch()
    (place / "d" / "e" / "f").touch()
    places.script.call("chdir", places.script.text(place / "d"))
    directory = places.look(place / "d" / "e", how=os.O_DIRECTORY)
    places.look("f", place / "d" / "f")
    places.look("../d/f", place / "d" / "f")
    places.look("f", place / "d" / "e" / "f", at=directory)
    places.look(".", place / "d")
    places.look("/", "/")
    places.check(monitor)


def test_a_renamed_file_and_a_renamed_parent_have_the_new_name(
    monitor: MonitorProcess, places: Places, place: Path
) -> None:
    (place / "r" / "s").mkdir(parents=True)
    (place / "r" / "s" / "f").touch()

    def rename(old: Path, new: Path) -> None:
        places.script.call("rename", places.script.text(old), places.script.text(new))

    places.look(place / "r" / "s" / "f")
    rename(place / "r" / "s" / "f", place / "r" / "s" / "g")
    places.look(place / "r" / "s" / "g")
    rename(place / "r", place / "R")
    places.look(place / "R" / "s" / "g")
    rename(place / "R" / "s", place / "s")
    places.look(place / "s" / "g")
    places.check(monitor)


def test_bind_mounts_have_the_name_below_the_mount_point(monitor: MonitorProcess, places: Places, place: Path) -> None:
    for name in ("a", "bound"):
        (place / name).mkdir()
    (place / "a" / "f").touch()
    (place / "one").touch()
    places.alone()
    places.mount(place / "a", place / "bound")
    places.mount(place / "a" / "f", place / "one")
    for name in ("a/f", "bound/f", "one", "bound", "a/f"):
        places.look(place / name)
    places.check(monitor)


def test_a_tmpfs_and_what_is_bound_below_it_have_their_whole_path(
    monitor: MonitorProcess, places: Places, place: Path
) -> None:
    for name in ("t", "m/p", "moved"):
        (place / name).mkdir(parents=True)
    (place / "m" / "p" / "z").touch()
    places.alone()
    places.mount("tmpfs", place / "t", "tmpfs", 0)
    for name in ("t/x", "t/x/y"):
        places.mkdir(place / name)
    places.make(place / "t" / "x" / "f")
    places.mount(place / "m", place / "t" / "x" / "y")
    for name in ("t", "t/x/f", "t/x/y", "t/x/y/p/z"):
        places.look(place / name)
    places.script.call("rename", places.script.text(place / "t" / "x"), places.script.text(place / "t" / "X"))
    places.look(place / "t" / "X" / "y" / "p" / "z")
    places.mount(place / "t", place / "moved", "", MS_MOVE)
    places.look(place / "moved" / "X" / "y" / "p" / "z")
    places.check(monitor)


def test_overlayfs_names_are_those_of_the_merged_tree(monitor: MonitorProcess, places: Places, place: Path) -> None:
    subprocess.run(["sh", "-c", "modprobe -q overlay"], check=False, stderr=subprocess.DEVNULL)
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        pytest.skip("the kernel has no overlayfs (CONFIG_OVERLAY_FS)")
    (place / "o").mkdir()
    places.alone()
    places.mount("tmpfs", place / "o", "tmpfs", 0)
    for name in "luwm":
        places.mkdir(place / "o" / name)
    places.make(place / "o" / "l" / "low")
    at = place / "o"
    places.mount("overlay", at / "m", "overlay", 0, f"lowerdir={at}/l,upperdir={at}/u,workdir={at}/w")
    places.look(at / "m" / "low")
    places.look(at / "m" / "low", how=os.O_RDWR)
    places.look(at / "m" / "new", how=os.O_RDWR | os.O_CREAT)
    places.check(monitor)


def test_in_a_chroot_the_path_is_the_host_s(monitor: MonitorProcess, places: Places, place: Path) -> None:
    (place / "root" / "a").mkdir(parents=True)
    (place / "root" / "a" / "f").touch()
    places.script.call("chroot", places.script.text(place / "root"))
    places.script.call("chdir", places.script.text("/"))
    places.look("/a/f", place / "root" / "a" / "f")
    places.look("a/f", place / "root" / "a" / "f")
    places.look("/", place / "root")
    missing = places.script.call("openat", AT_FDCWD, places.script.text("nothing"), os.O_RDONLY)
    places.check(monitor)
    failed = next(one for one in monitor.program(places.script.pid) if "error" in one)
    assert (missing.error, failed["file"]["path"]) == ("ENOENT", f"{place}/root/nothing")


def test_a_deleted_file_is_flagged_and_keeps_its_last_name(
    monitor: MonitorProcess, places: Places, place: Path
) -> None:
    (place / "f").touch()
    opened = places.look(place / "f")
    places.script.call("unlink", places.script.text(place / "f"))
    number = next(n for n in range(3, 64) if n != places.script.fd)
    places.look(f"/proc/self/fd/{number}", place / "f", flags=("deleted",))
    places.check(monitor)
    assert opened.ret == number


def test_an_unnamed_temporary_file_is_flagged_deleted_below_its_directory(
    monitor: MonitorProcess, places: Places, place: Path
) -> None:
    opened = places.script.call("openat", AT_FDCWD, places.script.text(place), os.O_TMPFILE | os.O_RDWR, 0o600)
    stated = places.script.stat(opened)
    found = monitor.program(places.script.run())[0]
    inode = places.script.stated(stated)[0]
    assert (found["file"]["path"], found["ebpf"]["path_flags"], found["file"]["inode"]) == (
        f"{place}/#{inode}",
        ["deleted"],
        inode,
    )


def test_a_memfd_has_its_name_and_no_path(monitor: MonitorProcess, places: Places) -> None:
    script = places.script
    opened = script.call("memfd_create", script.text("some name"), 0)
    stated = script.stat(opened)
    script.call("write", opened, script.room(5), 5)
    made, found = monitor.program(script.run())[:2]
    assert name_of(made) == "file_memfd"
    assert (name_of(found), found["file"]["path"]) == ("file_write", "memfd:some name")
    assert "no_path" in found["ebpf"]["path_flags"]
    assert (found["file"]["inode"], found["file"]["device"], found["file"]["mode"]) == script.stated(stated)


def test_a_pipe_has_its_inode_and_no_path(monitor: MonitorProcess, places: Places) -> None:
    script = places.script
    ends = script.room(8)
    script.call("pipe2", ends, 0)
    first = next(n for n in range(3, 64) if n != script.fd)
    second = next(n for n in range(first + 1, 64) if n != script.fd)
    stated = script.stat(second)
    script.call("write", second, script.room(5), 5)
    script.call("read", first, script.room(5), 5)
    found = monitor.program(script.run())[:2]
    assert [name_of(one) for one in found] == ["file_write", "file_read"]
    for one in found:
        assert (one["file"]["type"], one["ebpf"]["path_flags"], one["file"]["inode"]) == (
            "fifo",
            ["no_path"],
            script.stated(stated)[0],
        )
        assert "path" not in one["file"]


def test_twenty_levels_and_names_of_255_bytes_are_whole(monitor: MonitorProcess, places: Places, place: Path) -> None:
    deep = place.joinpath(*(f"level{i:02}" for i in range(20)))
    deep.mkdir(parents=True)
    for name in ("f", "n" * 255):
        (deep / name).touch()
        places.look(deep / name)
    wide = place.joinpath(*(f"{i}" * 255 for i in range(9)))
    wide.mkdir(parents=True)
    (wide / "f").touch()
    opened = places.look(wide / "f")
    places.script.call("write", opened, places.script.room(1), 1)
    places.script.call("close", places.look(wide / "f", how=os.O_WRONLY))
    del places.wanted[-1]  # closed: its number is not its own; the last close must still know the name
    places.check(monitor)
    mine = monitor.program(places.script.pid)
    assert [one["file"]["path"] for one in mine if name_of(one) in ("file_write", "file_close")] == [
        str(one) for one in (wide / "f", wide / "f", deep / "f", deep / ("n" * 255), wide / "f")
    ]


def test_more_levels_than_are_walked_are_flagged_and_the_end_is_kept(
    monitor: MonitorProcess, places: Places, place: Path
) -> None:
    deep = place.joinpath(*(f"l{i:02}" for i in range(60)))
    deep.mkdir(parents=True)
    (deep / "f").touch()
    opened = places.script.call("openat", AT_FDCWD, places.script.text(deep / "f"), os.O_RDONLY)
    stated = places.script.stat(opened)
    found = monitor.program(places.script.run())[0]
    assert found["ebpf"]["path_flags"] == ["too_deep"]
    assert found["file"]["inode"] == places.script.stated(stated)[0]
    assert str(deep / "f").endswith(found["file"]["path"].lstrip("/"))
    assert found["file"]["path"].count("/") >= 40


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe", b"new\nline", b'"quote"\\', "grüße 文".encode(), b"\x01\x7f", b'x","pid":1,"y":"', b"a b", b"\xc3("],
)
def test_any_bytes_of_a_name_give_one_line_and_come_back(
    monitor: MonitorProcess, places: Places, place: Path, name: bytes
) -> None:
    whole = os.fsencode(place) + b"/" + name
    opened = places.script.call("openat", AT_FDCWD, places.script.text(whole), os.O_RDWR | os.O_CREAT, 0o600)
    places.script.call("write", opened, places.script.room(1), 1)
    places.script.call("close", opened)
    missing = places.script.call("openat", AT_FDCWD, places.script.text(whole + b"?"), os.O_RDONLY)
    places.script.call("rename", places.script.text(whole), places.script.text(whole + b"2"))
    places.script.call("unlink", places.script.text(whole + b"2"))
    found = monitor.program(places.script.run())
    assert [name_of(one) for one in found] == [
        "file_open",
        "file_write",
        "file_close",
        "file_open",
        "file_rename",
        "file_delete",
    ]
    assert missing.error == "ENOENT"
    back = [names.original(one["file"]["path"], one["ebpf"].get("raw", {}).get("file_path")) for one in found]
    assert back == [whole, whole, whole, whole + b"?", whole + b"2", whole + b"2"]
    earlier = found[4]["file"]["Ext"]["original"]["path"]
    assert names.original(earlier, found[4]["ebpf"].get("raw", {}).get("file_Ext_original_path")) == whole


def test_procfs_sysfs_and_devices_have_their_paths(monitor: MonitorProcess, places: Places) -> None:
    for name in ("/dev/null", "/proc/version", "/sys/kernel/notes"):
        places.look(name)
    status = places.look("/proc/self/status", "")
    found = places.wanted.pop()
    checked = places.check(monitor)
    assert [one["file"]["type"] for one in checked] == ["char_device", "file", "file"]
    own = next(one for one in monitor.program(places.script.pid) if one["ebpf"].get("fd") == status.ret)
    assert (own["file"]["path"], own["file"]["inode"]) == (
        f"/proc/{places.script.pid}/status",
        places.script.stated(found[1])[0],
    )


def test_a_mount_that_was_detached_while_in_use_is_flagged(
    monitor: MonitorProcess, places: Places, place: Path
) -> None:
    (place / "lazy").mkdir()
    places.alone()
    places.mount("tmpfs", place / "lazy", "tmpfs", 0)
    places.mkdir(place / "lazy" / "k")
    places.make(place / "lazy" / "k" / "f")
    directory = places.look(place / "lazy" / "k", how=os.O_PATH)
    del places.wanted[-1]
    places.script.call("umount2", places.script.text(place / "lazy"), MNT_DETACH)
    places.look("f", "/k/f", at=directory, flags=("detached",))
    places.check(monitor)


RACE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static volatile char p[64] = "aaaa"; static volatile int stop; static int n;
static void swap(const char *to) { *(volatile int *)p = *(int *)to; for (int i = 0; i < 300; i++) p[8] = i; }
static void *flip(void *x) { while (!stop) { swap("bbbb"); swap("aaaa"); } return 0; }
static void *top(void *x) { while (!stop) { rename("top1", "top2"); rename("top2", "top1"); } return 0; }
int main(int c, char **v) {
  n = atoi(v[2]); pthread_t t; struct stat s; int i, f, d, up = !strcmp(v[1], "top"); unsigned long *seen = calloc(n, 8);
  if (up) d = open("top1/x/y", O_PATH);
  pthread_create(&t, 0, up ? top : flip, 0);
  for (i = 0; i < n; i++) {
    f = up ? openat(d, "f", O_RDWR) : open((char *)p, O_RDWR); if (f < 0) { i--; continue; }
    fstat(f, &s); seen[i] = s.st_ino; close(f);
  }
  stop = 1; pthread_join(t, 0);
  f = open("seen", O_CREAT | O_WRONLY, 0600); write(f, seen, 8 * n); close(f); return 0;
}
"""
RACES = int(os.environ.get("EBPF_MONITOR_ATTACKS", "3001"))
LONG = 60 + RACES / 20


def test_a_path_that_another_thread_rewrites_is_never_mistaken(
    monitor: MonitorProcess, programs: Path, place: Path
) -> None:
    inodes = {}
    for name in ("aaaa", "bbbb"):
        (place / name).touch()
        inodes[str((place / name).stat().st_ino)] = str(place / name)
    raced = False
    for _ in range(10):  # on a busy machine both threads may have to share a CPU: then nothing races
        process = subprocess.Popen([compile_c(programs, "race", RACE), "flip", str(RACES)], cwd=place)
        assert process.wait(LONG) == 0
        seen = [str(one) for one in struct.unpack(f"<{RACES}Q", (place / "seen").read_bytes())]
        documents = monitor.program(process.pid, LONG)
        opens = [one for one in documents if name_of(one) == "file_open" and one["event"]["outcome"] == "success"][:-1]
        shown = [(one["file"]["inode"], one["file"]["path"]) for one in opens]
        assert shown == [(inode, inodes[inode]) for inode in seen]
        raced = raced or len(set(seen)) == 2
        if raced:
            break
    assert raced, "the race did not happen"


def test_an_ancestor_that_is_renamed_all_the_time_gives_one_of_its_two_names(
    monitor: MonitorProcess, programs: Path, place: Path
) -> None:
    (place / "top1" / "x" / "y").mkdir(parents=True)
    (place / "top1" / "x" / "y" / "f").touch()
    process = subprocess.Popen([compile_c(programs, "race", RACE), "top", str(RACES)], cwd=place)
    assert process.wait(LONG) == 0
    opens = [
        one
        for one in monitor.program(process.pid, LONG)
        if name_of(one) == "file_open" and one["ebpf"]["syscall"] == "openat" and one["file"].get("name") == "f"
    ]
    assert len(opens) == RACES
    wrong = [
        one["file"]["path"]
        for one in opens
        if one["file"]["path"] not in (f"{place}/top1/x/y/f", f"{place}/top2/x/y/f")
    ]
    assert wrong == []


def test_each_of_1009_new_names_in_reused_memory_is_its_own(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    made = []
    for i in range(1009):
        where = script.text(place / f"n{i % 100}_{i * 2654435761 % 2**32:x}")
        made.append(script.read(where, 300).split(b"\0")[0].decode())
        opened = script.call("openat", AT_FDCWD, where, os.O_CREAT | os.O_RDWR, 0o600)
        script.call("close", opened)
        script.call("unlink", where)
    found = monitor.program(script.run())
    assert [(name_of(one), one["file"]["path"]) for one in found] == [
        (event, path) for path in made for event in ("file_open", "file_close", "file_delete")
    ]
