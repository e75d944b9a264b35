"""From what the kernel says of files, sockets and tasks to the parts of a document that name them.

Owns the names' form in the document; never looks anything up in /proc and never decides what is logged.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from monitor import encode, events, names, tables
from monitor.encode import Document, Names
from monitor.enrich import HostFacts, UserNames, container_id, entity_id

Facts = Mapping[str, Any]
_FLAGS = {value: name.lower() for name, value in events.FILE_FLAGS.items()}
_TYPES = {
    0o100000: "file",
    0o040000: "dir",
    0o120000: "symlink",
    0o020000: "char_device",
    0o060000: "block_device",
    0o010000: "fifo",
    0o140000: "socket",
}
UNSET = 0xFFFFFFFF


def path(components: bytes, flags: int) -> bytes:
    """The path that the kernel's names spell: leaf first, each with its NUL; b"/" for the root itself."""
    parts = components.split(b"\0")[:-1]
    parts.reverse()
    if flags & events.FILE_FLAGS["NO_PATH"]:  # above the names is nothing, or the root of what is nowhere mounted
        return b"/".join(part for part in parts if part not in (b"", b"/")) or b"".join(parts[-1:])
    return b"/" + b"/".join(parts)


def program_flags(components: bytes) -> int:
    """FILE_FLAGS that a file's names alone tell: an empty one is behind the last of one that hangs nowhere (memfd)."""
    return events.FILE_FLAGS["NO_PATH"] if components.endswith(b"\0\0") else 0


def join(base: bytes, name: bytes) -> bytes:
    """A caller's name made absolute; a name that is absolute already stands as given."""
    if name.startswith(b"/") or not base:
        return name
    return base.rstrip(b"/") + b"/" + name


def named_file(raw: bytes, source: str, *, claimed: bool = False, flags: int = 0) -> Names:
    """The parts for a file of which only the path is known."""
    found = Names()
    if raw or claimed:  # a pipe has none
        shown_name = names.text(names.basename(raw))[0]
        found.sections["file"] = {"path": names.put(found.raw, "file.path", raw), "name": shown_name}
    found.ebpf["path_source"] = source
    if claimed:
        found.ebpf["claimed"] = True
    shown = [name for bit, name in _FLAGS.items() if flags & bit]
    if shown:
        found.ebpf["path_flags"] = shown
    return found


def file(definition: Facts, components: bytes) -> Names:
    """The parts for a file definition (events.FILE_DEFINITION) and the names behind it."""
    found = named_file(path(components, definition["flags"]), "file", flags=definition["flags"])
    identity = file_identity(definition["ino"], definition["dev"], definition["mode"])
    found.sections["file"] = found.sections.get("file", {}) | identity
    return found


def file_identity(ino: int, dev: int, file_mode: int) -> Document:
    """inode, device, mode and type as ECS has them: strings."""
    return {
        "inode": str(ino),
        "device": encode.device(dev),
        "mode": encode.mode(file_mode),
        "type": _TYPES.get(file_mode & 0o170000, "unknown"),
    }


def _endpoint(family: int, raw: bytes, port: int) -> Document:
    size = 4 if family == socket.AF_INET else 16
    address = ipaddress.ip_address(raw[:size])
    return {"ip": str(address), "port": port}


def _unix(raw: bytes) -> bytes:
    """A Unix socket's name: a path, or "@" and the abstract name."""
    return b"@" + raw[1:] if raw.startswith(b"\0") else raw.split(b"\0", 1)[0]


def endpoint(definition: Facts, tail: bytes) -> Names:
    """The parts for a socket definition: source is the local end, destination the remote one."""
    found, family = Names(), definition["family"]
    about: Document = {
        "family": tables.socket_family(family),
        "type": tables.socket_type(definition["kind"]),
        "inode": str(definition["ino"]),
    }
    if definition["cookie"]:
        about["cookie"] = str(definition["cookie"])
    if definition["peer"]:
        about["peer_inode"] = str(definition["peer"])
    found.ebpf["socket"] = about
    if family in (socket.AF_INET, socket.AF_INET6):
        if definition["local_port"] or any(definition["local"]):
            found.sections["source"] = _endpoint(family, definition["local"], definition["local_port"])
        if definition["remote_port"] or any(definition["remote"]):
            found.sections["destination"] = _endpoint(family, definition["remote"], definition["remote_port"])
        found.sections["network"] = {
            "transport": tables.ip_protocol(definition["protocol"]),
            "type": "ipv4" if family == socket.AF_INET else "ipv6",
        }
    elif family == socket.AF_UNIX:
        local, remote = definition["local_bytes"], definition["remote_bytes"]
        for raw, name in ((tail[:local], "path"), (tail[local : local + remote], "peer_path")):
            if raw:
                about[name] = names.put(found.raw, f"ebpf.socket.{name}", _unix(raw))
    return found


