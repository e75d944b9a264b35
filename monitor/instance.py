"""One running monitor: its right to start, its lock, the small files it leaves for others.

Owns the conditions of a start and their exit status; never captures.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

EXIT_OK, EXIT_FAILURE, EXIT_RUNNING, EXIT_CAPABILITY = 0, 1, 75, 77
_NEEDED = {21: "CAP_SYS_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF"}


class StartError(Exception):
    """The monitor cannot start; `status` is the exit status, the text says why and what to do."""

    def __init__(self, message: str, status: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.status = status


def check_capabilities() -> None:
    """Raises StartError (77) with the names of the capabilities that are missing."""
    with open("/proc/self/status", encoding="ascii") as status:
        effective = int(next(line for line in status if line.startswith("CapEff")).split()[1], 16)
    if effective >> 21 & 1 or (effective >> 38 & 1 and effective >> 39 & 1):
        return
    missing = [name for bit, name in _NEEDED.items() if bit != 21 and not effective >> bit & 1]
    raise StartError(
        f"capability missing: {', '.join(missing)}; run as root, or give the service these capabilities",
        EXIT_CAPABILITY,
    )


class Lock:
    """One monitor per run_dir: a file with the pid, locked as long as the monitor runs. `claim` does so for the pins."""

    _pins = -1

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._path = run_dir / "lock"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise StartError(f"another monitor runs: process {holder} holds {self._path}", EXIT_RUNNING) from None
        left = os.pread(self._file, 32, 0).strip()
        self.before = int(left) if left.isdigit() else 0
        """process id of the monitor before this one, if it did not end in order; else 0"""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def claim(self, pin_dir: Path) -> None:
        """The captures below `pin_dir` are this monitor's: one with another run_dir must not take them away."""
        pin_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pins = os.open(pin_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(self._pins, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = lock_holder(self._pins)
            os.close(self._pins)
            who = f"process {holder}" if holder else "a process that this one cannot see"
            raise StartError(f"another monitor, with another run_dir, uses {pin_dir}: {who}", EXIT_RUNNING) from None

    def release(self) -> None:
        """The next monitor may start; this one ended in order."""
        os.ftruncate(self._file, 0)
        os.close(self._file)
        if self._pins >= 0:
            os.close(self._pins)


def lock_holder(descriptor: int) -> int:
    """Process id of who holds a lock (flock) on this open file; 0: nobody that /proc/locks shows."""
    about = os.fstat(descriptor)
    wanted = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    with open("/proc/locks", encoding="ascii") as locks:  # "1: FLOCK  ADVISORY  WRITE 411 00:1b:5 0 EOF"
        for line in locks:
            words = line.split()
            if len(words) >= 6 and words[1] == "FLOCK" and words[5] == wanted:
                return max(0, int(words[4]))
    return 0


def write_file(path: Path, data: bytes) -> None:
    """A small file of ours, 0640, never through a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def resident_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
