"""The processes that were heard of: who started whom, which session they belong to, by which door their session came in.

Owns the table, keyed by process id and start time, and the rules for entry leaders. Bounded: processes that have ended go first.
What the kernel says of ancestors and leaders stands without it; the table adds names and entries.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from monitor import events, names, naming
from monitor.decode import Record
from monitor.encode import Document
from monitor.enrich import container_id, systemd_unit

Key = tuple[int, int]
"""(process id, start of its leader in CLOCK_BOOTTIME ns)"""
LIVING, ENDED = 65536, 16384
_SSH = {"sshd", "sshd-session", "sshd-auth", "dropbear"}
_DOORS = {**dict.fromkeys(_SSH, "sshd"), "ssm-session-worker": "ssm", "kubelet": "kubelet", "teleport": "teleport"}
_VT, _SERIAL_FROM, _CONSOLE, _HVC = 4, 64, (5, 1), 229
_FAMILIES = {2: 4, 10: 16}


@dataclass(frozen=True)
class Entry:
    """The process with which somebody or something came in, and by which door (ECS entry_meta.type)."""

    key: Key
    name: str
    user: Document
    door: str
    address: str = ""


@dataclass
class Known:
    """What is known of a process: the names of its program, leaf first (as records have them), container and entry."""

    executable: bytes = b""
    container: bytes | None = None
    entry: Entry | None = None
    exec_id: int = -1
    """of the exec that `executable` is of"""

    @property
    def name(self) -> str:
        """Base name of the program's file."""
        return _name(self.executable)


def _name(executable: bytes) -> str:
    """Base name of a program's names; none if it is not plain text: who it was, the entity id says."""
    shown, exact = names.text(executable.split(b"\0", 1)[0])
    return shown if exact else ""


def ancestors(record: Record) -> list[Key]:
    """Who started the process of this record, nearest first."""
    layout, raw = events.ANCESTOR, record.blobs.get("ancestors", b"")
    found = [layout.unpack(raw, at) for at in range(0, len(raw) - layout.size + 1, layout.size)]
    return [(int(one["tgid"]), int(one["start"])) for one in found]


