"""io_uring: each request is the event that the call of its kind would be, with the submitter as its subject."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from monitor.kernel import pins
from monitor.kernel.btf import Btf
from tests.kernel.acts import compile_c
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

pytestmark = pytest.mark.parametrize(
    "running", [{"profile": "full"}, {"profile": "trace"}], indirect=True, ids=["folding", "trace"]
)


@pytest.fixture(autouse=True)
def _this_kernel_can() -> None:
    if not pins.features(Btf())["io_uring_tracepoints"]:
        pytest.skip("the kernel lacks io_uring_tracepoints")


# One request at a time, through a ring of the kind that is asked for; it prints each result.
RING = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
static int ring, count, each; static char *sq, *cq; static struct io_uring_params p; static struct io_uring_sqe *sqes;
static void setup(unsigned flags, unsigned entries) {
  memset(&p, 0, sizeof p); p.flags = flags; p.sq_thread_idle = 2000;
  ring = syscall(SYS_io_uring_setup, entries, &p); if (ring < 0) { perror("io_uring_setup"); exit(90); }
  sq = mmap(0, p.sq_off.array + p.sq_entries * 4, 3, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
  cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), 3, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
  sqes = mmap(0, p.sq_entries * sizeof *sqes, 3, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
}
static unsigned *word(char *at, unsigned offset) { return (unsigned *)(at + offset); }
static struct io_uring_sqe *next(int op, int fd, const void *addr, unsigned len, unsigned long off) {
  unsigned *tail = word(sq, p.sq_off.tail), i = *tail & *word(sq, p.sq_off.ring_mask);
  struct io_uring_sqe *s = &sqes[i]; memset(s, 0, sizeof *s);
  s->opcode = op; s->fd = fd; s->addr = (unsigned long)addr; s->len = len; s->off = off; s->flags = each; s->user_data = 1000 + count++;
  word(sq, p.sq_off.array)[i] = i;
  return s;
}
static void push(void) { unsigned *tail = word(sq, p.sq_off.tail); __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE); }
static int enter(unsigned submit, unsigned wait) {
  unsigned flags = wait ? IORING_ENTER_GETEVENTS : 0;
  if (p.flags & IORING_SETUP_SQPOLL) { flags |= IORING_ENTER_SQ_WAKEUP; }
  return syscall(SYS_io_uring_enter, ring, submit, wait, flags, 0, 0);
}
static int reap(void) {
  unsigned *head = word(cq, p.cq_off.head), *tail = word(cq, p.cq_off.tail);
  while (*head == __atomic_load_n(tail, __ATOMIC_ACQUIRE)) enter(0, 1);
  struct io_uring_cqe *c = (struct io_uring_cqe *)(cq + p.cq_off.cqes) + (*head & *word(cq, p.cq_off.ring_mask));
  int r = c->res; __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
  return r;
}
static int go(void) { push(); enter(1, 1); int r = reap(); printf("%d\n", r); fflush(stdout); return r; }
static int act(int op, int fd, const void *addr, unsigned len, unsigned long off) { next(op, fd, addr, len, off); return go(); }
static int open_by(int dir, const char *path, int flags) { struct io_uring_sqe *s = next(IORING_OP_OPENAT, dir, path, 0600, 0); s->open_flags = flags; return go(); }
static char buffer[64];

static void files(void) {
  int f = open_by(AT_FDCWD, "made", O_RDWR | O_CREAT), d = open(".", O_DIRECTORY);
  struct iovec v[2] = {{buffer, 3}, {buffer, 4}};
  for (int i = 0; i < 3; i++) act(IORING_OP_WRITE, f, "12345", 5, -1);
  act(IORING_OP_WRITEV, f, v, 2, -1);
  act(IORING_OP_READ, f, buffer, 10, 0);
  act(IORING_OP_READV, f, v, 2, 0);
  open_by(d, "missing", O_RDONLY);
  act(55, f, 0, 0, 11);       /* IORING_OP_FTRUNCATE, BIND, LISTEN: newer than this header */
  act(IORING_OP_CLOSE, f, 0, 0, 0);
  struct io_uring_sqe *s;
  act(IORING_OP_MKDIRAT, d, "dir", 0700, 0);
  s = next(IORING_OP_RENAMEAT, AT_FDCWD, "made", d, (unsigned long)"dir/moved"); go();
  s = next(IORING_OP_LINKAT, d, "dir/moved", AT_FDCWD, (unsigned long)"hard"); go();
  s = next(IORING_OP_SYMLINKAT, d, "dir/moved", 0, (unsigned long)"soft"); go();
  act(IORING_OP_UNLINKAT, d, "hard", 0, 0);
  act(IORING_OP_UNLINKAT, d, "missing", 0, 0);
  act(IORING_OP_UNLINKAT, d, "dir/moved", 0, 0);
  s = next(IORING_OP_UNLINKAT, d, "dir", 0, 0); s->unlink_flags = AT_REMOVEDIR; go();
}
static void sockets(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(4177), .sin_addr = {inet_addr("127.77.0.2")}}, none = a;
  none.sin_port = htons(1);
  int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0), r = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, 4);
  act(56, l, &a, 0, sizeof a);
  act(57, l, 0, 7, 0);
  act(IORING_OP_CONNECT, c, &a, 0, sizeof a);
  int s = act(IORING_OP_ACCEPT, l, 0, 0, 0);
  act(IORING_OP_CONNECT, r, &none, 0, sizeof none);
  act(IORING_OP_SEND, c, "hello", 5, 0);
  act(IORING_OP_RECV, s, buffer, 64, 0);
  struct iovec v = {"there", 5}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
  act(IORING_OP_SENDMSG, s, &m, 1, 0);
  v = (struct iovec){buffer, 64};
  act(IORING_OP_RECVMSG, c, &m, 1, 0);
  act(IORING_OP_CLOSE, s, 0, 0, 0); act(IORING_OP_CLOSE, c, 0, 0, 0);
}
static void rights(void) {              /* 1, 3 and 30 descriptors with a message; then their numbers */
  static int counts[3] = {1, 3, 30}, got[64]; int pair[2], f = open("passed", O_RDWR | O_CREAT, 0600); if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) exit(94);
  for (int i = 0; i < 3; i++) {
    int n = counts[i]; static char space[2048]; struct iovec v = {buffer, 1}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = space, .msg_controllen = CMSG_SPACE(4 * n)};
    struct cmsghdr *k = CMSG_FIRSTHDR(&m); k->cmsg_level = SOL_SOCKET; k->cmsg_type = SCM_RIGHTS; k->cmsg_len = CMSG_LEN(4 * n); for (int j = 0; j < n; j++) memcpy(CMSG_DATA(k) + 4 * j, &f, 4);
    if (sendmsg(pair[0], &m, 0) != 1) exit(95);
    m.msg_controllen = sizeof space; memset(space, 0, sizeof space);
    act(IORING_OP_RECVMSG, pair[1], &m, 1, 0);
    for (int j = 0; j < n; j++) { memcpy(got, CMSG_DATA(k) + 4 * j, 4); printf("%d\n", got[0]); }
  }
}
static void rights_multishot(int room) {    /* 3, 1, 30 and, with an empty message that ends it, 2 descriptors; room for a name before them */
  static int counts[4] = {3, 1, 30, 2}; static char buffers[4][4096]; int pair[2], f = open("passed", O_RDWR | O_CREAT, 0600); if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair)) exit(94);
  struct io_uring_sqe *s = next(IORING_OP_PROVIDE_BUFFERS, 4, buffers, 4096, 0); s->buf_group = 1; push(); enter(1, 1); if (reap() < 0) exit(96);
  static struct msghdr in; in.msg_namelen = room; in.msg_controllen = 1024;
  s = next(IORING_OP_RECVMSG, pair[1], &in, 1, 0); s->ioprio = IORING_RECV_MULTISHOT; s->flags = IOSQE_BUFFER_SELECT; s->buf_group = 1; push(); enter(1, 0);
  for (int i = 0; i < 4; i++) {
    int n = counts[i]; static char space[2048]; struct iovec v = {buffer, i < 3}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = space, .msg_controllen = CMSG_SPACE(4 * n)};
    struct cmsghdr *k = CMSG_FIRSTHDR(&m); k->cmsg_level = SOL_SOCKET; k->cmsg_type = SCM_RIGHTS; k->cmsg_len = CMSG_LEN(4 * n); for (int j = 0; j < n; j++) memcpy(CMSG_DATA(k) + 4 * j, &f, 4);
    if (sendmsg(pair[0], &m, 0) < 0) exit(95);
    unsigned *head = word(cq, p.cq_off.head); while (*head == __atomic_load_n(word(cq, p.cq_off.tail), __ATOMIC_ACQUIRE)) enter(0, 1);
    struct io_uring_cqe *c = (struct io_uring_cqe *)(cq + p.cq_off.cqes) + (*head & *word(cq, p.cq_off.ring_mask)); int r = reap(); if (r < 0) exit(97);
    char *at = buffers[c->flags >> IORING_CQE_BUFFER_SHIFT] + sizeof(struct io_uring_recvmsg_out) + room; struct cmsghdr *g = (void *)at;
    for (int j = 0; j < (g->cmsg_len - CMSG_LEN(0)) / 4; j++) printf("%d\n", ((int *)CMSG_DATA(g))[j]);
  }
}
static void fixed(void) {               /* files that have no descriptor, and buffers that the ring knows */
  int f = open("fixed", O_RDWR | O_CREAT, 0600), table[4] = {f, -1, -1, -1}; struct iovec v = {buffer, 64};
  if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES, table, 4)) exit(91);
  if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &v, 1)) exit(92);
  close(f);
  struct io_uring_sqe *s;
  for (int i = 0; i < 3; i++) { s = next(IORING_OP_WRITE_FIXED, 0, buffer, 7, -1); s->flags = IOSQE_FIXED_FILE; go(); }
  s = next(IORING_OP_READ_FIXED, 0, buffer, 9, 0); s->flags = IOSQE_FIXED_FILE; go();
  s = next(IORING_OP_OPENAT, AT_FDCWD, "direct", 0600, 0); s->open_flags = O_RDWR | O_CREAT; s->file_index = 2 + 1; go();
  s = next(IORING_OP_WRITE, 2, "12345678", 8, -1); s->flags = IOSQE_FIXED_FILE; go();
  s = next(IORING_OP_CLOSE, 0, 0, 0, 0); s->file_index = 2 + 1; go();
}
static void pipes(void) {
  int ends[2], f = open("spliced", O_RDWR | O_CREAT, 0600); if (pipe(ends)) exit(93);
  act(IORING_OP_WRITE, f, "12345678", 8, 0);
  struct io_uring_sqe *s = next(IORING_OP_SPLICE, ends[1], 0, 6, -1); s->splice_fd_in = f; s->splice_off_in = 0; go();
  close(f);
}
static void suppressed(void) {
  struct io_uring_sqe *s;
  for (int i = 0; i < 2; i++) {
    s = next(IORING_OP_UNLINKAT, AT_FDCWD, i ? "victim2" : "victim1", 0, 0); s->flags = IOSQE_CQE_SKIP_SUCCESS; push(); enter(1, 0);
  }
  int f = open("quietly", O_RDWR | O_CREAT, 0600);
  s = next(IORING_OP_WRITE, f, "12345678", 8, 0); s->flags = IOSQE_CQE_SKIP_SUCCESS; push(); enter(1, 0);
  s = next(IORING_OP_OPENAT, AT_FDCWD, "missing", 0, 0); s->flags = IOSQE_CQE_SKIP_SUCCESS; go();     /* this failure does complete */
  for (int i = 0; i < 500 && (!access("victim1", 0) || !access("victim2", 0)); i++) usleep(10000);
}
static void overflowing(void) {         /* nobody reaps: 2 completions fit */
  char name[32];
  for (int i = 0; i < 7; i++) { sprintf(name, "victim%d", i); next(IORING_OP_UNLINKAT, AT_FDCWD, strdup(name), 0, 0); push(); enter(1, 0); for (int j = 0; j < 500 && !access(name, 0); j++) usleep(1000); }
  usleep(50000);
}
static void same_word(void) {           /* requests that the caller itself cannot tell apart, all pending at once */
  char name[32];
  for (int i = 0; i < 5; i++) { sprintf(name, "victim%d", i); next(IORING_OP_UNLINKAT, AT_FDCWD, strdup(name), 0, 0)->user_data = 5; push(); }
  enter(5, 5); for (int i = 0; i < 5; i++) printf("%d\n", reap());
}
static void multishot(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(4178), .sin_addr = {inet_addr("127.77.0.2")}}; int one = 1;
  int l = socket(AF_INET, SOCK_STREAM, 0); setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, 4);
  if (bind(l, (void *)&a, sizeof a) || listen(l, 9)) exit(94);
  struct io_uring_sqe *s = next(IORING_OP_ACCEPT, l, 0, 0, 0); s->ioprio = IORING_ACCEPT_MULTISHOT; push(); enter(1, 0);
  for (int i = 0; i < 3; i++) { int c = socket(AF_INET, SOCK_STREAM, 0); if (connect(c, (void *)&a, sizeof a)) exit(95); printf("%d\n", reap()); }
}
static void *in_thread(void *x) { prctl(PR_SET_NAME, "submitting"); open_by(AT_FDCWD, "made", O_RDWR | O_CREAT); return 0; }
static void thread(void) { pthread_t t; pthread_create(&t, 0, in_thread, 0); pthread_join(t, 0); }
int main(int argc, char **argv) {
  unsigned flags = strtoul(argv[2], 0, 0); if (flags >> 31) { each = IOSQE_ASYNC; flags = 0; }
  setup(flags, !strcmp(argv[1], "overflowing") ? 1 : 8);
  if (!strcmp(argv[1], "files")) files(); else if (!strcmp(argv[1], "sockets")) sockets(); else if (!strcmp(argv[1], "rights")) rights(); else if (!strcmp(argv[1], "fixed")) fixed();
  else if (!strcmp(argv[1], "pipes")) pipes(); else if (!strcmp(argv[1], "suppressed")) suppressed();
  else if (!strcmp(argv[1], "overflowing")) overflowing(); else if (!strcmp(argv[1], "same_word")) same_word();
  else if (!strcmp(argv[1], "rights_multishot")) rights_multishot(atoi(argv[3])); else if (!strcmp(argv[1], "multishot")) multishot(); else if (!strcmp(argv[1], "thread")) thread(); else return 89;
  return 0;
}
"""
PLAIN, SQPOLL, DEFER = 0, 1 << 1, 1 << 12 | 1 << 13  # IORING_SETUP_SQPOLL; SINGLE_ISSUER | DEFER_TASKRUN
WORKERS = 1 << 31  # the program's own: each request with IOSQE_ASYNC, carried out by a thread of the kernel's