def address(raw: bytes) -> tuple[str, int, bytes] | None:
    """(family, port, address or Unix name) of a sockaddr; None when it is too short to be one."""
    if len(raw) < 2:
        return None
    (family,) = struct.unpack_from("<H", raw)
    if family == socket.AF_INET and len(raw) >= 8:
        return "AF_INET", struct.unpack_from(">H", raw, 2)[0], raw[4:8]
    if family == socket.AF_INET6 and len(raw) >= 24:
        return "AF_INET6", struct.unpack_from(">H", raw, 2)[0], raw[8:24]
    if family == socket.AF_UNIX:
        return "AF_UNIX", 0, _unix(raw[2:])
    return tables.socket_family(family), 0, b""


def claim_address(found: Names, raw: bytes, section: str) -> None:
    """Puts the caller's sockaddr into `section` ("source", "destination") of `found` where the kernel gave none."""
    parsed = address(raw)
    if parsed is None:
        return
    family, port, where = parsed
    about = found.ebpf.setdefault("socket", {})
    about.setdefault("family", family)
    if family in ("AF_INET", "AF_INET6"):
        if where and section not in found.sections:
            named = found.sections | {section: {"ip": str(ipaddress.ip_address(where)), "port": port}}
            found.sections = {name: named[name] for name in ("source", "destination", "network") if name in named}
            found.ebpf["claimed"] = True
    elif family == "AF_UNIX":
        name = "peer_path" if section == "destination" else "path"
        if name not in about and where:
            about[name] = names.put(found.raw, f"ebpf.socket.{name}", where)
            found.ebpf["claimed"] = True


def drop_end(found: Names, section: str) -> None:
    """Takes away what the kernel's socket says of one end ("source", "destination")."""
    name = "peer_path" if section == "destination" else "path"
    found.sections.pop(section, None)
    found.ebpf.get("socket", {}).pop(name, None)
    found.raw.pop(f"ebpf_socket_{name}", None)


class Tasks:
    """From task facts (events.TASK) to the parts process, user, group and container."""

    def __init__(self, host: HostFacts, users: UserNames) -> None:
        self._users = users
        # 3 us each, and most records name a process that was named a moment ago
        self.entity = lru_cache(maxsize=16384)(partial(entity_id, host.id, host.boot_id))
        """`process.entity_id` of (pid, start in ns)."""

    def _account(self, number: int, name: Callable[[int], str | None]) -> Document:
        found, named = {"id": str(number)}, name(number)
        return found | {"name": named} if named is not None else found

    def parts(
        self,
        facts: Facts,
        executable: bytes | None,
        cgroup: bytes,
        raw: dict[str, str],
        *,
        full: bool,
        process: Document | None = None,
    ) -> Document:
        """The sections. `full` adds what only control events carry; `process` further members of `process`."""
        comm = bytes(facts["comm"]).split(b"\0", 1)[0]
        about: Document = {
            "thread": {"id": facts["tid"], "name": names.put(raw, "process.thread.name", comm)},
            "entity_id": self.entity(facts["tgid"], facts["start"]),
            "pid": facts["tgid"],
        }
        if executable:
            about["name"] = names.text(names.basename(executable))[0]
            about["executable"] = names.put(raw, "process.executable", executable)
        about |= process or {}
        about["parent"] = {"pid": facts["ppid"], "entity_id": self.entity(facts["ppid"], facts["parent_start"])}
        if full or facts["uid"] != facts["euid"]:
            about["real_user"] = self._account(facts["uid"], self._users.user)
        if full or facts["gid"] != facts["egid"]:
            about["real_group"] = self._account(facts["gid"], self._users.group)
        found: Document = {
            "process": about,
            "user": self._account(facts["euid"], self._users.user),
            "group": self._account(facts["egid"], self._users.group),
        }
        container = container_id(cgroup_path(cgroup))
        if container:
            found["container"] = {"id": names.put(raw, "container.id", container)}
        return found


def login(facts: Facts) -> Document:
    """`ebpf.login`: audit login uid and session, nothing when both are unset."""
    found = {
        name: facts[key] for name, key in (("uid", "login_uid"), ("session", "login_session")) if facts[key] != UNSET
    }
    return {"login": found} if found else {}


def cgroup_path(components: bytes) -> bytes:
    """The cgroup's path from its names, leaf first."""
    parts = components.split(b"\0")[:-1]
    return b"/" + b"/".join(reversed(parts))


def arguments(raw: bytes) -> Sequence[bytes]:
    """The arguments of a NUL separated block."""
    return raw[:-1].split(b"\0") if raw.endswith(b"\0") else raw.split(b"\0")