class ProcessTable:
    """Every process since the start of the monitor, and those that the scan found."""

    def __init__(self, entity: Callable[[int, int], str], living: int = LIVING, ended: int = ENDED) -> None:
        """`entity` gives `process.entity_id` of (pid, start)."""
        self._entity = entity
        self._living: dict[Key, Known] = {}
        self._ended: dict[Key, Known] = {}
        self._limits = living, ended
        self._starts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._living) + len(self._ended)

    def get(self, key: Key) -> Known | None:
        """What is known of a process, also of one that has ended not long ago."""
        return self._living.get(key) or self._ended.get(key)

    def learn(self, record: Record, user: Document) -> Known:
        """Takes what a record of a living process says; `user` is the ECS object of its effective user."""
        key = record.values["tgid"], record.values["start"]
        known = self._living.get(key)
        if known is None:
            known = self._living[key] = self._inherited(record)
            self._starts[key[0]] = key[1]
            self._bound()
        if record.kind.name == "process_exec" or known.exec_id != record.values["exec_id"] or not known.executable:
            known.executable = record.blobs.get("executable", b"")
            known.exec_id = record.values["exec_id"]
        if "cgroup" in record.blobs:
            known.container = container_id(naming.cgroup_path(record.blobs["cgroup"]))
        if "context" in record.blobs and record.kind.name != "process_fork":
            known.entry = self._came_in(record, known, user) or known.entry
        return known

    def executed(self, record: Record) -> None:
        """Puts the program that was executed into the record: a process can exchange its file (prctl PR_SET_MM)."""
        values = record.values
        known = self.get((values["tgid"], values["start"])) or self._inherited(record)
        if record.kind.name != "process_exec" and known.exec_id == values["exec_id"] and known.executable:
            record.blobs["executable"] = known.executable

    def program(self, key: Key, exec_id: int) -> bytes:
        """The names of the program that a process runs since this exec, leaf first; b"" if that is not known."""
        known = self.get(key)
        return known.executable if known is not None and known.exec_id == exec_id else b""

    def _inherited(self, record: Record) -> Known:
        for distance, key in enumerate(ancestors(record)):
            above = self.get(key)
            if above is not None:
                executable, exec_id = (b"", -1) if distance else (above.executable, above.exec_id)
                return Known(executable, above.container, above.entry, exec_id)
        return Known()

    def _bound(self) -> None:
        living, ended = self._limits
        while len(self._living) > living:  # exits may have been lost: the oldest go
            key = next(iter(self._living))
            self._ended[key] = self._living.pop(key)
        while len(self._ended) > ended:
            key = next(iter(self._ended))
            del self._ended[key]
            if self._starts.get(key[0]) == key[1]:
                del self._starts[key[0]]

    def ended(self, key: Key) -> Known | None:
        """A process has ended; what was known of it, which stays for those that name it as their leader."""
        known = self._living.pop(key, None)
        if known is not None:
            self._ended[key] = known
            self._bound()
        return known

    # ---- entries ----
    def _came_in(self, record: Record, known: Known, user: Document) -> Entry | None:
        """The entry that this process is, if it is one: the leader of a session that began outside of any other."""
        context, key = events.CONTEXT.unpack(record.blobs["context"]), (record.values["tgid"], record.values["start"])
        if context["session"] != key[0]:
            return None
        above = next(iter(ancestors(record)), None)
        parent = self.get(above) if above is not None else None
        door, address = self._door(context, known, parent, record), ""
        size = _FAMILIES.get(int(context["peer_family"]))
        if door == "sshd" and size:
            address = str(ipaddress.ip_address(bytes(context["peer"])[:size]))
        return Entry(key, known.name, user, door, address) if door else None

    @staticmethod
    def _door(context: dict[str, Any], known: Known, parent: Known | None, record: Record) -> str:
        major, minor = context["tty"] >> 20, context["tty"] & 0xFFFFF
        came_from = _name(record.blobs.get("parent_executable", b""))
        if known.container and known.container != (parent.container if parent else None):
            return "container"
        if came_from in _DOORS and known.name not in _DOORS:
            return _DOORS[came_from]
        if (major, minor) == _CONSOLE or major == _HVC or (major == _VT and minor >= _SERIAL_FROM):
            return "console"
        if major == _VT:
            return "terminal"
        return "init" if record.values["ppid"] == 1 else ""

    # ---- documents ----
    def members(self, record: Record, raw: dict[str, str]) -> tuple[Document, Document]:
        """Members of `process` and of `ebpf` that say what the process of a record with a context belongs to.

        `raw` takes the exact bytes of a name that is not shown as it is.
        """
        if "context" not in record.blobs:
            return {}, {}
        context = events.CONTEXT.unpack(record.blobs["context"])
        about: Document = {}
        for role in ("session", "group"):
            pid = int(context[role])
            if pid:
                about[role + "_leader"] = self._leader(pid, int(context[role + "_start"]))
        known = self.get((record.values["tgid"], record.values["start"]))
        if known is not None and known.entry is not None:
            about["entry_leader"] = self._entry(known.entry)
        tty = int(context["tty"])
        if tty:
            about["tty"] = {"char_device": {"major": tty >> 20, "minor": tty & 0xFFFFF}}
        about["interactive"] = bool(tty)
        extra: Document = {}
        unit = systemd_unit(naming.cgroup_path(record.blobs.get("cgroup", b"")))
        if unit:
            extra["systemd"] = {"unit": names.put(raw, "ebpf.systemd.unit", unit)}
        started_by = [self._entity(*key) for key in ancestors(record)]
        if started_by:
            extra["ancestors"] = started_by
        return about, extra

    def _leader(self, pid: int, start: int) -> Document:
        start = start or self._starts.get(pid, 0)  # it has ended, its number is still taken: nobody else can have it
        if not start:
            return {"pid": pid}
        found: Document = {"pid": pid, "entity_id": self._entity(pid, start)}
        known = self.get((pid, start))
        if known is not None and known.name:
            found["name"] = known.name
        return found

    def _entry(self, entry: Entry) -> Document:
        meta: Document = {"type": entry.door}
        if entry.address:
            meta["source"] = {"ip": entry.address}
        found: Document = {"pid": entry.key[0], "entity_id": self._entity(*entry.key)}
        if entry.name:
            found["name"] = entry.name
        return found | {"user": entry.user, "entry_meta": meta}
