"""The documents of the catalogue as small scenes: for each golden the records that a kernel would write.

Owns which variants of which event have a golden; builds no document itself.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from monitor import encode, events, hashing
from monitor.retention import Range
from monitor.ship.state import Shipped
from tests.fakes import (
    BOOT_NS,
    LABELLED,
    ORIGIN,
    WALL_NS,
    Bench,
    FakeKernel,
    context,
    control,
    facts,
    lineage,
    sockaddr,
    socket_definition,
    spelled,
)

Scene = Callable[[FakeKernel], object]

BASH, CAT, FILE, SOCKET, WORK = 0x1001, 0x1002, 0x2003, 0x3004, 0x2005
CONTAINER = "4f" * 32
CGROUP = b"/system.slice/docker-" + CONTAINER.encode() + b".scope"
PYTHON = spelled(b"/usr/bin/python3.11")
CURL = spelled(b"/usr/bin/curl")
READ, WRITE, CLOSE, ACCEPT, SENDTO, RECVFROM, BIND, LISTEN, CONNECT = 0, 1, 3, 43, 44, 45, 49, 50, 42
EXECVE, OPENAT, UNLINKAT, RENAME, CLONE, DUP2, SENDMSG, OPEN_BY_HANDLE = 59, 257, 263, 82, 56, 33, 46, 304
LINK, SYMLINK, MKDIR, FCHMOD, CHMOD, CHOWN, TRUNCATE, SETXATTR, FREMOVEXATTR, MEMFD_CREATE = (
    *(86, 88, 83, 91, 90, 92, 76, 188, 199, 319),
)
NO_CALL = encode.NO_SYSCALL
LOOPBACK, REMOTE = socket.inet_aton("127.0.0.1"), socket.inet_aton("192.0.2.7")
LOCAL6, REMOTE6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1"), socket.inet_pton(socket.AF_INET6, "2001:db8::7")
DIRECTORY_FLAGS = 0o40755
RDWR_CREAT = 0o102


def process(kernel: FakeKernel, cgroup: bytes = b"", **changes: Any) -> None:
    """A known cat, thread 101, on CPU 0."""
    kernel.file(0, CAT, b"/usr/bin/cat")
    kernel.task(0, facts(exe_key=CAT, comm=b"cat", ppid=99, parent_start=4_000_000_001) | changes, cgroup)


def opened(kernel: FakeKernel, path: bytes = b"/etc/passwd", oflags: int = 0, kf: int = 0, **definition: Any) -> None:
    """That cat opens a file as descriptor 3: session 1."""
    kernel.file(0, FILE, path, **definition)
    kernel.bulk(
        0, "file_open", key=FILE, ret=3, nr=OPENAT, fd=3, kf=events.BEGIN | kf, session=1, generation=7, oflags=oflags
    )


def connected(kernel: FakeKernel, local_name: bytes = b"", remote_name: bytes = b"", **definition: Any) -> None:
    """That cat has a socket as descriptor 5: session 2."""
    about: dict[str, Any] = {
        "cookie": 4097,
        "local": LOOPBACK,
        "local_port": 40000,
        "remote": REMOTE,
        "remote_port": 443,
    }
    kernel.socket(0, SOCKET, local_name, remote_name, **(definition or about))
    kernel.session(0, key=SOCKET, session=2, generation=9)


def _failed_open(name: bytes, **members: Any) -> Scene:
    def scene(kernel: FakeKernel) -> None:
        process(kernel)
        kernel.file(0, WORK, b"/srv/data", mode=DIRECTORY_FLAGS)
        kernel.bulk(
            0,
            "file_open",
            name,
            **(
                {
                    "ret": -errno.ENOENT,
                    "nr": OPENAT,
                    "fd": -1,
                    "kf": events.CLAIMED,
                    "session": len(name),
                    "oflags": RDWR_CREAT,
                }
                | members
            ),
        )

    return scene


def _open(**options: Any) -> Scene:
    def scene(kernel: FakeKernel) -> None:
        process(kernel)
        opened(kernel, **options)

    return scene


def _io(name: str, members: dict[str, Any], tail: bytes = b"", **options: Any) -> Scene:
    def scene(kernel: FakeKernel) -> None:
        process(kernel, **options)
        opened(kernel)
        kernel.bulk(0, name, tail, **({"fd": 3, "session": 1, "generation": 7} | members))

    return scene


def _close(reason: str, **members: Any) -> Scene:
    number = events.CLOSE_REASONS.index(reason)
    call = {"close": CLOSE, "dup": DUP2, "exec": EXECVE, "exit": NO_CALL, "evict": NO_CALL, "interval": NO_CALL}[reason]
    totals = {"read_count": 3, "read_bytes": 12288, "write_count": 0, "write_bytes": 0, "reason": number, "nr": call}
    return _io("file_close", totals | members)


def _socket_io(name: str, members: dict[str, Any], tail: bytes = b"", **definition: Any) -> Scene:
    def scene(kernel: FakeKernel) -> None:
        process(kernel)
        connected(kernel, **definition)
        kernel.bulk(0, name, tail, **({"fd": 5, "session": 2, "generation": 9, "key": SOCKET} | members))

    return scene


def _control(name: str, blobs: dict[str, bytes], **members: Any) -> Scene:
    def scene(kernel: FakeKernel) -> None:
        kernel.control(
            1, name, blobs, **(facts(tgid=200, tid=200, ppid=100, comm=b"python3", start=6_000_000_001) | members)
        )

    return scene


def _socket(local: bytes, local_port: int, remote: bytes = b"", remote_port: int = 0, **members: Any) -> bytes:
    return socket_definition(
        local=local, local_port=local_port, remote=remote, remote_port=remote_port, **({"cookie": 4097} | members)
    )


_UNIX = {"family": 1, "kind": 1, "protocol": 0}
_UDP = {"kind": 2, "protocol": 17}
_TO = sockaddr("198.51.100.9", 53)
_EXEC = {
    "executable": PYTHON,
    "cgroup": spelled(b"/user.slice"),
    "directory": spelled(b"/srv/work"),
    "args": b"python3\0-m\0http.server\0",
}
_NAMED = {"executable": PYTHON, "name": b"a.txt", "base": spelled(b"/srv")}
_OBJECT = {"executable": PYTHON, "path": spelled(b"/srv/tool")}
_MAPPED = _OBJECT | {
    "mapping": events.MAPPING.struct.pack(1_700_000_000, 65536, 0xEF53, 0x7F0012345000, 0x7F0012348000, 4096, 12000, 5, 0)
}
_MOUNT = {"executable": PYTHON, "name": b"mnt", "base": spelled(b"/srv")}
ALL_CAPABILITIES = (1 << 41) - 1
_TARGET = events.TARGET.struct.pack(5_000_000_001, 150, 151, 33, 0, b"nginx")
_NAMESPACES = events.NAMESPACES.struct.pack(*range(4026531836, 4026531844))


def _held(uid: int, capabilities: int, groups_at: int = 4) -> bytes:
    ids = (uid, 1000, uid, 1000, uid, 1000, uid, 1000)
    sets = (0, capabilities, capabilities, ALL_CAPABILITIES, 0)
    return events.CREDENTIALS.struct.pack(*ids, 0, 4026531837, *sets, 2, groups_at)


def _program(**members: Any) -> bytes:
    about = {
        "id": 77,
        "type": 26,
        "attach": 24,
        "length": 120,
        "link": 0,
        "pad": 0,
        "tag": bytes(range(8)),
        "name": b"probe",
    }
    return events.PROGRAM.struct.pack(*(about | members).values())


_IDENTITY = {"ino": 77, "dev": 253 << 20 | 2, "mode": 0o100755}


def _ssh_login(kernel: FakeKernel) -> None:
    """sshd has taken a connection and starts eve's shell, on a terminal of its own; the shell becomes root by sudo."""
    sshd, shell, sudo = (250, 5_000_000_001), (300, 7_000_000_001), (310, 8_000_000_001)
    peer = {"peer_family": 2, "peer_port": 50022, "peer": REMOTE.ljust(16, b"\0")}
    unit = spelled(b"/user.slice/user-1000.slice/session-3.scope")
    pts = 136 << 20 | 4

    def started(key: tuple[int, int], program: bytes, above: tuple[tuple[int, int], ...], **members: Any) -> None:
        about = {key: value for key, value in members.items() if key in events.CONTEXT.names}
        blobs = {"executable": spelled(program), "cgroup": unit, "args": program + b"\0", "ancestors": lineage(*above)}
        blobs |= {"context": context(tty=pts, **about)}
        if key == shell:
            blobs["parent_executable"] = spelled(b"/usr/sbin/sshd")
        others = {name: value for name, value in members.items() if name not in about}
        who = facts(
            tgid=key[0],
            tid=key[0],
            start=key[1],
            ppid=above[0][0],
            parent_start=above[0][1],
            comm=program.rsplit(b"/")[-1],
        )
        kernel.control(1, "process_exec", blobs, **(who | {"nr": EXECVE} | _IDENTITY | others))

    started(
        shell, b"/usr/bin/bash", (sshd, (1, 1_000_001)), uid=1000, euid=1000, login_uid=1000, login_session=3, **peer
    )
    started(
        sudo,
        b"/usr/bin/touch",
        (shell, sshd, (1, 1_000_001)),
        group=310,
        group_start=8_000_000_001,
        uid=0,
        euid=0,
        login_uid=1000,
    )


