"""The operations of io_uring: which are seen as what, and what the programs do with each.

Owns names and numbers of operations; never loads a program and never reads a ring.
"""

from __future__ import annotations

HOOK = "io_uring_complete"
HOOKS: tuple[str, ...] = ()

# include/uapi/linux/io_uring.h, enum io_uring_op; a number never changes
_NAMES = """
        NOP READV WRITEV FSYNC READ_FIXED WRITE_FIXED POLL_ADD POLL_REMOVE SYNC_FILE_RANGE SENDMSG RECVMSG TIMEOUT
        TIMEOUT_REMOVE ACCEPT ASYNC_CANCEL LINK_TIMEOUT CONNECT FALLOCATE OPENAT CLOSE FILES_UPDATE STATX READ WRITE
        FADVISE MADVISE SEND RECV OPENAT2 EPOLL_CTL SPLICE PROVIDE_BUFFERS REMOVE_BUFFERS TEE SHUTDOWN RENAMEAT
        UNLINKAT MKDIRAT SYMLINKAT LINKAT MSG_RING FSETXATTR SETXATTR FGETXATTR GETXATTR SOCKET URING_CMD SEND_ZC
        SENDMSG_ZC READ_MULTISHOT WAITID FUTEX_WAIT FUTEX_WAKE FUTEX_WAITV FIXED_FD_INSTALL FTRUNCATE BIND LISTEN
        RECV_ZC EPOLL_WAIT READV_FIXED WRITEV_FIXED PIPE NOP128 URING_CMD128"""
OPERATIONS = tuple(_NAMES.split())
EVENTS: dict[str, tuple[str, ...]] = {}
UNSEEN: dict[str, str] = {
    "waits, wakes, or is about the ring itself": """
        NOP NOP128 POLL_ADD POLL_REMOVE TIMEOUT TIMEOUT_REMOVE ASYNC_CANCEL LINK_TIMEOUT FILES_UPDATE EPOLL_CTL
        EPOLL_WAIT PROVIDE_BUFFERS REMOVE_BUFFERS WAITID FUTEX_WAIT FUTEX_WAKE FUTEX_WAITV""",
    "asks, or moves no data": "STATX FSYNC SYNC_FILE_RANGE FADVISE MADVISE FALLOCATE FGETXATTR GETXATTR",
    "as the system call of that name": "SOCKET SHUTDOWN",
    "no event yet": """
        READV WRITEV READ_FIXED WRITE_FIXED SENDMSG RECVMSG ACCEPT CONNECT OPENAT CLOSE READ WRITE SEND RECV OPENAT2
        SPLICE TEE RENAMEAT UNLINKAT MKDIRAT SYMLINKAT LINKAT MSG_RING FSETXATTR SETXATTR SEND_ZC SENDMSG_ZC
        READ_MULTISHOT FIXED_FD_INSTALL FTRUNCATE BIND LISTEN RECV_ZC READV_FIXED WRITEV_FIXED PIPE""",
    "a driver's own command (NVMe passthrough, socket options, ublk): the open of the device is seen": "URING_CMD URING_CMD128",
}
NOTES = "The requests of io_uring are not seen yet."


def reasons() -> dict[str, str]:
    """Name of an operation -> why it is not seen."""
    return {name: reason for reason, names in UNSEEN.items() for name in names.split()}
