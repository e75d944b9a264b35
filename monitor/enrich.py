"""What turns numbers into names beside an event: users, groups, containers, units, the host, and the identities made of
them.

Owns the passwd and group files' names, the reading of cgroup paths, host facts, entity and event ids; never asks NSS, a
container runtime or the network, any of which can hang or lie.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from monitor import names

# ---------------------------------------------------------------------------------------------------- users and groups

_CHECK_SECONDS = 1.0
_MAX_FILE_BYTES = 64 << 20  # a bound against a runaway file: a million accounts need about as much
_ID = re.compile(rb"[0-9]{1,10}")
_MAX_ID = 0xFFFFFFFE  # the id after it is the kernel's "no id"


class _NameFile:
    """One of passwd(5) and group(5): id -> name, read again when another file or content stands there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[int, str] = {}
        self.malformed = 0
        self.unreadable = 0
        self._identity: tuple[int, ...] | None = None

    def refresh(self) -> bool:
        """Reads the file if it changed; whether the names are other ones now."""
        try:
            # O_NONBLOCK: a FIFO put in the file's place must not stop the monitor.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            return self._failed(error)
        try:
            status = os.fstat(descriptor)
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if identity == self._identity:
                return False
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if status.st_size > _MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, "too large")
            content = _read_up_to(descriptor, _MAX_FILE_BYTES)
        except OSError as error:
            return self._failed(error)
        finally:
            os.close(descriptor)
        before = self.names
        self.names, self.malformed = parse_name_file(content)
        self._identity = identity
        return before != self.names

    def _failed(self, error: OSError) -> bool:
        self._identity = None
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            # Names that were right a second ago are better than none; the count shows that something is wrong.
            self.unreadable += 1
            return False
        before, self.names, self.malformed = self.names, {}, 0
        return bool(before)


def parse_name_file(content: bytes) -> tuple[dict[int, str], int]:
    """(id -> name, number of malformed lines) of a passwd(5) or group(5) file, whose first and third fields are used.

    The first of several lines with one id counts, as in the C library. Comments, blank lines and NIS lines (+, -) are
    not malformed. A name that is not clean text is shown as by `names.text`.
    """
    found: dict[int, str] = {}
    malformed = 0
    for line in content.split(b"\n"):
        if not line.strip() or line.startswith((b"#", b"+", b"-")):
            continue
        fields = line.split(b":")
        if len(fields) < 3 or not fields[0] or not _ID.fullmatch(fields[2]) or int(fields[2]) > _MAX_ID:
            malformed += 1
            continue
        found.setdefault(int(fields[2]), names.text(fields[0])[0])
    return found, malformed


class UserNames:
    """Names of user and group ids by the host's passwd and group files.

    The files are looked at when a name is asked for, at most once a second by `clock` (seconds, monotonic). A missing
    file means no names; one that cannot be read keeps the names known before and is counted. Ids of another user
    namespace are the host's ids mapped, or nobody's: the caller passes kernel (init namespace) ids only.
    """

    def __init__(
        self,
        passwd: Path = Path("/etc/passwd"),
        group: Path = Path("/etc/group"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._users = _NameFile(passwd)
        self._groups = _NameFile(group)
        self._generation = 0
        self._next_check = float("-inf")
        self._check()

    @property
    def generation(self) -> int:
        """Grows when any name changed: what was cached with names in it is then stale."""
        self._check()
        return self._generation

    @property
    def malformed(self) -> int:
        """Malformed lines in the two files as they stand."""
        return self._users.malformed + self._groups.malformed

    @property
    def unreadable(self) -> int:
        """How often a file was there and could not be read."""
        return self._users.unreadable + self._groups.unreadable

    def user(self, uid: int) -> str | None:
        """The user's name, None if the file has none."""
        self._check()
        return self._users.names.get(uid)

    def group(self, gid: int) -> str | None:
        """The group's name, None if the file has none."""
        self._check()
        return self._groups.names.get(gid)

    def _check(self) -> None:
        now = self._clock()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_SECONDS
        changed = [file.refresh() for file in (self._users, self._groups)]
        self._generation += any(changed)


def _read_up_to(descriptor: int, limit: int) -> bytes:
    content = bytearray()
    while len(content) < limit and (chunk := os.read(descriptor, min(1 << 20, limit - len(content)))):
        content += chunk
    return bytes(content)


# ------------------------------------------------------------------------------------------------ containers and units

_HEX_ID = re.compile(rb"[0-9a-f]{64}")
# docker-<id>.scope, cri-containerd-<id>.scope, crio-<id>, libpod-<id>.scope, libpod-payload-<id>, nerdctl-<id>.scope.
# The runtime's own helpers (crio-conmon-, libpod-conmon-) and units named after a container (<id>.service,
# ...-merged.mount) are not in it.
_RUNTIME_ID = re.compile(rb"(?:docker|cri-containerd|crio|libpod|libpod-payload|nerdctl)-([0-9a-f]{64})(?:\.scope)?")
# containerd given a systemd path with the cgroupfs driver: kubepods-burstable-pod<uid>.slice:cri-containerd:<id>
_COLON_ID = re.compile(rb"[^:]+:(?:docker|cri-containerd|crio|nerdctl):([0-9a-f]{64})")
_MACHINE_SCOPE = re.compile(rb"machine-(.+)\.scope")
_NSPAWN_SERVICE = re.compile(rb"systemd-nspawn@(.+)\.service")
_LXC_PAYLOAD = re.compile(rb"lxc\.payload\.(.+)")
_UNIT = re.compile(rb".+\.(?:service|scope|socket|mount|swap)")
_UNIT_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def _unescaped(unit: bytes) -> bytes:
    """systemd-escape(1) undone, but for the slash written as a dash: no machine's name has a slash."""
    return _UNIT_ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), unit)