SCENES: dict[str, Scene] = {
    "process_fork": _control(
        "process_fork",
        {
            "executable": PYTHON,
            "cgroup": spelled(b"/system.slice/cron.service"),
            "context": context(session=90, session_start=0, group=200, group_start=6_000_000_001),
            "ancestors": lineage((100, 5_000_000_001), (90, 4_000_000_001), (1, 1_000_001)),
        },
        ret=200,
        nr=CLONE,
    ),
    "process_fork.failure": _control("process_fork", {"executable": PYTHON}, ret=-errno.EAGAIN, nr=CLONE),
    "process_fork.container": _control(
        "process_fork", {"executable": PYTHON, "cgroup": spelled(CGROUP)}, ret=200, nr=CLONE
    ),
    "process_exec": _control("process_exec", _EXEC, nr=EXECVE, login_uid=1000, login_session=3, **_IDENTITY),
    "process_exec.script": _control(
        "process_exec",
        _EXEC | {"name": b"./run.sh", "text": b"/usr/bin/python3", "environment": b"LD_PRELOAD=/tmp/\xff.so\0"},
        nr=EXECVE,
        arg=5,
        **_IDENTITY,
    ),
    "process_exec.failure": _control(
        "process_exec",
        {"executable": PYTHON, "name": b"bin/tool", "base": spelled(b"/opt")},
        ret=-errno.EACCES,
        nr=EXECVE,
        kf=events.CLAIMED,
    ),
    "process_exec.truncated": _control(
        "process_exec",
        _EXEC | {"args": b"python3\0-c\0aaaa"},
        nr=EXECVE,
        kf=events.TRUNCATED,
        original=65536,
        **_IDENTITY,
    ),
    "process_exec.ssh": _ssh_login,
    "process_exec.hash": _control("process_exec", _EXEC | {"sha256": bytes.fromhex("7f" * 32)}, nr=EXECVE, **_IDENTITY),
    "process_exec.redacted": _control(
        "process_exec", _EXEC | {"args": b"mysql\0-p[redacted]\0"}, nr=EXECVE, kf=events.REDACTED, **_IDENTITY
    ),
    "process_exec.non_utf8": _control(
        "process_exec",
        _EXEC
        | {"args": b"caf\xe9\0-l\0", "directory": spelled(b"/srv/\xff\n"), "executable": spelled(b"/opt/caf\xe9")},
        nr=EXECVE,
        comm=b"caf\xe9",
        **_IDENTITY,
    ),
    "process_exec.memfd": _control(
        "process_exec",
        _EXEC | {"executable": b"memfd:payload\0\0"},
        nr=EXECVE,
        flags=events.FILE_FLAGS["DELETED"] | events.FILE_FLAGS["NO_PATH"],
        **_IDENTITY,
    ),
    "process_exec.setuid": _control("process_exec", _EXEC, nr=EXECVE, uid=1000, gid=1000, euid=0, egid=0, **_IDENTITY),
    "process_exit": _control("process_exit", {"executable": PYTHON}, nr=NO_CALL, arg=3 << 8),
    "process_exit.signal": _control("process_exit", {"executable": PYTHON}, nr=NO_CALL, arg=9),
    "process_exit.kernel_thread": _control("process_exit", {}, nr=NO_CALL, comm=b"kworker/0:1"),
    "file_open": _open(),
    "file_open.labels": _open(),
    "file_open.created": _open(path=b"/srv/new.txt", oflags=RDWR_CREAT, kf=events.CREATED),
    "file_open.deleted": _open(path=b"/srv/gone.txt", flags=events.FILE_FLAGS["DELETED"]),
    "file_open.non_utf8": _open(path=b"/srv/caf\xe9 \x1b[2J"),
    "file_open.quotes": _open(path=b'/srv/a"b\\c'),
    "file_open.failure": _failed_open(b"/nowhere/file"),
    "file_open.failure_relative": _failed_open(b"sub/file", key=WORK, kf=events.CLAIMED | events.RELATIVE),
    "file_open.failure_non_utf8": _failed_open(b"/nowhere/\xff"),
    "file_open.failure_unnamed": _failed_open(b"", ret=-errno.EFAULT, kf=events.UNNAMED),
    "file_open.compat": lambda kernel: (
        process(kernel),
        kernel.file(0, FILE, b"/etc/hosts"),
        kernel.bulk(
            0,
            "file_open",
            key=FILE,
            ret=3,
            nr=5,
            fd=3,
            kf=events.BEGIN | events.COMPAT,
            session=1,
            generation=7,
            oflags=0o100000,
        ),
    ),
    "file_open.unknown_process": lambda kernel: opened(kernel),
    "file_open.quiet": _open(kf=events.QUIET),
    "file_read": _io("file_read", {"ret": 4096, "nr": READ}),
    "file_read.quiet": _io("file_read", {"ret": 4096, "nr": READ, "kf": events.QUIET}),
    "file_read.failure": _io("file_read", {"ret": -errno.EISDIR, "nr": READ}),
    "file_read.real_user": _io("file_read", {"ret": 4096, "nr": READ}, uid=1000, gid=1000, euid=33, egid=33),
    "file_read.container": _io("file_read", {"ret": 4096, "nr": READ}, cgroup=CGROUP),
    "file_read.unresolved": _io("file_read", {"ret": 4096, "nr": READ, "generation": 5}),
    "file_read.bad_descriptor": _io(
        "file_read", {"ret": -errno.EBADF, "nr": READ, "fd": 99, "session": 0xFFFFFFFF, "kf": events.UNNAMED}
    ),
    "file_write": _io("file_write", {"ret": 512, "nr": WRITE}),
    **{
        ("file_close" if reason == "close" else f"file_close.{reason}"): _close(reason)
        for reason in events.CLOSE_REASONS
    },
    "file_close.quiet": _close("close", kf=events.QUIET),
    "file_close.unnamed": _close("close", fd=9, session=0xFFFFFFFF, kf=events.UNNAMED, read_count=0, read_bytes=0),
    "file_delete": _control(
        "file_delete", {"executable": PYTHON, "name": b"/srv/old.txt"}, nr=UNLINKAT, kf=events.CLAIMED
    ),
    "file_delete.failure": _control(
        "file_delete", {"executable": PYTHON, "name": b"/srv/old.txt"}, ret=-errno.EBUSY, nr=UNLINKAT, kf=events.CLAIMED
    ),
    "file_delete.relative": _control(
        "file_delete",
        {"executable": PYTHON, "name": b"old.txt", "base": spelled(b"/srv")},
        nr=UNLINKAT,
        kf=events.CLAIMED,
    ),
    "file_delete.non_utf8": _control(
        "file_delete", {"executable": PYTHON, "name": b"/srv/\xc3\x28\n"}, nr=UNLINKAT, kf=events.CLAIMED
    ),
    "file_rename": _control(
        "file_rename",
        {"executable": PYTHON, "name": b"a.txt", "base": spelled(b"/srv"), "name2": b"/srv/b.txt"},
        nr=RENAME,
        kf=events.CLAIMED,
    ),
    "file_rename.non_utf8": _control(
        "file_rename", {"executable": PYTHON, "name": b"/srv/\xe9", "name2": b"/srv/\xea"}, nr=RENAME, kf=events.CLAIMED
    ),
    "file_link": _control(
        "file_link", _NAMED | {"name2": b"b.txt", "base2": spelled(b"/srv")}, nr=LINK, kf=events.CLAIMED
    ),
    "file_symlink": _control("file_symlink", _NAMED | {"text": b"../etc/\xff"}, nr=SYMLINK, kf=events.CLAIMED),
    "file_mkdir": _control("file_mkdir", _NAMED, nr=MKDIR, kf=events.CLAIMED, arg=0o750),
    "file_rmdir": _control("file_rmdir", _NAMED, nr=UNLINKAT, kf=events.CLAIMED, arg=0x200),
    "file_mode": _control("file_mode", _OBJECT, nr=FCHMOD, fd=3, arg=0o4755, **_IDENTITY),
    "file_mode.failure": _control("file_mode", _NAMED, ret=-errno.EPERM, nr=CHMOD, kf=events.CLAIMED, arg=0o777),
    "file_mode.hook": _control("file_mode", _NAMED | _OBJECT, nr=CHMOD, kf=events.HOOKED, arg=0o600, **_IDENTITY),
    "file_owner": _control("file_owner", _NAMED, nr=CHOWN, kf=events.CLAIMED, arg=1000, arg2=33),
    "file_truncate": _control("file_truncate", _NAMED, nr=TRUNCATE, kf=events.CLAIMED, arg=4096),
    "file_xattr": _control(
        "file_xattr", _NAMED | {"text": b"security.capability"}, nr=SETXATTR, kf=events.CLAIMED, arg=20, arg2=1
    ),
    "file_xattr.removed": _control("file_xattr", _OBJECT | {"text": b"user.x"}, nr=FREMOVEXATTR, fd=3, **_IDENTITY),
    "kernel_io_uring_request": _control(
        "kernel_io_uring_request",
        {"executable": PYTHON, "name": b"victim", "base": b"srv\0"},
        nr=36,
        fd=-1,
        kf=events.CLAIMED | events.URING | events.PENDING,
    ),
    "kernel_io_uring_request.connect": _control(
        "kernel_io_uring_request",
        {"executable": PYTHON, "address": b"\x02\x00\x01\xbb\xc0\x00\x02\x01" + bytes(8)},
        nr=16,
        fd=7,
        kf=events.URING | events.PENDING,
    ),
    "file_memfd": _control(
        "file_memfd",
        {"executable": PYTHON, "path": b"memfd:x\0\0", "text": b"x"},
        ret=4,
        fd=4,
        nr=MEMFD_CREATE,
        arg=3,
        flags=events.FILE_FLAGS["DELETED"] | events.FILE_FLAGS["NO_PATH"],
        **_IDENTITY,
    ),
    "file_memfd.failure": _control(
        "file_memfd", {"executable": PYTHON, "text": b"x"}, ret=-errno.EINVAL, nr=MEMFD_CREATE, arg=1 << 20
    ),
    "file_map": _control("file_map", _MAPPED | {"sha256": bytes.fromhex("7f" * 32)}, ret=0x7F0012345000, fd=4, nr=9, arg=5, arg2=0x812, **_IDENTITY),
    "file_map.failure": _control("file_map", _MAPPED, ret=-errno.EPERM, fd=4, nr=9, arg=5, arg2=2, **_IDENTITY),
    "file_map.locked": _control(
        "file_map", _MAPPED, ret=0x7F0012345000, fd=4, nr=9, arg=5, arg2=2, kf=events.CLAIMED, **_IDENTITY
    ),
    "file_map.quiet": _control(
        "file_map", _MAPPED, ret=0x7F0012345000, fd=4, nr=9, arg=5, arg2=0x812, kf=events.QUIET, **_IDENTITY
    ),
    "file_map.shared": _control("file_map", _MAPPED, ret=0x7F0012345000, fd=4, nr=9, arg=1, arg2=1, **_IDENTITY),
    "file_map.protection": _control("file_map", _MAPPED, nr=10, arg=7, **_IDENTITY),
    "file_receive": _control(
        "file_receive",
        _OBJECT | {"socket": socket_definition(remote_name=b"/run/app.sock\0", peer=4242, **_UNIX)},
        ret=12,
        fd=7,
        nr=47,
        arg=31,
        arg2=7,
        **_IDENTITY,
    ),
    "file_receive.pidfd": _control("file_receive", _OBJECT, ret=7, fd=7, nr=438, **_IDENTITY),
    "file_receive.failure": _control("file_receive", {"executable": PYTHON}, ret=-errno.EPERM, nr=438),
    "file_mount": _control(
        "file_mount", _MOUNT | {"text": b"/dev/sdb1", "text2": b"ext4"}, nr=165, kf=events.CLAIMED, arg=0xC0ED0000 | 0xE
    ),
    "file_mount.moved": _control(
        "file_mount", _MOUNT | _OBJECT | {"text": b"none", "text2": b"tmpfs"}, nr=429, arg=4, **_IDENTITY
    ),
    "file_umount": _control("file_umount", _MOUNT, nr=166, kf=events.CLAIMED, arg=2),
    "process_credentials": _control(
        "process_credentials",
        {"executable": PYTHON, "before": _held(1000, ALL_CAPABILITIES), "after": _held(0, 0x20, groups_at=8)}
        | {"groups": b"\x04\0\0\0\xe8\x03\0\0"},
        nr=117,
        arg=0,
        arg2=0xFFFFFFFF,
        ino=0,
        euid=0,
    ),
    "process_credentials.capabilities": _control(
        "process_credentials",
        {"executable": PYTHON, "before": _held(0, ALL_CAPABILITIES), "after": _held(0, 0x20)},
        nr=126,
    ),
    "process_credentials.failure": _control(
        "process_credentials",
        {"executable": PYTHON, "before": _held(1000, 0), "after": _held(1000, 0)},
        nr=106,
        arg=0,
        ret=-errno.EPERM,
    ),
    "process_signal": _control("process_signal", {"executable": PYTHON, "target": _TARGET}, nr=62, arg=9),
    "process_signal.failure": _control(
        "process_signal", {"executable": PYTHON}, nr=62, arg=15, ino=0xFFFFFFFF, ret=-errno.ESRCH, kf=events.CLAIMED
    ),
    "process_ptrace": _control("process_ptrace", {"executable": PYTHON, "target": _TARGET}, nr=101, arg=0x4206),
    "process_ptrace.memory": _control("process_ptrace", {"executable": PYTHON, "target": _TARGET}, nr=311, ret=8),
    "process_namespace": _control(
        "process_namespace", {"executable": PYTHON, "namespaces": _NAMESPACES}, nr=272, arg=0x40020000
    ),
    "process_namespace.root": _control(
        "process_namespace", _OBJECT | {"namespaces": _NAMESPACES}, nr=161, **_IDENTITY | {"mode": 0}
    ),
    "kernel_module": _control(
        "kernel_module", _OBJECT | {"text": b"debug=1", "text2": b"loop"}, nr=313, fd=3, **_IDENTITY
    ),
    "kernel_module.removed": _control(
        "kernel_module", {"executable": PYTHON, "text": b"loop"}, nr=176, arg=0x800, ret=-errno.EBUSY
    ),
    "kernel_bpf": _control(
        "kernel_bpf", {"executable": PYTHON, "program": _program(), "text": b"do_unlinkat"}, nr=321, fd=7, ret=7, arg=5
    ),
    "kernel_bpf.link": _control(
        "kernel_bpf", {"executable": PYTHON, "program": _program(link=12)}, nr=321, fd=8, ret=8, arg=28
    ),
    "kernel_bpf.failure": _control(
        "kernel_bpf",
        {"executable": PYTHON, "program": _program(id=0, tag=bytes(8))},
        nr=321,
        arg=5,
        kf=events.CLAIMED,
        ret=-errno.EACCES,
    ),
    "kernel_io_uring": _control("kernel_io_uring", {"executable": PYTHON}, nr=425, ret=3, fd=3, arg=64, arg2=2),
    "socket_bind": _control(
        "socket_bind",
        {"executable": PYTHON, "address": sockaddr("127.0.0.1", 8000), "socket": _socket(LOOPBACK, 8000)},
        nr=BIND,
        fd=3,
    ),
    "socket_bind.failure": _control(
        "socket_bind",
        {"executable": PYTHON, "address": sockaddr("127.0.0.1", 80), "socket": _socket(b"", 0)},
        ret=-errno.EACCES,
        nr=BIND,
        fd=3,
    ),
    "socket_listen": _control(
        "socket_listen", {"executable": PYTHON, "socket": _socket(LOOPBACK, 8000, state=10)}, nr=LISTEN, fd=3
    ),
    "socket_listen.unix": _control(
        "socket_listen",
        {"executable": PYTHON, "socket": socket_definition(local_name=b"/run/app.sock\0", **_UNIX)},
        nr=LISTEN,
        fd=3,
    ),
    "socket_connect": _control(
        "socket_connect",
        {"executable": CURL, "address": sockaddr("192.0.2.7", 443), "socket": _socket(LOOPBACK, 40000, REMOTE, 443)},
        nr=CONNECT,
        fd=5,
    ),
    "socket_connect.failure": _control(
        "socket_connect",
        {"executable": CURL, "address": sockaddr("192.0.2.7", 443), "socket": _socket(b"", 0)},
        ret=-errno.ECONNREFUSED,
        nr=CONNECT,
        fd=5,
    ),
    "socket_connect.in_progress": _control(
        "socket_connect",
        {"executable": CURL, "address": sockaddr("192.0.2.7", 443), "socket": _socket(LOOPBACK, 40000, REMOTE, 443)},
        ret=-errno.EINPROGRESS,
        nr=CONNECT,
        fd=5,
    ),
    "socket_connect.ipv6": _control(
        "socket_connect",
        {
            "executable": CURL,
            "address": sockaddr("2001:db8::7", 443),
            "socket": _socket(LOCAL6, 40000, REMOTE6, 443, family=10),
        },
        nr=CONNECT,
        fd=5,
    ),
    "socket_connect.unix": _control(
        "socket_connect",
        {
            "executable": CURL,
            "address": sockaddr(b"/run/app.sock\0"),
            "socket": socket_definition(remote_name=b"/run/app.sock\0", **_UNIX),
        },
        nr=CONNECT,
        fd=5,
    ),
    "socket_connect.unix_failure": _control(
        "socket_connect",
        {"executable": CURL, "address": sockaddr(b"\0abstract\xff"), "socket": socket_definition(**_UNIX)},
        ret=-errno.ECONNREFUSED,
        nr=CONNECT,
        fd=5,
    ),
    "socket_accept": _control(
        "socket_accept",
        {"executable": PYTHON, "socket": _socket(LOOPBACK, 8000, REMOTE, 51515)},
        ret=7,
        nr=ACCEPT,
        fd=7,
    ),
    "socket_accept.failure": _control(
        "socket_accept", {"executable": PYTHON, "socket": _socket(LOOPBACK, 8000)}, ret=-errno.EAGAIN, nr=ACCEPT, fd=3
    ),
    "socket_send": _socket_io("socket_send", {"ret": 100, "nr": SENDTO}),
    "socket_send.udp": _socket_io(
        "socket_send",
        {"ret": 12, "nr": SENDTO, "kf": events.ADDRESS | events.CLAIMED, "extra": len(_TO)},
        _TO,
        **_UDP,
        local=LOOPBACK,
        local_port=5353,
        cookie=4098,
    ),
    "socket_send.failure": _socket_io("socket_send", {"ret": -errno.EPIPE, "nr": SENDMSG}),
    "socket_receive": _socket_io("socket_receive", {"ret": 100, "nr": RECVFROM}),
    "socket_receive.udp": _socket_io(
        "socket_receive",
        {"ret": 12, "nr": RECVFROM, "kf": events.ADDRESS | events.CLAIMED, "extra": len(_TO)},
        _TO,
        **_UDP,
        local=LOOPBACK,
        local_port=5353,
        cookie=4098,
    ),
    "socket_receive.unix": _socket_io(
        "socket_receive", {"ret": 5, "nr": READ}, **_UNIX, local_name=b"/run/app.sock\0", remote_name=b"\0peer"
    ),
    "socket_close": _socket_io(
        "socket_close", {"nr": CLOSE, "read_count": 2, "read_bytes": 300, "write_count": 1, "write_bytes": 100}
    ),
    "socket_close.exit": _socket_io(
        "socket_close",
        {"nr": NO_CALL, "reason": events.CLOSE_REASONS.index("exit"), "write_count": 1, "write_bytes": 9},
    ),
}
"""Golden name -> what happens. The golden is the document of the last event; the name begins with that event's."""


