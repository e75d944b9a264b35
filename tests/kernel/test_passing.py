"""What joins two processes without a name: both ends of a pipe and of a pair of sockets; descriptors that pass between them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.acts import Script
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

TOLD = 24
PASS = """
import ctypes, os, socket, sys
a, b = socket.socketpair()
files = [os.open(name, os.O_RDONLY) for name in sys.argv[1:]]
socket.send_fds(a, [b"x"], files)
got = socket.recv_fds(b, 1, 64)[1]
b.send(b"yes"), a.recv(3)
call = ctypes.CDLL(None, use_errno=True).syscall
me = os.pidfd_open(os.getpid())
taken, refused = call(438, me, files[0], 0), call(438, me, 9999, 0)
print(os.fstat(a.fileno()).st_ino, os.fstat(b.fileno()).st_ino, taken, *got)
"""


def passed(monitor: MonitorProcess, place: Path, count: int) -> tuple[list[str], list[str], list[Document]]:
    """The files' paths, what the program printed, its documents."""
    names = [str(place / f"f{i}") for i in range(count)]
    for name in names:
        Path(name).write_bytes(b"x")
    child = subprocess.Popen([sys.executable, "-S", "-c", PASS, *names], stdout=subprocess.PIPE, text=True)
    printed = child.communicate(timeout=60)[0].split()
    assert child.returncode == 0
    return names, printed, monitor.lifetime(child.pid)


@pytest.mark.parametrize("count", [1, 5, 31])
def test_a_descriptor_that_comes_from_another_process_is_told_with_its_file(
    monitor: MonitorProcess, place: Path, count: int
) -> None:
    names, printed, found = passed(monitor, place, count)
    a, b, taken, *got = printed
    received = [one for one in found if name_of(one) == "file_receive"]
    came, refused = received[:-2], received[-1]
    assert [one["file"]["path"] for one in came] == names[:TOLD]
    assert [str(one["ebpf"]["fd"]) for one in came] == got[:TOLD]
    assert {one["ebpf"]["received"] for one in came} == {count}
    assert {(one["ebpf"]["socket"]["inode"], one["ebpf"]["socket"]["peer_inode"]) for one in came} == {(b, a)}
    about = os.stat(names[0])
    assert (came[0]["file"]["inode"], came[0]["ebpf"]["path_source"]) == (str(about.st_ino), "file")
    assert (received[-2]["ebpf"]["syscall"], received[-2]["file"]["path"]) == ("pidfd_getfd", names[0])
    assert received[-2]["ebpf"]["fd"] == int(taken)
    assert (refused["ebpf"]["syscall"], refused["error"]["code"]) == ("pidfd_getfd", "EBADF")
    moved = [one for one in found if name_of(one) in ("socket_send", "socket_receive")]
    ends = [(one["ebpf"]["socket"]["inode"], one["ebpf"]["socket"]["peer_inode"]) for one in moved]
    assert ends == [(a, b), (b, a), (b, a), (a, b)]


def test_both_ends_of_a_pipe_are_one_object(monitor: MonitorProcess, script: Script) -> None:
    ends = script.room(8)
    made = script.call("pipe", ends)
    about = script.stat(3)
    child = script.begin_child()
    script.call("write", 4, script.data(b"abc"), 3)
    forked = script.end_child(child)
    script.reap(forked)
    script.call("read", 3, script.room(8), 8)
    pid = script.run()
    assert (made.ret, script.read(ends, 8)) == (0, b"\3\0\0\0\4\0\0\0")
    (read,) = (one for one in monitor.program(pid) if name_of(one) == "file_read")
    (write,) = (one for one in monitor.lifetime(forked.ret) if name_of(one) == "file_write")
    inode, device, _ = script.stated(about)
    for one in (read, write):
        assert (one["file"]["inode"], one["file"]["device"], one["file"]["type"]) == (inode, device, "fifo")
