"""The processes that were there before the monitor, read from /proc once at start.

Owns the reading of /proc/PID and its formats (proc(5)); never follows what happens afterwards (the kernel's events do)
and never turns bytes into text.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

USER_HZ = 100
"""Ticks per second of the times in /proc/PID/stat, on every Linux architecture that is still supported."""

TICK_NS = 1_000_000_000 // USER_HZ
"""Nanoseconds in a tick."""

MAX_ARGS_BYTES = 16_384
"""Bytes of a command line that are kept by default."""

_PF_KTHREAD = 0x00200000  # include/linux/sched.h
_DELETED = b" (deleted)"
_GONE = frozenset({errno.ENOENT, errno.ESRCH})


class ProcfsError(Exception):
    """/proc itself cannot be listed; the message names the directory and the reason."""


class ProcessSkippedError(Exception):
    """A process could not be read; the message is the reason: "gone", or the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ScannedProcess:
    """One process (thread group) as /proc showed it. Strings are the kernel's bytes.

    `start_ticks` is stat's field 22 in USER_HZ ticks since boot, rounded down; `uid`, `gid` are effective, `real_*`
    real. `args` is () for a kernel thread, a zombie, an erased command line, and for an instant in the middle of an
    exec; `args_bytes` is the command line's whole size, more than `args` holds if `args_truncated`.
    `executable` and `cwd` are None where there is none or it
    may not be read; the kernel's " (deleted)" is taken off `executable` and told in `executable_deleted`. `cgroup` is
    b"/" in the root group.
    """

    pid: int
    ppid: int
    start_ticks: int
    args: tuple[bytes, ...]
    args_bytes: int
    args_truncated: bool
    executable: bytes | None
    executable_deleted: bool
    cwd: bytes | None
    comm: bytes
    uid: int
    gid: int
    real_uid: int
    real_gid: int
    cgroup: bytes
    is_kernel_thread: bool


def same_start(start_ns: int, start_ticks: int) -> bool:
    """Whether a kernel start time (task_struct's start_boottime, ns) and a scanned one can be those of one process.

    The kernel rounds down when it shows ticks: Linux fs/proc/array.c, nsec_to_clock_t.
    """
    return start_ns // TICK_NS == start_ticks


def scan(
    proc: Path = Path("/proc"),
    *,
    max_args_bytes: int = MAX_ARGS_BYTES,
    on_skip: Callable[[int, str], None] | None = None,
) -> Iterator[ScannedProcess]:
    """Every process of a proc file system, in the order of pids.

    One that ends meanwhile, or may not be read at all, or whose files do not parse is left out and told to `on_skip`
    with its pid and the reason. ProcfsError if `proc` cannot be listed.
    """
    try:
        pids = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isascii() and entry.name.isdigit())
    except OSError as error:
        raise ProcfsError(f"{proc}: {error.strerror}") from error
    for pid in pids:
        try:
            yield read_process(proc, pid, max_args_bytes=max_args_bytes)
        except ProcessSkippedError as skipped:
            if on_skip is not None:
                on_skip(pid, str(skipped))