def _ledger() -> encode.Document:
    bench = Bench()
    process(bench.kernel)
    opened(bench.kernel)
    bench.kernel.refuse(0)
    bench.drain()
    return {name: value for name, value in bench.ledger.balance().items() if name != "balanced"}


def _delivered(ledger: encode.Document) -> encode.Document:
    counts = Counter({"created": 1, "dead_letter": 1, "conflict": 1})
    return Shipped({}, {"0": counts}).ledger("0", ledger["logged"]) | ledger


def _loss() -> encode.Document:
    bench = Bench()
    process(bench.kernel)
    bench.kernel.refuse(0)
    bench.kernel.refuse(0)
    opened(bench.kernel)
    bench.drain()
    return bench.losses[0]


def _degraded() -> encode.Document:
    bench = Bench()
    bench.capture.accounts[1, 4] = 1
    found: encode.Document = bench.ledger.degraded()[0]["loss"]
    return found


MADE: dict[str, Callable[[], encode.Document]] = {
    "monitor_start": lambda: {
        "monitor": {
            "adopted": True,
            "kernel": "6.12.0",
            "layout": "0123456789abcdef",
            "profile": "full",
            "config_digest": "fedcba9876543210",
            "name_sources": ["file_delete: hook", "file_xattr: caller"],
            "hooks": ["tp_btf/sched_process_exec", "tp_btf/sys_exit"],
            "features": ["rdonly_cast", "ringbuf"],
            "control_lane": "ringbuf",
            "missing": ["task_pt_regs"],
            "events": ["process_exec", "file_open"],
            "processes": 117,
        },
        "previous": {"epoch": "8899aabbccddeeff", "sequence": 4711},
    },
    "monitor_stop": lambda: {"monitor": {"reason": "SIGTERM"}},
    "monitor_loss": lambda: {"loss": _loss()},
    "monitor_loss.expired": lambda: {"loss": Range("0123456789abcdef", 40_001, 80_000, exact=False).loss},
    "monitor_loss.degraded": lambda: {"loss": _degraded()},
    "monitor_loss.earlier": lambda: {
        "loss": {
            "class": "unknown",
            "cpu": 0,
            "count": 12,
            "first": 100,
            "last": 111,
            "reason": "ring_full",
            "epoch": "8899aabbccddeeff",
        }
    },
    "monitor_config": lambda: {"config": {"old": "0011223344556677", "new": "8899aabbccddeeff", "keys": ["profile"]}},
    "monitor_config.refused": lambda: {
        "config": {
            "old": "0011223344556677",
            "refused": "/etc/ebpf-monitor/config.json:3: ring_bytes: can only change at a restart",
        }
    },
    "monitor_config.clock": lambda: {"clock": {"step_ns": -3_600_000_000_000}},
    "monitor_config.log": lambda: {"log": {"notice": "the log was renamed: a new one was begun"}},
    "monitor_tamper": lambda: {
        "tamper": {
            "kind": "pin_removed",
            "object": "link_sys_exit",
            "repaired": True,
            "by": {
                "pid": 4711,
                "entity_id": "PYNTTN6IuSZpKx8C4a9Hog",
                "name": "rm",
                "executable": "/usr/bin/rm",
                "event": "file_delete",
                "user": {"id": "0"},
            },
        }
    },
    "monitor_tamper.stopped": lambda: {
        "tamper": {"kind": "monitor_stopped", "object": "process 311", "repaired": True, "paused_ms": 4012}
    },
    "monitor_heartbeat": lambda: {
        "exclusions": [{"name": "backup", "count": 3}],
        "ledger": _ledger(),
        "hash": {"known": 411, "computed": 90, "skipped": dict.fromkeys(hashing.REASONS, 0) | {"gone": 2}},
    },
    "monitor_heartbeat.delivery": lambda: {"ledger": _delivered(_ledger())},
}
"""Golden name -> the members of `ebpf` of a document that the monitor makes itself."""

