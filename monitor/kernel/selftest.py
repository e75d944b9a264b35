"""Known facts read through the very probes at start: a wrong offset must never become a wrong line.

Owns the comparison; never corrects anything.
"""

from __future__ import annotations

import ctypes
import os
import platform
import tempfile
import threading
from collections.abc import Iterator

from monitor import decode, naming
from monitor.kernel.rings import Capture

_IDS = ("uid", "euid", "gid", "egid")
_SET_IDS = {"x86_64": (117, 119), "aarch64": (147, 149)}
"""numbers of setresuid and setresgid"""
_PR_SET_SECUREBITS, _NO_SETUID_FIXUP = 28, 1 << 2


class SelfTestError(Exception):
    """A probe read something else than what is known; the text names the fields."""


def own_identity(capture: Capture) -> tuple[int, int]:
    """(process id in the initial namespace, start time in CLOCK_BOOTTIME ns) of this process, as the probes see it."""
    values = decode.control(capture.ask(-1)).values
    return values["tgid"], values["start"]


def check(capture: Capture) -> None:
    """Reads this process and a file that it has just made. Raises SelfTestError naming each field that is wrong."""
    with tempfile.TemporaryDirectory(prefix="ebpf-monitor-") as directory:
        path = os.path.join(os.path.realpath(directory), "self-test")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            record = decode.control(capture.ask(descriptor))
            facts = [*_facts(record, path, os.fstat(descriptor)), *_identities(capture)]
            wrong = [f"{name}: read {got!r}, is {known!r}" for name, got, known in facts if got != known]
        finally:
            os.close(descriptor)
    if wrong:
        raise SelfTestError("the probes misread this kernel: " + "; ".join(wrong))


def _identities(capture: Capture) -> list[tuple[str, object, object]]:
    """Root's ids are all 0, so that one member would pass for another: reads them of a thread whose ids all differ.

    Where the service may not change its ids there is nothing to compare.
    """
    found: list[tuple[str, object, object]] = []
    libc = ctypes.CDLL(None, use_errno=True)
    calls = _SET_IDS.get(platform.machine())

    def ask() -> None:
        # The raw calls change this thread alone; its capabilities stay with that bit.
        if calls is None or libc.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0):
            return
        if libc.syscall(calls[1], 60004, 60005, 60006) or libc.syscall(calls[0], 60001, 60002, 60003):
            return
        values = decode.control(capture.ask(-1)).values
        found.extend(
            (f"cred.{name}", values[name], known)
            for name, known in zip(_IDS, (60001, 60002, 60004, 60005), strict=True)
        )

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return found


def _facts(record: decode.Record, path: str, about: os.stat_result) -> Iterator[tuple[str, object, object]]:
    values, blobs = record.values, record.blobs
    with open("/proc/self/stat", "rb") as stat:
        text = stat.read()
    ticks = int(text.rsplit(b")", 1)[1].split()[19])
    with open("/proc/self/comm", "rb") as comm:
        yield "task_struct.comm", bytes(values["comm"]).split(b"\0")[0], comm.read().rstrip(b"\n")
    yield "task_struct.start_boottime", values["start"] // (1_000_000_000 // os.sysconf("SC_CLK_TCK")), ticks
    if os.readlink("/proc/self/ns/pid") == "pid:[4026531836]":  # numbers agree in the initial pid namespace only
        yield "task_struct.tgid", values["tgid"], os.getpid()
        yield "task_struct.real_parent", values["ppid"], os.getppid()
    for name, known in zip(_IDS, (os.getuid(), os.geteuid(), os.getgid(), os.getegid()), strict=True):
        yield f"cred.{name}", values[name], known
    yield "inode.i_ino", values["ino"], about.st_ino
    yield "inode.i_mode", values["mode"], about.st_mode
    yield (
        "super_block.s_dev",
        (values["dev"] >> 20, values["dev"] & 0xFFFFF),
        (os.major(about.st_dev), os.minor(about.st_dev)),
    )
    yield "file.f_path", naming.path(blobs.get("name", b""), values["flags"]), os.fsencode(path)
    yield "fs_struct.pwd", naming.path(blobs.get("directory", b""), 0), os.getcwdb()
    yield "mm_struct.exe_file", naming.path(blobs.get("executable", b""), 0), os.fsencode(os.readlink("/proc/self/exe"))
