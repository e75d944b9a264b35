"""The rule for quiet objects under attack: what is done to make a changed or foreign object look old must make it loud."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.acts import compile_c
from tests.kernel.monitor_process import MonitorProcess, name_of

AGE = 3
PLACE = Path("/var/tmp")
SENSITIVE = PLACE / f"ebpf-monitor-sensitive-{os.getpid()}"
pytestmark = pytest.mark.parametrize(
    "running",
    [{"profile": "standard", "quiet_age_s": AGE, "sensitive_paths": [str(SENSITIVE)]}],
    indirect=True,
    ids=["standard"],
)
CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
/* Writes to a file while the clock is wrong by so many seconds; the clock is wrong for some microseconds only. */
int main(int argc, char **argv) {
  struct timespec was, then, boot0, boot1; long by = atol(argv[2]);
  int fd = open(argv[1], O_WRONLY | O_APPEND); if (fd < 0) return 2;
  clock_gettime(CLOCK_REALTIME, &was); clock_gettime(CLOCK_BOOTTIME, &boot0);
  then = was; then.tv_sec += by;
  if (clock_settime(CLOCK_REALTIME, &then)) return 3;
  int wrong = write(fd, "evil", 4) != 4;
  clock_gettime(CLOCK_BOOTTIME, &boot1);
  long passed = (boot1.tv_sec - boot0.tv_sec) * 1000000000l + boot1.tv_nsec - boot0.tv_nsec + was.tv_nsec;
  was.tv_sec += passed / 1000000000; was.tv_nsec = passed % 1000000000;
  clock_settime(CLOCK_REALTIME, &was);
  return wrong;
}
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory of root on the file system of /var, and the sensitive one."""
    directory = PLACE / f"ebpf-monitor-quiet-{os.getpid()}"
    for one in (directory, SENSITIVE):
        one.mkdir(mode=0o755)
    yield directory
    for one in (directory, SENSITIVE):
        shutil.rmtree(one)


def files(place: Path, count: int) -> list[Path]:
    """Files of root that have not changed for AGE seconds."""
    made = [place / secrets.token_hex(4) for _ in range(count)]
    for one in made:
        one.write_bytes(b"x" * 100)
        one.chmod(0o644)
    time.sleep(AGE + 1.1)
    return made


@pytest.fixture
def old(place: Path) -> Path:
    """One that is just old enough."""
    return files(place, 1)[0]


@pytest.fixture(scope="module")
def aged(place: Path) -> dict[str, Path]:
    """One for each test that can do with an older one."""
    names = (*CHANGES, "opened")
    return dict(zip(names, files(place, len(names)), strict=True))


def opened(monitor: MonitorProcess, path: Path, command: tuple[str, ...] = ()) -> int:
    """How many opens of `path` are in the log after `cat` has read it."""
    child = subprocess.Popen([*command, "/bin/cat", path], stdout=subprocess.DEVNULL)
    assert child.wait() == 0
    documents = monitor.lifetime(child.pid)
    return sum(name_of(one) == "file_open" and one["file"]["path"] == str(path) for one in documents)


def quiet(monitor: MonitorProcess, path: Path) -> bool:
    """Is it quiet? Something that is mounted elsewhere at this very moment makes everything loud for an instant."""
    return any(opened(monitor, path) == 0 for _ in range(5))


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda path: subprocess.run(["sh", "-c", f"echo y >>{path}"], check=True),
    "old times": lambda path: os.utime(path, (1, 1)),
    "mode": lambda path: path.chmod(0o600),
    "owner": lambda path: os.chown(path, 0, 1),
    "length": lambda path: os.truncate(path, 10),
    "attribute": lambda path: os.setxattr(path, "user.x", b"y"),
    "name": lambda path: (path.rename(path.with_suffix(".new")), path.with_suffix(".new").rename(path)),
    "chattr": lambda path: subprocess.run(["chattr", "+A", path], check=True),
    "replaced": lambda path: (path.unlink(), path.write_bytes(b"new")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_an_object_makes_it_loud(
    monitor: MonitorProcess, aged: dict[str, Path], change: str
) -> None:
    old = aged[change]
    assert quiet(monitor, old), "it is quiet to begin with"
    CHANGES[change](old)
    assert opened(monitor, old) == 1


def test_a_hard_link_makes_it_loud_for_as_long_as_there_are_two_names(monitor: MonitorProcess, old: Path) -> None:
    other = old.with_suffix(".link")
    other.hardlink_to(old)
    time.sleep(AGE + 1.1)
    assert opened(monitor, old) == 1
    assert opened(monitor, other) == 1


@pytest.mark.parametrize("whole_directory", [False, True])
def test_a_bind_mount_does_not_take_a_sensitive_object_out_of_its_place(
    monitor: MonitorProcess, place: Path, whole_directory: bool
) -> None:
    secret, elsewhere = SENSITIVE / f"secret{whole_directory}", place / f"elsewhere{whole_directory}"
    secret.write_bytes(b"x")
    time.sleep(AGE + 1.1)
    if whole_directory:
        elsewhere.mkdir()
        what, shown = SENSITIVE, elsewhere / secret.name
    else:
        elsewhere.write_bytes(b"")
        what, shown = secret, elsewhere
    script = f"mount --bind {what} {elsewhere}; sleep 2; cat {shown} >/dev/null; exec cat {shown}"
    child = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.DEVNULL)
    assert child.wait() == 0
    paths = [one["file"]["path"] for one in monitor.lifetime(child.pid) if name_of(one) == "file_open"]
    assert str(shown) in paths