FOUND: dict[str, tuple[bytes, bytes, int]] = {
    "process_found": (
        control(
            "process_found",
            {"executable": PYTHON, "cgroup": spelled(CGROUP), "directory": spelled(b"/srv/work")},
            **facts(tgid=300, tid=300, comm=b"python3", start=3_000_000_001, login_uid=1000, login_session=3),
        ),
        b"python3\0-m\0http.server\0",
        0,
    ),
    "process_found.non_utf8": (
        control("process_found", {}, **facts(tgid=300, tid=300, comm=b"caf\xe9")),
        b"caf\xe9\0",
        0,
    ),
    "process_found.truncated": (control("process_found", {}, **facts(tgid=300, tid=300)), b"sh\0-c\0aaaa\0", 65536),
}
"""Golden name -> a record of the scan at start, the arguments that /proc shows, and their length if it shows less."""


HASHED: dict[str, hashing.Answer] = {
    f"process_hash{variant}": hashing.Answer(
        hashing.Asker(300, 7_000_000_001, path, 0xEF53), hashing.Version(253 << 20 | 2, 77, WALL_NS - 10**15, 6_839_896), "7f" * 32, BOOT_NS
    )
    for variant, path in (("", b"/usr/bin/python3.11"), (".non_utf8", b"/srv/caf\xe9"))
}
HASHED["process_hash.mapped"] = replace(
    HASHED["process_hash"], asker=hashing.Asker(300, 7_000_000_001, b"/srv/plug\xff.so", 0xEF53, "7f0012345000-7f0012348000")
)
"""Golden name -> the answer that came late."""


def line(name: str) -> bytes:
    """The line of one golden, through the real stages."""
    if name in MADE:
        kind = events.EVENT[name.split(".")[0]]
        return encode.line(encode.made(ORIGIN, kind, WALL_NS, BOOT_NS, 42, MADE[name]()))
    bench = Bench()
    if name.endswith(".labels"):
        bench.pipeline.rename(LABELLED)
    if name in FOUND:
        bench.pipeline.found(*FOUND[name])
        return bytes(bench.pipeline.batch)
    if name in HASHED:
        bench.pipeline.hashed(HASHED[name])
        return bytes(bench.pipeline.batch)
    SCENES[name](bench.kernel)
    return bench.drain().splitlines(keepends=True)[-1]
