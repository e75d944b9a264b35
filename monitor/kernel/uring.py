"""The operations of io_uring: which are seen as what, and what the programs need to know to see them.

Owns names and numbers of operations, their programs and the kernel's members they read; never loads a program.
"""

from __future__ import annotations

from dataclasses import dataclass

from monitor.events import EVENT
from monitor.kernel.btf import Btf
from monitor.kernel.probes import (
    ACCEPT,
    BIND,
    CLOSE,
    CONNECT,
    LEFT_OUT,
    LISTEN,
    MINIMAL,
    NAMES,
    OBJECT,
    OPEN,
    PAIR,
    READ,
    RMDIR,
    WRITE,
)
from monitor.tables import IO_URING_OPERATIONS

HOOKS = {
    name: f"tp_btf/{name}" for name in ("io_uring_submit_req", "io_uring_complete", "io_uring_cqe_overflow")
}
"""Program -> the hook it is attached to."""
_TAILS = (
    "io_uring_complete",
    "uring_define_task",
    "uring_define_file",
    "uring_define_socket",
    "uring_open_failed",
    "uring_names",
    "uring_object",
    "uring_socket",
    "uring_socket_record",
    "uring_rights",
)
JUMPS = {"jump_uring": _TAILS, "jump_submit": ("uring_told",)}
"""Jump table -> the programs in it."""
LOADED_FOR = {**dict.fromkeys(_TAILS, HOOKS["io_uring_complete"]), "uring_told": HOOKS["io_uring_submit_req"]}
"""Program that is reached by a tail call -> the hook it must be loaded for."""
LATER = 0x20000
AT = 1024
"""first row of `calls` that is an operation's"""

UNSEEN: dict[str, str] = {
    "waits, wakes, or is about the ring itself": """
        NOP NOP128 POLL_ADD POLL_REMOVE TIMEOUT TIMEOUT_REMOVE ASYNC_CANCEL LINK_TIMEOUT FILES_UPDATE EPOLL_CTL
        EPOLL_WAIT PROVIDE_BUFFERS REMOVE_BUFFERS WAITID FUTEX_WAIT FUTEX_WAKE FUTEX_WAITV""",
    "asks, or moves no data": "STATX FSYNC SYNC_FILE_RANGE FADVISE MADVISE FALLOCATE FGETXATTR GETXATTR",
    "as the system call of that name": "SOCKET SHUTDOWN PIPE",
    "another descriptor of an open file, which the acts through it show": "FIXED_FD_INSTALL",
    "a word from one ring to another; a descriptor it passes is seen when it is used": "MSG_RING",
    "a driver's own command (NVMe passthrough, socket options, ublk): the open of the device is seen": """
        URING_CMD URING_CMD128""",
}
NOTES = """The subject is the task that submitted, also where a working or polling thread (SQPOLL) of the kernel carries the
request out; its user is shown also where the request has credentials that the ring was given before (a personality).
Names are the kernel's own copies: no other thread can change them after the request was accepted. Event time is the
completion's. Not known: the address of a BIND that failed, and of a single SENDMSG or RECVMSG on an unconnected socket. A
completion that the caller suppresses (IOSQE_CQE_SKIP_SUCCESS), or that cannot be tied to its request, leaves a
`kernel_io_uring_request`, made when the request was accepted: what was asked for is known, what came of it is not.
What a multishot request received is known by the ring and the caller's user_data; a process can forge such completions
of its own rings by MSG_RING. A kernel that lacks `io_uring_tracepoints` (monitor_start says so; 6.12 and older do, see
[kernels](kernels.md)) shows the set-up of a ring only."""


@dataclass(frozen=True)
class _Operation:
    bits: int
    event: str = ""
    events: tuple[str, ...] = ()
    tail: str = ""

    @property
    def spec(self) -> int:
        """The row of `calls[]`, in the form of probes.Call.spec."""
        found = self.bits | (EVENT[self.event].id << 32 if self.event else 0)
        return found | (_TAILS.index(self.tail) << 24 if self.tail else 0)


def _named(event: str, more: int = 0, *others: str) -> _Operation:
    return _Operation(NAMES | LATER | more, event, (event, *others), "uring_names")


def _socket(operation: int, event: str) -> _Operation:
    return _Operation(operation, "", (event,), "uring_socket")


