"""What joins two processes without a name: both ends of a pipe and of a pair of sockets; descriptors that pass between them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.acts import Script, compile_c
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
    assert [one["ebpf"].get("left_out") for one in came] == [None] * (len(came) - 1) + [count - TOLD if count > TOLD else None]
    assert {(one["ebpf"]["socket"]["inode"], one["ebpf"]["socket"]["peer_inode"]) for one in came} == {(b, a)}
    about = os.stat(names[0])
    assert (came[0]["file"]["inode"], came[0]["ebpf"]["path_source"]) == (str(about.st_ino), "file")
    assert (received[-2]["ebpf"]["syscall"], received[-2]["file"]["path"]) == ("pidfd_getfd", names[0])
    assert received[-2]["ebpf"]["fd"] == int(taken)
    assert (refused["ebpf"]["syscall"], refused["error"]["code"]) == ("pidfd_getfd", "EBADF")
    moved = [one for one in found if name_of(one) in ("socket_send", "socket_receive")]
    ends = [(one["ebpf"]["socket"]["inode"], one["ebpf"]["socket"]["peer_inode"]) for one in moved]
    assert ends == [(a, b), (b, a), (b, a), (a, b)]


# Messages of one recvmmsg with so many descriptors each; prints their numbers, one message a line.
MANY = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#define MOST 64
int main(int c, char **v) {
  int pair[2], f = open(v[1], O_RDONLY), one = 1, of = c - 3; static char control[MOST][2048], data[MOST][8]; struct mmsghdr m[MOST] = {0}; struct iovec io[MOST];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair)) return 1;
  if (*v[2] == 'c') setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one);
  for (int i = 0; i < of; i++) {
    int n = atoi(v[3 + i]); char space[2048] = {0}; struct iovec x = {"x", 1}; struct msghdr h = {.msg_iov = &x, .msg_iovlen = 1, .msg_control = space, .msg_controllen = n ? CMSG_SPACE(4 * n) : 0};
    if (n) { struct cmsghdr *k = CMSG_FIRSTHDR(&h); k->cmsg_level = SOL_SOCKET; k->cmsg_type = SCM_RIGHTS; k->cmsg_len = CMSG_LEN(4 * n); for (int j = 0; j < n; j++) memcpy(CMSG_DATA(k) + 4 * j, &f, 4); }
    if (sendmsg(pair[0], &h, 0) != 1) return 2;
    io[i] = (struct iovec){data[i], 8}; m[i].msg_hdr = (struct msghdr){.msg_iov = &io[i], .msg_iovlen = 1, .msg_control = control[i], .msg_controllen = 2048};
  }
  if (recvmmsg(pair[1], m, of, 0, 0) != of) return 3;
  for (int i = 0; i < of; i++) {
    for (struct cmsghdr *k = CMSG_FIRSTHDR(&m[i].msg_hdr); k; k = CMSG_NXTHDR(&m[i].msg_hdr, k))
      if (k->cmsg_type == SCM_RIGHTS) for (int j = 0; j < (k->cmsg_len - CMSG_LEN(0)) / 4; j++) printf("%d ", ((int *)CMSG_DATA(k))[j]);
    printf("\n");
  }
  return 0;
}
"""


@pytest.mark.parametrize(
    "counts",
    [(1, 0, 2), (0, 30, 1), (20, 3, 9), (24, 5), (23, 0, 1), (24,), (1,) * 40, (0,) * 40 + (2,), (24, *(0,) * 35, 7, 253, 0, 9)],
    ids=lambda counts: f"{sum(counts)} of {len(counts)}",
)  # fmt: skip
@pytest.mark.parametrize("more", ["plain", "credentials"])
def test_descriptors_of_several_messages_at_once(
    monitor: MonitorProcess, programs: Path, place: Path, counts: tuple[int, ...], more: str
) -> None:
    (place / "f").write_bytes(b"x")
    program = compile_c(programs, "many", MANY)
    child = subprocess.Popen([program, place / "f", more, *map(str, counts)], stdout=subprocess.PIPE, text=True)
    numbers = [[int(one) for one in line.split()] for line in child.communicate(timeout=60)[0].splitlines()]
    assert child.returncode == 0
    assert tuple(map(len, numbers)) == counts
    came = [one for one in monitor.lifetime(child.pid) if name_of(one) == "file_receive"]
    wanted = [(number, len(message)) for message in numbers for number in message][:TOLD]
    assert [(one["ebpf"]["fd"], one["ebpf"]["received"]) for one in came] == wanted
    assert {(one["ebpf"]["syscall"], one["file"]["path"]) for one in came} == {("recvmmsg", str(place / "f"))}
    assert [one["ebpf"].get("left_out", 0) for one in came] == [0] * (len(came) - 1) + [max(0, sum(counts) - TOLD)]


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