def run(
    monitor: MonitorProcess, programs: Path, place: Path, what: str, flags: int = 0, *more: str
) -> tuple[list[Document], list[int]]:
    """Documents of the ring's requests, in the order of the log, and the results that the program saw."""
    program = compile_c(programs, "ring", RING)
    process = subprocess.Popen([program, what, str(flags), *more], cwd=place, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, output
    found = list(monitor.lifetime(process.pid, 30))
    return found, [int(line) for line in output.split()]


def by_ring(found: list[Document]) -> list[Document]:
    return [one for one in found if one["ebpf"].get("syscall", "").startswith("IORING_OP_")]


def told(one: Document, place: Path) -> tuple[str, str, int, str | None]:
    path = one.get("file", {}).get("path")
    return (
        name_of(one),
        one["ebpf"]["syscall"].removeprefix("IORING_OP_"),
        one["ebpf"]["ret"],
        path.removeprefix(f"{place}/") if path else None,
    )


@pytest.mark.parametrize("flags", [PLAIN, SQPOLL, DEFER, WORKERS], ids=["plain", "sqpoll", "defer_taskrun", "workers"])
def test_files(monitor: MonitorProcess, programs: Path, place: Path, flags: int) -> None:
    found, results = run(monitor, programs, place, "files", flags)
    folds = monitor.keys["profile"] == "full"
    shown = [told(one, place) for one in by_ring(found)]
    f = results[0]
    wanted = [
        ("file_open", "OPENAT", f, "made"),
        *[("file_write", "WRITE", 5, "made")] * (1 if folds else 3),
        *[("file_write", "WRITEV", 7, "made")] * (not folds),
        ("file_read", "READ", 10, "made"),
        *[("file_read", "READV", 7, "made")] * (not folds),
        ("file_open", "OPENAT", -2, "missing"),
        ("file_truncate", "FTRUNCATE", 0, "made"),
        ("file_close", "CLOSE", 0, "made"),
        ("file_mkdir", "MKDIRAT", 0, "dir"),
        ("file_rename", "RENAMEAT", 0, "dir/moved"),
        ("file_link", "LINKAT", 0, "hard"),
        ("file_symlink", "SYMLINKAT", 0, "soft"),
        ("file_delete", "UNLINKAT", 0, "hard"),
        ("file_delete", "UNLINKAT", -2, "missing"),
        ("file_delete", "UNLINKAT", 0, "dir/moved"),
        ("file_rmdir", "UNLINKAT", 0, "dir"),
    ]
    assert shown == wanted
    acts = {name_of(one): one for one in by_ring(found)}
    assert acts["file_close"]["ebpf"]["write"] == {"count": 4, "bytes": 22}
    assert acts["file_close"]["ebpf"]["read"] == {"count": 2, "bytes": 17}
    assert acts["file_rename"]["file"]["Ext"]["original"]["path"] == f"{place}/made"
    assert acts["file_link"]["file"]["Ext"]["original"]["path"] == f"{place}/dir/moved"
    assert acts["file_symlink"]["file"]["target_path"] == "dir/moved"
    assert acts["file_truncate"]["ebpf"]["requested"] == {"size": 11}
    created = by_ring(found)[0]
    assert (created["event"]["action"], created["ebpf"]["fd"]) == ("creation", f)
    assert created["file"]["inode"].isdigit()
    assert {one["process"]["name"] for one in by_ring(found)} == {"ring"}
    assert {one["process"]["thread"]["name"] for one in by_ring(found)} == {"ring"}, "never the kernel's own thread"


@pytest.mark.parametrize("flags", [PLAIN, SQPOLL, WORKERS], ids=["plain", "sqpoll", "workers"])
def test_sockets(monitor: MonitorProcess, programs: Path, place: Path, flags: int) -> None:
    found, results = run(monitor, programs, place, "sockets", flags)
    shown = [
        (
            name_of(one),
            one["ebpf"]["syscall"].removeprefix("IORING_OP_"),
            one["ebpf"]["ret"],
            one.get("destination", {}).get("port") == 4177,
        )
        for one in by_ring(found)
    ]
    accepted = results[3]
    folds = monitor.keys["profile"] == "full"
    assert shown == [
        ("socket_bind", "BIND", 0, False),
        ("socket_listen", "LISTEN", 0, False),
        ("socket_connect", "CONNECT", 0, True),
        ("socket_accept", "ACCEPT", accepted, False),
        ("socket_connect", "CONNECT", -111, False),
        ("socket_send", "SEND", 5, True),
        ("socket_receive", "RECV", 5, False),
        ("socket_send", "SENDMSG", 5, False),
        ("socket_receive", "RECVMSG", 5, True),
        ("socket_close", "CLOSE", 0, False),
        ("socket_close", "CLOSE", 0, True),
    ]
    assert folds or len(shown) == 11
    refused = by_ring(found)[4]
    assert (refused["destination"], refused["ebpf"]["claimed"]) == ({"ip": "127.77.0.2", "port": 1}, True)
    assert by_ring(found)[0]["source"] == {"ip": "127.77.0.2", "port": 4177}
    totals = [(one["ebpf"]["read"]["bytes"], one["ebpf"]["write"]["bytes"]) for one in by_ring(found)[-2:]]
    assert totals == [(5, 5), (5, 5)]


@pytest.mark.parametrize("flags", [PLAIN, SQPOLL, DEFER, WORKERS], ids=["plain", "sqpoll", "defer_taskrun", "workers"])
def test_descriptors_that_come_with_a_message(
    monitor: MonitorProcess, programs: Path, place: Path, flags: int
) -> None:
    found, printed = run(monitor, programs, place, "rights", flags)
    came = [one for one in found if name_of(one) == "file_receive"]
    first, second, third = printed[1:2], printed[3:6], printed[7:]
    assert [(one["ebpf"]["fd"], one["ebpf"]["received"]) for one in came] == [
        *[(fd, 1) for fd in first], *[(fd, 3) for fd in second], *[(fd, 30) for fd in third[:24]]
    ]  # fmt: skip
    assert [one["ebpf"].get("left_out") for one in came] == [None] * 27 + [6]
    assert {(one["ebpf"]["syscall"], one["file"]["path"]) for one in came} == {
        ("IORING_OP_RECVMSG", str(place / "passed"))
    }
    assert all("peer_inode" in one["ebpf"]["socket"] for one in came)


@pytest.mark.parametrize("room", [0, 110])
@pytest.mark.parametrize("flags", [PLAIN, SQPOLL, DEFER], ids=["plain", "sqpoll", "defer_taskrun"])
def test_descriptors_that_come_with_the_messages_of_one_request(
    monitor: MonitorProcess, programs: Path, place: Path, flags: int, room: int
) -> None:
    found, printed = run(monitor, programs, place, "rights_multishot", flags, str(room))
    came = [one for one in found if name_of(one) == "file_receive"]
    messages = printed[:3], printed[3:4], printed[4:34], printed[34:]
    assert [(one["ebpf"]["fd"], one["ebpf"]["received"], one["ebpf"].get("left_out")) for one in came] == [
        (number, len(message), 6 if at == 23 else None) for message in messages for at, number in enumerate(message[:24])
    ]  # fmt: skip
    assert [len(message) for message in messages] == [3, 1, 30, 2]
    assert {(one["ebpf"]["syscall"], one["file"]["path"]) for one in came} == {
        ("IORING_OP_RECVMSG", str(place / "passed"))
    }


def test_files_and_buffers_of_the_ring(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    found, _ = run(monitor, programs, place, "fixed")
    folds = monitor.keys["profile"] == "full"
    assert [told(one, place) for one in by_ring(found)] == [
        *[("file_write", "WRITE_FIXED", 7, "fixed")] * (1 if folds else 3),
        ("file_read", "READ_FIXED", 9, "fixed"),
        ("file_open", "OPENAT", 0, "direct"),
        ("file_write", "WRITE", 8, "direct"),
        ("file_close", "CLOSE", 0, "direct"),
    ]
    assert not any("fd" in one["ebpf"] for one in by_ring(found)), "a place in a ring's table is no descriptor"
    monitor.fresh_status()  # what the reader itself sweeps follows the exit
    pid = found[-1]["process"]["pid"]
    closes = [one for one in monitor.journal.documents(pid) if name_of(one) == "file_close"]
    totals = {"fixed": [0, 0], "direct": [0, 0]}
    for one in closes:
        row = totals.get(one.get("file", {}).get("path", "").removeprefix(f"{place}/"))
        if row:
            row[0] += one["ebpf"]["read"]["bytes"]
            row[1] += one["ebpf"]["write"]["bytes"]
    assert totals == {"fixed": [9, 21], "direct": [0, 8]}


def test_splice(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    found, _ = run(monitor, programs, place, "pipes")
    moved = [told(one, place) for one in by_ring(found) if one["ebpf"]["syscall"] == "IORING_OP_SPLICE"]
    assert moved == [("file_read", "SPLICE", 6, "spliced"), ("file_write", "SPLICE", 6, None)]


def test_a_suppressed_completion_leaves_the_request(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    for name in ("victim1", "victim2"):
        (place / name).touch()
    found, _ = run(monitor, programs, place, "suppressed")
    shown = [(*told(one, place), one["event"]["outcome"]) for one in by_ring(found)]
    request = "kernel_io_uring_request"
    assert sorted(shown) == sorted(
        [
            (request, "UNLINKAT", 0, "victim1", "unknown"),
            (request, "UNLINKAT", 0, "victim2", "unknown"),
            (request, "WRITE", 0, "quietly", "unknown"),
            (request, "OPENAT", 0, "missing", "unknown"),
            ("file_open", "OPENAT", -2, None, "failure"),
        ]
    )
    assert all(one["ebpf"]["in_progress"] for one in by_ring(found) if name_of(one) == request)


def test_a_full_ring_hides_nothing(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    names = [f"victim{i}" for i in range(7)]
    for name in names:
        (place / name).touch()
    found, _ = run(monitor, programs, place, "overflowing")
    shown = [told(one, place) for one in by_ring(found)]
    assert sorted(path for _, _, _, path in shown) == names
    assert {(kind, ret) for kind, _, ret, _ in shown} == {("file_delete", 0), ("kernel_io_uring_request", 0)}
    assert {one["event"]["outcome"] for one in by_ring(found)} == {"success"}


def test_requests_with_the_same_user_data(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    names = [f"victim{i}" for i in range(5)]
    for name in names:
        (place / name).touch()
    found, results = run(monitor, programs, place, "same_word")
    assert results == [0] * 5
    deleted = sorted(told(one, place)[3] for one in by_ring(found) if name_of(one) == "file_delete")
    assert deleted == names, "each completion has its own names"


def test_multishot_accepts_are_each_an_accept(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    found, results = run(monitor, programs, place, "multishot")
    accepted = [one for one in by_ring(found) if name_of(one) == "socket_accept"]
    accepted = [one for one in accepted if one["event"]["outcome"] == "success"]
    assert [one["ebpf"]["ret"] for one in accepted] == results
    assert all(one["source"]["port"] == 4178 for one in accepted)


def test_the_thread_that_submitted_is_the_subject(monitor: MonitorProcess, programs: Path, place: Path) -> None:
    found, _ = run(monitor, programs, place, "thread")
    (opened,) = by_ring(found)
    assert (opened["process"]["thread"]["name"], opened["file"]["path"]) == ("submitting", f"{place}/made")
    assert opened["process"]["thread"]["id"] != opened["process"]["pid"]