def test_an_open_for_writing_is_never_quiet(monitor: MonitorProcess, aged: dict[str, Path]) -> None:
    old = aged["opened"]
    assert quiet(monitor, old)
    child = subprocess.Popen(["/bin/sh", "-c", f"exec 3>>{old}"])
    assert child.wait() == 0
    opens = [one for one in monitor.lifetime(child.pid) if name_of(one) == "file_open"]
    assert [one["file"]["path"] for one in opens].count(str(old)) == 1


def image(directory: Path, name: str) -> Path:
    """A file system with one file of root whose ctime is of 2001."""
    tree, made = directory / f"{name}.tree", directory / f"{name}.img"
    tree.mkdir()
    tree.chmod(0o755)
    (tree / "tool").write_bytes(b"#!/bin/sh\n")
    made.write_bytes(bytes(8 << 20))
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, made], check=True)
    for field, value in (("ctime", "20010101"), ("ctime_extra", "0"), ("uid", "0"), ("mode", "0100755")):
        subprocess.run(
            ["debugfs", "-w", "-R", f"set_inode_field tool {field} {value}", made],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    return made


@pytest.fixture
def mounted(place: Path) -> Iterator[Callable[[Path], Path]]:
    """Mounts an image at one place by one loop device, after it has unmounted what is there."""
    point, device = place / "mounted", ""
    point.mkdir()

    def leave() -> None:
        if device:
            subprocess.run(["umount", "-q", point], check=False)
            subprocess.run(["losetup", "-d", device], check=False)

    def mount(made: Path) -> Path:
        nonlocal device
        leave()
        if device:
            deadline = time.monotonic() + 30  # the kernel may not have let go of it yet
            while subprocess.run(["losetup", device, made], check=False).returncode:
                assert time.monotonic() < deadline, f"{device} stays busy"
                time.sleep(0.1)
        else:
            device = subprocess.run(
                ["losetup", "-f", "--show", made], check=True, capture_output=True, text=True
            ).stdout.strip()
        subprocess.run(["mount", device, point], check=True)
        return point / "tool"

    yield mount
    leave()
    point.rmdir()


@pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="this kernel has no loop devices")
def test_a_file_system_that_was_just_mounted_is_loud_however_old_its_files_are(
    monitor: MonitorProcess, place: Path, mounted: Callable[[Path], Path]
) -> None:
    first, second = image(place, "first"), image(place, "second")
    tool = mounted(first)
    device = tool.stat().st_dev
    assert tool.stat().st_ctime < 1_000_000_000
    assert opened(monitor, tool) == 1
    time.sleep(AGE + 2.2)
    assert quiet(monitor, tool), "it has been there for quiet_age"
    tool = mounted(second)
    assert tool.stat().st_dev == device, "the other one has its number"
    assert opened(monitor, tool) == 1


def test_an_overlay_is_loud_before_and_after_a_copy(monitor: MonitorProcess, place: Path) -> None:
    lower, work = place / "lower", place / "overlay"
    lower.mkdir()
    (lower / "tool").write_bytes(b"x")
    work.mkdir()
    time.sleep(AGE + 1.1)
    assert quiet(monitor, lower / "tool")
    shown = work / "merged" / "tool"
    script = (
        f"mount -t tmpfs t {work}; mkdir {work}/u {work}/w {work}/merged;"
        f"mount -t overlay o -o lowerdir={lower},upperdir={work}/u,workdir={work}/w {work}/merged; sleep {AGE + 2};"
        f"cat {shown}; echo y >>{shown}; exec cat {shown}"
    )
    child = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.DEVNULL)
    assert child.wait() == 0
    every = monitor.lifetime(child.pid) + [
        one for pid, who in monitor.journal.born[child.pid] for one in monitor.journal.documents(pid, who)
    ]
    opens = [one for one in every if name_of(one) == "file_open" and one["file"].get("path") == str(shown)]
    assert len(opens) >= 3


@pytest.mark.parametrize("seconds", [-60, 60])
def test_a_clock_that_is_set_makes_nothing_look_old(
    monitor: MonitorProcess, programs: Path, old: Path, seconds: int
) -> None:
    assert quiet(monitor, old)
    subprocess.run([compile_c(programs, "clock", CLOCK), old, str(seconds)], check=True)
    assert opened(monitor, old) == 1
    time.sleep(AGE + 1.1)
    assert opened(monitor, old) == 1, "its ctime cannot be trusted for ever"
