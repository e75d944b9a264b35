"""What profile `standard` may call quiet: which file systems are there for long, and which times a set clock has made doubtful.

Owns the contents of the programs' `calm` map but for their counter. A file system counts when it is of a local kind, is mounted
here without nosuid (with it, users mount), and has been there since the monitor's start or for `quiet_age`. It is watched
(inotify), so that one which was unmounted is forgotten at once, whoever gets its device number next.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from monitor.encode import kernel_device
from monitor.kernel import rings
from monitor.kernel.rings import Words

LOCAL = {
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "f2fs",
    "zfs",
    "bcachefs",
    "jfs",
    "reiserfs",
    "erofs",
    "squashfs",
    "overlay",
    "iso9660",
    "vfat",
}
_IN_UNMOUNT, _IN_IGNORED, _IN_ONLYDIR = 0x2000, 0x8000, 0x01000000
_IN_DELETE_SELF = 0x400
_EVENT = struct.Struct("<iIII")
_CLOCK_TAI = 11
_AGAIN_S = 10.0


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo: the kernel's dev_t, mount point, type, and whether programs may gain rights there."""

    device: int
    point: bytes
    kind: str
    nosuid: bool


def mounts(text: bytes) -> list[Mount]:
    """The mounts of a mountinfo file (proc_pid_mountinfo(5)). Lines of another form are left out."""
    found = []
    for line in text.splitlines():
        before, dash, behind = line.partition(b" - ")
        fields, kind = before.split(b" "), behind.split(b" ", 1)[0]
        major, colon, minor = fields[2].partition(b":") if len(fields) > 5 else (b"", b"", b"")
        if dash and colon and major.isdigit() and minor.isdigit():
            point = _unescaped(fields[4])
            found.append(
                Mount(int(major) << 20 | int(minor), point, kind.decode("latin-1"), b"nosuid" in fields[5].split(b","))
            )
    return found


def _unescaped(name: bytes) -> bytes:
    for code, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        name = name.replace(code, byte)
    return name


class Settled:
    """Keeps the map `calm` true. `look` each second, and after anything that was mounted."""

    def __init__(self, calm: Words, quiet_age_s: int, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
        self._calm, self._devices = calm, calm[rings.DEVICES :].view("u4")
        self.quiet_age_s = quiet_age_s
        self._mountinfo = mountinfo
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watch = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._since: dict[int, float] = {}
        self._watched: dict[int, int] = {}
        self._begun, self._next = False, float("-inf")

    def close(self) -> None:
        """Ends the watches; nothing is quiet from now on."""
        self._devices[:] = 0
        if self._watch >= 0:
            os.close(self._watch)
            self._watch = -1

    def step(self, now_s: int, before_s: int) -> None:
        """The clock was set from `before_s` to `now_s` (seconds since 1970) by somebody whom the programs did not see."""
        first, last = min(now_s, before_s) - self.quiet_age_s - 2, max(now_s, before_s) + 2
        if self._calm[rings.SUSPECT_TO]:
            first = min(first, int(self._calm[rings.SUSPECT_FROM]))
            last = max(last, int(self._calm[rings.SUSPECT_TO]))
        self._calm[rings.SUSPECT_FROM], self._calm[rings.SUSPECT_TO] = max(first, 0), last

    @property
    def stirred(self) -> bool:
        """Something was mounted or unmounted since the last look: until then nothing is quiet."""
        return int(self._calm[rings.CHANGES]) != int(self._calm[rings.SEEN])

    def look(self, now: float | None = None) -> None:
        """Forgets what was unmounted, notes what is new, tells the programs."""
        moment = time.monotonic() if now is None else now
        seen = int(self._calm[rings.CHANGES])  # first: what changes from here on is looked at next time
        self._calm[rings.TAI_OFFSET] = round(time.clock_gettime(_CLOCK_TAI) - time.time())
        if self._forget() or seen != int(self._calm[rings.SEEN]) or moment >= self._next:
            self._next = moment + _AGAIN_S
            self._find(moment)
        known = [device for device, since in self._since.items() if moment - since >= self.quiet_age_s]
        known = known[: rings.KNOWN_FILE_SYSTEMS]
        self._devices[:] = [*known, *[0] * (rings.KNOWN_FILE_SYSTEMS - len(known))]
        self._calm[rings.SEEN] = seen

    def _find(self, moment: float) -> None:
        present = self._present()
        for device in [device for device in self._since if device not in present]:
            del self._since[device]
        for device, point in present.items():
            if device not in self._since and self._watches(device, point):
                self._since[device] = moment if self._begun else float("-inf")
        self._begun = True

    def _present(self) -> dict[int, bytes]:
        try:
            listed = mounts(self._mountinfo.read_bytes())
        except OSError:
            return {}
        return {one.device: one.point for one in reversed(listed) if one.kind in LOCAL and not one.nosuid}

    def _watches(self, device: int, point: bytes) -> bool:
        """Whether the end of the file system mounted at `point` will be told."""
        number = self._libc.inotify_add_watch(self._watch, point, _IN_DELETE_SELF | _IN_ONLYDIR)
        if number < 0:
            return False
        try:
            about = os.stat(point)
        except OSError:
            return False
        # another mount may stand over it, and btrfs gives its parts devices of their own
        if os.major(about.st_dev) and kernel_device(about.st_dev) != device:
            return False
        self._watched[number] = device
        return True

    def _forget(self) -> bool:
        """Reads which watches have ended with their file systems; whether there were any."""
        try:
            told = os.read(self._watch, 65536)
        except OSError:
            return False
        at, found = 0, False
        while at < len(told):
            number, mask, _, size = _EVENT.unpack_from(told, at)
            at += _EVENT.size + size
            device = self._watched.pop(number, None) if mask & (_IN_UNMOUNT | _IN_IGNORED) else None
            if device is not None:
                self._since.pop(device, None)
                found = True
        return found