def read_process(proc: Path, pid: int, *, max_args_bytes: int = MAX_ARGS_BYTES) -> ScannedProcess:
    """The process `pid`, or ProcessSkippedError.

    All files are opened under one descriptor of /proc/PID, which the kernel ties to this very process: a successor with
    the same pid cannot slip in between two of them.
    """
    try:
        directory = os.open(proc / str(pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise _skipped("", error) from error
    try:
        return _read(directory, pid, max_args_bytes)
    finally:
        os.close(directory)


def _read(directory: int, pid: int, max_args_bytes: int) -> ScannedProcess:
    comm, ppid, flags, start_ticks = parse_stat(_content(directory, "stat"))
    real_uid, uid, real_gid, gid = parse_ids(_content(directory, "status"))
    command_line, args_bytes = _bounded(directory, "cmdline", max_args_bytes)
    executable, deleted = _executable(directory)
    return ScannedProcess(
        pid=pid,
        ppid=ppid,
        start_ticks=start_ticks,
        args=parse_args(command_line),
        args_bytes=args_bytes,
        args_truncated=args_bytes > len(command_line),
        executable=executable,
        executable_deleted=deleted,
        cwd=_link(directory, "cwd"),
        comm=comm,
        uid=uid,
        gid=gid,
        real_uid=real_uid,
        real_gid=real_gid,
        cgroup=_cgroup(directory),
        is_kernel_thread=bool(flags & _PF_KTHREAD),
    )


def parse_stat(line: bytes) -> tuple[bytes, int, int, int]:
    """(comm, ppid, PF_ flags, start in ticks) of /proc/PID/stat. ProcessSkippedError if it is not one.

    The name may hold spaces, newlines and parentheses, all that follows it is numbers: it ends at the last parenthesis.
    """
    first, last = line.find(b"("), line.rfind(b")")
    fields = line[last + 1 :].split()
    try:
        if not 0 < first < last:
            raise ValueError("no name in parentheses")
        # proc(5) counts from 1, and the first field here is its field 3.
        return line[first + 1 : last], int(fields[1]), int(fields[6]), int(fields[19])
    except (ValueError, IndexError) as error:
        raise ProcessSkippedError(f"stat: {error}") from error


def parse_ids(status: bytes) -> tuple[int, int, int, int]:
    """(real uid, effective uid, real gid, effective gid) of /proc/PID/status. ProcessSkippedError without them.

    The kernel escapes newlines in the Name line, so no name can forge a line here.
    """
    found: dict[bytes, list[bytes]] = {}
    for line in status.split(b"\n"):
        key, _, value = line.partition(b":")
        if key in (b"Uid", b"Gid"):
            found.setdefault(key, value.split())
    try:
        uids, gids = found[b"Uid"], found[b"Gid"]
        return int(uids[0]), int(uids[1]), int(gids[0]), int(gids[1])
    except (KeyError, ValueError, IndexError) as error:
        raise ProcessSkippedError(f"status: {error!r}") from error


def parse_args(command_line: bytes) -> tuple[bytes, ...]:
    """The arguments in /proc/PID/cmdline: each ends with a NUL, but maybe the last of a program that rewrote them."""
    if not command_line:
        return ()
    return tuple(command_line.removesuffix(b"\0").split(b"\0"))


def parse_cgroup(content: bytes) -> bytes:
    """The cgroup path in /proc/PID/cgroup (cgroups(7)); b"/" if there is none.

    The unified hierarchy's; where processes stand at its root (hybrid set-ups), systemd's own one, else the first that
    says more than the root. No path holds a newline: the kernel refuses such cgroup names.
    """
    paths: list[tuple[int, bytes]] = []
    for line in content.split(b"\n"):
        fields = line.split(b":", 2)
        if len(fields) == 3 and fields[2] not in (b"", b"/"):
            rank = 0 if fields[0] == b"0" and not fields[1] else 1 if fields[1] == b"name=systemd" else 2
            paths.append((rank, fields[2]))
    return min(paths, key=lambda ranked: ranked[0])[1] if paths else b"/"


def _cgroup(directory: int) -> bytes:
    try:
        descriptor = os.open("cgroup", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return b"/"  # a kernel without cgroups has no such file; whether the process is gone was seen before
    except OSError as error:
        raise _skipped("cgroup", error) from error
    return parse_cgroup(_drained(descriptor, "cgroup", None)[0])


def _executable(directory: int) -> tuple[bytes | None, bool]:
    target = _link(directory, "exe")
    if target is None or not target.endswith(_DELETED):
        return target, False
    # A file may really be called so; only the file itself knows whether it has a name left.
    try:
        links = os.stat("exe", dir_fd=directory).st_nlink
    except OSError:
        links = 0
    return (target, False) if links else (target.removesuffix(_DELETED), True)


def _link(directory: int, name: str) -> bytes | None:
    try:
        return os.readlink(os.fsencode(name), dir_fd=directory)
    except OSError:
        # A kernel thread or zombie has none, another user's may be closed to us, a path over a page cannot be shown.
        return None


def _content(directory: int, name: str) -> bytes:
    return _bounded(directory, name, None)[0]


def _bounded(directory: int, name: str, limit: int | None) -> tuple[bytes, int]:
    """(the first `limit` bytes of a file, its whole size)."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    except OSError as error:
        raise _skipped(name, error) from error
    return _drained(descriptor, name, limit)


def _drained(descriptor: int, name: str, limit: int | None) -> tuple[bytes, int]:
    """As `_bounded`, of an open file, which is closed."""
    kept, size = bytearray(), 0
    try:
        while chunk := os.read(descriptor, 1 << 16):
            size += len(chunk)
            kept += chunk if limit is None else chunk[: max(0, limit - len(kept))]
    except OSError as error:
        raise _skipped(name, error) from error
    finally:
        os.close(descriptor)
    return bytes(kept), size


def _skipped(name: str, error: OSError) -> ProcessSkippedError:
    if error.errno in _GONE:
        return ProcessSkippedError("gone")
    return ProcessSkippedError(f"{name}: {error.strerror}" if name else str(error.strerror))
