"""The log's directory and the files in it, opened only where they can be trusted with the log.

Owns modes, owners and what is refused; never writes a line.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from monitor.logfiles import is_log_name

FILE_MODE = 0o640
DIRECTORY_MODE = 0o750
_OPEN_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class LogError(Exception):
    """The log cannot be written, opened or rotated: `reason` is the errno's name, `path` the file or directory."""

    def __init__(self, number: int, path: Path | str, what: str) -> None:
        self.errno = number
        self.reason = errno.errorcode.get(number, f"E{number}")
        self.path = str(path)
        super().__init__(f"{self.path}: {what} ({self.reason})")


def open_directory(path: Path, group: int | None, *, create: bool = True) -> int:
    """A descriptor of the log's directory, which is made if there is none. Raises LogError."""
    try:
        if create and not os.path.lexists(path):
            _make_directory(path, group)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        number = error.errno or errno.EIO
        what = f"cannot open the log directory: {os.strerror(number)}"
        if path.is_symlink():
            number, what = errno.ELOOP, "the log directory is a symbolic link; name the directory itself"
        raise LogError(number, path, what) from None
    status = os.fstat(fd)
    what = _unsafe(status)
    if what:
        os.close(fd)
        raise LogError(errno.EPERM, path, f"the log directory is refused: {what}")
    return fd


def _make_directory(directory: Path, group: int | None) -> None:
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=DIRECTORY_MODE)
        if group is not None:
            os.chown(path, -1, group, follow_symlinks=False)
        path.chmod(DIRECTORY_MODE)


def open_live(directory: int, path: Path, group: int | None) -> tuple[int, bool]:
    """(descriptor, whether it was made) of the file that is appended to, `path` being its name. Raises LogError."""
    try:
        for _ in range(100):
            with contextlib.suppress(FileExistsError):
                fd = os.open(path.name, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL, FILE_MODE, dir_fd=directory)
                created = True
                break
            with contextlib.suppress(FileNotFoundError):  # rotated away since: try to make it again
                fd = open_checked(directory, path)
                created = False
                break
        else:
            raise LogError(errno.EBUSY, path, "appears and disappears")
    except OSError as error:
        number = error.errno or errno.EIO
        raise LogError(number, path, f"cannot open: {os.strerror(number)}") from None
    try:
        if group is not None and os.fstat(fd).st_gid != group:
            os.fchown(fd, -1, group)
        os.fchmod(fd, FILE_MODE if created else os.fstat(fd).st_mode & FILE_MODE)
        return fd, created
    except OSError as error:
        os.close(fd)
        number = error.errno or errno.EIO
        raise LogError(number, path, f"cannot prepare: {os.strerror(number)}") from None


def open_checked(directory: int, path: Path) -> int:
    """Open an existing log file for appending. Raises OSError, or LogError for a file that must not be used."""
    name = path.name
    before = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(before.st_mode):
        raise LogError(errno.ELOOP, path, "is a symbolic link, and refused")
    if not stat.S_ISREG(before.st_mode):  # opening a device or FIFO may already do something
        raise LogError(errno.EINVAL, path, "is not a regular file, and refused")
    fd = os.open(name, _OPEN_FLAGS, dir_fd=directory)
    status = os.fstat(fd)
    number, what = errno.EPERM, _unsafe(status)
    if not os.path.samestat(before, status):
        number, what = errno.EBUSY, "it was exchanged while being opened"
    elif status.st_nlink > 1:
        number, what = errno.EMLINK, f"it has {status.st_nlink} names (hard links)"
    if what:
        os.close(fd)
        raise LogError(number, path, f"is refused: {what}")
    return fd


def log_names(directory: int) -> list[str]:
    """Names of the log's files in the directory. Raises OSError."""
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if is_log_name(entry.name))


def _unsafe(status: os.stat_result) -> str:
    """Why a file or directory must not be trusted with the log, or nothing."""
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to uid {status.st_uid}"
    if status.st_mode & 0o022:
        who = "others" if status.st_mode & 0o002 else "its group"
        return f"{who} can write it (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""
