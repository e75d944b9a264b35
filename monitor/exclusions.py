"""Own rules made ready for the programs: what their paths stand for now.

Owns the step from a path to an identity that the kernel can compare; never reads the configuration, never counts.
"""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

from monitor.config_exclusions import ACTS, Exclusion
from monitor.encode import kernel_device
from monitor.kernel import rings

MAGIC = {
    "bpf": 0xCAFE4A11, "btrfs": 0x9123683E, "cgroup2": 0x63677270, "debugfs": 0x64626720, "erofs": 0xE0F5E1E2,
    "exfat": 0x2011BAB0, "ext4": 0xEF53, "f2fs": 0xF2F52010, "fuse": 0x65735546, "nfs": 0x6969, "overlay": 0x794C7630,
    "proc": 0x9FA0, "ramfs": 0x858458F6, "securityfs": 0x73636673, "smb2": 0xFE534D42, "squashfs": 0x73717368,
    "sysfs": 0x62656572, "tmpfs": 0x01021994, "tracefs": 0x74726163, "vfat": 0x4D44, "xfs": 0x58465342,
}  # fmt: skip
"""s_magic by type (Linux include/uapi/linux/magic.h). ext2, ext3 and ext4 have one."""
# enum of bpf/common.h
_EXECUTABLE, _DIRECTORY, _FILE_SYSTEM, _CGROUP, _DEVICE, _USER, _READERS, _WRITERS, _SENSITIVE = (
    1 << i for i in range(9)
)


class NotReady(Exception):
    """A rule that cannot hold now, in words."""


def _identity(path: Path, about: os.stat_result) -> tuple[int, int]:
    if not about.st_ino:
        raise NotReady(f"{path} has no inode number")
    return about.st_ino, kernel_device(about.st_dev)


def _about(path: Path) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise NotReady(f"{path}: {os.strerror(error.errno or 5)}") from None


def _program(path: Path) -> tuple[int, int]:
    about = _about(path)
    if not stat.S_ISREG(about.st_mode):
        raise NotReady(f"{path} is not a file")
    if about.st_uid or about.st_mode & 0o022:
        raise NotReady(f"{path} can be changed by others than root, who could hide behind it")
    return _identity(path, about)


def _directory(path: Path) -> tuple[int, int]:
    about = _about(path)
    if not stat.S_ISDIR(about.st_mode):
        raise NotReady(f"{path} is not a directory")
    return _identity(path, about)


def _cgroup(path: Path) -> int:
    """Id of a cgroup: the inode number of its directory (on 64-bit kernels)."""
    if not stat.S_ISDIR(_about(path).st_mode) or file_system(path) != MAGIC["cgroup2"]:
        raise NotReady(f"{path} is no directory of a cgroup file system of version 2")
    return _about(path).st_ino


def file_system(path: Path) -> int:
    """s_magic of the file system that `path` is on (statfs(2)); 0 when it cannot be told."""
    found = (ctypes.c_uint64 * 32)()
    failed = ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), ctypes.byref(found))
    return 0 if failed else int(found[0]) & 0xFFFFFFFF


def resolve(rule: Exclusion) -> rings.Exclusion:
    """The rule by the identities that its paths have at this moment. Raises NotReady."""
    parts = {
        _EXECUTABLE: rule.executable, _DIRECTORY: rule.directory, _FILE_SYSTEM: rule.filesystem, _CGROUP: rule.cgroup,
        _SENSITIVE: rule.sensitive, _READERS: rule.direction == "read", _WRITERS: rule.direction == "write",
    }  # fmt: skip
    selects = sum(bit for bit, given in parts.items() if given)
    selects |= _DEVICE if rule.device is not None else 0
    selects |= _USER if rule.uid is not None else 0
    return rings.Exclusion(
        rule.name,
        selects,
        sum(1 << ACTS.index(act) for act in rule.events),
        executable=_program(rule.executable) if rule.executable else (0, 0),
        directory=_directory(rule.directory) if rule.directory else (0, 0),
        magic=MAGIC[rule.filesystem] if rule.filesystem else 0,
        cgroup=_cgroup(rule.cgroup) if rule.cgroup else 0,
        device=rule.device or 0,
        uid=rule.uid or 0,
    )


def resolved(rules: tuple[Exclusion, ...]) -> tuple[tuple[rings.Exclusion, ...], dict[str, str]]:
    """Each rule in its place, and why some match nothing for now: these have no events."""
    found, waiting = [], {}
    for rule in rules:
        try:
            found.append(resolve(rule))
        except NotReady as error:
            waiting[rule.name] = str(error)
            found.append(rings.Exclusion(rule.name, 0, 0))
    return tuple(found), waiting