def container_id(cgroup_path: bytes) -> bytes | None:
    """The container that a cgroup path lies in: its 64 hexadecimal digits where the runtime gives some, else its name.

    Known: docker, containerd (CRI and nerdctl), CRI-O, podman, with systemd or cgroupfs as the driver, LXC,
    systemd-nspawn, Garden. Of nested containers the outermost counts: it was named by the host, inner names are given
    by whoever runs in it. None for everything else, sessions, services and the runtimes' helpers among them. Below a
    user's own manager (rootless podman) the name is that user's word.
    """
    parts = [part for part in cgroup_path.split(b"/") if part not in (b"", b"..")]
    for index, part in enumerate(parts):
        before = parts[index - 1] if index else b""
        match = _RUNTIME_ID.fullmatch(part) or _COLON_ID.fullmatch(part)
        if match:
            return match[1]
        # With cgroupfs podman keeps a pod's containers in libpod_parent/<pod id>.
        if _HEX_ID.fullmatch(part) and before != b"libpod_parent":
            return part
        name = _container_name(part, parts[:index])
        if name is not None:
            return name
    return None


def _container_name(part: bytes, above: list[bytes]) -> bytes | None:
    before = above[-1] if above else b""
    if before == b"machine.slice":
        match = _MACHINE_SCOPE.fullmatch(part) or _NSPAWN_SERVICE.fullmatch(part)
        # machined keeps virtual machines there too (qemu, lxc by libvirt); a hypervisor is not in a container.
        if match and not match[1].startswith((b"qemu\\x2d", b"qemu-")):
            return _unescaped(match[1])
    if match := _LXC_PAYLOAD.fullmatch(part):
        return match[1]
    if before == b"lxc.payload" or above == [b"lxc"]:
        return part
    # Garden sorts its containers into good and bad ones (by their CPU use), or keeps them directly under its own group.
    sorted_in = before in (b"good", b"bad") and above[-2:-1] == [b"garden"]
    return part if sorted_in or (before == b"garden" and part not in (b"good", b"bad")) else None


def systemd_unit(cgroup_path: bytes) -> bytes | None:
    """The system manager's unit that a cgroup path lies in, as the journal's _SYSTEMD_UNIT; None where there is none.

    That is the first name after the slices, if it is a unit's: for a user's programs session-2.scope or
    user@1000.service. The underscore systemd puts before names that clash with kernel files is taken off.
    """
    for part in cgroup_path.split(b"/"):
        if part in (b"", b"..") or part.endswith(b".slice"):
            continue
        unit = part.removeprefix(b"_")
        return unit if _UNIT.fullmatch(unit) else None
    return None


# ---------------------------------------------------------------------------------------------------------- identities

_UINT64 = (1 << 64) - 1