_READS, _WRITES = _Operation(READ, "", ("file_read",)), _Operation(WRITE, "", ("file_write",))
_RECEIVES, _SENDS = _Operation(READ, "", ("socket_receive",)), _Operation(WRITE, "", ("socket_send",))
_BOTH = {_READS: ("file_read", "socket_receive"), _WRITES: ("file_write", "socket_send")}
_SEEN: dict[str, _Operation] = {
    **dict.fromkeys(("READV", "READ_FIXED", "READ", "READ_MULTISHOT", "READV_FIXED"), _READS),
    **dict.fromkeys(("WRITEV", "WRITE_FIXED", "WRITE", "WRITEV_FIXED"), _WRITES),
    **dict.fromkeys(("RECV", "RECV_ZC"), _RECEIVES),
    "RECVMSG": _Operation(READ, "", ("socket_receive", "file_receive")),
    **dict.fromkeys(("SENDMSG", "SEND", "SEND_ZC", "SENDMSG_ZC"), _SENDS),
    **dict.fromkeys(("SPLICE", "TEE"), _Operation(READ | PAIR, "", ("file_read", "file_write"))),
    **dict.fromkeys(("OPENAT", "OPENAT2"), _Operation(OPEN | LATER, "", ("file_open",))),
    "CLOSE": _Operation(CLOSE, "", ("file_close", "socket_close")),
    "RENAMEAT": _named("file_rename"),
    "UNLINKAT": _named("file_delete", RMDIR, "file_rmdir"),
    "MKDIRAT": _named("file_mkdir"),
    "SYMLINKAT": _named("file_symlink"),
    "LINKAT": _named("file_link"),
    "SETXATTR": _named("file_xattr"),
    "FSETXATTR": _Operation(OBJECT | LATER, "file_xattr", ("file_xattr",), "uring_object"),
    "FTRUNCATE": _Operation(OBJECT, "file_truncate", ("file_truncate",), "uring_object"),
    "CONNECT": _socket(CONNECT | LATER, "socket_connect"),
    "BIND": _socket(BIND, "socket_bind"),
    "LISTEN": _socket(LISTEN, "socket_listen"),
    "ACCEPT": _socket(ACCEPT, "socket_accept"),
}
EVENTS = {name: _BOTH.get(operation, operation.events) for name, operation in _SEEN.items()}
"""Operation -> the events that show it."""


def reasons() -> dict[str, str]:
    """Name of an operation -> why it is not seen."""
    return {name: reason for reason, names in UNSEEN.items() for name in names.split()}


def calls(profile: str) -> dict[int, int]:
    """The operations' rows of the `calls` map."""
    found = {}
    for name, operation in _SEEN.items():
        quiet = profile == "minimal" and operation.bits & 0xFF not in MINIMAL
        found[AT + IO_URING_OPERATIONS.index(name)] = operation.spec | (LEFT_OUT if quiet else 0)
    return found


# ---- what the programs read ---------------------------------------------------------------------------------------------

_MEMBERS = """
io_kiocb: file opcode flags cqe.user_data cqe.fd ctx tctx async_data
io_uring_task: task
io_open: dfd file_slot filename how.flags
io_rename: old_dfd new_dfd oldpath newpath flags
io_unlink: dfd flags filename
io_mkdir: dfd mode filename
io_link: old_dfd new_dfd oldpath newpath flags
io_close: fd file_slot
io_connect: addr addr_len
io_listen: backlog
io_accept: file_slot
io_splice: splice_fd_in flags
io_ftrunc: len
io_sr_msg: umsg
io_async_msghdr: namelen
io_xattr: filename ctx.kname
io_ring_ctx: file_table.data.nr file_table.data.nodes
io_rsrc_node: file_ptr
io_uring_cqe: user_data res flags
filename: name
task_struct: flags io_uring
"""
_TRACEPOINTS = {"io_uring_submit_req": 1, "io_uring_complete": 3, "io_uring_cqe_overflow": 5}
"""Tracepoint -> how many arguments the programs expect."""


def offsets(btf: Btf) -> dict[str, int] | None:
    """Macros OFF_struct__member of what the programs for io_uring read; None where this kernel has not all of it."""
    found: dict[str, int] = {}
    for line in _MEMBERS.strip().splitlines():
        struct, _, members = line.partition(":")
        for member in members.split():
            at = btf.offset(struct, member)
            if at is None:
                return None
            found[f"OFF_{struct}__{member.replace('.', '__')}"] = at
    as_expected = all(btf.tracepoint_arguments(name) == count for name, count in _TRACEPOINTS.items())
    return found if as_expected and (btf.size("io_kiocb") or 1 << 20) <= 256 else None


def defines(btf: Btf) -> dict[str, int]:
    """Every macro that bpf/uring.c needs; only where `offsets` finds all."""
    found = dict(offsets(btf) or {})
    found["SIZE_io_kiocb"] = btf.size("io_kiocb") or 0
    found["ID_io_uring_task"] = btf.type_id("io_uring_task") or 0
    found |= {f"URING_{name}": number for number, name in enumerate(IO_URING_OPERATIONS)}
    tails = {name.removeprefix("uring_"): index for index, name in enumerate(_TAILS)}
    found |= {f"URING_TAIL_{name.upper()}": index for name, index in tails.items()} | {"URING_TAIL_SELF": 0}
    bits = [btf.enum_value(None, name) for name in ("REQ_F_APOLL_MULTISHOT_BIT", "REQ_F_MULTISHOT_BIT")]
    found["REQ_MULTISHOT"] = sum(1 << bit for bit in bits if bit is not None)
    return found