@lru_cache(maxsize=16)
def _entity_seed(host_id: str, boot_id: str) -> hashlib.blake2b:
    seed = hashlib.blake2b(digest_size=16, person=b"ebpf.entity.v1")
    for part in (host_id.encode(), boot_id.encode()):
        seed.update(len(part).to_bytes(4, "big") + part)
    return seed


def entity_id(host_id: str, boot_id: str, pid: int, start_ns: int) -> str:
    """`process.entity_id`: 22 characters of base64url, the same for the same process whoever computes it and when.

    base64url without padding (RFC 4648, section 5) of BLAKE2b, 16 bytes, personalization "ebpf.entity.v1", over host
    id, boot id (UTF-8), pid, start (8 bytes, big-endian, modulo 2**64), each after its length in 4 bytes, big-endian.
    `pid` is the thread group's in the init namespace, `start_ns` task_struct's start_boottime in nanoseconds, exact:
    the ticks in /proc/PID/stat give another id.
    """
    digest = _entity_seed(host_id, boot_id).copy()
    length = (8).to_bytes(4, "big")
    digest.update(length + (pid & _UINT64).to_bytes(8, "big") + length + (start_ns & _UINT64).to_bytes(8, "big"))
    return base64.urlsafe_b64encode(digest.digest())[:22].decode("ascii")


_MAX_SEQUENCE = (1 << 48) - 1


def event_id(host8: str, epoch16: str, sequence: int) -> str:
    """`event.id`: <8 hex host>-<16 hex epoch>-<12 hex sequence>; ValueError if a part does not fit its width."""
    if len(host8) != 8 or len(epoch16) != 16 or not 0 <= sequence <= _MAX_SEQUENCE:
        raise ValueError(f"not parts of an event id: {host8!r}, {epoch16!r}, {sequence}")
    return f"{host8}-{epoch16}-{sequence:012x}"


# ---------------------------------------------------------------------------------------------------------------- host

_MACHINE_ID = re.compile(rb"[0-9a-f]{32}")
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DMI_SERIALS = ("product_uuid", "product_serial", "board_serial")


class HostFactsError(Exception):
    """The host cannot be identified; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What identifies this host in every line.

    `id` is 32 hexadecimal digits, `id_source` says whence: "machine-id" (machine-id(5), or D-Bus's older copy), "dmi"
    (a hash of the firmware's serial numbers, stable as long as the hardware), "boot" (a hash of the boot id: another
    host after each boot). `agent_id`: 8 hexadecimal digits, a hash of `id`; `agent.id` and the host's part of event
    ids.
    """

    id: str
    id_source: str
    name: str
    boot_id: str
    agent_id: str

    @classmethod
    def read(cls, root: Path = Path("/")) -> HostFacts:
        """The facts of the host whose files are under `root`; HostFactsError without a boot id (no /proc)."""
        boot_file = root / "proc/sys/kernel/random/boot_id"
        boot_id = _first_line(boot_file)
        if not _UUID.fullmatch(boot_id):
            raise HostFactsError(f"{boot_file}: {'not a UUID' if boot_id else 'missing or empty'}; is /proc mounted?")
        host_id, source = _host_id(root, boot_id)
        name = _first_line(root / "proc/sys/kernel/hostname") or _first_line(root / "etc/hostname") or b"localhost"
        agent_id = hashlib.blake2b(host_id.encode(), digest_size=4, person=b"ebpf.agent.v1").hexdigest()
        return cls(host_id, source, names.text(name)[0], boot_id.decode("ascii"), agent_id)


def _host_id(root: Path, boot_id: bytes) -> tuple[str, str]:
    for file in ("etc/machine-id", "var/lib/dbus/machine-id"):
        machine_id = _first_line(root / file)
        # "uninitialized" stands there in an image's first boot; all zeros is no id (machine-id(5)).
        if _MACHINE_ID.fullmatch(machine_id) and machine_id.strip(b"0"):
            return machine_id.decode("ascii"), "machine-id"
    serials = b"\n".join(_first_line(root / "sys/class/dmi/id" / file) for file in _DMI_SERIALS)
    source, seed = ("dmi", serials) if serials.strip() else ("boot", boot_id)
    return hashlib.blake2b(seed, digest_size=16, person=b"ebpf.host.v1").hexdigest(), source


def _first_line(path: Path) -> bytes:
    """First line without surrounding blanks; b"" for a file that is missing, unreadable or empty."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 4096).partition(b"\n")[0].strip()
    except OSError:
        return b""
    finally:
        os.close(descriptor)
